"""Parameters as an optimizer takes them, groups of them, and the optimizers that torch has not."""

from __future__ import annotations

from trainer.optim.freezing import Freezing, thaws
from trainer.optim.groups import Groups
from trainer.optim.own import LBFGS, SGDW, AdamWUncorrected, MuonWithAdamW
from trainer.optim.parameters import Trainable, trainable
from trainer.optim.sparse import SparseAdam

__all__ = [
    "LBFGS",
    "SGDW",
    "AdamWUncorrected",
    "Freezing",
    "Groups",
    "MuonWithAdamW",
    "SparseAdam",
    "Trainable",
    "thaws",
    "trainable",
]
