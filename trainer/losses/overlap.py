"""Losses for classes by their overlap or their ease: Dice, Dice with cross entropy, Tversky, Jaccard, focal.

All take logits (N, C, ...) and int64 targets (N, ...), or, for two classes, one channel of logits (N, 1, ...) or
(N, ...) with targets 0 and 1, integer or float, (N, ...). They give a scalar, in float32 where the logits have half
precision. Where `ignore_index` leaves out every target, they give 0 rather than NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Overlap(nn.Module):
    """One minus an index of overlap, the mean over samples and classes; what the index is, a subclass says.

    Args:
        smooth: added above and below; a class that is neither there nor predicted has the index 1.
        batch: sums over the pixels of the whole batch, as if it were one sample. Steadier where a class is in few
            samples, but the loss then depends on which samples share a batch.
        ignore_index: targets of this value are left out.

    Raises:
        ValueError: `smooth` is not more than 0.
    """

    def __init__(self, smooth: float = 1.0, batch: bool = False, ignore_index: int | None = None) -> None:
        super().__init__()
        if not smooth > 0:
            raise ValueError(f"smooth: {smooth} must be more than 0")
        self.smooth, self.batch, self.ignore_index = smooth, batch, ignore_index

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return self.of(*_flat(output, target, self.ignore_index))

    def of(self, logits: Tensor, labels: Tensor, kept: Tensor | None) -> Tensor:
        """The loss of logits (N, C, P), labels (N, P) and which of these count (all where None)."""
        if logits.shape[1] == 1:
            chances, truth = logits.sigmoid(), labels.unsqueeze(1).to(logits.dtype)
        else:
            chances = logits.softmax(1)
            truth = torch.zeros_like(chances).scatter_(1, labels.unsqueeze(1), 1.0)
        if kept is not None:
            chances, truth = chances * kept.unsqueeze(1), truth * kept.unsqueeze(1)
        over = (0, 2) if self.batch else (2,)
        return 1 - self.index((chances * truth).sum(over), chances.sum(over), truth.sum(over)).mean()

    def index(self, common: Tensor, chances: Tensor, truth: Tensor) -> Tensor:
        """The index of each sample and class from sum(p t), sum(p) and sum(t)."""
        raise NotImplementedError


class Dice(_Overlap):
    """One minus the soft Dice coefficient: Milletari, Navab, Ahmadi, "V-Net", 2016, with plain sums as denominator.

    With p the probabilities (softmax; sigmoid for one channel) and t the targets as 0 and 1, summed over the pixels of
    one sample:

        loss = 1 - mean over samples and classes of (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth)

    The arguments are those of every loss of overlap, see `_Overlap`.
    """

    def index(self, common: Tensor, chances: Tensor, truth: Tensor) -> Tensor:
        return (2 * common + self.smooth) / (chances + truth + self.smooth)


class Jaccard(_Overlap):
    """One minus the soft Jaccard index, the intersection over union: Rahman, Wang, "Optimizing IoU", 2016.

    loss = 1 - mean over samples and classes of (sum(p t) + smooth) / (sum(p) + sum(t) - sum(p t) + smooth)
    """

    def index(self, common: Tensor, chances: Tensor, truth: Tensor) -> Tensor:
        return (common + self.smooth) / (chances + truth - common + self.smooth)


class Tversky(_Overlap):
    """One minus the Tversky index: Salehi, Erdogmus, Gholipour, "Tversky loss function for segmentation", 2017.

        index = (sum(p t) + smooth) / (sum(p t) + alpha * sum(p (1 - t)) + beta * sum((1 - p) t) + smooth)

    Args:
        alpha: the weight of what is predicted and not there. beta: of what is there and not predicted; more than alpha
            finds more of small regions. Both 0.5 is Dice with half its `smooth`, both 1 is Jaccard.
        smooth, batch, ignore_index: see `_Overlap`.

    Raises:
        ValueError: alpha or beta below 0, or `smooth` not more than 0.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        smooth: float = 1.0,
        batch: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(smooth, batch, ignore_index)
        for name, weight in (("alpha", alpha), ("beta", beta)):
            if not weight >= 0:
                raise ValueError(f"{name}: {weight} must be at least 0")
        self.alpha, self.beta = alpha, beta

    def index(self, common: Tensor, chances: Tensor, truth: Tensor) -> Tensor:
        wrong = self.alpha * (chances - common) + self.beta * (truth - common)
        return (common + self.smooth) / (common + wrong + self.smooth)


