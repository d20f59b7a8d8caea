"""What a data source hands over: two datasets, and the facts that models and tasks may ask for by name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils.data import Dataset

from trainer.data.fingerprint import fingerprint
from trainer.errors import CheckpointError, ConfigError
from trainer.state import State


@runtime_checkable
class BatchSource(Protocol):
    """A dataset that makes a whole batch at once: the fast path for data that fits in memory.

    `batch_of` gets the sample indices, int64 of shape (N,), and the seed of this epoch. What it returns for a sample
    may depend on its index and on that seed, and on nothing else: not on the batch that it comes in.
    """

    def __len__(self) -> int: ...

    def batch_of(self, indices: torch.Tensor, epoch_seed: int) -> tuple[torch.Tensor, ...]: ...


@dataclass
class Data:
    """The training and validation data of a run.

    Attributes:
        train: samples (input, target); any torch `Dataset`, or a `BatchSource`.
        val: the same for evaluation, or None. A list `names` on it, where there is one, names its samples in panels.
        facts: what is known of the data, by the names in `trainer.records.FACTS`.
        num_workers: loader processes; 0 loads in the training process.
        summary: the data in words, for the plan that is shown before training.
        names: what the samples are called; their digest tells on resume whether the data is still the same.
        collate: makes a batch of samples; torch's default if None.
        files: what the data is made of, by name; their sizes and names tell it from other data.
    """

    train: Dataset[Any]
    val: Dataset[Any] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    num_workers: int = 0
    summary: str = ""
    names: Sequence[str] = ()
    collate: Callable[[list[Any]], Any] | None = None
    files: Mapping[str, Path] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """What tells this data from other data, without reading much of it; empty where that is not known."""
        return fingerprint(self.files, [part for part in (self.train, self.val) if part is not None])

    def plain_facts(self) -> dict[str, Any]:
        """The facts as plain values, kept beside the weights, so that a model can be built where the data is not."""
        facts = {name: _plain(value) for name, value in self.facts.items() if name != "preprocess"}
        if (preprocess := self.facts.get("preprocess")) is not None:
            path = f"{type(preprocess).__module__}.{type(preprocess).__qualname__}"
            facts["preprocess"] = {"_target_": path, **preprocess.state_dict()}
        return facts

    def state_dict(self) -> State:
        digest = hashlib.sha256("\n".join(self.names).encode()).hexdigest()[:16] if self.names else ""
        preprocess = self.facts.get("preprocess")
        return {
            "train": len(self.train),  # type: ignore[arg-type]
            "val": 0 if self.val is None else len(self.val),  # type: ignore[arg-type]
            "digest": digest,
            "preprocess": preprocess.state_dict() if preprocess is not None else {},
        }

    def load_state_dict(self, state: State) -> None:
        """Takes over the stored normalisation.

        Raises:
            CheckpointError: the data is not the data that the run was trained on.
        """
        now = self.state_dict()
        for key, what in (("train", "training samples"), ("val", "validation samples"), ("digest", "sample names")):
            if state[key] != now[key]:
                raise CheckpointError(
                    f"data: {what} were {state[key]!r} when this run was saved and are {now[key]!r} now; "
                    "bring the old data back, or start anew with resume=never"
                )
        if state["preprocess"]:
            self.facts["preprocess"].load_state_dict(state["preprocess"])


def as_data(made: Any) -> Data:
    """What a data source handed over: `Data`, or a pair of datasets (training, validation).

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(made, Data):
        return made
    if isinstance(made, (tuple, list)) and len(made) == 2:
        return Data(*made)
    raise ConfigError(f"data: give trainer.Data or a pair (training set, validation set), not {type(made).__name__}")


def _plain(value: Any) -> Any:
    """Arrays, tensors and their scalars as Python's own, inside of containers too."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value.tolist() if hasattr(value, "tolist") else value
