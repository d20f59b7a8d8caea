"""A capsule: all that a step that failed was given, in one file, so that it can be run again and looked at."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import torch

from trainer.buffers import Buffers
from trainer.data.loader import Batch
from trainer.errors import CheckpointError, DivergedError, TrainerError
from trainer.folder import shown, step_name
from trainer.state import State, plain_copy, snapshot
from trainer.world import lack_of_memory

if TYPE_CHECKING:
    from trainer.loop import Trainer

log = logging.getLogger("trainer")


class Watch:
    """Stands around each step. Where one fails, model and optimizer are as before it, and a capsule is written.

    Not undone is what a step did that failed in the middle of changing the weights.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.buffers = Buffers([trainer.model, *trainer.task.modules.values()])
        self.caught: State | None = None  # the newest capsule
        self._group: Sequence[Batch] = ()

    def __call__(self, group: Sequence[Batch]) -> Watch:
        self._group = group
        return self

    def __enter__(self) -> None:
        self.buffers.keep()

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        group, self._group = self._group, ()
        if error is None:
            return
        self.trainer.update.clear()
        try:
            self.buffers.put_back()
            of_the_user = isinstance(error, TrainerError) and not isinstance(error, DivergedError)
            if isinstance(error, Exception) and not of_the_user and lack_of_memory(error) is None:
                self._keep(group, error)
        except Exception as why:  # a full disk, a batch of things that are not plain: the error itself matters more
            step = self.trainer.progress.step + 1
            log.warning("what step %d was given could not be kept (%s)", step, why)

    def _keep(self, group: Sequence[Batch], error: Exception) -> None:
        trainer = self.trainer
        self.caught = contents(trainer, group, error)
        if trainer.folder is not None:
            path = write(trainer.folder.capsule, self.caught)
            if not isinstance(error, DivergedError):  # which says so itself
                told = self.caught["step"], trainer.folder, shown(path)
                log.warning("step %d failed; trainer-replay %s runs it again (%s)", *told)


def contents(trainer: Trainer, group: Sequence[Batch], error: BaseException) -> State:
    """What a capsule holds: the parts before the step, its micro-batches, and the error. Model and task themselves are
    built again from the run's config, or by the script that made them."""
    return {
        "step": trainer.progress.step + 1,
        "epoch": trainer.progress.epoch + 1,
        "error": f"{type(error).__name__}: {error}",
        "world": trainer.world.facts(),
        "parts": snapshot(trainer.parts),
        "group": plain_copy(list(group), "batch"),
    }


def write(folder: Path, capsule: State) -> Path:
    """Writes a capsule; only the newest is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{step_name(capsule['step'])}.pt"
    temporary = path.with_suffix(".tmp")
    try:
        torch.save(capsule, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    for old in set(folder.glob("step-*.pt")) - {path}:
        old.unlink()
    return path


def read(path: Path) -> State:
    """A capsule that was written.

    Raises:
        CheckpointError: the file is none.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        return {key: found[key] for key in ("step", "epoch", "error", "world", "parts", "group")}
    except Exception as error:  # torch.load raises many kinds
        raise CheckpointError(f"{path}: is no capsule of a step ({(str(error).splitlines() or [''])[0]})") from error
