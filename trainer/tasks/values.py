"""Tasks whose targets are numbers: regression, and labels of which several may be right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainer.errors import ConfigError
from trainer.losses.fit import refuse, shown, taken_by
from trainer.metrics import MAE, R2, RMSE, LabelAccuracy
from trainer.tasks.base import Criterion, Supervised, unfit


class Regression(Supervised):
    """Numbers for each sample: `mae`, `rmse` and `r2`. Outputs and targets of one shape, (N, ...); (N, 1) fits (N,).

    With `loss=gaussian_nll` the model gives twice as many channels, (N, 2 D, ...): means, then logarithms of variances.
    With `loss=poisson_nll` it gives the logarithm of what is measured, unless `loss.log_input=false`.
    With `loss=giou` and `diou` the numbers are boxes (N, 4): left, top, right, bottom.

    Args:
        criterion: the built loss.
        metrics: further metrics by name.
        l1, l2: penalties on the weights, see `Supervised`.

    Raises:
        ValueError: two metrics give the same name.
    """

    def __init__(
        self, criterion: Criterion, metrics: Mapping[str, Any] | None = None, l1: float = 0.0, l2: float = 0.0
    ) -> None:
        super().__init__(criterion, {"mae": MAE(), "rmse": RMSE(), "r2": R2(), **(metrics or {})}, l1, l2)
        self._boxes = "boxes" in taken_by(criterion)
        self._gaussian = isinstance(criterion, nn.GaussianNLLLoss)

    def outputs(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Output and target of one shape (N, ...), of the output's type."""
        output, target = super().outputs(model, batch)
        refuse(self.criterion, "boxes" if self._boxes else "values", output, target)
        if target.ndim == 1 and output.ndim == 2:
            target = target.unsqueeze(1)
        expected = target.shape
        if self._gaussian:
            expected = torch.Size((*target.shape[:1], 2 * target.shape[1], *target.shape[2:]))
        if output.shape != expected:
            needed = "(N, 2 D, ...)" if self._gaussian else "(N, D, ...)"
            raise unfit(output, target, needed, "(N, D, ...)")
        if self._boxes and output.shape[-1] != 4:
            raise ConfigError(
                f"loss: {type(self.criterion).__name__} needs boxes (N, 4): left, top, right, bottom. This model gives "
                f"{shown(output)} for targets of {shown(target)}; use loss=mse, or another model"
            )
        return output, target.to(output.dtype)

    def given(self, output: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        if not self._gaussian:
            return output, target
        mean, log_variance = output.chunk(2, 1)
        return mean, target, log_variance.exp()

    def measured(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers meant by the output."""
        if self._gaussian:
            return output.chunk(2, 1)[0], target
        if isinstance(self.criterion, nn.PoissonNLLLoss) and self.criterion.log_input:
            return output.exp(), target
        return output, target


class MultiLabel(Supervised):
    """Several labels, each right or wrong by itself: `accuracy` over all labels, `error`, its opposite, and `exact`.

    Outputs are logits (N, L), targets 0 and 1 (N, L) of any type.

    Args:
        criterion: the built loss.
        metrics: further metrics by name.
        l1, l2: penalties on the weights, see `Supervised`.

    Raises:
        ValueError: two metrics give the same name.
    """

    def __init__(
        self, criterion: Criterion, metrics: Mapping[str, Any] | None = None, l1: float = 0.0, l2: float = 0.0
    ) -> None:
        super().__init__(criterion, {"accuracy": LabelAccuracy()}, l1, l2)
        self.measures = {**self.measures, "error": "min"}
        self._measure(metrics or {})

    def outputs(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Logits (N, L) and float target (N, L)."""
        output, target = super().outputs(model, batch)
        refuse(self.criterion, "labels", output, target)
        if output.shape != target.shape:
            raise unfit(output, target, "(N, labels)", "(N, labels) of 0 and 1")
        return output, target.float()

    def given(self, output: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        if isinstance(self.criterion, nn.SoftMarginLoss):
            return output, target * 2 - 1
        if isinstance(self.criterion, nn.MultiLabelMarginLoss):  # takes the indices of the right labels, then -1
            order = target.argsort(dim=1, descending=True, stable=True)
            return output, order.masked_fill(target.gather(1, order) == 0, -1)
        return output, target

    def measured(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return output.logit() if isinstance(self.criterion, nn.BCELoss) else output, target

    def summarise(self, totals: dict[str, Tensor]) -> dict[str, float]:
        values = super().summarise(totals)
        return values | ({"error": 1 - values["accuracy"]} if "accuracy" in values else {})
