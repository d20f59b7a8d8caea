"""metrics.jsonl, histograms.jsonl and media/: the history of a run on disk, which everything else is made from."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.errors import CheckpointError
from trainer.folder import RunFolder
from trainer.records import Histogram, Outcome, Panel, Row
from trainer.tracking import encoding
from trainer.tracking.base import Plan, Tracker
from trainer.tracking.panels import write_panels

log = logging.getLogger("trainer")


class Journal(Tracker):
    """Appends rows to metrics.jsonl, one write a call, histograms to a file of their own, and panels to media/.

    The lines are strict JSON with the keys in the order given; a value that is not finite is null. What cannot be
    written of rows is kept and tried again at the next call: a full disk costs a warning, never the training.

    Args:
        folder: the run folder.
        followed: another process follows the journal, and encodes the pictures while training goes on.
    """

    def __init__(self, folder: RunFolder, followed: bool = False) -> None:
        self.folder, self.followed = folder, followed
        self._file: int | None = None
        self._waiting = b""
        self._offset: int | None = None
        self._told: set[str] = set()

    def start(self, plan: Plan) -> None:
        """Cuts off what a crash left behind: half a line, and the pictures of steps that will be done again."""
        try:
            if self._offset is not None and self.folder.metrics.exists():
                os.truncate(self.folder.metrics, self._offset)
            self._offset = None
            _cut_torn_line(self._open())
            cut_steps(self.folder.speed, plan.start)
            cut_steps(self.folder.histograms, plan.start)
            self._encode()  # also of steps that will be done again: nobody is at it any more when they are removed
            for leftover in self.folder.media.glob(".step-*"):  # of a kill while pictures were written
                shutil.rmtree(leftover)
            for leftover in self.folder.media.glob(".raw-*.tmp"):
                leftover.unlink()
            for path in self.folder.media.glob("step-*"):
                if _step_of(path) > plan.start:
                    shutil.rmtree(path)
        except OSError as error:
            self._warn(error)

    def _encode(self) -> None:
        """Makes PNG files of the pictures that nobody has made them of."""
        for folder in encoding.waiting(self.folder.media):
            try:
                encoding.encode(folder)
            except (OSError, ValueError) as error:
                self._warn(error)

    def panels(self, step: int, panels: Sequence[Panel]) -> None:
        bad = [panel for panel in panels if panel.problem()]
        if bad:
            self._warn(ValueError(f"{bad[0].name}: {bad[0].problem()}"))
            panels = [panel for panel in panels if not panel.problem()]
        if not panels:
            return
        later = self.followed and encoding.room(self.folder.media)
        try:
            (encoding.put if later else write_panels)(self.folder.media_at(step), panels)
        except (OSError, ValueError) as error:
            self._warn(error)

    def histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        if not histograms:
            return
        try:
            with open(self.folder.histograms, "ab") as file:
                line = _line({"step": step, **{name: vars(one) for name, one in histograms.items()}})
                append(file.fileno(), line)
        except OSError as error:
            self._warn(error)

    def speed(self, step: int, values: Mapping[str, float]) -> None:
        """Appends to what the shipper reads, where there is one: nothing else depends on it."""
        if values:
            with contextlib.suppress(OSError), open(self.folder.speed, "ab") as file:
                append(file.fileno(), _line({"step": step, **values}))

    def rows(self, rows: Sequence[Row]) -> None:
        self._waiting += b"".join(_line(row) for row in rows)
        self._write()

    def saved(self) -> None:
        self._write()
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._file)

    def finish(self, outcome: Outcome) -> None:
        self.saved()
        self._encode()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    # ---------------------------------------------------------------------------------------------------- its part

    def state_dict(self) -> dict[str, Any]:
        """`offset`: the length of the file in bytes. `waiting`: lines that could not be written yet."""
        try:
            offset = os.fstat(self._open()).st_size
        except OSError:
            offset = 0
        return {"offset": offset, "waiting": self._waiting.decode()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Notes where to cut the file when the run starts: rows of steps that will be done again must not stand twice.

        Raises:
            CheckpointError: the file is shorter than that: rows were lost.
        """
        offset = int(state["offset"])
        try:
            size = self.folder.metrics.stat().st_size
        except FileNotFoundError:
            size = 0
        if size < offset:
            raise CheckpointError(
                f"{self.folder.metrics} has {size} bytes, and the checkpoint was written when it had {offset}: rows of "
                "the history are missing; put the file back, or start a new run"
            )
        self._waiting, self._offset = str(state["waiting"]).encode(), offset

    # ----------------------------------------------------------------------------------------------------- writing

    def _open(self) -> int:
        if self._file is None:
            self._file = os.open(self.folder.metrics, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        return self._file

    def _write(self) -> None:
        if not self._waiting:
            return
        try:
            append(self._open(), self._waiting)
        except OSError as error:
            self._warn(error, "it will be tried again")
            return
        self._waiting = b""

    def _warn(self, error: Exception, then: str = "it is left out") -> None:
        if then not in self._told:
            log.warning("%s: %s; training goes on, and %s", self.folder, error, then)
        self._told.add(then)


def append(file: int, lines: bytes) -> None:
    """All of them or none: readers must never see half a line, nor the next one be appended to it."""
    written = os.write(file, lines)
    if written < len(lines):  # the disk is full
        os.ftruncate(file, os.fstat(file).st_size - written)
        raise OSError(28, "No space left on device")


def by_step(lines: Iterable[bytes]) -> dict[int, dict[str, Any]]:
    """What lines of speed.jsonl or histograms.jsonl say; one that a full disk or a power cut has spoilt is left out."""
    found: dict[int, dict[str, Any]] = {}
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, AttributeError):
            values = json.loads(line)
            found.setdefault(int(values.pop("step")), {}).update(values)
    return found


def cut_steps(path: Path, start: int) -> None:
    """Cuts off what a file holds of steps that will be done again."""
    if not path.exists():
        return
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1].splitlines(keepends=True)
    kept = b"".join(line for line in whole if any(step <= start for step in by_step([line])))
    if kept != text:
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_bytes(kept)
        temporary.replace(path)


def _step_of(folder: Path) -> int:
    found = re.fullmatch(r"step-(\d+)", folder.name)
    return int(found[1]) if found else -1


def _line(row: Row) -> bytes:
    try:
        text = _encode(row)
    except ValueError:
        text = _encode({key: _finite(value) for key, value in row.items()})
    return text.encode() + b"\n"


def _finite(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Any) -> Any:
    """Numbers of numpy and their like as Python's own; anything else as its text."""
    return value.item() if hasattr(value, "item") and getattr(value, "size", 0) == 1 else str(value)


_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False, default=_plain).encode


def _cut_torn_line(file: int, block: int = 1 << 16) -> None:
    """Cuts the file after its last newline, reading from its end."""
    size = end = os.fstat(file).st_size
    while end > 0:
        begin = max(0, end - block)
        found = os.pread(file, end - begin, begin).rfind(b"\n")
        if found >= 0:
            end = begin + found + 1
            break
        end = begin
    if end < size:
        os.ftruncate(file, end)
