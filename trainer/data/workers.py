"""Loader processes that change nothing: seeded by sample, replaced where they die."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from trainer.errors import WorkerError
from trainer.state import SAMPLE, mix, seed_generators

log = logging.getLogger("trainer")

Batch = Any


def worker_init() -> Callable[[int], None]:
    """What a worker of this process does first."""
    own_child = multiprocessing.get_start_method() != "forkserver"  # there the parent is a server
    return functools.partial(_start, parent=os.getpid() if own_child else None)


def _start(_: int, parent: int | None) -> None:
    """Ctrl-C reaches the whole process group: the training process answers it, and its workers go on until told."""
    if parent not in (None, os.getppid()):
        os._exit(1)  # killed meanwhile; torch would watch for the death of whoever is the parent by now
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def started(loader: DataLoader[Any]) -> Iterator[Batch]:
    """The loader's batches; the death of a worker is seen where the next one is fetched.

    torch's own handler raises at any line when a worker dies, half-way through an update too.
    """
    batches = iter(loader)
    if loader.num_workers and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return batches


def died(error: Exception, workers: int) -> bool:
    """Whether this is how the death of a worker shows, and no error of the dataset's own.

    Which kind it is depends on what the worker was doing: it may have handed out a batch by half.
    """
    if not workers or "in DataLoader worker process" in str(error):
        return False
    return not isinstance(error, RuntimeError) or "exited unexpectedly" in str(error)


class _Plan:
    """The batches of an epoch, as lists of (epoch, index): what a DataLoader takes as batch sampler."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, int]]] = []

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class Workers:
    """A DataLoader that is told its batches."""

    def __init__(self, dataset: Dataset[Any], seed: int, workers: int, collate: Any, pin: bool) -> None:
        self.plan, self.workers = _Plan(), workers
        self.loader: DataLoader[Any] | None = None
        self._make = functools.partial(
            DataLoader,
            _Seeded(dataset, seed),
            batch_sampler=self.plan,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin,
            collate_fn=collate,
            worker_init_fn=worker_init(),
            generator=torch.Generator(),  # else each epoch would draw from the main generator and shift it
        )

    def load(self, plan: list[tuple[int, torch.Tensor]]) -> Iterator[Batch]:
        """The batches in turn, each given as (epoch, indices). Where a worker dies (a signal to the whole process group
        ends them all) new ones start at the batch that is due, which changes nothing; only if that fails too it is an
        error."""
        done, failed_at = 0, -1
        while done < len(plan):
            try:
                for batch in self._start(plan[done:]):
                    yield batch
                    done += 1
            except (RuntimeError, ConnectionError, EOFError) as error:
                if not died(error, self.workers):
                    raise
                self.loader = None
                if failed_at == done:
                    raise WorkerError(
                        f"data: a loader worker exited unexpectedly, twice at the same batch ({error}); "
                        "out of memory? Use fewer data.num_workers, or 0 to see what goes wrong"
                    ) from error
                failed_at = done
                log.warning("data: a loader worker exited unexpectedly (%s); new ones load what is missing", error)

    def _start(self, plan: list[tuple[int, torch.Tensor]]) -> Iterator[Batch]:
        self.plan.batches = [[(epoch, index) for index in indices.tolist()] for epoch, indices in plan]
        self.loader = self.loader or self._make()
        return started(self.loader)


class _Seeded(Dataset[Any]):
    """Any dataset, with the main generators seeded per sample before it is asked for one."""

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, key: tuple[int, int]) -> Any:
        epoch, index = key
        seed_generators(mix(self.seed, SAMPLE, epoch, index))
        return self.dataset[index]
