"""The confusion matrix as a picture: a row for each true class, a column for each predicted one."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from trainer.colors import RGB
from trainer.records import Panel

MOST = 30  # classes; more could not be read

_PAPER, _INK, _FAINT, _EMPTY = (255, 255, 255), (25, 25, 25), (120, 120, 120), (246, 247, 249)
_RIGHT, _WRONG = (24, 90, 157), (222, 84, 30)
_EDGE, _LONGEST = 12, 150  # pixels around, and of the longest name


def confusion_panels(counts: Tensor, classes: Sequence[str]) -> list[Panel]:
    """The matrix of a whole evaluation, `val/confusion`; nothing where there is none, or above `MOST` classes."""
    if len(classes) > MOST or not counts.any():
        return []
    right, every = int(counts.diagonal().sum()), int(counts.sum())
    picture = confusion_picture(counts.cpu().numpy(), classes)
    caption = f"{right:,} of {every:,} right; percent of each true class"
    return [Panel("val/confusion", "all", picture, caption=caption, drawn=True)]


def confusion_picture(counts: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """uint8 (H, W, 3) of counts (C, C), row true class, column predicted.

    A cell tells the share of its row, and the count where there is room. Right answers are blue and wrong ones orange,
    the deeper the larger the share; beside each row stands how many there are of that true class.
    """
    classes = [_cut(name, _LONGEST) for name in classes]
    side, longest = _side(len(classes)), max(map(_width, classes))
    upright = longest + 6 > side
    left, top = _EDGE + 22 + longest + 8, _EDGE + 22 + (longest + 6 if upright else 14) + 8
    end = left + side * len(classes), top + side * len(classes)
    page = Image.new("RGB", (end[0] + 8 + _width("99.9k") + _EDGE, end[1] + _EDGE), _PAPER)
    draw = ImageDraw.Draw(page)
    middle = (left + end[0]) / 2, (top + end[1]) / 2
    draw.text((middle[0], _EDGE + 6), "predicted", fill=_FAINT, font=_font(12), anchor="mm")
    _upright(page, "true", (_EDGE + 6, middle[1]), _FAINT)
    for i, name in enumerate(classes):
        at = side * i + side / 2
        draw.text((left - 8, top + at), name, fill=_INK, font=_font(12), anchor="rm")
        if upright:
            _upright(page, name, (left + at, top - 8 - _width(name) / 2), _INK)
        else:
            draw.text((left + at, top - 8), name, fill=_INK, font=_font(12), anchor="ms")
        total = int(counts[i].sum())
        draw.text((end[0] + 8, top + at), _short(total), fill=_FAINT, font=_font(11), anchor="lm")
        for j, count in enumerate(counts[i].tolist()):
            _cell(draw, (left + side * j, top + side * i), side, count, total, i == j)
    return np.array(page)


def _side(classes: int) -> int:
    """Pixels of a cell."""
    return next(side for most, side in ((2, 96), (4, 76), (8, 60), (12, 52), (20, 38), (MOST, 32)) if classes <= most)


def _cell(draw: ImageDraw.ImageDraw, at: tuple[int, int], side: int, count: int, total: int, right: bool) -> None:
    share = count / total if total else 0.0
    depth = share if right else max(share, 0.01) ** 0.5  # a few mistakes among many right answers must be seen
    color = _between(_EMPTY, _RIGHT if right else _WRONG, depth if count else 0)
    x, y = at
    draw.rectangle((x + 1, y + 1, x + side - 2, y + side - 2), fill=color)
    if not count:
        return
    ink = _PAPER if 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] < 140 else _INK  # as bright as it looks
    middle = x + side / 2 - 0.5, y + side / 2 - 0.5
    if side < 50:
        draw.text(middle, _percent(share).removesuffix("%"), fill=ink, font=_font(12), anchor="mm")
        return
    size = 16 if side > 90 else 13
    draw.text((middle[0], middle[1] - size / 2), _percent(share), fill=ink, font=_font(size), anchor="mm")
    pale = _between(color, ink, 0.72)
    draw.text((middle[0], middle[1] + size * 0.75), _short(count), fill=pale, font=_font(size - 2), anchor="mm")


def _upright(page: Image.Image, text: str, middle: tuple[float, float], color: RGB) -> None:
    letters = Image.new("L", (_width(text) + 2, 16), 0)
    ImageDraw.Draw(letters).text((1, 8), text, fill=255, font=_font(12), anchor="lm")
    letters = letters.transpose(Image.Transpose.ROTATE_90)
    page.paste(color, (round(middle[0] - letters.width / 2), round(middle[1] - letters.height / 2)), letters)


def _percent(share: float) -> str:
    if share < 0.005:
        return "<1%"
    return "99%" if 0.99 < share < 1 else f"{share:.0%}"  # 100% is said of all alone


def _short(count: int) -> str:
    """A count in at most five letters: 9999, 12.3k, 123k, 4.5M."""
    if count < 10_000:
        return str(count)
    power = next((n for n in (1, 2, 3) if count < 999.5 * 1000**n), 4)
    value = count / 1000**power
    return f"{value:.1f}{'kMGT'[power - 1]}" if value < 99.95 else f"{value:.0f}{'kMGT'[power - 1]}"


def _cut(text: str, width: int) -> str:
    while _width(text) > width:
        text = text.removesuffix("…")[:-1] + "…"
    return text


def _between(one: RGB, other: RGB, share: float) -> RGB:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _width(text: str) -> int:
    return int(_font(12).getlength(text)) + 1


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
