"""A dataset that is only iterated: its own order, exact draws in every attempt, a resume at the start of an epoch."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset

from tests.small import Recorder, Regression, StopAt, make_trainer, points, timeless, weights_of
from trainer.data.loader import Loader
from trainer.errors import ConfigError, DataError, WorkerError
from trainer.loop import Trainer


class Drawn(IterableDataset[Any]):
    """The points in an order that is drawn when an epoch begins, each with noise of three generators."""

    def __init__(self, count: int = 11, promised: int | None = None) -> None:
        self.tensors, self.promised = points(count).tensors, promised or count
        self.epochs: list[int] = []

    def __len__(self) -> int:
        return self.promised

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __iter__(self) -> Iterator[Any]:
        for index in torch.randperm(len(self.tensors[0])).tolist():
            noise = torch.rand(1) + np.random.rand() + random.random()
            yield self.tensors[0][index] + noise.float(), self.tensors[1][index]


def read(loader: Loader, epoch: int = 0) -> Any:
    return timeless([list(batch) for batch in loader.batches(epoch)])


def test_an_epoch_is_a_function_of_the_seed_and_its_number_whatever_was_drawn_before_and_wherever_it_is_read() -> None:
    here, there = Loader(Drawn(), 3), Loader(Drawn(), 3, workers=2)
    first = read(here)
    torch.manual_seed(5)
    random.seed(5)
    assert read(here) == first == read(there)
    assert read(here, 1) == read(there, 1) != first
    assert read(Loader(Drawn(), 3, seed=1)) != first


def test_training_between_two_batches_does_not_change_what_the_stream_draws() -> None:
    loader, found = Loader(Drawn(), 3), []
    for batch in loader.batches(0):
        found.append(list(batch))
        torch.manual_seed(len(found))
        np.random.seed(len(found))
    assert timeless(found) == read(Loader(Drawn(), 3))


def test_an_order_that_is_drawn_before_the_first_sample_is_asked_for_is_the_epochs_too() -> None:
    class Eager(Drawn):
        def __iter__(self) -> Iterator[Any]:
            return iter([*super().__iter__()])

    loader = Loader(Eager(), 3)
    first = read(loader)
    torch.manual_seed(5)
    assert read(loader) == first != read(loader, 1)


def test_batches_are_cut_as_those_of_any_dataset_and_no_more_is_read_than_promised() -> None:
    sizes = [[len(batch[0]) for batch in Loader(Drawn(count), 3).batches()] for count in (6, 8, 10)]
    assert sizes == [[3, 3], [3, 3, 2], [3, 3, 4]]
    assert [len(batch[0]) for batch in Loader(Drawn(11, promised=5), 3).batches()] == [3, 2]
    assert Loader(Drawn(), 3, limit=2).batches_per_epoch == len(read(Loader(Drawn(), 3, limit=2))) == 2


def test_the_dataset_is_told_the_epoch() -> None:
    dataset = Drawn()
    for epoch in (0, 4):
        read(Loader(dataset, 3), epoch)
    assert dataset.epochs == [0, 4]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_that_ends_early_is_told(workers: int) -> None:
    with pytest.raises(DataError, match="the stream ended in batch 4 of epoch 1, and its __len__ promises 20 samples"):
        read(Loader(Drawn(11, promised=20), 3, workers=workers))


def test_a_worker_that_dies_is_told() -> None:
    class Deadly(Drawn):
        def __iter__(self) -> Iterator[Any]:
            for n, sample in enumerate(super().__iter__()):
                if n == 7:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield sample

    with pytest.raises(WorkerError, match="the loader worker exited unexpectedly"):
        read(Loader(Deadly(), 3, workers=1))


# ------------------------------------------------------------------------------------------------ a run over it


def trainer_of(folder: Path | None = None, **options: Any) -> Trainer:
    return make_trainer(data=(Drawn(), Drawn(5)), folder=folder, **options)


def test_a_run_that_is_stopped_inside_an_epoch_goes_on_at_its_start_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, recorder = trainer_of(tmp_path / "whole"), Recorder()
    whole.fit()
    cut = trainer_of(tmp_path / "cut", task=StopAt(6))
    ended = cut.fit()
    assert (ended.state, ended.exit_code, ended.step) == ("interrupted", 143, 6)
    assert cut.checkpoints.names()[-1] == "step-000000004"
    assert [row["step"] for row in cut.trackers.trackers[0].got] == [1, 2, 3, 4, 5, 6]
    again = trainer_of(tmp_path / "cut", resume="must", recorder=recorder)
    assert (again.progress.step, again.progress.batch) == (4, 0)
    again.fit()
    assert weights_of(again.model) == weights_of(whole.model)
    assert timeless(recorder.got) == timeless(whole.trackers.trackers[0].got[4:])


@pytest.mark.parametrize("key", ["evaluate_every", "checkpoint_every"])
def test_a_boundary_inside_an_epoch_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=f"^{key}: 3steps falls inside an epoch.*type {key}=1epoch"):
        trainer_of(**{key: "3steps"}).fit()


def test_a_checkpoint_that_is_due_by_the_clock_waits_for_the_end_of_the_epoch(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, checkpoint_every="0.000001s")
    trainer.patience.monitor = "val/loss"
    trainer.best.row = {"val/loss": -1.0}  # so that only the clock asks for one
    trainer.checkpoints.keep = 9
    trainer.fit()
    assert trainer.checkpoints.names() == ["step-000000004", "step-000000008", "step-000000012"]


def test_no_worker_outlives_an_epoch_that_was_left(tmp_path: Path) -> None:
    before = set(multiprocessing.active_children())
    trainer = trainer_of(tmp_path, task=Regression())
    trainer.loader.stream.workers = 1  # type: ignore[union-attr]
    for _ in zip(trainer.loader.groups(0), range(1), strict=False):
        pass
    trainer.fit()
    assert set(multiprocessing.active_children()) <= before
