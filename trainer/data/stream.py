"""Batches of an `IterableDataset`: read in its own order, from the start of an epoch only."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate

from trainer.data.workers import died, started, worker_init
from trainer.errors import DataError, WorkerError
from trainer.state import SAMPLE, mix, seed_generators


class Stream:
    """Reads an `IterableDataset`, in this process or in one worker (several would each read all of it).

    Its `set_epoch(epoch)`, where it has one, is called before each epoch. What it draws for its n-th sample depends on
    (seed, epoch, n) alone. Its position inside an epoch is known to nobody: a run can go on at an epoch's start only.

    Args:
        dataset: with a `__len__`, the samples of an epoch; those after them are not read.
        seed: of what it draws. workers: 0 or more. collate, pin: as a DataLoader takes them.
    """

    def __init__(
        self,
        dataset: IterableDataset[Any],
        seed: int,
        workers: int,
        collate: Callable[[list[Any]], Any] | None,
        pin: bool,
    ) -> None:
        self.dataset, self.seed, self.workers = dataset, seed, min(workers, 1)
        self.collate, self.pin = collate or default_collate, pin

    def load(self, sizes: list[int], epoch: int) -> Iterator[Any]:
        """Batches of these sizes from the start of an epoch.

        Raises:
            DataError: it ends before. WorkerError: the worker died.
        """
        loader: DataLoader[Any] = DataLoader(
            _Chunks(self.dataset, sizes, self.seed, epoch),
            batch_size=None,
            num_workers=self.workers,
            pin_memory=self.pin,
            collate_fn=self.collate,
            worker_init_fn=worker_init(),
            generator=torch.Generator(),
        )
        read = 0
        try:
            for batch in started(loader):
                yield batch
                read += 1
        except (RuntimeError, ConnectionError, EOFError) as error:
            if not died(error, self.workers):
                raise
            raise WorkerError(
                f"data: the loader worker exited unexpectedly ({error}); out of memory? data.num_workers=0 shows it"
            ) from error
        if read < len(sizes):
            raise DataError(
                f"data: the stream ended in batch {read + 1} of epoch {epoch + 1}, and its __len__ promises "
                f"{len(self.dataset)} samples"  # type: ignore[arg-type]
            )


class _Chunks(IterableDataset[Any]):
    """The samples of an epoch as lists, one for each batch."""

    def __init__(self, dataset: IterableDataset[Any], sizes: list[int], seed: int, epoch: int) -> None:
        self.dataset, self.sizes, self.seed, self.epoch = dataset, sizes, seed, epoch

    def __iter__(self) -> Iterator[list[Any]]:
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(self.epoch)
        seed_generators(mix(self.seed, SAMPLE, self.epoch))
        samples, count, end = iter(self.dataset), itertools.count(), object()
        for size in self.sizes:
            chunk = []
            for _ in range(size):
                seed_generators(mix(self.seed, SAMPLE, self.epoch, next(count)))
                chunk.append(next(samples, end))
            if chunk[-1] is end:
                return
            yield chunk
