"""Masks as people save them (palette, class index, grey level, colour, black and white) read as class indices."""

from __future__ import annotations

import colorsys
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainer.data.images import open_picture
from trainer.errors import DataError

Color = tuple[int, int, int]

_MOST = 64  # more colours than this are no classes but a photograph, or a mask blurred by JPEG
_LOSSY = "lossy"  # a key in the info of an opened mask

_PALETTE: tuple[Color, ...] = (
    (0, 0, 0), (230, 60, 60), (60, 160, 75), (255, 210, 30), (40, 110, 220), (245, 130, 48), (145, 30, 180),
    (70, 220, 230), (240, 50, 230), (190, 240, 70), (250, 190, 200), (0, 128, 128), (220, 190, 255), (154, 99, 36),
    (128, 0, 0), (170, 255, 195), (128, 128, 0), (255, 215, 180), (0, 0, 128), (128, 128, 128),
)  # fmt: skip

log = logging.getLogger("trainer")


def default_colors(count: int) -> tuple[Color, ...]:
    """That many colours that can be told apart, the first of them black."""
    colors = list(_PALETTE[:count])
    for i in range(len(colors), count):
        r, g, b = colorsys.hsv_to_rgb((i * 0.618034) % 1, 0.5 + 0.5 * (i % 2), 1 - 0.15 * (i % 4))
        colors.append((round(r * 255), round(g * 255), round(b * 255)))
    return tuple(colors)


def open_mask(path: Path, size: tuple[int, int] | None = None) -> Image.Image:
    """A mask in mode P (palette), L (grey, also where all three channels agree) or RGB, scaled by nearest neighbour.

    Args:
        size: (height, width), or None to leave it as it is.

    Raises:
        UnreadableError: the file is damaged or no picture.
        DataError: 16-bit values that are no class indices.
    """
    opened = open_picture(path)
    lossy = opened.format == "JPEG"
    image = _plain(opened, path)
    if size is not None and (image.height, image.width) != size:
        image = image.resize((size[1], size[0]), Image.Resampling.NEAREST)
    image.info = {_LOSSY: True} if lossy else {}
    return image


def _plain(image: Image.Image, path: Path) -> Image.Image:
    if image.mode in ("P", "L"):
        return image
    if image.mode in ("1", "LA"):
        return image.convert("L")
    if image.mode.startswith(("I", "F")):
        array = np.asarray(image)
        if array.size and array.max() > 255 and not (array % 257).any():
            array = array // 257
        if array.size and (array.min() < 0 or array.max() > 255 or (array % 1).any()):
            raise DataError(
                f"{path}: a mask with values from {array.min()} to {array.max()}; save class indices, 0 to 255"
            )
        return Image.fromarray(array.astype(np.uint8))
    image = image.convert("RGB")
    red, green, blue = (np.asarray(band) for band in image.split())
    return image.getchannel(0) if np.array_equal(red, green) and np.array_equal(green, blue) else image


