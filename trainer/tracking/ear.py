"""What wandb says of its connection while it sends and while it ends, as messages for the one who trains."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

from trainer.tracking.mailbox import Mailbox

STILL = 6.0  # seconds without any progress after which nobody waits for wandb any longer
LOOK = 0.5  # seconds between two looks
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Ear:
    """Listens to wandb in place of a terminal: what matters is told, once.

    Args:
        later: what to type to send a run again.
    """

    def __init__(self, box: Mailbox, later: str) -> None:
        self.box, self.later = box, later
        self.closed = False  # the end of the run tells for itself what went wrong
        self._told: set[str] = set()

    def info(self, text: str) -> None:
        if found := re.search(r"(\d{3}) encountered", text):  # wandb says this of each attempt
            self._tell(f"the server answers {found[1]}; training goes on")

    def warning(self, text: str) -> None:
        if "Fatal error while uploading" in text:
            self._tell(f"the server refuses the rest of this run, which stays in the folder; later: {self.later}")

    def error(self, text: str) -> None:
        self._tell(re.sub(r"^wandb: ERROR ", "", _COLOURS.sub("", text)))

    def _tell(self, text: str) -> None:
        if not self.closed and text not in self._told:
            self._told.add(text)
            self.box.tell("warning", text)


@contextlib.contextmanager
def patient(run: Any, box: Mailbox) -> Iterator[None]:
    """Around the end of a run on wandb: tells `stuck`, with the reason, when nothing moves any more."""
    over = threading.Event()

    def look() -> None:
        before, still = "", 0
        with contextlib.suppress(
            Exception
        ):  # it asks in a way that wandb does not promise: without it one waits longer
            while not over.wait(LOOK):
                now, why = _progress(run)
                still = still + 1 if now == before else 0
                before = now
                if still * LOOK >= STILL:
                    box.tell("stuck", why)
                    return

    threading.Thread(target=look, name="patient", daemon=True).start()
    try:
        yield
    finally:
        over.set()


@contextlib.contextmanager
def prompt(box: Mailbox) -> Iterator[None]:
    """Around what a server has to answer: tells `stuck` when that takes longer than `STILL` seconds."""
    timer = threading.Timer(STILL, lambda: box.tell("stuck", "no answer from the server"))
    timer.daemon = True
    timer.start()
    begin = time.monotonic()
    try:
        yield
    finally:
        timer.cancel()
        if time.monotonic() - begin >= STILL:
            box.tell("moving", "the server has answered")


def _progress(run: Any) -> tuple[str, str]:
    """Something that changes with each byte sent, and what is in the way in words."""
    state = run._interface.deliver_poll_exit().wait_or(timeout=5).response.poll_exit_response
    parts = [(part.desc, part.progress) for part in state.operation_stats.operations]
    errors = [part.error_status for part in state.operation_stats.operations if part.error_status]
    why = re.sub(r"^retrying:? |\w+ \"\S+\": ", "", errors[0]) if errors else "no answer from the server"
    return repr((state.pusher_stats.uploaded_bytes, parts)), why
