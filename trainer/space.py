"""What a `-m` command line searches: lists and intervals, those that go together, those that depend on another."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trainer import _hydra, _multirun
from trainer.errors import ConfigError, did_you_mean
from trainer.plugins import SWEEPERS

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

ZIP, ONLY = "hydra.sweeper.zip", "hydra.sweeper.only"


@dataclass(frozen=True)
class Choices:
    """A list of values, of one key or of several that go together: each entry has one for each key.

    Attributes:
        step: between two entries of a `range`, else 0.
    """

    keys: tuple[str, ...]
    entries: tuple[tuple[str, ...], ...]
    step: float = 0


@dataclass(frozen=True)
class Interval:
    """All numbers from `low` to `high`, evenly or over their logarithm, or the whole ones among them."""

    keys: tuple[str]
    low: float
    high: float
    log: bool
    whole: bool

    def entry(self, value: float) -> tuple[str]:
        """A value as it is typed: six digits are more than any training can tell apart."""
        value = min(max(value, self.low), self.high)
        return (str(round(value)) if self.whole else repr(float(f"{value:.6g}")),)


Dimension = Choices | Interval
Pick = Callable[[Dimension], tuple[str, ...]]


class Space:
    """The words of a `-m` command line, with a dimension for each list and interval in them.

    Args:
        words: `hydra.sweeper.params` and what is typed; the last of a key counts.
        zipped: keys whose lists go together. only: of a key, which values others must have for it to be set.

    Raises:
        ConfigError: a list or a key does not fit; all are told.
    """

    def __init__(self, words: Sequence[str], zipped: Any = (), only: Any = None, seed: int = 0) -> None:
        parsed = {_name(word): word for word in _multirun.parsed(words) if not word.is_hydra_override()}
        self.spelt = {name: word.get_key_element() for name, word in parsed.items()}
        self.fixed = {name: _fixed(word) for name, word in parsed.items() if not word.is_sweep_override()}
        swept = {name: _dimension(name, word, seed) for name, word in parsed.items() if word.is_sweep_override()}
        told: list[str] = []
        for keys in _groups(zipped, told):
            told += _tie(swept, keys)
        self.only = _conditions(only, told)
        found = list(dict.fromkeys(swept.values()))
        told += self._misfits(found)
        if told:
            raise ConfigError(told)
        self.dimensions = self._ordered(found)

    def words(self, pick: Pick) -> list[str]:
        """The words of a job, for which `pick` is asked for each dimension that is needed; what it depends on first."""
        values = dict(self.fixed)
        for dimension in self.dimensions:
            if any(self._holds(name, values) for name in dimension.keys):
                values |= zip(dimension.keys, pick(dimension), strict=True)
        held = [name for name in self.spelt if name in values and self._holds(name, values)]
        return [values[name] if name.startswith("~") else f"{self.spelt[name]}={values[name]}" for name in held]

    def _holds(self, name: str, values: Mapping[str, str]) -> bool:
        conditions = self.only.get(name, {})
        return all(values.get(key) in allowed and self._holds(key, values) for key, allowed in conditions.items())

    def _misfits(self, found: Sequence[Dimension]) -> Iterator[str]:
        """What is wrong with `only`."""
        for name, conditions in self.only.items():
            for key in (name, *conditions):
                if key not in self.spelt:
                    yield f"{ONLY}: {key} is not set here; {did_you_mean(key, list(self.spelt))}"
            for key, allowed in conditions.items():
                lists = [d for d in found if isinstance(d, Choices) and key in d.keys]
                taken = {entry[d.keys.index(key)] for d in lists for entry in d.entries} or {self.fixed.get(key, "")}
                if key in self.spelt and not taken.issuperset(allowed):
                    known = ", ".join(sorted(map(str, taken)))
                    yield f"{ONLY}: {key} is never {' or '.join(sorted({*allowed} - taken))}; it is {known}"
            reached, new = set[str](), set(conditions)
            while new := {key for other in new for key in self.only.get(other, ())} - reached:
                reached |= new
            if name in reached:
                yield f"{ONLY}: {name} depends on itself"

    def _ordered(self, left: list[Dimension]) -> list[Dimension]:
        """As typed, but what another depends on comes before it."""
        ordered: list[Dimension] = []
        while left:
            ahead = {name: dimension for dimension in left for name in dimension.keys}
            free = [d for d in left if all(ahead.get(k, d) is d for key in d.keys for k in self.only.get(key, ()))]
            if not free:
                raise ConfigError(f"{ONLY}: {' and '.join(left[0].keys)} depends on itself")
            ordered.append(free[0])
            left.remove(free[0])
        return ordered

    # ----------------------------------------------------------------------------------------------- jobs of a space

    def every(self) -> list[list[str]]:
        """The words of all jobs; the last list changes first."""
        for dimension in self.dimensions:
            if isinstance(dimension, Interval):
                raise ConfigError(
                    f"{dimension.keys[0]}: an interval has no end of values; type a list or range(START,STOP,STEP), "
                    "or add hydra/sweeper=random or hydra/sweeper=optuna"
                )
        entries = [dimension.entries for dimension in self.dimensions if isinstance(dimension, Choices)]
        jobs = (self._job(dict(zip(self.dimensions, picked, strict=True))) for picked in itertools.product(*entries))
        return [list(job) for job in dict.fromkeys(map(tuple, jobs))]

    def corners(self) -> list[list[str]]:
        """Jobs in which each choice, and each end of an interval, is met at least once."""
        first = {dimension: _ends(dimension)[0] for dimension in self.dimensions}
        deciding = {name for conditions in self.only.values() for name in conditions}
        bases = [first]
        for dimension in self.dimensions:
            if deciding & set(dimension.keys):  # what others depend on: they are tried beside each value of it
                bases += [{**first, dimension: entry} for entry in _ends(dimension)[1:]]
        jobs = [{**base, d: entry} for base in bases for d in self.dimensions if d not in base or base[d] == first[d]
                for entry in _ends(d)]  # fmt: skip
        return [list(job) for job in dict.fromkeys(tuple(self._job(job)) for job in (*bases, *jobs))]

    def drawn(self, n: int, seed: int) -> list[list[str]]:
        """The words of n jobs drawn at random, all different: fewer where the lists hold no more.

        A draw depends on the seed, its number and the key: with a larger n the first ones are the same.
        """
        found: dict[tuple[str, ...], None] = {}
        for number in range(50 * n):
            if len(found) == n:
                break
            found[tuple(self.words(functools.partial(_draw, seed, number)))] = None
        return [list(words) for words in found]

    def _job(self, picked: Mapping[Dimension, tuple[str, ...]]) -> list[str]:
        return self.words(lambda dimension: picked[dimension])


# ----------------------------------------------------------------------------------------------- reading the words


def _name(word: Override) -> str:
    key = word.get_key_element()
    return key if word.is_delete() else key.lstrip("+")


def _fixed(word: Override) -> str:
    """The value as text; of what is taken out the whole word."""
    return str(word.input_line) if word.is_delete() else word.get_value_element_as_str()


def _dimension(name: str, word: Override, seed: int) -> Dimension:
    value: Any = word.value()
    if word.is_interval_sweep():
        ends = value.start, value.end
        whole = all(isinstance(end, int) for end in ends) or "int" in value.tags
        low, high = map(float, ends)
        log = "log" in value.tags
        if not low < high or (log and low <= 0):
            above = " and begins above 0" if log else ""
            raise ConfigError(f"{name}: interval({ends[0]:g},{ends[1]:g}) needs a larger second number{above}")
        return Interval((name,), low, high, log, whole)
    shuffled, step = getattr(value, "shuffle", False), float(value.step) if word.is_range_sweep() else 0
    if shuffled:
        value.shuffle = False  # Hydra would shuffle anew each time
    entries = [(text,) for text in word.sweep_string_iterator()]
    if shuffled:
        random.Random(f"{seed} {name}").shuffle(entries)
    if not entries:
        raise ConfigError(f"{name}: {word.get_value_string()} holds no value")
    return Choices((name,), tuple(dict.fromkeys(entries)), 0 if shuffled else step)


def _groups(zipped: Any, told: list[str]) -> list[list[str]]:
    """Lists of keys, also where a single one is typed without the outer brackets."""
    groups = [zipped] if zipped and all(isinstance(key, str) for key in zipped) else list(zipped or ())
    if isinstance(zipped, str) or any(not isinstance(group, list) or len(group) < 2 for group in groups):
        told.append(f"{ZIP}: {zipped!r} is no list of two keys or more; type {ZIP}=[optimizer,optimizer.lr]")
        return []
    return [[str(key) for key in group] for group in groups]


def _tie(swept: dict[str, Dimension], keys: Sequence[str]) -> list[str]:
    """Makes the lists of several keys one dimension; returns what is wrong with them."""
    if absent := [key for key in keys if key not in swept]:
        return [f"{ZIP}: {key} has no list here; {did_you_mean(key, list(swept))}" for key in absent]
    lists = [swept[key] for key in keys]
    for key, found in zip(keys, lists, strict=True):
        if isinstance(found, Interval):
            return [f"{ZIP}: {key} is an interval, and only lists go together"]
        if len(found.keys) > 1:
            return [f"{ZIP}: {key} is named twice"]
    entries = [[entry[0] for entry in found.entries] for found in lists if isinstance(found, Choices)]
    if len({len(values) for values in entries}) > 1:
        counts = ", ".join(f"{key} has {len(values)}" for key, values in zip(keys, entries, strict=True))
        return [f"{ZIP}: lists that go together have as many values each; {counts}"]
    tied = Choices(tuple(keys), tuple(zip(*entries, strict=True)))
    swept.update(dict.fromkeys(keys, tied))
    return []


def _conditions(only: Any, told: list[str]) -> dict[str, dict[str, tuple[str, ...]]]:
    nodes = only or {}
    if not isinstance(nodes, dict) or not all(isinstance(node, dict) for node in nodes.values()):
        told.append(f"{ONLY}: {only!r} does not read as KEY:{{OTHER:VALUE}}; "
                    f"type '{ONLY}={{optimizer.momentum:{{optimizer:sgd}}}}'")  # fmt: skip
        return {}
    return {
        str(name): {str(key): tuple(map(_text, v if isinstance(v, list) else [v])) for key, v in node.items()}
        for name, node in nodes.items()
    }


def _text(value: Any) -> str:
    return "null" if value is None else str(value)


def _ends(dimension: Dimension) -> tuple[tuple[str, ...], ...]:
    if isinstance(dimension, Interval):
        return dimension.entry(dimension.low), dimension.entry(dimension.high)
    return dimension.entries


def _draw(seed: int, number: int, dimension: Dimension) -> tuple[str, ...]:
    generator = random.Random(f"{seed} {number} {','.join(dimension.keys)}")
    if isinstance(dimension, Choices):
        return generator.choice(dimension.entries)
    low, high = dimension.low, dimension.high
    if dimension.whole and not dimension.log:
        return dimension.entry(generator.randint(round(low), round(high)))
    share = generator.random()
    return dimension.entry(low * (high / low) ** share if dimension.log else low + (high - low) * share)


# --------------------------------------------------------------------------------------------------------- sweepers


@dataclass
class Grid:
    """Every combination of the lists.

    Args:
        params: what is swept, by key, as it would be typed. zip: keys whose lists go together.
        only: `{KEY: {OTHER: VALUE}}`: the key is set where the other has that value, or one of a list of values.
    """

    params: dict[str, Any] = field(default_factory=dict)
    zip: list[Any] = field(default_factory=list)
    only: dict[str, Any] | None = None

    def space(self, overrides: Sequence[str]) -> Space:
        words = [f"{key}={_text(value)}" for key, value in (self.params or {}).items()]
        return Space([*words, *overrides], self.zip, self.only, getattr(self, "seed", 0))

    def jobs(self, space: Space) -> list[list[str]]:
        """The words of the jobs that are to be checked before anything is trained: all, where they are known."""
        return space.every()


@dataclass
class Random(Grid):
    """Some combinations, drawn at random from lists and intervals.

    Args:
        n_trials: how many. seed: another one draws others.
    """

    n_trials: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("n_trials", self.n_trials)
        check_count("seed", self.seed, least=0)

    def jobs(self, space: Space) -> list[list[str]]:
        return space.drawn(self.n_trials, self.seed)


def check_count(name: str, value: object, least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name}: {value!r} must be a whole number of at least {least}")


def sweeper_of(node: DictConfig) -> Grid:
    """What the `hydra` node of a command line says chooses the jobs.

    Raises:
        ConfigError: it is none of ours, or has a wrong setting.
    """
    target = str(node.sweeper._target_)
    if not target.startswith("trainer."):
        known = ", ".join(SWEEPERS)
        raise ConfigError(f"hydra/sweeper: {target} is not driven by this program, which resumes sweeps; use {known}")
    made = _hydra.instantiate(node.sweeper, "hydra.sweeper")
    assert isinstance(made, Grid)
    return made


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job of a `-m` command line; of a search, of jobs that stand for all that it may choose.

    Raises:
        ConfigError: an override does not fit.
    """
    sweeper = sweeper_of(_multirun.settings(overrides))
    return sweeper.jobs(sweeper.space(overrides))
