"""Before the first step: what does not fit is told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import torch

from trainer.buffers import Buffers
from trainer.data.loader import Batch, loader_of
from trainer.durations import Every
from trainer.errors import ConfigError
from trainer.evaluation import evaluating
from trainer.monitor import check_monitor

if TYPE_CHECKING:
    from trainer.loop import Trainer


@torch.no_grad()
def rehearse(trainer: Trainer) -> None:
    """Tries one small batch of each set without training on it.

    Raises:
        ConfigError: the model refuses the data, or no evaluation gives the monitored metric.
    """
    if trainer.data.val is None and trainer.patience.patience is not None:
        raise ConfigError("early_stopping: there is no validation set, so it would never stop; use early_stopping=none")
    if trainer.data.val is None and trainer.schedule.follows_metric:
        raise ConfigError("scheduler: there is no validation set, so a plateau schedule would never move")
    _whole_epochs(trainer)
    trainer.loader.state_dict()  # with a curriculum this scores the samples
    model, task, data = trainer.model, trainer.task, trainer.data
    batch: Any = None
    found: dict[str, float] = {}
    before = Buffers([model, *task.modules.values()])
    before.keep()
    try:
        json.dumps(data.plain_facts())
        with evaluating(model), trainer.update.precision.autocast(trainer.device):
            batch = _first_batch(trainer, "train")
            task.loss(model, batch)
            if data.val is not None:
                batch = _first_batch(trainer, "val")
                found = task.summarise(task.judge(model, batch))
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        first = (str(error).splitlines() or [""])[0] or type(error).__name__
        names = f"{type(model).__name__} and {type(task).__name__}"
        raise ConfigError(f"model: {names} do not fit the data: {first}\n  a batch is {_shapes(batch)}") from error
    finally:
        before.put_back()  # a rehearsal leaves no trace
    if data.val is not None:
        check_monitor(trainer.best.monitor, sorted(f"val/{name}" for name in {*found, *task.measures}))


def _whole_epochs(trainer: Trainer) -> None:
    """A stream can only be begun at an epoch's start, so that nothing is saved in its middle."""
    if trainer.loader.stream is not None and trainer.progress.batch:
        raise ConfigError(
            "data: an IterableDataset cannot be gone on with inside an epoch; make a trainer, resume='auto'"
        )
    for name in ("evaluate_every", "checkpoint_every"):
        every: Every = getattr(trainer, name)
        inside = every.steps or (name == "evaluate_every" and every.duration.unit == "seconds")
        if trainer.loader.stream is not None and inside:
            raise ConfigError(
                f"{name}: {every.duration} falls inside an epoch, where a run over an IterableDataset cannot be saved; "
                f"type {name}=1epoch, and give the dataset a smaller __len__ for shorter epochs"
            )


def _first_batch(trainer: Trainer, which: Literal["train", "val"]) -> Batch:
    """Two samples of a set, on the device."""
    options = {"seed": trainer.seed, "device": trainer.device, "shuffle": False, "workers": 0}
    return next(iter(loader_of(trainer.data, which, 2, **options).batches()))


def _shapes(batch: Any) -> str:
    """A batch as its shapes and types."""
    if isinstance(batch, torch.Tensor):
        return f"{tuple(batch.shape)} {str(batch.dtype).removeprefix('torch.')}"
    if isinstance(batch, dict):
        return "{" + ", ".join(f"{key}: {_shapes(value)}" for key, value in batch.items()) + "}"
    if isinstance(batch, (list, tuple)):
        return "(" + ", ".join(map(_shapes, batch)) + ")"
    return type(batch).__name__
