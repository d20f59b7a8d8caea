"""Wall time of a run over all its attempts, from a clock that cannot be set back."""

from __future__ import annotations

import time

from trainer.state import State


class Clock:
    """Counts seconds of training; time between an interruption and its resume does not count."""

    def __init__(self) -> None:
        self._before = 0.0
        self._started: float | None = None

    def start(self) -> None:
        """Counting begins, or goes on, now."""
        self._before, self._started = self.seconds, time.perf_counter()

    def stop(self) -> None:
        """Counting ends until the next start."""
        self._before, self._started = self.seconds, None

    @property
    def seconds(self) -> float:
        return self._before + (time.perf_counter() - self._started if self._started is not None else 0.0)

    def state_dict(self) -> State:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: State) -> None:
        self._before, self._started = state["seconds"], None
