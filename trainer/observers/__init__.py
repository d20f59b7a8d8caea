"""Hooks that come with the package: histograms, the use of the device, the code of a run. They change nothing."""

from __future__ import annotations

from trainer.observers.code import Code
from trainer.observers.device import Device
from trainer.observers.histograms import Histograms

__all__ = ["Code", "Device", "Histograms"]
