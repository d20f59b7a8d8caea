"""Schedules that go up and down, and move the momentum against the learning rate."""

from __future__ import annotations

from typing import Literal

from torch.optim import Optimizer, lr_scheduler

from trainer.durations import Duration, Length
from trainer.schedules.base import Schedule, positive


def onecycle(
    optimizer: Optimizer,
    total_steps: int,
    max_lr: float | None = None,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    cycle_momentum: bool = True,
    base_momentum: float = 0.85,
    max_momentum: float = 0.95,
) -> Schedule:
    """Up to `max_lr` (the optimizer's lr unless given) and down again (Smith & Topin 2018, arXiv:1708.07120).

    The momentum (Adam's first beta) goes the other way, between `base_momentum` and `max_momentum`, where there is one.
    """
    made = lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=_peaks(optimizer, max_lr),
        # torch refuses to move past the end, and the last update needs no rate after it
        total_steps=total_steps + 1,
        pct_start=pct_start,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
        cycle_momentum=cycle_momentum and _has_momentum(optimizer),
        base_momentum=base_momentum,
        max_momentum=max_momentum,
    )
    return Schedule(made, "step", total_steps)


def cyclic(
    optimizer: Optimizer,
    steps_per_epoch: int,
    total_steps: int,
    max_lr: float | None = None,
    div_factor: float = 10.0,
    half_cycle: Length = "10%",
    shape: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    gamma: float = 1.0,
    cycle_momentum: bool = True,
    base_momentum: float = 0.8,
    max_momentum: float = 0.9,
) -> Schedule:
    """From `max_lr` / `div_factor` up to `max_lr` (the optimizer's lr unless given) and back, again and again.

    Smith 2017, arXiv:1506.01186. `triangular2` halves the rise with each cycle, `exp_range` multiplies it by `gamma`
    with each step. The momentum (Adam's first beta) goes the other way, where there is one.
    """
    for name, value in (("div_factor", div_factor), ("gamma", gamma)):
        positive(name, value)
    peaks = _peaks(optimizer, max_lr)
    made = lr_scheduler.CyclicLR(
        optimizer,
        base_lr=[peak / div_factor for peak in peaks],
        max_lr=peaks,
        step_size_up=Duration.parse(half_cycle, "half_cycle").steps(steps_per_epoch, total_steps),
        mode=shape,
        gamma=gamma,
        cycle_momentum=cycle_momentum and _has_momentum(optimizer),
        base_momentum=base_momentum,
        max_momentum=max_momentum,
    )
    return Schedule(made, "step")


def _peaks(optimizer: Optimizer, max_lr: float | None) -> list[float]:
    """The highest rate of each group: its own, or what makes that of the first group `max_lr`."""
    lrs = [float(group["lr"]) for group in optimizer.param_groups]
    if max_lr is None:
        return lrs
    return [max_lr * lr / lrs[0] if lrs[0] else max_lr for lr in lrs]


def _has_momentum(optimizer: Optimizer) -> bool:
    """Whether there is a momentum to move against the learning rate; torch refuses to where there is none."""
    return "betas" in optimizer.defaults or bool(optimizer.defaults.get("momentum"))
