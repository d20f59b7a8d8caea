"""The history of a run as curves: read once, thinned so that its extremes stay, and packed for a browser."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainer.report.entries import Entry

AXES = ("step", "epoch", "time")  # what a curve is drawn over; every other number of a row is a metric
KNOTS = 256  # epoch and seconds are known at so many steps, and lie on a line between them
POINTS = (1000, 800, 600, 400, 300, 200, 100)  # the most points of a curve: the first with which all fit
BUDGET = 900_000  # points on the whole page; each takes about 11 bytes


@dataclass
class Curve:
    """One metric of one run: steps, uint32 (N,), and values, float32 (N,), NaN where a value was not finite."""

    steps: np.ndarray
    values: np.ndarray

    def at(self, step: int) -> float | None:
        """The value at that step; None if there is none, or it is not finite."""
        n = int(np.searchsorted(self.steps, step))
        found = n < len(self.steps) and self.steps[n] == step and np.isfinite(self.values[n])
        return float(self.values[n]) if found else None


@dataclass
class History:
    """All curves of a run, and its epochs and seconds as curves over the step. `rows`: lines of its file."""

    curves: dict[str, Curve] = field(default_factory=dict)
    epoch: Curve = field(default_factory=lambda: _curve([], []))
    time: Curve = field(default_factory=lambda: _curve([], []))
    rows: int = 0

    @property
    def last_step(self) -> int:
        return max((int(curve.steps[-1]) for curve in self.curves.values()), default=0)

    def best_step(self, metric: str, maximised: bool) -> int | None:
        """Where the metric was best, the first of equals; None if it was never finite."""
        curve = self.curves.get(metric)
        if curve is None or not np.isfinite(curve.values).any():
            return None
        return int(curve.steps[np.nanargmax(curve.values) if maximised else np.nanargmin(curve.values)])


def read(entry: Entry) -> History:
    """The rows of a run as curves."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    rows = 0
    ends, told = dict[int, int](), dict[int, int]()  # of each epoch its step: exactly, or at the latest
    for row in entry.rows():
        step = row.get("step")
        if not isinstance(step, int):
            continue
        rows += 1
        for key, value in row.items():
            if key == "step" or not (value is None or type(value) in (int, float)):
                continue
            steps, values = found.setdefault(key, ([], []))
            steps.append(step)
            values.append(math.nan if value is None else value)
        if isinstance(epoch := row.get("epoch"), int) and epoch:
            (ends if any(key.startswith("val/") for key in row) else told).setdefault(epoch, step)
    curves = {key: _curve(*columns) for key, columns in found.items()}
    time = curves.pop("time", _curve([], []))
    curves.pop("epoch", None)
    last = max((steps[-1] for steps, _ in found.values()), default=0)
    return History(curves, _epochs(ends or told, last), time, rows)


def _curve(steps: Iterable[int], values: Iterable[float]) -> Curve:
    """In the order of the steps, the last one of each."""
    at = np.asarray(list(steps), dtype=np.int64)
    told = np.asarray(list(values), dtype=np.float64)
    if len(at) > 1 and (np.diff(at) <= 0).any():
        _, backwards = np.unique(at[::-1], return_index=True)
        at, told = at[::-1][backwards], told[::-1][backwards]
    return Curve(at.astype(np.uint32), told.astype(np.float32))


def _epochs(ends: dict[int, int], last: int) -> Curve:
    """Epochs as a broken line through the steps at which they end, from 0 and on to the last step."""
    steps, epochs = [0, *ends.values()], [0.0, *ends]
    if len(steps) == 1:
        return _curve([], [])
    if last > steps[-1]:
        slope = (epochs[-1] - epochs[-2]) / max(1, steps[-1] - steps[-2])
        steps, epochs = [*steps, last], [*epochs, epochs[-1] + slope * (last - steps[-1])]
    return _curve(steps, epochs)


