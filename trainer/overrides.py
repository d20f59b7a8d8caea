"""What the words of a command line mean: composes them, or says for each that Hydra refuses what is wrong with it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainer import _hydra, _multirun, config, space
from trainer.errors import ConfigError, closest, did_you_mean
from trainer.plugins import STORED
from trainer.targets import SPECIAL, parameters, takes_any


class Job(NamedTuple):
    """One job of a sweep: its words, its config, and the file chosen in each config group."""

    words: list[str]
    cfg: DictConfig
    choices: dict[str, str]


def compose_or_explain(overrides: Sequence[str] = ()) -> DictConfig:
    """The config of a run.

    Raises:
        ConfigError: every override that Hydra refuses, and every other mistake in what is left.
    """
    return _with_choices(overrides)[0]


def _with_choices(overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
    try:
        return _hydra.compose_with_choices(overrides)
    except ConfigError as error:
        refused = error
    raise ConfigError(_explain(overrides, refused)[0] or [f"the overrides do not go together: {_first_line(refused)}"])


def check(overrides: Sequence[str] = ()) -> DictConfig:
    """As `compose_or_explain`, and without any of `config.problems`.

    Raises:
        ConfigError: every mistake.
    """
    return check_with_choices(overrides)[0]


def check_with_choices(overrides: Sequence[str] = ()) -> tuple[DictConfig, dict[str, str]]:
    """As `check`, and the file that is chosen in each config group."""
    cfg, chosen = _with_choices(overrides)
    found = config.problems(cfg)
    if found:
        raise ConfigError(found)
    return cfg, chosen


def compose_job(overrides: Sequence[str] = ()) -> Job:
    """One run as a job.

    Raises:
        ConfigError: every mistake.
    """
    return Job(list(overrides), *check_with_choices(overrides))


def check_sweep(overrides: Sequence[str]) -> list[Job]:
    """The jobs of a `-m` command line, without mistakes.

    Raises:
        ConfigError: every mistake of every job, each told once.
    """
    with _explained(overrides):
        jobs = space.expand(overrides)
    return check_jobs(jobs)


def sweep_settings(overrides: Sequence[str]) -> DictConfig:
    """The `hydra` node of a `-m` command line.

    Raises:
        ConfigError: as `check_sweep`, as far as it can be told before the jobs are known.
    """
    with _explained(overrides):
        return _multirun.settings(overrides)


@contextlib.contextmanager
def _explained(overrides: Sequence[str]) -> Iterator[None]:
    """What is wrong with a `-m` command line that Hydra refuses as a whole."""
    try:
        yield
    except ConfigError as error:
        unswept = [word for word in overrides if not _hydra.is_swept(word)]
        told = [_first_line(ConfigError(problem)) for problem in error.problems]
        raise ConfigError(_explain(unswept)[0] or told) from None


def check_jobs(jobs: Iterable[Sequence[str]]) -> list[Job]:
    """The configs of jobs, each given by its words.

    Raises:
        ConfigError: every mistake of every job, each told once.
    """
    made: list[Job] = []
    told: list[str] = []
    refused: list[str] = []  # a word is explained once, however many jobs it is in
    compose = _multirun.Composer()
    for job in jobs:
        words = [word for word in job if word not in refused]
        try:
            cfg, chosen = compose(words)
        except ConfigError as error:
            found, bad = _explain(words, error)
            refused += bad
        else:
            found = config.problems(cfg)
            made.append(Job(list(job), cfg, chosen))
        told += [problem for problem in found if problem not in told]
    if told:
        raise ConfigError(told)
    return made


def apply(path: Path, overrides: Sequence[str]) -> DictConfig:
    """The config of a file with some values changed: `epochs=20`, `optimizer.lr=0.1`.

    Raises:
        ConfigError: a word does not name a value of the config; all are told.
    """
    cfg, told = config.read(path), []
    for word in overrides:
        key, equals, _ = word.removeprefix("++").partition("=")
        if key == config.CHECK_ONLY:
            told.append(config.FOR_CHECK)
        elif not equals:
            told.append(_without_equals(word, ""))
        elif key in _hydra.groups():
            told.append(f"{key}: a run keeps the file that it was started with; change its values, or start a new run")
        elif OmegaConf.select(cfg, key, default=_ABSENT) is _ABSENT and config.SCALARS.get(key) != "flag":
            known = list(config.flat(config.plain(cfg)))
            told.append(f"{key}: is no value of {path}; {did_you_mean(key, known)}")
        else:
            try:
                OmegaConf.update(cfg, key, _hydra.parse(word).value())
            except (ConfigError, OmegaConfBaseException) as error:
                told.append(f"{key}: {_first_line(error)}")
    if told:
        raise ConfigError(told)
    return cfg


_ABSENT = object()


def _explain(overrides: Sequence[str], error: ConfigError | None = None) -> tuple[list[str], list[str]]:
    """Tries the words one after the other: every mistake, also of the config that is left, and the words refused.

    Args:
        error: what came of all words together, where that is known.
    """
    words, told, refused, kept = list(overrides), [], [], _Probe(overrides, error)
    if not kept.takes():
        return [_first_line(kept.error)], []
    while words:
        word = words.pop(0)
        if "=" not in word and not word.startswith("~"):
            value = words.pop(0) if words and word in config.SCALARS and "=" not in words[0] else ""
            told.append(_without_equals(word, value))
            refused += [word, value]
        elif not kept.takes(word):
            refused.append(word)
            told.append(_why(word, kept))
            if meant := _stand_in(word):
                kept.takes(meant)
    for group in kept.missing:
        known = _hydra.options(group)
        told.append(f"{group}: must be chosen; type {group}={known[0]} (known: {', '.join(known)})")
    if not kept.missing:
        told += config.problems(kept.cfg)
    return told, refused


class _Probe:
    """Words that compose; groups that must be chosen are filled in, so that every other mistake comes to light."""

    def __init__(self, tried: Sequence[str], found: ConfigError | None) -> None:
        self.tried, self.found = list(tried), found  # need not be composed again
        self.words: list[str] = []
        self.missing: list[str] = []
        self.cfg = OmegaConf.create()
        self.error = ConfigError([])

    def takes(self, *more: str) -> bool:
        """Adds words if all compose with those so far; else Hydra's message is in `error`."""
        fillers: list[str] = []
        while True:
            words = [*self.words, *more, *fillers]
            try:
                if self.found is not None and words == self.tried:
                    raise self.found
                self.cfg = _hydra.compose(words)
            except ConfigError as error:
                self.error = error
                group = re.match(r"You must specify '(\w+)'", str(error))
                if group is None or not _hydra.options(group[1]):
                    return False
                fillers.append(f"{group[1]}={_hydra.options(group[1])[0]}")
            else:
                self.words += more
                self.missing = [filler.split("=")[0] for filler in fillers]
                return True


