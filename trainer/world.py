"""The processes that train together, and the device of this one.

A world of one answers like a world of many: every decision of the loop asks `any` or `sum`, so that no `if distributed`
stands anywhere else.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from trainer.errors import ConfigError

log = logging.getLogger("trainer")


@dataclass(frozen=True)
class World:
    """This process among those that train one model.

    Args:
        device: `auto` (CUDA, then Apple's MPS, then the CPU) or any name that `torch.device` takes.
        threads: CPU threads of an operation. `auto` is half of the processors that this process may use (of its share
            of them, where a sweep runs several jobs at once): on most machines these are the physical cores, and the
            rest is left to loader workers and wandb. The number changes the bits of a result, so it is stored with the
            run.

    Raises:
        ConfigError: the device is not on this machine, or the number of threads is not positive.
    """

    device: Any = "auto"
    threads: Any = "auto"
    rank: int = field(default=0, init=False)
    size: int = field(default=1, init=False)
    _auto: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", _find_device(self.device))
        object.__setattr__(self, "_auto", self.threads == "auto")
        if int(os.environ.get("WORLD_SIZE") or 1) > 1:
            raise ConfigError("WORLD_SIZE: one process trains a run; several processes for one run come later")
        threads = max(1, _processors() // 2) if self.threads == "auto" else self.threads
        if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= 1024:
            raise ConfigError(f"world.threads: {self.threads!r} is not a number of threads; use auto or 1 to 1024")
        object.__setattr__(self, "threads", threads)

    @property
    def main(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    def apply(self) -> None:
        """Makes the settings of this world those of the process."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)

    def facts(self) -> dict[str, Any]:
        """What the bits of a result depend on beside config, data and code."""
        return {"threads": self.threads, "device": self.name, "torch": str(torch.__version__)}

    def follow(self, before: Mapping[str, Any]) -> None:
        """Takes the number of threads that a run was started with; says so where something differs from its `facts`."""
        if self._auto and before.get("threads"):
            object.__setattr__(self, "threads", before["threads"])
            self.apply()
        keys = {"threads": "world.threads", "device": "world.device", "torch": "torch"}
        differs = [
            f"{keys[name]} was {before[name]} and is {now} now"
            for name, now in self.facts().items()
            if before.get(name) not in (None, now)
        ]
        if differs:
            log.warning("%s: the bits may differ from here on", "; ".join(differs))

    @property
    def name(self) -> str:
        """The device by its name, such as `cpu` or `NVIDIA A100`."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type

    def sum(self, totals: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Adds each tensor over all processes."""
        return totals

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process: how a decision is taken together."""
        return flag

    def memory(self) -> dict[str, float]:
        """The most memory of the device that tensors have held so far, in GiB; nothing on a CPU."""
        if self.device.type != "cuda":
            return {}
        return {"memory/gpu": round(torch.cuda.max_memory_allocated(self.device) / 2**30, 3)}

    def describe(self) -> str:
        """The device in words, for the plan that is shown before training."""
        if self.device.type == "cuda":
            return f"{self.name} ({self.device})"
        if self.device.type == "cpu":
            return f"cpu, {self.threads} thread{'s' if self.threads > 1 else ''} of {_processors()}"
        return str(self.device)


def _processors() -> int:
    share = os.environ.get("TRAINER_PROCESSORS", "")  # set by a sweep that runs several jobs at once
    if share.isdigit() and int(share):
        return int(share)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _find_device(name: Any) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ConfigError(
            f"world.device: {name!r} cannot be used here ({str(error).splitlines()[0]}); use auto, cpu or cuda:0"
        ) from error
    return device


def lack_of_memory(error: BaseException) -> str | None:
    """What an error says of the memory that was not enough, in a line; None for any other error.

    On the CPU torch raises a plain RuntimeError, "... can't allocate memory: you tried to allocate 8 bytes. Error", and
    so do Apple's MPS ("MPS backend out of memory") and CUDA's libraries.
    """
    words = str(error)
    if isinstance(error, RuntimeError) and "can't allocate memory: " in words:
        words = words.partition("can't allocate memory: ")[2]
    elif isinstance(error, RuntimeError) and ("out of memory" in words or "_ALLOC_FAILED" in words):
        pass
    elif not isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return None
    return next(iter(words.partition(". Error")[0].splitlines()), "")
