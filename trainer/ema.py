"""The weights that are evaluated and kept as the result: an average where there is one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from trainer.state import State, plain_copy


class Ema:
    """Averages the weights of a model over its updates (Polyak & Juditsky 1992; Tarvainen & Valpola 2017).

    The decay of update n is at most (1 + n) / (10 + n), so that the first weights are soon forgotten. Buffers that are
    floating point (batch norm's statistics) are averaged too, others copied.

    Where it is off, an optimizer that averages by itself (schedule-free ones, which have `train` and `eval`) is asked.

    Args:
        decay: the share of the old average that stays at each update, 0 (off) to just under 1.
    """

    def __init__(self, decay: float = 0.0) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay: {decay} must be at least 0 (off) and less than 1")
        self.decay = decay
        self.updates = 0
        self.average: dict[str, torch.Tensor] = {}

    @property
    def on(self) -> bool:
        return self.decay > 0

    def attach(self, model: nn.Module, optimizer: Optimizer | None = None) -> None:
        """Starts from the model's weights, and sets an optimizer that averages to training."""
        self.model = model
        self._inner: Any = optimizer if hasattr(optimizer, "train") and hasattr(optimizer, "eval") else None
        if self._inner is not None:
            self._inner.train()
        if self.on:
            self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights after an update."""
        if not self.on:
            return
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        now = self.model.state_dict()
        floats = [name for name, value in self.average.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[n] for n in floats], [now[n] for n in floats], 1 - decay)
        for name in self.average.keys() - set(floats):
            self.average[name].copy_(now[name])

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the averaged weights inside, and its own again afterwards."""
        if not self.on and self._inner is None:
            yield
            return
        own = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        if self.on:
            self.model.load_state_dict(self.average)
        else:
            self._inner.eval()
        try:
            yield
        finally:
            if not self.on:
                self._inner.train()  # which brings the weights back to within rounding, and resuming is exact
            self.model.load_state_dict(own)

    def take(self, state: State) -> State:
        """The weights to keep as the result, of what a checkpoint holds: the averaged ones, where there are any.

        Args:
            state: the parts of the run, copied; the model's own weights leave it where they are the result.
        """
        if self.on:
            average: State = state["ema"]["average"]
            return average
        if self._inner is None:
            own: State = state.pop("model")
            return own
        with self.applied():
            evaluated: State = plain_copy(dict(self.model.state_dict()), "model")
            return evaluated

    def state_dict(self) -> State:
        return {"updates": self.updates, "average": self.average}

    def load_state_dict(self, state: State) -> None:
        if state["average"].keys() != self.average.keys():
            raise ValueError("the averaged weights are those of another model, or ema was switched on or off")
        self.updates = state["updates"]
        for name, value in state["average"].items():
            self.average[name].copy_(value)
