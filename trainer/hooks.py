"""Observers of a training: they see everything and steer nothing. What can change a run is a part of the loop."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainer.errors import did_you_mean
from trainer.records import Evaluation, Outcome, Row
from trainer.state import Stateful

if TYPE_CHECKING:
    from pathlib import Path

    from trainer.loop import Trainer

log = logging.getLogger("trainer")

METHODS = ("on_fit_start", "on_log", "on_evaluation", "on_save", "on_exception", "on_fit_end")


class Hook:
    """The base of every hook: override what you need. A misspelt `on_...` is refused when the class is made.

    `trainer.log({"mine/name": value})` shows a number, a `Panel` or a `Histogram`: in `on_log` and `on_evaluation` with
    the row that these are told of, anywhere else with the next row.

    A hook that has `state_dict` and `load_state_dict` becomes a part of the run, as `hook:<name>`, and is saved and
    restored with it.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in vars(cls):
            if name.startswith("on_") and name not in METHODS:
                raise TypeError(f"{cls.__name__}.{name}: a hook has no such method; {did_you_mean(name, METHODS)}")

    def on_fit_start(self, trainer: Trainer) -> None:
        """Everything is built, and restored if the run is resumed. What is logged here is logged at each start."""

    def on_log(self, trainer: Trainer, row: Row) -> None:
        """A row is about to be written. Rows come in order, some time after their step: several at once."""

    def on_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        """An evaluation is complete, and its row about to be written; best and patience know it already.

        Whether it is the last one says `trainer.state`, which is `running` until then.
        """

    def on_save(self, trainer: Trainer, folder: Path) -> None:
        """A checkpoint is about to be written to that folder, with what hooks keep and have logged by then."""

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """The training ends with this error."""

    def on_fit_end(self, trainer: Trainer, outcome: Outcome) -> None:
        """The training is over and everything is saved."""


class Hooks(Hook):
    """Several hooks by name (that of their class, if none is given), told in turn."""

    def __init__(self, hooks: Mapping[str, Hook] | Iterable[Hook]) -> None:
        self.hooks = dict(hooks) if isinstance(hooks, Mapping) else {type(hook).__name__: hook for hook in hooks}

    def parts(self) -> dict[str, Stateful]:
        """The hooks that have a state of their own, as parts of a run."""
        return {f"hook:{name}": hook for name, hook in self.hooks.items() if isinstance(hook, Stateful)}

    def tell(self, trainer: Trainer, rows: Sequence[Row], evaluation: Evaluation | None) -> None:
        """The rows in order, then the evaluation of the last one; what is logged meanwhile goes with that row."""
        logged = trainer.history.logged
        try:
            for row in rows:
                logged.row = row
                self.on_log(trainer, row)
            if evaluation is not None:
                self.on_evaluation(trainer, evaluation)
        finally:
            logged.row = None

    def on_fit_start(self, trainer: Trainer) -> None:
        for hook in self.hooks.values():
            hook.on_fit_start(trainer)

    def on_log(self, trainer: Trainer, row: Row) -> None:
        for hook in self.hooks.values():
            hook.on_log(trainer, row)

    def on_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        for hook in self.hooks.values():
            hook.on_evaluation(trainer, evaluation)

    def on_save(self, trainer: Trainer, folder: Path) -> None:
        for hook in self.hooks.values():
            hook.on_save(trainer, folder)

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        for hook in self.hooks.values():
            try:
                hook.on_exception(trainer, error)
            except Exception:  # it must not hide the error that ended the run
                log.exception("in the on_exception of a hook")

    def on_fit_end(self, trainer: Trainer, outcome: Outcome) -> None:
        for hook in self.hooks.values():
            hook.on_fit_end(trainer, outcome)
        if outcome.state == "finished" and (late := trainer.history.logged.late()):
            where = "log in on_evaluation, where trainer.state says whether it is the last one"
            log.warning("trainer.log: %s came after the last row and is not kept; %s", ", ".join(late), where)
