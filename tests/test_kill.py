"""Runs that are killed with SIGKILL, and typed again each time, end with the bits of those that never were."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.killing import EVALUATING, SAVING, Combination, torment

TWO = [(Combination("plateau", 2, 3, "ema"), 4), (Combination("cosine", 0, 1, "none"), 3)]


@pytest.mark.parametrize(("combination", "kills"), TWO, ids=[one.name for one, _ in TWO])
def test_a_run_killed_in_saves_evaluations_and_updates_ends_with_the_same_bits_and_rows(
    combination: Combination, kills: int, tmp_path: Path
) -> None:
    """`scripts/kill_harness.py` does the same with all combinations, and many more kills."""
    account = torment(combination, tmp_path, kills, seed=0)
    assert not account.faults, "\n".join(account.faults)
    assert account.fell[SAVING] >= 1
    assert account.fell[EVALUATING] >= 1
