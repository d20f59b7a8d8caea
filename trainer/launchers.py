"""Runs the jobs of a sweep on this machine: one after the other, or several at once, each GPU with its own."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from trainer.children import LOST, SAVE, Children
from trainer.errors import ConfigError
from trainer.gpus import Gpus, Held, visible

BUSY = 75
"""The exit code of a job that another process trains."""


@dataclass(frozen=True)
class Item:
    """A job for a launcher: a function, what it is called with, and a file for what it would print."""

    target: Callable[..., Any]
    args: Sequence[Any]
    output: Path


class Watcher(Protocol):
    """Who has the jobs done, and is told of them."""

    def over(self, key: str) -> bool:
        """Whether nothing is left to do of a job when its turn comes."""

    def held(self, key: str) -> bool:
        """Whether another process has it at that moment."""

    def begun(self, key: str) -> None: ...

    def done(self, key: str, why: str, again: bool) -> None:
        """A job has ended.

        Args:
            why: what it ended with, for where its folder does not tell.
            again: whether it could not be tried, through no fault of its own.
        """


class Launcher(Protocol):
    """Runs jobs. `several`: whether many at once, so that they print to files of their own."""

    @property
    def several(self) -> bool: ...

    @property
    def at_once(self) -> int:
        """How many jobs run at the same time, at most."""

    def prepare(self) -> None:
        """Makes ready what takes time, beside what this process does.

        Raises:
            ConfigError: this launcher cannot work here.
        """

    def run(self, items: Mapping[str, Item], watcher: Watcher) -> None:
        """Runs the jobs; those that are running when a signal comes are waited for."""

    def signalled(self, again: bool) -> None:
        """Has the running jobs save and end, or, `again`, end at once; no other begins."""

    def close(self) -> None: ...


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
    children: Children = field(default_factory=Children, init=False, repr=False)

    def __post_init__(self) -> None:
        check_n_jobs(self.n_jobs)
        if not isinstance(self.jobs_per_gpu, int) or self.jobs_per_gpu < 1:
            raise ConfigError(f"jobs_per_gpu: {self.jobs_per_gpu!r} must be at least 1")

    @property
    def several(self) -> bool:
        return self.n_jobs != 1

    @property
    def at_once(self) -> int:
        """How many jobs run at the same time."""
        return at_once(self.n_jobs, self.gpus().places)

    def gpus(self) -> Gpus:
        """What the jobs share; without any where they run one after the other."""
        return Gpus(visible() if self.several else [], self.jobs_per_gpu)

    def prepare(self) -> None:
        """Begins the imports that the jobs need."""
        self.children.prepare()

    def close(self) -> None:
        self.children.close()

    def run(self, items: Mapping[str, Item], watcher: Watcher) -> None:
        """As `Launcher.run`."""
        waiting, running = deque(items), dict[str, Held | None]()
        gpus, most = self.gpus(), self.at_once
        while running or (waiting and not self.ended):
            while not self.ended and len(running) < most and (key := next_of(waiting, watcher)) is not None:
                held = gpus.take() if gpus.gpus else None
                if gpus.gpus and held is None:
                    waiting.appendleft(key)
                    break
                running[key] = held
                watcher.begun(key)
                item = items[key]
                output = item.output if self.several else None
                self.children.start(key, item.target, *item.args, env=self.env(held), output=output)
            if not running:
                if not gpus.gpus or not waiting:
                    return  # others have what is left
                time.sleep(1.0)  # or all GPUs
            full = len(running) == most or not waiting or self.ended
            for key, code in self.children.wait(None if full else 1.0).items():
                if (held := running.pop(key)) is not None:
                    held.close()
                watcher.done(key, _why(code), code in (BUSY, LOST))

    def env(self, held: Held | None) -> dict[str, str]:
        """What the process of a job gets: its share of the processors, and its GPU."""
        most = self.at_once
        env = {"TRAINER_PROCESSORS": str(max(1, processors() // most))} if most > 1 else {}
        return env | ({"CUDA_VISIBLE_DEVICES": held.gpu} if held is not None else {})

    def signalled(self, again: bool) -> None:
        """As `Launcher.signalled`."""
        self.ended = True
        self.children.end(signal.SIGKILL if again else SAVE)


def _why(code: int) -> str:
    if code >= 0 or code == LOST:
        return f"its process left with exit code {code}" if code > 0 else ""
    return f"killed by {signal.Signals(-code).name}" + (": was the memory enough?" if -code == signal.SIGKILL else "")


def next_of(waiting: deque[str], watcher: Watcher) -> str | None:
    """Takes the first job that may begin now; those that others have come last, and those that are over go."""
    for _ in range(len(waiting)):
        key = waiting.popleft()
        if watcher.over(key):
            continue
        if not watcher.held(key):
            return key
        waiting.append(key)
    return None


def at_once(n_jobs: int, places: int = 0) -> int:
    """How many jobs run at once on this machine; -1 is one for each place on a GPU, or for every two processors."""
    return n_jobs if n_jobs > 0 else places or max(1, processors() // 2)


def check_n_jobs(n_jobs: int) -> None:
    """Raises ConfigError where no number of jobs can be that."""
    if not isinstance(n_jobs, int) or n_jobs < -1 or n_jobs == 0:
        raise ConfigError(f"n_jobs: {n_jobs!r} must be at least 1, or -1 for as many as fit this machine")


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
