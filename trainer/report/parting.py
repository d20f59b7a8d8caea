"""Where two runs part: the first step at which their histories, receipts, checkpoints or pictures are not the same."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainer.errors import CheckpointError
from trainer.folder import MANIFEST, WEIGHTS, RunFolder
from trainer.report.entries import Entry

Lines = dict[int, dict[str, Any]]  # by step


@dataclass(frozen=True)
class Parting:
    """Two records of runs, compared at the steps that both have.

    Attributes:
        steps: those, in order. step: the first at which they differ; None if they do not.
        values: what differs there, by key: the value of each.
        ends: the last step of each; -1 for a record without any.
    """

    steps: list[int] = field(default_factory=list)
    step: int | None = None
    values: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    ends: tuple[int, int] = (-1, -1)


def _parting(a: Lines, b: Lines, differing: Callable[[int], dict[str, tuple[Any, Any]]]) -> Parting:
    steps, ends = sorted(a.keys() & b.keys()), (max(a, default=-1), max(b, default=-1))
    for step in steps:
        if values := differing(step):
            return Parting(steps, step, values, ends)
    return Parting(steps, ends=ends)


def _unequal(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Of the keys that both have; as text, by which NaN equals itself and 0.0 is not -0.0."""
    return {key: (a[key], b[key]) for key in a if key in b and repr(a[key]) != repr(b[key])}


def history(a: Entry, b: Entry) -> tuple[Parting, tuple[list[str], list[str]]]:
    """Of metrics.jsonl without its times, and the keys that one history alone has.

    What is a mean over the steps since the row before (`train/...`) is compared where that row is of the same step.
    """
    one, other = ({row["step"]: row for row in entry.rows() if "step" in row} for entry in (a, b))
    before = [dict(zip(list(rows)[1:], rows, strict=False)) for rows in (one, other)]  # the step of the row before

    def differing(step: int) -> dict[str, tuple[Any, Any]]:
        found = _unequal(one[step], other[step])
        same_window = before[0].get(step) == before[1].get(step)
        return {k: v for k, v in found.items() if k != "time" and (same_window or not k.startswith("train/"))}

    keys = [dict.fromkeys(key for row in rows.values() for key in row) for rows in (one, other)]
    alone = [key for key in keys[0] if key not in keys[1]], [key for key in keys[1] if key not in keys[0]]
    return _parting(one, other, differing), alone


def receipts(a: RunFolder, b: RunFolder) -> Parting:
    """Of receipt.jsonl. A value that one of them does not know (null) is left out."""
    one, other = _receipt(a), _receipt(b)
    return _parting(one, other, lambda step: _unequal(one[step], other[step]))


def receipt_at(a: RunFolder, b: RunFolder, step: int) -> set[str]:
    """What differs in the first line that both have after this step."""
    one, other = _receipt(a), _receipt(b)
    after = min((s for s in one.keys() & other.keys() if s > step), default=None)
    return set() if after is None else set(_unequal(one[after], other[after]))


def _receipt(folder: RunFolder) -> Lines:
    found: Lines = {}
    try:
        text = folder.receipt.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return found
    for line in text.splitlines():
        try:
            values = json.loads(line)
            found[int(values.pop("step"))] = {key: value for key, value in values.items() if value is not None}
        except (ValueError, KeyError, AttributeError, TypeError):
            continue  # half a line, of a run that is writing it
    return found


@dataclass(frozen=True)
class Tensors:
    """The first checkpoint of the same step whose weights are not the same in both.

    Attributes:
        step: its step; -1 without one. differ, count: tensors of it. notes: what else is to be said.
        name, most: the first that differs, and its largest absolute difference; None for another shape or type.
        equal: the step of the newest checkpoint before it whose weights are the same.
    """

    step: int = -1
    differ: int = 0
    count: int = 0
    name: str = ""
    most: float | None = None
    notes: list[str] = field(default_factory=list)
    equal: int = -1


def checkpoints(a: RunFolder, b: RunFolder) -> Tensors:
    """Compares the weights of the checkpoints that both have, the oldest first."""
    names = [{path.parent.name for path in folder.checkpoints.glob(f"step-*/{MANIFEST}")} for folder in (a, b)]
    equal = -1
    for name in sorted(names[0] & names[1]):
        try:
            found = _tensors([folder.checkpoints / name for folder in (a, b)])
        except FileNotFoundError:  # a run that trains has removed it meanwhile
            continue
        if found is not None:
            return replace(found, equal=equal)
        equal = int(name.removeprefix("step-"))
    return Tensors(equal=equal)


def _tensors(places: list[Path]) -> Tensors | None:
    """What differs between the weights of two checkpoints; None if nothing does."""
    if filecmp.cmp(places[0] / WEIGHTS, places[1] / WEIGHTS, shallow=False):
        return None  # as they mostly are, and torch takes seconds to import
    import torch

    step = int(places[0].name.removeprefix("step-"))
    try:
        one, other = (torch.load(place / WEIGHTS, map_location="cpu", weights_only=True) for place in places)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch.load raises many kinds
        return Tensors(step, notes=[f"cannot be read ({(str(error).splitlines() or [repr(error)])[0]})"])
    names = list(dict.fromkeys([*one, *other]))
    differ = [name for name in names if not _same(one.get(name), other.get(name))]
    if not differ:
        return None
    x, y = one.get(differ[0]), other.get(differ[0])
    most = None
    if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor) and x.shape == y.shape and x.dtype == y.dtype:
        most = float((x.double() - y.double()).abs().max())
    notes = [f"{which} {fault}" for which, place in zip("AB", places, strict=True) if (fault := _altered(place))]
    return Tensors(step, len(differ), len(names), differ[0], most, notes)


def _same(x: Any, y: Any) -> bool:
    """Whether two entries have the same bits."""
    import torch

    if not isinstance(x, torch.Tensor) or not isinstance(y, torch.Tensor):
        return bool(x == y)
    if x.shape != y.shape or x.dtype != y.dtype:
        return False
    bits = [value.contiguous().reshape(-1).view(torch.uint8) for value in (x, y)]
    return bool(torch.equal(*bits))


def _altered(place: Path) -> str:
    from trainer.checkpoint import read

    try:
        read(place)
    except CheckpointError as error:
        wrong = "has not the checksum that it was written with: it was changed afterwards"
        return wrong if "damaged" in str(error) else "cannot be read"
    return ""


def pictures(a: RunFolder, b: RunFolder) -> tuple[int, int, int]:
    """Of the pictures that both have: how many differ, how many there are, and the step of the first that differs."""
    differ, count, first = 0, 0, -1
    for folder in sorted(a.media.glob("step-*")):
        for path in sorted(folder.glob("*.png")):
            other = b.media / folder.name / path.name
            if not other.is_file():
                continue
            count += 1
            if path.read_bytes() != other.read_bytes():
                differ += 1
                first = int(folder.name.removeprefix("step-")) if first < 0 else first
    return differ, count, first
