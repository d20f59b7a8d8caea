"""From a loss to new weights: precision, gradient scaling, the looks at what is not finite, the optimizer's step."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple

import torch
from torch.optim import Optimizer

from trainer.errors import ConfigError, DivergedError
from trainer.gradients import Clip, Noise, norm_of
from trainer.state import State

OVERFLOWS = 20
"""Updates in a row that may overflow in float16: from its first scale of 2 ** 16 that many halvings lead below 1."""


class Precision:
    """The number format of forward and backward passes. Weights stay in float32.

    Args:
        dtype: `bfloat16` and `float16` run what is safe in that format by torch's autocast; `float16` also scales
            the loss (Micikevicius et al. 2018, arXiv:1710.03740).
    """

    def __init__(self, dtype: Literal["float32", "bfloat16", "float16"] = "float32") -> None:
        if dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"dtype: {dtype!r} is unknown; use float32, bfloat16 or float16")
        self.dtype = dtype

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        if self.dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=getattr(torch, self.dtype))

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(device.type, enabled=self.dtype == "float16")


class Skips:
    """Counts updates that are left out because their loss or gradient is not finite.

    Args:
        limit: how many in a row may be left out; with 0 the first ends the run.
    """

    def __init__(self, limit: int = 0) -> None:
        if limit < 0:
            raise ValueError(f"skip_nonfinite: {limit} must be at least 0")
        self.limit = limit
        self.total = self.in_a_row = 0

    def count(self, error: DivergedError | None, allowed: int) -> None:
        """Takes in how an update went, None for well, and how many in a row may be left out.

        Raises:
            DivergedError: what is given, once there are more than the limit in a row.
        """
        if error is None:
            self.in_a_row = 0
            return
        self.total, self.in_a_row = self.total + 1, self.in_a_row + 1
        if self.in_a_row > allowed:
            raise DivergedError(f"{error}, with the {allowed} updates before it,")

    def state_dict(self) -> State:
        return {"total": self.total, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: State) -> None:
        self.total, self.in_a_row = state["total"], state["in_a_row"]


class Norms(NamedTuple):
    """The norm of all gradients before and after clipping, scalar tensors."""

    raw: torch.Tensor
    clipped: torch.Tensor


class Update:
    """One optimizer update: gradients in, new weights out.

    Args:
        optimizer: any torch optimizer. One whose `step` needs a closure, or that has a true attribute `needs_closure`,
            may ask for loss and gradients several times an update, as LBFGS and SAM do.
        clip: bounds the gradients. precision: the number format, and whether gradients are scaled.
        device: where the weights are.
        skips: how many updates that are not finite may be left out.
        noise: is added to the gradients after clipping.

    Raises:
        ConfigError: float16 with an optimizer that needs a closure.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        clip: Clip,
        precision: Precision,
        device: torch.device,
        skips: Skips | None = None,
        noise: Noise | None = None,
    ) -> None:
        self.optimizer, self.clip, self.precision, self.skips = optimizer, clip, precision, skips or Skips()
        self.noise = noise or Noise()
        self.scaler = precision.scaler(device)
        self.scaled = self.scaler.is_enabled()
        # A value on the CPU can be looked at for free before it does harm. On a GPU a look waits for the device: there
        # it is taken at each update only to leave some out; else the loop looks at the next row. A scaler waits for the
        # device anyway, and leaves out what overflows until its scale fits: that takes some updates in a row.
        self.looks = self.skips.limit > 0 or (device.type == "cpu" and not self.scaled)
        self.allowed = max(self.skips.limit, OVERFLOWS) if self.scaled else self.skips.limit
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.needs_closure = needs_closure(optimizer)
        if self.needs_closure and self.scaled:
            name = type(optimizer).__name__
            raise ConfigError(
                f"precision: float16 scales its gradients, which {name} cannot use; type precision=bfloat16 or float32"
            )
        self._bad: DivergedError | None = None

    def backward(self, loss: torch.Tensor) -> None:
        """Adds the loss's gradients to those of the group.

        Raises:
            DivergedError: the loss is not finite, is looked at, and no update may be left out.
        """
        if self.looks:
            self._look("train/loss", loss)
        (self.scaler.scale(loss) if self.scaled else loss).backward()  # type: ignore[no-untyped-call]

    def step(self, evaluate: Callable[[], torch.Tensor] | None = None, number: int = 0) -> Norms | None:
        """Clips, adds noise, updates the weights, clears the gradients; returns the norms before and after clipping.

        None is returned where the update was left out because its loss or gradient is not finite.

        Args:
            evaluate: brings gradients and loss at the weights as they are then, for an optimizer that needs a closure.
            number: updates done before this one.

        Raises:
            DivergedError: the norm is not finite, is looked at, and not one more update may be left out; the weights
                are as before.
        """
        if self.scaled:
            self.scaler.unscale_(self.optimizer)
        reached = [p for p in self.parameters if p.grad is not None]
        if not reached:
            raise ConfigError("model: no parameter got a gradient; does the loss depend on the model's output?")
        norm = norm_of(reached)
        if self.looks or self.scaled:
            self._look("train/grad_norm", norm)
        bad, self._bad = self._bad, None
        self.skips.count(bad, self.allowed)
        norms = Norms(norm, self.clip(reached, norm))
        self.noise(reached, number)
        if self.scaled:
            if bad is None:
                self.scaler.step(self.optimizer)
            self.scaler.update()
        elif bad is None and self.needs_closure:
            self.optimizer.step(functools.partial(self._again, evaluate, number))  # type: ignore[arg-type]
        elif bad is None:
            self.optimizer.step()
        self.clear()
        return norms if bad is None else None

    def _again(self, evaluate: Callable[[], torch.Tensor], number: int) -> torch.Tensor:
        """What an optimizer's closure does: new gradients, treated as the first ones were."""
        self.clear()
        loss = evaluate()
        self._bad = None  # the update is under way, and cannot be left out any more
        reached = [p for p in self.parameters if p.grad is not None]
        self.clip(reached, norm_of(reached))
        self.noise(reached, number)
        return loss

    def clear(self) -> None:
        """Lets go of the gradients; faster than optimizer.zero_grad() for small models."""
        for parameter in self.parameters:
            parameter.grad = None

    def _look(self, name: str, value: torch.Tensor) -> None:
        """Remembers the first value of a group that is not finite; raises at once where none may be left out."""
        try:
            finite(name, value.item())
        except DivergedError as error:
            if not self.allowed:
                raise
            self._bad = self._bad or error

    def parts(self) -> dict[str, Any]:
        """Optimizer, scaler and count of skips: parts of a run by themselves, under their own names."""
        return {"optimizer": _Optimizer(self.optimizer), "scaler": self.scaler, "skips": self.skips}


class _Optimizer:
    """An optimizer as a part: a checkpoint of another kind of optimizer is told as such."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def state_dict(self) -> State:
        return {"class": type(self.optimizer).__name__, **self.optimizer.state_dict()}

    def load_state_dict(self, state: State) -> None:
        saved, own = state.pop("class"), type(self.optimizer).__name__
        if saved != own:
            raise ValueError(f"the checkpoint is of {saved}, and this run uses {own}")
        self.optimizer.load_state_dict(state)


def needs_closure(optimizer: Optimizer) -> bool:
    """Whether the optimizer's `step` wants a function that brings loss and gradients anew."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    needed = closure is not None and closure.default is inspect.Parameter.empty
    return needed or bool(getattr(optimizer, "needs_closure", False))


def finite(name: str, value: float, steps: tuple[int, int] | None = None) -> None:
    """Raises DivergedError where the value is NaN or infinite; `steps` are those that it belongs to."""
    if not math.isfinite(value):
        raise DivergedError(f"{name} became {value}", steps)
