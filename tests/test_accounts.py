"""What is allowed and probably not meant stands in the plan; a plain run has nothing of the kind."""

from __future__ import annotations

from typing import Any

import pytest

from tests.small import make_trainer
from trainer.accounts import plan
from trainer.monitor import Patience


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 12}, "batch_size=12 is more than the 11 training samples"),
        ({"accumulate": 5}, "accumulate=5 is more than the 4 batches of an epoch"),
        ({"evaluate_every": "9epochs", "patience": Patience(patience=2)}, "cannot act: 1 evaluation in the whole run"),
        ({"evaluate_every": "6steps", "patience": Patience(patience=2)}, "cannot act: 2 evaluations in the whole run"),
    ],
    ids=["batch size", "accumulate", "no evaluation", "few evaluations"],
)
def test_what_is_probably_not_meant_is_pointed_out(changes: dict[str, Any], words: str) -> None:
    assert words in plan(make_trainer(**changes)).lines["attention"]


@pytest.mark.parametrize("changes", [{}, {"patience": Patience(patience=5)}, {"accumulate": 4}, {"batch_size": 11}])
def test_a_plain_run_and_a_short_try_have_nothing_to_point_out(changes: dict[str, Any]) -> None:
    assert "attention" not in plan(make_trainer(**changes)).lines
