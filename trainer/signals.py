"""Signals that ask a run to end: noted at once, answered at the next boundary; the second Ctrl-C is not caught."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
TYPED = (signal.SIGINT, signal.SIGTERM)  # what a person sends, who may do so twice
ECHO = 0.3
"""Seconds in which another SIGTERM is no second one: `timeout` sends it to the process, and then to its group."""


class Signals:
    """While entered, the first of SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 (Slurm's warnings) and SIGHUP sets `number`.

    The second SIGINT or SIGTERM has its default effect, unless it is an echo of the first. The others come from
    schedulers and sweeps, at times beside a SIGTERM, and mean no more by it. The handlers that were there before come
    back on leaving. Outside the main thread Python allows no handlers, and nothing is noted.
    """

    def __init__(self) -> None:
        self.number = 0
        self._at = 0.0  # when it was noted
        self._before: dict[int, Any] = {}

    @property
    def name(self) -> str:
        return signal.Signals(self.number).name if self.number else ""

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = {
                number: signal.signal(number, self._note)
                for number in NUMBERS
                if signal.getsignal(number) is not signal.SIG_IGN  # nohup and background jobs stay deaf
            }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if is_second(self.number, number, self._at):
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if self.number not in TYPED or number == signal.SIGUSR2:  # at which what began this run may queue it again
            self.number, self._at = number, time.monotonic()


def is_second(first: int, number: int, at: float) -> bool:
    """Whether somebody who has sent a signal insists: `first` is 0 where nobody has, `at` is when that was noted."""
    echo = number == first == signal.SIGTERM and time.monotonic() - at < ECHO
    return first in TYPED and number in TYPED and not echo
