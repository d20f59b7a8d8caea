"""The learning-rate curve of a run as a picture, drawn before training."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trainer.records import Row

SIZE, LEFT, TOP, RIGHT, BOTTOM = (1800, 800), 180, 68, 48, 112  # drawn twice as large, which makes smooth lines
INK, FAINT, LINES = "#222222", "#dddddd", ("#1f6feb", "#d4602a", "#2a9d55", "#8250df", "#b8860b", "#c2337a")


def draw(path: Path, curves: Sequence[Sequence[float]], steps_per_epoch: int) -> None:
    """Writes a PNG of one line for each parameter group, learning rate over step; a disk error is no reason to stop.

    Args:
        path: the file. curves: for each group the rate of each update. steps_per_epoch: for the second axis.
    """
    image = Image.new("RGB", SIZE, "white")
    canvas, font = ImageDraw.Draw(image), ImageFont.load_default(28)
    steps, top = len(curves[0]), max(max(curve) for curve in curves) or 1.0
    width, height = SIZE[0] - LEFT - RIGHT, SIZE[1] - TOP - BOTTOM

    def at(step: float, rate: float) -> tuple[float, float]:
        return LEFT + width * step / max(steps - 1, 1), TOP + height * (1 - rate / (top * 1.05))

    for n in range(5):
        x, y = at((steps - 1) * n / 4, 0)[0], at(0, top * n / 4)[1]
        canvas.line([(x, TOP), (x, TOP + height)], fill=FAINT, width=2)
        canvas.line([(LEFT, y), (LEFT + width, y)], fill=FAINT, width=2)
        canvas.text((LEFT - 16, y), f"{top * n / 4:.3g}", fill=INK, font=font, anchor="rm")
        step = round((steps - 1) * n / 4) + 1
        canvas.text((x, TOP + height + 16), f"{step}", fill=INK, font=font, anchor="mt" if n < 4 else "rt")
    canvas.text((LEFT, 16), "learning rate", fill=INK, font=font)
    epochs = f"step (of {steps}; an epoch is {steps_per_epoch})"
    canvas.text((LEFT + width / 2, SIZE[1] - 20), epochs, fill=INK, font=font, anchor="mb")
    for curve, color in zip(curves, LINES * len(curves), strict=False):
        shown = sorted({round(i * (steps - 1) / 3000) for i in range(3001)})
        canvas.line([at(i, curve[i]) for i in shown] * (2 if steps == 1 else 1), fill=color, width=5, joint="curve")
    with contextlib.suppress(OSError):
        image.resize((SIZE[0] // 2, SIZE[1] // 2), Image.Resampling.LANCZOS).save(path)


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
    return [value for name, value in row.items() if name == "lr" or name.startswith("lr/")]
