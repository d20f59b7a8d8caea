"""A small training that many tests share: points on a line, a tiny network, and a tracker that remembers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import TensorDataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from trainer.checkpoint import Checkpoints
from trainer.loop import Trainer
from trainer.records import Outcome, Panel, Row
from trainer.schedules import Schedule
from trainer.tasks import Task
from trainer.tracking.base import Plan, Tracker
from trainer.world import World

# How often torch looks whether loader workers are alive, in seconds: by default 5, which a test would sleep.
_MultiProcessingDataLoaderIter._try_get_data.__defaults__ = (0.2,)


def points(count: int = 11, seed: int = 1) -> TensorDataset:
    """`count` samples (3 numbers, 1 number)."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 3, generator=generator)
    return TensorDataset(inputs, inputs.sum(1, keepdim=True) + 0.1 * torch.randn(count, 1, generator=generator))


def network(seed: int = 0, norm: bool = True, dropout: float = 0.2) -> nn.Module:
    """A network of 41 weights with what makes resuming hard: buffers and random numbers."""
    torch.manual_seed(seed)
    middle = [nn.BatchNorm1d(8)] if norm else []
    return nn.Sequential(nn.Linear(3, 8), *middle, nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 1))


class Regression(Task):
    """The mean squared error."""

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return nn.functional.mse_loss(model(batch[0]), batch[1])


class StopAt(Regression):
    """Sends a signal to this process in the n-th forward pass of a training, from 1 on."""

    def __init__(self, call: int, number: int = signal.SIGTERM) -> None:
        self.call, self.number, self.calls = call, number, 0

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        if model.training:
            self.calls += 1
            if self.calls == self.call:
                os.kill(os.getpid(), self.number)
        return super().loss(model, batch)


class Scripted(Regression):
    """Evaluations that find what a list says, one entry after the other, found by the epoch that is in `trainer`."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = values
        self.trainer: Trainer | None = None

    def summarise(self, totals: dict[str, Tensor]) -> dict[str, float]:
        epoch = self.trainer.progress.epoch if self.trainer else 1
        return {"loss": self.values[epoch - 1]}


class Recorder(Tracker):
    """Remembers what it is told, and in which order."""

    def __init__(self) -> None:
        self.got: list[Row] = []
        self.calls: list[str] = []
        self.plan: Plan | None = None
        self.evaluations: list[tuple[Row, bool]] = []
        self.outcomes: list[Outcome] = []

    def start(self, plan: Plan) -> None:
        self.calls.append("start")
        self.plan = plan

    def panels(self, step: int, panels: Sequence[Panel]) -> None:
        self.calls.append("panels")

    def rows(self, rows: Sequence[Row]) -> None:
        self.calls.append("rows")
        self.got += [dict(row) for row in rows]

    def evaluated(self, row: Row, improved: bool) -> None:
        self.calls.append("evaluated")
        self.evaluations.append((dict(row), improved))

    def saved(self) -> None:
        self.calls.append("saved")

    def finish(self, outcome: Outcome) -> None:
        self.calls.append("finish")
        self.outcomes.append(outcome)


def sgd(parameters: Iterable[nn.Parameter]) -> Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def make_trainer(
    *,
    model: nn.Module | None = None,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = sgd,
    schedule: Callable[[Optimizer], Schedule] | None = None,
    recorder: Recorder | None = None,
    **changes: Any,
) -> Trainer:
    """A trainer of 3 epochs of 4 batches (3, 3, 3 and 2 samples); keywords change it."""
    model = model or network()
    built = optimizer(model.parameters())
    trackers = changes.pop("trackers", [recorder or Recorder()])
    changes = {"task": Regression(), "data": (points(), points(5, seed=2)), "epochs": 3, "batch_size": 3, **changes}
    changes = {"log_every": "1steps", "world": World("cpu", threads=1), **changes}
    return Trainer(
        model,
        changes.pop("task"),
        changes.pop("data"),
        built,
        schedule=schedule(built) if schedule else None,
        trackers=trackers,
        **changes,
    )


def recorder_of(trainer: Trainer) -> Recorder:
    found = trainer.trackers.trackers[0]
    assert isinstance(found, Recorder)
    return found


def timeless(value: Any) -> Any:
    """The same nested value without what wall time decides, and tensors as plain lists of bytes."""
    if isinstance(value, dict):
        return {key: timeless(entry) for key, entry in value.items() if key not in ("time", "clock")}
    if isinstance(value, (list, tuple)):
        return [timeless(entry) for entry in value]
    return bits(value) if isinstance(value, Tensor) else value


def bits(tensor: Tensor) -> tuple[str, tuple[int, ...], bytes]:
    """All there is in a tensor, comparable by `==` (so that NaN equals itself)."""
    return (
        str(tensor.dtype),
        tuple(tensor.shape),
        bytes(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).tolist()),
    )


def weights_of(model: nn.Module) -> dict[str, Any]:
    return {name: bits(value) for name, value in model.state_dict().items()}


def newest(folder: Path) -> tuple[Any, Any]:
    """Weights and state of the newest checkpoint of a run folder, without what wall time decides."""
    checkpoints = Checkpoints()
    checkpoints.attach(folder / "checkpoints")
    found = checkpoints.newest()
    assert found is not None
    return timeless(found.weights), timeless(found.state)
