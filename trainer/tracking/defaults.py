"""The trackers that a run has unless it is told otherwise."""

from __future__ import annotations

from trainer.folder import RunFolder
from trainer.tracking.base import Tracker
from trainer.tracking.console import Console
from trainer.tracking.journal import Journal
from trainer.tracking.status import Status


def trackers(folder: RunFolder | None) -> list[Tracker]:
    """The journal and status.json where there is a folder, and always the console."""
    kept: list[Tracker] = [Journal(folder), Status(folder)] if folder is not None else []
    return [*kept, Console()]
