"""What a run will cost, from a few real updates of it: time, memory, and the size of its checkpoints."""

from __future__ import annotations

import itertools
import resource
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from trainer.accounts import told_in_words
from trainer.data.loader import loader_of
from trainer.evaluation import Evaluator
from trainer.rehearsal import rehearse

if TYPE_CHECKING:
    from trainer.loop import Trainer

UPDATES = 4
BATCHES = 8  # of an evaluation


@dataclass(frozen=True)
class Cost:
    """What one run costs.

    Attributes:
        step, evaluation: seconds of one. steps, evaluations: how many a whole run has at most.
        memory: bytes, of the GPU where there is one, else of the process. checkpoint: bytes of one.
    """

    step: float
    evaluation: float
    steps: int
    evaluations: int
    memory: int
    checkpoint: int

    @property
    def seconds(self) -> float:
        return self.step * self.steps + self.evaluation * self.evaluations


def measure(trainer: Trainer) -> Cost:
    """Makes a few updates as the run would and a part of an evaluation; the trainer is of no use afterwards.

    The first update, in which much is set up, is left out of the time of a step where there is another.

    Raises:
        ConfigError: model, task and data do not fit each other. DivergedError: a loss is not finite.
        OutOfMemoryError: the memory is not enough.
    """
    rehearse(trainer)
    try:
        with told_in_words(trainer):
            step, evaluation = _step(trainer), _evaluation(trainer)
    finally:
        trainer.loader.close()
    every = trainer.evaluate_every
    times = trainer.epochs // every.epochs if every.epochs else trainer.steps // every.steps if every.steps else 0
    saved = _bytes({name: part.state_dict() for name, part in trainer.parts.items()})
    return Cost(step, evaluation, trainer.steps, times + 1, _memory(trainer.device), saved)


def _step(trainer: Trainer) -> float:
    times = []
    trainer.model.train()
    began = time.perf_counter()
    for group in itertools.islice(trainer.loader.groups(0, 0), 1 if trainer.loader.full else UPDATES):
        trainer.train_group(group)
        _wait(trainer.device)
        now = time.perf_counter()
        times.append(now - began)
        began = now
    return statistics.median(times[1:] or times)


def _evaluation(trainer: Trainer) -> float:
    whole = trainer.evaluator.loader
    if whole is None:
        return 0.0
    limit = min(BATCHES, whole.batches_per_epoch)
    part = loader_of(trainer.data, "val", whole.batch_size, seed=trainer.seed, device=trainer.device, limit=limit)
    evaluator = Evaluator(trainer.task, trainer.data, part, trainer.update.precision, trainer.world)
    began = time.perf_counter()
    with trainer.ema.applied():
        evaluator(trainer.model)
    _wait(trainer.device)
    seconds = time.perf_counter() - began
    evaluator.close()
    return seconds * whole.batches_per_epoch / limit


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, (list, tuple)) else 0
