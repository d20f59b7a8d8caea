"""Learning-rate schedules: each knows its unit (step, epoch or value), and a warm-up composes with every one.

The functions `cosine`, `step`, `plateau`, ... are what `conf/scheduler/` names. They get the optimizer and the horizon
that is left after the warm-up, and return a `Schedule`.
"""

from __future__ import annotations

import copy
import functools
import math
import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from trainer.durations import Duration
from trainer.errors import ConfigError
from trainer.state import State

Unit = Literal["step", "epoch", "value"]

_MOVED = ("lr", "initial_lr", "min_lr", "max_lr", "betas", "momentum", "base_momentum", "max_momentum")
"""What schedules change of an optimizer's parameter groups."""


class Schedule:
    """A torch scheduler, when it moves, and a linear warm-up before it.

    During the warm-up the learning rates are those of the schedule times a factor that rises from `start_factor` to 1.
    A schedule that counts steps stands still until the warm-up is over; one that counts epochs or values does not.

    Args:
        scheduler: any scheduler of `torch.optim.lr_scheduler`, or one that behaves like it.
        unit: `step` moves after each optimizer update, `epoch` after each epoch, `value` after each evaluation, with
            the monitored metric.
    """

    def __init__(self, scheduler: LRScheduler, unit: Unit = "step") -> None:
        self.scheduler, self.unit = scheduler, unit
        self.warmup_steps, self.start_factor = 0, 1.0
        self.step = 0
        self._peaks = self.lrs  # the learning rates without the warm-up's factor

    def warm_up(self, steps: int, start_factor: float) -> Schedule:
        """Puts a warm-up of that many steps before the schedule."""
        self.warmup_steps, self.start_factor = steps, start_factor
        if steps:
            self._scale()
        return self

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's parameter groups; it makes new ones when its state is restored."""
        return self.scheduler.optimizer.param_groups

    @property
    def lrs(self) -> list[float]:
        """The learning rate of each parameter group, for the update that comes next."""
        return [float(group["lr"]) for group in self.groups]

    @property
    def rates(self) -> dict[str, float]:
        """The same by the name that they are logged under: `lr`, or `lr/<group>` where there are several groups."""
        if len(self.groups) == 1:
            return {"lr": float(self.groups[0]["lr"])}
        return {f"lr/{group.get('name', n)}": float(group["lr"]) for n, group in enumerate(self.groups)}

    def on_step(self) -> None:
        self.step += 1
        if self.step <= self.warmup_steps:
            self._scale()
        elif self.unit == "step":
            self._advance()

    def on_epoch(self) -> None:
        if self.unit == "epoch":
            self._move()

    def on_value(self, value: float) -> None:
        """Tells a schedule that follows a metric its newest value; NaN counts as no better."""
        if self.unit == "value":
            self._move(value)

    def _move(self, *value: float) -> None:
        """One move of the schedule itself. torch computes the next rate from the present one: give it the unscaled."""
        warming = self.step < self.warmup_steps
        if warming:
            for group, peak in zip(self.groups, self._peaks, strict=True):
                group["lr"] = peak
        self._advance(*value)
        if warming:
            self._peaks = self.lrs
            self._scale()

    def _advance(self, *value: float) -> None:
        if self.scheduler.last_epoch > 0:
            self.scheduler.step(*value)  # type: ignore[arg-type]
            return
        with warnings.catch_warnings():  # torch wants an update before it, which a scaler may have left out
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            self.scheduler.step(*value)  # type: ignore[arg-type]

    def _scale(self) -> None:
        share = self.step / self.warmup_steps
        factor = self.start_factor + (1 - self.start_factor) * share if share < 1 else 1.0
        for group, peak in zip(self.groups, self._peaks, strict=True):
            group["lr"] = peak * factor

    def state_dict(self) -> State:
        return {"scheduler": self.scheduler.state_dict(), "step": self.step, "peaks": list(self._peaks)}

    def load_state_dict(self, state: State) -> None:
        self.scheduler.load_state_dict(state["scheduler"])
        self.step, self._peaks = state["step"], list(state["peaks"])

    def beginning(self) -> State:
        """All that `walk` needs to begin anew, of a schedule that has not moved yet."""
        groups = [{name: group[name] for name in group if name in _MOVED} for group in self.groups]
        return copy.deepcopy({**self.state_dict(), "groups": groups})

    def walk(self, beginning: State, steps: int, steps_per_epoch: int) -> None:
        """Begins anew and moves to where a run of this length is after so many steps, by making each move.

        A schedule that follows a metric stays as it is.
        """
        if self.unit == "value":
            return
        for group, values in zip(self.groups, beginning["groups"], strict=True):
            group.update(copy.deepcopy(values))
        self.load_state_dict(copy.deepcopy(beginning))
        for done in range(1, steps + 1):
            self.on_step()
            if done % steps_per_epoch == 0:
                self.on_epoch()


