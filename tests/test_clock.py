"""What a run's time was spent on, by a clock that is moved by hand."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.small import StopAt, make_trainer
from trainer.clock import Clock
from trainer.folder import RunFolder
from trainer.tracking.journal import Journal, by_step


class Hand:
    """A time that passes when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    hand = Hand()
    monkeypatch.setattr(time, "perf_counter", hand)
    return hand


def test_the_shares_are_of_the_time_since_the_last_split(hand: Hand) -> None:
    clock = Clock()
    clock.start(10, 100)
    for _ in clock.waiting("data", iter([1, 2])):
        hand.now += 3.0  # a step
    assert clock.split(12, 164) == {
        "speed/steps_per_second": 0.33, "speed/samples_per_second": 10.67,
        "speed/data": 0.0, "speed/evaluation": 0.0, "speed/save": 0.0,
    }  # fmt: skip

    def slow() -> object:
        hand.now += 1.0
        yield

    for _ in clock.waiting("data", slow()):
        hand.now += 2.0
    with pytest.raises(ZeroDivisionError), clock.during("evaluation"):
        hand.now += 5.0
        raise ZeroDivisionError
    found = clock.split(14, 180)
    assert (found["speed/data"], found["speed/evaluation"], found["speed/save"]) == (0.125, 0.625, 0.0)
    assert found["speed/steps_per_second"] == 0.25


def test_without_a_step_there_is_no_speed_and_a_resumed_run_counts_from_where_it_stands(hand: Hand) -> None:
    clock = Clock()
    clock.load_state_dict({"seconds": 1000.0})
    clock.start(50, 500)
    hand.now += 2.0
    assert clock.split(50, 500) == {}
    hand.now += 2.0
    assert clock.split(54, 540)["speed/steps_per_second"] == 2.0


def test_a_run_that_was_stopped_has_each_line_of_its_speed_once(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.shipper.mkdir()
    assert make_trainer(folder=tmp_path, task=StopAt(6), trackers=[Journal(folder)]).fit().exit_code == 143
    torn = b'\0\0\n{"step": 4{"step": 5}\n' + folder.speed.read_bytes() + b'{"step": 11, "speed/data": 0.9}\n{"step": 1'
    folder.speed.write_bytes(torn)
    make_trainer(folder=tmp_path, resume="must", trackers=[Journal(folder)]).fit()
    lines = [json.loads(line) for line in folder.speed.read_text().splitlines()]
    steps = [line["step"] for line in lines]
    assert steps == sorted(set(steps))
    assert steps[-1] == 12
    assert {"speed/samples_per_second", "speed/data", "speed/evaluation", "speed/save"} <= lines[-1].keys()
    assert all(line.get("speed/data") != 0.9 for line in lines)


def test_a_spoilt_line_of_the_speed_is_left_out_and_the_others_count() -> None:
    lines = [
        b'{"step": 3, "speed/data": 0.5}',
        b"\0\0",
        b"7",
        b'{"speed/data": 0.1}',
        b'{"step": 4{"step": 5}',
        b"\xff",
    ]
    assert by_step(lines) == {3: {"speed/data": 0.5}}
