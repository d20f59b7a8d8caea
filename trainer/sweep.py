"""A sweep: jobs whose folders follow from their content, so that the same command again does what is missing."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from trainer import _hydra, config
from trainer.errors import BusyError, ConfigError, TrainerError
from trainer.folder import JOBS, SWEEP, RunFolder, shown, write_whole
from trainer.launchers import BUSY, Item, Launcher
from trainer.plugins import LAUNCHERS
from trainer.pruning import is_pruned
from trainer.run import Place, cut_short, experiment_of, named, resume_word, run
from trainer.signals import NUMBERS, TYPED, is_second

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from trainer.overrides import Job

def job_place(cfg: DictConfig, overrides: Sequence[str], choices: Mapping[str, Any]) -> Place:
    """The place of one job: `<runs>/<name or experiment>-sweep/<readable overrides>-<digest of its config>`.

    The digest alone decides: a folder of the same digest is used even if its readable part differs.
    """
    runs, name = named(cfg)
    root = runs / (name or f"{experiment_of(choices)}-sweep")
    digest = config.digest(cfg)
    ignored = ("name=", "runs=", "resume=", "wandb.", "hydra", "experiment=")
    words = [word for word in overrides if not word.lstrip("+~").startswith(ignored)]
    readable = re.sub(r"[^A-Za-z0-9_.=,+-]+", "_", ",".join(words))[:80].strip("_,.") or "job"
    same = sorted(root.glob(f"*-{digest}"))
    folder = RunFolder(same[0] if same else root / f"{readable}-{digest}")
    return Place(folder, resume_word(cfg.resume, "auto"), root, choices)


# ----------------------------------------------------------------------------------------------------------- one job


def live(cfg: DictConfig, at: Place) -> None:
    """One job from its start to its end, in a process of its own; leaves with the exit code of the run.

    What ends it stands in its folder, also where it could not start.
    """
    try:
        outcome = run(cfg, at)
    except BusyError as error:
        print(f"{at.folder.path.name}: {error}", flush=True)
        sys.exit(BUSY)
    except TrainerError as error:
        print(f"{at.folder.path.name}: {error}", flush=True)
        _failed(at.folder, str(error))
        sys.exit(error.exit_code)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        _failed(at.folder, f"{type(error).__name__}: {error}")
        sys.exit(1)
    sys.exit(outcome.exit_code)


def _failed(folder: RunFolder, why: str) -> None:
    if folder.state() == "finished":  # and resume=never was typed: its result stays
        return
    with contextlib.suppress(TrainerError, OSError):  # nothing can be written there, as was said
        folder.create()
        folder.write_status(state="failed", error=why)


# ---------------------------------------------------------------------------------------------------------- the sweep


class Sweep:
    """The jobs of a command line, until each is finished or has been tried.

    Jobs that another process trains are left to it and waited for; if it ends before them, this one goes on with them.

    Args:
        node: the `hydra` node of the command line, which says how jobs are launched.

    Raises:
        ConfigError: the launcher cannot be made.
    """

    def __init__(self, node: DictConfig) -> None:
        if not (target := str(node.launcher._target_)).startswith("trainer."):
            known = ", ".join(LAUNCHERS)
            raise ConfigError(f"hydra/launcher: jobs are not launched by {target} but by one of {known}")
        self.launcher: Launcher = _hydra.instantiate(node.launcher, "hydra.launcher")
        self.launcher.prepare()
        self.jobs: dict[str, Job] = {}
        self.places: dict[str, Place] = {}
        self.signal = 0  # that ended the sweep
        self._began = time.time()
        self._tried: set[str] = set()
        self._again: Counter[str] = Counter()
        self._running: set[str] = set()
        self._finished: set[str] = set()  # need not be looked at again

    def add(self, jobs: Iterable[Job], common: Iterable[str] = ()) -> list[str]:
        """More jobs, and the key of each; one of the same content is the same job.

        Args:
            common: words that tell no job from another, and so are in no folder's name.
        """
        jobs = list(jobs)
        common = {*common, *(set.intersection(*(set(job.words) for job in jobs)) if len(jobs) > 1 else ())}
        keys = []
        for job in jobs:
            at = job_place(job.cfg, [word for word in job.words if word not in common], job.choices)
            key = str(at.folder.path)
            if key not in self.jobs:
                self.jobs[key], self.places[key] = job, at
            keys.append(key)
        return keys

    def run(self) -> None:
        """Does what is missing, or as much of it as there is time for before a signal."""
        _note(self.places.values(), self.jobs.values())
        waited = False
        with self._signals():
            while not self.signal and (missing := [key for key in self.jobs if not self.over(key)]):
                if not all(self.held(key) for key in missing):
                    self._launch(missing)
                    continue
                if not waited:
                    names = "\n".join(f"  {self.places[key].folder.path.name}" for key in missing)
                    print(f"\nwaiting for what other processes train; Ctrl-C leaves them to it\n{names}", flush=True)
                waited = True
                time.sleep(0.5)

    def again(self, key: str) -> None:
        """Has `run` try a job once more."""
        self._tried.discard(key)

    def close(self) -> None:
        self.launcher.close()

    def status(self, key: str) -> dict[str, Any]:
        return self.places[key].folder.read_status()

    def over(self, key: str) -> bool:
        """Whether nothing is left to do: it is finished, or was tried by this sweep or by one beside it."""
        if key in self._finished:
            return True
        at, status = self.places[key], self.status(key)
        if status.get("state") == "finished" and at.resume != "never" and not cut_short(status, at):
            self._finished.add(key)
            return True
        beside = status.get("state") == "failed" and status.get("updated", 0) > self._began
        return (key in self._tried or beside) and not at.folder.held

    def _launch(self, keys: Sequence[str]) -> None:
        items = {}
        for key in keys:
            at = self.places[key]
            output = at.folder.path.parent / SWEEP / f"{at.folder.path.name}.txt"
            items[key] = Item(live, (self.jobs[key].cfg, at), output)
        if self.launcher.several:
            print(f"\n{len(keys)} of {len(self.jobs)} jobs to do; what they print: {shown(output.parent)}", flush=True)
        self.launcher.run(items, self)

    def held(self, key: str) -> bool:
        """As `Watcher.held`."""
        return self.places[key].folder.held

    def begun(self, key: str) -> None:
        """As `Watcher.begun`."""
        self._tried.add(key)
        self._running.add(key)
        if not self.launcher.several:
            at, number = self.places[key], list(self.jobs).index(key) + 1
            what = f"job {number} of {len(self.jobs)}" if at.trial is None else f"trial {at.trial.number}"
            print(f"\n{what}  {at.folder}", flush=True)

    def done(self, key: str, why: str, again: bool) -> None:
        """As `Watcher.done`."""
        self._running.discard(key)
        folder = self.places[key].folder
        if again and self._again[key] < 5:
            self._again[key] += 1
            self._tried.discard(key)
            return
        if why and folder.state() == "killed":
            folder.write_status(error=why)
        elif why and folder.state() == "not started":
            _failed(folder, why)
        if self.launcher.several or folder.state() != "finished":
            ended = sum(self.over(other) for other in self.jobs if other not in self._running)
            print(f"{f'{ended} of {len(self.jobs)}':>11}{line(folder)}", flush=True)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """While entered, a signal is handed on to the jobs, once, and the sweep ends when they have saved."""

        at = 0.0

        def note(number: int, _: FrameType | None) -> None:
            nonlocal at
            again = is_second(self.signal, number, at)  # a terminal that is closed may send SIGHUP twice
            if self.signal not in TYPED:
                self.signal, at = number, time.monotonic()
            self.launcher.signalled(again)

        numbers = [number for number in NUMBERS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _note(places: Iterable[Place], jobs: Iterable[Job]) -> None:
    """Keeps the names and the words of all jobs beside their folders: what is to come is shown in another terminal."""
    found: dict[Path, dict[str, list[str]]] = {}
    for at, job in zip(places, jobs, strict=True):
        found.setdefault(at.folder.path.parent / SWEEP / JOBS, {})[at.folder.path.name] = job.words
    for path, names in found.items():
        with contextlib.suppress(OSError):  # a run says better where nothing can be written
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(names, indent=1) + "\n")


def line(folder: RunFolder) -> str:
    """How a job stands, in a line."""
    status, state = folder.read_status(), folder.state()
    if state == "failed" and "attempt" not in status:
        state = "refused"  # it could not start
    result, monitor = status.get("result") or {}, status.get("monitor", "")
    best = (result.get("best") or {}).get(monitor)
    found = f"{monitor} {best:.4f} at epoch {result['best']['epoch']}" if best is not None else ""
    error = (status.get("error") or "").splitlines()[:1] if state in ("failed", "refused", "killed") else []
    if is_pruned(status):
        state, found, error = "pruned", "", [result["reason"].removeprefix("pruned ")]
    return f"  {state:<12} {folder.path.name}  {found}{' ' if found and error else ''}{''.join(error)}".rstrip()


def table(places: Sequence[Place]) -> tuple[str, bool]:
    """How every job of a sweep ended, a line each, and whether all are finished."""
    lines = [line(at.folder) for at in places]
    finished = [at.folder.state() for at in places].count("finished")
    root = places[0].sweep if places else None
    head = f"\n{root}: {finished} of {len(places)} jobs finished"
    return "\n".join([head, *lines]), finished == len(places)
