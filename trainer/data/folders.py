"""The user's own pictures: a folder for each class, or pictures with masks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from trainer.data.augment import Augment
from trainer.data.base import Data
from trainer.data.files import (
    LOG,
    OnDisk,
    Reader,
    Sample,
    existing_folder,
    find_pictures,
    nothing_found,
    read_all,
    refuse,
    split,
    split_folders,
    subfolders,
)
from trainer.data.images import Bands, Preprocess, picture_size, spaced, statistics
from trainer.data.masks import MaskCode
from trainer.data.memory import Memory
from trainer.data.pairs import pair
from trainer.errors import DataError, did_you_mean

Cache = Literal["auto", "always", "never"]

_FITS = 1_000_000_000  # bytes of pixels that `cache=auto` keeps in memory


def image_folder(
    root: str,
    val_fraction: float = 0.2,
    size: int | list[int] | None = None,
    bands: Bands = "rgb",
    classes: list[str] | None = None,
    flip: bool = True,
    rotate: bool = False,
    crop: float = 0.0,
    jitter: float = 0.0,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    skip_bad: bool = False,
    cache: Cache = "auto",
    num_workers: int = 0,
    split_seed: int = 0,
) -> Data:
    """Pictures with labels: `root/cat/1.jpg`, or files that begin with their label and an underscore, `root/cat_1.jpg`.

    With `root/train` and `root/val`, those are the two sets; otherwise a part of each class is held out, chosen by the
    hash of the files' names. PNG, JPEG, GIF, TIFF, BMP and WebP are read, in 8 or 16 bits, turned as EXIF says.
    Inputs are float32 (C, H, W), targets int64 labels. Labels are sorted, numbers by their value.

    Args:
        root: the folder.
        val_fraction: part held out for validation, 0 to less than 1; unused with `root/val`.
        size: side, or [height, width], that pictures are scaled to; null if all are of one size already.
        bands: `rgb` or `grey`.
        classes: the labels in the order of their indices; null takes them as found.
        flip, rotate, crop, jitter: augmentation of training pictures, see `Augment`.
        mean, std: of each channel, 0 to 1; null measures them on 256 training pictures.
        skip_bad: leave unreadable files out, with a warning, instead of refusing to start.
        cache: keep decoded pixels in memory: `auto` up to 1 GB, `always` or `never`.
        num_workers: loader processes, when pictures are not in memory.
        split_seed: another number holds out other pictures.

    Raises:
        ValueError: an argument is out of range.
        DataError: files or folders are missing or wrong; all of it at once.
    """
    settings = _Settings(
        val_fraction,
        size,
        bands,
        Augment(flip, rotate, crop, jitter),
        mean,
        std,
        skip_bad,
        cache,
        num_workers,
        split_seed,
    )
    top = existing_folder(root, "data.root")
    parts = [part for part in split_folders(top) if part is not None]
    labelled = [_labels(part) for part in parts]
    found = sorted({label for part in labelled for _, label in part}, key=_by_value)
    names = list(classes) if classes is not None else found
    refuse(_unlike(names, found))
    index = {name: i for i, name in enumerate(names)}
    samples = [
        [Sample(path.relative_to(top).as_posix(), path, index[label]) for path, label in part] for part in labelled
    ]
    if len(names) < 2:
        raise DataError(f"data.root: only one class, {names[0]!r}, in {parts[0]}; pictures need at least two")
    facts = {"num_classes": len(names), "classes": tuple(names)}
    return _assemble("image_folder", settings, samples, facts, None)


def image_mask_folder(
    root: str,
    images: str = "imgs",
    masks: str = "masks",
    mask_suffix: str = "auto",
    val_fraction: float = 0.2,
    size: int | list[int] | None = None,
    bands: Bands = "rgb",
    classes: list[str] | None = None,
    colors: list[list[int]] | None = None,
    ignore_index: int | None = None,
    flip: bool = True,
    rotate: bool = False,
    crop: float = 0.0,
    jitter: float = 0.0,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    skip_bad: bool = False,
    cache: Cache = "auto",
    num_workers: int = 0,
    split_seed: int = 0,
) -> Data:
    """Pictures with masks: `root/imgs/a.jpg` belongs to `root/masks/a.png`, or to `a_mask.gif` and the like.

    With `root/train/imgs` and `root/val/imgs`, those are the two sets. Inputs are float32 (C, H, W), targets int64
    (H, W) of class indices. Masks may hold palette or class indices, grey levels, black and white, or colours; see
    `MaskCode.learn`. Pictures are scaled with antialiasing, masks by nearest neighbour.

    Args:
        root: the folder.
        images, masks: the folders of the pictures and of the masks in it.
        mask_suffix: what follows the picture's name in its mask's, such as `_mask`; `auto` knows the usual ones.
        val_fraction: part held out for validation, 0 to less than 1; unused with `root/val`.
        size: side, or [height, width], that pictures are scaled to; null if all are of one size already.
        bands: `rgb` or `grey`.
        classes: the names by class index; null makes them up.
        colors: [red, green, blue] of each class, to show it in, and to read masks that are coded in these colours.
        ignore_index: the value, 0 to 255, of mask pixels that belong to no class; where masks are coded in the given
            `colors`, every other colour gets it.
        flip, rotate, crop, jitter: augmentation of training pictures, see `Augment`; a mask moves with its picture.
        mean, std: of each channel, 0 to 1; null measures them on 256 training pictures.
        skip_bad: leave unreadable files out, with a warning, instead of refusing to start.
        cache: keep decoded pixels in memory: `auto` up to 1 GB, `always` or `never`.
        num_workers: loader processes, when pictures are not in memory.
        split_seed: another number holds out other pictures.

    Raises:
        ValueError: an argument is out of range.
        DataError: files or folders are missing or wrong; all of it at once.
    """
    settings = _Settings(
        val_fraction,
        size,
        bands,
        Augment(flip, rotate, crop, jitter),
        mean,
        std,
        skip_bad,
        cache,
        num_workers,
        split_seed,
    )
    palette = _checked_colors(classes, colors, ignore_index)
    top = existing_folder(root, "data.root")
    problems: list[str] = []
    samples = [
        pair(top, part / images, part / masks, mask_suffix, problems) for part in split_folders(top) if part is not None
    ]
    refuse(problems)
    wanted = _Masks(list(classes) if classes else None, palette, ignore_index)
    return _assemble("image_mask_folder", settings, samples, {}, wanted)


# ------------------------------------------------------------------------------------------------------- arguments


@dataclass(frozen=True)
class _Settings:
    """The arguments that both kinds of folders share."""

    val_fraction: float
    size: int | list[int] | None
    bands: Bands
    augment: Augment
    mean: list[float] | None
    std: list[float] | None
    skip_bad: bool
    cache: Cache
    num_workers: int
    split_seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"val_fraction: {self.val_fraction} must be at least 0 and less than 1")
        sides = [self.size] if isinstance(self.size, int) else self.size
        if sides is not None and (not 1 <= len(sides) <= 2 or min(sides) < 1):
            raise ValueError(f"size: {self.size} must be a number of pixels, or [height, width]")
        if self.bands not in ("grey", "rgb"):
            raise ValueError(f"bands: {self.bands!r} must be grey or rgb")
        if self.cache not in ("auto", "always", "never"):
            raise ValueError(f"cache: {self.cache!r} must be auto, always or never")
        if self.num_workers < 0:
            raise ValueError(f"num_workers: {self.num_workers} must be at least 0")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.channels:
                raise ValueError(f"{name}: {values} must have {self.channels} numbers for bands={self.bands}")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std: {self.std} must be more than 0")

    @property
    def channels(self) -> int:
        return 1 if self.bands == "grey" else 3

    @property
    def shape(self) -> tuple[int, int] | None:
        if self.size is None:
            return None
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[-1])


@dataclass(frozen=True)
class _Masks:
    """What the config says of the masks."""

    classes: list[str] | None
    colors: list[tuple[int, int, int]] | None
    ignore_index: int | None


def _checked_colors(
    classes: list[str] | None, colors: list[list[int]] | None, ignore_index: int | None
) -> list[tuple[int, int, int]] | None:
    if ignore_index is not None and not 0 <= ignore_index <= 255:
        raise ValueError(f"ignore_index: {ignore_index} must be from 0 to 255")
    if classes is not None and (len(classes) < 2 or len(set(classes)) < len(classes)):
        raise ValueError(f"classes: {classes} must be at least two different names")
    if colors is None:
        return None
    if any(len(color) != 3 or not all(0 <= value <= 255 for value in color) for color in colors):
        raise ValueError(f"colors: {colors} must be a list of [red, green, blue], each from 0 to 255")
    if len(colors) < 2 or len({tuple(color) for color in colors}) < len(colors):
        raise ValueError(f"colors: {colors} must be at least two different colours")
    if classes is not None and len(classes) != len(colors):
        raise ValueError(f"colors: {len(colors)} colours for {len(classes)} classes")
    return [(red, green, blue) for red, green, blue in colors]


# ---------------------------------------------------------------------------------------------------------- labels


def _labels(folder: Path) -> list[tuple[Path, str]]:
    """Every picture and its label, from its folder's name, or else from its own."""
    by_folder = [(path, sub.name) for sub in subfolders(folder) for path in find_pictures(sub)]
    loose = find_pictures(folder, deep=False)
    if by_folder:
        if loose:
            LOG.warning(
                "data.root: %d pictures lie beside the class folders in %s and are left out", len(loose), folder
            )
        return by_folder
    if not loose:
        raise DataError(
            f"{nothing_found(folder, 'data.root')}; expected a folder for each class, or names like cat_1.jpg"
        )
    unlabelled = [path.name for path in loose if not re.match(r"[^_]+_", path.stem)]
    if unlabelled:
        raise DataError(
            f"data.root: {len(unlabelled)} of {len(loose)} pictures in {folder} have no label: {_some(unlabelled)}; "
            "expected a folder for each class, or names that begin with the label and an underscore, like cat_1.jpg"
        )
    return [(path, path.stem.split("_")[0]) for path in loose]


