"""What one batch means: its loss in training, its sums and pictures in evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from trainer.data.loader import samples_of
from trainer.errors import ConfigError, DataError
from trainer.metrics import Accuracy, BitsPerCharacter, Confusion, Direction, Metric, predicted, weighed, wrong_class
from trainer.records import Panel

if TYPE_CHECKING:
    from typing_extensions import Self

Criterion = Callable[[Tensor, Tensor], Tensor]
"""From output and target to the mean loss, a scalar: a torch loss, one of `trainer.losses`, or a function."""

_GREY = (127, 127, 127)


class Restores(Protocol):
    """What the panels need of a preprocessing: from what the model sees, (C, H, W), back to a uint8 picture."""

    def restore(self, x: Tensor, /) -> np.ndarray: ...


class Task:
    """The base of every task. A task of your own overrides `loss`, and `judge` where more than the loss is measured.

    Attributes:
        measures: what `summarise` may give, and whether less (`min`) or more (`max`) is better; names without `val/`.
    """

    measures: Mapping[str, Direction] = {"loss": "min"}

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
    """Batches (input, target), a criterion between `model(input)` and target, and metrics. As it stands: regression.

    A model that returns a tuple or a list means its first entry, one that returns a dictionary means `"out"`.
    The loss of an evaluation is the mean over its batches, weighed by their samples.

    Args:
        criterion: the built loss.
        metrics: further metrics by name. The names in their `measures` must be new.

    Raises:
        ValueError: two metrics give the same name.
    """

    def __init__(self, criterion: Criterion, metrics: Mapping[str, Metric] | None = None) -> None:
        self.criterion = criterion
        self.metrics: dict[str, Metric] = {}
        self.measures = {"loss": "min"}
        self._measure(metrics or {})

    def _measure(self, metrics: Mapping[str, Metric]) -> None:
        for name, metric in metrics.items():
            twice = sorted(set(metric.measures) & set(self.measures))
            if name in self.metrics or name == "loss" or twice:
                raise ValueError(f"metrics: {name} gives {', '.join(twice) or name}, which this task measures already")
            self.metrics[name] = metric
            self.measures = {**self.measures, **metric.measures}

    def outputs(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Output and target in the form that the criterion and the metrics get them."""
        inputs, target = batch
        return tensor_of(model(inputs)), target

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return self._score(*self.outputs(model, batch))

    def judge(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        output, target = self.outputs(model, batch)
        sums = {"loss": weighed(self._score(output, target), samples_of(batch))}
        return sums | {name: metric.sums(output, target) for name, metric in self.metrics.items()}

    def summarise(self, totals: dict[str, Tensor]) -> dict[str, float]:
        values = super().summarise({"loss": totals["loss"]})
        for name, metric in self.metrics.items():
            values |= metric.values(totals[name])
        return values

    def _score(self, output: Tensor, target: Tensor) -> Tensor:
        loss = self.criterion(output, target)
        if loss.ndim:
            raise ConfigError(
                f"loss: it gives a tensor of shape {tuple(loss.shape)}, not one number; set reduction: mean"
            )
        return loss


class _Labelled(Supervised):
    """What classification, segmentation and language share: a target is one of several classes."""

    def __init__(self, criterion: Criterion, ignore_index: int | None, metrics: Mapping[str, Metric] | None) -> None:
        super().__init__(criterion, metrics)
        self.ignore_index = ignore_index
        binary = isinstance(criterion, nn.BCEWithLogitsLoss)
        left_out = None if binary else getattr(criterion, "ignore_index", ignore_index)
        if ignore_index is not None and left_out != ignore_index:
            remedy = "use loss=focal, dice or dice_ce" if binary else f"set loss.ignore_index={ignore_index}"
            raise ValueError(
                f"ignore_index: {ignore_index}, but {type(criterion).__name__} leaves out {left_out}; {remedy}"
            )

    def outputs(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Logits (N, C, ...) and int64 target (N, ...); with one channel, logits and float target, both (N, ...)."""
        output, target = super().outputs(model, batch)
        if output.ndim < 2 or target.shape != output.shape[:1] + output.shape[2:]:
            raise _unfit(output, target, "(N, classes, ...)", "(N, ...)")
        if output.shape[1] == 1:
            self._refuse(nn.CrossEntropyLoss, "two or more channels, one for each class", 1)
            return output.squeeze(1), target.float()
        self._refuse(nn.BCEWithLogitsLoss, "one channel", output.shape[1])
        if target.is_floating_point():
            raise DataError(f"data: targets are {target.dtype}; they must be class indices, integers")
        return output, target.long()

    def _refuse(self, loss: type[nn.Module], needs: str, channels: int) -> None:
        if isinstance(self.criterion, loss):
            raise ConfigError(
                f"loss: {loss.__name__} needs a model output of {needs}, and this model gives {channels}; "
                f"use loss={'bce' if channels == 1 else 'cross_entropy'}, or set model.num_classes"
            )

    def _score(self, output: Tensor, target: Tensor) -> Tensor:
        try:
            return super()._score(output, target)
        except (IndexError, RuntimeError, ValueError) as error:
            # Only now, so that a good batch pays nothing. A CUDA device that has failed can no longer be asked.
            classes = output.shape[1] if output.ndim > target.ndim else 2
            wrong = None if target.is_cuda else wrong_class(target, classes, self.ignore_index)
            if wrong is None:
                raise
            raise wrong from error


class Classification(_Labelled):
    """One class for each sample: `accuracy` and `error`, its opposite. Outputs (N, C), or (N, 1) for two classes.

    Args:
        criterion: the built loss.
        classes: the names of the classes; numbers without.
        preprocess: how the pictures were made ready, to show them as they were; without it each is stretched to 0..255.
        ignore_index: samples of this label are left out.
        metrics: further metrics by name, e.g. `top5: {_target_: trainer.metrics.Accuracy, k: 5}`.

    Raises:
        ValueError: two metrics give the same name, or the criterion leaves out another label.
    """

    def __init__(
        self,
        criterion: Criterion,
        classes: Sequence[str] = (),
        preprocess: Restores | None = None,
        ignore_index: int | None = None,
        metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        super().__init__(criterion, ignore_index, None)
        self._measure({"accuracy": Accuracy(ignore_index=ignore_index)})
        self.measures = {**self.measures, "error": "min"}
        self._measure(metrics or {})
        self.classes, self.preprocess = tuple(map(str, classes)), preprocess

    def summarise(self, totals: dict[str, Tensor]) -> dict[str, float]:
        values = super().summarise(totals)
        return values | ({"error": 1 - values["accuracy"]} if "accuracy" in values else {})

    def panels(self, model: nn.Module, batch: Any, samples: list[str]) -> list[Panel]:
        """Each picture with its true class, the predicted one and that one's probability. None for other inputs."""
        if not _pictures(batch[0]):
            return []
        output, target = self.outputs(model, batch)
        output = output.float() if output.ndim == 2 else torch.stack((torch.zeros_like(output), output), 1).float()
        chances, guesses = output.softmax(1).max(1)
        shown = zip(samples, batch[0], target.tolist(), guesses.tolist(), chances.tolist(), strict=True)
        return [
            Panel(
                name="val/examples",
                sample=sample,
                image=_picture(pixels, self.preprocess),
                caption=f"{sample}: true {self._name(true)}, predicted {self._name(guess)} ({chance:.2f})",
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
        colors: red, green, blue (0 to 255) of each class in the panels; the viewer's own without.
        preprocess: how the pictures were made ready, to show them as they were; without it each is stretched to 0..255.
        ignore_index: pixels of this label are left out. The true mask of a panel shows them in grey as a class of their
            own, `ignore`, after the last.
        metrics: further metrics by name.

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
        metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        super().__init__(criterion, ignore_index, None)
        self.confusion = Confusion(num_classes, classes, ignore_index)
        if len(colors) not in (0, self.confusion.num_classes):
            raise ValueError(f"colors: {len(colors)} colors for num_classes={self.confusion.num_classes}")
        self._measure({"confusion": self.confusion, **(metrics or {})})
        self.colors = tuple((int(red), int(green), int(blue)) for red, green, blue in colors)
        self.preprocess = preprocess

    def panels(self, model: nn.Module, batch: Any, samples: list[str]) -> list[Panel]:
        """Each picture with its true and its predicted mask. None for other inputs, or above 255 classes."""
        if not _pictures(batch[0]) or self.confusion.num_classes > 255:
            return []
        output, target = self.outputs(model, batch)
        classes, colors, true = self.confusion.classes, self.colors, target.long()
        if self.ignore_index is not None:
            true = true.masked_fill(true == self.ignore_index, len(classes))
            classes, colors = (*classes, "ignore"), (*colors, _GREY) if colors else ()
        masks = {"true": true, "pred": predicted(output, target)}
        masks = {name: mask.to("cpu", torch.uint8) for name, mask in masks.items()}
        return [
            Panel(
                name="val/examples",
                sample=sample,
                image=_picture(batch[0][i], self.preprocess),
                masks={name: mask[i].numpy() for name, mask in masks.items()},
                classes=classes,
                colors=colors,
                caption=self._caption(sample, output[i : i + 1], target[i : i + 1]),
            )
            for i, sample in enumerate(samples)
        ]

    def _caption(self, sample: str, output: Tensor, target: Tensor) -> str:
        values = self.confusion.values(self.confusion.sums(output, target))
        return f"{sample}  IoU {values['miou']:.2f}" if values else sample


class LanguageModel(_Labelled):
    """The next symbol at each place: `bpc` (bits per character) and `accuracy`.

    Outputs (N, T, V) and targets (N, T); the criterion gets them as (N * T, V) and (N * T).

    Args:
        criterion: the built loss.
        ignore_index: places with this target (padding) are left out.
        metrics: further metrics by name.

    Raises:
        ValueError: two metrics give the same name, or the criterion leaves out another label.
    """

    def __init__(
        self,
        criterion: Criterion,
        ignore_index: int | None = None,
        metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        super().__init__(criterion, ignore_index, None)
        own: dict[str, Metric] = {"bpc": BitsPerCharacter(ignore_index), "accuracy": Accuracy(1, ignore_index)}
        self._measure({**own, **(metrics or {})})

    def outputs(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Logits (N * T, V) and int64 target (N * T)."""
        output, target = Supervised.outputs(self, model, batch)
        if output.ndim != 3 or target.shape != output.shape[:2]:
            raise _unfit(output, target, "(N, T, symbols)", "(N, T)")
        return output.flatten(0, 1), target.flatten().long()


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


def _unfit(output: Tensor, target: Tensor, out: str, of: str) -> ConfigError:
    return ConfigError(
        f"model: its output of shape {tuple(output.shape)} does not fit the target of shape {tuple(target.shape)}; "
        f"{out} and {of} are needed"
    )


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {key: _moved(entry, device) for key, entry in value.items()}
    move = getattr(value, "to", None)
    return move(device) if callable(move) else value


def _pictures(inputs: Any) -> bool:
    return isinstance(inputs, Tensor) and inputs.ndim == 4 and inputs.shape[1] <= 4


def _picture(pixels: Tensor, preprocess: Restores | None) -> np.ndarray:
    """(C, H, W) to uint8, (H, W) or (H, W, 3): two channels show the first, four the first three."""
    if preprocess is not None:
        return preprocess.restore(pixels)
    pixels = pixels.detach().float().cpu()
    low, high = pixels.min(), pixels.max()
    pixels = ((pixels - low) / (high - low).clamp_min(1e-12) * 255).round().nan_to_num(0).to(torch.uint8)
    return (pixels[0] if len(pixels) < 3 else pixels[:3].permute(1, 2, 0)).numpy()
