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
from trainer.state import State
from trainer.tracking.journal import append, cut_steps

log = logging.getLogger("trainer")

UNKNOWN: State = {"batches": None}  # the state in a checkpoint that was written before there were receipts
_LARGE = 1 << 20  # numbers


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
        self._batches = bytes(32)
        self._listen(folder is not None and loader.stream is None)

    def _listen(self, known: bool) -> None:
        self.known = known
        self.loader.listener = self.see if known else None

    def see(self, indices: Tensor) -> None:
        """A batch is handed out: int64 (samples,). A microsecond and a half."""
        self._batches = hashlib.sha256(self._batches + indices.numpy().tobytes()).digest()

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
        line = {
            "step": step,
            "weights": of_weights(self.model.state_dict()),
            "batches": self._batches.hex()[:16] if self.known else None,
            "generators": of_generators(self.device) if step else None,
        }
        try:
            with open(self.file, "ab") as file:
                append(file.fileno(), json.dumps(line).encode() + b"\n")
        except OSError as error:
            log.warning("%s: %s; training goes on, and the line of step %d is left out", self.file, error, step)

    def state_dict(self) -> State:
        return {"batches": self._batches.hex() if self.known else None}

    def load_state_dict(self, state: State) -> None:
        self._batches = bytes.fromhex(state["batches"] or "")
        self._listen(state["batches"] is not None)


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
