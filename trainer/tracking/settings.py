"""How a run is tracked on wandb: what the config group `wandb` says."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Literal

from trainer.durations import Duration
from trainer.errors import ConfigError


@dataclass(frozen=True)
class Wandb:
    """How a run is tracked on Weights & Biases.

    Args:
        mode: `auto` is what WANDB_MODE says, else online with a login and offline without; never a question.
        project, entity, group, job_type, tags, notes: as on the website.
        process: `child` is a process of its own; `inline` the training process, which gives `wandb.run` to your code.
        finish_timeout: seconds that the end of a run may wait for wandb; the child goes on sending after that.
        artifact: when the best checkpoint is sent as a model: `end` of the run; a time such as `30min` also while it
            trains, at most that often; `off` sends none, and nothing about the data.
        side_by_side: pictures with masks are also sent as plain ones, picture and masks in a row.

    Raises:
        ValueError: an argument is none of the above.
    """

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    project: str = "wandb-trainer"
    entity: str | None = None
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    process: Literal["child", "inline"] = "child"
    finish_timeout: float = 60.0
    artifact: str | float | bool = "end"
    side_by_side: bool = False

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "online", "offline", "disabled"):
            raise ValueError(f"mode: {self.mode!r} must be auto, online, offline or disabled")
        if self.process not in ("child", "inline"):
            raise ValueError(f"process: {self.process!r} must be child or inline")
        if not self.finish_timeout > 0:
            raise ValueError(f"finish_timeout: {self.finish_timeout} must be more than 0 (seconds)")
        _ = self.model_every
        if not 0 < len(self.project) <= 128 or (found := re.search(r"[/\\#?%:]", self.project)):
            why = f"holds {found[0]!r}" if self.project and len(self.project) <= 128 and found else "has a wrong length"
            raise ValueError(f"project: {self.project!r} {why}; 1 to 128 characters, none of / \\ # ? % :")
        if wrong := [tag for tag in self.tags if not 0 < len(tag) <= 64]:
            raise ValueError(f"tags: {wrong[0]!r} must have 1 to 64 characters")

    @property
    def model_every(self) -> float | None:
        """Seconds between two models while training, 0 for the end alone, None for no artifacts."""
        if self.artifact == "end":
            return 0.0
        if self.artifact == "off" or self.artifact is False:  # as YAML reads a bare off
            return None
        try:
            every = Duration.parse(self.artifact if isinstance(self.artifact, str) else f"{self.artifact}s")
        except ConfigError:
            every = None
        if every is None or every.unit != "seconds":
            raise ValueError(f"artifact: {self.artifact!r} must be end, off, or a time such as 30min")
        return every.amount

    @property
    def disabled(self) -> bool:
        return "disabled" in (self.mode, os.environ.get("WANDB_MODE") if self.mode == "auto" else None)
