"""The rows of a run: means over the steps between two rows, one row a step."""

from __future__ import annotations

import math

import pytest
import torch

from tests.small import make_trainer, recorder_of
from trainer.errors import DivergedError
from trainer.history import ROWS_AT_ONCE, History, check
from trainer.progress import Progress
from trainer.state import restore, snapshot


def fed(history: History, *losses: tuple[float, int]) -> History:
    for loss, samples in losses:
        history.add([torch.tensor(loss)], [samples], torch.tensor(loss * 2))
    return history


def test_a_row_is_the_mean_since_the_row_before_and_samples_count_in_the_loss() -> None:
    history = fed(History(), (1.0, 3), (2.0, 1))
    first = dict(history.row(Progress(0, 2, 2, 4), 1.23456, {"lr": 0.1}))
    assert first == {"step": 2, "epoch": 0, "time": 1.235, "train/loss": 1.25, "train/grad_norm": 3.0, "lr": 0.1}
    fed(history, (5.0, 2))
    second = history.row(Progress(0, 3, 3, 6), 2.0, {"lr": 0.1})
    assert (second["train/loss"], second["train/grad_norm"]) == (5.0, 10.0)


def test_asked_twice_at_a_step_it_is_the_same_row() -> None:
    history = fed(History(), (1.0, 1))
    row = history.row(Progress(step=1), 0.0, {"lr": 0.1})
    again = history.row(Progress(epoch=1, step=1), 5.0, {"lr": 0.1})
    assert again is row
    assert (row["epoch"], row["train/loss"]) == (1, 1.0)
    assert history.take() == [row]


def test_rows_are_handed_on_in_order_and_once_as_plain_numbers() -> None:
    history = History()
    for step in (1, 2, 3):
        fed(history, (float(step), 1)).row(Progress(step=step), 0.0, {})
    rows = history.take()
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert {type(value) for row in rows for value in row.values()} <= {int, float}
    assert history.last == rows[-1]
    assert history.take() == []
    assert history.last == rows[-1]


def test_rows_are_handed_on_after_so_many_and_never_between_two_questions_at_the_same_step() -> None:
    history = History()
    assert not history.due(0)
    for step in range(ROWS_AT_ONCE):
        assert not history.due(step)
        history.row(Progress(step=step), 0.0, {})
    assert not history.due(ROWS_AT_ONCE - 1)
    assert history.due(ROWS_AT_ONCE)
    history.take()
    assert not history.due(ROWS_AT_ONCE)


def test_what_waits_for_its_row_is_a_part_of_the_run() -> None:
    one, two = fed(History(), (1.0, 3), (2.0, 1)), History()
    restore({"meters": two}, snapshot({"meters": one}))
    fed(one, (0.3, 2))
    fed(two, (0.3, 2))
    progress = Progress(step=3)
    assert one.row(progress, 0.0, {}) == two.row(progress, 0.0, {})


@pytest.mark.parametrize("key", ["train/loss", "train/grad_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_row_that_is_not_finite_is_a_divergence(key: str, value: float) -> None:
    check([{"step": 1, "train/loss": 1.0, "val/loss": math.nan}])
    with pytest.raises(DivergedError, match=key):
        check([{"step": 1}, {"step": 2, key: value}])


@pytest.mark.parametrize("evaluate_every", ["1step", f"{ROWS_AT_ONCE}steps", "1epoch"])
def test_no_step_has_two_rows_however_many_are_handed_on_at_once(evaluate_every: str) -> None:
    """The row of an evaluation step is asked for twice; between the two it must not be handed on."""
    trainer = make_trainer(epochs=2 * ROWS_AT_ONCE // 4, evaluate_every=evaluate_every)
    trainer.fit()
    found = recorder_of(trainer).got
    assert [row["step"] for row in found] == list(range(1, 2 * ROWS_AT_ONCE + 1))
    assert all({"train/loss", "train/grad_norm", "lr"} <= row.keys() for row in found)


def test_the_epoch_of_a_row_is_the_number_of_epochs_completed() -> None:
    trainer = make_trainer(epochs=4, evaluate_every="2epochs")
    trainer.fit()
    assert [row["epoch"] for row in recorder_of(trainer).got] == [step // 4 for step in range(1, 17)]