def _by_value(label: str) -> tuple[int, int, str]:
    return (0, int(label), label) if label.isascii() and label.isdigit() else (1, 0, label)


def _unlike(classes: Sequence[str], found: Sequence[str]) -> list[str]:
    problems = [
        f"data.classes: {name!r} has no pictures; {did_you_mean(name, found)}" for name in classes if name not in found
    ]
    unlisted = [name for name in found if name not in classes]
    return problems + [f"data.classes: pictures of {name!r} were found, which is not listed" for name in unlisted]


# -------------------------------------------------------------------------------------------------------- assembly


def _assemble(
    kind: str, settings: _Settings, parts: list[list[Sample]], facts: dict[str, Any], masks: _Masks | None
) -> Data:
    """Checks every file, decides between memory and disk, and makes the two sets."""
    everything = [sample for part in parts for sample in part]
    shape, bad = _check_headers(everything, settings)
    samples = [sample for sample in everything if sample.name not in bad]
    reader = Reader(settings.bands, shape)
    bytes_each = shape[0] * shape[1] * (settings.channels + (masks is not None))
    in_memory = settings.cache == "always" or (settings.cache == "auto" and len(samples) * bytes_each <= _FITS)
    if masks is not None:
        chosen = samples if in_memory else [samples[i] for i in spaced(len(samples))]
        reader, more = _learn_masks(reader, chosen, masks, settings.skip_bad, bad)
        facts = {**facts, **more}
    pixels: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    if in_memory:
        samples = [sample for sample in samples if sample.name not in bad]
        pixels = _read(reader, samples, settings.skip_bad, bad)
    train, val = _two_sets([[s for s in part if s.name not in bad] for part in parts], settings)
    preprocess = _preprocess(reader, train, pixels, settings)

    def dataset(part: list[Sample], augment: Augment | None) -> Memory | OnDisk:
        if not in_memory:
            return OnDisk(part, reader, preprocess, augment, settings.skip_bad)
        images = np.stack([pixels[sample.name][0] for sample in part])
        targets = np.stack([pixels[sample.name][1] for sample in part])
        names = [sample.name for sample in part]
        return Memory(torch.from_numpy(images), torch.from_numpy(targets), names, preprocess, augment)

    facts = {
        "in_channels": settings.channels,
        "image_size": shape,
        "in_features": settings.channels * shape[0] * shape[1],
        **facts,
        "preprocess": preprocess,
    }
    words = [
        f"{kind}: {len(train)} training and {len(val)} validation pictures, {shape[0]}x{shape[1]} {settings.bands}",
        f"{facts['num_classes']} classes" + (f" ({reader.code.words})" if reader.code else ""),
        "in memory" if in_memory else "read from disk",
        f"augment: {settings.augment}",
    ]
    words += [f"{len(bad)} unreadable files left out"] if bad else []
    return Data(
        train=dataset(train, settings.augment),
        val=dataset(val, None) if val else None,
        facts=facts,
        num_workers=settings.num_workers,
        summary=", ".join(words),
        names=[sample.name for sample in [*train, *val]],
    )


