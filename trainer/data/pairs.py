"""Pictures and masks in two folders, matched by name."""

from __future__ import annotations

import re
from pathlib import Path

from trainer.data.files import Sample, find_pictures, listed, nothing_found, subfolders
from trainer.errors import did_you_mean

_USUAL = re.compile(r"[_-](masks?|labels?|gt|seg|segmentation|annotation|L)$", re.IGNORECASE)


def pair(root: Path, images: Path, masks: Path, suffix: str, problems: list[str]) -> list[Sample]:
    """A sample for each picture and its mask; what is missing or double is told in `problems`.

    Args:
        suffix: what a mask's name has after its picture's, or `auto`: nothing, `_mask`, `_label`, `_gt`, `_seg`, ...
    """
    for folder, key in ((images, "images"), (masks, "masks")):
        if not folder.is_dir():
            beside = [p.name for p in subfolders(folder.parent)] if folder.parent.is_dir() else []
            problems.append(
                f"data.{key}: there is no folder {folder}; in {folder.parent}: {did_you_mean(folder.name, beside)} "
                f"(another name is set by data.{key}=NAME)"
            )
    if not (images.is_dir() and masks.is_dir()):
        return []
    pictures, drawings = find_pictures(images), find_pictures(masks)
    problems += [nothing_found(f, k) for f, k, p in
                 ((images, "data.images", pictures), (masks, "data.masks", drawings)) if not p]  # fmt: skip
    if not pictures or not drawings:
        return []
    by_key = _keyed([(_key(path, images), path) for path in pictures], f"pictures in {images}", problems)
    of_masks = _keyed(
        [(_mask_key(_key(path, masks), by_key, suffix), path) for path in drawings], f"masks in {masks}", problems
    )
    lonely = [path.name for key, path in by_key.items() if key not in of_masks]
    spare = [path.name for key, path in of_masks.items() if key not in by_key]
    if lonely:
        problems.append(
            f"{len(lonely)} of {len(pictures)} pictures have no mask: {listed(lonely)} (a mask in {masks} has the same "
            f"name, with {'_mask or the like' if suffix == 'auto' else suffix!r} behind it; see data.mask_suffix)"
        )
    if spare:
        problems.append(f"{len(spare)} of {len(drawings)} masks have no picture in {images}: {listed(spare)}")
    both = [key for key in by_key if key in of_masks]
    return [Sample(by_key[key].relative_to(root).as_posix(), by_key[key], mask=of_masks[key]) for key in both]


def _key(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _mask_key(key: str, pictures: dict[str, Path], suffix: str) -> str:
    if suffix != "auto":
        return key.removesuffix(suffix)
    return key if key in pictures else _USUAL.sub("", key)


def _keyed(found: list[tuple[str, Path]], what: str, problems: list[str]) -> dict[str, Path]:
    """By key; two files for one key are a problem."""
    by_key: dict[str, Path] = {}
    doubles = [f"{by_key[key].name} and {path.name}" for key, path in found if by_key.setdefault(key, path) is not path]
    if doubles:
        problems.append(f"{what} share a name: {listed(doubles)}")
    return by_key
