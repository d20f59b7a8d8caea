"""trainer-sync, with the real client: all runs of a tree arrive, each is looked at, and none stands in another's way."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import test_shipper as small
from tests.wandb_server import Run, WandbServer
from trainer.cli import sync as command
from trainer.folder import RunFolder
from trainer.records import Panel
from trainer.sync import find, foreign
from trainer.tracking.journal import Journal
from trainer.tracking.mailbox import Done, Mailbox, Sent, Spec
from trainer.tracking.panels import write_panels
from trainer.tracking.sender import sync_command

ROOT = Path(__file__).resolve().parents[1]


def made(path: Path, rows: int = 5, *, sweep: bool = False, started: float = 0.0, **status: Any) -> RunFolder:
    """A run as a training leaves it that could not reach wandb: with its journal, and without anything of wandb's."""
    folder = RunFolder(path)
    folder.create()
    journal = Journal(folder)
    journal.rows([{"step": step, "epoch": 1, "time": step / 10, "train/loss": 1 / step} for step in range(1, rows + 1)])
    journal.saved()
    box = Mailbox(folder)
    box.clear()
    home = path.parent if sweep else path
    box.write(Spec(id=path.name, name=path.name, project="p", mode="offline", dir=str(home), pid=1, attempt=1))
    box.write(Done(exit_code=0))
    folder.write_status(state="finished", started=started, **status)
    return folder


def sync(server: WandbServer, *words: object, **env: str) -> subprocess.CompletedProcess[str]:
    given = {**server.env(**{"WANDB_MODE": "offline", **env}), "PYTHONPATH": str(ROOT)}
    line = [sys.executable, str(ROOT / "scripts/sync.py"), *map(str, words)]
    return subprocess.run(line, env=given, capture_output=True, text=True, timeout=90, check=False)


def told(done: subprocess.CompletedProcess[str], folder: RunFolder) -> str:
    """The line of one run."""
    (line,) = (line for line in done.stdout.splitlines() if line.startswith((f"{folder} ", f"{folder.path} ")))
    return line.removeprefix(str(folder)).strip()