def _check_headers(samples: list[Sample], settings: _Settings) -> tuple[tuple[int, int], set[str]]:
    """The size of all pictures, (height, width), and the names of the unreadable ones."""
    problems: list[str] = []
    sizes = read_all(lambda s: picture_size(s.image), samples, problems)
    paired = [s for s in samples if s.mask is not None]
    of_masks = read_all(lambda s: picture_size(s.mask or s.image), paired, problems)
    bad = {
        s.name for s, size in [*zip(samples, sizes, strict=True), *zip(paired, of_masks, strict=True)] if size is None
    }
    unreadable = _skipped(problems, settings.skip_bad)
    readable = {s.name: size for s, size in zip(samples, sizes, strict=True) if size is not None}
    for sample, size in zip(paired, of_masks, strict=True):
        if size is not None and size != (image := readable.get(sample.name, size)):
            hint = "; the picture is turned by its EXIF tag" if size == image[::-1] else ""
            unreadable.append(
                f"{sample.image} is {image[1]}x{image[0]} and its mask {sample.mask} is {size[1]}x{size[0]}{hint}"
            )
    common = Counter(readable.values()).most_common(3)
    if settings.shape is None and len(set(readable.values())) > 1:
        shown = ", ".join(f"{w}x{h} ({n})" for (h, w), n in common)
        unreadable.append(
            f"data.size: the pictures are of different sizes: {shown}{', ...' if len(set(readable.values())) > 3 else ''}; "
            "set data.size=128, or data.size=[height,width]"
        )
    refuse(unreadable)
    if not common:
        raise DataError(f"data.root: none of the {len(samples)} files can be read as a picture")
    return settings.shape or common[0][0], bad


