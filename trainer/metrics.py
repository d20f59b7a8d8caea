"""What is measured in evaluation: sums that add up over batches and processes, and the numbers made of their total."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.errors import ConfigError, DataError

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
