"""The memory and the use of the GPU, beside the speed of a run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from trainer.errors import brief
from trainer.hooks import Hook
from trainer.records import Row

if TYPE_CHECKING:
    from trainer.loop import Trainer

log = logging.getLogger("trainer")


class Device(Hook):
    """What the device's memory holds, in GiB, and how busy it is, as `device/...` on wandb.

    It is no part of the history, which is the same on any machine. On a machine without a GPU there is nothing.

    Args:
        seconds: between two looks, at least.

    Raises:
        ValueError: it is not more than 0.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        if not seconds > 0:
            raise ValueError(f"seconds: {seconds} must be more than 0")
        self.seconds = seconds
        self._next, self._use = 0.0, True

    def on_fit_start(self, trainer: Trainer) -> None:
        self._next = 0.0
        if trainer.device.type != "cuda":
            log.info("hooks.device: there is no CUDA GPU to watch; wandb itself shows processor and memory")

    def on_log(self, trainer: Trainer, row: Row) -> None:
        if trainer.device.type == "cuda" and trainer.clock.seconds >= self._next:
            self._next = trainer.clock.seconds + self.seconds
            trainer.trackers.speed(row["step"], self.look(trainer.device))

    def look(self, device: torch.device) -> dict[str, float]:
        """The values now; how busy the device is only where that can be asked."""
        found = {
            "memory_allocated": torch.cuda.memory_allocated(device) / 2**30,
            "memory_reserved": torch.cuda.memory_reserved(device) / 2**30,
            "memory_peak": torch.cuda.max_memory_allocated(device) / 2**30,
        }
        if self._use:
            try:
                found["utilization"] = torch.cuda.utilization(device)
            except Exception as error:  # of torch, of the driver's own library, or that library is not there
                self._use = False
                log.info("hooks.device: torch cannot tell how busy the GPU is (%s)", brief(error))
        return {f"device/{name}": round(float(value), 3) for name, value in found.items()}
