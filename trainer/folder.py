"""The run folder: every file name of a run in one place. The folder is the run, and all in it is plain data."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.errors import BusyError, ConfigError, TrainerError

WEIGHTS, STATE, MANIFEST = "weights.pt", "state.pt", "manifest.json"  # of a checkpoint
SWEEP, JOBS = ".sweep", "jobs.json"  # beside the jobs of a sweep: a folder of its own, and in it the jobs' names
BEST = "best"  # beside the checkpoints: the name of one

_HELD: set[int] = set()  # descriptors of the locks that this process holds


def _let_go() -> None:
    """A forked loader worker would keep the lock of a training process that was killed."""
    for file in _HELD:
        os.close(file)
    _HELD.clear()


os.register_at_fork(after_in_child=_let_go)


def step_name(step: int) -> str:
    """The folder name that belongs to a step, so that names sort as steps do: `step-000000120`."""
    return f"step-{step:09d}"


class RunFolder:
    """Where everything of one run lies.

    ```
    config.yaml     the composed config             media/step-000000120/   what was shown at that evaluation
    status.json     state, result, who runs it      checkpoints/            step-000000120/, best
    metrics.jsonl   the history, a row a step       preview.png             the learning-rate curve
    train.log       the log that a person reads     wandb/                  what wandb wrote
    receipt.jsonl   digits that prove equality      capsule/                what a step that failed was given
    histograms.jsonl  of hooks that log some        code/                   what the hook `code` keeps
    ```
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self.config = self.path / "config.yaml"
        self.status = self.path / "status.json"
        self.metrics = self.path / "metrics.jsonl"
        self.receipt = self.path / "receipt.jsonl"
        self.histograms = self.path / "histograms.jsonl"
        self.log = self.path / "train.log"
        self.media = self.path / "media"
        self.checkpoints = self.path / "checkpoints"
        self.preview = self.path / "preview.png"
        self.wandb = self.path / "wandb"
        self.capsule = self.path / "capsule"
        self.code = self.path / "code"
        self.shipper = self.path / ".shipper"  # what the shipping process was told, and how far it is
        self.speed = self.shipper / "speed.jsonl"  # a run without wandb has none
        self._lock = self.path / ".lock"
        self._holding = False

    def __str__(self) -> str:
        """The path as a person would type it: relative where that is shorter."""
        return shown(self.path)

    @property
    def held(self) -> bool:
        """Whether a living process trains here."""
        try:
            file = os.open(self._lock, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(file)
        return False

    def state(self) -> str:
        """The run's state; `killed` for one that says it is running and is not."""
        state = str(self.read_status().get("state", "not started"))
        return "killed" if state == "running" and not self.held else state

    @property
    def used(self) -> bool:
        """Whether a run has left rows or checkpoints here."""
        rows = self.metrics.exists() and self.metrics.stat().st_size > 0
        return rows or any(self.checkpoints.glob("step-*"))

    def media_at(self, step: int) -> Path:
        return self.media / step_name(step)

    def create(self) -> None:
        """Makes the folder.

        Raises:
            ConfigError: it cannot be made or written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as stack:
                probe = self.path / f".probe-{os.getpid()}"
                stack.callback(lambda: probe.unlink(missing_ok=True))
                probe.write_bytes(bytes(1 << 16))  # a full disk lets an empty file pass
        except OSError as error:
            raise ConfigError(_cannot_write(self.path, error)) from error

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Makes the folder, and keeps it for this process alone; a dead holder's claim is void at once.

        Who holds it already may enter again through the same object.

        Raises:
            ConfigError: the folder cannot be made or written to.
            BusyError: a living process trains in this folder; the message names it.
        """
        if self._holding:
            yield
            return
        self.create()
        try:
            file = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigError(_cannot_write(self.path, error)) from error
        _HELD.add(file)
        try:
            try:
                _lock(file)
            except OSError as error:
                holder = os.read(file, 200).decode(errors="replace").strip() or "another process"
                raise BusyError(f"{self}: {holder} is training here; wait for it, or use another name=") from error
            with contextlib.suppress(OSError):  # the name is for a message only
                os.truncate(file, 0)
                os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
            self._holding = True
            yield
        finally:
            self._holding = False
            _HELD.discard(file)
            os.close(file)

    # ------------------------------------------------------------------------------------------------ status.json

    def read_status(self) -> dict[str, Any]:
        """What status.json holds; empty where there is none or it cannot be read."""
        try:
            found = json.loads(self.status.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write_status(self, **changes: Any) -> dict[str, Any]:
        """Changes some entries of status.json and keeps the others; readers see the old file or the new one."""
        status = {**self.read_status(), **changes, "updated": round(time.time(), 3)}
        write_whole(self.status, json.dumps(status, indent=1) + "\n")
        return status


def _lock(file: int) -> None:
    """Locks a file; one who asks whether it is `held` has it for a moment, which is waited for."""
    for left in range(19, -1, -1):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if not left:
                raise
            time.sleep(0.01)
        else:
            return


def claim(root: Path, name: str) -> RunFolder:
    """A new folder below `root` that no other process can get: `name`, else `name-2`, `name-3`, ...

    Raises:
        ConfigError: nothing can be written there.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        for n in range(1, 10_000):
            path = root / (name if n == 1 else f"{name}-{n}")
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                return RunFolder(path)
    except OSError as error:
        raise ConfigError(_cannot_write(root, error)) from error
    raise TrainerError(f"{root}: there are 10,000 runs called {name} already")


def shown(path: Path) -> str:
    """A path as a person would type it: relative where it lies below the working directory."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def write_whole(path: Path, text: str) -> None:
    """Writes a small file so that a reader, or a crash, finds the old text or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")  # what a kill leaves of it is written over the next time
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _cannot_write(path: Path, error: OSError) -> str:
    why = {errno.EACCES: "no permission", errno.EROFS: "read-only", errno.ENOSPC: "the disk is full"}
    reason = why.get(error.errno or 0, error.strerror or str(error))
    return f"runs: cannot write to {path} ({reason}); use runs=FOLDER that you can write to"
