"""Histograms of gradients and weights, every so often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.utils.hooks import RemovableHandle

from trainer.durations import Duration, Length
from trainer.hooks import Hook
from trainer.records import Histogram, Outcome

if TYPE_CHECKING:
    from trainer.loop import Trainer


class Histograms(Hook):
    """A histogram of each parameter that is trained, as `gradients/<name>` and `weights/<name>`.

    The gradients are those that the optimizer is given: of the whole group of batches, clipped, with their noise; an
    update that is left out has none. The weights are those after the update.

    Args:
        what: `gradients`, `weights` or `all`. every: how often, in steps, epochs or %. bins: counts of a histogram.

    Raises:
        ValueError: an argument is none of these.
    """

    def __init__(
        self, what: Literal["gradients", "weights", "all"] = "all", every: Length = "1epoch", bins: int = 64
    ) -> None:
        if what not in ("gradients", "weights", "all"):
            raise ValueError(f"what: {what!r} must be gradients, weights or all")
        if not 1 <= bins <= 512:
            raise ValueError(f"bins: {bins} must be 1 to 512")
        self.what, self.every, self.bins = what, Duration.parse(every, "every"), bins
        if self.every.unit == "seconds":
            raise ValueError(f"every: {self.every} is a time, and it is the same at any speed; use steps, epochs or %")
        self._handles: list[RemovableHandle] = []

    def on_fit_start(self, trainer: Trainer) -> None:
        length = self.every.steps(trainer.steps_per_epoch, trainer.steps)
        optimizer = trainer.update.optimizer

        def due() -> bool:
            return (trainer.progress.step + 1) % length == 0  # this step is not counted yet

        def before(*_: Any) -> None:
            if due():
                self._log(trainer, "gradients")

        def after(*_: Any) -> None:
            if due():
                self._log(trainer, "weights")

        if self.what != "weights":
            self._handles.append(optimizer.register_step_pre_hook(before))
        if self.what != "gradients":
            self._handles.append(optimizer.register_step_post_hook(after))

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        self._leave()

    def on_fit_end(self, trainer: Trainer, outcome: Outcome) -> None:
        self._leave()

    def _leave(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _log(self, trainer: Trainer, kind: str) -> None:
        model: Any = trainer.parts["model"]  # as it is saved: without what compiling it puts around it
        for name, parameter in model.named_parameters():
            values = parameter.grad if kind == "gradients" else parameter
            if parameter.requires_grad and values is not None:
                trainer.log({f"{kind}/{name.replace('.', '/')}": histogram(values, self.bins)})


@torch.no_grad()
def histogram(values: torch.Tensor, bins: int) -> Histogram:
    """That of the finite values, counted where they are, exactly."""
    values = values.detach().coalesce().values() if values.is_sparse else values.detach()
    values = (torch.view_as_real(values) if values.is_complex() else values).float().reshape(-1)
    values = values[values.isfinite()]
    if not len(values):
        return Histogram([0] * bins, np.linspace(0.0, 1.0, bins + 1).tolist())
    low, high = Histogram.span(*torch.stack(values.aminmax()).tolist())
    values = values.cpu() if values.device.type == "mps" else values  # which knows no float64
    place = ((values.double() - low) * (bins / (high - low))).long().clamp_(0, bins - 1)
    return Histogram(torch.bincount(place, minlength=bins).tolist(), np.linspace(low, high, bins + 1).tolist())
