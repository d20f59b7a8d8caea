"""Schedules made of others: one after the other, or all at once."""

from __future__ import annotations

import bisect
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from trainer.durations import Duration
from trainer.errors import ConfigError
from trainer.schedules.base import Schedule, StandIn, Unit, momentum_of, set_momentum
from trainer.state import State

Maker = Callable[..., Any]
"""Makes a schedule of what it names of optimizer, total_steps and steps_per_epoch: `{_target_: ...}` in a config."""


class Parts:
    """Several schedules as one scheduler: each moves a stand-in of the optimizer, and the optimizer follows.

    Args:
        optimizer: whose rates are moved. parts: the schedules, each on its own `StandIn`.
        starts: the step at which each part takes over from the one before; empty where all act at once, and what they
            do to the learning rate multiplies.
    """

    def __init__(self, optimizer: Optimizer, parts: Sequence[Schedule], starts: Sequence[int] = ()) -> None:
        self.optimizer, self.parts, self.starts = optimizer, list(parts), list(starts)
        self.base_lrs = [float(group["lr"]) for group in optimizer.param_groups]
        self.last_epoch = 0
        self._follow()

    @property
    def cycle_momentum(self) -> bool:
        return any(part.moves_momentum for part in self.parts)

    @property
    def acting(self) -> list[Schedule]:
        if not self.starts:
            return self.parts
        return [self.parts[bisect.bisect_right(self.starts, self.last_epoch) - 1]]

    def step(self, unit: Unit, *value: float) -> None:
        before = self.acting
        if unit == "step":
            self.last_epoch += 1
        if self.acting == before:  # a part that takes over begins at its own start
            for part in before:
                getattr(part, f"on_{unit}")(*value)
        self._follow()

    def _follow(self) -> None:
        for n, (group, base) in enumerate(zip(self.optimizer.param_groups, self.base_lrs, strict=True)):
            rates = [part.lrs[n] for part in self.acting]
            group["lr"] = rates[0]
            for rate in rates[1:]:
                group["lr"] *= rate / base if base else 1.0
            for part in self.acting:
                if part.moves_momentum:
                    set_momentum(group, part.momenta[n])

    def state_dict(self) -> State:
        groups = [[[lr, momentum_of(group)] for lr, group in zip(p.lrs, p.groups, strict=True)] for p in self.parts]
        return {"last_epoch": self.last_epoch, "parts": [part.state_dict() for part in self.parts], "groups": groups}

    def load_state_dict(self, state: State) -> None:
        if len(state["parts"]) != len(self.parts):
            raise ValueError(f"parts: there were {len(state['parts'])}, and there are {len(self.parts)} now")
        self.last_epoch = state["last_epoch"]
        for part, kept, groups in zip(self.parts, state["parts"], state["groups"], strict=True):
            part.load_state_dict(kept)
            for group, (lr, momentum) in zip(part.groups, groups, strict=True):
                group["lr"] = lr
                if part.moves_momentum:
                    set_momentum(group, momentum)


class Several(Schedule):
    """The schedule of `Parts`, which hear of steps, epochs and values, each of what it counts."""

    scheduler: Parts

    @property
    def follows_metric(self) -> bool:
        return any(part.follows_metric for part in self.scheduler.parts)

    def _hears(self, unit: Unit) -> bool:
        return True

    def _advance(self, unit: Unit, *value: float) -> None:
        self.scheduler.step(unit, *value)


