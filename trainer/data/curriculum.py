"""Which training samples an epoch draws from: the easiest first, then more and more of them."""

from __future__ import annotations

import functools
import hashlib
import math
import re
from collections.abc import Sized
from typing import Any, cast

import torch
from torch.utils.data import Dataset, IterableDataset

from trainer.data.scores import SCORES, Score, auto
from trainer.durations import Duration, Length, count
from trainer.errors import ConfigError, closest
from trainer.state import ORDER, SAMPLE, Rng, mix, seed_generators
from trainer.targets import find


class Curriculum:
    """A competence-based curriculum (Platanios et al. 2019): epoch e (from 0) draws from the easiest share c(e) of the
    training samples, c(e) = min(1, (e (1 - start^p) / length + start^p)^(1/p)).

    An epoch has as many samples as ever: it goes through the easy part again and again, through all of it before a
    sample comes twice. Of samples with the same score none is the easier: they are ranked at random, always the same.

    Args:
        start: the share in the first epoch, such as `20%`; `100%` is no curriculum.
        length: until all samples are drawn from, such as `50%` (of the run) or `10epochs`.
        p: how the share grows; 1 in a straight line, 2 as a square root, fast at first.
        score: how hard a sample is, the larger the harder: `boundary`, `contrast`, `length`, or a function of what
            `dataset[i]` gives, or its path. With `auto` the dataset's own `difficulties` (a sequence) or
            `difficulty(index)`, else `boundary` for masks and `contrast` for pictures.
        strict: each pass goes from easy to hard; otherwise it is shuffled.

    Raises:
        ConfigError: a value is out of range, has no unit, or the function is not there.
    """

    def __init__(
        self,
        start: Length = "20%",
        length: Length = "50%",
        p: float = 2,
        score: str | Score = "auto",
        strict: bool = False,
    ) -> None:
        self.start, self.length = _share(start), Duration.parse(length, "length")
        if self.length.unit in ("seconds", "never"):
            why = "it never ends" if self.length.unit == "never" else "the order of the data cannot follow a clock"
            raise ConfigError(f"length: {self.length}: {why}; use epochs, steps or % (and curriculum=none for off)")
        if not 0 < p < math.inf:
            raise ConfigError(f"p: {p} must be more than 0 (1: a straight line, 2: a square root)")
        self.p, self.score, self.strict = p, _function(score), strict

    def over(self, dataset: Dataset[Any], epochs: int, steps_per_epoch: int) -> Order | None:
        """The order that it gives a training set in a run of that length; None where it changes nothing.

        Raises:
            ConfigError: the samples cannot be asked for one by one.
        """
        if self.start == 1:
            return None
        if isinstance(dataset, IterableDataset):
            raise ConfigError(
                "curriculum: the training set is an IterableDataset, which comes in its own order; type curriculum=none"
            )
        steps = self.length.steps(steps_per_epoch, epochs * steps_per_epoch)
        return Order(self, dataset, epochs, steps / steps_per_epoch)


