"""status.json: what a person, a sweep or a report asks of a run folder: its state, who runs it, its result."""

from __future__ import annotations

import os
import platform
import socket
import time

from trainer.folder import RunFolder
from trainer.records import Outcome
from trainer.tracking.base import Plan, Tracker


class Status(Tracker):
    """Keeps status.json of a run folder."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def start(self, plan: Plan) -> None:
        attempt = self.folder.read_status().get("attempt", 0) + 1
        self.folder.write_status(
            state="running",
            attempt=attempt,
            host=socket.gethostname(),
            pid=os.getpid(),
            started=round(time.time(), 3),
            python=platform.python_version(),
            monitor=plan.monitor,
            mode=plan.mode,
            steps=plan.steps,
            error=None,
        )

    def finish(self, outcome: Outcome) -> None:
        result = {
            "best": outcome.best,
            "last": outcome.last,
            "step": outcome.step,
            "epoch": outcome.epoch,
            "reason": outcome.reason,
            "seconds": outcome.seconds,
            "exit_code": outcome.exit_code,
        }
        failed = outcome.reason if outcome.state == "failed" else None
        self.folder.write_status(state=outcome.state, result=result, error=failed)