def _without_equals(word: str, value: str) -> str:
    if word == config.CHECK_ONLY:
        return config.FOR_CHECK
    if word in _known() or value:
        return f"{word}: a value is given with =; type {word}={value or 'VALUE'}"
    near = closest(word, _known())
    return f"{word}: is not an override; write key=value" + (f"; did you mean {near}=VALUE?" if near else "")


def _known() -> list[str]:
    return [*_hydra.groups(), *config.SCALARS]


def _why(word: str, kept: _Probe) -> str:
    """Why Hydra refuses this word."""
    found = re.fullmatch(r"(~|\+\+|\+|)([\w@/.]+)(?:=(.*))?", word, re.DOTALL)
    if found is None:
        return f"{word}: does not read as key=value"
    sign, key, value = found.groups()
    key = key.split("@")[0]
    try:
        swept = _hydra.parse(word).is_sweep_override()
    except ConfigError:
        return (
            f"{key}: {value!r} does not parse: is a bracket or a quote open? Text is quoted twice: '{key}=\"{value}\"'"
        )
    if swept:
        return f"{key}: {value} are several values; add -m for a sweep, or write {key}=[{value}] for a list"
    if key == "warmup" and re.fullmatch(r"\d[\d.]*", str(value)):
        return f"warmup: {value} has no unit; type warmup={value}steps or warmup={value}epochs"
    if key == config.CHECK_ONLY:
        return config.FOR_CHECK
    if str(kept.error).startswith(f"{key}: "):
        return str(kept.error)
    if key in _hydra.groups():
        known = _hydra.options(key)
        if value in known:
            return f"{word}: {_first_line(kept.error)}"
        near = closest(str(value), known)
        hint = f"did you mean {near}? known" if near else "known"
        return f"{key}: there is no {value!r}; {hint}: {', '.join(known)}"
    if key.startswith("hydra.sweeper.") and "Could not override" in str(kept.error):
        parent = key.rpartition(".")[0]
        names = {name for node in STORED.get(parent.replace(".", "/"), {}).values() for name in node}
        known = [f"{parent}.{name}" for name in sorted(names - {*SPECIAL, "defaults"})]
        return f"{key}: what is chosen has no such key; {did_you_mean(key, known, most=20)}"
    if re.match(r"hydra\b", key):
        return f"{word}: {_first_line(kept.error)}"
    if sign == "+" and "already at" in str(kept.error):
        return f"{key}: is there already; type {key}={value} without +"
    return _unknown(word, key, value, kept)


