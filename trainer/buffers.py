"""The buffers of modules, kept and put back: a step that came to nothing leaves no trace in batch norm's statistics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import nn


class Buffers:
    """Copies of all buffers of some modules; about 1 us a buffer to keep them.

    Args:
        modules: whose buffers, their submodules' included; shared ones count once. One that is an expanded view gets
            memory of its own.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        found = {inner: None for module in modules for inner in module.modules()}
        for module in found:
            for name, value in module._buffers.items():
                if value is not None and 0 in value.stride() and value.numel() > 1:
                    module._buffers[name] = value.clone()  # an expanded one can be written to by nobody, torch neither
        self._places = [(inner, name) for inner in found for name in inner._buffers]
        self._kept: list[torch.Tensor | None] = []

    @torch.no_grad()
    def keep(self) -> None:
        """Remembers the values that they have now."""
        now = [module._buffers[name] for module, name in self._places]
        if len(self._kept) != len(now) or any(
            not _fits(kept, value) for kept, value in zip(self._kept, now, strict=True)
        ):
            self._kept = [None if value is None else value.detach().clone() for value in now]
        elif some := [value for value in now if value is not None]:
            torch._foreach_copy_([kept for kept in self._kept if kept is not None], some)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """What happens meanwhile changes them for that time only."""
        self.keep()
        yield
        self.put_back()

    @torch.no_grad()
    def put_back(self) -> None:
        """Gives them the values that were kept."""
        if not self._kept:
            return
        for (module, name), kept in zip(self._places, self._kept, strict=True):
            value = module._buffers[name]
            if kept is None or value is None or not _fits(kept, value):
                module._buffers[name] = None if kept is None else kept.clone()
            else:
                value.copy_(kept)


def _fits(kept: torch.Tensor | None, value: torch.Tensor | None) -> bool:
    if kept is None or value is None:
        return kept is value
    return kept.shape == value.shape and kept.dtype == value.dtype and kept.device == value.device
