"""The range test: the loss while the learning rate rises from too small to too large, and what that suggests."""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from trainer.accounts import told_in_words
from trainer.durations import count
from trainer.errors import ConfigError, DivergedError
from trainer.history import History
from trainer.rehearsal import rehearse
from trainer.schedules import Schedule
from trainer.schedules.base import shaped
from trainer.state import restore, snapshot

if TYPE_CHECKING:
    from trainer.data.loader import Batch
    from trainer.loop import Trainer

STEPS, LOWEST, HIGHEST = 100, 1e-7, 10.0
LEAST = 30
"""Updates that a curve must have to tell anything."""
WINDOW = 0.05
"""The share of the updates that the running mean of the losses is about: half a decade of the rate; at least 4."""


@dataclass(frozen=True)
class LrRange:
    """What a range test found.

    Attributes:
        lrs: the learning rate of each update; where parameter groups differ, that of the first, and all rise alike.
        losses: the loss of each update. smoothed: their running mean, which the suggestions are read from.
        ended: why the test was over before its last rate; empty if it was not.
        suggestions: the rates by how they were found, the recommended one first; empty where the curve tells nothing.
        why_not: why there is none; empty if there is one.
    """

    lrs: list[float]
    losses: list[float]
    smoothed: list[float]
    ended: str = ""
    suggestions: dict[str, float] = field(default_factory=dict)
    why_not: str = ""

    @property
    def suggestion(self) -> float | None:
        """The learning rate to begin with, to two digits; None where the curve tells nothing."""
        return next((float(f"{lr:.2g}") for lr in self.suggestions.values()), None)


def lr_range(trainer: Trainer, steps: int = STEPS, lowest: float = LOWEST, highest: float = HIGHEST) -> LrRange:
    """Trains while the learning rate rises exponentially (Smith 2017, arXiv:1506.01186), and undoes it all.

    The rates of all parameter groups rise by the same factor; the run's own schedule does not act. It is over when
    the smoothed loss is more than 4 times its lowest, and above all losses of the first fifth, or is not finite. The
    same trainer gives the same result.

    Args:
        trainer: as it is before `fit`, and afterwards again. Trackers and hooks hear nothing of it.
        steps: optimizer updates. lowest, highest: the first and the last rate (of the first parameter group).

    Raises:
        ConfigError: too few steps, no sensible range, or model, task and data do not fit each other.
    """
    _enough(steps)
    if not 0 < lowest < highest:
        raise ConfigError(f"lr_find: a rate cannot rise from {lowest:g} to {highest:g}")
    rehearse(trainer)
    lrs: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    mean, memory, ended = 0.0, 1 - 1 / max(WINDOW * steps, 4), ""
    with _undone(trainer):
        trainer.schedule = rising(trainer, steps, lowest, highest)
        trainer.model.train()
        for group in itertools.islice(_groups(trainer), steps):
            lr = trainer.schedule.lrs[0]
            loss = _update(trainer, group)
            if loss is None:
                continue
            if trainer.world.any(not math.isfinite(loss)):
                ended = f"the loss or its gradient was not finite at {lr:.2g}"
                break
            mean = memory * mean + (1 - memory) * loss
            lrs.append(lr)
            losses.append(loss)
            smoothed.append(mean / (1 - memory ** len(losses)))
            if trainer.world.any(smoothed[-1] > max(4 * min(smoothed), *losses[: _quiet(steps)])):
                ended = f"the loss was more than 4 times its lowest at {lr:.2g}"
                break
    return _judged(LrRange(lrs, losses, smoothed, ended))


def rising(trainer: Trainer, steps: int, lowest: float, highest: float) -> Schedule:
    """The schedule of a range test; the other parameter groups keep their proportion to the first.

    Raises:
        ConfigError: the first group's own rate is 0, so that there is nothing to multiply.
    """
    optimizer = trainer.update.optimizer
    first = float(optimizer.param_groups[0].get("initial_lr", optimizer.param_groups[0]["lr"]))
    if not first > 0:
        raise ConfigError(f"optimizer.lr: {first:g} cannot be made larger by a factor; give any rate above 0")

    def factor(done: int) -> float:
        share: float = min(done, steps - 1) / (steps - 1)
        return lowest / first * math.exp(share * math.log(highest / lowest))

    return shaped(optimizer, lambda lr: factor)


