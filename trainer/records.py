"""Plain data that crosses floors: what is shown of a sample, what an evaluation found, how a run ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from trainer.colors import RGB

Row = dict[str, Any]  # one line of metrics.jsonl: {"step": 120, "epoch": 2, "train/loss": 0.41, "lr": 0.01, ...}
RunState = Literal["running", "finished", "interrupted", "failed"]
Resume = Literal["never", "auto", "must"]
RESUME_WORDS: tuple[Resume, ...] = get_args(Resume)
MODEL = "wandb:"  # before the name of a model, where a run folder may be named too

FACTS = ("in_channels", "in_features", "image_size", "num_classes", "classes", "colors", "preprocess",
         "vocab_size", "context", "ignore_index", "class_counts")  # fmt: skip
"""Every fact that a source may know. A model, task or loss that takes an argument of one of these names gets it from
the data, unless the config sets it:

- `in_channels` (int), `image_size` (height, width), `in_features` (int: the numbers in one input)
- `num_classes` (int), `classes` (their names), `colors` (red, green, blue of each), `ignore_index` (label left out)
- `class_counts` (int of each class: training samples, or pixels, of it), where the source knows it for free
- `preprocess` (from a picture as read to what the model sees, and back)
- `vocab_size`, `context` (int: symbols, and length of a text window)
"""


@dataclass(frozen=True)
class Panel:
    """One validation sample as a person sees it, or a picture of a whole evaluation.

    Attributes:
        name: what the picture is called on a dashboard, the same at every evaluation (`val/examples`).
        sample: which sample it is (a file's name, an index).
        image: uint8, (H, W) or (H, W, 3).
        masks: by name (`true`, `pred`), uint8 class indices of shape (H, W); empty where there are none.
        classes: the names of the class indices.
        colors: one (red, green, blue), 0 to 255, for each class.
        caption: what stands under the picture.
        legends: of masks whose indices mean something else than the classes: name and color of each index.
        right: whether the prediction is the truth, where that is said of the whole picture.
        drawn: the picture is made of letters and lines, and must not be made smaller.
    """

    name: str
    sample: str
    image: np.ndarray
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    colors: tuple[RGB, ...] = ()
    caption: str = ""
    legends: dict[str, dict[str, RGB]] = field(default_factory=dict)
    right: bool | None = None
    drawn: bool = False

    def problem(self) -> str:
        """What of it cannot be shown, in words; empty if all can."""
        image = np.asarray(self.image)
        if image.dtype != np.uint8 or image.size == 0 or not (image.ndim == 2 or image.shape[2:] == (3,)):
            found = f"{image.dtype} of shape {image.shape}"
            return f"the picture of {self.sample} is {found}; uint8 of shape (H, W) or (H, W, 3) is needed"
        for name, mask in ((name, np.asarray(mask)) for name, mask in self.masks.items()):
            if mask.dtype != np.uint8 or mask.ndim != 2 or mask.size == 0:
                found = f"{mask.dtype} of shape {mask.shape}"
                return f"mask {name} of {self.sample} is {found}; uint8 of shape (H, W) is needed"
        return ""


@dataclass(frozen=True)
class Histogram:
    """How many values lie between each two edges; of several numbers `Histogram.of` makes one.

    Attributes:
        counts: at most 512 of them. edges: one more than counts, rising.
    """

    counts: Sequence[int]
    edges: Sequence[float]

    def __post_init__(self) -> None:
        for name in ("counts", "edges"):  # plain numbers, also of arrays
            object.__setattr__(self, name, np.asarray(getattr(self, name)).tolist())
        if not 1 <= len(self.counts) <= 512 or len(self.edges) != len(self.counts) + 1:
            given = f"{len(self.counts)} counts and {len(self.edges)} edges"
            raise ValueError(f"histogram: {given}; 1 to 512 counts are needed, and one edge more")
        if not np.isfinite(self.edges).all():
            raise ValueError("histogram: an edge is not finite; leave out such values")
        if not np.isfinite(self.counts).all() or min(self.counts) < 0:
            raise ValueError("histogram: a count is not finite, or less than 0")

    @classmethod
    def of(cls, values: Any, bins: int = 64) -> Histogram:
        """Of the finite numbers in an array, a tensor or a list; all counts are 0 where there are none."""
        values = values.detach().float().cpu() if hasattr(values, "detach") else values
        numbers = np.asarray(values, dtype=np.float64).ravel()
        numbers = numbers[np.isfinite(numbers)]
        span = cls.span(numbers.min(), numbers.max()) if len(numbers) else None
        counts, edges = np.histogram(numbers, bins, span)
        return cls(counts.tolist(), edges.tolist())

    @staticmethod
    def span(low: float, high: float) -> tuple[float, float]:
        """From the least to the largest value, or somewhat further where no bins would fit between them."""
        least = 1e-9 * max(abs(low), abs(high))
        return (low, high) if high - low > least else (low - max(0.5, least), high + max(0.5, least))


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found: `metrics` by full name (`val/dice`), and the panels to look at."""

    metrics: dict[str, float]
    panels: list[Panel] = field(default_factory=list)


STOPPED = "stopped on the website"  # why a run ended, where that is so


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        state: `finished` (also when stopped early), `interrupted` by a signal or on the website, or `failed`.
        reason: in words, e.g. `all 30 epochs done`, `no better val/miou for 5 evaluations`.
        best: the best row: every metric at that one evaluation, with its `step` and `epoch`; empty without one.
        last: the last row.
        step, epoch: what was completed.
        seconds: wall time over all attempts.
        exit_code: what the program ends with (0, 128 + signal, ...).
    """

    state: RunState
    reason: str
    best: Row = field(default_factory=dict)
    last: Row = field(default_factory=dict)
    step: int = 0
    epoch: int = 0
    seconds: float = 0.0
    exit_code: int = 0
