"""Panels as files: what a program reads back (a picture, a palette picture for each mask) and one sheet for people."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from trainer.colors import RGB, RIGHT, WRONG, palette
from trainer.records import Panel

LARGEST = 512  # longest side of a stored picture, pixels
TILE = 160  # least longest side of a picture on the sheet
_GAP, _LINE, _LETTERS, _FRAME = 8, 15, 12, 4
FACTS = ("name", "sample", "caption", "classes", "colors", "legends", "right", "drawn")  # kept as they are
_INK, _FAINT, _PAPER = (25, 25, 25), (110, 110, 110), (255, 255, 255)


def write_panels(folder: Path, panels: Sequence[Panel]) -> None:
    """Writes the pictures of one evaluation; a reader finds all of them or no folder.

    ```
    00-image.png  the first sample      panels.json  all else of each panel, and its files
    00-true.png   its mask `true`: a palette picture whose pixels are the class indices     sheet.png  for people
    ```

    Raises:
        OSError: they cannot be written. ValueError: a panel holds no picture.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        shown, entries = [smaller(panel) for panel in panels], []
        for n, panel in enumerate(shown):
            image, masks = f"{n:02d}-image.png", {name: _mask_file(n, name) for name in panel.masks}
            Image.fromarray(panel.image).save(temporary / image, compress_level=3)
            for name, file in masks.items():
                palette_picture(panel.masks[name], _colors(panel, name)).save(temporary / file, compress_level=3)
            entries.append({name: getattr(panel, name) for name in FACTS} | {"image": image, "masks": masks})
        (temporary / "panels.json").write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
        sheet(shown).save(temporary / "sheet.png", compress_level=3)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_panels(folder: Path) -> list[Panel]:
    """The panels that `write_panels` wrote there; empty where there are none.

    Raises:
        OSError, ValueError: the folder is damaged.
    """
    if not (folder / "panels.json").exists():
        return []
    entries = json.loads((folder / "panels.json").read_text(encoding="utf-8"))
    return [
        panel_of(
            entry,
            _pixels(folder / entry["image"]),
            {name: _pixels(folder / file) for name, file in entry["masks"].items()},
        )
        for entry in entries
    ]


def panel_of(entry: Mapping[str, Any], image: np.ndarray, masks: dict[str, np.ndarray]) -> Panel:
    """A panel of what a file of JSON says of it, and of its pixels."""
    facts = {name: entry[name] for name in FACTS if name in entry}
    legends = {
        mask: {name: tuple(color) for name, color in legend.items()}
        for mask, legend in entry.get("legends", {}).items()
    }
    colors = tuple(map(tuple, entry["colors"]))
    made = {"classes": tuple(entry["classes"]), "colors": colors, "legends": legends}
    return Panel(**{**facts, **made, "image": image, "masks": masks})


def smaller(panel: Panel, largest: int = LARGEST) -> Panel:
    """The panel with no side longer than `largest`: the picture averaged, the masks sampled.

    Raises:
        ValueError: the picture is not uint8 of shape (H, W) or (H, W, 3), or a mask is not uint8 of shape (H, W).
    """
    if problem := panel.problem():
        raise ValueError(f"{panel.name}: {problem}")
    if panel.drawn:
        return panel
    image = _resized(np.asarray(panel.image), largest, Image.Resampling.BOX)
    masks = {name: _resized(np.asarray(mask), largest, Image.Resampling.NEAREST) for name, mask in panel.masks.items()}
    return replace(panel, image=image, masks=masks)


def palette_picture(mask: np.ndarray, colors: Sequence[RGB]) -> Image.Image:
    """A mask, uint8 (H, W), as a picture whose pixels are the class indices and whose palette is their colors."""
    picture = Image.fromarray(np.ascontiguousarray(mask))  # grey; a palette makes the same bytes class indices
    picture.putpalette([part for color in palette(colors) for part in color])
    return picture


def sheet(panels: Sequence[Panel]) -> Image.Image:
    """One picture of all panels: with masks a row for each sample (picture, then each mask), without them a grid."""
    blocks = []
    for name in dict.fromkeys(panel.name for panel in panels):
        some = [panel for panel in panels if panel.name == name]
        rows = [_tiles(panel) for panel in some]
        if not any(panel.masks for panel in some):
            across = min(len(rows), 8 if len(rows) > 12 else 4)
            rows = [sum(rows[i : i + across], []) for i in range(0, len(rows), across)]
        blocks += [_heading(name)] if len({panel.name for panel in panels}) > 1 else []
        blocks += [_beside(row) for row in rows]
        blocks += _legend(some)
    return _stacked(blocks)


def side_by_side(panel: Panel) -> Image.Image:
    """The picture and each of its masks in a row, each with its name."""
    return _beside(_tiles(panel))


# ------------------------------------------------------------------------------------------------- parts of a sheet


def _colors(panel: Panel, mask: str) -> Sequence[RGB]:
    return tuple(panel.legends[mask].values()) if mask in panel.legends else panel.colors