class DiceCE(nn.Module):
    """Dice and cross entropy together: Isensee et al., "nnU-Net", 2021.

        loss = dice_weight * Dice + ce_weight * cross entropy

    The cross entropy is torch's, the mean over the targets that count; for one channel the binary one.

    Args:
        dice_weight: the factor of the Dice loss.
        ce_weight: the factor of the cross entropy.
        smooth: see `Dice`.
        batch: see `Dice`.
        ignore_index: targets of this value are left out.

    Raises:
        ValueError: a weight below 0, both weights 0, or `smooth` not more than 0.
    """

    def __init__(
        self,
        dice_weight: float = 1.0,
        ce_weight: float = 1.0,
        smooth: float = 1.0,
        batch: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        for name, weight in (("dice_weight", dice_weight), ("ce_weight", ce_weight)):
            if not weight >= 0:
                raise ValueError(f"{name}: {weight} must be at least 0")
        if dice_weight == ce_weight == 0:
            raise ValueError("dice_weight: it and ce_weight are both 0; one must be more")
        self.dice = Dice(smooth, batch)
        self.dice_weight, self.ce_weight, self.ignore_index = dice_weight, ce_weight, ignore_index

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        logits, labels, kept = _flat(output, target, self.ignore_index)
        cross = _mean(_cross_entropy(logits, labels), kept)
        return self.dice_weight * self.dice.of(logits, labels, kept) + self.ce_weight * cross


class Focal(nn.Module):
    """Cross entropy with less weight on what is easy: Lin et al., "Focal Loss for Dense Object Detection", 2017.

    With p the probability of the true class (softmax; sigmoid for one channel), the mean over the targets that count of

        loss = -alpha (1 - p)^gamma log(p)

    Args:
        gamma: 0 is cross entropy; the larger, the less the easy ones weigh.
        alpha: one channel: the factor of class 1, class 0 has 1 - alpha (0.25 in the paper). More channels: a factor
            for each class. None is 1 throughout.
        ignore_index: targets of this value are left out.

    Raises:
        ValueError: gamma below 0, or an alpha that is negative, above 1 where it is one number; in `forward`, an alpha
            that does not fit the number of channels.
    """

    alpha: Tensor | None

    def __init__(
        self, gamma: float = 2.0, alpha: float | Sequence[float] | None = None, ignore_index: int | None = None
    ) -> None:
        super().__init__()
        if not gamma >= 0:
            raise ValueError(f"gamma: {gamma} must be at least 0")
        if isinstance(alpha, (int, float)):
            if not 0 <= alpha <= 1:
                raise ValueError(f"alpha: {alpha} must be from 0 to 1")
            alpha = [1 - alpha, alpha]
            self.channels = 1
        elif alpha is not None:
            if not alpha or min(alpha) < 0:
                raise ValueError(f"alpha: {list(alpha)} must be a factor of at least 0 for each class")
            self.channels = len(alpha)
        self.register_buffer("alpha", None if alpha is None else torch.tensor(alpha, dtype=torch.float64).float())
        self.gamma, self.ignore_index = gamma, ignore_index

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        logits, labels, kept = _flat(output, target, self.ignore_index)
        cross = _cross_entropy(logits, labels)
        # 1 - p is kept from being exactly 0, where the slope of a power below 1 is infinite.
        loss = (-torch.expm1(-cross)).clamp_min(1e-12) ** self.gamma * cross
        if self.alpha is not None:
            if logits.shape[1] != self.channels:
                raise ValueError(f"alpha: {self.channels} factors for an output of {logits.shape[1]} channels")
            loss = loss * self.alpha[labels].to(loss.dtype)
        return _mean(loss, kept)


def _flat(output: Tensor, target: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits (N, C, P), labels (N, P) with 0 for those left out, and which are not left out (None: all are kept)."""
    if output.ndim == target.ndim:
        output = output.unsqueeze(1)
    if output.shape[:1] + output.shape[2:] != target.shape:
        raise ValueError(f"an output of shape {tuple(output.shape)} does not fit a target of {tuple(target.shape)}")
    if output.dtype in (torch.float16, torch.bfloat16):
        output = output.float()
    logits, labels = output.flatten(2) if output.ndim > 2 else output.unsqueeze(2), target.long()
    labels = labels.reshape(len(labels), logits.shape[2])
    kept = None if ignore_index is None else labels != ignore_index
    return logits, labels if kept is None else labels * kept, kept


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """(N, P): minus the logarithm of the true class's probability."""
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits.dtype), reduction="none")
    return F.cross_entropy(logits, labels, reduction="none")


def _mean(values: Tensor, kept: Tensor | None) -> Tensor:
    return values.mean() if kept is None else (values * kept).sum() / kept.sum().clamp_min(1)
