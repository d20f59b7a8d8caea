"""Losses for labels with weights by class, which may be `balanced` by the data's own frequencies, and the hinge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn


class CrossEntropy(nn.CrossEntropyLoss):
    """torch's cross entropy, its arguments as plain values.

    Args:
        weight: a factor for each class; `balanced` gives class c the factor samples / (classes * samples of c), so that
            every class weighs the same in the whole (King, Zeng, 2001; the same as in scikit-learn).
        label_smoothing: the part of the target that is spread evenly over all classes (Szegedy et al. 2016).
        ignore_index: targets of this value are left out.
        num_classes, class_counts: what the data knows of its classes.

    Raises:
        ValueError: weights that are not one of at least 0 for each class, or the data does not know its frequencies.
    """

    def __init__(
        self,
        weight: Sequence[float] | Tensor | Literal["balanced"] | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
        num_classes: int | None = None,
        class_counts: Sequence[int] | None = None,
    ) -> None:
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing: {label_smoothing} must be from 0 to 1")
        if isinstance(weight, str):
            counts = _known(class_counts, "weight", "a factor for each class: loss.weight=[1,2,...]")
            weight = [sum(counts) / (len(counts) * count) for count in counts]
        super().__init__(
            weight=_factors("weight", weight, num_classes),
            ignore_index=-100 if ignore_index is None else ignore_index,
            label_smoothing=label_smoothing,
        )


class BCE(nn.BCEWithLogitsLoss):
    """torch's binary cross entropy for logits, its arguments as plain values.

    Args:
        pos_weight: the factor of targets that are 1, one for each label or one for all; `balanced` is the number of
            samples of class 0 by that of class 1.
        class_counts: what the data knows of its classes.

    Raises:
        ValueError: a factor below 0, or `balanced` where the data does not tell the frequencies of two classes.
    """

    def __init__(
        self,
        pos_weight: float | Sequence[float] | Tensor | Literal["balanced"] | None = None,
        class_counts: Sequence[int] | None = None,
    ) -> None:
        if isinstance(pos_weight, str):
            counts = _known(class_counts, "pos_weight", "the factor of class 1: loss.pos_weight=3")
            if len(counts) != 2:
                raise ValueError(f"pos_weight: balanced needs two classes, and the data has {len(counts)}")
            pos_weight = counts[0] / counts[1]
        if isinstance(pos_weight, (int, float)):
            pos_weight = [pos_weight]
        super().__init__(pos_weight=_factors("pos_weight", pos_weight, None))


class Hinge(nn.Module):
    """The hinge of a support vector machine with two classes: Cortes, Vapnik, 1995.

    With y = 1 for class 1 and y = -1 for class 0 (or for targets that are -1), the mean over the targets that count of

        loss = max(0, margin - y * output)

    Args:
        margin: how far an output must be on the right side to cost nothing.
        squared: squares each term, which has no kink.
        ignore_index: targets of this value are left out.
    """

    def __init__(self, margin: float = 1.0, squared: bool = False, ignore_index: int | None = None) -> None:
        super().__init__()
        if not margin > 0:
            raise ValueError(f"margin: {margin} must be more than 0")
        self.margin, self.squared, self.ignore_index = margin, squared, ignore_index

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        if output.ndim == target.ndim + 1 and output.shape[1] == 1:
            output = output.squeeze(1)
        if output.shape != target.shape:
            raise ValueError(f"an output of shape {tuple(output.shape)} does not fit a target of {tuple(target.shape)}")
        terms = (self.margin - torch.where(target > 0, output, -output)).clamp_min(0)
        terms = terms.square() if self.squared else terms
        if self.ignore_index is None:
            return terms.mean()
        kept = target != self.ignore_index
        return (terms * kept).sum() / kept.sum().clamp_min(1)


def _known(counts: Sequence[int] | None, name: str, remedy: str) -> list[int]:
    if counts is None:
        raise ValueError(f"{name}: this data does not tell how frequent each class is; give {remedy}")
    if not all(counts):
        raise ValueError(f"{name}: there is no sample of class {list(counts).index(0)} to balance; give {remedy}")
    return list(counts)


def _factors(name: str, weights: Sequence[float] | Tensor | None, classes: int | None) -> Tensor | None:
    if weights is None or isinstance(weights, Tensor):
        return weights
    if not weights or min(weights) < 0:
        raise ValueError(f"{name}: {list(weights)} must be a factor of at least 0 for each class")
    if classes is not None and len(weights) != classes:
        raise ValueError(f"{name}: {len(weights)} factors, and the data has {classes} classes; give one for each")
    return torch.tensor(weights, dtype=torch.float32)
