"""Ends a run of a search early that others have left behind; a run that is none of a search goes to its end."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from trainer.durations import count
from trainer.folder import RunFolder
from trainer.records import Row
from trainer.state import State

PRUNED = "pruned at "
"""How the reason of a run begins that was ended here: it is over for its search, and not for anybody else."""

Values = Mapping[int, float]  # of a metric, by epoch or step


class Pruning:
    """Never ends a run. In a search another one stands in its place, which does."""

    reason = ""  # why the run is over, once it is

    def update(self, row: Row) -> None:
        """Takes in the row of an evaluation."""

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """Takes up nothing: what was pruned goes on outside its search."""


# --------------------------------------------------------------------------------------------------------- the rules


@dataclass(frozen=True)
class Peer:
    """Another trial: its values, and whether it went to its end."""

    number: int
    values: Values
    done: bool


class Rule(Protocol):
    """Says why a trial is left behind by others, or nothing."""

    unit: Literal["epoch", "step"]

    def verdict(self, number: int, own: Values, peers: Sequence[Peer], maximize: bool) -> str:
        """Args:
        number: of the trial. own: its values so far, the newest last. peers: the trials beside it.
        """


def _check(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}: {value!r} must be a whole number of at least {least}")


def _check_unit(unit: object) -> None:
    if unit not in ("epoch", "step"):
        raise ValueError(f"unit: {unit!r} is unknown; use epoch or step")


class Median:
    """Ends a trial whose best value so far is worse than the median, there, of those that went to their end.

    Args:
        n_startup_trials: none is ended before so many went to their end.
        n_warmup_steps: none is ended before it has more than so many epochs, or steps.
        unit: whether `epoch` or `step` says where two trials are compared.
    """

    def __init__(self, n_startup_trials: int = 5, n_warmup_steps: int = 0, unit: Literal["epoch", "step"] = "epoch"):
        _check("n_startup_trials", n_startup_trials, 1)
        _check("n_warmup_steps", n_warmup_steps, 0)
        _check_unit(unit)
        self.startup, self.warmup, self.unit = n_startup_trials, n_warmup_steps, unit

    def verdict(self, number: int, own: Values, peers: Sequence[Peer], maximize: bool) -> str:
        at, best = max(own), (max if maximize else min)(own.values())
        there = sorted(peer.values[at] for peer in peers if peer.done and at in peer.values)
        if len(there) < self.startup or at <= self.warmup:
            return ""
        median = (there[(len(there) - 1) // 2] + there[len(there) // 2]) / 2
        if best >= median if maximize else best <= median:
            return ""
        return f"{best:.4g}, the median of {count(len(there), 'trial')} there is {median:.4g}"


class Asha:
    """Successive halving: at each rung the best of those that came there go on, 1 of `reduction_factor`.

    Args:
        min_resource: epochs, or steps, up to the first rung; each other comes after `reduction_factor` times as many.
        n_brackets: more than 1 is Hyperband: trials take turns to begin at the first rung, the second, ..., and are
            compared within their bracket.
        unit: what rungs are counted in, `epoch` or `step`.
    """

    def __init__(self, min_resource: int = 1, reduction_factor: int = 4, n_brackets: int = 1,
                 unit: Literal["epoch", "step"] = "epoch"):  # fmt: skip
        _check("min_resource", min_resource, 1)
        _check("reduction_factor", reduction_factor, 2)
        _check("n_brackets", n_brackets, 1)
        _check_unit(unit)
        self.first, self.factor, self.brackets, self.unit = min_resource, reduction_factor, n_brackets, unit

    def verdict(self, number: int, own: Values, peers: Sequence[Peer], maximize: bool) -> str:
        bracket, came = number % self.brackets, sorted(own)
        rung = self.first * self.factor**bracket
        while rung * self.factor <= came[-1]:
            rung *= self.factor
        if rung > came[-1] or (len(came) > 1 and came[-2] >= rung):
            return ""  # it is not there yet, or was there before
        value = own[came[-1]]
        beside = [peer.values for peer in peers if peer.number % self.brackets == bracket]
        there = [values[min(at for at in values if at >= rung)] for values in beside if max(values, default=0) >= rung]
        ranked = sorted([*there, value], reverse=maximize)
        most = max(1, len(ranked) // self.factor)
        last = ranked[most - 1]
        if value >= last if maximize else value <= last:
            return ""
        bound = "at least" if maximize else "at most"
        return f"{value:.4g}, and the best {most} of {len(ranked)} trials there have {bound} {last:.4g}"


# --------------------------------------------------------------------------------------------------- a trial's own run


@dataclass(frozen=True)
class Trial:
    """What the process of a job knows of the search.

    Attributes:
        number: of the trial. index: a file that names the run folder of each trial, relative to its own.
        metric, maximize: what is searched for. rule: None compares with nobody.
    """

    number: int
    index: Path
    metric: str
    maximize: bool
    rule: Rule | None

    def pruning(self, folder: RunFolder) -> Pruning:
        return Pruning() if self.rule is None else Compared(self, self.rule, folder)


class Compared(Pruning):
    """Asks the rule once at each epoch, or step, what the others' records say."""

    def __init__(self, trial: Trial, rule: Rule, folder: RunFolder) -> None:
        self.trial, self.rule, self.folder = trial, rule, folder
        self.values: dict[int, float] = {}
        self.reason = ""

    def update(self, row: Row) -> None:
        at, value = row[self.rule.unit], _number(row.get(self.trial.metric))
        if at in self.values:
            return
        self.values[at] = value
        why = "nan" if math.isnan(value) else ""
        why = why or self.rule.verdict(self.trial.number, self.values, self._peers(), self.trial.maximize)
        if why:
            self.reason = f"{PRUNED}{self.rule.unit} {at}: {self.trial.metric} {why}"

    def _peers(self) -> list[Peer]:
        own, found = str(self.folder.path), {}
        for number, path in read_index(self.trial.index).items():
            if str(path) != own and str(path) not in found:
                status = RunFolder(path).read_status()
                done = status.get("state") == "finished" and not is_pruned(status)
                found[str(path)] = Peer(number, history(RunFolder(path), self.trial.metric, self.rule.unit), done)
        return list(found.values())

    def state_dict(self) -> State:
        return {"values": [[at, value] for at, value in self.values.items()], "reason": self.reason}

    def load_state_dict(self, state: State) -> None:
        self.values, self.reason = {at: value for at, value in state.get("values", [])}, state.get("reason", "")


# -------------------------------------------------------------------------------------------------------- what is kept


def is_pruned(status: Mapping[str, object]) -> bool:
    """Whether a run's status.json says that a search has ended it."""
    result = status.get("result")
    return isinstance(result, dict) and str(result.get("reason", "")).startswith(PRUNED)


def history(folder: RunFolder, metric: str, unit: Literal["epoch", "step"]) -> dict[int, float]:
    """The first value of a metric at each epoch, or step, that a run has written; without those that are no numbers."""
    found: dict[int, float] = {}
    try:
        lines = folder.metrics.read_text(encoding="utf-8").splitlines()
    except OSError:
        return found
    for line in lines:
        if f'"{metric}"' not in line:
            continue
        try:
            row = json.loads(line)
        except ValueError:
            continue  # the last line of one that writes at this moment
        if not math.isnan(value := _number(row.get(metric))):
            found.setdefault(row[unit], value)
    return found


def read_index(path: Path) -> dict[int, Path]:
    """The run folder of each trial of a search, by number."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {int(number): Path(os.path.normpath(path.parent / name)) for number, name in names.items()}


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan
