"""W&B Sweeps: the run that an agent (`wandb agent`) has announced, and which this process is to train."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from trainer.config import flat
from trainer.folder import RunFolder


@dataclass(frozen=True)
class Announced:
    """What an agent says in the environment of the command that it starts.

    Attributes:
        sweep: the id of the sweep. id: of the run, under which its result is awaited.
        project, entity: where the sweep lies; None if the agent was not told.
        parameters: the values that the sweep chose, by the names that its file gives them.
    """

    sweep: str
    id: str
    project: str | None = None
    entity: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def config(self, composed: Mapping[str, Any]) -> dict[str, Any]:
        """The config as wandb gets it: the search looks there for its parameters by their own names.

        `optimizer.lr` stands beside the composed `optimizer: {lr: ...}`. A parameter that chooses a file, as
        `optimizer` does, takes the key of the group, whose values then stand beside it: `optimizer.lr`, ...
        """
        found = dict(composed)
        for name, value in self.parameters.items():
            node = composed.get(name)
            if isinstance(node, Mapping):
                if isinstance(value, Mapping):  # nested parameters: they are in that node
                    continue
                found |= flat(node, f"{name}.")
            found[name] = value
        return {**found, **{name: value for name, value in self.parameters.items() if "." in name}}


def announced() -> Announced | None:
    """The run that an agent wants of this process; None where no agent started it."""
    sweep, id = os.environ.get("WANDB_SWEEP_ID"), os.environ.get("WANDB_RUN_ID")
    if not sweep or not id:
        return None
    project, entity = os.environ.get("WANDB_PROJECT"), os.environ.get("WANDB_ENTITY")
    return Announced(sweep, id, project or None, entity or None, _parameters(os.environ.get("WANDB_SWEEP_PARAM_PATH")))


def kept(folder: RunFolder) -> Announced | None:
    """What was announced when the run of a folder was started, for one who goes on with it by hand."""
    found = folder.read_status().get("agent")
    return Announced(**found) if found else None


def _parameters(path: str | None) -> dict[str, Any]:
    try:
        found = yaml.safe_load(Path(path or os.devnull).read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return {str(name): each["value"] for name, each in found.items() if isinstance(each, Mapping) and "value" in each}
