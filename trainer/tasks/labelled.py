"""Tasks whose targets are classes: of a sample, of each pixel, of the next symbol."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.colors import LEFT_OUT, RGB, WRONG, palette
from trainer.errors import ConfigError, DataError
from trainer.losses.fit import refuse, shown, taken_by
from trainer.metrics import Accuracy, BitsPerCharacter, Confusion, Metric, predicted, wrong_class
from trainer.records import Panel
from trainer.tasks.base import Criterion, Supervised, unfit
from trainer.tasks.matrix import MOST, confusion_panels
from trainer.tasks.pictures import Restores, are_pictures, picture

_MATRIX = "confusion matrix"  # among the totals; with a space, so that no metric in a config has this name
_ERRORS: dict[str, RGB] = {"right": (225, 232, 238), "wrong": WRONG}


@functools.cache
def _confusion(classes: int, ignore_index: int | None) -> Confusion:
    return Confusion(classes, (), ignore_index)


class _Labelled(Supervised):
    """What classification, segmentation and language share: a target is one of several classes."""

    known = 0  # how many classes the data has, where it tells

    def __init__(
        self,
        criterion: Criterion,
        ignore_index: int | None,
        metrics: Mapping[str, Any] | None,
        l1: float,
        l2: float,
        worst: int = 0,
    ) -> None:
        super().__init__(criterion, metrics, l1, l2)
        if worst < 0:
            raise ValueError(f"worst: {worst} must be at least 0")
        self.ignore_index, self.worst = ignore_index, worst
        self._soft = False  # whether the targets of the batch are probabilities
        self._probable = not isinstance(criterion, nn.BCELoss)  # whether outputs were seen to be what it takes
        without = bool(taken_by(criterion)) and not hasattr(criterion, "ignore_index")
        left_out = None if without else getattr(criterion, "ignore_index", ignore_index)
        if ignore_index is not None and left_out != ignore_index:
            remedy = "use loss=focal, dice or dice_ce" if without else f"set loss.ignore_index={ignore_index}"
            raise ValueError(
                f"ignore_index: {ignore_index}, but {type(criterion).__name__} leaves out {left_out}; {remedy}"
            )

    def outputs(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Logits (N, C, ...) and int64 target (N, ...); with one channel, logits and float target, both (N, ...).

        Where the data gives a probability for each class, the target is float and of the output's shape.
        """
        output, target = super().outputs(model, batch)
        self._soft = target.is_floating_point() and target.shape == output.shape and output.shape[1:2] > (1,)
        if self._soft:
            refuse(self.criterion, "soft", output, target)
            return output, target
        if output.ndim < 2 or target.shape != output.shape[:1] + output.shape[2:]:
            raise unfit(output, target, "(N, classes, ...)", "(N, ...)")
        return self._fit(output, target)

    def _fit(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if output.shape[1] == 1:
            refuse(self.criterion, "binary", output, target)
            if self.known > 2:
                raise ConfigError(
                    f"model: it gives one channel, which tells two classes apart, and the data has {self.known}; "
                    f"give it {self.known} channels, or use data of two classes"
                )
            return output.squeeze(1), target.float()
        refuse(self.criterion, "classes", output, target)
        if target.is_floating_point():
            raise DataError(f"data: targets are {target.dtype}; they must be class indices, integers")
        return output, target.long()

    def given(self, output: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """torch's losses that take something else than logits and labels get it."""
        if isinstance(self.criterion, (nn.NLLLoss, nn.KLDivLoss)):  # of logarithms of probabilities it changes nothing
            return output.log_softmax(1), target
        if isinstance(self.criterion, nn.SoftMarginLoss):
            return output, target * 2 - 1
        if isinstance(self.criterion, nn.MultiMarginLoss) and output.ndim > 2:
            return output.movedim(1, -1).flatten(0, -2), target.flatten()
        if not self._probable:
            self._probable = bool(((output >= 0) & (output <= 1)).all())
            if not self._probable:
                raise ConfigError(
                    f"loss: BCELoss needs probabilities, from 0 to 1, and this model gives {output.min():.3g} to "
                    f"{output.max():.3g} in {shown(output)}; use loss=bce, which takes logits"
                )
        return output, target

    def measured(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and class indices int64; the most probable class where the target is a probability for each."""
        if isinstance(self.criterion, nn.BCELoss):
            output = output.logit()
        return output, target.argmax(1) if self._soft else target

    def _score(self, output: Tensor, target: Tensor) -> Tensor:
        try:
            return super()._score(output, target)
        except (IndexError, RuntimeError, ValueError) as error:
            # Only now, so that a good batch pays nothing. A CUDA device that has failed can no longer be asked.
            classes = output.shape[1] if output.ndim > target.ndim else 2
            wrong = None if target.is_cuda or self._soft else wrong_class(target, classes, self.ignore_index)
            if wrong is None:
                raise
            raise wrong from error


class Classification(_Labelled):
    """One class for each sample: `accuracy` and `error`, its opposite. Outputs (N, C), or (N, 1) for two classes.

    Args:
        criterion: the built loss.
        classes: the names of the classes; numbers without.
        preprocess: how the pictures were made ready, to show them as they were; see `trainer.tasks.pictures`.
        ignore_index: samples of this label are left out.
        metrics: further metrics by name, e.g. `top5: {_target_: trainer.metrics.Accuracy, k: 5}`.
        l1, l2: penalties on the weights, see `Supervised`.
        worst: so many samples whose true class was thought least likely are shown at each evaluation.

    Raises:
        ValueError: two metrics give the same name, or the criterion leaves out another label.
    """

    def __init__(
        self,
        criterion: Criterion,
        classes: Sequence[str] = (),
        preprocess: Restores | None = None,
        ignore_index: int | None = None,
        metrics: Mapping[str, Any] | None = None,
        l1: float = 0.0,
        l2: float = 0.0,
        worst: int = 4,
    ) -> None:
        super().__init__(criterion, ignore_index, None, l1, l2, worst)
        self._measure({"accuracy": Accuracy(ignore_index=ignore_index)})
        self.measures = {**self.measures, "error": "min"}
        self._measure(metrics or {})
        self.classes, self.preprocess = tuple(map(str, classes)), preprocess
        self.known = len(self.classes)

    def summarise(self, totals: dict[str, Tensor]) -> dict[str, float]:
        values = super().summarise(totals)
        return values | ({"error": 1 - values["accuracy"]} if "accuracy" in values else {})

    def further(self, inputs: Any, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        if self.worst and are_pictures(inputs):
            self.hardness = self._hardness(output, target)
        classes = output.shape[1] if output.ndim > target.ndim else 2
        return {_MATRIX: _confusion(classes, self.ignore_index).sums(output, target)} if classes <= MOST else {}

    def _hardness(self, output: Tensor, target: Tensor) -> Tensor:
        """The cross-entropy, whatever the criterion is: how little the truth was thought of."""
        outside = (
            torch.zeros_like(target, dtype=torch.bool) if self.ignore_index is None else target == self.ignore_index
        )
        target = target.masked_fill(outside, 0)
        if output.ndim == target.ndim:
            hardness = F.binary_cross_entropy_with_logits(output.float(), target.float(), reduction="none")
        else:
            hardness = F.cross_entropy(output.float(), target, reduction="none")
        return hardness.masked_fill(outside, -math.inf)

    def charts(self, totals: dict[str, Tensor]) -> list[Panel]:
        """The confusion matrix, for at most 30 classes."""
        counts = totals.get(_MATRIX)
        return [] if counts is None else confusion_panels(counts, [self._name(n) for n in range(len(counts))])

    def panels(self, model: nn.Module, batch: Any, samples: list[str]) -> list[Panel]:
        """Each picture with its true class, the predicted one and that one's probability. None for other inputs."""
        if not are_pictures(batch[0]):
            return []
        output, target = self.measured(*self.outputs(model, batch))
        output = output.float() if output.ndim == 2 else torch.stack((torch.zeros_like(output), output), 1).float()
        chances, guesses = output.softmax(1).max(1)
        shown = zip(samples, batch[0], target.tolist(), guesses.tolist(), chances.tolist(), strict=True)
        return [
            Panel(
                name="val/examples",
                sample=sample,
                image=picture(pixels, self.preprocess),
                caption=f"{sample}  true {self._name(true)}, pred {self._name(guess)} {chance:.2f}",
                right=None if true == self.ignore_index else true == guess,
            )
            for sample, pixels, true, guess, chance in shown
        ]

    def _name(self, label: float) -> str:
        return self.classes[int(label)] if 0 <= label < len(self.classes) else f"{label:g}"


class Segmentation(_Labelled):
    """One class for each pixel: `miou`, `dice`, `accuracy` and `iou/<class>`, see `trainer.metrics.Confusion`.

    Outputs (N, C, H, W) and targets (N, H, W). With two classes the output may have one channel, the second class's
    logit; the criterion then gets outputs and float targets of shape (N, H, W).

    Args:
        criterion: the built loss.
        num_classes: C.
        classes: the names of the classes; numbers without.
        colors: red, green, blue (0 to 255) of each class in the panels; `trainer.colors` has others.
        preprocess: how the pictures were made ready, to show them as they were; see `trainer.tasks.pictures`.
        ignore_index: pixels of this label are left out. The true mask of a panel shows them in grey as a class of their
            own, `ignore`, after the last.
        metrics: further metrics by name.
        l1, l2: penalties on the weights, see `Supervised`.
        worst: so many samples with the largest share of wrong pixels are shown at each evaluation.

    Raises:
        ValueError: names or colors do not fit the number of classes, two metrics give the same name, or the criterion
            leaves out another label.
    """

    def __init__(
        self,
        criterion: Criterion,
        num_classes: int,
        classes: Sequence[str] = (),
        colors: Sequence[Sequence[int]] = (),
        preprocess: Restores | None = None,
        ignore_index: int | None = None,
        metrics: Mapping[str, Any] | None = None,
        l1: float = 0.0,
        l2: float = 0.0,
        worst: int = 4,
    ) -> None:
        super().__init__(criterion, ignore_index, None, l1, l2, worst)
        self.confusion = Confusion(num_classes, classes, ignore_index)
        self.known = self.confusion.num_classes
        if len(colors) not in (0, self.confusion.num_classes):
            raise ValueError(f"colors: {len(colors)} colors for num_classes={self.confusion.num_classes}")
        self._measure({"confusion": self.confusion, **(metrics or {})})
        self.colors = tuple((int(red), int(green), int(blue)) for red, green, blue in colors)
        self.preprocess = preprocess

    def further(self, inputs: Any, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        if self.worst and are_pictures(inputs):
            kept = (
                torch.ones_like(target, dtype=torch.bool) if self.ignore_index is None else target != self.ignore_index
            )
            wrong = ((predicted(output, target) != target) & kept).flatten(1).sum(1)
            self.hardness = wrong / kept.flatten(1).sum(1).clamp_min(1)  # the share of wrong pixels
        return {}

    def charts(self, totals: dict[str, Tensor]) -> list[Panel]:
        """The confusion matrix, with a pixel as the unit, for at most 30 classes."""
        return confusion_panels(totals["confusion"], self.confusion.classes)

    def panels(self, model: nn.Module, batch: Any, samples: list[str]) -> list[Panel]:
        """Each picture with its true mask, the predicted one, and where they differ.

        None for other inputs, or above 255 classes.
        """
        if not are_pictures(batch[0]) or self.confusion.num_classes > 255:
            return []
        output, target = self.measured(*self.outputs(model, batch))
        classes, colors, left_out = self.confusion.classes, palette(self.colors), self.ignore_index is not None
        true, guess = target.long(), predicted(output, target)
        error = (true != guess).long()
        if self.ignore_index is not None:
            outside = target == self.ignore_index
            true, error = true.masked_fill(outside, len(classes)), error.masked_fill(outside, len(_ERRORS))
        masks = {"true": true, "pred": guess, "error": error}
        shown = {name: mask.to("cpu", torch.uint8).numpy() for name, mask in masks.items()}
        return [
            Panel(
                name="val/examples",
                sample=sample,
                image=picture(batch[0][i], self.preprocess),
                masks={name: mask[i] for name, mask in shown.items()},
                classes=(*classes, "ignore") if left_out else classes,
                colors=(*colors[: len(classes)], LEFT_OUT) if left_out else tuple(colors[: len(classes)]),
                caption=self._caption(sample, output[i : i + 1], target[i : i + 1]),
                legends={"error": _ERRORS | ({"ignore": LEFT_OUT} if left_out else {})},
            )
            for i, sample in enumerate(samples)
        ]

    def _caption(self, sample: str, output: Tensor, target: Tensor) -> str:
        values = self.confusion.values(self.confusion.sums(output, target))
        return f"{sample}  IoU {values['miou']:.2f}, {1 - values['accuracy']:.1%} wrong" if values else sample


class LanguageModel(_Labelled):
    """The next symbol at each place: `bpc` (bits per character) and `accuracy`.

    Outputs (N, T, V) and targets (N, T); the criterion gets them as (N * T, V) and (N * T).

    Args:
        criterion: the built loss.
        ignore_index: places with this target (padding) are left out.
        metrics: further metrics by name.
        l1, l2: penalties on the weights, see `Supervised`.

    Raises:
        ValueError: two metrics give the same name, or the criterion leaves out another label.
    """

    def __init__(
        self,
        criterion: Criterion,
        ignore_index: int | None = None,
        metrics: Mapping[str, Any] | None = None,
        l1: float = 0.0,
        l2: float = 0.0,
    ) -> None:
        super().__init__(criterion, ignore_index, None, l1, l2)
        own: dict[str, Metric] = {"bpc": BitsPerCharacter(ignore_index), "accuracy": Accuracy(1, ignore_index)}
        self._measure({**own, **(metrics or {})})

    def outputs(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Logits (N * T, V) and int64 target (N * T)."""
        output, target = Supervised.outputs(self, model, batch)
        if output.ndim != 3 or target.shape != output.shape[:2]:
            raise unfit(output, target, "(N, T, symbols)", "(N, T)")
        return self._fit(output.flatten(0, 1), target.flatten())
