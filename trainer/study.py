"""A study of Optuna's: which trials there are, what each was given, and what has come of it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from trainer import _hydra
from trainer.errors import ConfigError
from trainer.space import Choices, Dimension, Interval, Space

DIRECTIONS: tuple[Literal["minimize"], Literal["maximize"]] = ("minimize", "maximize")


class Claims:
    """Which trials a living process has in hand: bytes of a file, each locked by one, and free when it is gone."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "a+b")  # noqa: SIM115

    def take(self, trial: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, trial + 1)
        except OSError:
            return False
        return True

    def free(self, trial: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, trial + 1)

    @contextlib.contextmanager
    def choosing(self) -> Iterator[None]:
        """While entered, no other process chooses or takes up trials."""
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, 0)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, 0)

    def close(self) -> None:
        self._file.close()


class Study:
    """The trials of a study, each with its words.

    What is drawn for a trial depends on the seed, its number and the results so far, and not on when a process began.

    Args:
        url, name: where the study is kept, and which it is there; a new one is begun.
        maximize: of each objective, whether more is better.
        sampler: an Optuna sampler by `_target_`. seed: of its draws, where it has none of its own.

    Raises:
        ConfigError: the storage cannot be used, or the sampler cannot be made.
    """

    def __init__(self, url: str, name: str, maximize: Sequence[bool], sampler: Mapping[str, Any], seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.name = name
        self._node = {key: value for key, value in sampler.items() if key != "seed"}
        self._seed = sampler.get("seed") or seed
        self._sampler(0)  # a mistake in it is told now
        directions = [DIRECTIONS[more] for more in maximize]
        waits = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None
        try:
            self._storage = optuna.storages.RDBStorage(url, engine_kwargs=waits)
            self._study = optuna.create_study(
                storage=self._storage, study_name=name, directions=directions, load_if_exists=True
            )
        except Exception as error:  # of the many packages that databases need
            reason = str(error).splitlines()[0]
            raise ConfigError(f"hydra.sweeper.storage: {url} cannot be used ({reason})") from error
        if [found.name.lower() for found in self._study.directions] != directions:
            raise ConfigError(f"hydra.sweeper.study_name: {name} has other directions; type another name")
        self._id = self._storage.get_study_id_from_name(name)

    def _sampler(self, number: int, *salt: str) -> optuna.samplers.BaseSampler:
        """The sampler for one draw: the same one however often a process was begun since."""
        digest = hashlib.sha256(repr((self._seed, number, salt)).encode()).hexdigest()
        made = _hydra.instantiate(self._node, "hydra.sweeper.sampler", seed=int(digest[:8], 16))
        if not isinstance(made, optuna.samplers.BaseSampler):
            raise ConfigError(f"hydra.sweeper.sampler: {self._node.get('_target_')} makes no sampler of Optuna's")
        return made

    def trials(self) -> list[FrozenTrial]:
        """All trials; the n-th has the number n."""
        return self._study.get_trials(deepcopy=False)

    def ask(self, space: Space, number: int) -> list[str]:
        """The words of a trial, new or left half chosen by a kill, for which it comes to the same.

        Raises:
            ConfigError: the study has searched another space.
        """
        if number == len(self.trials()):
            self._study.sampler = self._sampler(number)
            self._study.ask()
        self._study.sampler = self._sampler(number)
        trial = optuna.trial.Trial(self._study, self._trial(number))

        def pick(dimension: Dimension) -> tuple[str, ...]:
            self._study.sampler = self._sampler(number, *dimension.keys)
            return _suggest(trial, dimension)

        try:
            words = space.words(pick)
        except ValueError as error:
            told = f"{self.name} has searched something else ({error}); type another name"
            raise ConfigError(f"hydra.sweeper.study_name: {told}") from error
        trial.set_user_attr("words", words)
        return words

    def note(self, number: int, **values: Any) -> None:
        """Keeps something with a trial."""
        for name, value in values.items():
            self._storage.set_trial_user_attr(self._trial(number), name, value)

    def complete(self, number: int, values: Sequence[float]) -> None:
        self._end(number, TrialState.COMPLETE, values)

    def prune(self, number: int, reason: str) -> None:
        self._end(number, TrialState.PRUNED, reason=reason)

    def fail(self, number: int, reason: str) -> None:
        self._end(number, TrialState.FAIL, reason=reason)

    def _end(
        self, number: int, state: TrialState, values: Sequence[float] | None = None, **notes: str
    ) -> None:
        if not self.trials()[number].state.is_finished():
            self.note(number, **notes)
            self._study.tell(number, values, state, skip_if_finished=True)

    def values(self, number: int, values: Mapping[int, float]) -> None:
        """What an unfinished trial has come to so far, by epoch or step."""
        if not self.trials()[number].state.is_finished():
            for at, value in values.items():
                self._storage.set_trial_intermediate_value(self._trial(number), at, value)

    def best(self) -> list[FrozenTrial]:
        """The best trial, of several objectives all that no other beats in each; equal jobs once."""
        if not any(trial.state == TrialState.COMPLETE for trial in self.trials()):
            return []
        found = self._study.best_trials if len(self._study.directions) > 1 else [self._study.best_trial]
        return list({tuple(trial.user_attrs["words"]): trial for trial in reversed(found)}.values())[::-1]

    def _trial(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)


def _suggest(trial: optuna.Trial, dimension: Dimension) -> tuple[str, ...]:
    """A value of a dimension as it is typed."""
    name = ",".join(dimension.keys)
    if isinstance(dimension, Interval):
        low, high, log = dimension.low, dimension.high, dimension.log
        if dimension.whole:
            return dimension.entry(trial.suggest_int(name, round(low), round(high), log=log))
        return dimension.entry(trial.suggest_float(name, low, high, log=log))
    if dimension.step:
        return _suggest_step(trial, name, dimension)
    entries = {",".join(entry): entry for entry in dimension.entries}
    return entries[trial.suggest_categorical(name, list(entries))]


def _suggest_step(trial: optuna.Trial, name: str, dimension: Choices) -> tuple[str, ...]:
    """Of a `range`: its numbers have an order, which the sampler uses."""
    numbers = [float(entry[0]) for entry in dimension.entries]
    if all(number.is_integer() for number in (*numbers, dimension.step)):
        low, high, step = int(min(numbers)), int(max(numbers)), abs(int(dimension.step))
        value: float = trial.suggest_int(name, low, high, step=step)
    else:
        value = trial.suggest_float(name, min(numbers), max(numbers), step=abs(dimension.step))
    return min(dimension.entries, key=lambda entry: abs(float(entry[0]) - value))
