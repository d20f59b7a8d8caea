"""Checkpoints that are whole or absent: written beside their place, checked, moved there; the best and the newest kept.

A checkpoint is a folder `step-000000120/` with `weights.pt` (the model's plain state_dict), `state.pt` (everything
else) and `manifest.json` (sizes and checksums of both), which is written last and removed first. `best` is a small text
file with a folder's name. The newest whole folder is the last one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import pickle
import shutil
import threading
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainer.errors import CheckpointError, SaveError
from trainer.folder import BEST, MANIFEST, STATE, WEIGHTS, step_name, write_whole
from trainer.state import State, Stateful, snapshot

log = logging.getLogger("trainer")

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """What one checkpoint holds, loaded to the CPU."""

    path: Path
    weights: dict[str, torch.Tensor]
    state: State
    manifest: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run.

    Args:
        keep: how many of the newest to keep, beside the best.
    """

    def __init__(self, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep: {keep} must be at least 1")
        self.keep = keep
        self.folder: Path | None = None
        self._writer: threading.Thread | None = None
        self._error: Exception | None = None
        self._memory: list[torch.Tensor] = []  # of the newest snapshot, used again for the next
        self._owed: tuple[int, State, State, dict[str, Any]] | None = None  # the best one, for which there was no room
        self._newest = -1  # the step that was saved last
        self._damaged: set[str] = set()  # found so while looking for one to go on from

    def attach(self, folder: Path | None) -> None:
        """Says where to write; nowhere if None."""
        self.folder = folder

    def clear(self) -> None:
        """Removes what a killed save, or a removal cut short, left behind."""
        if self.folder is None:
            return
        with contextlib.suppress(OSError):
            (self.folder / f".{BEST}.tmp").unlink(missing_ok=True)
            for path in [*self.folder.glob(".tmp-*"), *self.folder.glob("step-" + 9 * "[0-9]")]:
                if not (path / MANIFEST).exists() or path.name.startswith("."):
                    shutil.rmtree(path, ignore_errors=True)

    # ------------------------------------------------------------------------------------------------------- saving

    def snapshot(self, parts: Mapping[str, Stateful]) -> State:
        """A copy of every part to be saved, in the memory of the one before: waits until that is written."""
        self.wait()
        return snapshot(parts, self._memory)

    def save(self, step: int, weights: State, state: State, facts: dict[str, Any], best: bool) -> None:
        """Writes a checkpoint in the background; waits for the one before.

        Args:
            step: its name. weights, state: from `snapshot`, which nothing changes while they are written.
            facts: plain values for the manifest. best: whether `best` shall point to it.
        """
        self.wait()
        if self.folder is None:
            return
        self._newest = step
        self._writer = threading.Thread(target=self._write, args=(step, weights, state, facts, best), name="checkpoint")
        self._writer.start()

    def wait(self) -> None:
        """Returns when nothing is being written."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None

    def close(self) -> None:
        """Waits for the last save.

        Raises:
            SaveError: it could not be written.
        """
        self.wait()
        if self._owed is not None:
            error = self._error if self._owed[0] != self._newest else None
            if self._try(*self._owed, best=True):
                self._error = error  # of a newer one, which is lost all the same
        self._memory, self._owed = [], None
        if self._error is not None:
            why, error, self._error = self._why(), self._error, None
            raise SaveError(f"{self.folder}: the last checkpoint could not be written ({why})") from error

    def _write(self, step: int, weights: State, state: State, facts: dict[str, Any], best: bool) -> None:
        """What the thread does: first the best checkpoint that there was no room for, if there is one, then this."""
        if self._owed is not None and not best and self._try(*self._owed, best=True):
            self._owed = None
        if self._try(step, weights, state, facts, best):
            self._owed = None if best else self._owed
            return
        if best:
            self._owed, self._memory = (step, weights, state, facts), []  # and none of its memory is used again
        log.warning("checkpoint at step %d could not be written (%s); training goes on", step, self._why())

    def _try(self, step: int, weights: State, state: State, facts: dict[str, Any], best: bool) -> bool:
        """Writes a checkpoint; where there is no room, once more after making some."""
        folder = self.folder
        assert folder is not None
        for attempt in (1, 2):
            try:
                _refuse_nan(weights)
                if not self._is_whole(step_name(step)):  # else only the pointer could not be written
                    _write_folder(folder, step_name(step), {WEIGHTS: weights, STATE: state}, {"step": step, **facts})
                    self._damaged.discard(step_name(step))
                if best:
                    write_whole(folder / BEST, step_name(step) + "\n")
                    _sync(folder)
                self._error = None
                self._prune(self.keep)
                return True
            except Exception as error:  # torch reports a full disk as RuntimeError
                self._error = error
                self.clear()
                if attempt == 1 and self._is_full():
                    with contextlib.suppress(OSError):
                        self._prune(1)
        return False

    def _is_whole(self, name: str) -> bool:
        return name in self.names() and name not in self._damaged

    def _cause(self) -> OSError | None:
        """What the system said; torch hides it behind a position in a file."""
        error: BaseException | None = self._error
        while error is not None and not isinstance(error, OSError):
            error = error.__context__
        return error

    def _is_full(self) -> bool:
        """Whether the last save failed for want of room."""
        cause = self._cause()
        if cause is not None:
            return cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        assert self.folder is not None
        with contextlib.suppress(OSError):
            return shutil.disk_usage(self.folder).free < 1 << 20
        return False

    def _why(self) -> str:
        """The last error in words."""
        cause = self._cause()
        if cause is not None and cause.errno != errno.ENOSPC:
            return cause.strerror or str(cause)
        return f"no space left in {self.folder}" if self._is_full() else str(self._error)

    def _prune(self, keep: int) -> None:
        assert self.folder is not None
        names = self.names()
        whole = [name for name in names if name not in self._damaged]  # the others do not count among the newest
        for name in set(names) - retained(whole, self.best_name(), keep):
            with contextlib.suppress(OSError):
                _remove(self.folder / name)

    # ------------------------------------------------------------------------------------------------------ loading

    def names(self) -> list[str]:
        """The checkpoints there are, oldest first."""
        if self.folder is None or not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.glob("step-*") if (path / MANIFEST).is_file())

    def last_path(self) -> Path | None:
        """The newest checkpoint's folder, not looked into."""
        names = self.names()
        return self.folder / names[-1] if self.folder and names else None

    def best_name(self) -> str | None:
        if self.folder is None:
            return None
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return (self.folder / BEST).read_text(encoding="utf-8").strip() or None
        return None

    def point_best(self, step: int) -> None:
        """Makes `best` name the checkpoint of that step, where it is kept."""
        if self.folder is not None and step_name(step) in self.names() and self.best_name() != step_name(step):
            write_whole(self.folder / BEST, step_name(step) + "\n")

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, or None where there is none at all.

        Raises:
            CheckpointError: there are checkpoints, and each one is damaged.
        """
        if self.folder is None:
            return None
        reasons: list[str] = []
        for name in reversed(self.names()):
            try:
                found = read(self.folder / name)
            except CheckpointError as error:
                self._damaged.add(name)
                reasons.append(str(error))
            else:
                for reason in reasons:
                    log.warning("%s; the one before it is used", reason)
                return found
        if reasons:
            raise CheckpointError("no checkpoint can be read:\n  " + "\n  ".join(reasons))
        return None

    def best(self) -> Checkpoint:
        """The checkpoint that `best` names.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        assert self.folder is not None
        name = self.best_name()
        if name is None:
            raise CheckpointError(f"{self.folder}: no best checkpoint is kept here; use --which last")
        return read(self.folder / name)


def retained(names: Iterable[str], best: str | None, keep: int) -> set[str]:
    """Which checkpoints stay: the newest `keep`, and the best."""
    ordered = sorted(names)
    return set(ordered[-keep:]) | ({best} & set(ordered) if best else set())


def read(path: Path) -> Checkpoint:
    """Reads one checkpoint, after its sizes and checksums have been found right.

    Raises:
        CheckpointError: a file is missing, damaged, or holds more than plain data.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        for name in (WEIGHTS, STATE):
            facts = manifest["files"][name]
            size = (path / name).stat().st_size
            if size != facts["bytes"]:
                raise CheckpointError(f"{path / name}: damaged: it has {size} bytes and should have {facts['bytes']}")
            if _checksum(path / name) != facts["sha256"]:
                raise CheckpointError(f"{path / name}: damaged: its checksum is wrong")
        if manifest["format"] > FORMAT:
            raise CheckpointError(f"{path}: written by a newer version of the trainer; update this one")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            loaded = [torch.load(path / name, map_location="cpu", weights_only=True) for name in (WEIGHTS, STATE)]
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: not a whole checkpoint: {Path(error.filename).name} is missing") from error
    except pickle.UnpicklingError as error:  # torch's own text tells how to run what the file holds
        raise CheckpointError(f"{path}: holds more than plain data, and is not loaded") from error
    except Exception as error:  # torch.load raises many kinds; whichever it is, this checkpoint cannot be used
        raise CheckpointError(f"{path}: cannot be read ({(str(error).splitlines() or [repr(error)])[0]})") from error
    return Checkpoint(path, loaded[0], loaded[1], manifest)


def _write_folder(parent: Path, name: str, contents: dict[str, Any], facts: dict[str, Any]) -> None:
    if not parent.is_dir():
        parent.mkdir(parents=True)
        _sync(parent.parent)
    temporary = parent / f".tmp-{name}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    files = {}
    for file, content in contents.items():
        with open(temporary / file, "wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        files[file] = {"bytes": (temporary / file).stat().st_size, "sha256": _checksum(temporary / file)}
    manifest = {"format": FORMAT, **facts, "files": files}
    with open(temporary / MANIFEST, "w", encoding="utf-8") as stream:
        stream.write(json.dumps(manifest, indent=1) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    _sync(temporary)
    _remove(parent / name)
    temporary.rename(parent / name)
    _sync(parent)


def _refuse_nan(weights: State) -> None:
    """A checkpoint of a diverged model would take the place of a good one. Infinity may be meant, as in a mask."""
    for name, value in weights.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point() and bool(value.isnan().any()):
            raise ValueError(f"{name} holds NaN")


def _remove(path: Path) -> None:
    """Removes a checkpoint; without its manifest it is none, so a removal cut short leaves no half one."""
    if path.exists():
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
