"""Runs the jobs of a sweep on this machine: one after the other, or several at once, each GPU with its own."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.children import Children
from trainer.errors import ConfigError
from trainer.gpus import Gpus, Held, visible


@dataclass(frozen=True)
class Item:
    """A job for a launcher: a function, what it is called with, and a file for what it would print."""

    target: Callable[..., Any]
    args: Sequence[Any]
    output: Path


@dataclass
class Local:
    """Each job in a process of its own, so many at once.

    Args:
        n_jobs: how many; -1 is one for each place on a GPU, or without a GPU one for every two processors.
        jobs_per_gpu: how many share a GPU. Where several jobs run at once each gets a GPU of its own, which no other
            sweep on this machine uses either; those that find none free wait.

    Raises:
        ConfigError: a number is out of range.
    """

    n_jobs: int = 1
    jobs_per_gpu: int = 1
    ended: bool = field(default=False, init=False)  # by a signal: no job is begun any more
    _children: Children = field(default_factory=Children, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.n_jobs, int) or self.n_jobs < -1 or self.n_jobs == 0:
            raise ConfigError(f"n_jobs: {self.n_jobs!r} must be at least 1, or -1 for as many as fit this machine")
        if not isinstance(self.jobs_per_gpu, int) or self.jobs_per_gpu < 1:
            raise ConfigError(f"jobs_per_gpu: {self.jobs_per_gpu!r} must be at least 1")

    def prepare(self) -> None:
        """Begins the imports that the jobs need, beside what this process does."""
        self._children.prepare()

    def close(self) -> None:
        self._children.close()

    @property
    def most(self) -> int:
        """How many run at once."""
        return self.n_jobs if self.n_jobs > 0 else self._gpus().places or max(1, _processors() // 2)

    def _gpus(self) -> Gpus:
        return Gpus(visible() if self.n_jobs != 1 else [], self.jobs_per_gpu)

    def run(
        self, items: Mapping[str, Item], wanted: Callable[[str], bool], begun: Callable[[str], None],
        done: Callable[[str, int], None],
    ) -> None:  # fmt: skip
        """Runs the jobs; those that are running when a signal comes are waited for.

        Args:
            wanted: whether a job is still to be done when its turn comes. begun: told of each that begins.
            done: told of each that ended, and its exit code.
        """
        waiting, running = deque(items), dict[str, Held | None]()
        gpus, most = self._gpus(), self.most
        while running or (waiting and not self.ended):
            held: Held | None = None
            while waiting and not self.ended and len(running) < most:
                if not wanted(waiting[0]):
                    waiting.popleft()
                    continue
                if gpus.gpus and (held := gpus.take()) is None:
                    break
                key = waiting.popleft()
                item, running[key] = items[key], held
                env = {"TRAINER_PROCESSORS": str(max(1, _processors() // most))} if most > 1 else {}
                if held is not None:
                    env["CUDA_VISIBLE_DEVICES"] = held.gpu
                begun(key)
                self._children.start(key, item.target, *item.args, env=env, output=item.output if most > 1 else None)
            full = len(running) == most or not waiting or self.ended
            for key, code in self._children.wait(None if full else 1.0).items():
                if (held := running.pop(key)) is not None:
                    held.close()
                done(key, code)

    def signalled(self, again: bool) -> None:
        """Has the running jobs save and end, or, `again`, end at once; no other begins."""
        self.ended = True
        self._children.end(signal.SIGKILL if again else signal.SIGUSR1)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