class Order:
    """A curriculum for a training set.

    Args:
        curriculum: its values. dataset: the training samples. epochs: of the run.
        until: the epochs after which all samples are drawn from.
    """

    def __init__(self, curriculum: Curriculum, dataset: Dataset[Any], epochs: int, until: float) -> None:
        self.curriculum, self.dataset, self.epochs, self.until = curriculum, dataset, epochs, until
        self.samples = len(cast(Sized, dataset))

    def share(self, epoch: int) -> float:
        """The share of the samples that an epoch draws from, more than 0 and at most 1."""
        start, p = self.curriculum.start, self.curriculum.p
        return min(1.0, (epoch / self.until * (1 - start**p) + start**p) ** (1 / p)) if epoch < self.until else 1.0

    def size(self, epoch: int) -> int:
        """The number of samples that an epoch draws from, at least one."""
        return max(1, round(self.share(epoch) * self.samples))

    def indices(self, seed: int, epoch: int) -> torch.Tensor:
        """The samples of an epoch; once it draws from all of them, these are in the order of a run without it."""
        size = self.size(epoch)
        passes = -(-self.samples // size)
        if self.curriculum.strict:
            return self.ranked[:size].repeat(passes)[: self.samples]
        easy = self.ranked[:size].sort().values
        generator = torch.Generator().manual_seed(mix(seed, ORDER, epoch))
        drawn = [easy[torch.randperm(size, generator=generator)] for _ in range(passes)]
        return torch.cat(drawn)[: self.samples]

    def draw(self, epoch: int, first: int) -> int:
        """What the randomness inside a batch is seeded by, beside the seed: the epoch, and after its first pass the
        pass too, so that a sample that comes again is augmented in another way. `first`: the batch's first place."""
        done = first // self.size(epoch)
        return mix(epoch, done) if done else epoch

    @functools.cached_property
    def ranked(self) -> torch.Tensor:
        """The indices of the samples from easy to hard.

        Raises:
            ConfigError: a score is no number, or all are the same.
        """
        drawn = Rng().state_dict()  # a score that draws, or a dataset that does, changes nothing else
        try:
            scores = torch.tensor([self._score(index) for index in range(self.samples)], dtype=torch.float64)
        finally:
            Rng().load_state_dict(drawn)
        if self.samples > 1 and bool((scores == scores[0]).all()):
            raise ConfigError(
                f"curriculum.score: each of the {self.samples} training samples has the score {scores[0]:g}, so that "
                "none is easier than another; choose another curriculum.score"
            )
        mixed = torch.randperm(self.samples, generator=torch.Generator().manual_seed(mix(ORDER, self.samples)))
        return mixed[torch.argsort(scores[mixed], stable=True)]

    def _score(self, index: int) -> float:
        seed_generators(mix(SAMPLE, index))  # the same whatever the seed of the run
        dataset: Any = self.dataset
        given, own = self.curriculum.score, getattr(dataset, "difficulties", None)
        if given is None and own is not None and len(own) != self.samples:
            raise ConfigError(f"curriculum: the dataset has {self.samples} samples and {len(own)} difficulties")
        try:
            if given is None and own is not None:
                value = own[index]
            elif given is None and hasattr(dataset, "difficulty"):
                value = dataset.difficulty(index)
            else:
                value = (given or auto)(dataset[index])
            if not math.isfinite(value):
                raise ValueError(f"{value!r} is not a finite number")
        except ConfigError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
            names = getattr(dataset, "names", None)
            name = f" ({names[index]})" if names else ""
            raise ConfigError(f"curriculum.score: of training sample {index}{name}: {error}") from error
        return float(value)

    @property
    def words(self) -> str:
        """What the plan of a run says: `from the easiest 20 % to all samples over 12 epochs`."""
        over = next((e for e in range(self.epochs) if self.size(e) == self.samples), self.epochs)
        last = min(over, self.epochs - 1)
        end = "all samples" if self.size(last) == self.samples else f"the easiest {self.share(last) * 100:.3g} %"
        return f"from the easiest {self.share(0) * 100:.3g} % to {end} over {count(over, 'epoch')}"

    @property
    def identity(self) -> str:
        """What decides the order: equal for two runs whose epochs are the same."""
        c, digest = self.curriculum, hashlib.sha256(self.ranked.numpy().tobytes()).hexdigest()[:8]
        strict = ", strict" if c.strict else ""
        return f"from {c.start * 100:g} %, {self.until:g} epochs, p={c.p:g}{strict}, ranking {digest}"


def _function(score: str | Score) -> Score | None:
    """The function that is meant; None for `auto`."""
    if callable(score):
        return score
    if score == "auto" or score in SCORES:
        return SCORES.get(score)
    if "." in str(score):
        return find(score, "score")
    near = closest(str(score), ["auto", *SCORES])
    hint = f"did you mean {near}?" if near else "or the path of a function, like my_module.my_score"
    raise ConfigError(f"score: {score!r} is not one of {', '.join(['auto', *SCORES])}; {hint}")


def _share(text: Length) -> float:
    word = str(text).strip()
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", word)
    if found is None or not found[2]:
        percent = float(word) * (100 if float(word) <= 1 else 1) if found else 20
        wrong = "has no unit" if found else "is not a share"
        raise ConfigError(f"start: {word} {wrong}; write start={percent:g}%")
    if not 0 < float(found[1]) <= 100:
        raise ConfigError(f"start: {word} must be more than 0% and at most 100%")
    return float(found[1]) / 100
