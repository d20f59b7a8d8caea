"""Metrics of numbers, and of labels of which several may be right."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.metrics.base import Direction, wide


class MAE:
    """`mae`: the mean absolute error, over all numbers of all samples."""

    measures: Mapping[str, Direction] = {"mae": "min"}

    def sums(self, output: Tensor, target: Tensor) -> Tensor:
        """Output and target of one shape to float64 (sum, count)."""
        return _pair((_wide(output) - _wide(target)).abs())

    def values(self, total: Tensor) -> dict[str, float]:
        error, count = total.tolist()
        return {"mae": error / count} if count else {}


class RMSE:
    """`rmse`: the root of the mean squared error, over all numbers of all samples."""

    measures: Mapping[str, Direction] = {"rmse": "min"}

    def sums(self, output: Tensor, target: Tensor) -> Tensor:
        """Output and target of one shape to float64 (sum, count)."""
        return _pair((_wide(output) - _wide(target)).square())

    def values(self, total: Tensor) -> dict[str, float]:
        error, count = total.tolist()
        return {"rmse": math.sqrt(error / count)} if count else {}


class R2:
    """`r2`: the share of the targets' variance that the outputs explain; 1 is perfect, 0 is as good as their mean.

    Of targets with several numbers it is the mean over the numbers (as in scikit-learn). Numbers that are the same in
    every sample have no variance to explain, and are left out.
    """

    measures: Mapping[str, Direction] = {"r2": "max"}

    def sums(self, output: Tensor, target: Tensor) -> Tensor:
        """Output and target (N, ...) to float64 (4, ...): squared errors, targets, squared targets, samples."""
        output, target = _wide(output), _wide(target)
        squared = (output - target).square().sum(0)
        count = torch.full_like(squared, len(target))
        return torch.stack((squared, target.sum(0), target.square().sum(0), count))

    def values(self, total: Tensor) -> dict[str, float]:
        errors, sums, squares, counts = total.flatten(1).tolist()
        found = [
            1 - error / around
            for error, s, square, n in zip(errors, sums, squares, counts, strict=True)
            if n and (around := square - s * s / n) > 1e-12 * square
        ]
        return {"r2": math.fsum(found) / len(found)} if found else {}


class LabelAccuracy:
    """`accuracy`: the share of all labels that are told right; `exact`: of samples with all of theirs right.

    A label is predicted where its logit is above 0.
    """

    measures: Mapping[str, Direction] = {"accuracy": "max", "exact": "max"}

    def sums(self, output: Tensor, target: Tensor) -> Tensor:
        """Logits (N, L) and targets 0 and 1 (N, L) to int64 (right labels, labels, samples all right, samples)."""
        right = (output > 0) == (target > 0)
        whole = right.flatten(1).all(1)
        count = right.sum()
        sizes = torch.full_like(count, right.numel()), torch.full_like(count, len(whole))
        return torch.stack((count, sizes[0], whole.sum(), sizes[1]))

    def values(self, total: Tensor) -> dict[str, float]:
        right, labels, exact, samples = total.tolist()
        return {"accuracy": right / labels, "exact": exact / samples} if samples else {}


def _wide(values: Tensor) -> Tensor:
    return wide(values.detach())


def _pair(errors: Tensor) -> Tensor:
    total = errors.sum()
    return torch.stack((total, torch.full_like(total, errors.numel())))
