"""Hooks see everything in order, steer nothing, and may have a state."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from tests.small import Recorder, Regression, StopAt, make_trainer, newest, timeless, weights_of
from trainer.hooks import METHODS, Hook
from trainer.records import Evaluation, Outcome, Row


class Log(Hook):
    """Writes down what it is told."""

    def __init__(self, lines: list[Any] | None = None, name: str = "") -> None:
        self.lines = [] if lines is None else lines
        self.name = name

    def on_fit_start(self, trainer: Any) -> None:
        self.lines.append(f"{self.name}start {trainer.progress.step}")

    def on_log(self, trainer: Any, row: Row) -> None:
        self.lines.append(f"{self.name}row {row['step']}")

    def on_evaluation(self, trainer: Any, evaluation: Evaluation) -> None:
        assert evaluation.metrics["val/loss"] >= trainer.best.row["val/loss"]
        self.lines.append(f"{self.name}evaluation {trainer.progress.step}")

    def on_save(self, trainer: Any, folder: Path) -> None:
        self.lines.append(f"{self.name}save {folder.name[-1]}")

    def on_exception(self, trainer: Any, error: BaseException) -> None:
        self.lines.append(f"{self.name}{type(error).__name__}")

    def on_fit_end(self, trainer: Any, outcome: Outcome) -> None:
        self.lines.append(f"{self.name}end {outcome.state}")


def test_hooks_are_told_everything_in_order(tmp_path: Path) -> None:
    log = Log()
    make_trainer(hooks={"log": log}, epochs=2, log_every="2steps", folder=tmp_path / "run").fit()
    assert log.lines == [
        "start 0",
        *["row 2", "row 4", "evaluation 4", "save 4"],
        *["row 6", "row 8", "evaluation 8", "save 8"],
        "end finished",
    ]


def test_hooks_are_called_one_after_the_other_in_the_order_given(tmp_path: Path) -> None:
    lines: list[Any] = []
    make_trainer(hooks={"b": Log(lines, "b "), "a": Log(lines, "a ")}, epochs=1, log_every="4steps").fit()
    assert lines == [f"{name} {what}" for what in ("start 0", "row 4", "evaluation 4", "end finished") for name in "ba"]


def test_hooks_and_trackers_hear_of_an_error() -> None:
    class Broken(Regression):
        def loss(self, model: Any, batch: Any) -> Any:
            if model.training:
                try:
                    raise KeyError("before it")
                finally:
                    raise ZeroDivisionError("by hand")
            return super().loss(model, batch)

    log, recorder = Log(), Recorder()
    with pytest.raises(ZeroDivisionError) as told:
        make_trainer(task=Broken(), hooks={"log": log}, recorder=recorder).fit()
    assert "before it" in "".join(traceback.format_exception(told.value)), "what came before it is not shown"
    assert log.lines == ["start 0", "ZeroDivisionError"]
    assert (recorder.calls[0], recorder.calls[-1], recorder.calls.count("finish")) == ("start", "finish", 1)
    assert (recorder.outcomes[0].state, recorder.outcomes[0].reason) == ("failed", "by hand")
    assert recorder.outcomes[0].exit_code == 1


@pytest.mark.parametrize("name", ["on_evaluate", "on_fit_begin", "on_step_end", "on_exceptions"])
def test_a_misspelt_method_is_refused_when_the_class_is_made(name: str) -> None:
    with pytest.raises(TypeError, match=rf"Mine\.{name}: a hook has no such method"):
        type("Mine", (Hook,), {name: lambda self, trainer: None})


def test_every_method_of_a_hook_may_be_overridden_and_does_nothing_by_itself() -> None:
    made = type("Mine", (Hook,), {name: lambda self, *_: None for name in METHODS} | {"other": 1, "_on": 2})
    assert all(callable(getattr(made(), name)) for name in METHODS)
    for name in METHODS:
        assert getattr(Hook(), name)(*[None] * (1 if name == "on_fit_start" else 2)) is None


class Counter(Hook):
    """Counts evaluations over all attempts."""

    def __init__(self) -> None:
        self.count = 0

    def on_evaluation(self, trainer: Any, evaluation: Evaluation) -> None:
        self.count += 1

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


def test_a_hook_with_a_state_is_a_part_and_goes_on_counting(tmp_path: Path) -> None:
    whole = Counter()
    make_trainer(hooks={"counter": whole, "log": Log()}, folder=tmp_path / "whole").fit()
    options: dict[str, Any] = {"folder": tmp_path / "cut", "resume": "auto"}
    trainer = make_trainer(hooks={"counter": Counter(), "log": Log()}, task=StopAt(6), **options)
    assert "hook:counter" in trainer.parts
    assert "hook:log" not in trainer.parts
    trainer.fit()
    resumed = Counter()
    make_trainer(hooks={"counter": resumed, "log": Log()}, **options).fit()
    assert resumed.count == whole.count == 3
    assert newest(tmp_path / "cut") == newest(tmp_path / "whole")


def test_a_hook_that_draws_random_numbers_does_not_shift_the_training() -> None:
    import random

    import numpy as np
    import torch

    class Gambler(Hook):
        def on_log(self, trainer: Any, row: Row) -> None:
            torch.rand(3)
            np.random.rand()
            random.random()

        def on_evaluation(self, trainer: Any, evaluation: Evaluation) -> None:
            torch.rand(7)

    plain, shifted = make_trainer(), make_trainer(hooks={"gambler": Gambler()})
    plain.fit()
    shifted.fit()
    assert weights_of(plain.model) == weights_of(shifted.model)
    assert timeless(plain.best.row) == timeless(shifted.best.row)
