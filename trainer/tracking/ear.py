"""What wandb says of its connection while it sends and while it ends, as messages for the one who trains."""

from __future__ import annotations

import contextlib
import re
import threading
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
        self.refused = False  # whether the server takes no more
        self._told: set[str] = set()

    def info(self, text: str) -> None:
        if found := re.search(r"(\d{3}) encountered", text):  # wandb says this of each attempt
            self._tell(f"the server answers {found[1]}; training goes on")

    def warning(self, text: str) -> None:
        if "Fatal error while uploading" in text:
            self.refused = True
            self._tell(f"the server refuses the rest of this run, which stays in the folder; later: {self.later}")

    def error(self, text: str) -> None:
        self._tell(re.sub(r"^wandb: ERROR ", "", _COLOURS.sub("", text)))

    def _tell(self, text: str) -> None:
        if not self.closed and text not in self._told:
            self._told.add(text)
            self.box.tell("warning", text)


@contextlib.contextmanager
def watch(run: Any, box: Mailbox) -> Iterator[None]:
    """Around the end of a run on wandb: tells `server` whenever something was sent, and what is in the way."""
    over = threading.Event()

    def look() -> None:
        before, told = "", ""
        with contextlib.suppress(Exception):  # wandb does not promise this way to ask
            while not over.wait(LOOK):
                now, why = _progress(run)
                text = why if now == before else ""
                if now != before or text != told:
                    box.tell("server", text)
                before, told = now, text

    threading.Thread(target=look, name="watch", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _progress(run: Any) -> tuple[str, str]:
    """Something that changes with the bytes and the rows that are sent, and what is in the way in words."""
    state = run._interface.deliver_poll_exit().wait_or(timeout=5).response.poll_exit_response
    rows = [part.desc for part in state.operation_stats.operations if "history" in part.desc]
    errors = [part.error_status for part in state.operation_stats.operations if part.error_status]
    why = re.sub(r"^retrying:? |\w+ \"\S+\": ", "", errors[0]) if errors else ""
    return repr((state.pusher_stats.uploaded_bytes, rows)), why
