"""One pass over the validation set: metrics made of sums, the same few samples to look at each time, and the worst."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils.data import IterableDataset, default_collate

from trainer.data.base import Data
from trainer.data.loader import Batch, Loader, to_device
from trainer.records import Evaluation
from trainer.state import mix, seed_generators
from trainer.tasks import Task
from trainer.update import Precision
from trainer.world import World

PANELS = 8


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model is in evaluation mode inside; after that each module is as it was, a frozen batch norm too."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


class Evaluator:
    """Measures a model on the validation set.

    Args:
        task: what is measured and shown. data: where the shown samples come from.
        loader: the validation batches; None measures nothing.
        precision: the number format of the forward pass. world: whose sums are added up.
    """

    def __init__(self, task: Task, data: Data, loader: Loader | None, precision: Precision, world: World) -> None:
        self.task, self.data, self.loader, self.precision, self.world = task, data, loader, precision, world
        self._examples: tuple[Batch, list[str]] | None = None

    def close(self) -> None:
        """Ends the loader's worker processes."""
        if self.loader is not None:
            self.loader.close()

    @torch.no_grad()
    def __call__(self, model: nn.Module, seed: int = 0) -> Evaluation:
        """Every metric is made of sums over all samples, so that a ragged last batch counts by its samples.

        Args:
            model: is in the modes afterwards that it was in. seed: of whatever the task or the model draws.
        """
        if self.loader is None:
            return Evaluation({})
        cuda = self.world.device.type == "cuda"
        if self._examples is None:
            seed_generators(0, cuda)  # a dataset that draws shows the same samples in every attempt
            self._examples = _examples(self.data, self.world.device)
        seed_generators(seed, cuda)
        totals: dict[str, torch.Tensor] = {}
        worst = Worst(self.task.worst)
        with evaluating(model), self.precision.autocast(self.world.device):
            for n, batch in enumerate(self.loader.batches()):
                seed_generators(mix(seed, n), cuda)  # samples that were loaded in this process have left their draws
                for name, value in self.task.judge(model, batch).items():
                    totals[name] = totals[name] + value if name in totals else value
                worst.look(vars(self.task).pop("hardness", None), batch)
            seed_generators(seed, cuda)
            panels = self.task.panels(model, *self._examples)
            for indices, samples in worst.found:
                shown = self.task.panels(model, samples, [_name(self.data, index) for index in indices])
                panels += [replace(panel, name="val/worst") for panel in shown]
        totals = self.world.sum(totals)
        found = self.task.summarise(totals)
        panels += self.task.charts(totals)
        return Evaluation({f"val/{name}": float(value) for name, value in found.items()}, panels)


class Worst:
    """The hardest samples of an evaluation, copied as they pass, so that the data is read once. Of equals the first."""

    def __init__(self, most: int) -> None:
        self.most, self._seen = most, 0
        self._kept: list[tuple[float, int, Batch]] = []

    @property
    def found(self) -> list[tuple[list[int], Batch]]:
        """Their indices and what the model was given, hardest first: one batch, or one each where shapes differ."""
        indices, samples = [index for _, index, _ in self._kept], [sample for *_, sample in self._kept]
        if len({tuple(part.shape for part in sample) for sample in samples}) == 1:
            return [(indices, tuple(map(torch.cat, zip(*samples, strict=True))))]
        return [([index], sample) for index, sample in zip(indices, samples, strict=True)]

    def look(self, hardness: torch.Tensor | None, batch: Batch) -> None:
        """Keeps of the batch what is harder than what is kept so far."""
        if hardness is None or not self.most:
            return
        values = hardness.nan_to_num(math.inf, math.inf, -math.inf).tolist()
        least = self._kept[-1][0] if len(self._kept) == self.most else -math.inf
        for n, value in sorted(enumerate(values), key=lambda one: -one[1])[: self.most]:
            if value > least:
                copies = tuple(part[n : n + 1].clone() for part in batch)  # a view would hold the whole batch
                self._kept.append((value, self._seen + n, copies))
        self._kept = sorted(self._kept, key=lambda one: -one[0])[: self.most]
        self._seen += len(values)


def _name(data: Data, index: int) -> str:
    names: Any = getattr(data.val, "names", None)
    return str(names[index] if names else index)


def _examples(data: Data, device: torch.device) -> tuple[Batch, list[str]]:
    """A batch of a few validation samples, spread over the set (of a stream the first), and what they are called."""
    dataset: Any = data.val
    count = len(dataset)
    if isinstance(dataset, IterableDataset):
        indices = list(range(min(PANELS, count)))
        samples = list(itertools.islice(dataset, len(indices)))
    else:
        indices = [i * count // min(PANELS, count) for i in range(min(PANELS, count))]
        samples = [dataset[i] for i in indices]
    batch = (data.collate or default_collate)(samples)
    return to_device(batch, device), [_name(data, i) for i in indices]