def _learn_masks(
    reader: Reader, samples: list[Sample], masks: _Masks, skip_bad: bool, bad: set[str]
) -> tuple[Reader, dict[str, Any]]:
    """The reader that knows how masks are coded, and the facts of the classes."""
    problems: list[str] = []
    opened = read_all(reader.mask_image, samples, problems)
    refuse(_skipped(problems, skip_bad))
    bad.update(sample.name for sample, image in zip(samples, opened, strict=True) if image is None)
    readable = [image for image in opened if image is not None]
    code = MaskCode.learn(readable, masks.classes, masks.colors, masks.ignore_index)
    names = masks.classes or [f"class_{i}" for i in range(len(code.colors))]
    facts: dict[str, Any] = {"num_classes": len(names), "classes": tuple(names), "colors": code.colors}
    if masks.ignore_index is not None:
        facts["ignore_index"] = masks.ignore_index
    return replace(reader, code=code), facts


def _read(
    reader: Reader, samples: list[Sample], skip_bad: bool, bad: set[str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    problems: list[str] = []
    wrong: list[str] = []
    images = read_all(reader.image, samples, problems)
    targets = read_all(reader.target, samples, wrong)
    refuse([*_skipped(problems, skip_bad), *wrong])
    bad.update(sample.name for sample, image in zip(samples, images, strict=True) if image is None)
    both = zip(samples, images, targets, strict=True)
    return {s.name: (image, target) for s, image, target in both if image is not None and target is not None}


def _skipped(problems: list[str], skip_bad: bool) -> list[str]:
    """The problems that remain: none with `skip_bad`, which tells them once instead."""
    if skip_bad and problems:
        LOG.warning("data: %d unreadable files are left out:\n  %s", len(problems), "\n  ".join(problems[:10]))
    return [] if skip_bad else problems


def _two_sets(parts: list[list[Sample]], settings: _Settings) -> tuple[list[Sample], list[Sample]]:
    count = sum(map(len, parts))
    if count < 2:
        raise DataError(f"data.root: {count} picture is too few; training and validation need one each")
    train, val = parts if len(parts) == 2 else split(parts[0], settings.val_fraction, settings.split_seed)
    if not train or (not val and (len(parts) == 2 or settings.val_fraction)):
        raise DataError(
            f"data.root: {len(train)} training and {len(val)} validation pictures; each set needs at least one"
        )
    return train, val


def _preprocess(
    reader: Reader, train: list[Sample], pixels: dict[str, tuple[np.ndarray, np.ndarray]], settings: _Settings
) -> Preprocess:
    mean, std = settings.mean, settings.std
    if mean is None or std is None:
        chosen = [train[i] for i in spaced(len(train))]
        problems: list[str] = []
        images = [pixels[s.name][0] for s in chosen] if pixels else read_all(reader.image, chosen, problems)
        refuse(_skipped(problems, settings.skip_bad))
        measured = statistics(image for image in images if image is not None)
        mean, std = mean or measured[0], std or measured[1]
    return Preprocess(reader.size, mean, std)


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
