"""From a loss to new weights: precision, gradient scaling, the norm and its clipping, the optimizer's step."""

from __future__ import annotations

import contextlib
import math
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch.optim import Optimizer

from trainer.errors import ConfigError, DivergedError
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


class Clip:
    """Bounds gradients before the update: their common norm, or each value. Infinity is off.

    Args:
        norm: the most that the L2 norm of all gradients together may be (Pascanu et al. 2013, arXiv:1211.5063).
        value: the most that the absolute value of any gradient may be; applied after the norm.
    """

    def __init__(self, norm: float = math.inf, value: float = math.inf) -> None:
        for name, bound in (("norm", norm), ("value", value)):
            if not bound > 0:
                raise ValueError(f"{name}: {bound} must be more than 0; clip=none switches clipping off")
        self.norm, self.value = norm, value

    def __call__(self, gradients: list[torch.Tensor], norm: torch.Tensor) -> None:
        """Changes the gradients in place; `norm` is their total norm as it is now, a scalar tensor."""
        if self.norm < math.inf:
            # torch.nn.utils.clip_grad_norm_ to the last bit. On the CPU the norm can be read for free, and gradients
            # within the bound need no multiplication; on a GPU reading it would wait for the device.
            scale = (self.norm / (norm + 1e-6)).clamp(max=1.0)
            if norm.device.type != "cpu" or scale.item() < 1:
                torch._foreach_mul_(gradients, scale)
        if self.value < math.inf:
            torch._foreach_clamp_min_(gradients, -self.value)
            torch._foreach_clamp_max_(gradients, self.value)


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


class Update:
    """One optimizer update: gradients in, new weights out.

    Args:
        optimizer: any torch optimizer.
        clip: bounds the gradients. precision: the number format, and whether gradients are scaled.
        device: where the weights are.
        skips: how many updates that are not finite may be left out.
    """

    def __init__(
        self, optimizer: Optimizer, clip: Clip, precision: Precision, device: torch.device, skips: Skips | None = None
    ) -> None:
        if isinstance(optimizer, torch.optim.LBFGS):
            raise ConfigError("optimizer: LBFGS evaluates the loss several times an update, which this loop does not")
        self.optimizer, self.clip, self.precision, self.skips = optimizer, clip, precision, skips or Skips()
        self.scaler = precision.scaler(device)
        self.scaled = self.scaler.is_enabled()
        # A value on the CPU can be looked at for free before it does harm. On a GPU a look waits for the device: there
        # it is taken at each update only to leave some out; else the loop looks at the next row. A scaler waits for the
        # device anyway, and leaves out what overflows until its scale fits: that takes some updates in a row.
        self.looks = self.skips.limit > 0 or (device.type == "cpu" and not self.scaled)
        self.allowed = max(self.skips.limit, OVERFLOWS) if self.scaled else self.skips.limit
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._bad: DivergedError | None = None

    def backward(self, loss: torch.Tensor) -> None:
        """Adds the loss's gradients to those of the group.

        Raises:
            DivergedError: the loss is not finite, is looked at, and no update may be left out.
        """
        if self.looks:
            self._look("train/loss", loss)
        (self.scaler.scale(loss) if self.scaled else loss).backward()  # type: ignore[no-untyped-call]

    def step(self) -> torch.Tensor | None:
        """Clips, updates the weights, clears the gradients; returns the norm before clipping, a scalar tensor.

        None is returned where the update was left out because its loss or gradient is not finite.

        Raises:
            DivergedError: the norm is not finite, is looked at, and not one more update may be left out; the weights
                are as before.
        """
        if self.scaled:
            self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if not gradients:
            raise ConfigError("model: no parameter got a gradient; does the loss depend on the model's output?")
        norm: torch.Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if self.looks or self.scaled:
            self._look("train/grad_norm", norm)
        bad, self._bad = self._bad, None
        self.skips.count(bad, self.allowed)
        self.clip(gradients, norm)
        if self.scaled:
            if bad is None:
                self.scaler.step(self.optimizer)
            self.scaler.update()
        elif bad is None:
            self.optimizer.step()
        self.clear()
        return norm if bad is None else None

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


def finite(name: str, value: float, steps: tuple[int, int] | None = None) -> None:
    """Raises DivergedError where the value is NaN or infinite; `steps` are those that it belongs to."""
    if not math.isfinite(value):
        raise DivergedError(f"{name} became {value}", steps)