def sequential(
    optimizer: Optimizer, steps_per_epoch: int, total_steps: int, mode: str = "min", parts: Sequence[Any] = ()
) -> Schedule:
    """One schedule after the other, each from the full learning rate and with its own length as its horizon.

    Args:
        parts: each a mapping of `schedule`, what makes it, and `length`, a duration (`50%` is of the run without its
            warm-up); one of them may leave the length out and gets the rest. `unit` says when a torch scheduler moves.
    """
    lengths = _lengths(parts, steps_per_epoch, total_steps)
    made = []
    for n, (part, length) in enumerate(zip(parts, lengths, strict=True)):
        known = {"total_steps": length, "steps_per_epoch": steps_per_epoch, "mode": mode}
        made.append(_made(part["schedule"], f"parts[{n}].schedule", optimizer, part.get("unit"), known))
    starts = [sum(lengths[:n]) for n in range(len(lengths))]
    return Several(Parts(optimizer, made, starts), "step", sum(lengths))


def chained(
    optimizer: Optimizer, steps_per_epoch: int, total_steps: int, mode: str = "min", parts: Sequence[Any] = ()
) -> Schedule:
    """Several schedules at once: their factors multiply.

    Args:
        parts: each a mapping of `schedule`, what makes it; `unit` says when a torch scheduler moves.
    """
    if not parts:
        raise ValueError("parts: must hold at least one schedule")
    known = {"total_steps": total_steps, "steps_per_epoch": steps_per_epoch, "mode": mode}
    made = [
        _made(_part(part, n, ("schedule", "unit"))["schedule"], f"parts[{n}].schedule", optimizer, part.get("unit"),
              known)
        for n, part in enumerate(parts)
    ]  # fmt: skip
    ends = [part.horizon for part in made if part.horizon and part.unit == "step"]
    return Several(Parts(optimizer, made), "step", max(ends, default=None))


def _part(part: Any, n: int, known: Sequence[str]) -> dict[str, Any]:
    if not isinstance(part, dict) or "schedule" not in part or not callable(part["schedule"]):
        raise ConfigError(f"parts[{n}]: must be {{schedule: {{_target_: trainer.schedules.cosine}}}}, with its length")
    for name in part:
        if name not in known:
            raise ConfigError(f"parts[{n}].{name}: there is no such key; known: {', '.join(known)}")
    return part


def _lengths(parts: Sequence[Any], steps_per_epoch: int, total_steps: int) -> list[int]:
    """The steps of each part; the one without a length gets what is left."""
    if not parts:
        raise ValueError("parts: must hold at least one schedule")
    given = [_part(part, n, ("schedule", "length", "unit")).get("length") for n, part in enumerate(parts)]
    lengths = [
        0 if length is None else Duration.parse(length, f"parts[{n}].length").steps(steps_per_epoch, total_steps)
        for n, length in enumerate(given)
    ]
    left, open_ends = total_steps - sum(lengths), given.count(None)
    if open_ends > 1:
        raise ValueError("parts: only one of them may be without a length")
    if open_ends and left < 1:
        raise ConfigError(f"parts: the lengths are {sum(lengths)} steps, and nothing of {total_steps} is left")
    return [length or left for length in lengths]


def _made(maker: Maker, key: str, optimizer: Optimizer, unit: Unit | None, known: dict[str, Any]) -> Schedule:
    """One part on a stand-in of its own; a complaint names its key."""
    try:
        made = _call(maker, optimizer=StandIn(optimizer), **known)
    except ConfigError as error:
        raise ConfigError([f"{key}.{text}" for text in error.problems]) from error
    except ValueError as error:
        raise ValueError(f"{key}.{error}") from error
    if isinstance(made, LRScheduler) and unit is not None:
        made = Schedule(made, unit)
    if not isinstance(made, Schedule):
        raise ConfigError(f"{key}: does not say when it moves; add unit: step, epoch or value beside it")
    return made


def _call(maker: Maker, **known: Any) -> Any:
    """Calls with those of the known arguments that the maker names and that are not set already."""
    taken = inspect.signature(maker).parameters
    fixed = getattr(maker, "keywords", {})
    wants = {name: value for name, value in known.items() if name in taken and name not in fixed}
    if "mode" in wants and taken["mode"].default not in ("min", "max"):  # torch's CyclicLR means something else
        del wants["mode"]
    return maker(**wants)
