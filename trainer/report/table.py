"""The tables of a comparison: the settings of a section with their results, and its runs that have none."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from trainer.errors import ConfigError, did_you_mean
from trainer.report.entries import SEED, Entry, short
from trainer.report.formats import PLUS_MINUS, Column, Table, duration, numbers, p_value
from trainer.report.keys import TARGET, class_names
from trainer.report.ranking import Section, Standing, is_worse, number
from trainer.report.statistics import LEAST, LEVEL


def metrics_of(section: Section) -> list[str]:
    """What was measured beside the monitored metric, without what is told of each class."""
    names = dict.fromkeys(name for entry in section.entries for name in entry.best)
    return [name for name in names if re.fullmatch("val/[^/]+", name) and name != section.monitor]


def ranked(section: Section, sort: str = "") -> Table:
    """The settings, or runs, that have a result, the best first, or by the column `sort`."""
    order = _ordered(section, sort)
    firsts = [one.group.entries[0] for one in order]
    monitor, columns = section.monitor, _settings(section, firsts, seed=not section.seeds)
    if section.seeds:
        columns.append(Column("n", [str(len(one.scores)) for one in order], right=True))
        if section.rest:
            columns.append(Column("state", [_states(one.group.entries) for one in order], weight=1))
    best = len(columns)
    columns.append(Column(monitor, _scores(order), right=True))
    if section.seeds and len(order) > 1:
        columns.append(Column("vs best", _versus(order, section.maximised)))
    others = metrics_of(section)
    for n, name in enumerate(others):
        values = numbers([one.average(at_best(name)) for one in order])
        columns.append(Column(name, values, weight=5 + n, right=True))
    for head, weight, of in _facts(monitor):
        found = [one.average(of) for one in order]
        cells = list(map(duration, found)) if head == "time" else numbers(found) if head == "last" else _whole(found)
        columns.append(Column(head, cells, weight=weight if weight < 4 else weight + len(others), right=True))
    if not section.seeds:
        columns.append(Column("run", [run_name(one.group.entries[0]) for one in order], weight=1))
    return Table(columns, (order.index(section.ranked[0]), best) if order else None)


def _facts(monitor: str) -> list[tuple[str, int, Callable[[Entry], Any]]]:
    """The columns that every table has: head, how soon it is left out, and what it holds of a run."""
    return [
        ("last", 6, lambda entry: entry.last.get(monitor)),
        ("epoch", 3, lambda entry: entry.best.get("epoch")),
        ("step", 7, lambda entry: entry.best.get("step")),
        ("time", 4, lambda entry: entry.result.get("seconds")),
    ]


def at_best(name: str) -> Callable[[Entry], Any]:
    """What finds a metric at the best evaluation of a run."""
    return lambda entry: entry.best.get(name)


def _settings(section: Section, entries: Sequence[Entry], seed: bool) -> list[Column]:
    """The keys that differ, a column each; with `seed` that too, where each line is one run."""
    columns = []
    for key in section.keys.shown:
        names = class_names(entry.config.get(key) for entry in section.entries) if key.endswith(TARGET) else {}
        values = [entry.config.get(key) for entry in entries]
        cells = [names.get(str(value)) or short(key, "" if value == {} else value) for value in values]
        columns.append(Column(section.keys.names[key], cells))
    seeds = [str(entry.config.get(SEED, "")) for entry in section.entries]
    if seed and len(set(seeds)) > 1:
        columns.append(Column(SEED, [str(entry.config.get(SEED, "")) for entry in entries], right=True))
    return columns


def _scores(order: Sequence[Standing]) -> list[str]:
    spreads = [one.half_width for one in order]
    cells = numbers([*(one.mean for one in order), *spreads])
    means, widths = cells[: len(order)], cells[len(order) :]
    wide = max(map(len, widths), default=0)
    filler = " " * (wide + 3) if wide else ""
    return [f"{m} {PLUS_MINUS} {w.rjust(wide)}" if w else m + filler for m, w in zip(means, widths, strict=True)]


def _versus(order: Sequence[Standing], maximised: bool) -> list[str]:
    known = [one.versus for one in order if one.versus]
    differences = iter(numbers([versus.difference for versus in known]))
    cells = []
    for one in order:
        if one.versus is None:
            cells.append("best")
            continue
        text, versus = next(differences), one.versus
        if not math.isfinite(one.mean):
            cells.append("not finite")
        elif versus.p is None:
            cells.append(f"too few seeds to tell ({versus.seeds})" if versus.seeds < LEAST else "cannot be told")
        elif versus.p > LEVEL:
            cells.append(f"within noise ({p_value(versus.p)})")
        elif not is_worse(versus, maximised):
            cells.append(f"ahead on common seeds ({p_value(versus.p)})")
        else:
            cells.append(f"{'' if text.startswith('-') else '+'}{text} ({p_value(versus.p)})")
    return cells


def _whole(values: Sequence[float | None]) -> list[str]:
    return ["" if value is None or math.isnan(value) else f"{value:.0f}" for value in values]


def _states(entries: Sequence[Entry]) -> str:
    """`2 finished, 1 failed`."""
    states = [entry.state for entry in entries]
    names = sorted(set(states), key=lambda state: (state != "finished", state))
    return ", ".join(f"{states.count(state)} {state}" for state in names)


def run_name(entry: Entry) -> str:
    """The folder's name; of a job, whose name repeats its settings, the digits that it ends with."""
    digits = re.fullmatch(r".*[=,].*-([0-9a-f]{10})", entry.name)
    return digits[1] if digits else entry.name


