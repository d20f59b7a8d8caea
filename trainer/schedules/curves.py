"""Schedules that are a formula of the steps or epochs done."""

from __future__ import annotations

import bisect
import functools
import math
from typing import Literal

from torch.optim import Optimizer, lr_scheduler

from trainer.durations import Duration, Length
from trainer.schedules.base import Schedule, as_schedule, floor_of, not_negative, positive, shaped

Decay = Literal["linear", "cosine", "1-sqrt"]


def constant(optimizer: Optimizer) -> Schedule:
    """The learning rate stays as it is."""
    return as_schedule(None, optimizer)


def cosine(optimizer: Optimizer, total_steps: int, min_lr: float = 0.0) -> Schedule:
    """Half a cosine down to `min_lr` over the run (Loshchilov & Hutter 2017, arXiv:1608.03983)."""
    not_negative("min_lr", min_lr)
    return shaped(
        optimizer, lambda lr: functools.partial(_half_cosine, total=total_steps, floor=floor_of(min_lr, lr)),
        horizon=total_steps,
    )  # fmt: skip


def cosine_min_lr(
    optimizer: Optimizer,
    total_steps: int,
    share: float = 0.1,
    min_lr: float | None = None,
    at_last: bool = True,
) -> Schedule:
    """Half a cosine down to `share` of each group's rate, or to `min_lr`.

    Args:
        share: of the learning rate, 0 to 1. min_lr: the lowest rate itself, instead of a share.
        at_last: the last update has the lowest rate; else it would be that of the update after it, as with `cosine`.
    """
    not_negative("min_lr", min_lr or 0.0)
    not_negative("share", share)
    total = max(1, total_steps - 1) if at_last else total_steps

    def shape(lr: float) -> functools.partial[float]:
        return functools.partial(_half_cosine, total=total, floor=share if min_lr is None else floor_of(min_lr, lr))

    return shaped(optimizer, shape, horizon=total_steps)


def cosine_restarts(
    optimizer: Optimizer,
    steps_per_epoch: int,
    total_steps: int,
    cycles: int = 3,
    growth: float = 2.0,
    first: Length | None = None,
    min_lr: float = 0.0,
) -> Schedule:
    """Half cosines one after the other, each `growth` times as long as the one before: SGDR (arXiv:1608.03983).

    Args:
        cycles: how many there are in the run, which ends with the last one. first: the length of the first, such as
            `10epochs`; then there are as many as the run has room for, and the last may be cut off.
    """
    positive("cycles", cycles)
    positive("growth", growth)
    not_negative("min_lr", min_lr)
    length = None if first is None else Duration.parse(first, "first").steps(steps_per_epoch, total_steps)
    starts = _cycles(length, cycles, growth, total_steps)
    return shaped(
        optimizer, lambda lr: functools.partial(_restarts, starts=starts, floor=floor_of(min_lr, lr)),
        horizon=starts[-1],
    )  # fmt: skip


def cosine_hard_restarts(optimizer: Optimizer, total_steps: int, cycles: int = 4) -> Schedule:
    """As many equal half cosines down to zero as told, each from the full learning rate again."""
    positive("cycles", cycles)
    return shaped(
        optimizer, lambda lr: functools.partial(_hard_restarts, total=total_steps, cycles=cycles), horizon=total_steps
    )


def linear(optimizer: Optimizer, total_steps: int, end_factor: float = 0.0) -> Schedule:
    """A straight line from the learning rate to `end_factor` times it over the run."""
    not_negative("end_factor", end_factor)
    return shaped(
        optimizer, lambda lr: functools.partial(_line, total=total_steps, end=end_factor), horizon=total_steps
    )


def polynomial(optimizer: Optimizer, total_steps: int, power: float = 0.9, min_lr: float = 0.0) -> Schedule:
    """(1 - step / total) ** power, down to `min_lr` over the run; 0.9 is usual in segmentation."""
    positive("power", power)
    not_negative("min_lr", min_lr)
    return shaped(
        optimizer, lambda lr: functools.partial(_power, total=total_steps, power=power, floor=floor_of(min_lr, lr)),
        horizon=total_steps,
    )  # fmt: skip


def exponential(optimizer: Optimizer, factor: float = 0.95) -> Schedule:
    """Times `factor` after each epoch."""
    positive("factor", factor)
    return Schedule(lr_scheduler.ExponentialLR(optimizer, gamma=factor), "epoch")


def step(
    optimizer: Optimizer, steps_per_epoch: int, total_steps: int, every: Length = "30%", factor: float = 0.1
) -> Schedule:
    """Times `factor` whenever `every` has passed: `30epochs`, `5000steps` or `30%` of the run less its warm-up."""
    positive("factor", factor)
    size = Duration.parse(every, "every").steps(steps_per_epoch, total_steps)
    return Schedule(lr_scheduler.StepLR(optimizer, step_size=size, gamma=factor), "step")


