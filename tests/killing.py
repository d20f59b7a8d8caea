"""Real trainings that are killed with SIGKILL and typed again, and what then differs from the one that never was."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import re
import select
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.commands import Command
from tests.remains import LITTER, differences, result, rows, unsent
from tests.small import newest
from trainer.errors import TrainerError

ROOT = Path(__file__).resolve().parents[1]
USER = ROOT / "tests" / "user"  # a dataset and a model of their own, as a user has them in the working directory
SAMPLES, BATCH, LIMIT = 266, 16, 0.5  # training samples, samples of a batch, norm that gradients are clipped to

SCHEDULES = {
    "cosine": ["warmup=linear", "warmup.length=10%", "scheduler=cosine", "optimizer.lr=0.004"],
    "plateau": ["scheduler=plateau", "scheduler.patience=0", "scheduler.factor=0.5", "optimizer.lr=0.004"],
    "onecycle": ["scheduler=onecycle", "optimizer.lr=0.01"],
    "cyclic": ["scheduler=cyclic", "scheduler.half_cycle=11steps", "scheduler.shape=triangular2", "optimizer=nag"],
}


@dataclass(frozen=True)
class Combination:
    """One way to train. Without workers and accumulation it takes the fast path of data in memory."""

    schedule: str
    workers: int
    accumulate: int
    ema: str
    wandb: str = "disabled"

    @property
    def name(self) -> str:
        return f"{self.schedule}-w{self.workers}-a{self.accumulate}-{'ema' if self.ema == 'ema' else 'raw'}"

    @property
    def augmented(self) -> bool:
        return self.workers > 0 or self.accumulate > 1

    @property
    def words(self) -> list[str]:
        """What is typed, but for the run's name."""
        lengths = {1: ["epochs=14", "checkpoint_every=5steps"], 3: ["epochs=24", "checkpoint_every=4steps"]}
        return [
            *("experiment=none", "data=mine", "model=mine", "task=classification", *SCHEDULES[self.schedule]),
            *(f"data.augment={str(self.augmented).lower()}", f"data.num_workers={self.workers}"),
            *(f"data.training={SAMPLES}", f"batch_size={BATCH}"),
            *(f"accumulate={self.accumulate}", *lengths[self.accumulate]),
            *(f"ema={self.ema}", *(["ema.decay=0.9"] if self.ema == "ema" else [])),
            "evaluate_every=1epoch" if self.schedule in ("cosine", "cyclic") else "evaluate_every=7steps",
            "log_every=1steps" if self.ema == "none" else "log_every=3steps",
            *("clip=norm", f"clip.norm={LIMIT}", "early_stopping=patience", "early_stopping.patience=7"),
            *(f"wandb.mode={self.wandb}", "world.threads=1", "runs=runs", "resume=auto"),
        ]


# ---------------------------------------------------------------------------------------------------- one life of a run

STARTING, EARLY, TRAINING, SAVING, EVALUATING = MOMENTS = ("starting", "early", "training", "saving", "evaluating")
"""Where a kill falls: before the first update of a life; before there is any checkpoint; in training alone; while a
checkpoint is being written; in an evaluation or between it and the next update."""

PAUSE = {STARTING: 0.7, EARLY: 0.005, TRAINING: 0.05, SAVING: 0.005, EVALUATING: 0.01}
"""Seconds at most from when a moment has come to the kill."""

PATIENCE = 120.0  # seconds that a life may take
HELD: list[Any] = []  # by the process that trains, and by all that it forks


def hold(pulse: Any) -> None:
    HELD.append(pulse)


@dataclass(frozen=True)
class Moment:
    """When to kill: in that kind of moment, once that step is logged, after a pause; the process or its whole group."""

    kind: str
    step: int
    pause: float
    group: bool


def moments(kills: int, steps: int, chance: random.Random) -> list[Moment]:
    """As many moments, spread over a run of that many steps, of every kind where there are enough."""
    rest = [TRAINING, EARLY, STARTING]
    chance.shuffle(rest)
    cycle = [SAVING, EVALUATING, *rest, SAVING, TRAINING, EVALUATING, SAVING, TRAINING]
    kinds = [cycle[n % len(cycle)] for n in range(kills)]
    chance.shuffle(kinds)
    kinds.sort(key=lambda kind: kind != EARLY)
    places = sorted(chance.randrange(int(0.85 * steps)) for _ in kinds)
    return [
        Moment(kind, step, chance.uniform(0, PAUSE[kind]), chance.random() < 0.5)
        for kind, step in zip(kinds, places, strict=True)
    ]


