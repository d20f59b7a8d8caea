"""What a task is: the loss of a batch in training, its sums and pictures in evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainer.data.loader import samples_of
from trainer.errors import ConfigError
from trainer.metrics import Direction, Metric, as_metric, weighed
from trainer.records import Panel

if TYPE_CHECKING:
    from typing_extensions import Self

Criterion = Callable[..., Tensor]
"""From output and target to the mean loss, a scalar: a torch loss, one of `trainer.losses`, or a function."""


class Task:
    """The base of every task. A task of your own overrides `loss`, and `judge` where more than the loss is measured.

    Attributes:
        measures: what `summarise` may give, and whether less (`min`) or more (`max`) is better; names without `val/`.
        worst: how many of the hardest samples of an evaluation are shown.
        hardness: what `judge` may set: a number for each sample of the batch, (N,), by which the hardest are found.
            An evaluation takes it away again.
    """

    measures: Mapping[str, Direction] = {"loss": "min"}
    worst: int = 0
    hardness: Tensor | None = None

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The mean loss of the batch's samples, a scalar to call `backward` on."""
        raise NotImplementedError(f"{type(self).__name__} has no loss(model, batch)")

    def judge(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Sums that add up over batches and processes, float64 or int64. Called in eval mode, without gradients."""
        return {"loss": weighed(self.loss(model, batch), samples_of(batch))}

    def summarise(self, totals: dict[str, Tensor]) -> dict[str, float]:
        """The metrics made of the totals of a whole evaluation: the mean of every (sum, count) of shape (2,)."""
        pairs = {name: total.tolist() for name, total in totals.items() if total.shape == (2,)}
        return {name: total / count for name, (total, count) in pairs.items() if count}

    def panels(self, model: nn.Module, batch: Any, samples: list[str]) -> list[Panel]:
        """What to show of a batch of a few validation samples, named by `samples`. Called like `judge`."""
        return []

    def charts(self, totals: dict[str, Tensor]) -> list[Panel]:
        """Pictures made of the totals of a whole evaluation."""
        return []

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The modules that the task holds, such as its criterion, by the names of its attributes."""
        return {name: value for name, value in vars(self).items() if isinstance(value, nn.Module)}

    def state_dict(self) -> dict[str, Any]:
        """The state of the modules, such as a criterion with buffers; a part of the run."""
        return {name: module.state_dict() for name, module in self.modules.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            getattr(self, name).load_state_dict(value)

    def to(self, device: torch.device) -> Self:
        """Moves to the device whatever this task holds that can move: criterion, metrics, tensors."""
        for name, value in vars(self).items():
            setattr(self, name, _moved(value, device))
        return self


class Supervised(Task):
    """Batches (input, target), a criterion between `model(input)` and target, and metrics.

    A model that returns a tuple or a list means its first entry, one that returns a dictionary means `"out"`.
    The loss of an evaluation is the mean over its batches, weighed by their samples, without the penalties.

    Args:
        criterion: the built loss.
        metrics: further metrics by name. The names in their `measures` must be new.
        l1, l2: penalties that training adds to the loss: `l1 * sum |w| + l2 * sum w^2` over the weights of the model
            that have two or more dimensions, so not over biases and norms.

    Raises:
        ValueError: two metrics give the same name, or a penalty is below 0.
        ConfigError: one of the metrics is none.
    """

    def __init__(
        self, criterion: Criterion, metrics: Mapping[str, Any] | None = None, l1: float = 0.0, l2: float = 0.0
    ) -> None:
        for name, penalty in (("l1", l1), ("l2", l2)):
            if not penalty >= 0:
                raise ValueError(f"{name}: {penalty} must be at least 0")
        self.criterion, self.l1, self.l2 = criterion, l1, l2
        self.metrics: dict[str, Metric] = {}
        self.measures = {"loss": "min"}
        self._measure(metrics or {})

    def _measure(self, metrics: Mapping[str, Any]) -> None:
        for name, given in metrics.items():
            metric = as_metric(name, given)
            twice = sorted(set(metric.measures) & set(self.measures))
            if name in self.metrics or name == "loss" or twice:
                raise ValueError(f"metrics: {name} gives {', '.join(twice) or name}, which this task measures already")
            self.metrics[name] = metric
            self.measures = {**self.measures, **metric.measures}

    def outputs(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Output and target, of shapes that fit each other and the criterion."""
        inputs, target = batch
        return tensor_of(model(inputs)), target

    def given(self, output: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """What the criterion gets of them."""
        return output, target

    def measured(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """What the metrics get of them."""
        return output, target

    def further(self, inputs: Any, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """More sums of a batch, made of what the metrics get. The place to set `hardness`."""
        return {}

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        loss = self._score(*self.outputs(model, batch))
        return loss + self.penalty(model) if self.l1 or self.l2 else loss

    def penalty(self, model: nn.Module) -> Tensor:
        """The sum of both penalties."""
        weights = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
        total = torch.zeros((), device=weights[0].device if weights else None)
        if self.l1:
            total = total + self.l1 * torch.stack([p.abs().sum() for p in weights]).sum()
        if self.l2:
            total = total + self.l2 * torch.stack([p.square().sum() for p in weights]).sum()
        return total

    def judge(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        output, target = self.outputs(model, batch)
        sums = {"loss": weighed(self._score(output, target), samples_of(batch))}
        if self.metrics:
            output, target = self.measured(output, target)
            sums |= {name: metric.sums(output, target) for name, metric in self.metrics.items()}
        return sums | self.further(batch[0], output, target)

    def summarise(self, totals: dict[str, Tensor]) -> dict[str, float]:
        values = super().summarise({name: total for name, total in totals.items() if name not in self.metrics})
        for name, metric in self.metrics.items():
            values |= metric.values(totals[name])
        return values

    def _score(self, output: Tensor, target: Tensor) -> Tensor:
        return self._one_number(self.criterion(*self.given(output, target)))

    @staticmethod
    def _one_number(loss: Tensor) -> Tensor:
        if loss.ndim:
            raise ConfigError(
                f"loss: it gives a tensor of shape {tuple(loss.shape)}, not one number; set reduction: mean"
            )
        return loss


def tensor_of(output: Any) -> Tensor:
    """The tensor meant by what a model returned: itself, the first of a tuple or list, or the `out` of a dictionary."""
    found = output
    if isinstance(found, Mapping) and "out" in found:
        found = found["out"]
    elif isinstance(found, (tuple, list)) and found:
        found = found[0]
    if isinstance(found, Tensor):
        return found
    what = f"a dictionary of {', '.join(map(repr, found))}" if isinstance(found, Mapping) else type(found).__name__
    raise ConfigError(
        f"model: it returns {what}; it must return a tensor, a tuple that starts with one, or a dictionary with 'out' "
        "(or write a Task of your own)"
    )


def unfit(output: Tensor, target: Tensor, out: str, of: str) -> ConfigError:
    """The error that tells both shapes, and those that are needed."""
    return ConfigError(
        f"model: its output of shape {tuple(output.shape)} does not fit the target of shape {tuple(target.shape)}; "
        f"{out} and {of} are needed"
    )


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {key: _moved(entry, device) for key, entry in value.items()}
    move = getattr(value, "to", None)
    return move(device) if callable(move) else value
