"""A training framework for PyTorch: what a script without Hydra needs, imported when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.build import load
    from trainer.data.base import Data
    from trainer.hooks import Hook
    from trainer.loop import Trainer
    from trainer.lr_find import LrRange, lr_range
    from trainer.records import Outcome
    from trainer.tasks import Task

__version__ = "0.1.0"

__all__ = ["Data", "Hook", "LrRange", "Outcome", "Task", "Trainer", "__version__", "load", "lr_range"]

_HOMES = {
    "Data": "trainer.data.base",
    "Hook": "trainer.hooks",
    "LrRange": "trainer.lr_find",
    "Outcome": "trainer.records",
    "Task": "trainer.tasks",
    "Trainer": "trainer.loop",
    "load": "trainer.build",
    "lr_range": "trainer.lr_find",
}


def __getattr__(name: str) -> Any:
    """Imports torch only once a name that needs it is used: `trainer --help` and TAB stay quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'trainer' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
