"""What is best, and when to stop: tables of values."""

from __future__ import annotations

import math
from typing import Any

import pytest

from trainer.errors import ConfigError
from trainer.monitor import Best, Patience, check_monitor, direction

NAN, INF = math.nan, math.inf


def follow(
    values: list[float], mode: Any, patience: int | None, min_delta: float = 0.0
) -> tuple[list[int], int | None]:
    """The evaluations (from 1) that were best, and the one after which the run stops."""
    best, patient, bests = Best("val/loss", mode), Patience("val/loss", mode, patience, min_delta), []
    for n, value in enumerate(values, 1):
        if best.update({"val/loss": value, "step": n}):
            bests.append(n)
        patient.update(value)
        if patient.exhausted:
            return bests, n
    return bests, None


@pytest.mark.parametrize(
    ("values", "mode", "patience", "min_delta", "bests", "stop"),
    [
        ([3, 2, 1], "min", 1, 0, [1, 2, 3], None),
        ([1, 2, 3], "max", 1, 0, [1, 2, 3], None),
        ([1, 2], "min", 1, 0, [1], 2),
        ([2, 1], "max", 1, 0, [1], 2),
        ([1, 1], "min", 1, 0, [1], 2),  # as good is no better
        ([1, 2, 2, 2], "min", 3, 0, [1], 4),
        ([1, 2, 2, 0.5, 2, 2, 2], "min", 3, 0, [1, 4], 7),
        ([1, 2, 3, 4, 5, 6], "min", None, 0, [1], None),
        # the best needs no least change, patience does: a slow fall is best each time and stops all the same
        ([1, 0.95, 0.9, 0.86], "min", 2, 0.2, [1, 2, 3], 3),
        ([1, 0.95, 0.79, 0.7], "min", 2, 0.2, [1, 2, 3, 4], None),
        ([0, 0.5, 1.0], "max", 1, 0.5, [1, 2], 2),  # a gain of exactly min_delta is none
        ([1, NAN, NAN], "min", 2, 0, [1], 3),
        ([NAN, NAN], "min", 2, 0, [], 2),
        ([NAN, 5, NAN, 4, 6], "min", 2, 0, [2, 4], None),
        ([NAN, 1, 2], "max", 2, 0, [2, 3], None),
        ([INF, 1], "max", 1, 0, [], 1),
        ([-INF, 1, 1], "min", 2, 0, [2], None),
        ([0.0, -1.0, 5.0], "min", 1, 0, [1, 2], 3),
    ],
)
def test_a_list_of_values_has_its_bests_and_its_end(
    values: list[float], mode: Any, patience: int | None, min_delta: float, bests: list[int], stop: int | None
) -> None:
    assert follow(values, mode, patience, min_delta) == (bests, stop)


@pytest.mark.parametrize("cut", range(1, 7))
def test_both_go_on_from_any_evaluation_as_if_nothing_had_happened(cut: int) -> None:
    values = [3.0, 2.0, NAN, 2.5, 1.9, 2.2, 2.1]
    whole, best = Patience("val/loss", "min", 3, 0.05), Best("val/loss", "min")
    for n, value in enumerate(values):
        if n == cut:
            again, best_again = Patience("val/loss", "min", 3, 0.05), Best("val/loss", "min")
            again.load_state_dict(whole.state_dict())
            best_again.load_state_dict(best.state_dict())
            whole, best = again, best_again
        whole.update(value)
        best.update({"val/loss": value, "step": n})
    assert whole.state_dict() == {"stale": 2, "reference": 1.9}
    assert best.row == {"val/loss": 1.9, "step": 4}


def test_the_best_row_is_a_copy_of_the_whole_row_of_that_evaluation() -> None:
    best, row = Best("val/dice", "max"), {"step": 4, "val/dice": 0.5, "val/loss": 2.0}
    assert best.update(row)
    row["val/loss"] = 9.0
    best.state_dict()["row"]["step"] = 7
    assert best.row == {"step": 4, "val/dice": 0.5, "val/loss": 2.0}
    assert not best.update({"step": 5})


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"mode": "least"}, "mode"),
        ({"patience": 0}, "patience"),
        ({"patience": -1}, "patience"),
        ({"min_delta": -0.1}, "min_delta"),
        ({"min_delta": NAN}, "min_delta"),
        ({"min_delta": INF}, "min_delta"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_its_name(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=f"^{word}: "):
        Patience(**settings)


def test_the_direction_is_asked_of_the_task_unless_it_is_said() -> None:
    measures: Any = {"dice": "max", "iou/coast": "max", "loss": "min"}
    assert direction("val/dice", "auto", measures) == "max"
    assert direction("val/iou/coast", "auto", measures) == "max"
    assert direction("val/dice", "min", measures) == "min"
    with pytest.raises(ConfigError, match=r"^early_stopping\.mode: .*val/dise"):
        direction("val/dise", "auto", measures)


def test_a_metric_that_is_not_measured_is_refused_with_the_word_that_was_meant() -> None:
    check_monitor("val/dice", ["val/dice", "val/loss"])
    with pytest.raises(ConfigError, match=r"^early_stopping\.monitor: 'val/dise'.*did you mean val/dice\?"):
        check_monitor("val/dise", ["val/dice", "val/loss"])


def test_why_a_run_stopped_is_told_also_of_a_metric_that_never_was_a_number() -> None:
    patience = Patience("val/n", "min", patience=1)
    patience.update(NAN)
    assert patience.exhausted
    assert patience.describe() == "val/n was no number in any of 1 evaluation"
    patience.update(2.0)
    patience.update(NAN)
    assert patience.describe() == "no better val/n for 1 evaluation"
