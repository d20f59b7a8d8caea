"""Real sweeps that are killed, in parts or whole, and typed again; what then differs from one that never was."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.commands import Command, Ended
from tests.remains import differences, rows

SMALL = ["experiment=digits", "model=mlp", "debug=quick", "epochs=1", "wandb.mode=disabled", "world.threads=1"]
LONG = ["experiment=digits", "model=mlp", "epochs=2000", "early_stopping=none", "evaluate_every=500epochs",
        "log_every=1steps", "checkpoint_every=1000000steps", "wandb.mode=disabled", "world.threads=1"]  # fmt: skip


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """What the condition is once it is true, which it must be within that time."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)
    return found


def statuses(home: Path) -> dict[str, dict[str, Any]]:
    """What each job's status.json says, by the name of its folder."""
    found = {}
    for path in sorted(home.glob("runs/*/*/status.json")):
        with contextlib.suppress(OSError, ValueError):
            found[path.parent.name] = json.loads(path.read_text())
    return found


def states(home: Path) -> list[str]:
    return [status.get("state", "") for status in statuses(home).values()]


def training(home: Path, least: int = 1) -> list[Path]:
    """The folders of at least so many jobs that are training now, else none."""
    found = [path.parent for path in home.glob("runs/*/*/metrics.jsonl") if path.stat().st_size > 2000]
    found = [path for path in found if statuses(home)[path.name].get("state") == "running"]
    return found if len(found) >= least else []


def offspring(pid: int) -> list[int]:
    """The processes that a process has started."""
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def family(pid: int) -> list[int]:
    """A process and all that came of it."""
    return [pid, *(one for child in offspring(pid) for one in family(child))]


def typed(home: Path, *words: str, env: Mapping[str, str] | None = None) -> Ended:
    """Types a sweep, and waits for its end; on a machine with other work that may take its time."""
    return Command("train", *words, cwd=home, env=env).wait(200)


def kill(*pids: int, number: int = signal.SIGKILL) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


# ---------------------------------------------------------------------------------------------------------- the harness

KINDS = ("parent", "child", "all", "forking")
LAUNCHERS: dict[str, list[str]] = {
    "basic": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra/launcher=submitit_local", "hydra.launcher.n_jobs=2"],
}
EVERY = 10  # steps between two checkpoints


@dataclass(frozen=True)
class Blow:
    """A kill: of what, once so many jobs are finished and another one trains, after a pause in seconds."""

    kind: str
    finished: int
    pause: float


@dataclass
class Account:
    """What became of a sweep that was killed again and again.

    Attributes:
        fell: how often what was killed. calls: how often the command was typed. attempts: how often jobs were begun.
        twice: steps that were done more than once. last: seconds of the call that found all done.
        faults: what differs from the sweep that was never killed, or failed.
    """

    launcher: str
    jobs: int
    fell: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    attempts: int = 0
    twice: int = 0
    last: float = 0.0
    faults: list[str] = field(default_factory=list)


def words(seeds: int, epochs: int, launcher: str) -> list[str]:
    """A sweep of 4 x seeds jobs of 45 steps an epoch."""
    return [
        *("-m", "experiment=digits", "model=mlp", f"epochs={epochs}", "wandb.mode=disabled", "world.threads=1"),
        *("log_every=1steps", f"checkpoint_every={EVERY}steps", "optimizer=sgd,adamw", "optimizer.lr=0.001,0.004"),
        *(f"seed=range({seeds})", *LAUNCHERS[launcher]),
    ]


def blows(count: int, jobs: int, chance: random.Random) -> list[Blow]:
    """Kills of each kind in turn, spread over a sweep."""
    kinds = [KINDS[n % len(KINDS)] for n in range(count)]
    chance.shuffle(kinds)
    places = sorted(chance.randrange(max(1, jobs - 3)) for _ in kinds)  # two at a time are soon over
    return [Blow(kind, place, chance.uniform(0, 0.6)) for kind, place in zip(kinds, places, strict=True)]


