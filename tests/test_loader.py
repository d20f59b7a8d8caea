"""The order of the data is f(seed, epoch), an epoch can start anywhere, and randomness belongs to the sample."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import signal
import threading
import traceback
from collections import namedtuple
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from tests.small import bits, points
from trainer.data.loader import Loader, samples_of, to_device
from trainer.data.workers import _start
from trainer.errors import ConfigError, DataError, WorkerError


class Noisy(Dataset[Any]):
    """Samples with a draw from each generator, as an augmentation makes them."""

    def __init__(self, count: int = 11) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        draws = [torch.rand(1).item(), np.random.rand(), random.random(), torch.randn(1).item(), np.random.randn()]
        return torch.tensor([index, *draws], dtype=torch.float64), index


class Whole(Dataset[Any]):
    """A batch source: what is drawn for a sample depends on the seed of the epoch and on its index alone."""

    def __len__(self) -> int:
        return 11

    def __getitem__(self, index: int) -> Any:
        return torch.tensor(index), torch.tensor(index)

    def batch_of(self, indices: torch.Tensor, epoch_seed: int) -> tuple[torch.Tensor, ...]:
        return indices, torch.tensor([random.Random(epoch_seed ^ n).random() for n in indices.tolist()])


def plain(batches: Any) -> list[Any]:
    return [[bits(tensor) for tensor in batch] for batch in batches]


def made(kind: str, **changes: Any) -> Loader:
    dataset: Any = {"tensors": points(), "source": Whole(), "subset": Subset(points(), range(11))}.get(kind, Noisy())
    workers = 2 if kind == "2 workers" else 0
    return Loader(dataset, **{"batch_size": 3, "seed": 5, "workers": workers, **changes})


KINDS = ["tensors", "source", "subset", "0 workers", "2 workers"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_started_at_any_batch_is_the_tail_of_the_whole_epoch(kind: str) -> None:
    loader = made(kind)
    whole = plain(loader.batches(epoch=2))
    assert len(whole) == loader.batches_per_epoch == 4
    for start in range(5) if kind != "2 workers" else (1, 4):
        random.seed(start)
        torch.manual_seed(start)  # the main generators decide nothing
        assert plain(loader.batches(epoch=2, start=start)) == whole[start:]


@pytest.mark.parametrize("kind", ["tensors", "0 workers"])
def test_the_order_depends_on_the_seed_and_the_epoch_alone(kind: str) -> None:
    orders = {}
    for seed in (5, 6):
        for epoch in (0, 1, 2):
            order = [plain(made(kind, seed=seed).batches(epoch)) for _ in range(2)]
            assert order[0] == order[1]
            orders[seed, epoch] = str(order[0])
    assert len(set(orders.values())) == 6
    loader = made(kind)
    list(loader.batches(7))  # epochs before leave no trace
    assert str(plain(loader.batches(0))) == orders[5, 0]


@pytest.mark.parametrize("kind", ["tensors", "subset"])
def test_each_sample_comes_once_an_epoch(kind: str) -> None:
    seen = torch.cat([batch[0] for batch in made(kind).batches(3)])
    expected = points().tensors[0]
    assert not torch.equal(seen, expected)
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, expected.tolist()))


def test_the_number_of_workers_changes_nothing_over_several_epochs() -> None:
    none, two = made("0 workers"), made("2 workers")
    for epoch, start in [(0, 0), (1, 0), (2, 2), (2, 0), (0, 0)]:
        assert plain(none.batches(epoch, start)) == plain(two.batches(epoch, start))


def test_a_batch_source_gets_another_seed_for_each_epoch_and_each_seed_of_the_run() -> None:
    loaders = [made("source", seed=seed, shuffle=False, batch_size=11) for seed in (5, 6)]
    draws = [bits(next(iter(loader.batches(epoch)))[1]) for loader in loaders for epoch in (0, 1, 2)]
    assert len(set(draws)) == 6


def test_an_epoch_that_was_left_half_way_does_not_shift_the_next_one() -> None:
    expected = plain(made("0 workers").batches(1))
    for kind in ("0 workers", "2 workers"):
        loader = made(kind)
        left = loader.batches(0)
        next(left)
        assert plain(loader.batches(1)) == expected


def test_a_sample_draws_anew_each_epoch_and_each_draw_differs_from_sample_to_sample() -> None:
    loader = made("0 workers", batch_size=11)
    first, second = (next(iter(loader.batches(epoch)))[0] for epoch in (0, 1))
    for column in range(1, 6):
        assert len({*first[:, column].tolist(), *second[:, column].tolist()}) == 22


def test_the_augmentation_of_a_sample_does_not_depend_on_its_batch() -> None:
    def drawn(loader: Loader) -> dict[int, list[float]]:
        return {int(row[0]): row.tolist() for batch in loader.batches(1) for row in batch[0]}

    assert drawn(made("0 workers")) == drawn(made("0 workers", batch_size=5)) == drawn(made("0 workers", shuffle=False))


def test_loading_leaves_the_main_generators_alone_with_workers_and_in_the_fast_path() -> None:
    for kind in ("tensors", "source", "2 workers"):
        loader = made(kind)
        states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        list(loader.batches(0))
        list(loader.batches(1))
        assert torch.equal(torch.get_rng_state(), states[0])
        assert np.random.get_state()[1].tolist() == states[1]
        assert random.getstate() == states[2]


# ------------------------------------------------------------------------------------------------ groups and sizes


def sizes(loader: Loader, start: int = 0) -> list[list[int]]:
    return [[samples_of(batch) for batch in group] for group in loader.groups(0, start)]


@pytest.mark.parametrize(
    ("count", "batch_size", "accumulate", "expected"),
    [
        (11, 3, 1, [[3], [3], [3], [2]]),
        (11, 3, 3, [[3, 3, 3], [2]]),
        (11, 3, 2, [[3, 3], [3, 2]]),
        (11, 3, 9, [[3, 3, 3, 2]]),
        (10, 3, 1, [[3], [3], [4]]),  # a last sample alone joins the batch before it
        (10, 3, 2, [[3, 3], [4]]),
        (4, 3, 1, [[4]]),
        (3, 3, 1, [[3]]),
        (2, 3, 1, [[2]]),
        (1, 3, 1, [[1]]),
        (3, 1, 1, [[1], [1], [1]]),
        (12, 3, 2, [[3, 3], [3, 3]]),
    ],
)
def test_an_epoch_is_cut_into_groups(count: int, batch_size: int, accumulate: int, expected: list[list[int]]) -> None:
    loader = Loader(points(count), batch_size, accumulate=accumulate)
    assert sizes(loader) == expected
    assert loader.steps_per_epoch == len(expected)
    assert loader.batches_per_epoch == sum(map(len, expected))
    assert loader.samples == count
    for done in range(len(expected)):
        assert sizes(loader, start=done * accumulate) == expected[done:]


def test_in_evaluation_the_order_is_the_datasets_own_and_a_last_sample_stays_alone() -> None:
    loader = Loader(points(10), 3, shuffle=False)
    assert sizes(loader) == [[3], [3], [3], [1]]
    assert torch.equal(torch.cat([batch[0] for batch in loader.batches()]), points(10).tensors[0])


@pytest.mark.parametrize(
    ("limit", "expected"), [(1, [3]), (2, [3, 3]), (4, [3, 3, 3, 2]), (9, [3, 3, 3, 2]), (None, [3, 3, 3, 2])]
)
def test_a_limit_cuts_the_epoch_short(limit: int | None, expected: list[int]) -> None:
    loader = Loader(points(), 3, limit=limit)
    assert [size for group in sizes(loader) for size in group] == expected
    assert loader.batches_per_epoch == len(expected)
    whole = plain(Loader(points(), 3).batches(1))
    assert plain(loader.batches(1)) == whole[: len(expected)]


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield 1


class Unknown(Dataset[Any]):
    def __getitem__(self, index: int) -> Any:
        return index


@pytest.mark.parametrize("dataset", [Endless(), Unknown()], ids=["iterable", "no length"])
def test_a_dataset_without_a_length_is_refused(dataset: Any) -> None:
    with pytest.raises(DataError, match="^data: the validation set has no length; give it a __len__"):
        Loader(dataset, 2, what="validation")


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(DataError, match="^data: the training set is empty"):
        Loader(TensorDataset(torch.zeros(0, 3)), 2)


@pytest.mark.parametrize(("count", "limit"), [(11, None), (10, None), (1, None), (11, 2)])
def test_a_full_group_is_the_whole_epoch(count: int, limit: int | None) -> None:
    loader = Loader(points(count), 3, accumulate="full", limit=limit)
    (group,) = loader.groups(2)
    assert plain(group) == plain(Loader(points(count), 3, limit=limit).batches(2))
    assert (loader.steps_per_epoch, loader.batches_per_epoch) == (1, len(group))


class Counting(IterableDataset[Any]):
    def __len__(self) -> int:
        return 7

    def __iter__(self) -> Iterator[Any]:
        yield from torch.arange(7.0)[:, None]


def test_a_full_group_of_a_stream_is_the_whole_epoch() -> None:
    (group,) = Loader(Counting(), 3, accumulate="full").groups(0)
    assert [batch.flatten().tolist() for batch in group] == [[0, 1, 2], [3, 4, 5, 6]]


@pytest.mark.parametrize("word", ["ful", "", None, 0, -1, 1.5, True], ids=str)
def test_a_wrong_number_of_batches_in_a_group_is_refused_with_what_is_allowed(word: Any) -> None:
    with pytest.raises(ValueError, match=r"^accumulate: .* must be a whole number, at least 1, or full \(all of"):
        Loader(points(), 3, accumulate=word)


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"batch_size": -1}, {"limit": 0}])
def test_a_size_that_is_not_positive_is_refused_by_its_name(settings: dict[str, int]) -> None:
    with pytest.raises((ValueError, ConfigError), match=f"{next(iter(settings))}: "):
        Loader(points(), **{"batch_size": 3, **settings})


# ------------------------------------------------------------------------------------------------ batches

Pair = namedtuple("Pair", ["image", "label"])  # noqa: PYI024


def test_a_nested_batch_keeps_its_form_and_each_tensor_is_moved() -> None:
    x = torch.zeros(4, 2)
    moved = to_device({"a": [x, (x, "name")], "pair": Pair(x, 3), "none": None}, torch.device("meta"))
    assert moved["a"][0].device.type == moved["a"][1][0].device.type == moved["pair"].image.device.type == "meta"
    assert moved["a"][1][1] == "name"
    assert type(moved["a"]) is list
    assert type(moved["a"][1]) is tuple
    assert isinstance(moved["pair"], Pair)
    assert (moved["pair"].label, moved["none"]) == (3, None)


@pytest.mark.parametrize(
    "batch",
    [
        torch.zeros(4, 2), [torch.zeros(4), torch.zeros(9)], ({"x": torch.zeros(4, 1)}, torch.zeros(9)),
        Pair(torch.zeros(4), torch.zeros(9)),
        {"name": ["a", "b", "c", "d"], "x": torch.zeros(4, 2)}, (["a", "b", "c", "d"], torch.zeros(4)),
    ],
    ids=["tensor", "list", "nested", "named tuple", "names first", "names first in a tuple"],
)  # fmt: skip
def test_samples_are_counted_by_the_first_tensor(batch: Any) -> None:
    with alarm():
        assert samples_of(batch) == 4


@pytest.mark.parametrize("batch", [[], {}, (), ["a", "b"], 3, {"a": None}, torch.tensor(1.0)], ids=str)
def test_a_batch_without_a_tensor_to_count_is_refused(batch: Any) -> None:
    with alarm(), pytest.raises(DataError, match="^data: "):
        samples_of(batch)


class alarm:  # noqa: N801
    """Ends what would not end by itself."""

    def __enter__(self) -> None:
        self.old = signal.signal(signal.SIGALRM, self.ring)
        signal.setitimer(signal.ITIMER_REAL, 1.0)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.old)

    def ring(self, *_: object) -> None:
        raise AssertionError("it does not end")


def test_a_collate_function_of_the_users_makes_the_batches() -> None:
    loader = Loader(Noisy(), 4, collate=lambda samples: {"index": torch.tensor([s[1] for s in samples])})
    batch = next(iter(loader.batches(0)))
    assert list(batch) == ["index"]
    assert samples_of(batch) == 4


# ------------------------------------------------------------------------------------------------ workers


class Deadly(Noisy):
    """Its fifth sample ends the process that asks for it."""

    def __getitem__(self, index: int) -> Any:
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_a_worker_that_dies_is_an_error_where_the_batch_is_fetched() -> None:
    loader = Loader(Deadly(), 3, workers=1, shuffle=False)
    with pytest.raises(WorkerError, match="worker.*exited unexpectedly"):
        list(loader.batches())


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("error", [EOFError, ConnectionResetError])
def test_an_error_of_the_dataset_is_no_death_of_a_worker(error: type[Exception], workers: int) -> None:
    class Fails(Noisy):
        def __getitem__(self, index: int) -> Any:
            raise error("a file of no bytes")

    with pytest.raises(error, match="a file of no bytes") as caught:
        list(Loader(Fails(), 3, workers=workers).batches())
    traceback.clear_frames(caught.tb)  # lets the worker go at once; the collector of cycles would wait 5 s for it


def test_a_loader_that_is_let_go_ends_its_workers_at_once() -> None:
    """A sweep makes one after the other in one process; what only the collector of cycles finds waits 5 s a worker."""
    loader = made("2 workers")
    list(loader.batches())
    before = set(multiprocessing.active_children())
    gc.disable()
    try:
        del loader
        assert len(before - set(multiprocessing.active_children())) == 2
    finally:
        gc.enable()


def test_workers_can_be_used_outside_the_main_thread() -> None:
    """A notebook or a sweep may train in a thread; `Signals` allows it, so the loader must, too."""
    found: list[Any] = []

    def load() -> None:
        try:
            found.append(plain(made("2 workers").batches(0)))
        except Exception as error:  # noqa: BLE001
            found.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
    assert found == [plain(made("0 workers").batches(0))]


def test_workers_ignore_ctrl_c_and_use_one_thread() -> None:
    class Asks(Noisy):
        def __getitem__(self, index: int) -> Any:
            os.kill(os.getpid(), signal.SIGINT)
            return torch.get_num_threads()

    assert {n for batch in Loader(Asks(4), 2, workers=1).batches() for n in batch.tolist()} == {1}


def test_a_worker_whose_training_was_killed_while_it_started_ends_too() -> None:
    """torch's own watch begins with whoever is the parent by then, and would watch for ever."""
    child = os.fork()
    if child == 0:
        _start(0, parent=1 << 22)  # no process has that number
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
