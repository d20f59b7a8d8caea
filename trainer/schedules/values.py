"""Schedules that follow the monitored metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch.optim import Optimizer, lr_scheduler

from trainer.schedules.base import Schedule, positive
from trainer.state import State


def plateau(
    optimizer: Optimizer,
    mode: Literal["min", "max"] = "min",
    factor: float = 0.1,
    patience: int = 5,
    threshold: float = 1e-4,
    min_lr: float = 0.0,
) -> Schedule:
    """Times `factor` when the monitored metric has been no better for more than `patience` evaluations."""
    made = lr_scheduler.ReduceLROnPlateau(
        optimizer, mode=mode, factor=factor, patience=patience, threshold=threshold, min_lr=min_lr
    )
    return Schedule(made, "value")


def greedy(
    optimizer: Optimizer,
    mode: Literal["min", "max"] = "min",
    factor: float = 0.95,
    patience: int = 10,
    threshold: float = 1e-6,
    cooldown: int = 0,
    settle: int = 0,
    min_lr: float | None = None,
    max_lr: float | None = None,
    window: int = 1,
    reset: int = 500,
) -> Schedule:
    """Divided by `factor` while the metric gets better, times `factor` while it does not (GreedyLR, arXiv:2512.14527).

    Args:
        factor: less than 1. patience: evaluations in a row before a move. threshold: what counts as better.
        cooldown, settle: evaluations without a move after a fall, after a rise.
        min_lr, max_lr: bounds; a hundredth and ten times the learning rate unless given.
        window: evaluations whose mean counts. reset: falls at the lowest rate after which all begins anew.
    """
    positive("factor", factor)
    if factor >= 1:
        raise ValueError(f"factor: {factor} must be less than 1")
    lrs = [float(group["lr"]) for group in optimizer.param_groups]
    low = [lr / 100 if min_lr is None else min_lr for lr in lrs]
    high = [lr * 10 if max_lr is None else max_lr for lr in lrs]
    made = Greedy(optimizer, 1 if mode == "max" else -1, factor, patience, threshold, (cooldown, settle), low, high,
                  window, reset)  # fmt: skip
    return Schedule(made, "value")


class Greedy:
    """The scheduler of `greedy`, whose other arguments are the same.

    Args:
        sign: 1 where more is better, else -1. pauses: `cooldown` and `settle`. low, high: the bounds of each group.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        sign: int,
        factor: float,
        patience: int,
        threshold: float,
        pauses: tuple[int, int],
        low: Sequence[float],
        high: Sequence[float],
        window: int,
        reset: int,
    ) -> None:
        self.optimizer = optimizer
        self.sign, self.factor, self.patience, self.threshold = sign, factor, patience, threshold
        self.pauses, self.low, self.high, self.window, self.reset = pauses, low, high, window, reset
        self.base_lrs = [float(group["lr"]) for group in optimizer.param_groups]
        self.last_epoch = 0
        self._begin()

    def _begin(self) -> None:
        self.best, self.good, self.bad, self.pause, self.falls = -math.inf, 0, 0, 0, 0
        self.values: list[float] = []

    def step(self, value: float) -> None:
        """Takes in what an evaluation found; NaN is no better."""
        self.last_epoch += 1
        self.values = [*self.values, value][-self.window :]
        if self.pause:
            self.pause -= 1
            self.good = self.bad = 0
            return
        mean = self.sign * sum(self.values) / len(self.values)
        if mean > self.best + self.threshold:
            self.best, self.good, self.bad = mean, self.good + 1, 0
        else:
            self.good, self.bad = 0, self.bad + 1
        if self.good > self.patience:
            self._rise()
        elif self.bad > self.patience:
            self._fall()

    def _rise(self) -> None:
        for group, most in zip(self.optimizer.param_groups, self.high, strict=True):
            group["lr"] = max(group["lr"], min(group["lr"] / self.factor, most))
        self.pause, self.good, self.falls = self.pauses[1], 0, 0

    def _fall(self) -> None:
        for group, least in zip(self.optimizer.param_groups, self.low, strict=True):
            group["lr"] = min(group["lr"], max(group["lr"] * self.factor, least))
        self.bad = 0
        at_bottom = all(
            group["lr"] <= least for group, least in zip(self.optimizer.param_groups, self.low, strict=True)
        )
        self.falls += at_bottom
        if at_bottom and self.falls >= self.reset:
            for group, lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
                group["lr"] = lr
            self._begin()
        self.pause = self.pauses[0]

    def state_dict(self) -> State:
        return {name: getattr(self, name) for name in _MOVING} | {"values": list(self.values)}

    def load_state_dict(self, state: State) -> None:
        for name in _MOVING:
            setattr(self, name, state[name])
        self.values = list(state["values"])


_MOVING = ("last_epoch", "best", "good", "bad", "pause", "falls")
