"""What every schedule is: a torch scheduler, when it moves, and a linear warm-up before it."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from trainer.durations import Duration, Length
from trainer.errors import ConfigError
from trainer.optim.freezing import distinct
from trainer.state import State

Unit = Literal["step", "epoch", "value"]
Shape = Callable[[int], float]

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
        horizon: the moves after which the curve has come to its end; None where it has none.

    Attributes:
        thaws: the updates that each parameter group is frozen for; empty where none is.
    """

    def __init__(self, scheduler: LRScheduler | Any, unit: Unit = "step", horizon: int | None = None) -> None:
        self.scheduler, self.unit = scheduler, unit
        known = [vars(scheduler).get(name) for name in ("T_max", "total_steps", "total_iters")]
        self.horizon = horizon or next((length for length in known if isinstance(length, int)), None)
        self.warmup_steps, self.start_factor = 0, 1.0
        self.step = 0
        self.thaws: Sequence[int] = ()
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
        groups: list[dict[str, Any]] = self.scheduler.optimizer.param_groups
        return groups

    @property
    def lrs(self) -> list[float]:
        """The learning rate of each parameter group, for the update that comes next."""
        return [float(group["lr"]) for group in self.groups]

    @property
    def momenta(self) -> list[float]:
        """The momentum of each parameter group (Adam's first beta), where the schedule moves it; else nothing."""
        return [momentum_of(group) for group in self.groups] if self.moves_momentum else []

    @property
    def moves_momentum(self) -> bool:
        return bool(getattr(self.scheduler, "cycle_momentum", False))

    @property
    def rates(self) -> dict[str, float]:
        """What is logged: `lr` of the first group, and `lr/<group>` of each name where there are several.

        The rate of a group that is frozen is 0. `momentum` and `momentum/<group>` likewise, if it moves.
        """
        rates = self._named("lr", self.acting_lrs)
        return rates | self._named("momentum", self.momenta) if self.moves_momentum else rates

    @property
    def acting_lrs(self) -> list[float]:
        """The learning rate of each parameter group; 0 while it is frozen."""
        if not any(self.thaws):
            return self.lrs
        return [lr if self.step >= thaw else 0.0 for lr, thaw in zip(self.lrs, self.thaws, strict=True)]

    def _named(self, name: str, values: Sequence[float]) -> dict[str, float]:
        if len(self._names) == 1:
            return {name: values[0]}
        return {name: values[0], **{f"{name}/{called}": values[n] for called, n in self._names.items()}}

    @functools.cached_property
    def _names(self) -> dict[str, int]:
        return distinct(self.groups)

    def on_step(self) -> None:
        self.step += 1
        if self.step <= self.warmup_steps:
            self._scale()
        elif self._hears("step"):
            self._advance("step")

    def on_epoch(self) -> None:
        if self._hears("epoch"):
            self._move("epoch")

    def on_value(self, value: float) -> None:
        """Tells a schedule that follows a metric its newest value; NaN counts as no better."""
        if self._hears("value"):
            self._move("value", value)

    def _hears(self, unit: Unit) -> bool:
        return self.unit == unit

    def _move(self, unit: Unit, *value: float) -> None:
        """One move of the schedule itself. torch computes the next rate from the present one: give it the unscaled."""
        warming = self.step < self.warmup_steps
        if warming:
            for group, peak in zip(self.groups, self._peaks, strict=True):
                group["lr"] = peak
        self._advance(unit, *value)
        if warming:
            self._peaks = self.lrs
            self._scale()

    def _advance(self, unit: Unit, *value: float) -> None:
        scheduler: Any = self.scheduler
        if scheduler.last_epoch > 0:
            scheduler.step(*value)
            return
        with warnings.catch_warnings():  # torch wants an update before it, which a scaler may have left out
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            scheduler.step(*value)

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

    @property
    def follows_metric(self) -> bool:
        """Whether its moves depend on what the evaluations found."""
        return self.unit == "value"

    def beginning(self) -> State:
        """All that `walk` needs to begin anew, of a schedule that has not moved yet."""
        groups = [{name: group[name] for name in group if name in _MOVED} for group in self.groups]
        return copy.deepcopy({**self.state_dict(), "groups": groups})

    def walk(self, beginning: State, steps: int, steps_per_epoch: int) -> None:
        """Begins anew and moves to where a run of this length is after so many steps, by making each move.

        A schedule that follows a metric stays as it is.
        """
        if self.follows_metric:
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
        return shaped(optimizer, lambda lr: _one)
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

    def __init__(self, length: Length = "5%", start_factor: float = 0.1) -> None:
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


# ------------------------------------------------------------------------------------- for those who make schedules


def shaped(
    optimizer: Optimizer, shape_of: Callable[[float], Shape], unit: Unit = "step", horizon: int | None = None
) -> Schedule:
    """A schedule of a formula: the factor of each group by the moves done; `shape_of` knows the group's rate."""
    shapes = [shape_of(float(group["lr"])) for group in optimizer.param_groups]
    return Schedule(lr_scheduler.LambdaLR(optimizer, shapes), unit, horizon)


def momentum_of(group: dict[str, Any]) -> float:
    return float(group["betas"][0] if "betas" in group else group.get("momentum", 0.0))


def set_momentum(group: dict[str, Any], value: float) -> None:
    if "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value


class StandIn(Optimizer):
    """The groups of an optimizer with one parameter each: a schedule can move them, and nothing is trained."""

    def __init__(self, optimizer: Optimizer) -> None:
        groups = [
            {**{name: value for name, value in group.items() if name not in ("params", "initial_lr")},
             "params": [torch.zeros(1)], "lr": float(group.get("initial_lr", group["lr"]))}
            for group in optimizer.param_groups
        ]  # fmt: skip
        super().__init__(groups, dict(optimizer.defaults))

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Nothing to do."""


def floor_of(min_lr: float, lr: float) -> float:
    """The lowest rate as a share of a group's own."""
    return min_lr / lr if lr else 0.0


def positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name}: {value} must be more than 0")


def not_negative(name: str, value: float) -> None:
    if value < 0:
        raise ValueError(f"{name}: {value} must not be negative")


def _one(_: int) -> float:
    return 1.0
