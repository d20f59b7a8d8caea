"""The color of each class in every picture: the same in all runs, at all evaluations."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

RGB = tuple[int, int, int]

RIGHT, WRONG, LEFT_OUT = (44, 160, 44), (214, 39, 40), (127, 127, 127)
_CLASSES: tuple[RGB, ...] = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189),
    (140, 86, 75), (227, 119, 194), (188, 189, 34), (23, 190, 207),
)  # fmt: skip


def palette(colors: Sequence[RGB] = ()) -> list[RGB]:
    """256 colors: the given ones, then others that are easy to tell apart. A color depends on its place alone."""
    return [*colors, *_FREE[len(colors) :]][:256]


def _hue(n: int) -> RGB:
    red, green, blue = colorsys.hsv_to_rgb(n * 0.61803398875 % 1, 0.65, 0.85)  # the golden angle keeps neighbours apart
    return round(255 * red), round(255 * green), round(255 * blue)


_FREE = (*_CLASSES, *(_hue(n) for n in range(256 - len(_CLASSES))))
