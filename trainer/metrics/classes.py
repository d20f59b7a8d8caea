"""Metrics of classes: accuracy, the confusion matrix and what follows from it, precision and recall, bits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.errors import ConfigError, DataError
from trainer.metrics.base import Direction, predicted, wide


class Accuracy:
    """The share of right answers: `accuracy`, or `top<k>` for k above 1.

    Args:
        k: an answer is right if the true class is among the k classes with the highest logits.
        ignore_index: targets of this value are left out.
    """

    def __init__(self, k: int = 1, ignore_index: int | None = None) -> None:
        if k < 1:
            raise ValueError(f"k: {k} must be at least 1")
        self.k, self.ignore_index = k, ignore_index
        self.name = "accuracy" if k == 1 else f"top{k}"
        self.measures: Mapping[str, Direction] = {self.name: "max"}

    def sums(self, output: Tensor, target: Tensor) -> Tensor:
        """Output (N, C, ...) (or one channel: `predicted`) and target (N, ...) to int64 (right answers, answers)."""
        if self.k == 1:
            right = predicted(output, target) == target
        elif output.ndim == target.ndim or output.shape[1] < self.k:
            raise ValueError(f"k: {self.k} is more than the channels of an output of shape {tuple(output.shape)}")
        else:
            right = (output.topk(self.k, dim=1).indices == target.unsqueeze(1)).any(1)
        if self.ignore_index is None:
            count = right.sum()
            return torch.stack((count, torch.full_like(count, right.numel())))
        kept = target != self.ignore_index
        return torch.stack(((right & kept).sum(), kept.sum()))

    def values(self, total: Tensor) -> dict[str, float]:
        right, count = total.tolist()
        return {self.name: right / count} if count else {}


class Confusion:
    """The confusion matrix of C classes, and what follows from it; with a pixel (or a sample) as the unit.

    With T, P, I the targets, the predictions and the right answers of a class over the whole evaluation:
    `iou/<class>` = I / (T + P - I), `miou` their mean, `dice` the mean of 2 I / (T + P), `accuracy` = sum I / sum T.
    A class that is neither in a target nor predicted has no value and is left out of the means.

    Args:
        num_classes: C; for an output of one channel there are two classes, the second where the logit is above 0.
        classes: their names; numbers without.
        ignore_index: targets of this value are left out.
    """

    def __init__(self, num_classes: int, classes: Sequence[str] = (), ignore_index: int | None = None) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes: {num_classes} must be at least 1")
        self.num_classes = max(num_classes, 2)
        self.classes = class_names(classes, num_classes) or tuple(map(str, range(self.num_classes)))
        self.ignore_index = ignore_index
        self.measures: Mapping[str, Direction] = {
            "miou": "max", "dice": "max", "accuracy": "max", **{f"iou/{name}": "max" for name in self.classes}
        }  # fmt: skip

    def sums(self, output: Tensor, target: Tensor) -> Tensor:
        """Output (N, C, ...) (or one channel) and target (N, ...) to int64 (C, C): row true class, column predicted.

        Raises:
            DataError: a target is no class.
            ConfigError: the output has more channels than there are classes.
        """
        size = self.num_classes
        if output.ndim > target.ndim and output.shape[1] > size:
            raise ConfigError(
                f"model: it gives {output.shape[1]} channels (an output of shape {tuple(output.shape)}), but there are "
                f"{size} classes; set model.num_classes={size}"
            )
        # Place 0 takes what is left out, without a selection by mask (which would wait for the device); a class that
        # does not exist makes the result too long, and so tells of itself for free.
        place = target.long() * size + predicted(output, target) + 1
        if self.ignore_index is not None:
            place = place.masked_fill(target == self.ignore_index, 0)
        try:
            counts = place.flatten().bincount(minlength=size * size + 1)
        except RuntimeError as error:
            raise wrong_class(target, size, self.ignore_index) or error from error
        if len(counts) > size * size + 1:
            raise wrong_class(target, size, self.ignore_index) or AssertionError(tuple(counts.shape))
        return counts[1:].reshape(size, size)

    def values(self, total: Tensor) -> dict[str, float]:
        total = total.cpu()
        right, both = total.diagonal(), total.sum(0) + total.sum(1)
        shares = {
            name: (i / (b - i), 2 * i / b)
            for name, i, b in zip(self.classes, right.tolist(), both.tolist(), strict=True)
            if b
        }
        if not shares:
            return {}
        ious, dices = zip(*shares.values(), strict=True)
        return {
            "miou": math.fsum(ious) / len(ious),
            "dice": math.fsum(dices) / len(dices),
            "accuracy": right.sum().item() / total.sum().item(),
            **{f"iou/{name}": iou for name, iou in zip(shares, ious, strict=True)},
        }


class Scores:
    """`precision`, `recall` and `f1`: the mean over the classes, each class weighing the same (macro).

    With T, P, I the targets, the predictions and the right answers of a class over the whole evaluation: precision
    I / P, recall I / T, f1 2 I / (T + P). A share of nothing is 0; a class that is neither in a target nor predicted
    has no value and is left out of the means. These are scikit-learn's numbers.

    Args:
        positive: measure this class alone, as usual with two classes, of which 1 is what is looked for.
        per_class: give each class's own too, `f1/<class>` and so on.
        classes: their names; numbers without.
        ignore_index: targets of this value are left out.
    """

    def __init__(
        self,
        positive: int | None = None,
        per_class: bool = False,
        classes: Sequence[str] = (),
        ignore_index: int | None = None,
    ) -> None:
        self.positive, self.per_class, self.ignore_index = positive, per_class, ignore_index
        self.classes = class_names(classes, len(classes)) if classes else ()
        names = ("precision", "recall", "f1")
        self.measures: Mapping[str, Direction] = {
            **dict.fromkeys(names, "max"),
            **{f"{name}/{c}": "max" for c in self.classes for name in names if per_class},
        }

    def sums(self, output: Tensor, target: Tensor) -> Tensor:
        """Output (N, C, ...) (or one channel: `predicted`) and target (N, ...) to int64 (3, C): T, P and I."""
        size = 2 if output.ndim == target.ndim else max(output.shape[1], 2)
        guess, true = predicted(output, target), target.long()
        # Place 0 takes what is left out, and a class that does not exist is told for free; see `Confusion`.
        guess, true = guess + 1, torch.where(target < 0, -1, true + 1)
        if self.ignore_index is not None:
            left_out = target == self.ignore_index
            guess, true = guess.masked_fill(left_out, 0), true.masked_fill(left_out, 0)
        right = true * (guess == true)
        try:
            counts = [part.flatten().bincount(minlength=size + 1) for part in (true, guess, right)]
        except RuntimeError as error:
            raise wrong_class(target, size, self.ignore_index) or error from error
        if len(counts[0]) > size + 1:
            raise wrong_class(target, size, self.ignore_index) or AssertionError(tuple(counts[0].shape))
        return torch.stack([part[1:] for part in counts])

    def values(self, total: Tensor) -> dict[str, float]:
        each = {
            index: (i / p if p else 0.0, i / t if t else 0.0, 2 * i / (t + p))
            for index, (t, p, i) in enumerate(zip(*total.tolist(), strict=True))
            if t + p
        }
        chosen = [numbers for index, numbers in each.items() if self.positive in (None, index)]
        if not chosen:
            return {}
        names = ("precision", "recall", "f1")
        columns = zip(names, zip(*chosen, strict=True), strict=True)
        found = {name: math.fsum(column) / len(chosen) for name, column in columns}
        if self.per_class:
            for index, numbers in each.items():
                called = self.classes[index] if index < len(self.classes) else index
                found |= {f"{name}/{called}": value for name, value in zip(names, numbers, strict=True)}
        return found


class BitsPerCharacter:
    """`bpc`: the mean number of bits that the model needs for the next symbol, -log2 of its probability.

    Args:
        ignore_index: targets of this value are left out.
    """

    measures: Mapping[str, Direction] = {"bpc": "min"}

    def __init__(self, ignore_index: int | None = None) -> None:
        self.ignore_index = ignore_index

    def sums(self, output: Tensor, target: Tensor) -> Tensor:
        """Logits (N, V, ...) and target (N, ...) to float64 (bits, symbols)."""
        target = target.long()
        kept = torch.ones_like(target) if self.ignore_index is None else (target != self.ignore_index).long()
        nats = wide(F.cross_entropy(output.detach().float(), target * kept, reduction="none"))
        kept = kept.to(nats)
        return torch.stack(((nats * kept).sum() / math.log(2), kept.sum()))

    def values(self, total: Tensor) -> dict[str, float]:
        bits, count = total.tolist()
        return {"bpc": bits / count} if count else {}


def class_names(classes: Sequence[str], num_classes: int) -> tuple[str, ...]:
    """The names checked: one a class, each another. A single class gets a `background` before it.

    Raises:
        ValueError: too few, too many, or one twice.
    """
    names = tuple(map(str, classes))
    if names and len(names) != num_classes:
        raise ValueError(f"classes: {len(names)} names ({', '.join(names)}) for num_classes={num_classes}")
    if len(set(names)) != len(names):
        raise ValueError(f"classes: a name comes twice in {', '.join(names)}")
    return ("background", *names) if len(names) == 1 else names


def wrong_class(target: Tensor, num_classes: int, ignore_index: int | None) -> DataError | None:
    """The error that tells which values of a target are no class, or None where all are."""
    values: Tensor = torch.unique(target)
    found = set(values.tolist()) - {ignore_index}
    wrong = sorted(value for value in found if not 0 <= value < num_classes or value != int(value))
    if not wrong:
        return None
    shown = ", ".join(f"{value:g}" for value in wrong[:8]) + (", ..." if len(wrong) > 8 else "")
    left_out = "no label is left out" if ignore_index is None else f"{ignore_index} is left out"
    return DataError(
        f"data: targets hold {shown}, but there are {num_classes} classes, 0 to {num_classes - 1} ({left_out}); "
        "correct the labels, num_classes, or ignore_index"
    )
