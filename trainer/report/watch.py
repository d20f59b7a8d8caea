"""`trainer-compare PATH --watch`: how far each job of a sweep is, from another terminal, until none runs any more."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError
from trainer.report import entries as reading
from trainer.report.entries import Entry
from trainer.report.formats import Column, Table, as_text, duration, numbers, printable
from trainer.report.ranking import ORDER, number, order_of
from trainer.report.table import run_name, why
from trainer.tracking.mailbox import Tail

QUIET = 60.0  # seconds without a running job after which a sweep is over, though some of its jobs wait
BAR = 10


@dataclass
class Job:
    """A run that is followed.

    Attributes:
        entry: as it was at the last look. tail: its history. row: the newest row. pace: (step, seconds) of some rows.
        latest, best: of the monitored metric.
    """

    entry: Entry
    tail: Tail
    row: dict[str, Any] = field(default_factory=dict)
    pace: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=20))
    latest: float | None = None
    best: float | None = None

    def look(self) -> None:
        """Reads the status, and what is new in the history of a run that trains."""
        before, self.entry = self.entry, reading.read(self.entry.folder)
        if self.entry.state == "running":
            self._follow()
        elif self.entry.status != before.status:
            monitor = self.entry.monitor
            self.row = self.entry.latest() or self.entry.last
            self.latest, self.best = self.row.get(monitor), self.entry.best.get(monitor, self.best)

    def _follow(self) -> None:
        path = self.entry.folder.metrics
        if path.is_file() and path.stat().st_size < self.tail.offset:  # a run that is resumed does steps again
            self.tail, self.best = Tail(path), None
            self.pace.clear()
        for line in self.tail.lines():
            try:
                self.row = row = json.loads(line)
            except ValueError:
                continue
            self.pace.append((number(row.get("step")), number(row.get("time"))))
            if isinstance(value := row.get(self.entry.monitor), int | float):
                better = max if self.entry.maximised else min
                self.latest, self.best = value, value if self.best is None else better(self.best, value)

    @property
    def state(self) -> str:
        return self.entry.state

    @property
    def step(self) -> int:
        return int(self.row.get("step", 0))

    @property
    def total(self) -> int:
        """0 where it is not known."""
        return int(self.entry.status.get("steps") or 0)

    @property
    def speed(self) -> float | None:
        """Steps in a second, lately; None where it runs not, or too short."""
        if self.state != "running" or len(self.pace) < 2:
            return None
        (a, start), (b, end) = self.pace[0], self.pace[-1]
        return (b - a) / (end - start) if end > start and b > a else None

    @property
    def left(self) -> float | None:
        """Seconds until it is done; None where that cannot be told."""
        return max(0, self.total - self.step) / self.speed if self.speed and self.total else None


def watch(paths: Sequence[str], seconds: float) -> int:
    """Shows the jobs every so many seconds until none runs, and returns the exit code 0.

    Raises:
        ConfigError: a path is no folder, there is no run, or `seconds` is no length of time.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise ConfigError(f"--watch: {seconds:g} must be more than 0 (seconds between two looks)")
    jobs: dict[Path, Job] = {}
    screen = _Screen()
    while True:
        looked_at(paths, jobs)
        over = is_over(jobs.values(), time.time())
        screen.show(list(jobs.values()), over)
        if over:
            return 0
        time.sleep(seconds)


def looked_at(paths: Sequence[str], jobs: dict[Path, Job]) -> None:
    """Looks at every run below the paths, and at those that are new there."""
    for folder in reading.folders(paths, coming=True):
        if folder.path not in jobs:
            jobs[folder.path] = Job(Entry(folder, {}), Tail(folder.metrics))
    for job in jobs.values():
        job.look()


def is_over(jobs: Iterable[Job], now: float) -> bool:
    """Whether no job runs, and none is about to: one that waits is begun soon after another, or its sweep has ended."""
    entries = [job.entry for job in jobs]
    waiting = [entry for entry in entries if entry.state in ("not started", "interrupted", "killed")]
    if any(entry.state == "running" for entry in entries) or any(entry.folder.held for entry in waiting):
        return False
    newest = max((number(entry.status.get("updated", 0)) for entry in entries), default=0.0)
    return not waiting or 0 < newest < now - QUIET


# ------------------------------------------------------------------------------------------------------ what is shown