def as_schedule(made: object, optimizer: Optimizer) -> Schedule:
    """The schedule itself; a constant one for None.

    Raises:
        ConfigError: it is something else, such as a bare torch scheduler, which does not say when it moves.
    """
    if made is None:
        return constant(optimizer)
    if not isinstance(made, Schedule):
        name = type(made).__name__
        raise ConfigError(
            f"schedule: a {name} does not say when it moves; give Schedule({name}(...), 'step' or 'epoch')"
        )
    return made


class Warmup:
    """A linear rise of the learning rate at the start of a run (Goyal et al. 2017, arXiv:1706.02677).

    Args:
        length: a duration such as `500steps`, `1epoch` or `5%` of the run; `never` for no warm-up.
        start_factor: the share of the learning rate to start from, 0 to 1.
    """

    def __init__(self, length: str = "5%", start_factor: float = 0.1) -> None:
        self.length = Duration.parse(length, "length")
        if self.length.unit == "seconds":
            raise ValueError(f"length: {length} is a time; use steps, epochs or %")
        if not 0 <= start_factor <= 1:
            raise ValueError(f"start_factor: {start_factor} must lie between 0 and 1")
        self.start_factor = start_factor

    def steps(self, steps_per_epoch: int, total_steps: int) -> int:
        """The warm-up in optimizer updates.

        Raises:
            ConfigError: it is not shorter than the run.
        """
        if self.length.unit == "never":
            return 0
        steps = self.length.steps(steps_per_epoch, total_steps)
        if self.length.unit == "%":  # of a very short run, too
            steps = min(steps, total_steps - 1)
        if steps >= total_steps:
            raise ConfigError(
                f"warmup.length: {self.length} are {steps} steps and the whole run has {total_steps}; "
                "use a shorter warm-up, or more epochs"
            )
        return steps


# ---------------------------------------------------------------------------------------------------- the schedules


def constant(optimizer: Optimizer) -> Schedule:
    """The learning rate stays as it is."""
    return Schedule(lr_scheduler.LambdaLR(optimizer, _one), "step")


def cosine(optimizer: Optimizer, total_steps: int, min_lr: float = 0.0) -> Schedule:
    """Half a cosine down to `min_lr` over the run (Loshchilov & Hutter 2017, arXiv:1608.03983)."""
    _not_negative("min_lr", min_lr)
    floors = [min_lr / group["lr"] if group["lr"] else 0.0 for group in optimizer.param_groups]
    shapes: list[Callable[[int], float]] = [
        functools.partial(_half_cosine, total=total_steps, floor=floor) for floor in floors
    ]
    return Schedule(lr_scheduler.LambdaLR(optimizer, shapes), "step")


def linear(optimizer: Optimizer, total_steps: int, end_factor: float = 0.0) -> Schedule:
    """A straight line from the learning rate to `end_factor` times it over the run."""
    _not_negative("end_factor", end_factor)
    shape = functools.partial(_line, total=total_steps, end=end_factor)
    return Schedule(lr_scheduler.LambdaLR(optimizer, shape), "step")


def polynomial(optimizer: Optimizer, total_steps: int, power: float = 0.9) -> Schedule:
    """(1 - step / total) ** power, down to zero over the run; 0.9 is usual in segmentation."""
    _positive("power", power)
    shape = functools.partial(_power, total=total_steps, power=power)
    return Schedule(lr_scheduler.LambdaLR(optimizer, shape), "step")