# ----------------------------------------------------------------------------------------------------- thinned


def thin(values: np.ndarray, most: int) -> np.ndarray:
    """Which of the values a curve of at most about `most` points shows: both ends, and of each of `most / 2` stretches
    of equal length the least and the largest, and the first one that is not finite.

    Returns:
        indices, rising; all if there are no more than `most`.
    """
    n = len(values)
    if n <= most:
        return np.arange(n)
    stretches = max(1, most // 2 - 1)
    size = -(-n // stretches)
    index = np.minimum(np.arange(stretches * size), n - 1).reshape(stretches, size)
    table = values[index]
    bad = ~np.isfinite(table)
    rows = np.arange(stretches)
    least = index[rows, np.where(bad, np.inf, table).argmin(1)]
    largest = index[rows, np.where(bad, -np.inf, table).argmax(1)]
    gaps = index[rows, bad.argmax(1)][bad.any(1)]
    return np.unique(np.concatenate([[0], least, largest, gaps, [n - 1]]))


def means(curve: Curve, most: int) -> Curve:
    """The mean of each of `most` stretches of equal length, at the middle of its steps; NaN where nothing is finite."""
    edges = np.linspace(0, len(curve.values), most + 1).astype(int)[:-1]
    finite = np.isfinite(curve.values)
    counts = np.add.reduceat(finite.astype(np.float64), edges)
    sums = np.add.reduceat(np.where(finite, curve.values, 0).astype(np.float64), edges)
    middles = np.add.reduceat(curve.steps.astype(np.float64), edges) / np.diff([*edges, len(curve.values)])
    with np.errstate(invalid="ignore", divide="ignore"):
        return Curve(middles.round().astype(np.uint32), (sums / counts).astype(np.float32))


def limit(histories: Iterable[History]) -> int:
    """How many points a curve may have so that all of them fit on the page."""
    lengths = np.asarray([len(c.steps) for history in histories for c in history.curves.values()] or [0])
    return next((most for most in POINTS if np.minimum(lengths, most * 1.25).sum() <= BUDGET), POINTS[-1])


# ------------------------------------------------------------------------------------------------------ packed


class Arrays:
    """Numbers as base64 of little-endian 32 bits; what is equal (the steps of many curves) is kept once."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._known: dict[bytes, int] = {}

    def add(self, values: np.ndarray) -> int:
        """Where the values stand. Their type is known to who asks for them: uint32 or float32."""
        data = values.astype(values.dtype.newbyteorder("<")).tobytes()
        if data not in self._known:
            self._known[data] = len(self.texts)
            self.texts.append(base64.b64encode(data).decode())
        return self._known[data]


def pack(histories: list[History], arrays: Arrays) -> dict[str, Any]:
    """What the page is told of all curves: `curves` by metric, a list of [run, rows, steps, values, steps of means,
    means], where arrays stand as their numbers, and `clocks` of each run."""
    most = limit(histories)
    curves: dict[str, list[list[int]]] = {}
    for run, history in enumerate(histories):
        for metric, curve in history.curves.items():
            kept = thin(curve.values, most)
            told = [run, len(curve.steps), arrays.add(curve.steps[kept]), arrays.add(curve.values[kept])]
            if len(kept) < len(curve.steps):
                mean = means(curve, most // 4)
                told += [arrays.add(mean.steps), arrays.add(mean.values)]
            curves.setdefault(metric, []).append(told)
    clocks = [{name: _clock(getattr(h, name), arrays) for name in ("epoch", "time")} for h in histories]
    return {"curves": curves, "clocks": clocks, "points": most}


def _clock(curve: Curve, arrays: Arrays) -> list[int]:
    if not len(curve.steps):
        return []
    kept = np.unique(np.linspace(0, len(curve.steps) - 1, KNOTS).round().astype(int))
    return [arrays.add(curve.steps[kept]), arrays.add(curve.values[kept])]