def _stand_in(word: str) -> str | None:
    """The choice that was probably meant, so that what follows (`optimizer.momentum=0.5`) is read as it was meant."""
    group, _, value = word.partition("=")
    known = _hydra.options(group) if group in _hydra.groups() else []
    near = closest(value, known)
    return f"{group}={near}" if near and value not in known else None


def _unknown(word: str, key: str, value: str | None, kept: _Probe) -> str:
    """The message for a key that the config does not have."""
    head, *path = key.split(".")
    node: Any = config.unresolved(kept.cfg)
    if head not in node:
        owners = [name for name, group in node.items() if isinstance(group, dict) and not path and head in group]
        if owners:
            return (
                f"{key}: there is no such key; did you mean {' or '.join(f'{owner}.{head}' for owner in owners[:3])}?"
            )
        near = closest(head, [name for name in _known() if name not in config.SCALARS or not path])
        shown = ".".join([near, *path]) if near else None
        return f"{key}: there is no such key; " + (
            f"did you mean {shown}?" if shown else did_you_mean(head, _known(), most=40)
        )
    for n, part in enumerate([head, *path]):
        if not isinstance(node, dict):
            return f"{key}: {'.'.join([head, *path][:n])} is a value and has nothing below it"
        if part not in node:
            return _no_argument(key, [head, *path][:n], part, node, value)
        node = node[part]
    if isinstance(node, dict):  # a mapping is merged with the one that is there, and may not add to it
        return f"{key}: {value} adds to what is there; type ++{key}={value}"
    return f"{word}: {_first_line(kept.error)}"


def _no_argument(key: str, before: list[str], part: str, node: dict[str, Any], value: str | None) -> str:
    names = [name for name in node if name not in SPECIAL]
    where = ".".join(before)
    if "_target_" in node:
        try:
            taken = parameters(_hydra.locate(node["_target_"], where))
        except ConfigError as error:
            return error.problems[0]
        if key == "scheduler.total_steps" and part in taken:
            number = value if re.fullmatch(r"\d+", str(value)) else "10"
            return (
                f"{key}: is the length of the run unless told otherwise; leave it out, or type +{key}={number}epochs "
                f"or +{key}={number}steps"
            )
        if part in taken or takes_any(taken):
            return f"{key}: is not in the file of {where}; type +{key}={value} to add it"
        names = [name for name in taken if name not in config.OFFERED.get(where, ())]
        return f"{key}: {node['_target_']} takes no such argument; {did_you_mean(part, names)}"
    return f"{key}: there is no such key; {did_you_mean(part, names)}"


def _first_line(error: Exception) -> str:
    """Hydra's message in one line; for a file that is not there, with the one that was meant."""
    line = next(iter(str(error).splitlines()), type(error).__name__)
    absent = re.search(r"Could not find '([\w/]+)/([\w.-]+)'", line)
    return f"{line}; {did_you_mean(absent[2], _hydra.options(absent[1]))}" if absent else line
