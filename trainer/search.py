"""A search: Optuna chooses the jobs of a sweep, a few at a time, by what those before have come to."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from trainer import _hydra, config
from trainer.consistency import measures
from trainer.errors import ConfigError
from trainer.folder import SWEEP, RunFolder, shown, write_whole
from trainer.overrides import check_jobs, check_sweep
from trainer.pruning import Rule, Trial, history, is_pruned
from trainer.run import Place
from trainer.space import Grid, Space, check_count
from trainer.sweep import Sweep, job_place, table

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass
class Optuna(Grid):
    """Trials chosen by Optuna, whose study is kept, so that the same command goes on with it.

    Args:
        n_trials: how many there are in all, those included that were ended early or have failed.
        n_jobs: how many are chosen at a time; null is as many as the launcher runs at once.
        metrics: what is searched for, as the best epoch of a run has it; null is `early_stopping.monitor`.
        direction: of each metric, `minimize` or `maximize`; null asks the task.
        sampler: an Optuna sampler by `_target_`. pruner: what ends trials early.
        study_name: null makes one of all that decides what is chosen. storage: null is a file in the sweep's folder.
        seed: another one draws others.
    """

    n_trials: int = 20
    n_jobs: int | None = None
    metrics: Any = None
    direction: Any = None
    sampler: Any = field(default_factory=dict)
    pruner: Any = field(default_factory=dict)
    study_name: str | None = None
    storage: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if importlib.util.find_spec("optuna") is None:
            raise ConfigError('hydra/sweeper: optuna is not installed; type pip install "wandb-trainer[optuna]"')
        check_count("n_trials", self.n_trials)
        check_count("seed", self.seed, least=0)
        if self.n_jobs is not None:
            check_count("n_jobs", self.n_jobs)
        for name in ("sampler", "pruner"):
            if not isinstance(found := getattr(self, name), dict):
                raise ConfigError(f"{name}: {found!r} is a file of a group; type hydra/sweeper/{name}={found}")
        self.metrics = _listed(self.metrics)
        self.direction = _listed(self.direction)
        for word in self.direction:
            if word not in ("minimize", "maximize"):
                raise ConfigError(f"direction: {word!r} is unknown; use minimize or maximize")

    def jobs(self, space: Space) -> list[list[str]]:
        if not space.dimensions:
            raise ConfigError("hydra/sweeper: there is nothing to choose; give a list or an interval, such as "
                              "'optimizer.lr=tag(log,interval(1e-4,1e-1))'")  # fmt: skip
        return space.corners()

    def objectives(self, cfg: DictConfig) -> dict[str, bool]:
        """Each metric that is searched for, and whether more of it is better.

        Raises:
            ConfigError: that is not known.
        """
        names = self.metrics or [str(cfg.early_stopping.monitor)]
        if self.direction and len(self.direction) != len(names):
            told = f"{len(self.direction)} for {len(names)} metrics ({', '.join(names)}); give one for each"
            raise ConfigError(f"hydra.sweeper.direction: {told}, as in [maximize,minimize]")
        if self.direction:
            return {name: word == "maximize" for name, word in zip(names, self.direction, strict=True)}
        better = {f"val/{name}": mode for name, mode in measures(config.plain(cfg)).items()}
        if cfg.early_stopping.mode in ("min", "max"):
            better[str(cfg.early_stopping.monitor)] = cfg.early_stopping.mode
        better |= dict.fromkeys(("seconds", "time", "step", "epoch", "train/loss"), "min")
        if unknown := [name for name in names if name not in better]:
            word = "maximize" if len(names) == 1 else f"[{','.join(['maximize'] * len(names))}]"
            told = f"the task does not say if more {unknown[0]} is better"
            raise ConfigError(f"hydra.sweeper.direction: {told}; type hydra.sweeper.direction={word} or minimize")
        return {name: better[name] == "max" for name in names}


def _listed(value: Any) -> list[str]:
    return [] if value is None else [str(entry) for entry in (value if isinstance(value, list) else [value])]


def search(sweeper: Optuna, overrides: Sequence[str], sweep: Sweep) -> tuple[str, bool]:
    """Runs the trials of a command line; returns how they ended, in words, and whether none failed or is missing."""
    found = Search(sweeper, overrides, sweep)
    try:
        found.run()
        return found.report()
    finally:
        found.close()


class Search:
    """The trials of a study, each a job of a sweep, until there are as many as asked for.

    A trial is known to the study with all its values before its job begins, and told of its result after that has
    ended; so one that a kill leaves in between is gone on with. What the sampler draws depends on the seed, the trial's
    number and the results before it, and not on when the program was started.

    Args:
        overrides: the words of the command line. sweep: what runs the jobs.

    Raises:
        ConfigError: every mistake in what may be chosen, and in the search.
    """

    def __init__(self, sweeper: Optuna, overrides: Sequence[str], sweep: Sweep) -> None:
        from trainer.study import Claims, Study  # which brings optuna

        first = check_sweep(overrides)[0]
        self.sweeper, self.sweep, self.space = sweeper, sweep, sweeper.space(overrides)
        self.objectives = sweeper.objectives(first.cfg)
        self.rule: Rule | None = _hydra.instantiate(sweeper.pruner, "hydra.sweeper.pruner") or None
        if self.rule is not None and len(self.objectives) > 1:
            raise ConfigError("hydra/sweeper/pruner: with several metrics none is left behind; type none")
        self.size = sweeper.n_jobs or sweep.launcher.at_once
        self.root = job_place(first.cfg, first.words, first.choices).folder.path.parent / SWEEP
        name = sweeper.study_name or self._digest(config.digest(first.cfg))
        self.storage = sweeper.storage or f"sqlite:///{self.root / 'study.db'}"
        self.claims = Claims(self.root / f"{name}.lock")
        self.index = self.root / f"{name}.json"
        with self.claims.choosing():
            directions = list(self.objectives.values())
            self.study = Study(self.storage, name, directions, sweeper.sampler, sweeper.seed)
        self._killed: set[int] = set()
        self._left: set[int] = set()  # trials whose jobs did not end in this process: the next goes on with them

    def _digest(self, first: str) -> str:
        """What names a study: all that decides which trials are chosen, and not how many."""
        rest = (self.sweeper.sampler, self.sweeper.pruner, self.sweeper.seed)
        decides = [first, self.space.dimensions, self.space.only, self.objectives, rest]
        return hashlib.sha256(repr(decides).encode()).hexdigest()[:10]

    # ------------------------------------------------------------------------------------------------------ the trials

    def run(self) -> None:
        """Runs what is missing, or as much of it as there is time for before a signal."""
        waited = False
        while not self.sweep.signal:
            if (batch := self._batch()) is not None:
                if batch:  # else none of them could be composed
                    self.sweep.run()
                for number, key in batch.items():
                    self._tell(number, key)
            elif self._unfinished():
                if not waited:
                    print("\nwaiting for trials of other processes; Ctrl-C leaves them to it", flush=True)
                waited = True
                time.sleep(0.5)
            else:
                return

    def _unfinished(self) -> bool:
        return any(not trial.state.is_finished() for trial in self.study.trials() if trial.number not in self._left)

    def _batch(self) -> dict[int, str] | None:
        """Trials for this process, and the job of each: those that a process has left, or new ones; None if no more.

        New ones are chosen up to a multiple of the number that runs at once, so that it makes no difference where
        a kill came.
        """
        with self.claims.choosing():
            trials = self.study.trials()
            left = [trial for trial in trials if not trial.state.is_finished() and trial.number not in self._left]
            mine = [trial for trial in left if self.claims.take(trial.number)]
            chosen = {t.number: t.user_attrs.get("words") or self.study.ask(self.space, t.number) for t in mine}
            number = len(trials)
            while number < self.sweeper.n_trials and (not chosen or number % self.size):
                self.claims.take(number)
                chosen[number] = self.study.ask(self.space, number)
                number += 1
            return self._as_jobs(chosen) if chosen else None

    def _as_jobs(self, chosen: Mapping[int, list[str]]) -> dict[int, str]:
        """The jobs of trials, added to the sweep; one that cannot be composed has failed."""
        keys = {}
        for number, words in chosen.items():
            try:
                keys[number] = self.sweep.add(check_jobs([words]), set(words) - set(self._swept(words)))[0]
            except ConfigError as error:
                self.study.fail(number, str(error))
        folders = {t.number: t.user_attrs["folder"] for t in self.study.trials() if "folder" in t.user_attrs}
        for number, key in keys.items():
            folders[number] = os.path.relpath(key, self.root)
            self.study.note(number, folder=folders[number])
            if self.sweep.places[key].trial is None:
                metric, maximize = next(iter(self.objectives.items()))
                trial = Trial(number, self.index, metric, maximize, self.rule)
                self.sweep.places[key] = replace(self.sweep.places[key], trial=trial)
        write_whole(self.index, json.dumps(folders, indent=1) + "\n")
        return keys

    def _swept(self, words: Sequence[str]) -> list[str]:
        return [word for word in words if word.partition("=")[0].lstrip("+") not in self.space.fixed]

    def _tell(self, number: int, key: str) -> None:
        """The study learns how a trial's job has ended; of one that did not end it goes on not to know."""
        status, folder = self.sweep.status(key), self.sweep.places[key].folder
        if status.get("state") == "failed":
            self.study.fail(number, (status.get("error") or "failed").splitlines()[0])
        elif status.get("state") != "finished":
            if number in self._killed:
                self._left.add(number)
            else:  # those after it are chosen by what it comes to, so it is tried once more
                self._killed.add(number)
                self.sweep.again(key)
        else:
            if len(self.objectives) == 1:
                unit = self.rule.unit if self.rule else "epoch"
                self.study.values(number, history(folder, next(iter(self.objectives)), unit))
            result = status.get("result") or {}
            if is_pruned(status):
                self.study.prune(number, result["reason"])
            elif lost := [name for name in self.objectives if math.isnan(_value(result, name))]:
                self.study.fail(number, f"{' and '.join(lost)} is no number in the run's best row")
            else:
                self.study.complete(number, [_value(result, name) for name in self.objectives])
        self.claims.free(number)

    # --------------------------------------------------------------------------------------------------------- the end

    def report(self) -> tuple[str, bool]:
        """How every trial ended, the best, and the command that trains it again; and whether none has failed."""
        trials = self.study.trials()
        folders = dict.fromkeys(str(t.user_attrs["folder"]) for t in trials if "folder" in t.user_attrs)
        places = [Place(RunFolder(os.path.normpath(self.root / name)), sweep=self.root.parent) for name in folders]
        text, all_finished = table(places)
        states = [trial.state.name.lower() for trial in trials]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))
        where = self.sweeper.storage or shown(self.root / "study.db")
        lines = [f"{text}\n", f"study  {self.study.name} in {where}: {len(trials)} trials: {counts}"]
        for trial in self.study.best():
            values = ", ".join(f"{n} {v:.4g}" for n, v in zip(self.objectives, trial.values, strict=True))
            swept = " ".join(self._swept(trial.user_attrs["words"]))
            lines.append(f"best   trial {trial.number}: {values}  {swept}")
            lines.append(f"again  trainer {shlex.join(trial.user_attrs['words'])}")
        if "running" in states:
            lines.append("\nthe same command again goes on with the trials that are running no more")
        return "\n".join(lines), all_finished and not {"fail", "running"} & set(states)

    def close(self) -> None:
        self.claims.close()


def _value(result: Mapping[str, Any], name: str) -> float:
    """A metric of a run: at its best evaluation, else at its end."""
    for row in (result.get("best") or {}, result.get("last") or {}, result):
        if isinstance(value := row.get(name), (int, float)):
            return float(value)
    return math.nan