def overall(jobs: Sequence[Job]) -> str:
    """`18 of 24 finished, 2 running, 1 failed, about 12 min left`."""
    states = [job.state for job in jobs]
    parts = [f"{states.count('finished')} of {len(jobs)} finished"]
    parts += [f"{states.count(state)} {state}" for state in ORDER[:-1] if state in states]
    left = time_left(jobs)
    return ", ".join([*parts, *([f"about {duration(left, 0)} left"] if left is not None else [])])


def time_left(jobs: Sequence[Job]) -> float | None:
    """Seconds until all are done, if as many run side by side as now; None where that cannot be told."""
    running = [job for job in jobs if job.state == "running"]
    lefts = [left for job in running if (left := job.left) is not None]
    if not running or len(lefts) < len(running):
        return None
    done = [number(job.entry.result.get("seconds")) for job in jobs if job.state == "finished"]
    waiting = sum(job.state == "not started" for job in jobs)
    if waiting and not done:
        return None
    more = waiting * sum(done) / len(done) if waiting else 0.0
    return max(*lefts, (sum(lefts) + more) / len(running))


def as_table(jobs: Sequence[Job]) -> Table:
    """A line for each job, those that run first."""
    speeds = [job.speed for job in jobs]
    shares = [min(1.0, job.step / job.total) if job.total else None for job in jobs]
    who = [_who(job.entry) if job.state == "running" else "" for job in jobs]
    monitors = sorted({job.entry.monitor for job in jobs} - {""})
    metric = monitors[0] if len(monitors) == 1 else "metric"
    return Table(
        [
            Column("state", [job.state for job in jobs]),
            Column("done", [_bar(share) for share in shares], weight=1),
            Column("%", ["" if share is None else f"{100 * share:.0f}" for share in shares], right=True),
            Column("step", [f"{job.step}" + (f" of {job.total}" if job.total else "") for job in jobs], 6, right=True),
            Column(metric, numbers([job.latest for job in jobs]), right=True),
            Column("best", numbers([job.best for job in jobs]), 4, right=True),
            Column("steps/s", ["" if speed is None else f"{speed:.3g}" for speed in speeds], 5, right=True),
            Column("left", [duration(job.left, 0) for job in jobs], 2, right=True),
            Column("on", who, 3),
            Column("job", names(jobs)),
            Column("why", [why(job.entry) for job in jobs]),
        ]
    )


def _bar(share: float | None) -> str:
    return "" if share is None else "#" * int(BAR * share) + "." * (BAR - int(BAR * share))


def _who(entry: Entry) -> str:
    return f"{entry.status.get('host', '?')}, process {entry.status.get('pid', '?')}"


def names(jobs: Sequence[Job]) -> list[str]:
    """The folders' names without the digits at their ends, and without the settings that all jobs have."""
    parts = [job.entry.name.removesuffix(f"-{run_name(job.entry)}").split(",") for job in jobs]
    common = set.intersection(*map(set, parts)) if len(parts) > 1 else set()
    return [",".join(word for word in words if word not in common) or ",".join(words) for words in parts]


class _Screen:
    """Redraws in place on a terminal; elsewhere tells only what has changed."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()
        self.drawn = 0
        self.told: dict[Path, str] = {}

    def show(self, jobs: list[Job], over: bool) -> None:
        jobs = sorted(jobs, key=lambda job: order_of(job.state))
        if self.live:
            self._draw(jobs, over)
            return
        changed = [job for job in jobs if self.told.get(job.entry.folder.path) != job.state]
        self.told = {job.entry.folder.path: job.state for job in jobs}
        if changed:
            self._print([*as_text(as_table(changed))[0], overall(jobs), ""])

    def _draw(self, jobs: Sequence[Job], over: bool) -> None:
        """One write for the whole picture: each line overwrites the one before it, so nothing flickers."""
        size = shutil.get_terminal_size()
        room = max(1, size.lines - 4)
        shown = jobs if over else jobs[:room]
        lines, _ = as_text(as_table(shown), max(40, size.columns) - 1)
        if len(jobs) > len(shown):
            lines.append(f"... and {len(jobs) - len(shown)} more")
        lines.append(overall(jobs)[: size.columns - 1])
        up = f"\x1b[{self.drawn}F" if self.drawn else ""
        self.drawn = len(lines)
        self._print([f"{up}{lines[0]}\x1b[K", *(f"{line}\x1b[K" for line in lines[1:-1]), f"{lines[-1]}\x1b[K\x1b[J"])

    def _print(self, lines: Sequence[str]) -> None:
        print(printable("\n".join(lines), sys.stdout.encoding), flush=True)
