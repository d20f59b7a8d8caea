"""Runs that are left behind end early, say why, and go on where nobody prunes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.small import Recorder, make_trainer, newest
from trainer.folder import RunFolder
from trainer.pruning import Asha, Compared, Median, Peer, Trial, history, is_pruned
from trainer.records import Outcome


def peers(*values: float, done: bool = True) -> list[Peer]:
    return [Peer(n, {1: value / 2, 2: value}, done) for n, value in enumerate(values)]


def test_the_median_of_those_that_went_to_their_end_decides() -> None:
    rule = Median(n_startup_trials=3)
    assert rule.verdict(9, {1: 0.1, 2: 0.4}, peers(0.2, 0.5, 0.6), True) == "0.4, the median of 3 trials there is 0.5"
    assert rule.verdict(9, {1: 0.1, 2: 0.5}, peers(0.2, 0.5, 0.6), True) == ""  # as good as the median
    assert rule.verdict(9, {1: 0.7, 2: 0.4}, peers(0.2, 0.5, 0.6), True) == ""  # it has been better
    assert rule.verdict(9, {1: 9.0, 2: 0.4}, peers(0.2, 0.3, 0.6), False) != ""  # less is better
    assert rule.verdict(9, {1: 0.1, 2: 0.4}, peers(0.2, 0.5), True) == ""
    assert rule.verdict(9, {1: 0.1, 2: 0.4}, peers(0.2, 0.5, 0.6, done=False), True) == ""
    assert Median(3, n_warmup_steps=2).verdict(9, {1: 0.1, 2: 0.4}, peers(0.2, 0.5, 0.6), True) == ""


def test_at_a_rung_the_best_go_on() -> None:
    rule = Asha(min_resource=2, reduction_factor=2)
    beside = peers(0.2, 0.5, 0.6, done=False)
    assert rule.verdict(9, {1: 0.0}, beside, True) == ""  # before the first rung
    assert rule.verdict(9, {1: 0.0, 2: 0.5}, beside, True) == ""  # 2 of 4 go on, and it is one of them
    assert rule.verdict(9, {2: 0.4}, beside, True) == "0.4, and the best 2 of 4 trials there have at least 0.5"
    assert rule.verdict(9, {2: 0.9, 3: 0.0}, beside, True) == ""  # between two rungs
    assert rule.verdict(9, {2: 0.9, 4: 0.0}, beside, True) == ""  # the first that came so far
    late = Asha(min_resource=1, reduction_factor=2, n_brackets=2)
    assert late.verdict(9, {1: 0.0}, beside, True) == ""  # trial 9 begins at the second rung
    assert late.verdict(9, {1: 0.0, 2: 0.1}, beside, True) == "0.1, and the best 1 of 2 trials there have at least 0.5"


@pytest.mark.parametrize("wrong", [lambda: Median(0), lambda: Asha(reduction_factor=1), lambda: Median(unit="hour")])
def test_a_setting_out_of_range_is_told(wrong: object) -> None:
    with pytest.raises(ValueError, match="must be|unknown"):
        wrong()  # type: ignore[operator]


class Left(Median):
    """Leaves every trial behind at epoch 2, and notes when it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def verdict(self, number: int, own: object, peers: object, maximize: bool) -> str:
        self.asked.append(max(own))  # type: ignore[call-overload]
        return "left behind" if self.asked[-1] == 2 else ""


def pruning(folder: Path) -> Compared:
    trial = Trial(0, folder / "index.json", "val/loss", False, Left())
    return Compared(trial, Left(), RunFolder(folder))


def fit(folder: Path, **changes: object) -> Outcome:
    return make_trainer(folder=folder, resume="auto", recorder=Recorder(), **changes).fit()


def test_a_pruned_run_is_finished_and_says_why(tmp_path: Path) -> None:
    part = pruning(tmp_path / "a")
    ended = fit(tmp_path / "a", pruning=part)
    assert (ended.state, ended.reason, ended.epoch) == ("finished", "pruned at epoch 2: val/loss left behind", 2)
    assert is_pruned({"result": {"reason": ended.reason}})


def test_what_is_pruned_stays_so_in_its_search_and_goes_on_elsewhere(tmp_path: Path) -> None:
    fit(tmp_path / "a", pruning=pruning(tmp_path / "a"))
    again = pruning(tmp_path / "a")
    ended = fit(tmp_path / "a", pruning=again)
    assert (ended.reason, ended.epoch) == ("pruned at epoch 2: val/loss left behind", 2)
    assert isinstance(again.rule, Left)
    assert again.rule.asked == []  # no epoch is asked about twice
    assert fit(tmp_path / "a").reason == "3 epochs done"
    fit(tmp_path / "never")
    (weights, state), (others, other) = newest(tmp_path / "a"), newest(tmp_path / "never")
    assert weights == others
    assert {**state, "rng": 0} == {**other, "rng": 0}


def test_the_first_value_of_an_epoch_counts(tmp_path: Path) -> None:
    rows = [{"step": 4, "epoch": 1, "val/x": 0.5}, {"step": 5, "epoch": 1, "lr": 1}]
    rows += [{"step": 6, "epoch": 1, "val/x": 1}, {"step": 8, "epoch": 2, "val/x": float("nan")}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"step": 9, "val/x"')
    assert history(RunFolder(tmp_path), "val/x", "epoch") == {1: 0.5}
    assert history(RunFolder(tmp_path), "val/x", "step") == {4: 0.5, 6: 1.0}
