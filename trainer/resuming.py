"""A trainer as it was when a checkpoint was saved: every part restored, and the run made longer where it is now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.checkpoint import Checkpoint
from trainer.state import restore

if TYPE_CHECKING:
    from trainer.loop import Trainer


def put_back(trainer: Trainer, found: Checkpoint) -> None:
    """Restores every part from a checkpoint.

    Raises:
        CheckpointError: it does not fit.
    """
    schedule, progress, clock = trainer.schedule, trainer.progress, trainer.clock
    beginning, before, now = schedule.beginning(), found.manifest["steps"], trainer.steps
    state = {"model": found.weights, **found.state}
    restore(trainer.parts, {name: state[name] for name in state if name != "journal" or name in trainer.parts})
    trainer.world.follow(found.manifest)
    if before != now:
        words = f"{now} steps now, {before} before; from here on the learning rate is that of a run of {now} steps"
        trainer.lines["length"] = words
        schedule.walk(beginning, min(progress.step, now), trainer.steps_per_epoch)
    for every in (trainer.evaluate_every, trainer.log_every, trainer.checkpoint_every):
        every.last = clock.seconds
