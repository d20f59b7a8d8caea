"""Parameter groups that do not train at first: when they thaw, and what is said of the groups of an optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

from trainer.durations import Duration
from trainer.errors import ConfigError

_SHOWN = 6  # groups in a line; `layer_decay` makes as many as the model has layers


def thaws(optimizer: Optimizer, steps_per_epoch: int, steps: int) -> list[int]:
    """The updates that each parameter group is frozen for, as its `freeze` says: a duration, or True for the whole run.

    Raises:
        ConfigError: it is no duration in steps, epochs or percent.
    """
    return [_thaw(group, n, steps_per_epoch, steps) for n, group in enumerate(optimizer.param_groups)]


def _thaw(group: dict[str, Any], n: int, steps_per_epoch: int, steps: int) -> int:
    length, key = group.get("freeze", False), f"freeze of the parameter group {group.get('name', n)!r}"
    if isinstance(length, bool):
        return steps if length else 0
    duration = Duration.parse(length, key)
    if duration.unit == "seconds":
        raise ConfigError(f"{key}: {duration} is a time; use steps, epochs or %")
    return 0 if duration.unit == "never" else duration.steps(steps_per_epoch, steps)


class Freezing:
    """Keeps the weights of frozen groups as they are: without a gradient they are in no norm, momentum or decay.

    What is frozen depends on the step alone, so that a run that goes on needs no state for it.

    Args:
        optimizer: whose groups may hold `freeze`. steps_per_epoch, steps: the length of the run.

    Raises:
        ConfigError: nothing would train at first.
    """

    def __init__(self, optimizer: Optimizer, steps_per_epoch: int, steps: int) -> None:
        self.optimizer = optimizer
        self.thaws = thaws(optimizer, steps_per_epoch, steps)
        self._counts = [group.get("step") for group in optimizer.param_groups]
        if min(self.thaws) > 0:
            shortest = optimizer.param_groups[self.thaws.index(min(self.thaws))]["freeze"]
            until = "whole run" if min(self.thaws) >= steps else f"first {shortest}"
            raise ConfigError(f"param_groups: all weights are frozen for the {until}, so nothing would train")

    def apply(self, step: int) -> None:
        """Makes ready for the update after so many: weights require a gradient, unless they are frozen."""
        if not any(self.thaws):
            return
        for group, thaw, count in zip(self.optimizer.param_groups, self.thaws, self._counts, strict=True):
            if not thaw:
                continue
            if group["params"][0].requires_grad != (step >= thaw):
                for parameter in group["params"]:
                    parameter.requires_grad_(step >= thaw)
            if step <= thaw and "step" in group:  # some count the updates of a group, and correct their averages by it
                group["step"] = count or 0


def distinct(groups: Sequence[dict[str, Any]]) -> dict[str, int]:
    """The names of parameter groups, each with the place of the first group of that name."""
    names = [str(group.get("name", n)) for n, group in enumerate(groups)]
    return {name: names.index(name) for name in names}


def describe(optimizer: Optimizer, thaws: Sequence[int], steps: int) -> str:
    """The groups of an optimizer in a line; nothing where there is only one."""
    groups = optimizer.param_groups
    sizes = [sum(parameter.numel() for parameter in group["params"]) for group in groups]
    decays = [group.get("weight_decay", 0) for group in groups]
    exempt = sum(size for size, decay in zip(sizes, decays, strict=True) if not decay) if any(decays) else 0
    names = distinct(groups)
    if len(names) == 1:
        return f"{exempt:,} of {sum(sizes):,} weights without weight decay" if exempt else ""
    rates = [float(group.get("initial_lr", group["lr"])) for group in groups]
    told = []
    for name, first in names.items():
        size = sum(size for size, group in zip(sizes, groups, strict=True) if group.get("name") == name) or sizes[first]
        factor = rates[first] / rates[0] if rates[0] else 1.0
        words = [f"{name} {size:,} weights"] + ([f"lr x{factor:.3g}"] if abs(factor - 1) > 1e-9 else [])
        if thaws[first]:
            words.append("frozen" if thaws[first] >= steps else f"frozen for {groups[first]['freeze']}")
        told.append(", ".join(words))
    if len(told) > _SHOWN:
        told = [*told[: _SHOWN - 1], f"{len(told) - _SHOWN} more", told[-1]]
    return "; ".join(told + ([f"{exempt:,} without weight decay"] if exempt else []))
