"""Handwritten digits, 8x8 grey pictures of ten classes, from scikit-learn's package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from trainer.data.base import Data
from trainer.data.images import Preprocess, statistics
from trainer.data.memory import Memory
from trainer.errors import DataError

_TRAINING = 1437  # four fifths


def digits(num_workers: int = 0) -> Data:
    """1,797 digits (1,437 to train, 360 to validate); inputs (1, 8, 8), `in_features` 64.

    The split is the same for every seed, so that runs with different seeds can be compared. A small network is at
    95 % within a second: good for trying things out, too easy to tell methods apart.

    Args:
        num_workers: as every source takes it; data in memory needs none.

    Raises:
        DataError: scikit-learn is not installed.
    """
    table = np.loadtxt(_find(), delimiter=",", dtype=np.int64)
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(table))
    grey = np.rint(table[order, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    images, labels = torch.from_numpy(grey), torch.from_numpy(table[order, -1])
    names = [f"digit {i}" for i in order]
    preprocess = Preprocess((8, 8), *statistics(grey[:_TRAINING]))
    cut = _TRAINING
    return Data(
        train=Memory(images[:cut], labels[:cut], names[:cut], preprocess),
        val=Memory(images[cut:], labels[cut:], names[cut:], preprocess),
        facts={
            "in_channels": 1,
            "image_size": (8, 8),
            "in_features": 64,
            "num_classes": 10,
            "classes": tuple("0123456789"),
            "class_counts": tuple(torch.bincount(labels[:cut], minlength=10).tolist()),
            "preprocess": preprocess,
        },
        num_workers=num_workers,
        summary=f"digits: {cut} training and {len(order) - cut} validation pictures, 8x8 grey, 10 classes",
        names=names,
    )


def _find() -> Path:
    """The table that `sklearn.datasets.load_digits` reads; importing scikit-learn for it would take a second."""
    spec = find_spec("sklearn")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
    raise DataError("data: digits comes with scikit-learn, which is not installed; pip install 'wandb-trainer[demo]'")
