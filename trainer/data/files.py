"""Picture files of a folder: found in a fixed order, checked, read by several threads, split in two."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from trainer.data.augment import DRAWS, Augment
from trainer.data.images import SUFFIXES, Bands, Preprocess, UnreadableError, open_picture, pixels
from trainer.data.masks import MaskCode, open_mask
from trainer.errors import DataError, did_you_mean

LOG = logging.getLogger(__name__)

_TRAINING, _VALIDATION = ("train", "training"), ("val", "valid", "validation")
_TESTING = ("test", "testing", "evaluation")

R = TypeVar("R")


@dataclass(frozen=True)
class Sample:
    """A picture's file, its name below the root, and either its label or its mask's file."""

    name: str
    image: Path
    label: int = -1
    mask: Path | None = None


@dataclass(frozen=True)
class Reader:
    """Reads a sample: uint8 (C, H, W), and an int64 label () or a uint8 mask (H, W)."""

    bands: Bands
    size: tuple[int, int]
    code: MaskCode | None = None

    def image(self, sample: Sample) -> np.ndarray:
        return pixels(open_picture(sample.image), self.bands, self.size)

    def mask(self, sample: Sample) -> Image.Image:
        assert sample.mask is not None
        return open_mask(sample.mask, self.size)

    def target(self, sample: Sample, mask: Image.Image | None = None) -> np.ndarray:
        """The label, or the class indices of the sample's mask, which may have been opened before."""
        if self.code is None:
            return np.array(sample.label)
        return self.code.encode(mask or self.mask(sample), str(sample.mask))


