"""The user's own pictures: a folder for each class, or pictures with masks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from trainer.data.assembly import Cache, MaskWords, Settings, assemble
from trainer.data.augment import Augment
from trainer.data.base import Data
from trainer.data.files import (
    LOG,
    Sample,
    existing_folder,
    find_pictures,
    listed,
    nothing_found,
    refuse,
    split_folders,
    subfolders,
)
from trainer.data.images import Bands
from trainer.data.pairs import pair
from trainer.errors import DataError, did_you_mean


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
    settings = Settings(
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
    names = found if classes is None else [str(name) for name in classes]
    refuse(_unlike(names, found))
    index = {name: i for i, name in enumerate(names)}
    samples = [
        [Sample(path.relative_to(top).as_posix(), path, index[label]) for path, label in part] for part in labelled
    ]
    if len(names) < 2:
        raise DataError(f"data.root: only one class, {names[0]!r}, in {parts[0]}; pictures need at least two")
    facts = {"num_classes": len(names), "classes": tuple(names)}
    return assemble("image_folder", settings, samples, facts, None)


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
    settings = Settings(
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
    wanted = MaskWords(classes, palette, ignore_index)
    return assemble("image_mask_folder", settings, samples, {}, wanted)


# ---------------------------------------------------------------------------------------------------------- labels


def _labels(folder: Path) -> list[tuple[Path, str]]:
    """Every picture and its label, from its folder's name, or else from its own."""
    by_folder = [(path, sub.name) for sub in subfolders(folder) for path in find_pictures(sub)]
    loose = find_pictures(folder, deep=False)
    if by_folder:
        if {label for _, label in by_folder} <= {"imgs", "images", "masks", "labels", "annotations"}:
            raise DataError(
                f"data.root: {folder} holds pictures and masks, not classes; type experiment=image_mask_folder"
            )
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
            f"data.root: {len(unlabelled)} of {len(loose)} pictures in {folder} have no label: {listed(unlabelled)}; "
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
