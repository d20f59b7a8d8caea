"""Too little memory, answered: the run goes on from its last checkpoint, and computes half as many samples at once.

A batch is then computed in micro-batches. Its samples, and so the updates, the schedule and the steps of an epoch, stay
what they were. The run's config.yaml stays as it was typed, too: what is in use stands in status.json, and an attempt
that comes later begins with it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING

from trainer.errors import OutOfMemoryError
from trainer.folder import RunFolder
from trainer.records import Outcome

if TYPE_CHECKING:
    from omegaconf import DictConfig


def in_use(cfg: DictConfig, folder: RunFolder) -> int | None:
    """The micro-batch that an attempt begins with; None for all of a batch."""
    found = folder.read_status().get("micro_batch") if cfg.get("auto_accumulate") else None
    return found if isinstance(found, int) else None


def halving(cfg: DictConfig, folder: RunFolder, attempt: Callable[[int | None, str], Outcome]) -> Outcome:
    """Trains; with `auto_accumulate` again and again, with half of the micro-batch, as long as the memory is too small.

    Args:
        attempt: trains from the last checkpoint on with that micro-batch, and logs those words where there are any.

    Raises:
        OutOfMemoryError: it is off, or there is nothing to halve. Whatever an attempt raises.
    """
    micro_batch, words = in_use(cfg, folder), ""
    if folder.read_status().get("micro_batch") != micro_batch:
        folder.write_status(micro_batch=micro_batch)
    while True:
        try:
            return attempt(micro_batch, words)
        except OutOfMemoryError as error:
            if not cfg.get("auto_accumulate") or error.half is None:
                raise
            micro_batch, words = error.half, _words(error, folder)
            folder.write_status(micro_batch=micro_batch)
        free()  # here, where nothing holds the error any more, and so the frames that it has come through


def _words(error: OutOfMemoryError, folder: RunFolder) -> str:
    why = str(error).splitlines()[0].rstrip(".")
    start = "from the last checkpoint" if any(folder.checkpoints.glob("step-*")) else "from the start"
    return (
        f"{why}: {error.half} samples are computed at once from here on, {error.micro_batch} before; an update is made "
        f"of the same samples; training goes on {start}"
    )


def free() -> None:
    """Gives back what the attempt that failed has held: its model, its gradients, its batch."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
