"""A trainer as it was when a checkpoint was saved: every part restored, and the run made longer where it is now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.checkpoint import Checkpoint
from trainer.errors import CheckpointError
from trainer.receipt import UNKNOWN
from trainer.state import restore

if TYPE_CHECKING:
    from trainer.loop import Trainer


def go_on(trainer: Trainer, must: bool) -> bool:
    """Puts the newest whole checkpoint back; without one the history begins anew. Returns whether there was one.

    Raises:
        CheckpointError: every checkpoint is damaged, or does not fit; or there is none, and there must be.
    """
    found = trainer.checkpoints.newest()
    if found is None:
        if must:
            raise CheckpointError(f"{trainer.folder}: there is no checkpoint to go on from; use resume=auto or never")
        if "journal" in trainer.parts:
            trainer.parts["journal"].load_state_dict({"offset": 0, "waiting": ""})
        return False
    put_back(trainer, found)
    trainer.checkpoints.point_best(trainer.best.row.get("step", -1))  # a kill may have come before the pointer moved
    return True


def put_back(trainer: Trainer, found: Checkpoint) -> None:
    """Restores every part from a checkpoint.

    Raises:
        CheckpointError: it does not fit.
    """
    schedule, progress, clock = trainer.schedule, trainer.progress, trainer.clock
    beginning, before, now = schedule.beginning(), found.manifest["steps"], trainer.steps
    # Checkpoints of before there were receipts and searches lack two parts.
    state = {"receipt": UNKNOWN, "pruning": {}, "model": found.weights, **found.state}
    restore(trainer.parts, {name: state[name] for name in state if name != "journal" or name in trainer.parts})
    progress.batch = trainer.loader.place(progress.batch, state["order"])
    trainer.world.follow(found.manifest)
    if before != now:
        words = f"{now} steps now, {before} before; from here on the learning rate is that of a run of {now} steps"
        trainer.lines["length"] = words
        schedule.walk(beginning, min(progress.step, now), trainer.steps_per_epoch)
    for every in (trainer.evaluate_every, trainer.log_every, trainer.checkpoint_every):
        every.last = clock.seconds
