"""Wall time of a run over all its attempts, and what it was spent on, from a clock that cannot be set back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from trainer.state import State

T = TypeVar("T")


class Clock:
    """Counts seconds of training; time between an interruption and its resume does not count."""

    def __init__(self) -> None:
        self._before = 0.0
        self._started: float | None = None
        self._spent: dict[str, float] = {}  # since the last split, by what it was spent on
        self._since = (0.0, 0, 0)  # seconds, steps and samples at the last split

    def start(self, steps: int = 0, samples: int = 0) -> None:
        """Counting begins, or goes on, now, after so many steps and samples of the run."""
        self._before, self._started = self.seconds, time.perf_counter()
        self._since, self._spent = (self._before, steps, samples), {}

    @contextlib.contextmanager
    def during(self, what: str) -> Iterator[None]:
        """What happens inside counts as spent on that."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._spent[what] = self._spent.get(what, 0.0) + time.perf_counter() - begin

    def waiting(self, what: str, values: Iterable[T]) -> Iterator[T]:
        """The same values; the time until each one comes counts as spent on that."""
        iterator = iter(values)
        while True:
            begin = time.perf_counter()
            try:
                value = next(iterator)
            except StopIteration:
                return
            self._spent[what] = self._spent.get(what, 0.0) + time.perf_counter() - begin
            yield value

    def split(self, steps: int, samples: int) -> dict[str, float]:
        """The speed since the last split, and the share of its time that each purpose took; the rest are the steps.

        Args:
            steps, samples: of the run so far.
        """
        before, now = self._since, (self.seconds, steps, samples)
        seconds = now[0] - before[0]
        spent, self._spent, self._since = self._spent, {}, now
        if seconds <= 0 or steps <= before[1]:
            return {}
        shares = {f"speed/{what}": round(spent.get(what, 0.0) / seconds, 4) for what in PURPOSES}
        rates = {"steps_per_second": steps - before[1], "samples_per_second": samples - before[2]}
        return {**{f"speed/{name}": round(count / seconds, 2) for name, count in rates.items()}, **shares}

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


PURPOSES = ("data", "evaluation", "save")
"""What a run waits for besides its steps: the next batches, the validation set, the copy of a checkpoint."""