class Life:
    """One process that trains the run `name` in the folder `home`, watched from outside."""

    def __init__(self, home: Path, words: list[str], name: str) -> None:
        self.folder, self.trace = home / "runs" / name, home / "trace"
        self.begin = self.trace.stat().st_size if self.trace.exists() else 0
        self.pulse, held = multiprocessing.Pipe(False)  # at its end once all are dead that hold the other side
        self.command = Command("train", *words, f"name={name}", cwd=home, first=partial(hold, held))
        self.process = self.command.process
        held.close()
        self.until = time.monotonic() + PATIENCE
        self.said = ""

    def end(self, moment: Moment | None = None) -> int:
        """Waits until the process ends, or kills it in that moment; returns its exit code, negative if by a signal."""
        pause = moment.pause if moment else 0.0
        try:
            while self.process.exitcode is None and time.monotonic() < self.until:
                if moment is None or not self.come(moment):
                    time.sleep(0.0005 if moment else 0.02)
                    continue
                time.sleep(pause)
                self.send(signal.SIGSTOP)  # it may be over already: a save takes milliseconds
                time.sleep(0.002)
                if self.come(moment):
                    break
                self.send(signal.SIGCONT)
                pause /= 2
            if moment is not None and moment.group and self.process.exitcode is None:
                self.command.kill_group()
        finally:
            self.process.kill()  # does nothing to a process that has ended
        ended = self.command.wait()
        self.said = ended.out + ended.err
        return ended.code

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def outlived(self) -> bool:
        """Whether a process that it started goes on without it; loader workers look every 5 seconds if they should."""
        left = not select.select([self.pulse], [], [], 15.0)[0]
        if left:
            self.command.kill_group()
        self.pulse.close()
        return left

    def come(self, moment: Moment) -> bool:
        """Whether it is time. An early or starting moment that was missed does not come again: any other will do."""
        if moment.kind == STARTING:
            return True
        now = self.now()
        if moment.kind == EARLY:
            return now != {STARTING}
        return moment.kind in now and self.step() >= moment.step

    def where(self, moment: Moment) -> str:
        """In which kind of moment the process was killed: the one that was meant, if it is among several."""
        now = self.now()
        return next(kind for kind in (moment.kind, SAVING, EVALUATING, *MOMENTS) if kind in now)

    def now(self) -> set[str]:
        """The kinds of moment that this is, as far as can be seen from outside, also after the end."""
        seen = self.forwards()
        if b"t" not in seen:
            return {STARTING}
        found = {SAVING} if self.saving() else set()
        found |= {EVALUATING} if seen.endswith(b"e") else set()
        found |= set() if any(self.folder.glob("checkpoints/step-*/manifest.json")) else {EARLY}
        return found or {TRAINING}

    def forwards(self) -> bytes:
        """A letter for each batch that the model has seen in this life: t in training, e in evaluation."""
        with contextlib.suppress(FileNotFoundError), open(self.trace, "rb") as file:
            file.seek(self.begin)
            return file.read()
        return b""

    def saving(self) -> bool:
        """Whether this process has a checkpoint half written."""
        return any(self.folder.glob(f"checkpoints/.tmp-*-{self.process.pid}"))

    def step(self) -> int:
        """The step of the newest row, 0 where there is none."""
        with contextlib.suppress(FileNotFoundError), open(self.folder / "metrics.jsonl", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 1000))
            return max(map(int, re.findall(rb'"step": (\d+),', file.read())), default=0)
        return 0


# ---------------------------------------------------------------------------------------------- what must have happened


