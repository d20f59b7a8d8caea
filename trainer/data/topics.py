"""Characters of Python's own help texts (`pydoc_data.topics`), for a small language model without any download."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from trainer.data.augment import uniforms
from trainer.data.base import Data
from trainer.errors import DataError

_VALIDATION = 0.1


def topics(context: int = 128, num_workers: int = 0) -> Data:
    """About 465,000 characters; the last tenth is for validation. Inputs int64 (T,), targets the same, one further on.

    The text differs a little between patch versions of Python, and so do the losses.

    Args:
        context: T, the characters that the model sees at once.
        num_workers: as every source takes it; data in memory needs none.

    Raises:
        ValueError: `context` does not fit.
        DataError: this Python was installed without the help texts.
    """
    text = _text()
    cut = len(text) - int(len(text) * _VALIDATION)
    if not 2 <= context <= (len(text) - cut) // 4:
        raise ValueError(f"context: {context} must be from 2 to {(len(text) - cut) // 4}")
    symbols = "".join(sorted(set(text)))
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    known = np.frombuffer(symbols.encode("utf-32-le"), dtype=np.uint32)
    encoded = torch.from_numpy(np.searchsorted(known, codes).astype(np.int64))
    train = Windows(encoded[:cut], context, symbols, shift=True)
    val = Windows(encoded[cut:], context, symbols, first=cut)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Data(
        train=train,
        val=val,
        num_workers=num_workers,
        facts={"vocab_size": len(symbols), "context": context},
        summary=f"topics: {len(text)} characters, {len(symbols)} symbols, "
        f"{len(train)} training and {len(val)} validation windows of {context}",
        names=[f"pydoc_data.topics {digest}"],
    )


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """A `BatchSource` of windows that cover a text once, without overlap.

    Args:
        text: int64 (characters,), indices into `symbols`.
        context: T, the length of a window.
        symbols: the characters by index.
        shift: in `batch_of`, start each window up to T - 1 characters further on, drawn anew each epoch.
        first: the place of `text` in the whole, for the names.
    """

    def __init__(self, text: Tensor, context: int, symbols: str, shift: bool = False, first: int = 0) -> None:
        self.text, self.context, self.symbols, self.shift = text, context, symbols, shift
        self.names = [f"character {first + i * context}" for i in range(len(self))]
        self.tensors = (text,)
        self._offsets = torch.arange(context)

    def __len__(self) -> int:
        return (len(self.text) - 1) // self.context

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        start = range(len(self))[index] * self.context
        return self.text[start : start + self.context], self.text[start + 1 : start + self.context + 1]

    def batch_of(self, indices: Tensor, epoch_seed: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets, each int64 (N, T), of int64 indices (N,)."""
        starts = indices * self.context
        if self.shift:
            starts = starts + (uniforms(epoch_seed, indices, 1)[:, 0] * self.context).long()
            starts = starts.clamp_(max=len(self.text) - self.context - 1)
        places = starts[:, None] + self._offsets
        return self.text[places], self.text[places + 1]

    def decode(self, codes: Tensor) -> str:
        """The text of symbol indices (T,)."""
        return "".join(self.symbols[i] for i in codes.tolist())


def _text() -> str:
    try:
        from pydoc_data.topics import topics as texts
    except ImportError as error:  # some distributions split Python's documentation off
        raise DataError("data: this Python lacks pydoc_data.topics (a Debian package python3-doc or libpython3-stdlib "
                        "may hold it); use another Python, or another data source") from error  # fmt: skip
    return "\n".join(texts[key] for key in sorted(texts))
