"""Settings in the order of their results: the runs of each, their mean over the seeds, the test against the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trainer.report import statistics
from trainer.report.entries import SEED, Entry, Group, grouped
from trainer.report.keys import Keys, keys_of

TASK, DATA = "task._target_", "data._target_"


@dataclass(frozen=True)
class Versus:
    """A setting against the best one, over the `seeds` that both have: the mean difference, and Holm's p (or none)."""

    difference: float
    p: float | None
    seeds: int


@dataclass(frozen=True)
class Standing:
    """A setting and what its finished runs came to; without seeds, one run.

    Attributes:
        scores: the best monitored value by seed. versus: None for the best setting, and for what cannot be compared.
    """

    group: Group
    scores: dict[str, float]
    versus: Versus | None = None

    @property
    def finished(self) -> list[Entry]:
        return [entry for entry in self.group.entries if _counts(entry)]

    @property
    def mean(self) -> float:
        return statistics.mean(list(self.scores.values()))

    @property
    def half_width(self) -> float | None:
        return statistics.half_width(list(self.scores.values()))

    def average(self, of: Callable[[Entry], Any]) -> float | None:
        """The mean over the finished runs of what `of` finds; None where one has none."""
        found = [of(entry) for entry in self.finished]
        return None if None in found else statistics.mean([number(value) for value in found])


@dataclass(frozen=True)
class Section:
    """Runs that can be compared: of one task on one kind of data, by one metric.

    Attributes:
        entries: all its runs. keys: what they differ in. seeds: whether settings were run with several seeds.
        ranked: the settings that have a result, the best first. rest: the runs without one.
    """

    monitor: str
    maximised: bool
    entries: list[Entry]
    keys: Keys
    seeds: bool = False
    ranked: list[Standing] = field(default_factory=list)
    rest: list[Entry] = field(default_factory=list)


ORDER = ("running", "failed", "killed", "unreadable", "interrupted", "not started", "finished")


def order_of(state: str) -> int:
    """What is of most interest first: what runs, then what went wrong."""
    return ORDER.index(state) if state in ORDER else len(ORDER)


def number(value: Any) -> float:
    """NaN for what is no number: the history holds null for what was not finite."""
    return float(value) if isinstance(value, int | float) else math.nan


def sections(entries: Sequence[Entry], *, every: bool = False, single: bool = False) -> list[Section]:
    """The runs as far as they can be compared, each kind ranked; `single` ranks runs, whatever their seeds."""
    kinds: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in entries:
        kinds.setdefault(_kind(entry), []).append(entry)
    for kind in [kind for kind in kinds if None in kind]:  # nothing is known: with the only ones that it may belong to
        fitting = [one for one in kinds if None not in one and kind[0] in (None, one[0])]
        if len(fitting) == 1:
            kinds[fitting[0]] += kinds.pop(kind)
    return [_section(some, every, single) for some in kinds.values()]


def _kind(entry: Entry) -> tuple[Any, ...]:
    monitor = entry.monitor or entry.config.get("early_stopping.monitor")
    return monitor, entry.config.get(TASK), entry.config.get(DATA)


def _counts(entry: Entry) -> bool:
    return entry.state == "finished" and entry.monitor in entry.best


def _section(entries: list[Entry], every: bool, single: bool) -> Section:
    keys = keys_of(entries, every)
    told = next((entry for entry in entries if entry.monitor), entries[0])
    groups = grouped(entries, keys.told)
    seeds = not single and any(len({_seed(entry) for entry in group.entries}) > 1 for group in groups)
    if not seeds:
        groups = [replace(group, entries=[entry]) for group in groups for entry in group.entries]
    found = [Standing(group, scores) for group in groups if (scores := _scores(group.entries))]
    sign = -1 if told.maximised else 1
    found.sort(key=lambda one: sign * one.mean if math.isfinite(one.mean) else math.inf)
    ranked = _tested(found) if seeds else found
    left = [entry for entry in entries if not _counts(entry)]
    rest = sorted(left, key=lambda entry: (order_of(entry.state), entry.name))
    return Section(told.monitor, told.maximised, entries, keys, seeds, ranked, rest)


def _seed(entry: Entry) -> str:
    return str(entry.config.get(SEED, entry.folder.path))


def _scores(entries: Iterable[Entry]) -> dict[str, float]:
    """The best value by seed; the mean where a seed was run twice, since that is no second seed."""
    values: dict[str, list[float]] = {}
    for entry in entries:
        if _counts(entry):
            values.setdefault(_seed(entry), []).append(number(entry.best[entry.monitor]))
    return {seed: statistics.mean(found) for seed, found in values.items()}


def differences(one: Standing, best: Standing) -> list[float]:
    """One minus the best, for each seed that both have."""
    return [value - best.scores[seed] for seed, value in one.scores.items() if seed in best.scores]


def is_worse(versus: Versus, maximised: bool) -> bool:
    """Whether a setting is worse than the best one by more than luck."""
    return versus.p is not None and versus.p <= statistics.LEVEL and (versus.difference < 0) == maximised


def is_ahead(versus: Versus, maximised: bool) -> bool:
    """Whether a setting is better than the best one over the seeds that both have: the means are over other seeds."""
    return versus.difference > 0 if maximised else versus.difference < 0


def _tested(ranked: Sequence[Standing]) -> list[Standing]:
    """Each setting after the first with its test against that."""
    found = [(one, differences(one, ranked[0])) for one in ranked[1:]]
    ps = [statistics.paired(values) for _, values in found]
    corrected = iter(statistics.corrected([p for p in ps if p is not None], len(ranked)))
    rest = [
        replace(one, versus=Versus(statistics.mean(values), None if p is None else next(corrected), len(values)))
        if values
        else replace(one, versus=Versus(math.nan, None, 0))
        for (one, values), p in zip(found, ps, strict=True)
    ]
    return [*ranked[:1], *rest]