def exponential(optimizer: Optimizer, factor: float = 0.95) -> Schedule:
    """Times `factor` after each epoch."""
    _positive("factor", factor)
    return Schedule(lr_scheduler.ExponentialLR(optimizer, gamma=factor), "epoch")


def step(
    optimizer: Optimizer, steps_per_epoch: int, total_steps: int, every: str = "30%", factor: float = 0.1
) -> Schedule:
    """Times `factor` each time that `every` has passed: `30epochs`, `5000steps` or `30%` of the run."""
    _positive("factor", factor)
    size = Duration.parse(every, "scheduler.every").steps(steps_per_epoch, total_steps)
    return Schedule(lr_scheduler.StepLR(optimizer, step_size=size, gamma=factor), "step")


def onecycle(
    optimizer: Optimizer,
    total_steps: int,
    max_lr: float | None = None,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Schedule:
    """Up to `max_lr` (the optimizer's lr unless given) and down again (Smith & Topin 2018, arXiv:1708.07120)."""
    peaks = [max_lr if max_lr is not None else group["lr"] for group in optimizer.param_groups]
    made = lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=peaks,
        # torch refuses to move past the end, and the last update needs no rate after it
        total_steps=total_steps + 1,
        pct_start=pct_start,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
        cycle_momentum=_has_momentum(optimizer),
    )
    return Schedule(made, "step")


def cyclic(
    optimizer: Optimizer,
    steps_per_epoch: int,
    total_steps: int,
    max_lr: float | None = None,
    div_factor: float = 10.0,
    half_cycle: str = "10%",
    shape: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    gamma: float = 1.0,
) -> Schedule:
    """From `max_lr` / `div_factor` up to `max_lr` (the optimizer's lr unless given) and back, again and again.

    Smith 2017, arXiv:1506.01186. `triangular2` halves the rise with each cycle, `exp_range` multiplies it by `gamma`
    with each step.
    """
    for name, value in (("div_factor", div_factor), ("gamma", gamma)):
        _positive(name, value)
    peaks = [max_lr if max_lr is not None else group["lr"] for group in optimizer.param_groups]
    made = lr_scheduler.CyclicLR(
        optimizer,
        base_lr=[peak / div_factor for peak in peaks],
        max_lr=peaks,
        step_size_up=Duration.parse(half_cycle, "scheduler.half_cycle").steps(steps_per_epoch, total_steps),
        mode=shape,
        gamma=gamma,
        cycle_momentum=_has_momentum(optimizer),
    )
    return Schedule(made, "step")


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


def simulate(
    make: Callable[[Optimizer], Schedule], lrs: list[float], steps: int, steps_per_epoch: int
) -> list[list[float]]:
    """The learning rates of a whole run before it is trained: the real schedule steps an optimizer of empty groups.

    Args:
        make: builds the schedule for an optimizer.
        lrs: the learning rate of each group. steps, steps_per_epoch: the length of the run.

    Returns:
        One list for each group, with the rate of each update. A schedule that follows a metric is shown as if the
        metric improved each time.
    """
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in lrs]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    schedule = make(optimizer)
    curve: list[list[float]] = [[] for _ in lrs]
    for done in range(steps):
        for line, lr in zip(curve, schedule.lrs, strict=True):
            line.append(lr)
        optimizer.step()
        schedule.on_step()
        if (done + 1) % steps_per_epoch == 0:
            schedule.on_epoch()
    return curve


def _has_momentum(optimizer: Optimizer) -> bool:
    """Whether there is a momentum to move against the learning rate; torch refuses to where there is none."""
    return "betas" in optimizer.defaults or bool(optimizer.defaults.get("momentum"))


def _one(_: int) -> float:
    return 1.0


def _half_cosine(step: int, total: int, floor: float) -> float:
    share = min(step / total, 1.0)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))


def _line(step: int, total: int, end: float) -> float:
    return 1 + (end - 1) * min(step / total, 1.0)


def _power(step: int, total: int, power: float) -> float:
    return float((1 - min(step / total, 1.0)) ** power)


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name}: {value} must be more than 0")


def _not_negative(name: str, value: float) -> None:
    if value < 0:
        raise ValueError(f"{name}: {value} must not be negative")
