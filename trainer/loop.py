"""The training loop. It reads from top to bottom, and the order of its lines is the contract."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from trainer.accounts import in_words, manifest, outcome, plan, tell
from trainer.buffers import Buffers
from trainer.capsule import Watch
from trainer.checkpoint import Checkpoints
from trainer.clock import Clock
from trainer.data.base import Data, as_data
from trainer.data.curriculum import Curriculum
from trainer.data.loader import Accumulate, Batch, loader_of, samples_of
from trainer.durations import Duration, Every, count
from trainer.ema import Ema
from trainer.errors import ConfigError
from trainer.evaluation import Evaluator
from trainer.folder import RunFolder, step_name
from trainer.gradients import Clip, Noise
from trainer.history import History, check, check_window
from trainer.hooks import Hook, Hooks
from trainer.monitor import Best, Patience, direction
from trainer.optim import Freezing
from trainer.progress import Progress
from trainer.pruning import Pruning
from trainer.receipt import Receipt
from trainer.records import STOPPED, Evaluation, Outcome, Resume, Row, RunState
from trainer.rehearsal import rehearse
from trainer.resuming import go_on
from trainer.schedules import Schedule, as_schedule
from trainer.signals import Signals
from trainer.state import EVALUATION, STEP, Rng, Stateful, mix, seed_generators
from trainer.tasks import Task
from trainer.tracking.base import Tracker, Trackers
from trainer.tracking.defaults import trackers as default_trackers
from trainer.update import Precision, Skips, Update
from trainer.world import World


class Trainer:
    """Trains a model, evaluates it, keeps the best and the last checkpoint, and goes on where it was stopped.

    Args:
        model: any module; it is moved to the device. task: what a batch means: its loss, its sums in evaluation.
        data: the data, or a pair (training set, validation set); the validation set may be None.
        optimizer: any torch optimizer over the model's parameters.
        schedule: the learning rate over the run, or what makes it of (optimizer, total steps), such as `cosine`.
        epochs: passes over the training set. batch_size: samples of a batch. accumulate: batches an update; `full` is
            all of an epoch. micro_batch: the most samples computed at once, for less memory and the same updates.
        curriculum: which samples come first.
        clip, noise: the gradients' bounds and noise. precision: number format. ema: averaged weights. Off unless given.
        patience: the monitored metric, and when to stop early; by default `val/loss`, never. pruning: never.
        checkpoints: which checkpoints to keep; by default the best and the last.
        evaluate_every, log_every, checkpoint_every: durations such as `1epoch` or `500steps`.
        skip_nonfinite: how many updates in a row may be left out because their loss or gradient is not finite; with 0
            the first ends the run. On a GPU it makes every update wait for the device.
        seed: of the data's order and of every random draw; the model's first weights are the caller's.
        folder: the run folder; None keeps nothing. config, lines: what a composed run adds to its records and plan.
        resume: `never` refuses a folder that holds a run, `auto` goes on with it, `must` also refuses an empty one.
        trackers: who is told; by default the journal, the console and wandb (offline without a key).
        hooks: observers by name. world: device and threads. limit: the most batches of an epoch and of an evaluation.
    """

    def __init__(
        self, model: nn.Module, task: Task, data: Data | tuple[Dataset[Any], Dataset[Any] | None], optimizer: Optimizer,
        *, schedule: Schedule | Callable[[Optimizer, int], Schedule] | None = None,
        epochs: int = 10, batch_size: int = 32, accumulate: Accumulate = 1, micro_batch: int | None = None,
        curriculum: Curriculum | None = None,
        clip: Clip | None = None, noise: Noise | None = None, precision: Precision | None = None,
        ema: Ema | None = None, patience: Patience | None = None, pruning: Pruning | None = None,
        checkpoints: Checkpoints | None = None, evaluate_every: str = "1epoch", log_every: str = "10steps",
        checkpoint_every: str = "1epoch", skip_nonfinite: int = 0, seed: int = 0,
        folder: str | Path | RunFolder | None = None, resume: Resume = "never",
        trackers: Iterable[Tracker] | None = None, hooks: Mapping[str, Hook] | Iterable[Hook] = (),
        world: World | None = None, limit: int | None = None,
        config: dict[str, Any] | None = None, lines: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.world = world or World()
        self.world.apply()
        self.device = self.world.device
        self.model, self.task = model.to(self.device), task.to(self.device)
        self.data = as_data(data)
        self.epochs, self.seed, self.signals = epochs, seed, Signals()
        self.folder = folder if isinstance(folder, RunFolder) or folder is None else RunFolder(folder)
        self.config, self.lines = config or {}, lines or {}
        shared = {"seed": seed, "device": self.device, "limit": limit}
        order = {"accumulate": accumulate, "micro_batch": micro_batch, "curriculum": curriculum, "epochs": epochs}
        self.loader = loader_of(self.data, "train", batch_size, **order, **shared)
        at_once = self.loader.micro_batch
        val_loader = loader_of(self.data, "val", at_once, **shared) if self.data.val is not None else None
        self.steps_per_epoch = self.loader.steps_per_epoch
        self.steps = epochs * self.steps_per_epoch
        length = self.steps_per_epoch, self.steps
        self.evaluate_every = Every(Duration.parse(evaluate_every, "evaluate_every"), *length)
        self.log_every = Every(Duration.parse(log_every, "log_every"), *length)
        self.checkpoint_every = Every(Duration.parse(checkpoint_every, "checkpoint_every"), *length)

        # Policy: whatever can change the course of a run is a part, called on a written line below.
        skips = Skips(skip_nonfinite)
        self.update = Update(optimizer, clip or Clip(), precision or Precision(), self.device, skips, noise)
        self.schedule = as_schedule(schedule(optimizer, self.steps) if callable(schedule) else schedule, optimizer)
        self.freezing = Freezing(optimizer, *length)
        self.schedule.thaws = self.freezing.thaws
        self.ema = ema or Ema()
        plain = getattr(self.model, "_orig_mod", self.model)  # of a compiled model the one that was compiled
        self.ema.attach(plain, optimizer)
        self.patience = patience or Patience(patience=None)
        self.patience.mode = direction(self.patience.monitor, self.patience.mode, task.measures)
        self.pruning, self.best = pruning or Pruning(), Best(self.patience.monitor, self.patience.mode)
        self.progress, self.history, self.clock = Progress(), History(), Clock()
        self.checkpoints = checkpoints or Checkpoints()
        self.checkpoints.attach(self.folder.checkpoints if self.folder else None)
        self.watch, self.receipt = Watch(self), Receipt(self.folder, plain, self.loader, self.device)
        self.evaluator = Evaluator(task, self.data, val_loader, self.update.precision, self.world)

        # Observation: told, and never asked.
        self.hooks = Hooks(hooks)
        self.trackers = Trackers(default_trackers(self.folder) if trackers is None else trackers)

        self.parts: dict[str, Stateful] = {
            "model": plain, "task": self.task, **self.update.parts(), "schedule": self.schedule, "ema": self.ema,
            "best": self.best, "patience": self.patience, "pruning": self.pruning, "progress": self.progress,
            "meters": self.history, "clock": self.clock, "data": self.data, "order": self.loader,
            "receipt": self.receipt, **self.trackers.parts(), **self.hooks.parts(), "rng": Rng(),
        }  # fmt: skip
        self.state: RunState = "running"
        self.reason = ""  # why training is over, once it is
        self._saved = -1  # the step of the newest checkpoint
        self._rates = self.schedule.rates
        if resume != "never":
            self.resume(must=resume == "must")
        elif self.folder is not None and self.folder.used:
            raise ConfigError(f"{self.folder}: holds a run; go on with resume='auto', or use another folder")

    # ---------------------------------------------------------------------------------------------------- the run

    def fit(self) -> Outcome:
        """Trains until the epochs are done, patience is exhausted, or a signal comes; then says how it ended.

        Raises:
            ConfigError: model, task and data do not fit each other; found before the first step.
            DivergedError: the loss or the gradient is not finite. OutOfMemoryError: the memory was not enough.
            SaveError: the last checkpoint could not be written.
        """
        self.state, self.reason, self.signals.number = "running", "", 0
        rehearse(self)
        with self.folder.hold() if self.folder else contextlib.nullcontext():
            return self._fit()

    def _fit(self) -> Outcome:
        self.checkpoints.clear()
        self.clock.start(self.progress.step, self.progress.samples)
        try:
            self.receipt.start(self.progress.step)
            self.trackers.start(plan(self))
            self.hooks.on_fit_start(self)
            with self.signals:
                self.decide()
                while self.state == "running":
                    self.train_epoch()
                self.hand_on()
                self.checkpoints.close()
            ended = outcome(self)
            self.hooks.on_fit_end(self, ended)
        except BaseException as error:
            told = in_words(self, error)
            self._fail(told)
            if told is error:
                raise
            raise told from error
        finally:
            self.loader.close()
            self.evaluator.close()
            self.clock.stop()
        self.trackers.finish(ended)
        return ended

    def train_epoch(self) -> None:
        """Trains from where the epoch stands to its end, unless something ends the run before."""
        if not self.model.training:  # modules of it that the user froze in evaluation mode stay so
            self.model.train()
        for group in self.clock.waiting("data", self.loader.groups(self.progress.epoch, self.progress.batch)):
            with self.watch(group):
                self.train_group(group)
            if self.progress.batch < self.loader.batches_per_epoch:
                self.settle(epoch_ended=False)
                if self.state != "running":
                    return
        self.finish_epoch()

    def train_group(self, group: Sequence[Batch]) -> None:
        """One optimizer update from a group of micro-batches. The seam for what trains otherwise: override it.

        The loss of the group is the mean over its samples, so that accumulation over ragged batches is exact.
        """
        self.freezing.apply(self.progress.step)
        sizes = [samples_of(batch) for batch in group]
        losses = self.backward(group, sizes)
        self._rates = self.schedule.rates
        norms = self.update.step(lambda: self.evaluate_again(group, sizes), self.progress.step)
        if norms is None:  # left out: not finite
            self.watch.buffers.put_back()
        else:
            self.history.add(losses, sizes, norms.raw, norms.clipped if self.update.clip.on else None)
            self.ema.update()
        self.schedule.on_step()
        self.progress.advance(len(group), sum(sizes))

    def backward(self, group: Sequence[Batch], sizes: Sequence[int]) -> list[Tensor]:
        """The gradients of a group; returns the loss of each micro-batch. The same draws each time within a step."""
        seed_generators(mix(self.seed, STEP, self.progress.step, self.world.rank), cuda=self.device.type == "cuda")
        losses = []
        for batch, size in zip(group, sizes, strict=True):
            with self.update.precision.autocast(self.device):
                loss = self.task.loss(self.model, batch)
            self.update.backward(loss if size == sum(sizes) else loss * (size / sum(sizes)))
            losses.append(loss.detach())
        return losses

    def evaluate_again(self, group: Sequence[Batch], sizes: Sequence[int]) -> Tensor:
        """For an optimizer that asks within an update: gradients at the weights as they are now, and the group's loss.

        Batch norm's statistics count the first time only.
        """
        with Buffers([self.model, *self.task.modules.values()]).kept():
            losses = self.backward(group, sizes)
        return torch.stack([loss * (size / sum(sizes)) for loss, size in zip(losses, sizes, strict=True)]).sum()

    def finish_epoch(self) -> None:
        """Counters, then the per-epoch schedule, then `settle`."""
        self.progress.finish_epoch()
        self.schedule.on_epoch()
        self.settle(epoch_ended=True)

    def settle(self, epoch_ended: bool) -> None:
        """Log, receipt, evaluate, best, plateau schedule, patience, pruning, agree, hooks, trackers; save. Each if due.

        Everything that an evaluation changes is changed before the checkpoint is written, and since this comes after
        an update, a checkpoint never falls inside one.
        """
        evaluation, improved = None, False
        now = self.progress.step, self.progress.epoch, epoch_ended, self.clock.seconds
        if self.log_every.due(*now):
            self.note()
        if self.evaluate_every.due(*now) or self.progress.epoch >= self.epochs:
            self.receipt.add(self.progress.step)
            evaluation = self.evaluate()
            row = self.note()
            self.history.check(norms=not self.update.scaled)  # a diverged model is never the best
            row.update(evaluation.metrics)
            if evaluation.metrics:
                improved = self.best.update(row)
                value = row.get(self.best.monitor, math.nan)
                self.schedule.on_value(value)
                self.patience.update(value)
                self.pruning.update(row)
        self.decide()
        if evaluation is not None:
            self.hand_on(evaluation)
            if improved:
                self.best.row = dict(row)  # with what hooks have logged
            self.trackers.evaluated(row, improved)
        can_go_on = epoch_ended or self.loader.stream is None  # inside a stream there is no place to go on from
        if can_go_on and (self.checkpoint_every.due(*now) or improved or self.state != "running"):
            self.save(best=improved)

    def decide(self) -> None:
        """Whether the run is over: agreed by all processes, and said in words."""
        if self.world.any(bool(self.signals.number) or self.trackers.stopped):
            why = f"interrupted by {self.signals.name}" if self.signals.name else STOPPED
            self.state, self.reason = "interrupted", why
        if self.world.any(bool(self.pruning.reason)):
            self.state, self.reason = "finished", self.pruning.reason
        if self.world.any(self.patience.exhausted):
            self.state, self.reason = "finished", self.patience.describe()
        if self.world.any(self.progress.epoch >= self.epochs):
            self.state, self.reason = "finished", f"{count(self.epochs, 'epoch')} done"

    def evaluate(self) -> Evaluation:
        """Measures the validation set, with the averaged weights where there are any."""
        with self.ema.applied(), self.clock.during("evaluation"):
            return self.evaluator(self.model, mix(self.seed, EVALUATION, self.progress.step))

    # ---------------------------------------------------------------------------------------------------- history

    def note(self) -> Row:
        """The row of this step. Rows are handed on several at once, so that this waits for no device."""
        if self.history.due(self.progress.step):
            self.hand_on()
        skips = self.update.skips
        counts = self.loader.rates(self.progress) | ({"train/skipped": skips.total} if skips.limit else {})
        return self.history.row(self.progress, self.clock.seconds, {**self._rates, **counts})

    def log(self, values: Mapping[str, Any]) -> None:
        """Shows numbers, `Panel`s and `Histogram`s of yours with the row that a hook is told of, else with the next."""
        self.history.logged.add(values)

    def hand_on(self, evaluation: Evaluation | None = None) -> None:
        """Gives the rows, and the evaluation of the last one, to hooks, which may add to them, and then to trackers.

        Raises:
            DivergedError: a value among them is not finite. ConfigError: a hook logs what the framework does.
        """
        since, rows = self.history.last.get("step", 0), self.history.take()
        try:
            self.hooks.tell(self, rows, evaluation)
        finally:
            tell(self, rows, evaluation)
        check(rows, not self.update.scaled, since)

    # -------------------------------------------------------------------------------------------- save and resume

    def save(self, best: bool = False) -> None:
        """Copies every part, and writes the checkpoint while training goes on."""
        if self._saved == self.progress.step and not best:
            return
        self._saved = self.progress.step
        self.hand_on()
        self.trackers.saved()
        if self.folder is None:
            return
        self.hooks.on_save(self, self.folder.checkpoints / step_name(self.progress.step))
        with self.clock.during("save"):
            state = self.checkpoints.snapshot(self.parts)
        check_window(state["meters"], self.progress.step, not self.update.scaled)
        weights = self.ema.take(state)  # those that are evaluated
        self.checkpoints.save(self.progress.step, weights, state, manifest(self), best)

    def resume(self, must: bool = False) -> bool:
        """Puts the newest whole checkpoint back; returns whether there was one.

        Raises:
            CheckpointError: every checkpoint is damaged, or does not fit; or there is none, and there must be.
        """
        if found := go_on(self, must):
            self._saved, self._rates = self.progress.step, self.schedule.rates
        return found

    def _fail(self, error: BaseException) -> None:
        """The run ends with an error: what is known is written, and nothing is saved half-way through a step."""
        self.checkpoints.wait()
        self.state, self.reason = "failed", str(error) or type(error).__name__
        with contextlib.suppress(Exception):  # the rows before it show how it came, if they can still be had
            self.hand_on()
        self.hooks.on_exception(self, error)
        self.trackers.finish(outcome(self, getattr(error, "exit_code", 1)))
