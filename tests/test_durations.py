"""Lengths with a unit, and when something is due."""

from __future__ import annotations

import math

import pytest

from trainer.durations import Duration, Every
from trainer.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("500steps", 500, "steps"), ("1step", 1, "steps"), ("1e3steps", 1000, "steps"), ("7st", 7, "steps"),
        ("2epochs", 2, "epochs"), ("1epoch", 1, "epochs"), ("0.5ep", 0.5, "epochs"), (" 3 Epochs ", 3, "epochs"),
        ("5%", 5, "%"), ("30s", 30, "seconds"), ("10min", 600, "seconds"), ("1h", 3600, "seconds"),
        ("1.5hours", 5400, "seconds"), ("2minutes", 120, "seconds"), ("never", math.inf, "never"),
    ],
)  # fmt: skip
def test_a_duration_is_read_with_its_unit(text: str, amount: float, unit: str) -> None:
    assert Duration.parse(text) == Duration(amount, unit)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["5", 5, "2.5", "-3"])
def test_a_number_without_a_unit_is_refused_with_both_readings(text: object) -> None:
    with pytest.raises(ConfigError, match=rf"log_every: {text} has no unit; .*{text}steps or .*{text}epochs"):
        Duration.parse(text, "log_every")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", "soon", "5 weeks", "-5steps", "1e-3steps", "steps", "5steps 3epochs", "nan%", None]
)
def test_a_text_that_is_no_duration_is_refused_with_examples(text: object) -> None:
    with pytest.raises(ConfigError, match="^k: .*500steps, 2epochs, 5%, 10min or never"):
        Duration.parse(text, "k")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["0steps", "0%", "0.0epochs"])
def test_nothing_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigError, match="must be more than zero; use never"):
        Duration.parse(text, "k")


@pytest.mark.parametrize(
    ("text", "steps"),
    [("7steps", 7), ("2epochs", 20), ("0.5epochs", 5), ("10%", 30), ("0.1%", 1), ("100%", 300), ("never", 301)],
)
def test_a_length_is_counted_in_steps(text: str, steps: int) -> None:
    assert Duration.parse(text).steps(steps_per_epoch=10, total_steps=300) == steps


def test_a_time_cannot_be_counted_in_steps() -> None:
    with pytest.raises(ConfigError, match="10min is a time"):
        Duration.parse("10min").steps(10, 300)


@pytest.mark.parametrize(
    "text", ["1step", "500steps", "1epoch", "2.5epochs", "5%", "10min", "90s", "never", "1500000steps"]
)
def test_a_duration_is_written_as_it_is_read(text: str) -> None:
    assert Duration.parse(str(Duration.parse(text))) == Duration.parse(text)
    assert str(Duration.parse(text)) == text


def due_steps(text: str, steps_per_epoch: int = 4, epochs: int = 5) -> list[int]:
    every = Every(Duration.parse(text), steps_per_epoch, steps_per_epoch * epochs)
    found = []
    for step in range(1, steps_per_epoch * epochs + 1):
        ended = step % steps_per_epoch == 0
        if every.due(step, step // steps_per_epoch, ended, seconds=float(step)):
            found.append(step)
    return found


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("3steps", [3, 6, 9, 12, 15, 18]),
        ("1epoch", [4, 8, 12, 16, 20]),
        ("2epochs", [8, 16]),
        ("0.5epochs", [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]),
        ("1.5epochs", [6, 12, 18]),
        ("25%", [5, 10, 15, 20]),
        ("never", []),
        ("7s", [7, 14]),
    ],
)
def test_something_is_due_every_so_often(text: str, steps: list[int]) -> None:
    assert due_steps(text) == steps


def test_a_whole_epoch_is_due_at_its_end_alone() -> None:
    every = Every(Duration.parse("1epoch"), 4, 20)
    assert not every.due(4, 1, epoch_ended=False)
    assert every.due(4, 1, epoch_ended=True)
