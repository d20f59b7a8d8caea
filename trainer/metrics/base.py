"""What a metric is: sums that add up over batches and processes, and the numbers made of their total."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import torch
from torch import Tensor

Direction = Literal["min", "max"]


class Metric(Protocol):
    """A measure of outputs against targets that keeps no state.

    `sums` looks at one batch; the sums of all batches are added, and `values` turns the total into numbers. Because
    only sums are kept, the numbers depend neither on how the samples fall into batches nor on the number of processes.

    Attributes:
        measures: the names that `values` may give, and whether less (`min`) or more (`max`) is better.
    """

    @property
    def measures(self) -> Mapping[str, Direction]: ...

    def sums(self, output: Tensor, target: Tensor) -> Tensor: ...

    def values(self, total: Tensor) -> dict[str, float]: ...


def predicted(output: Tensor, target: Tensor) -> Tensor:
    """The class of each target that an output stands for, int64, in the target's shape (N, ...).

    `output` holds logits: (N, C, ...) for C classes, or (N, 1, ...) or (N, ...) for two classes, of which the second is
    predicted where the logit is above 0 (a probability above one half).
    """
    if output.ndim == target.ndim:
        return (output > 0).long()
    return (output[:, 0] > 0).long() if output.shape[1] == 1 else output.argmax(1)


def wide(sums: Tensor) -> Tensor:
    """Float64, so that adding over many batches loses nothing; on the CPU where the device (MPS) has no float64."""
    return sums.cpu().double() if sums.device.type == "mps" else sums.double()


def weighed(mean: Tensor, samples: int) -> Tensor:
    """A mean over some samples as a pair (sum, count), float64, that can be added to others."""
    mean = wide(mean.detach())
    return torch.stack((mean * samples, torch.full_like(mean, samples)))