class OnDisk(Dataset[tuple[Tensor, Tensor]]):
    """Pictures read from their files each time: for data that does not fit in memory.

    Augmentation draws from torch's main generator, which the loader seeds per sample.

    Args:
        skip_bad: where a file cannot be read, give the next sample that can, and say so once.
    """

    def __init__(
        self, samples: Sequence[Sample], reader: Reader, preprocess: Preprocess, augment: Augment | None, skip_bad: bool
    ) -> None:
        self.samples, self.reader, self.preprocess = list(samples), reader, preprocess
        self.names = [sample.name for sample in samples]
        self.augment = augment or None
        self.skip_bad = skip_bad
        self._bad: set[int] = set()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Input float32 (C, H, W) and target int64, () or (H, W).

        Raises:
            DataError: the file cannot be read, or its mask holds a value that is no class.
        """
        image, target = self._read(range(len(self))[index])
        images, targets = torch.from_numpy(image[None].copy()), torch.from_numpy(target[None].copy())
        if self.augment is not None:
            images, masks = self.augment(images, targets if targets.ndim > 1 else None, torch.rand(1, DRAWS))
            targets = targets if masks is None else masks
        return self.preprocess.normalise(images)[0], targets[0].long()

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        for place in range(index, index + len(self)):
            sample = self.samples[place % len(self)]
            try:
                return self.reader.image(sample), self.reader.target(sample)
            except UnreadableError as error:
                if not self.skip_bad:
                    raise
                if place % len(self) not in self._bad:
                    self._bad.add(place % len(self))
                    LOG.warning("%s; the next file is taken instead", error)
        raise DataError(f"data: none of the {len(self)} files can be read, the first is {self.samples[0].image}")


# --------------------------------------------------------------------------------------------------------- finding


def existing_folder(path: str | Path, key: str) -> Path:
    """The absolute folder.

    Raises:
        DataError: there is none; the message names the one beside it that was probably meant.
    """
    folder = Path(os.path.expanduser(path)).absolute()  # noqa: PTH111  # Path's own raises where there is no home
    if folder.is_dir():
        return folder
    if folder.exists():
        raise DataError(f"{key}: {folder} is a file, not a folder")
    parent = folder.parent
    while not parent.is_dir():
        parent = parent.parent
    beside = sorted(p.name for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))
    wanted = folder.relative_to(parent).parts[0]
    raise DataError(f"{key}: there is no folder {folder}; in {parent}: {did_you_mean(wanted, beside)}")


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, by name; hidden ones and what archives of a Mac leave behind do not count."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX")))


def find_pictures(folder: Path, deep: bool = True) -> list[Path]:
    """The picture files in a folder (and below it), told by their suffix, in an order that no file system changes."""
    found: list[Path] = []
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if deep and not name.startswith((".", "__MACOSX"))]
        found += [
            Path(place) / name for name in files if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def nothing_found(folder: Path, key: str) -> str:
    """The message for a folder without pictures."""
    return f"{key}: no pictures in {folder} (looked for {' '.join(sorted(SUFFIXES))})"


def split_folders(root: Path) -> tuple[Path, Path | None]:
    """(root/train, root/val) where they exist, else (root, None).

    A lone `train` counts only if nothing but `test` stands beside it: it may be a class of vehicles.
    """
    by_name = {p.name.lower(): p for p in subfolders(root)}
    train = next((by_name[name] for name in _TRAINING if name in by_name), None)
    val = next((by_name[name] for name in _VALIDATION if name in by_name), None)
    if train is not None and (val is not None or set(by_name) <= {*_TRAINING, *_TESTING}):
        return train, val
    return root, None


def split(samples: Sequence[Sample], fraction: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Training and validation samples, the same part of each label.

    A sample's place depends on its name's hash and the seed: not on the order of the files, and hardly on the others.
    """
    held_out: set[str] = set()
    for label in {sample.label for sample in samples}:
        names = [sample.name for sample in samples if sample.label == label]
        names.sort(key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
        count = min(max(round(fraction * len(names)), 1), len(names) - 1) if fraction else 0
        held_out.update(names[:count])
    train = [sample for sample in samples if sample.name not in held_out]
    return train, [sample for sample in samples if sample.name in held_out]


# --------------------------------------------------------------------------------------------------------- reading


class Findings:
    """What is wrong with the files.

    Args:
        skip_bad: an unreadable file is left out instead of being a problem.
        problems: a list to go on with.
    """

    def __init__(self, skip_bad: bool, problems: list[str] | None = None) -> None:
        self.skip_bad = skip_bad
        self.problems = [] if problems is None else problems
        self.left_out: dict[str, str] = {}  # the reason by sample name

    def note(self, sample: Sample, error: DataError) -> None:
        if self.skip_bad and isinstance(error, UnreadableError):
            self.left_out[sample.name] = str(error)
        else:
            self.problems += error.problems

    def kept(self, samples: Iterable[Sample]) -> list[Sample]:
        return [sample for sample in samples if sample.name not in self.left_out]

    def refuse(self) -> None:
        """Raises a DataError if there are problems."""
        refuse(self.problems)

    def tell(self, most: int = 10) -> None:
        """One warning of what is left out."""
        if self.left_out:
            shown = [*self.left_out.values()][:most] + (["..."] if len(self.left_out) > most else [])
            LOG.warning("data: %d unreadable left out:\n  %s", len(self.left_out), "\n  ".join(shown))


def read_all(read: Callable[[Sample], R], samples: Sequence[Sample], findings: Findings) -> dict[str, R]:
    """`read` of every sample by its name, by several threads (the decoders release the GIL); failures are noted."""

    def attempt(sample: Sample) -> R | DataError:
        try:
            return read(sample)
        except DataError as error:
            return error

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = list(pool.map(attempt, samples))
    found: dict[str, R] = {}
    for sample, result in zip(samples, results, strict=True):
        if isinstance(result, DataError):
            findings.note(sample, result)
        else:
            found[sample.name] = result
    return found


def refuse(problems: Sequence[str], most: int = 10) -> None:
    """Raises a DataError of all the problems, the first ten in words; none is fine."""
    if problems:
        more = [f"... and {len(problems) - most} more problems"] if len(problems) > most else []
        raise DataError([*problems[:most], *more])


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first few names."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
