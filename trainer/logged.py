"""What hooks and user code have logged: numbers, pictures, histograms, until the row that they go with is written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch

from trainer.errors import ConfigError
from trainer.records import Evaluation, Histogram, Panel, Row
from trainer.state import State

Shown = dict[int, tuple[list[Panel], dict[str, Histogram]]]  # by step

_OURS = re.compile(r"(step|epoch|time|lr|schedule|train/(loss|grad_norm|grad_norm_clipped|skipped|curriculum))$|"
                   r"(lr|best|speed|memory|trainer)/|_")  # fmt: skip
_KINDS = {kind.__name__: kind for kind in (Panel, Histogram)}


class Logged:
    """Values by the row that they belong to: the one that a hook is told of, else the next one that is made.

    Attributes:
        row: the row that hooks are told of now.
    """

    def __init__(self) -> None:
        self.row: Row | None = None
        self.by_step: dict[int, dict[str, Any]] = {}
        self._next: dict[str, Any] = {}

    def add(self, values: Mapping[str, Any]) -> None:
        """Takes in values by name; of two of one name for one row the second counts.

        Raises:
            ConfigError: a name is the framework's own, or a value is of no kind that can be shown.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"trainer.log: a {type(values).__name__} is no dict of names and values")
        checked = {name: _value(name, value) for name, value in values.items()}
        into = self._next if self.row is None else self.by_step.setdefault(self.row["step"], {})
        into.update(checked)

    def belong_to(self, step: int) -> None:
        """What waits belongs to the row of that step."""
        if self._next:
            self.by_step.setdefault(step, {}).update(self._next)
            self._next = {}

    def join(self, rows: Sequence[Row], evaluation: Evaluation | None) -> Shown:
        """Adds the numbers to their rows; returns the pictures and histograms, with those of the last row's evaluation.

        Raises:
            ConfigError: the row, or the evaluation, has that name already.
        """
        shown: Shown = {}
        taken, self.by_step = self.by_step, {}
        for row in rows:
            values, ours = taken.get(row["step"], {}), evaluation.panels if evaluation and row is rows[-1] else []
            if both := values.keys() & {*row, *(panel.name for panel in ours)}:
                raise ConfigError([_own(name) for name in sorted(both)])
            panels = [panel for value in values.values() if isinstance(value, list) for panel in value]
            histograms = {name: value for name, value in values.items() if isinstance(value, Histogram)}
            row.update({name: value for name, value in values.items() if isinstance(value, int | float)})
            row.update({name: float(value) for name, value in values.items() if isinstance(value, torch.Tensor)})
            if ours or panels or histograms:
                shown[row["step"]] = [*ours, *panels], histograms
        return shown

    def late(self) -> list[str]:
        """The names of what no row has taken."""
        return list(self._next)

    def state_dict(self) -> State:
        return {name: _packed(value) for name, value in self._next.items()}

    def load_state_dict(self, state: State) -> None:
        self._next, self.by_step = {name: _unpacked(value) for name, value in state.items()}, {}


def _own(name: str) -> str:
    other = f"mine/{name.rpartition('/')[2].lstrip('_')}"
    return f"trainer.log: {name} is a name of the framework's own; take another one, such as {other}"


def _value(name: str, value: Any) -> Any:
    """A number, or a scalar tensor that is still on its device; pictures as a list; a histogram."""
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"trainer.log: {name!r} is not a name")
    if _OURS.match(name):
        raise ConfigError(_own(name))
    if isinstance(value, Histogram):
        return value
    pictures = [value] if isinstance(value, Panel) else value
    if isinstance(pictures, list | tuple) and pictures and all(isinstance(one, Panel) for one in pictures):
        if problem := next(filter(None, (panel.problem() for panel in pictures)), ""):
            raise ConfigError(f"trainer.log: {name}: {problem}")
        return [replace(panel, name=name) for panel in pictures]
    if isinstance(value, torch.Tensor) and value.numel() == 1 and value.device.type != "cpu":
        return value.detach().reshape(()).float().clone()  # read later, with all other values at once
    if isinstance(value, torch.Tensor | np.ndarray | np.generic) and value.reshape(-1).shape == (1,):
        value = value.item()
    if isinstance(value, bool | int | float):
        return value
    kind = f"{type(value).__name__} of shape {tuple(value.shape)}" if hasattr(value, "shape") else type(value).__name__
    raise ConfigError(
        f"trainer.log: {name} is a {kind}; a number, a Panel or a list of them, or a Histogram is needed "
        "(Histogram.of(values) makes one of an array)"
    )


def _packed(value: Any) -> Any:
    """As what a checkpoint may hold."""
    if isinstance(value, Panel | Histogram):
        return {"_kind": type(value).__name__, **{f.name: _packed(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, dict):
        return {name: _packed(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_packed(one) for one in value]
    if isinstance(value, torch.Tensor):
        return value if value.ndim else float(value)
    return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict):
        found = {name: _unpacked(one) for name, one in value.items()}
        return _KINDS[found.pop("_kind")](**found) if "_kind" in found else found
    if isinstance(value, list):
        return [_unpacked(one) for one in value]
    return value.numpy() if isinstance(value, torch.Tensor) else value
