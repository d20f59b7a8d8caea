"""The trackers that a run has unless it is told otherwise."""

from __future__ import annotations

import re
import secrets

from trainer.folder import RunFolder
from trainer.tracking.base import Tracker
from trainer.tracking.console import Console, HeldBack
from trainer.tracking.journal import Journal
from trainer.tracking.shipper import Shipper, Wandb
from trainer.tracking.status import Status


def trackers(folder: RunFolder | None, shipper: Shipper | None = None, early: HeldBack | None = None) -> list[Tracker]:
    """The console, and where there is a folder the journal, status.json and wandb, which reads the journal.

    Args:
        folder: the run folder. shipper: what sends the run to wandb; made for the folder if None.
        early: what was logged before the console stood.
    """
    if folder is None:
        return [Console()]
    shipper = shipper or Shipper(folder, Wandb(), id=wandb_id(folder), name=folder.path.name)
    return [Journal(folder, shipper.apart), Status(folder), shipper, Console(early=early)]


def wandb_id(folder: RunFolder) -> str:
    """The id of the run on wandb: made once, readable, and kept with the run."""
    known = folder.read_status().get("wandb_id")
    return str(known or f"{re.sub(r'[^A-Za-z0-9_.=-]', '_', folder.path.name)[:90]}-{secrets.token_hex(2)}")
