"""What each known loss takes, so that a loss that does not go with a task is told in words before training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from trainer.errors import ConfigError
from trainer.losses.boxes import DIoU, GIoU
from trainer.losses.labels import Hinge
from trainer.losses.overlap import DiceCE, Focal, _Overlap

FORMS = {
    "classes": (
        "logits of two or more channels, one for each class, (N, classes, ...), and class indices (N, ...)",
        "cross_entropy",
    ),
    "binary": ("a model output of one channel, (N, 1, ...), and labels 0 and 1 (N, ...)", "bce"),
    "soft": ("a probability for each class as target, of the shape of the output, (N, classes, ...)", "kl_div"),
    "labels": ("logits (N, labels) and targets 0 and 1 (N, labels), as task=multilabel has", "bce"),
    "values": ("numbers of one shape as output and as target, as task=regression has", "mse"),
    "boxes": ("boxes (N, 4) as output and as target, as task=regression may have", "giou"),
    "pairs": ("pairs of inputs, ((first, second), target), as task=embedding has", "cosine_embedding"),
    "triplets": ("triplets (anchor, positive, negative), as task=embedding has", "triplet_margin"),
    "sequences": ("a sequence of logits (N, T, symbols) and a shorter one of symbols, as task=sequence has", "ctc"),
}
"""What output and target may be, in words, and the loss to type for each where another does not fit."""

_TAKEN: dict[type[nn.Module], tuple[str, ...]] = {
    nn.CrossEntropyLoss: ("classes", "soft"),
    nn.NLLLoss: ("classes",),
    nn.MultiMarginLoss: ("classes",),
    Focal: ("classes", "binary"),
    DiceCE: ("classes", "binary"),
    _Overlap: ("classes", "binary"),
    Hinge: ("binary",),
    nn.BCEWithLogitsLoss: ("binary", "labels"),
    nn.BCELoss: ("binary", "labels"),
    nn.SoftMarginLoss: ("binary", "labels"),
    nn.MultiLabelMarginLoss: ("labels",),
    nn.MultiLabelSoftMarginLoss: ("labels",),
    nn.KLDivLoss: ("soft",),
    nn.L1Loss: ("values",),
    nn.MSELoss: ("values",),
    nn.HuberLoss: ("values",),
    nn.SmoothL1Loss: ("values",),
    nn.PoissonNLLLoss: ("values",),
    nn.GaussianNLLLoss: ("values",),
    GIoU: ("boxes",),
    DIoU: ("boxes",),
    nn.MarginRankingLoss: ("pairs",),
    nn.HingeEmbeddingLoss: ("pairs",),
    nn.CosineEmbeddingLoss: ("pairs",),
    nn.TripletMarginLoss: ("triplets",),
    nn.TripletMarginWithDistanceLoss: ("triplets",),
    nn.CTCLoss: ("sequences",),
}


def taken_by(criterion: Callable[..., Any]) -> tuple[str, ...]:
    """The names in `FORMS` of what a loss takes; empty for one that is not known, such as a user's own."""
    for kind in type(criterion).__mro__:
        if kind in _TAKEN:
            return _TAKEN[kind]
        if "forward" in vars(kind):  # a user's own, whatever it is derived from
            break
    return ()


def refuse(criterion: Callable[..., Any], form: str, output: Any, target: Any) -> None:
    """Raises ConfigError where a known loss does not take what the task gives, with what it needs and what to type."""
    taken = taken_by(criterion)
    if not taken or form in taken:
        return
    needs = "; or ".join(FORMS[name][0] for name in taken)
    other = {"classes": ", or type +model.num_classes=1", "binary": ", or type +model.num_classes=2"}
    also = other.get(form, "") if {form, *taken} >= other.keys() else ""
    raise ConfigError(
        f"loss: {type(criterion).__name__} needs {needs}. This model gives {shown(output)} for targets of "
        f"{shown(target)}; use loss={FORMS[form][1]}{also}"
    )


def shown(value: Any) -> str:
    """A tensor, or a tuple of them, as shape and type: `(8, 10) float32`."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, (list, tuple)):
        return "(" + ", ".join(map(shown, value)) + ")"
    return type(value).__name__
