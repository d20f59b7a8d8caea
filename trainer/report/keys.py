"""Which keys a table of runs shows: of those that differ, the ones that somebody chose, by their shortest names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer.report.entries import SEED, Entry, told, varying

TARGET = "._target_"
FIRST = ("optimizer.lr",)  # shown even where it follows from the optimizer: nobody compares optimizers without it


@dataclass(frozen=True)
class Keys:
    """The columns of a table that name a setting.

    Attributes:
        shown: dotted keys, the files that were chosen first. names: how the head of a table calls each.
        follows: keys left out as they follow from a chosen file, by that file's group.
        same: keys left out as they say what a shown one says, with that one.
        told: all that differ but the seed, and what is as the seed is: runs are one setting where they agree in these.
    """

    shown: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    follows: dict[str, list[str]] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)


def keys_of(entries: Sequence[Entry], every: bool = False) -> Keys:
    """The keys in which the runs differ but for the seed; with `every` none is left out."""
    known = [entry.config for entry in entries if entry.config]
    differing = [key for key in varying(entries) if key != SEED and not _as_seed(known, key)]
    place = {key: n for n, key in enumerate(dict.fromkeys(key for values in known for key in values))}
    found = Keys(told=differing)
    for key in sorted(differing, key=lambda key: (not key.endswith(TARGET), key not in FIRST, place[key])):
        column = _column(known, key)
        if len(set(column)) < 2 and not every:  # an empty mapping beside none at all: what was in it tells
            continue
        if not every and (group := _chosen_by(known, key, found.shown)):
            found.follows.setdefault(group, []).append(key)
        elif not every and (other := _same_as(known, key, found.shown)):
            found.same[key] = other
        else:
            found.shown.append(key)
    found.names.update(_shortest([key.removesuffix(TARGET) for key in found.shown], found.shown))
    return found


def _column(known: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """The values of a key as text; `None` where a run has none, or an empty mapping."""
    return [told(None if values.get(key) == {} else values.get(key)) for values in known]


def _as_seed(known: Sequence[Mapping[str, Any]], key: str) -> bool:
    """Whether a key is the seed by another name, such as `data.split_seed: ${seed}`."""
    return _column(known, key) == _column(known, SEED) and len(set(_column(known, SEED))) > 1


def _chosen_by(known: Sequence[Mapping[str, Any]], key: str, shown: Sequence[str]) -> str:
    """The group whose chosen target alone decides the value, such as the optimizer's own betas; empty if none does."""
    if key in FIRST:
        return ""
    for target in shown:
        group = target.removesuffix(TARGET)
        if target.endswith(TARGET) and key.startswith(f"{group}.") and _decides(known, target, _column(known, key)):
            return group
    return ""


def _decides(known: Sequence[Mapping[str, Any]], target: str, column: Sequence[Any]) -> bool:
    pairs = set(zip(_column(known, target), column, strict=True))
    return len(pairs) == len({chosen for chosen, _ in pairs})


def _same_as(known: Sequence[Mapping[str, Any]], key: str, shown: Sequence[str]) -> str:
    """A shown key that has the same value wherever this one has any, as an interpolation has; empty if none has."""
    mine = _column(known, key)
    given = [value != "None" for value in mine]
    targets = [target for target in shown if target.endswith(TARGET) and key.startswith(target.removesuffix(TARGET))]
    if not all(given) and not any(_decides(known, target, given) for target in targets):
        return ""
    for other in shown:
        if all(a in ("None", b) for a, b in zip(mine, _column(known, other), strict=True)):
            return other
    return ""


def _shortest(paths: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    """For each key the shortest end of its dotted path that no other path has."""
    taken = _ends(paths)
    names = {}
    for key, path in zip(keys, paths, strict=True):
        parts = path.split(".")
        ends = [".".join(parts[n:]) for n in range(len(parts) - 1, -1, -1)]
        names[key] = next((end for end in ends if taken.count(end) == 1 and end not in RESERVED), path)
    return names


RESERVED = ("run", "state", "n", "last", "epoch", "step", "time", "seed", "why")


def _ends(paths: Iterable[str]) -> list[str]:
    return [".".join(path.split(".")[n:]) for path in paths for n in range(path.count(".") + 1)]


def class_names(values: Iterable[Any]) -> dict[str, str]:
    """For each `_target_` what a table calls it: the name of its class, with as much before it as makes it unique."""
    paths = [str(value) for value in dict.fromkeys(values) if value]
    return _shortest(paths, paths)
