"""The pictures of a comparison: the same samples across runs and evaluations, made small enough for one page."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainer.report.entries import Entry

SIDE = 256  # longest side of an embedded picture, pixels
SHARP = 96  # up to here a picture is kept without loss
BYTES, PICTURES, EVALUATIONS = 6 << 20, 8000, 12  # the most of the page, of the page, and of each run
SKIPPED = ("error",)  # the page draws it from `true` and `pred`


@dataclass
class Pool:
    """Pictures as data URLs; a file that is in many runs (the sample, its true mask) is kept, and encoded, once."""

    urls: list[str] = field(default_factory=list)
    size: int = 0
    _known: dict[bytes, int] = field(default_factory=dict)

    def add(self, path: Path, drawn: bool) -> int:
        """Where the picture stands in `urls`.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        data = path.read_bytes()
        digest = hashlib.blake2b(data, digest_size=12).digest()
        if digest not in self._known:
            url = _url(data, drawn)
            self._known[digest] = len(self.urls)
            self.urls.append(url)
            self.size += len(url)
        return self._known[digest]

    @property
    def full(self) -> bool:
        return self.size > BYTES or len(self.urls) >= PICTURES


def _url(data: bytes, drawn: bool) -> str:
    picture: Image.Image = Image.open(io.BytesIO(data))
    mask = picture.mode == "P"
    longest = max(picture.size)
    if longest > SIDE and not drawn:
        width, height = (max(1, round(side * SIDE / longest)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.NEAREST if mask else Image.Resampling.BOX)
    file, kind = io.BytesIO(), "png"
    if mask:  # without the colors that it does not use: a few bits a pixel
        used = int(np.asarray(picture).max()) + 1
        palette = picture.getpalette() or []
        picture.putpalette(palette[: 3 * used])
        picture.save(file, "PNG", optimize=True)
    elif drawn:
        picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(file, "PNG", optimize=True)
    elif max(picture.size) <= SHARP:
        picture.save(file, "PNG", optimize=True)
    else:
        kind = "webp"
        picture.convert("RGB").save(file, "WEBP", quality=82)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def pack(entries: Sequence[Entry], order: Sequence[int], best: Sequence[int | None]) -> dict[str, Any]:
    """What the page shows of the media of all runs, as much as fits: of each run the last evaluation, its best, the
    first, and then those between, in turns, so that none goes without before another one has many.

    Args:
        order: the indices of the runs, the most interesting first. best: of each run the step of its best evaluation.

    Returns:
        `urls`; `runs`: for each run a list of [step, {sample: panel}]; `stored`: evaluations in each run's folder;
        `samples`: in the order in which they are offered; `classes`: names and colors.
    """
    steps = [_steps(entry) for entry in entries]
    queues = {run: _spread(steps[run], best[run]) for run in order}
    pool, classes = Pool(), dict[str, str]()
    runs: list[list[list[Any]]] = [[] for _ in entries]
    for turn in range(EVALUATIONS):
        for run in order:
            if turn < len(queues[run]) and not pool.full:
                step = queues[run][turn]
                if panels := _evaluation(entries[run].folder.media_at(step), pool, classes):
                    runs[run].append([step, panels])
    for told in runs:
        told.sort(key=lambda one: one[0])
    samples = list(dict.fromkeys(sample for told in runs for _, panels in told for sample in panels))
    samples.sort(key=lambda sample: (not sample.startswith("val/examples"), sample.startswith("val/confusion")))
    stored = [len(some) for some in steps]
    return {"urls": pool.urls, "runs": runs, "stored": stored, "samples": samples, "classes": classes, "side": SIDE}


def _steps(entry: Entry) -> list[int]:
    found = (path.parent.name.removeprefix("step-") for path in entry.folder.media.glob("step-*/panels.json"))
    return sorted(int(step) for step in found if step.isdigit())


def _spread(steps: Sequence[int], best: int | None) -> list[int]:
    """The last, the best, the first, then always the middle of the widest gap."""
    chosen = list(dict.fromkeys([*steps[-1:], *([best] if best in steps else []), *steps[:1]]))
    while len(chosen) < min(EVALUATIONS, len(steps)):
        places = sorted(steps.index(step) for step in chosen)
        _, left, right = max((b - a, a, b) for a, b in zip(places, places[1:], strict=False))
        chosen.append(steps[(left + right) // 2])
    return [step for step in chosen if step is not None]


def _evaluation(folder: Path, pool: Pool, classes: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The panels of one evaluation by sample; what is damaged is left out."""
    found: dict[str, dict[str, Any]] = {}
    try:
        panels = json.loads((folder / "panels.json").read_text(encoding="utf-8"))
        for name, panel in _named(panels):
            shown = {
                "image": pool.add(folder / panel["image"], bool(panel.get("drawn"))),
                "masks": {
                    mask: pool.add(folder / file, False) for mask, file in panel["masks"].items() if mask not in SKIPPED
                },
                "caption": panel.get("caption") or panel.get("sample", ""),
            }
            if panel.get("right") is not None:
                shown["right"] = panel["right"]
            found[name] = shown
            if panel["masks"]:
                for label, color in zip(panel.get("classes", ()), panel.get("colors", ()), strict=False):
                    classes.setdefault(label, "#" + "".join(f"{part:02x}" for part in color))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return found
    return found


def _named(panels: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each panel and the name by which it is the same in other runs: of the worst ones that is their place."""
    places: dict[str, int] = {}
    for panel in panels:
        name = str(panel["name"])
        places[name] = places.get(name, 0) + 1
        alone = name.endswith("/confusion")
        yield name if alone else f"{name}  {places[name] if name.endswith('/worst') else panel['sample']}", panel
