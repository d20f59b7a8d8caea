"""What is said of a run: the plan before its first step, rows, the outcome after its last, an error in its words."""

from __future__ import annotations

import contextlib
import platform
import signal
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from trainer.durations import count
from trainer.errors import DivergedError, OutOfMemoryError
from trainer.folder import shown
from trainer.optim.freezing import describe
from trainer.records import Evaluation, Outcome, Row
from trainer.tracking.base import Plan
from trainer.world import lack_of_memory

if TYPE_CHECKING:
    from trainer.loop import Trainer


def plan(trainer: Trainer) -> Plan:
    """What is known before the first step, for the trackers and for the person who waits."""
    size = sum(parameter.numel() for parameter in trainer.model.parameters())
    loader, patience = trainer.loader, trainer.patience.patience
    samples = f"{loader.batch_size} samples" + (f" x {loader.accumulate}" if loader.accumulate > 1 else "")
    stops = f", stops after {patience} evaluations without a better one" if patience else ""
    lines = {
        "data": trainer.data.summary or f"{loader.samples} training samples",
        "model": f"{type(trainer.model).__name__}, {size:,} parameters",
        "steps": f"{count(trainer.epochs, 'epoch')} x {trainer.steps_per_epoch} = {trainer.steps} steps of {samples}",
        "monitor": f"{trainer.best.monitor} ({trainer.best.mode}){stops}",
        "device": f"{trainer.world.describe()}, {trainer.update.precision.dtype}",
        **_memory(trainer),
        **({"curriculum": loader.curriculum.words} if loader.curriculum else {}),
        **trainer.lines,
    }
    if groups := describe(trainer.update.optimizer, trainer.freezing.thaws, trainer.steps):
        lines["groups"] = groups
    if attention := _attention(trainer):
        lines["attention"] = "; ".join(attention)
    if trainer.folder is not None:
        lines["folder"] = str(trainer.folder)
    if trainer.progress.step:
        lines["resumed"] = f"at step {trainer.progress.step}, after {count(trainer.progress.epoch, 'epoch')}"
    return Plan(
        folder=trainer.folder,
        steps=trainer.steps,
        steps_per_epoch=trainer.steps_per_epoch,
        epochs=trainer.epochs,
        start=trainer.progress.step,
        monitor=trainer.best.monitor,
        mode=trainer.best.mode,
        lines=lines,
        config={**trainer.config, "run": _facts(trainer, size)},
    )


def tell(trainer: Trainer, rows: Sequence[Row], evaluation: Evaluation | None) -> None:
    """Gives rows to the trackers, what goes with a row before it: speed, pictures, histograms.

    Raises:
        ConfigError: a hook has logged what the framework logs.
    """
    if not rows:
        return
    speed = trainer.clock.split(trainer.progress.step, trainer.progress.samples) | trainer.world.memory()
    trainer.trackers.speed(rows[-1]["step"], speed)
    for step, (panels, histograms) in trainer.history.logged.join(rows, evaluation).items():
        trainer.trackers.panels(step, panels)
        trainer.trackers.histograms(step, histograms)
    trainer.trackers.rows(rows)


def _facts(trainer: Trainer, size: int) -> dict[str, Any]:
    """What a run was made on and of, by which runs can be told apart and grouped."""
    val = trainer.data.val
    return {
        "parameters": size,
        "trainable": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "steps": trainer.steps,
        "monitor": trainer.best.monitor,
        "mode": trainer.best.mode,
        "samples": trainer.loader.samples,
        "micro_batch": trainer.loader.micro_batch,
        "val_samples": len(val) if val is not None else 0,  # type: ignore[arg-type]
        "data": trainer.data.fingerprint(),
        "device": trainer.world.describe(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def _memory(trainer: Trainer) -> dict[str, str]:
    """How a batch is computed where it is too large for the memory."""
    loader = trainer.loader
    if loader.micro_batch == loader.batch_size:
        return {}
    norm = "; batch norm's statistics are of a micro-batch" if has_batch_norm(trainer) else ""
    return {"memory": f"a batch of {loader.batch_size} is computed in micro-batches of {loader.micro_batch}{norm}"}


def _attention(trainer: Trainer) -> list[str]:
    """What is allowed, and probably not meant."""
    loader, every = trainer.loader, trainer.evaluate_every
    found = []
    if loader.batch_size > loader.samples:
        found.append(f"batch_size={loader.batch_size} is more than the {loader.samples} training samples")
    if loader.accumulate > loader.batches_per_epoch:
        found.append(f"accumulate={loader.accumulate} is more than the {loader.batches_per_epoch} batches of an epoch")
    times = trainer.epochs // every.epochs if every.epochs else trainer.steps // every.steps if every.steps else 1
    patience = trainer.patience.patience
    if patience is not None and times <= patience and times < trainer.epochs:  # a short try of a run is no mistake
        found.append(f"early stopping cannot act: {count(max(times, 1), 'evaluation')} in the whole run")
    return found


def outcome(trainer: Trainer, exit_code: int = 0) -> Outcome:
    """How the run ended; an interrupted one with 128 + the number of its signal."""
    interrupted = 128 + (trainer.signals.number or signal.SIGTERM)
    return Outcome(
        state=trainer.state,
        reason=trainer.reason,
        best=trainer.best.row,
        last=trainer.history.last,
        step=trainer.progress.step,
        epoch=trainer.progress.epoch,
        seconds=round(trainer.clock.seconds, 3),
        exit_code=interrupted if trainer.state == "interrupted" else exit_code,
    )


def manifest(trainer: Trainer) -> dict[str, Any]:
    """What is written beside a checkpoint for those who do not read its tensors."""
    return {
        "epoch": trainer.progress.epoch,
        "row": trainer.history.last,
        "facts": trainer.data.plain_facts(),
        "steps": trainer.steps,
        **trainer.world.facts(),
    }


def in_words(trainer: Trainer, error: BaseException) -> BaseException:
    """The error that ends a run, with what a person needs to go on; another one for what torch says of memory."""
    if isinstance(error, DivergedError):
        trainer.checkpoints.wait()
        good = trainer.checkpoints.last_path()
        at = trainer.progress.step + 1, trainer.progress.epoch + 1
        error.locate(*at, good and shown(good), trainer.folder)
    if (why := lack_of_memory(error)) is not None:
        loader, least = trainer.loader, 2 if has_batch_norm(trainer) else 1
        accumulate = "full" if loader.full else loader.accumulate
        told = OutOfMemoryError(why, loader.batch_size, accumulate, loader.micro_batch, least)
        if trainer.signals.number:  # it was asked to end: it is not gone on with
            told.half = None
        return told
    return error


@contextlib.contextmanager
def told_in_words(trainer: Trainer) -> Iterator[None]:
    """What is raised inside, as `in_words` says it."""
    try:
        yield
    except Exception as error:
        told = in_words(trainer, error)
        if told is error:
            raise
        raise told from error


def has_batch_norm(trainer: Trainer) -> bool:
    """Whether the model takes statistics over the samples of a micro-batch, which needs two of them at least."""
    return any(isinstance(module, _BatchNorm) and module.training for module in trainer.model.modules())
