"""Batches in an order that is a function of (seed, epoch), startable at any batch without replaying those before it."""

from __future__ import annotations

import itertools
import logging
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, cast

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from trainer.data.base import BatchSource, Data
from trainer.data.curriculum import Curriculum
from trainer.data.stream import Stream
from trainer.data.workers import Workers
from trainer.errors import DataError
from trainer.progress import Progress
from trainer.state import ORDER, SAMPLE, State, mix

log = logging.getLogger("trainer")

Batch = Any  # whatever the dataset's samples collate to; its first tensor has the samples along dimension 0
Accumulate = int | Literal["full"]


class Loader:
    """Hands out groups of micro-batches: one group is one optimizer update.

    The order of an epoch depends on the seed and the epoch's number alone. Randomness inside a dataset is seeded per
    sample by (seed, epoch, index), so that the number of workers, prefetching and a restart change nothing. A last
    batch of a single sample joins the one before it: batch norm cannot train on one.

    Args:
        dataset: any map-style torch dataset; a `BatchSource` or a `TensorDataset` is indexed a batch at a time. Or an
            `IterableDataset` with a length, which is read in its own order and can only be begun at an epoch's start.
        batch_size: samples of a batch.
        accumulate: batches of a group; the last group of an epoch may hold fewer. `full` is all of an epoch, which is
            then in memory at once.
        micro_batch: the most samples that are computed at once, where that is fewer than `batch_size`: each batch is
            handed out in equal parts. The groups hold the same samples, so that the updates are the same.
        shuffle: a new order each epoch; otherwise the dataset's own.
        workers: loader processes; 0 loads in this one. Not used by the fast path.
        limit: the most batches of an epoch, for a quick look.
        curriculum: which samples come first in a run of so many `epochs`; all from the start without it.

    Raises:
        DataError: the dataset is empty, or has no length.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        *,
        accumulate: Accumulate = 1,
        micro_batch: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        workers: int = 0,
        collate: Callable[[list[Any]], Any] | None = None,
        device: torch.device | None = None,
        limit: int | None = None,
        what: str = "training",
        curriculum: Curriculum | None = None,
        epochs: int = 1,
    ) -> None:
        if isinstance(dataset, DataLoader):
            raise DataError(f"data: the {what} set is a DataLoader; give its dataset, batches are made of it here")
        if not hasattr(dataset, "__len__"):
            raise DataError(f"data: the {what} set has no length; give it a __len__, the samples of an epoch")
        for name, value in {"batch_size": batch_size, "micro_batch": micro_batch, "limit": limit}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name}: {value} must be at least 1")
        if len(dataset) == 0:
            raise DataError(f"data: the {what} set is empty")
        self.dataset, self.batch_size = dataset, batch_size
        self.micro_batch = min(micro_batch or batch_size, batch_size)
        self.seed, self.shuffle, self.limit = seed, shuffle, limit
        self.device = device or torch.device("cpu")
        self.listener: Callable[[torch.Tensor], object] | None = None  # is given the indices of each batch in turn
        self._whole = self._find_cuts()  # where the batches of an epoch begin, and the end of the last
        self._cuts = self._divided(self.micro_batch)  # the same of their parts
        self.full, self.accumulate = accumulate == "full", _in_group(accumulate, len(self._whole) - 1)
        self.curriculum = curriculum.over(dataset, epochs, self.steps_per_epoch) if curriculum else None
        self._source = _as_source(dataset)
        pin = self.device.type == "cuda"
        self.stream = None
        if isinstance(dataset, IterableDataset):
            self.stream = Stream(dataset, seed, workers, collate, pin)
        self._workers = None if self._source or self.stream else Workers(dataset, seed, workers, collate, pin)

    def close(self) -> None:
        """Ends the worker processes; the next batches start new ones."""
        if self._workers is not None:
            self._workers.loader = None

    @property
    def samples(self) -> int:
        return len(self.dataset)

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches: what `batches` hands out."""
        return len(self._cuts) - 1

    @property
    def steps_per_epoch(self) -> int:
        return -(-(len(self._whole) - 1) // self.accumulate)

    def state_dict(self) -> State:
        curriculum = self.curriculum.identity if self.curriculum else "none"
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "micro_batch": self.micro_batch,
            "accumulate": self.accumulate,
            "curriculum": curriculum,
        }

    def load_state_dict(self, state: State) -> None:
        """Compares: the position in an epoch means nothing in another order."""
        for name, now in self.state_dict().items():
            if name != "micro_batch" and state[name] != now:
                log.warning(
                    "%s: was %s before and is %s now; the order of the data differs from here on",
                    name,
                    state[name],
                    now,
                )

    def rates(self, progress: Progress) -> dict[str, float]:
        """What a row says of the order: with a curriculum the share of the samples that its epoch draws from; the
        micro-batch, where that is less than a batch."""
        found: dict[str, float] = {}
        if self.micro_batch < self.batch_size:
            found["train/micro_batch"] = self.micro_batch
        if self.curriculum is not None:
            epoch = progress.epoch - (progress.batch == 0)  # at an epoch's end the counters stand at the next already
            found["train/curriculum"] = self.curriculum.share(epoch)
        return found

    def place(self, batch: int, state: State) -> int:
        """How many micro-batches of an epoch are done, as they are now, after `batch` of those of that `state`."""
        micro_batch = int(state.get("micro_batch") or state["batch_size"])
        if micro_batch == self.micro_batch or state["batch_size"] != self.batch_size:
            return batch
        cuts = self._divided(micro_batch)
        return bisect_left(self._cuts, cuts[min(batch, len(cuts) - 1)])

    def groups(self, epoch: int, start: int = 0) -> Iterator[list[Batch]]:
        """The groups of an epoch from micro-batch `start` on."""
        batches, at, whole = self.batches(epoch, start), start, self._whole
        first = bisect_right(whole, self._cuts[min(start, self.batches_per_epoch)]) - 1
        for cut in [*whole[first + self.accumulate : -1 : self.accumulate], whole[-1]]:
            end = bisect_left(self._cuts, cut)
            if end > at:
                yield list(itertools.islice(batches, end - at))
                at = end

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The micro-batches of an epoch from number `start` on, on the device."""
        pairs = list(itertools.pairwise(self._cuts[start:]))
        found: Iterator[Batch]
        if self.stream is not None:
            if start:
                raise ValueError(f"start: {start}, and an IterableDataset can only be begun at its start")
            found = self.stream.load([b - a for a, b in pairs], epoch)
        else:
            order = self._order(epoch)
            plan = [(self._draw(epoch, a), order[a:b]) for a, b in pairs]
            if self._source is not None:
                found = (self._source.batch_of(indices, mix(self.seed, SAMPLE, draw)) for draw, indices in plan)
            else:
                found = cast(Workers, self._workers).load(plan)
            found = found if self.listener is None else self._told([b for _, b in pairs], order, start, found)
        return found if self.device.type == "cpu" else (to_device(batch, self.device) for batch in found)

    def _draw(self, epoch: int, first: int) -> int:
        """What a micro-batch's randomness is seeded by, beside the seed: the same for all parts of a batch."""
        if self.curriculum is None:
            return epoch
        return self.curriculum.draw(epoch, self._whole[bisect_right(self._whole, first) - 1])

    def _told(
        self, ends: Sequence[int], order: torch.Tensor, start: int, batches: Iterator[Batch]
    ) -> Iterator[Batch]:
        """Tells of each batch once, before the last of its micro-batches: in how many it is cut changes nothing."""
        assert self.listener is not None
        whole, begun = set(self._whole), self._cuts[start]
        for end, batch in zip(ends, batches, strict=True):
            if end in whole:
                self.listener(order[begun:end])
                begun = end
            yield batch

    def _order(self, epoch: int) -> torch.Tensor:
        if not self.shuffle:
            return torch.arange(self.samples)
        if self.curriculum is not None:
            return self.curriculum.indices(self.seed, epoch)
        generator = torch.Generator().manual_seed(mix(self.seed, ORDER, epoch))
        return torch.randperm(self.samples, generator=generator)

    def _find_cuts(self) -> list[int]:
        cuts = [*range(0, self.samples, self.batch_size), self.samples]
        if len(cuts) > 2 and cuts[-1] - cuts[-2] == 1 and self.batch_size > 1 and self.shuffle:
            del cuts[-2]
        return cuts[: self.limit + 1] if self.limit else cuts

    def _divided(self, micro_batch: int) -> list[int]:
        """Where the parts of the batches begin: of at most so many samples, and none of a single one if it can be."""
        if micro_batch >= self.batch_size:
            return self._whole
        cuts = [0]
        for a, b in itertools.pairwise(self._whole):
            parts = -(-(b - a) // micro_batch)
            if micro_batch > 1 and b - a < 2 * parts:
                parts = max(1, (b - a) // 2)
            cuts += [a + (b - a) * n // parts for n in range(1, parts + 1)]
        return cuts


def loader_of(data: Data, which: Literal["train", "val"], batch_size: int, **options: Any) -> Loader:
    """The loader of the training set, in a new order each epoch, or of the validation set, in its own."""
    dataset, train = (data.train, True) if which == "train" else (data.val, False)
    assert dataset is not None
    what = "training" if train else "validation"
    options = {"workers": data.num_workers, "collate": data.collate, "shuffle": train, "what": what, **options}
    return Loader(dataset, batch_size, **options)


def _in_group(accumulate: Accumulate, batches: int) -> int:
    if accumulate == "full":
        return batches
    if isinstance(accumulate, bool) or not isinstance(accumulate, int) or accumulate < 1:
        raise ValueError(f"accumulate: {accumulate!r} must be a whole number, at least 1, or full (all of an epoch)")
    return accumulate


def samples_of(batch: Batch) -> int:
    """How many samples a batch holds: the first dimension of the first tensor in it.

    Raises:
        DataError: there is no tensor with a dimension.
    """
    tensor = _first_tensor(batch)
    if tensor is None:
        raise DataError("data: a batch holds no tensor with a dimension for its samples, so they cannot be counted")
    return tensor.shape[0]


def _first_tensor(batch: Batch) -> torch.Tensor | None:
    if isinstance(batch, torch.Tensor):
        return batch if batch.ndim else None
    inner = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, (list, tuple)) else ()
    return next((found for item in inner if (found := _first_tensor(item)) is not None), None)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The same batch with its tensors on the device; lists, tuples and dictionaries are followed."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def _as_source(dataset: Dataset[Any]) -> BatchSource | None:
    if type(dataset) is TensorDataset:
        return _Tensors(dataset.tensors)
    return dataset if callable(getattr(dataset, "batch_of", None)) and isinstance(dataset, BatchSource) else None


class _Tensors:
    """A `TensorDataset` indexed a batch at a time: 8 to 10 times as fast as a DataLoader over it."""

    def __init__(self, tensors: tuple[torch.Tensor, ...]) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def batch_of(self, indices: torch.Tensor, epoch_seed: int) -> tuple[torch.Tensor, ...]:
        return tuple(tensor.index_select(0, indices) for tensor in self.tensors)