def torment(launcher: str, home: Path, whole: Path, kills: int, seeds: int, epochs: int, seed: int) -> Account:
    """A sweep in the folder `home` that is killed so often, compared with the one in the folder `whole`."""
    account = Account(launcher, 4 * seeds)
    home.mkdir(parents=True)
    done: dict[str, str] = {}  # what is finished stays as it is
    running = _Sweep(home, words(seeds, epochs, launcher), account)
    for blow in blows(kills, account.jobs, random.Random(f"{seed} {launcher}")):
        struck = False
        while not struck and states(home).count("finished") < account.jobs:
            until(partial(running.come, blow.finished), 300)
            time.sleep(blow.pause)
            struck = running.strike(blow.kind)
        _remember(home, done)
    while running.end().code != 0:
        _remember(home, done)
        if account.calls > kills + 6:
            account.faults.append(f"it never ended well: {running.said[-1500:]}")
            return account
        running.start()
    begin = time.monotonic()
    answer = typed(home, *words(seeds, epochs, launcher))
    account.last = time.monotonic() - begin
    if answer.code or "job 1 of" in answer.out or "to do" in answer.out:
        account.faults.append(f"the last call does not just answer: {answer.out[:500]}")
    if account.fell.total() < kills:
        account.faults.append(f"{account.fell.total()} kills instead of {kills}")
    account.faults += compare(account, home, whole, done)
    return account


def compare(account: Account, home: Path, whole: Path, done: Mapping[str, str]) -> Sequence[str]:
    told, found = [], statuses(home)
    if len(found) != account.jobs or len(statuses(whole)) != account.jobs:
        return [f"{len(found)} jobs instead of {account.jobs}"]
    for name, status in found.items():
        (one,), (other,) = whole.glob(f"runs/*/{name}"), home.glob(f"runs/*/{name}")
        steps = [row["step"] for row in rows(other)]
        if steps != list(range(1, len(rows(one)) + 1)):
            told.append(f"{name}: {len(steps)} rows, not one of each step")
        if name in done and done[name] != (other / "status.json").read_text():
            told.append(f"{name}: was finished, and was touched again")
        for difference in differences(one, other):
            extra = difference.startswith("checkpoints: ") and "best" not in difference  # saved when it was told to end
            told += [f"{name}: {difference}"] if not extra and "left behind" not in difference else []
        account.attempts += status.get("attempt", 1)
    return told


def _remember(home: Path, done: dict[str, str]) -> None:
    for path in home.glob("runs/*/*/status.json"):
        with contextlib.suppress(OSError, ValueError):
            text = path.read_text()
            if json.loads(text).get("state") == "finished":
                done.setdefault(path.parent.name, text)


class _Sweep:
    """The command that sweeps, typed again whenever it has ended."""

    def __init__(self, home: Path, words: list[str], account: Account) -> None:
        self.home, self.words, self.account, self.said = home, words, account, ""
        self.start()

    def start(self) -> None:
        self.account.calls += 1
        self.command = Command("train", *self.words, cwd=self.home)

    def end(self) -> Ended:
        ended = self.command.wait(300)
        self.said = ended.out + ended.err
        if "Traceback" in self.said:
            self.account.faults.append(self.said[-1500:])
        return ended

    def come(self, finished: int) -> list[int]:
        """The processes that train, once so many jobs are finished; a sweep that has ended is typed again."""
        if self.command.process.exitcode is not None:
            self.end()
            self.start()
        found = statuses(self.home).values()
        if (done := sum(status.get("state") == "finished" for status in found)) < finished:
            return []
        if done == self.account.jobs:
            return [0]  # there is nothing left to kill
        return [pid for pid in self._jobs() if any(status.get("pid") == pid for status in found)]

    def _jobs(self) -> list[int]:
        """The processes of jobs: what was forked by the one that forks, or started by submitit's controllers."""
        return [job for between in offspring(self.command.process.pid or 0) for job in offspring(between)]

    def strike(self, kind: str) -> bool:
        """Kills; whether there was anything to be killed."""
        parent = self.command.process.pid or 0
        if self.command.process.exitcode is not None or not (jobs := self._jobs()):
            return False
        alive = {"parent": [parent], "child": jobs[:1], "all": family(parent), "forking": offspring(parent)[:1]}
        before = self._steps()
        kill(*alive[kind])
        self.account.fell[kind] += 1
        if kind in ("parent", "all"):
            self.command.process.join()
            self.end()
            self.start()
        self.account.twice += sum(before.values()) if kind in ("child", "all") else 0
        return True

    def _steps(self) -> dict[str, int]:
        """Of each job that trains the steps that came after its last checkpoint, which a kill has done again."""
        found = {}
        for folder in training(self.home):
            saved = [int(path.parent.name[5:]) for path in folder.glob("checkpoints/step-*/manifest.json")]
            last = (folder / "metrics.jsonl").read_bytes().count(b"\n")
            found[folder.name] = max(0, last - max(saved, default=0))
        return found
