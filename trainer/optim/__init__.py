"""Parameters as an optimizer takes them, and the optimizers that torch has not."""

from __future__ import annotations

from torch import nn

from trainer.errors import ConfigError
from trainer.optim.own import LBFGS, SGDW, AdamWUncorrected, MuonWithAdamW
from trainer.optim.parameters import Trainable
from trainer.optim.sparse import SparseAdam

__all__ = ["LBFGS", "SGDW", "AdamWUncorrected", "MuonWithAdamW", "SparseAdam", "Trainable", "trainable"]


def trainable(model: nn.Module) -> Trainable:
    """The named parameters that require a gradient, each once; names go into the optimizer's state.

    Raises:
        ConfigError: there are none.
    """
    found = Trainable(model)
    if not found:
        raise ConfigError(f"model: {type(model).__name__} has no parameter that requires a gradient")
    return found
