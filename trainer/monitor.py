"""What is best so far, and when to stop: pure objects that know numbers only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from trainer.durations import count
from trainer.errors import ConfigError, did_you_mean
from trainer.records import Row
from trainer.state import State

Mode = Literal["min", "max"]


class Patience:
    """Stops a run whose monitored metric has not become better for a number of evaluations.

    Args:
        monitor: the metric, e.g. `val/loss`. It also decides which checkpoint is the best.
        mode: whether `min` or `max` is better; `auto` asks the task.
        patience: evaluations without improvement after which to stop; null never stops.
        min_delta: the least change that counts as an improvement here (the best checkpoint needs none).
    """

    def __init__(
        self,
        monitor: str = "val/loss",
        mode: Literal["auto", "min", "max"] = "auto",
        patience: int | None = 5,
        min_delta: float = 0.0,
    ) -> None:
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode: {mode!r} is unknown; use auto, min or max")
        if patience is not None and patience < 1:
            raise ValueError(f"patience: {patience} must be at least 1; early_stopping=none never stops early")
        if not (0 <= min_delta < math.inf):
            raise ValueError(f"min_delta: {min_delta} must be 0 or more")
        self.monitor, self.mode, self.patience, self.min_delta = monitor, mode, patience, min_delta
        self.stale = 0
        self.reference: float | None = None

    def update(self, value: float) -> None:
        """Takes in the newest value; NaN is no improvement."""
        if self.reference is None:
            better = math.isfinite(value)
        else:
            gain = value - self.reference if self.mode == "max" else self.reference - value
            better = math.isfinite(value) and (gain > self.min_delta)
        self.stale = 0 if better else self.stale + 1
        if better:
            self.reference = value

    @property
    def exhausted(self) -> bool:
        return self.patience is not None and self.stale >= self.patience

    def describe(self) -> str:
        times = count(self.stale, "evaluation")
        if self.reference is None:
            return f"{self.monitor} was no number in any of {times}"
        return f"no better {self.monitor} for {times}"

    def state_dict(self) -> State:
        return {"stale": self.stale, "reference": self.reference}

    def load_state_dict(self, state: State) -> None:
        self.stale, self.reference = state["stale"], state["reference"]


class Best:
    """The best row so far: every metric at that one evaluation. A value that is not finite is never best."""

    def __init__(self, monitor: str, mode: Mode) -> None:
        self.monitor, self.mode = monitor, mode
        self.row: Row = {}

    def update(self, row: Row) -> bool:
        """Takes in the row of an evaluation; returns whether it is the best so far."""
        value = row.get(self.monitor, math.nan)
        if not math.isfinite(value):
            return False
        old = self.row.get(self.monitor)
        if old is not None and not (value > old if self.mode == "max" else value < old):
            return False
        self.row = dict(row)
        return True

    def state_dict(self) -> State:
        return {"row": dict(self.row)}

    def load_state_dict(self, state: State) -> None:
        self.row = dict(state["row"])


def direction(monitor: str, mode: str, measures: Mapping[str, Mode]) -> Mode:
    """Whether `min` or `max` of the monitored metric is better.

    Args:
        monitor: the metric with its prefix (`val/dice`). mode: `auto` or what the user says.
        measures: what the task says of its metrics, without prefix.

    Raises:
        ConfigError: `auto`, and the task does not say.
    """
    if mode in ("min", "max"):
        return mode  # type: ignore[return-value]
    name = monitor.partition("/")[2]
    if name not in measures:
        raise ConfigError(f"early_stopping.mode: the task does not say if more {monitor} is better; use min or max")
    return measures[name]


def check_monitor(monitor: str, available: list[str]) -> None:
    """Raises ConfigError where no evaluation gives the monitored metric."""
    if monitor not in available:
        raise ConfigError(
            f"early_stopping.monitor: {monitor!r} is not measured; an evaluation gives {', '.join(available)}"
            f" ({did_you_mean(monitor, available)})"
        )