def _tiles(panel: Panel) -> list[Image.Image]:
    image = _enlarged(Image.fromarray(panel.image).convert("RGB"), Image.Resampling.NEAREST)
    framed = image if panel.right is None else ImageOps.expand(image, _FRAME, RIGHT if panel.right else WRONG)
    tiles = [_captioned(framed, panel.caption or panel.sample)]
    for name, mask in panel.masks.items():
        colored = (
            palette_picture(mask, _colors(panel, name)).convert("RGB").resize(image.size, Image.Resampling.NEAREST)
        )
        grey = image.convert("L").convert("RGB")
        tiles.append(_captioned(Image.blend(grey, colored, 0.6), name))
    return tiles


def _enlarged(image: Image.Image, how: Image.Resampling) -> Image.Image:
    times = max(1, -(-TILE // max(image.size)))
    return image.resize((image.width * times, image.height * times), how) if times > 1 else image


def _captioned(image: Image.Image, text: str) -> Image.Image:
    lines = _wrapped(text, image.width)
    tile = Image.new("RGB", (image.width, image.height + 3 + _LINE * len(lines)), _PAPER)
    tile.paste(image, (0, 0))
    draw = ImageDraw.Draw(tile)
    for n, line in enumerate(lines):
        draw.text((1, image.height + 2 + _LINE * n), line, fill=_INK, font=_font())
    return tile


def _wrapped(text: str, width: int, most: int = 3) -> list[str]:
    """The text in lines no wider than that, a new one after two spaces; what is too long or needs more is cut."""
    lines: list[str] = []
    for part in filter(None, text.split("  ")):
        first, *words = part.split() or [""]
        lines.append(first)
        for word in words:
            joined = f"{lines[-1]} {word}"
            lines[-1:] = [joined] if _font().getlength(joined) <= width else [lines[-1], word]
    lines = [line if _font().getlength(line) <= width else _cut(line, width) for line in lines]
    return lines if len(lines) <= most else [*lines[: most - 1], _cut(lines[most - 1] + " ...", width)]


def _cut(text: str, width: int) -> str:
    while len(text) > 1 and _font().getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _heading(text: str) -> Image.Image:
    picture = Image.new("RGB", (int(_font().getlength(text)) + 2, _LINE + 3), _PAPER)
    ImageDraw.Draw(picture).text((1, 3), text, fill=_FAINT, font=_font())
    return picture


def _legend(panels: Sequence[Panel]) -> list[Image.Image]:
    """A colored square and a name for each class; several lines if there are many."""
    first = next((panel for panel in panels if panel.masks and (panel.classes or panel.legends)), None)
    if first is None:
        return []
    width = max(3 * TILE, sum(tile.width + _GAP for tile in _tiles(first)) - _GAP)
    said = list(zip(first.classes, palette(first.colors), strict=False))
    said += [entry for legend in first.legends.values() for entry in legend.items() if entry not in said]
    entries = [(color, name, 28 + int(_font().getlength(name))) for name, color in said]
    lines: list[list[tuple[RGB, str, int]]] = [[]]
    for entry in entries:
        if lines[-1] and sum(e[2] for e in lines[-1]) + entry[2] > width:
            lines.append([])
        lines[-1].append(entry)
    picture = Image.new("RGB", (width, (_LINE + 3) * len(lines)), _PAPER)
    draw = ImageDraw.Draw(picture)
    for n, line in enumerate(lines):
        x, y = 1, n * (_LINE + 3)
        for color, name, wide in line:
            draw.rectangle((x, y + 2, x + 12, y + 14), fill=color, outline=_FAINT)
            draw.text((x + 18, y + 1), name, fill=_INK, font=_font())
            x += wide
    return [picture]


def _beside(tiles: Sequence[Image.Image]) -> Image.Image:
    width = sum(tile.width for tile in tiles) + _GAP * (len(tiles) - 1)
    row = Image.new("RGB", (width, max(tile.height for tile in tiles)), _PAPER)
    x = 0
    for tile in tiles:
        row.paste(tile, (x, 0))
        x += tile.width + _GAP
    return row


def _stacked(blocks: Sequence[Image.Image]) -> Image.Image:
    width = max(block.width for block in blocks) + 2 * _GAP
    page = Image.new("RGB", (width, sum(block.height + _GAP for block in blocks) + _GAP), _PAPER)
    y = _GAP
    for block in blocks:
        page.paste(block, (_GAP, y))
        y += block.height + _GAP
    return page


# ----------------------------------------------------------------------------------------------------------- pieces


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=_LETTERS)


def _resized(pixels: np.ndarray, largest: int, how: Image.Resampling) -> np.ndarray:
    pixels = np.ascontiguousarray(pixels)
    height, width = pixels.shape[:2]
    if max(height, width) <= largest:
        return pixels
    scale = largest / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, how))


def _mask_file(number: int, name: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9_]", "-", name)
    return f"{number:02d}-{'mask-image' if safe == 'image' else safe}.png"


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)
