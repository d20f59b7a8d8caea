"""The learning-rate curve of a run before it is trained: as a picture, as text for a terminal, and in a line.

Also the curve of a range test, as text.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trainer.durations import count
from trainer.lr_find import LrRange
from trainer.records import Row
from trainer.schedules import Curves

SIZE, LEFT, TOP, RIGHT, BOTTOM = (1800, 800), 180, 68, 48, 112  # drawn twice as large, which makes smooth lines
INK, FAINT, LINES = "#222222", "#dddddd", ("#1f6feb", "#d4602a", "#2a9d55", "#8250df", "#b8860b", "#c2337a")
MOMENTUM = "#999999"

# ------------------------------------------------------------------------------------------------------- the picture


def draw(
    path: Path,
    curves: Sequence[Sequence[float]],
    steps_per_epoch: int,
    momenta: Sequence[Sequence[float]] = (),
    names: Sequence[str] = (),
) -> None:
    """Writes a PNG of one line for each parameter group, learning rate over step; a disk error is no reason to stop.

    Args:
        path: the file. curves: for each group the rate of each update. steps_per_epoch: for the second axis.
        momenta: for each group its momentum, where that moves; drawn from 0 to 1, in grey.
        names: of the groups, written in the colours of their lines.
    """
    image = Image.new("RGB", SIZE, "white")
    canvas, font = ImageDraw.Draw(image), ImageFont.load_default(28)
    steps, top = len(curves[0]), max(max(curve) for curve in curves) or 1.0
    width, height = SIZE[0] - LEFT - RIGHT, SIZE[1] - TOP - BOTTOM

    def at(step: float, share: float) -> tuple[float, float]:
        return LEFT + width * step / max(steps - 1, 1), TOP + height * (1 - share / 1.05)

    for n in range(5):
        x, y = at((steps - 1) * n / 4, 0)[0], at(0, n / 4)[1]
        canvas.line([(x, TOP), (x, TOP + height)], fill=FAINT, width=2)
        canvas.line([(LEFT, y), (LEFT + width, y)], fill=FAINT, width=2)
        canvas.text((LEFT - 16, y), f"{top * n / 4:.3g}", fill=INK, font=font, anchor="rm")
        step = round((steps - 1) * n / 4) + 1
        canvas.text((x, TOP + height + 16), f"{step}", fill=INK, font=font, anchor="mt" if n < 4 else "rt")
    canvas.text((LEFT, 16), "learning rate", fill=INK, font=font)
    _legend(canvas, font, names)
    epochs = f"step (of {steps}; an epoch is {steps_per_epoch})"
    canvas.text((LEFT + width / 2, SIZE[1] - 20), epochs, fill=INK, font=font, anchor="mb")
    if momenta:
        text = f"momentum, {min(map(min, momenta)):.3g} to {max(map(max, momenta)):.3g}"
        canvas.text((LEFT + width, 16), text, fill=MOMENTUM, font=font, anchor="ra")
    shown = sorted({round(i * (steps - 1) / 3000) for i in range(3001)})
    lines = [(curve, MOMENTUM, 1.0, 3) for curve in momenta]
    lines += [(curve, LINES[n % len(LINES)], top, 5) for n, curve in enumerate(curves)]
    for curve, color, most, thickness in lines:
        points = [at(i, curve[i] / most) for i in shown] * (2 if steps == 1 else 1)
        canvas.line(points, fill=color, width=thickness, joint="curve")
    with contextlib.suppress(OSError):
        image.resize((SIZE[0] // 2, SIZE[1] // 2), Image.Resampling.LANCZOS).save(path)


def _legend(canvas: ImageDraw.ImageDraw, font: Any, names: Sequence[str]) -> None:
    """The names after the title, as many as there is room for."""
    x, end = LEFT + canvas.textlength("learning rate   ", font=font), SIZE[0] - 420  # where the momentum is written
    for n, name in enumerate(names):
        wide = canvas.textlength(f"{name}   ", font=font)
        if x + wide > end:
            canvas.text((x, 16), "...", fill=INK, font=font)
            return
        canvas.text((x, 16), name, fill=LINES[n % len(LINES)], font=font)
        x += wide


def lived(curves: list[list[float]], metrics: Path, step: int) -> list[list[float]]:
    """The curves of a run that goes on, with the rates up to `step` as its history holds them.

    They differ from what is planned where the run was shorter before, or its schedule follows a metric.
    """
    with contextlib.suppress(OSError, ValueError, KeyError):
        rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
        known = [row for row in rows if row["step"] <= step]
        places = [0, *(row["step"] - 1 for row in known)]
        lines = list(zip(*map(_rates, known), strict=True))
        if len(lines) == len(curves):
            for curve, line in zip(curves, lines, strict=True):
                done = places[-1] + 1
                curve[:done] = np.interp(range(done), places, [curve[0], *line]).tolist()
    return curves


def _rates(row: Row) -> list[float]:
    return [value for name, value in row.items() if name.startswith("lr/")] or [row["lr"]]


# -------------------------------------------------------------------------------------------------------- in a line

_PER = {"step": "per step", "epoch": "per epoch", "value": "per evaluation"}


def in_words(curves: Curves) -> str:
    """`per step: 0.0003 -> 0.003 (step 112) -> 2e-08`, and what is odd about it."""
    words = f"{_PER[curves.unit]}: {_way(curves.lrs[0])}"
    if curves.follows_metric:
        words += ", less when the metric gets no better"
    if curves.momenta:
        low, high = min(curves.momenta[0]), max(curves.momenta[0])
        words += f"; momentum {low:.3g} to {high:.3g}"
    return f"{words}; {curves.warning}" if curves.warning else words


def _way(curve: Sequence[float]) -> str:
    """The turning points of a curve; a few numbers where there are many."""
    turns = _turns(curve)
    if len(turns) == 1:
        return f"{curve[0]:.3g} throughout"
    if len(turns) > 5:
        rises = sum(curve[b] > curve[a] for a, b in zip(turns, turns[1:], strict=False))
        return f"{curve[0]:.3g}, {rises} times up between {min(curve):.2g} and {max(curve):.3g}, -> {curve[-1]:.2g}"
    inner = [f"{curve[n]:.3g} (step {n + 1})" for n in turns[1:-1]]
    return " -> ".join([f"{curve[0]:.3g}", *inner, f"{curve[-1]:.2g}"])


def _turns(curve: Sequence[float]) -> list[int]:
    """The first step, those where rising turns into falling or the other way, and the last."""
    turns, up = [0], None
    least = 1e-9 * max(map(abs, curve))  # rounding is no turn
    for n in range(1, len(curve)):
        if abs(curve[n] - curve[n - 1]) <= least:
            continue
        rising = curve[n] > curve[n - 1]
        if up is not None and rising != up:
            turns.append(n - 1)
        up = rising
    return turns if up is None else [*turns, len(curve) - 1]


# ------------------------------------------------------------------------------------------------- for the terminal

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # of a braille character, by column and row
BLANK = " \u2800"
WIDTH, HEIGHT = 80, 9  # characters of the curve; with the labels before it 90 in a line


def plots(curves: Curves, encoding: str | None = "utf-8") -> list[str]:
    """The curve of the learning rate, and that of the momentum where it moves, as lines of text."""
    braille = _shows("\u2801", encoding)
    lines = list(_plot(curves.lrs, HEIGHT, braille))
    end = f"step {curves.steps}, epoch {curves.steps / curves.steps_per_epoch:g}"
    lines.append(f"{'':10}1{end:>{WIDTH - 1}}")
    if curves.momenta:
        lines += ["", *_plot(curves.momenta, 4, braille, min(map(min, curves.momenta))), f"{'':10}momentum"]
    return lines


def range_report(found: LrRange, key: str, encoding: str | None = "utf-8") -> list[str]:
    """What a range test found, as lines: how far it came, the smoothed loss over the rate, what to type for `key`."""
    words = f"{count(len(found.lrs), 'update')}"
    words += f" while the learning rate rose from {found.lrs[0]:.2g} to {found.lrs[-1]:.2g}" if found.lrs else ""
    lines = [f"lr_find   {words}{'; then ' if found.ended else ''}{found.ended}", ""]
    if len(found.lrs) > 1:
        lines += [*_range_plot(found, _shows("\u2801", encoding)), ""]
    lines += [f"{lr:>8.2g}  {how}" for how, lr in found.suggestions.items()]
    if found.suggestion is None:
        return [*lines, f"no rate can be suggested: {found.why_not}"]
    return [*lines, "", f"type      {key}={found.suggestion:g}"]


def _range_plot(found: LrRange, braille: bool) -> Iterator[str]:
    first, last = math.log10(found.lrs[0]), math.log10(found.lrs[-1])
    bottom, start = min(found.smoothed), found.smoothed[0]
    ceiling = start + 0.5 * (start - bottom or 1.0)  # what diverges leaves the picture
    shown = [min(value, ceiling) for value in found.smoothed]
    fine = np.interp(np.linspace(0, len(shown) - 1, 2 * WIDTH), range(len(shown)), shown).tolist()

    def at(lr: float) -> int:
        return round((math.log10(lr) - first) / (last - first) * (WIDTH - 1))

    tens = [10.0**n for n in range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)]
    yield f"{'loss':>8}"
    yield from _plot([fine], HEIGHT, braille, bottom)
    yield _line({at(ten): "|" for ten in tens})
    yield f"{'rate':>8}" + _line({at(ten): f"{ten:g}" for ten in tens})[8:]
    if found.suggestion is not None:
        yield _line({at(found.suggestion): "^"})


def _line(texts: dict[int, str]) -> str:
    """Texts that begin in given columns of a plot."""
    cells = [" "] * (WIDTH + 10)
    for column, text in texts.items():
        cells[10 + column : 10 + column + len(text)] = text
    return "".join(cells).rstrip()


def _shows(text: str, encoding: str | None) -> bool:
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _plot(curves: Sequence[Sequence[float]], height: int, braille: bool, bottom: float = 0.0) -> Iterator[str]:
    """Lines of text from the largest value down to `bottom`; each column holds all values of its share of the run."""
    across, down = (2, 4) if braille else (1, 1)
    rows, top = height * down, max(map(max, curves)) or 1.0
    span = top - bottom or 1.0
    cells = [[0] * WIDTH for _ in range(height)]
    for curve in curves:
        before = None
        for x in range(WIDTH * across):
            first = x * len(curve) // (WIDTH * across)
            values = curve[first : max(first + 1, (x + 1) * len(curve) // (WIDTH * across))]
            ends = [round((top - value) / span * (rows - 1)) for value in (max(values), min(values), values[-1])]
            low, high = ends[:2] if before is None else (min(ends[0], before), max(ends[1], before))
            for y in range(low, high + 1):
                cells[y // down][x // across] |= _DOTS[x % across][y % down]
            before = ends[2]
    for n, line in enumerate(cells):
        middle = f"{top - span * (n + 0.5) / height:.2g}"
        value = {0: f"{top:.3g}", height // 2: middle, height - 1: f"{bottom:.3g}"}.get(n, "")
        dots = "".join(chr(0x2800 + cell) if braille else " *"[cell > 0] for cell in line)
        yield f"{value:>8}  {dots.rstrip(BLANK)}"
