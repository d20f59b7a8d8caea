"""Schedules that are a function of the user's own, given by its dotted path: `my_module.my_curve`."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Literal

from torch.optim import Optimizer, lr_scheduler

from trainer.schedules.base import Schedule, shaped
from trainer.targets import find

Per = Literal["step", "epoch"]


def lambda_(
    optimizer: Optimizer,
    steps_per_epoch: int,
    total_steps: int,
    function: str | Callable[..., float] = "trainer.schedules.one_minus_sqrt",
    per: Per = "step",
) -> Schedule:
    """The learning rate times what a function gives for the steps (or epochs) done.

    Args:
        function: its dotted path, or itself. It gets the number done; arguments that it calls `total_steps` or
            `steps_per_epoch` are given by these names. per: what is counted, `step` or `epoch`.
    """
    shape = _named(function, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    return shaped(optimizer, lambda lr: shape, per)


def multiplicative(
    optimizer: Optimizer,
    steps_per_epoch: int,
    total_steps: int,
    function: str | Callable[..., float] = "trainer.schedules.times_095",
    per: Per = "epoch",
) -> Schedule:
    """As `lambda`, but what the function gives multiplies the rate that is, not the one of the start."""
    shape = _named(function, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    return Schedule(lr_scheduler.MultiplicativeLR(optimizer, shape), per)


def one_minus_sqrt(step: int, total_steps: int) -> float:
    """An example of a function for `scheduler=lambda`: falls fast, then ever slower, to zero."""
    return 1 - math.sqrt(min(step / total_steps, 1.0))


def times_095(epoch: int) -> float:
    """An example of a function for `scheduler=multiplicative`: five percent less each time."""
    return 0.95


def _named(function: str | Callable[..., float], **known: int) -> Callable[[int], float]:
    found = find(function, "function") if isinstance(function, str) else function
    try:
        names = list(inspect.signature(found).parameters)
    except (TypeError, ValueError):  # of a builtin that does not tell
        names = []
    # a partial keeps a user's object out of the state, where LambdaLR would put its attributes
    return functools.partial(found, **{name: value for name, value in known.items() if name in names[1:]})