@dataclass(frozen=True)
class MaskCode:
    """How a set of masks is coded, learned from the masks by `learn`.

    Attributes:
        colors: (red, green, blue) to show each class in; as many as there are classes.
        ignore_index: the value of pixels that belong to no class, or None.
        keys: the colour that stands for each class in the files; None where the files hold the indices.
        nearest: take the class with the nearest colour (JPEG changes colours a little).
        others_ignored: a colour that is none of `keys` becomes `ignore_index`.
        by_palette: palette indices are the class indices, whatever the colours.
        words: the coding in words.
    """

    colors: tuple[Color, ...]
    ignore_index: int | None = None
    keys: tuple[Color, ...] | None = None
    nearest: bool = False
    others_ignored: bool = False
    by_palette: bool = False
    words: str = "class indices"

    def encode(self, image: Image.Image, where: str) -> np.ndarray:
        """uint8 (H, W) of class indices from what `open_mask` gives.

        Raises:
            DataError: the mask holds values that are no class; names the file, the values and what is allowed.
        """
        return self._indices(image, where) if self.keys is None else self._by_colour(image, where, self.keys)

    def _indices(self, image: Image.Image, where: str) -> np.ndarray:
        if image.mode == "RGB":
            raise DataError(f"{where}: a mask in colour, while the others hold class indices")
        indices = np.array(image if self.by_palette else image.convert("L"))
        found = np.flatnonzero(np.bincount(indices.ravel(), minlength=256))
        wrong = [int(v) for v in found if v >= len(self.colors) and v != self.ignore_index]
        if wrong:
            allowed = f"0 to {len(self.colors) - 1}" + (
                "" if self.ignore_index is None else f" and {self.ignore_index}"
            )
            hint = "; for pixels of no class set data.ignore_index" if self.ignore_index is None else ""
            raise DataError(f"{where}: mask values {_listed(wrong)} are no class, allowed are {allowed}{hint}")
        return indices

    def _by_colour(self, image: Image.Image, where: str, keys: Sequence[Color]) -> np.ndarray:
        colours = np.asarray(image.convert("RGB")).astype(np.int32)
        if self.nearest:
            distances = np.stack([((colours - key) ** 2).sum(axis=-1) for key in keys])
            nearest: np.ndarray = distances.argmin(axis=0).astype(np.uint8)
            return nearest
        codes = colours[..., 0] << 16 | colours[..., 1] << 8 | colours[..., 2]
        known = np.array([_pack(key) for key in keys])
        order = np.argsort(known)
        place = order[np.searchsorted(known[order], codes).clip(0, len(keys) - 1)]
        indices: np.ndarray = place.astype(np.uint8)
        strange = known[place] != codes
        if self.ignore_index is not None:
            ignored = strange if self.others_ignored else strange & (codes == self.ignore_index * 0x010101)
            indices[ignored] = self.ignore_index
            strange = strange & ~ignored
        if strange.any():
            wrong = [_shown(_unpack(int(code))) for code in np.unique(codes[strange])]
            allowed = _listed([_shown(key) for key in keys], 12)
            raise DataError(f"{where}: mask colours {_listed(wrong)} are no class, allowed are {allowed}")
        return indices

    @classmethod
    def learn(
        cls,
        masks: Sequence[Image.Image],
        classes: Sequence[str] | None = None,
        colors: Sequence[Color] | None = None,
        ignore_index: int | None = None,
    ) -> MaskCode:
        """The coding of masks from `open_mask`.

        Palette masks hold class indices if their palettes agree. Grey values are indices if they are below the number
        of classes (without `classes` and `colors`: below twice the number of different values); else the sorted levels
        are the classes, so that 0, 127, 255 become 0, 1, 2. Other masks are told by colour: `colors`, else those found.

        Raises:
            DataError: the values cannot be classes, or do not fit `classes` or `colors`.
        """
        wanted = len(colors or classes or ()) or None
        chosen = tuple(colors) if colors else None
        palette = _common_palette(masks)
        if palette is not None and not (chosen and set(palette.values()) <= set(chosen)):
            return _learn_palette(masks, palette, wanted, chosen, ignore_index)
        counts = _colour_counts(masks)
        lossy = any(_LOSSY in mask.info for mask in masks)
        grey = all(code == (code & 255) * 0x010101 for code in counts)
        if chosen and (not grey or lossy or {_unpack(code) for code in counts} <= set(chosen)):
            return cls(
                chosen,
                ignore_index,
                keys=chosen,
                nearest=lossy,
                others_ignored=ignore_index is not None,
                words="the given colours",
            )
        if grey:
            return _learn_grey({code & 255: n for code, n in counts.items()}, wanted, chosen, ignore_index, lossy)
        found = tuple(_unpack(code) for code in sorted(counts))
        if lossy or len(found) > _MOST or len(found) != (wanted or len(found)):
            raise DataError(
                f"data: the masks hold {len(found)} colours{f' for {wanted} classes' if wanted else ''}"
                f"{', blurred by JPEG' if lossy else ''}: {_listed([_shown(color) for color in found])}; "
                "give the colour of each class as data.colors=[[0,0,0],[255,0,0]]"
            )
        return cls(
            found if _distinct(found) else default_colors(len(found)), ignore_index, found, words="colours found"
        )


def _learn_palette(
    masks: Sequence[Image.Image],
    palette: dict[int, Color],
    wanted: int | None,
    chosen: tuple[Color, ...] | None,
    ignore_index: int | None,
) -> MaskCode:
    values = [value for value in palette if value != ignore_index]
    if wanted is None and 255 in values and len(values) < 128:
        raise DataError(
            "data: the masks hold the palette index 255, which mostly marks pixels of no class; "
            "set data.ignore_index=255, or name the classes by data.classes"
        )
    count = wanted or max(2, max(values, default=0) + 1)
    flat = [*(masks[0].getpalette("RGB") or []), *bytes(768)]  # the first palette has the colours that are not in use
    own = tuple(palette.get(i, (flat[3 * i], flat[3 * i + 1], flat[3 * i + 2])) for i in range(count))
    shown = chosen or (own if _distinct(own) else default_colors(count))
    return MaskCode(shown, ignore_index, by_palette=True, words="palette indices")


