"""status.json: what a person, a sweep or a report asks of a run folder: its state, who runs it, its result."""

from __future__ import annotations

import logging
import os
import platform
import socket
import sys
import time
from typing import Any

from trainer.folder import RunFolder, shown
from trainer.records import Outcome
from trainer.tracking.base import Plan, Tracker

log = logging.getLogger("trainer")


class Status(Tracker):
    """Keeps status.json of a run folder."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def start(self, plan: Plan) -> None:
        attempt = self.folder.read_status().get("attempt", 0) + 1
        self._write(
            state="running",
            attempt=attempt,
            host=socket.gethostname(),
            pid=os.getpid(),
            started=round(time.time(), 3),
            python=platform.python_version(),
            packages=_packages(),
            facts=plan.config.get("run", {}),
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
        self._write(state=outcome.state, result=result, error=failed)

    def _write(self, **changes: Any) -> None:
        try:
            self.folder.write_status(**changes)
        except OSError as error:  # a full disk must not hide how the run ended
            log.warning("%s could not be written (%s)", shown(self.folder.status), error.strerror)


def _packages() -> dict[str, str]:
    """The versions of the packages that this process has imported, read in less than a millisecond."""
    outside = {name for name in sys.modules if "." not in name and name[0] != "_"} - sys.stdlib_module_names
    found = {name: vars(sys.modules[name]).get("__version__") for name in sorted(outside)}
    return {name: version for name, version in found.items() if isinstance(version, str)}
