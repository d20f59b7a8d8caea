"""The files that wandb keeps of a run's offline attempts, and what to type to send the run."""

from __future__ import annotations

import glob
import os
import shlex
from pathlib import Path

from trainer.folder import RunFolder
from trainer.tracking.mailbox import Mailbox, Sent, Spec


def write_into(spec: Spec) -> None:
    """Has wandb keep all of its files in the run's own place; to be called before a run is opened."""
    for name in ("data", "cache"):
        os.environ[f"WANDB_{name.upper()}_DIR"] = str(Path(spec.dir) / "wandb" / name)


def lives(folder: Path, id: str) -> list[Path]:
    """The files of all offline attempts of a run in a folder of wandb's."""
    return sorted(folder.glob(f"offline-run-*/run-{glob.escape(id)}.wandb"))


def marked(path: Path) -> bool:
    """Whether `wandb sync` has seen that file of an offline attempt, whole or not."""
    return path.with_suffix(".wandb.synced").exists()


def synced(folder: Path) -> bool:
    """Whether `wandb sync` came after the last row of the offline attempt in that folder."""
    return any(
        marked(path) and path.with_suffix(".wandb.synced").stat().st_mtime >= path.stat().st_mtime
        for path in folder.glob("*.wandb")
    )


def set_aside(folder: Path, id: str, but: Path) -> None:
    """Renames earlier offline attempts so that neither `wandb sync` nor `wandb leet` takes them for runs."""
    for path in lives(folder, id):
        if path.parent.resolve() != but.resolve():
            path.rename(path.with_suffix(".wandb.superseded"))
            path.parent.rename(path.parent.with_name(f"superseded-{path.parent.name}"))


def sync_command(folder: RunFolder) -> str | None:
    """What to type to bring a run to the website; None if it is there, or if it was not meant for wandb."""
    box = Mailbox(folder)
    sent = box.read(Sent) or Sent()
    if box.last_spec() is None:
        return None
    over = sent.closed if sent.mode == "online" else synced(Path(sent.dir))
    return None if over else again_command(folder)


def again_command(folder: RunFolder) -> str:
    """What to type to send a run once more from its folder."""
    return f"trainer-sync {shlex.quote(str(folder))}"