def unproven(run: Path, combination: Combination) -> list[str]:
    """What did not happen in a run though a comparison with it ought to prove that it is kept."""
    history, (_, state), groups = rows(run), newest(run), -(-SAMPLES // BATCH) / combination.accumulate
    rates = [row["lr"] for row in history]
    turns = sum((b - a) * (c - b) < 0 for a, b, c in zip(rates, rates[1:], rates[2:], strict=False))
    moved = {
        "cosine": rates[0] < max(rates) and rates[-1] < 0.7 * max(rates),
        "plateau": rates[-1] <= 0.25 * rates[0] and rates == sorted(rates, reverse=True),
        "onecycle": turns == 1 and rates[0] < max(rates) > rates[-1],
        "cyclic": turns >= 4,
    }
    losses = [row["val/loss"] for row in history if "val/loss" in row]
    stale = [value >= min(losses[:n]) for n, value in enumerate(losses) if n]
    drawn: dict[str, set[str]] = {}
    for line in (run.parents[1] / "drawn").read_text().splitlines():
        drawn.setdefault(line.split()[0], set()).add(line.split()[1])
    varied = len(drawn) == SAMPLES and min(map(len, drawn.values())) > 2
    averaged = "model" in state and state["ema"]["average"] != state["model"]
    happened = {
        f"the rate of {combination.schedule} did not move as it does": moved[combination.schedule],
        "patience had nothing to count": any(map(all, zip(stale, stale[1:], strict=False))) and not all(stale),
        "no gradient was clipped": any(row["train/grad_norm"] > LIMIT for row in history),
        "no batch was ragged": SAMPLES % BATCH > 1,
        "no group was ragged": combination.accumulate == 1 or groups != int(groups),
        "the averaged weights are the trained ones": averaged == (combination.ema == "ema"),
        "a sample was the same in all epochs": varied or not combination.augmented,
    }
    return [f"nothing is proven: {what}" for what, true in happened.items() if not true]


# ---------------------------------------------------------------------------------------------------------- the account


@dataclass
class Account:
    """What became of a run that was killed again and again.

    Attributes:
        wanted: kills. fell: how many fell in which kind of moment.
        lives: the processes, the first one that of the run that was not killed.
        steps, ended: how far the run that was never killed came, and why it ended.
        faults: what differs, failed, or proves nothing.
    """

    combination: Combination
    wanted: int
    fell: Counter[str] = field(default_factory=Counter)
    lives: list[Life] = field(default_factory=list)
    steps: int = 0
    ended: str = ""
    faults: list[str] = field(default_factory=list)

    @property
    def differs(self) -> bool:
        """Whether there is any fault but litter."""
        return any(not fault.startswith(LITTER) for fault in self.faults)


def torment(combination: Combination, home: Path, kills: int, seed: int) -> Account:
    """Trains once without a kill and once with that many, both in the folder `home`, and compares."""
    account = Account(combination, kills)
    shutil.copytree(USER, home, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    try:
        account.faults += _torment(account, home, random.Random(f"{seed} {combination.name}"))
    except (TrainerError, AssertionError, LookupError, OSError, ValueError) as error:
        account.faults.append(f"cannot be compared: {error!r}")
    haunted = [str(n) for n, life in enumerate(account.lives) if life.outlived()]
    account.faults += [f"{LITTER}: processes of life {', '.join(haunted)}"] if haunted else []
    return account


def _torment(account: Account, home: Path, chance: random.Random) -> Iterator[str]:
    combination, whole, cut = account.combination, home / "runs/whole", home / "runs/cut"
    account.lives.append(life := Life(home, combination.words, "whole"))
    if code := life.end():
        yield f"the run that was not killed ended with {code}: {_tail(life.said)}"
        return
    account.steps, account.ended = result(whole)["step"], result(whole)["reason"]
    yield from unproven(whole, combination)
    for moment in [*moments(account.wanted, account.steps, chance), None]:
        account.lives.append(life := Life(home, combination.words, "cut"))
        code = life.end(moment)
        if code == -signal.SIGKILL and moment:
            account.fell[life.where(moment)] += 1
        elif code:
            yield f"life {len(account.lives) - 1} ended with {code}: {_tail(life.said)}"
            return
    if account.fell.total() < account.wanted:
        yield f"{account.fell.total()} kills instead of {account.wanted}"
    yield from differences(whole, cut)
    if combination.wandb == "offline":
        yield from unsent(cut)


def _tail(text: str) -> str:
    return " | ".join(text.split("\n")[-8:])
