"""Metrics that keep a state of their own, with `update`, `compute` and `reset` as torchmetrics has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from trainer.errors import ConfigError
from trainer.metrics.base import Direction, Metric


class Stateful(Protocol):
    """A metric that looks at batches one after the other, as those of torchmetrics do."""

    def update(self, output: Tensor, target: Tensor, /) -> Any: ...

    def compute(self) -> Any: ...

    def reset(self) -> Any: ...


class Outside:
    """A stateful metric in the place of one of ours. Its state is empty between two evaluations.

    A number is called by the metric's name, the numbers of a mapping `<name>/<key>`, and those of a list or a tensor
    `<name>/<index>`. With several processes, `compute` must gather by itself, as torchmetrics' does.

    Args:
        name: what it is called in the task's `metrics`.
        metric: what is asked. Its `higher_is_better`, where it has one that is false, says that less is better.
    """

    def __init__(self, name: str, metric: Stateful) -> None:
        self.name, self.metric = name, metric
        less = getattr(metric, "higher_is_better", None) is False
        self.measures: Mapping[str, Direction] = {name: "min" if less else "max"}

    def sums(self, output: Tensor, target: Tensor) -> Tensor:
        """Shows it the batch; what adds up is the number of samples."""
        self.metric.update(output.detach(), target)
        return torch.tensor(len(target), device=target.device)

    def values(self, total: Tensor) -> dict[str, float]:
        if not total.item():
            return {}
        found = self.metric.compute()
        self.metric.reset()
        return dict(_numbers(self.name, found))

    def to(self, device: torch.device) -> Outside:
        move = getattr(self.metric, "to", None)
        self.metric = move(device) if callable(move) else self.metric
        return self


def as_metric(name: str, given: Any) -> Metric:
    """A metric of ours as it is, a stateful one as `Outside`.

    Raises:
        ConfigError: it is neither.
    """
    if hasattr(given, "measures"):
        metric: Metric = given
        return metric
    if all(callable(getattr(given, method, None)) for method in ("update", "compute", "reset")):
        return Outside(name, given)
    raise ConfigError(
        f"metrics: {name} is a {type(given).__name__}, and no metric: it needs measures, sums and values (as those in "
        "trainer.metrics), or update, compute and reset (as those of torchmetrics)"
    )


def _numbers(name: str, found: Any) -> list[tuple[str, float]]:
    if isinstance(found, Mapping):
        return [pair for key, value in found.items() for pair in _numbers(f"{name}/{key}", value)]
    if isinstance(found, Tensor) and not found.ndim:
        return [(name, float(found))]
    if isinstance(found, (Tensor, list, tuple)):
        return [pair for index, value in enumerate(found) for pair in _numbers(f"{name}/{index}", value)]
    return [(name, float(found))]