def taken_out(words: Sequence[str]) -> tuple[list[str], int, list[str]]:
    """The words but `lr_find=...`, the updates that it asks for (0: no test), and what is wrong with it."""
    found = [word for word in words if re.match(r"[+~]*lr_find(=|$)", word)]
    rest, steps, told = [word for word in words if word not in found], 0, list[str]()
    for word in found:
        try:
            steps = _steps_of(word.partition("=")[2].lower())
        except ConfigError as error:
            told += error.problems
    return rest, steps, told


def _steps_of(value: str) -> int:
    if value in ("true", "false"):
        return STEPS if value == "true" else 0
    steps = re.fullmatch(r"(\d+)\s*steps?", value)
    if steps is None:
        raise ConfigError(f"lr_find: {value!r} is neither true nor a number of updates; type lr_find=true or 200steps")
    return _enough(int(steps[1]))


def _enough(steps: int) -> int:
    if steps < LEAST:
        raise ConfigError(f"lr_find: {steps} steps are too few to tell anything; type lr_find={LEAST}steps or more")
    return steps


# ------------------------------------------------------------------------------------------------------ the training


@contextmanager
def _undone(trainer: Trainer) -> Iterator[None]:
    """Puts back all that an update changes, of the trainer and of the generators."""
    observers = {**trainer.trackers.parts(), **trainer.hooks.parts()}
    parts = {name: part for name, part in trainer.parts.items() if name not in observers}
    before, schedule, history = snapshot(parts), trainer.schedule, trainer.history
    trainer.history = History()
    try:
        with told_in_words(trainer):
            yield
    finally:
        trainer.loader.close()
        trainer.update.clear()
        trainer.schedule, trainer.history = schedule, history
        restore(parts, before)


def _groups(trainer: Trainer) -> Iterator[Sequence[Batch]]:
    """The groups of micro-batches of one epoch after the other, from its start."""
    for epoch in itertools.count():
        yield from trainer.loader.groups(epoch)


def _update(trainer: Trainer, group: Sequence[Batch]) -> float | None:
    """One update as a run makes it; its loss, NaN where it diverged, None where the gradient scaler left it out."""
    trainer.watch.buffers.keep()  # put back where the update is left out
    try:
        trainer.train_group(group)
    except DivergedError:
        return math.nan
    trainer.history.row(trainer.progress, 0.0, {})
    loss = trainer.history.take()[0].get("train/loss")
    return loss if loss is not None or trainer.update.scaled else math.nan


# ------------------------------------------------------------------------------------------------------ the judgement


def _quiet(updates: int) -> int:
    """The first fifth, at rates too small to change anything: it shows how much the loss varies by itself."""
    return max(updates // 5, 10)


def _judged(found: LrRange) -> LrRange:
    """Adds what the curve suggests, or why it suggests nothing."""
    quiet = _quiet(len(found.losses))
    lrs, curve = found.lrs[quiet:-5], found.smoothed[quiet:-5]
    if len(found.losses) < 2 * quiet:
        return replace(found, why_not=f"it ended after {count(len(found.losses), 'update')}, too few to tell anything")
    start, spread = statistics.fmean(found.losses[:quiet]), statistics.pstdev(found.losses[:quiet])
    if min(curve) > start - max(spread, 0.01 * abs(start)):
        low = f"{min(curve):.4g} after {start:.4g}"
        return replace(found, why_not=f"at no rate did the loss fall by more than it varies by itself ({low})")
    # The lowest point itself tells little where the curve has a flat bottom: on easy data until it diverges.
    bottom = next(n for n, loss in enumerate(curve) if loss <= min(curve) + 0.05 * (start - min(curve)))
    suggestions = {
        "a tenth of where the loss stops falling": lrs[bottom] / 10,
        "where it falls fastest": lrs[_steepest(curve[: bottom + 2])],
        "the middle of its longest fall": lrs[_valley(curve)],
    }
    return replace(found, suggestions=suggestions)


def _valley(curve: Sequence[float]) -> int:
    """The middle of the longest fall: of the longest falling subsequence (fastai's `valley`)."""
    lengths = [1] * len(curve)
    for i, j in itertools.combinations(range(len(curve)), 2):  # i before j
        if curve[j] < curve[i]:
            lengths[j] = max(lengths[j], lengths[i] + 1)
    end = lengths.index(max(lengths))
    return max(0, end - max(lengths) // 2)


def _steepest(curve: Sequence[float]) -> int:
    """Where the curve falls fastest (Smith's choice); the rates are even steps of their logarithm."""
    slopes = [after - before for before, after in itertools.pairwise(curve)]
    return slopes.index(min(slopes))
