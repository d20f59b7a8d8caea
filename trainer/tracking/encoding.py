"""Pictures on their way to PNG: the training writes their bytes as they are, whoever comes first encodes them.

Encoding takes a second for eight pictures of 512 x 512 with three masks, writing the bytes a sixtieth of that.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from trainer.records import Panel
from trainer.tracking.panels import FACTS, panel_of, smaller, write_panels

MOST, BYTES = 8, 64 << 20  # evaluations whose pictures may wait, and how large all may be together
PATIENCE = 30.0  # seconds for which another process is waited for: one that is stopped must not stop the training


def put(folder: Path, panels: Sequence[Panel]) -> None:
    """Writes what `encode` makes the pictures in that folder of.

    Raises:
        OSError: they cannot be written. ValueError: a panel holds no picture.
    """
    shown = [smaller(panel) for panel in panels]
    facts = [{name: getattr(panel, name) for name in FACTS} | {"masks": list(panel.masks)} for panel in shown]
    temporary = folder.with_name(f".raw-{folder.name}.tmp")  # what a kill leaves of it is written over the next time
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb") as file:
            file.write(json.dumps(facts).encode() + b"\n")
            for panel in shown:
                for pixels in (panel.image, *panel.masks.values()):
                    np.save(file, pixels, allow_pickle=False)
        temporary.replace(_raw(folder))
    finally:
        temporary.unlink(missing_ok=True)


def encode(folder: Path) -> None:
    """Makes the pictures in that folder of the bytes that wait for it, if any do; waits for another one who does so.

    Raises:
        OSError: they cannot be written, or another process holds them for too long. ValueError: what waits is damaged.
    """
    raw = _raw(folder)
    try:
        number = os.open(raw, os.O_RDONLY)
    except FileNotFoundError:
        return
    with open(number, "rb") as file:
        _lock(file, folder)  # that of a process that was killed is void: the next one does it
        if not os.fstat(number).st_nlink:
            return  # it was done meanwhile
        try:
            panels = _read(file)
        except ValueError:
            raw.unlink()  # it would never be read
            raise
        write_panels(folder, panels)
        raw.unlink()


def _lock(file: BinaryIO, folder: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > end:
                raise TimeoutError(f"{folder}: not encoded in {PATIENCE:g} s by another process") from error
            time.sleep(0.01)


def waiting(media: Path) -> list[Path]:
    """The folders that bytes wait for, in the order of their steps."""
    return sorted(media / path.stem.removeprefix(".raw-") for path in media.glob(".raw-step-*.bin"))


def room(media: Path) -> bool:
    """Whether more bytes may wait."""
    sizes = []
    for folder in waiting(media):
        try:
            sizes.append(_raw(folder).stat().st_size)
        except FileNotFoundError:  # just encoded
            continue
    return len(sizes) < MOST and sum(sizes) < BYTES


def _raw(folder: Path) -> Path:
    return folder.with_name(f".raw-{folder.name}.bin")


def _read(file: BinaryIO) -> list[Panel]:
    try:
        facts = json.loads(file.readline())
        return [panel_of(entry, np.load(file), {name: np.load(file) for name in entry["masks"]}) for entry in facts]
    except (ValueError, EOFError, KeyError, TypeError) as error:
        raise ValueError(f"what waited to be encoded is damaged: {error}") from error