def multistep(
    optimizer: Optimizer,
    steps_per_epoch: int,
    total_steps: int,
    warmup_steps: int = 0,
    milestones: tuple[Length, ...] = ("50%", "75%"),
    factor: float = 0.1,
) -> Schedule:
    """Times `factor` at each milestone, which is counted from the start of the run: `30epochs`, `5000steps`, `50%`."""
    positive("factor", factor)
    whole = warmup_steps + total_steps
    at = [Duration.parse(text, f"milestones[{n}]").steps(steps_per_epoch, whole) for n, text in enumerate(milestones)]
    if at != sorted(at):
        rising = ",".join(str(text) for _, text in sorted(zip(at, milestones, strict=True)))
        raise ValueError(f"milestones: {', '.join(map(str, milestones))} must rise; type milestones=[{rising}]")
    left = [step - warmup_steps for step in at]
    return shaped(optimizer, lambda lr: functools.partial(_multistep, milestones=left, factor=factor))


def inverse_sqrt(
    optimizer: Optimizer,
    steps_per_epoch: int,
    total_steps: int,
    warmup_steps: int = 0,
    timescale: Length | None = None,
) -> Schedule:
    """1 / sqrt(1 + steps / timescale), without an end: the schedule of the Transformer (arXiv:1706.03762).

    Args:
        timescale: a duration; by default the length of the warm-up, or 10000 steps without one.
    """
    scale = warmup_steps or 10_000
    if timescale is not None:
        scale = Duration.parse(timescale, "timescale").steps(steps_per_epoch, total_steps)
    return shaped(optimizer, lambda lr: functools.partial(_inverse_sqrt, timescale=scale))


def wsd(
    optimizer: Optimizer,
    steps_per_epoch: int,
    total_steps: int,
    decay: Length = "20%",
    shape: Decay = "1-sqrt",
    min_share: float = 0.0,
) -> Schedule:
    """Warm-up, stable, decay: the full rate until the last part of the run (Hu et al. 2024, arXiv:2404.06395).

    Args:
        decay: how long the last part is. shape: how it falls; `1-sqrt` after Hagele et al. 2024 (arXiv:2405.18392).
        min_share: of the learning rate, at the end.
    """
    not_negative("min_share", min_share)
    length = min(Duration.parse(decay, "decay").steps(steps_per_epoch, total_steps), total_steps)
    return shaped(
        optimizer,
        lambda lr: functools.partial(_wsd, stable=total_steps - length, decay=length, shape=shape, floor=min_share),
        horizon=total_steps,
    )


# ----------------------------------------------------------------------------------------------------- the formulas


def _half_cosine(step: int, total: int, floor: float) -> float:
    share = min(step / total, 1.0)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))


def _line(step: int, total: int, end: float) -> float:
    return 1 + (end - 1) * min(step / total, 1.0)


def _power(step: int, total: int, power: float, floor: float) -> float:
    return floor + (1 - floor) * float((1 - min(step / total, 1.0)) ** power)


def _hard_restarts(step: int, total: int, cycles: int) -> float:
    share = step / total
    return 0.5 * (1 + math.cos(math.pi * (cycles * share % 1.0))) if share < 1 else 0.0


def _multistep(step: int, milestones: list[int], factor: float) -> float:
    return float(factor ** bisect.bisect_right(milestones, step))


def _inverse_sqrt(step: int, timescale: int) -> float:
    return 1 / math.sqrt(1 + step / timescale)


def _wsd(step: int, stable: int, decay: int, shape: Decay, floor: float) -> float:
    share = min(max(step - stable, 0) / decay, 1.0)
    falls = {"linear": 1 - share, "cosine": 0.5 * (1 + math.cos(math.pi * share)), "1-sqrt": 1 - math.sqrt(share)}
    return floor + (1 - floor) * falls[shape]


def _restarts(step: int, starts: list[int], floor: float) -> float:
    """`starts` are the first steps of the cycles, and the step after the last."""
    n = bisect.bisect_right(starts, step)
    if n == len(starts):
        return floor
    return _half_cosine(step - starts[n - 1], starts[n] - starts[n - 1], floor)


def _cycles(first: int | None, cycles: int, growth: float, total: int) -> list[int]:
    if first is None:
        ends = [sum(growth**k for k in range(n)) for n in range(cycles + 1)]
        return sorted({round(end / ends[-1] * total) for end in ends})
    starts, length = [0], float(first)
    while starts[-1] < total:
        starts.append(starts[-1] + max(1, round(length)))
        length *= growth
    return starts
