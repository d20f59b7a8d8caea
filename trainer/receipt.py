"""receipt.jsonl: a run in a few digits at each evaluation. Where a line of two runs is equal, so was all before it."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainer.data.loader import Loader
from trainer.folder import RunFolder
from trainer.state import State, mix
from trainer.tracking.journal import append, cut_steps

log = logging.getLogger("trainer")

UNKNOWN: State = {"batches": None}  # the state in a checkpoint that was written before there were receipts
_AT_ONCE = 1000  # batches; they are hashed together, since one by one they would take a microsecond each
_LARGE = 1 << 20  # numbers
_MASK = (1 << 64) - 1


class Receipt:
    """Appends a line before the first step and at each evaluation: {"step", "weights", "batches", "generators"}.

    Each is 16 hexadecimal digits, and a function of the seed, the data's order and the step alone: how often rows are
    logged, checkpoints are saved and lines are written does not change it, nor does a kill. `weights` is of the model's
    parameters and buffers; `batches` of the index of every sample trained on since the start, in order, with the cuts
    between batches; `generators` of the main generators' states as the last update left them.

    `batches` is null for an `IterableDataset`, which has no indices, and for a run that began without a receipt;
    `generators` before the first step, where they are whatever the caller's are.

    Args:
        folder: where the file lies; None writes nothing. model: what is trained. loader: hands out its batches.
        device: where it is trained.
    """

    def __init__(self, folder: RunFolder | None, model: nn.Module, loader: Loader, device: torch.device) -> None:
        self.file = folder.receipt if folder else None
        self.model, self.loader, self.device = model, loader, device
        self._sum, self._batches, self._samples = 0, 0, 0
        self._waiting: list[Tensor] = []
        self._listen(loader.stream is None)

    def _listen(self, known: bool) -> None:
        self.known = known
        self.loader.listener = self.see if known else None

    def see(self, indices: Tensor) -> None:
        """A batch is handed out: int64 (samples,)."""
        self._waiting.append(indices)
        if len(self._waiting) >= _AT_ONCE:
            self._fold()

    def _fold(self) -> None:
        """A sum of 64-bit words, one of each (place, batch, index): it can be saved, and when it is taken is no matter.

        That is a check against accidents; nobody is kept from making two orders with the same sum.
        """
        if not self._waiting:
            return
        sizes = [len(indices) for indices in self._waiting]
        indices = torch.cat(self._waiting).numpy().astype(np.uint64)
        places = np.arange(self._samples, self._samples + len(indices), dtype=np.uint64)
        batches = np.repeat(np.arange(self._batches, self._batches + len(sizes), dtype=np.uint64), sizes)
        words = _spread(_spread(_spread(places) ^ batches) ^ indices)
        self._sum = (self._sum + int(words.sum(dtype=np.uint64))) & _MASK
        self._batches, self._samples = self._batches + len(sizes), self._samples + len(indices)
        self._waiting = []

    def start(self, step: int) -> None:
        """Cuts off lines of steps that will be done again; a run that begins gets its first line."""
        if self.file is None:
            return
        try:
            cut_steps(self.file, step or -1)
        except OSError as error:
            log.warning("%s: %s; training goes on", self.file, error)
        if step == 0:
            self.add(step)

    def add(self, step: int) -> None:
        """The line of this step. It waits for the device, as the evaluation that follows it does anyway."""
        if self.file is None:
            return
        self._fold()
        line = {
            "step": step,
            "weights": of_weights(self.model.state_dict()),
            "batches": f"{mix(self._sum, self._batches, self._samples):016x}" if self.known else None,
            "generators": of_generators(self.device) if step else None,
        }
        try:
            with open(self.file, "ab") as file:
                append(file.fileno(), json.dumps(line).encode() + b"\n")
        except OSError as error:
            log.warning("%s: %s; training goes on, and the line of step %d is left out", self.file, error, step)

    def state_dict(self) -> State:
        self._fold()
        return {"batches": [self._sum, self._batches, self._samples] if self.known else None}

    def load_state_dict(self, state: State) -> None:
        self._waiting = []
        self._sum, self._batches, self._samples = state["batches"] or (0, 0, 0)
        self._listen(state["batches"] is not None)


def _spread(words: Any) -> Any:
    """splitmix64's finaliser of each word of a uint64 array."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def of_weights(state: Mapping[str, Any]) -> str:
    """16 digits of named tensors: their names, types, shapes and bytes. SHA-256, which processors do at 2 GB/s."""
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if sum(value.numel() for value in tensors.values()) > _LARGE:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(_of_tensor, tensors.values()))
    else:
        found = [_of_tensor(value) for value in tensors.values()]
    whole = hashlib.sha256()
    for name, digest in zip(tensors, found, strict=True):
        whole.update(name.encode() + b"\0" + digest)
    return whole.hexdigest()[:16]


def _of_tensor(value: Tensor) -> bytes:
    value = value.detach()
    value = value.dequantize() if value.is_quantized else value.to_dense() if value.layout != torch.strided else value
    digest = hashlib.sha256(f"{value.dtype} {tuple(value.shape)}".encode())
    digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def of_generators(device: torch.device) -> str:
    """16 digits of the states of torch's, numpy's and Python's main generators, and of the device's own."""
    digest = hashlib.sha256(torch.get_rng_state().numpy().data)
    if device.type == "cuda":
        digest.update(torch.cuda.get_rng_state(device).numpy().data)
    kind, keys, *rest = np.random.get_state()
    digest.update(np.asarray(keys).tobytes() + repr((kind, *rest, random.getstate())).encode())
    return digest.hexdigest()[:16]