def unfinished(section: Section) -> Table:
    """The runs that have no result: how far they are, the newest they found, and why they ended."""
    entries = section.rest
    rows = [entry.latest() or entry.last for entry in entries]
    totals = [entry.status.get("steps") for entry in entries]
    steps = [
        f"{row['step']}" + (f" of {total}" if total else "") if "step" in row else ""
        for row, total in zip(rows, totals, strict=True)
    ]
    others = metrics_of(section)
    return Table(
        [
            Column("state", [entry.state for entry in entries]),
            *_settings(section, entries, seed=True),
            Column("step", steps, right=True),
            Column(f"latest {section.monitor}", _found(rows, section.monitor), right=True),
            *(Column(name, _found(rows, name), weight=5 + n, right=True) for n, name in enumerate(others)),
            Column("time", [duration(row.get("time")) for row in rows], weight=4, right=True),
            Column("run", [run_name(entry) for entry in entries], weight=3),
            Column("why", [why(entry) for entry in entries]),
        ]
    )


def _found(rows: Sequence[dict[str, Any]], name: str) -> list[str]:
    return numbers([number(row[name]) if name in row else None for row in rows])


def why(entry: Entry) -> str:
    """The first line of a failed run's error, and the reason of one that was interrupted."""
    text = entry.status.get("error") if entry.state == "failed" else None
    if entry.state == "interrupted":
        text = entry.result.get("reason")
    return next(iter(str(text or "").splitlines()), "")


# ------------------------------------------------------------------------------------------------- order, raw numbers


def check_sort(found: Sequence[Section], sort: str) -> None:
    """Raises ConfigError if no section has a column of that name."""
    known = list(dict.fromkeys(name for section in found for name in _orders(section)))
    if sort and sort not in known:
        raise ConfigError(f"--sort: {sort!r} is no column; {did_you_mean(sort, known)}")


def _ordered(section: Section, sort: str) -> list[Standing]:
    """The best first, also where the section has no such column."""
    of = _orders(section).get(sort)
    return sorted(section.ranked, key=lambda one: _comparable(of(one))) if of else section.ranked


def _orders(section: Section) -> dict[str, Callable[[Standing], Any]]:
    """What the settings can be sorted by: the columns as the table calls them, and keys in full."""
    measured = {name: at_best(name) for name in metrics_of(section)}
    measured |= {head: of for head, _, of in _facts(section.monitor)}
    names = {name: key for key, name in section.keys.names.items()}
    return {
        **{name: partial(_setting, key=key) for name, key in names.items()},
        **{key: partial(_setting, key=key) for key in (*section.keys.told, SEED)},
        **{head: partial(_average, of=of) for head, of in measured.items()},
        "n": lambda one: len(one.scores),
        section.monitor: lambda one: one.mean,
    }


def _setting(one: Standing, key: str) -> Any:
    return one.group.entries[0].config.get(key)


def _average(one: Standing, of: Callable[[Entry], Any]) -> float | None:
    return one.average(of)


def _comparable(value: Any) -> tuple[bool, float, str]:
    """Numbers in their order before words; what is not finite behind all numbers."""
    found = number(value)
    return not math.isfinite(found), found if math.isfinite(found) else 0.0, str(value)


def records(section: Section, sort: str = "") -> list[dict[str, Any]]:
    """Everything of a section with full names and numbers, for other programs; the runs without a result last."""
    rows = []
    for one in _ordered(section, sort):
        state = _states(one.group.entries) if section.seeds else "finished"
        row: dict[str, Any] = {"monitor": section.monitor, "state": state}
        row |= _raw(section, one.group.entries)
        row |= {"n": len(one.scores), section.monitor: one.mean, f"{section.monitor} half-width": one.half_width}
        row |= {name: one.average(at_best(name)) for name in metrics_of(section)}
        row |= {{"last": f"last {section.monitor}", "time": "seconds"}.get(head, head): one.average(of)
                for head, _, of in _facts(section.monitor)}  # fmt: skip
        if one.versus:
            row |= {"vs best": one.versus.difference, "p": one.versus.p, "common seeds": one.versus.seeds}
        rows.append(row)
    for entry in section.rest:
        newest = entry.latest() or entry.last
        row = {"monitor": section.monitor, "state": entry.state, **_raw(section, [entry]), "run": entry.name}
        row |= {SEED: entry.config.get(SEED), "why": why(entry)}
        rows.append(row | {f"latest {section.monitor}": newest.get(section.monitor), "step": newest.get("step")})
    return rows


def _raw(section: Section, entries: Sequence[Entry]) -> dict[str, Any]:
    run = {} if section.seeds else {"run": entries[0].name, SEED: entries[0].config.get(SEED)}
    return run | {key: entries[0].config.get(key) for key in section.keys.shown}