def _learn_grey(
    counts: dict[int, int], wanted: int | None, chosen: tuple[Color, ...] | None, ignore_index: int | None, lossy: bool
) -> MaskCode:
    levels = sorted(level for level in counts if level != ignore_index)
    top = max(levels, default=0)
    if not lossy and (top < (wanted or 2 * len(levels)) or not levels):
        if wanted is None and (absent := sorted(set(range(top)) - set(levels))):
            log.warning(
                "data: no pixel of the masks has class %s, and the largest is %d; is that a mistake? "
                "Name the classes by data.classes",
                _listed(absent, 6),
                top,
            )
        return MaskCode(chosen or default_colors(wanted or max(2, top + 1)), ignore_index)
    if wanted is None and top == 255 and len(levels) > 2 and levels[-2] < 2 * (len(levels) - 1):
        raise DataError(
            f"data: the masks hold class indices and 255 ({_listed(levels, 12)}); if 255 marks pixels of no class, "
            "set data.ignore_index=255, else name the classes by data.classes"
        )
    near = sum(n for level, n in counts.items() if level < 48 or level > 207)
    two_tone = wanted in (None, 2) and top > 207 and near >= 0.9 * sum(counts.values())
    apart = all(b - a >= 8 for a, b in zip(levels, levels[1:], strict=False))  # else softened edges, not classes
    fits = len(levels) == wanted if wanted else 2 <= len(levels) <= _MOST
    if fits and not lossy and (apart or not two_tone):
        keys = tuple((level, level, level) for level in levels)
        words = f"grey levels {_listed(levels, 12)}"
        return MaskCode(chosen or default_colors(len(levels)), ignore_index, keys, words=words)
    if two_tone:
        ends = ((0, 0, 0), (255, 255, 255))
        return MaskCode(chosen or default_colors(2), ignore_index, ends, nearest=True, words="black and white")
    because = "JPEG has blurred them, save masks as PNG" if lossy else "set data.ignore_index for pixels of no class"
    expected = f"{wanted} classes (0 to {wanted - 1})" if wanted else "class indices"
    raise DataError(
        f"data: the masks hold the grey values {_listed(levels, 12)}, which are not {expected}; {because}, "
        "or give the level of each class as data.colors=[[0,0,0],[255,255,255]]"
    )


def _common_palette(masks: Sequence[Image.Image]) -> dict[int, Color] | None:
    """Used index to colour if all are palette masks that agree: GIF writers drop unused colours, so they may not.

    A palette of plain greys, index i in the grey i, is none: such masks are grey pictures.
    """
    merged: dict[int, Color] = {}
    for mask in masks:
        if mask.mode != "P":
            return None
        flat = [*(mask.getpalette("RGB") or []), *bytes(768)]
        for _, index in _colours(mask):
            color = (flat[3 * index], flat[3 * index + 1], flat[3 * index + 2])
            if merged.setdefault(index, color) != color:
                return None
    return None if all(color == (index, index, index) for index, color in merged.items()) else merged


def _colour_counts(masks: Sequence[Image.Image]) -> dict[int, int]:
    """How many pixels have each colour, packed in 24 bits."""
    total: dict[int, int] = {}
    for mask in masks:
        for count, value in _colours(mask if mask.mode == "L" else mask.convert("RGB")):
            key = value * 0x010101 if isinstance(value, int) else _pack(value)
            total[key] = total.get(key, 0) + count
    return total


def _colours(image: Image.Image) -> list[tuple[int, Any]]:
    """(count, value) of every value in a picture."""
    found = image.getcolors(4096)  # its table is allocated at once: a larger one would cost more than the counting
    if found is None:
        values, counts = np.unique(np.asarray(image).reshape(-1, 3), axis=0, return_counts=True)
        return list(zip(counts.tolist(), values.tolist(), strict=True))
    return list(found)


def _distinct(colors: Sequence[Color]) -> bool:
    """Whether an eye can tell the colours apart: a palette is often left at 0, 0, 0 and 1, 1, 1."""
    table = np.array(colors, dtype=int).reshape(-1, 3)
    distance = np.abs(table[:, None] - table[None]).sum(axis=-1) + 999 * np.eye(len(table), dtype=int)
    return bool((distance >= 30).all())


def _pack(color: Sequence[int]) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _unpack(code: int) -> Color:
    return code >> 16, code >> 8 & 255, code & 255


def _shown(color: Color) -> str:
    return f"[{color[0]},{color[1]},{color[2]}]"


def _listed(values: Sequence[object], most: int = 8) -> str:
    return ", ".join(map(str, values[:most])) + (", ..." if len(values) > most else "")
