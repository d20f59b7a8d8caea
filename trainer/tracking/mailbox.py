"""The files in .shipper/ by which a training and the process that owns wandb talk; neither waits for the other."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from trainer.folder import RunFolder, write_whole
from trainer.records import Row

T = TypeVar("T")


@dataclass(frozen=True)
class Spec:
    """What the run is called on wandb; written when training starts.

    Attributes:
        id, name, project, entity, group, job_type, tags, notes, config: as wandb.init takes them.
        mode: `auto`, `online` or `offline`. dir: what holds wandb's own folder `wandb`.
        pid: the training process, whose use of the machine is shown.
        attempt: counts the trainings in this folder.
        start: the step that it starts from, or that of an earlier one that wandb never saw if that is less; rows that
            were sent before and come later than that do not count any more.
        monitor, direction: the metric that decides what is best, and `min` or `max`.
        model_every: seconds between two models while training, 0 for the end alone, None for no artifacts at all.
        sweep: the sweep of wandb whose agent started the run, and knows it by its id already.
    """

    id: str
    name: str
    project: str
    mode: str
    dir: str
    pid: int
    entity: str | None = None
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    attempt: int = 0
    start: int = 0
    monitor: str = ""
    direction: str = "min"
    finish_timeout: float = 60.0
    model_every: float | None = 0.0
    side_by_side: bool = False
    sweep: str | None = None


@dataclass(frozen=True)
class Done:
    """How training ended."""

    exit_code: int = 1
    interrupted: bool = False
    best: Row = field(default_factory=dict)


@dataclass
class Sent:
    """How far a run is on wandb.

    Attributes:
        attempt: the last one that wandb saw.
        id: the run's id, which differs from the wanted one if that was taken.
        mode: `online` or `offline`. dir: the folder of wandb's files of this run.
        offset, step: what was handed to wandb of metrics.jsonl.
        base: the server holds all rows up to this step for certain; None if it does not know the run.
        closed: wandb has taken everything, and the run is finished there (or, offline, complete on disk).
        model: the digest of the newest model that was handed to wandb; empty without one.
    """

    attempt: int = 0
    id: str = ""
    mode: str = ""
    dir: str = ""
    offset: int = 0
    step: int = 0
    base: int | None = None
    closed: bool = False
    model: str = ""


@dataclass(frozen=True)
class Answer:
    """What came of sending a run once more.

    Attributes:
        good: everything is there. text: what went wrong, or what is to be known all the same; may be empty.
        rows: how many were sent. url: where the run is shown.
    """

    good: bool = False
    text: str = ""
    rows: int = 0
    url: str = ""


@dataclass(frozen=True)
class Message:
    """What the wandb side has to say: where the run is (`url`), a `warning`, `stopped` on the website, `done`;
    `server`: it is waited for from now on, or something has just been sent; with a text, what is in the way. `offline`:
    no server is waited for."""

    kind: Literal["url", "warning", "stopped", "done", "server", "offline"]
    text: str


class Mailbox:
    """The folder .shipper of a run."""

    def __init__(self, folder: RunFolder) -> None:
        self.path = folder.shipper
        self.log = self.path / "child.log"
        self._messages = Tail(self.path / "messages.jsonl")

    def clear(self) -> None:
        """Makes the folder ready for another attempt; what was sent is remembered, and what was to be sent before."""
        self.path.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            (self.path / "spec.json").replace(self.path / "spec.before.json")
        for name in ("done.json", "messages.jsonl"):
            (self.path / name).unlink(missing_ok=True)

    def write(self, letter: Spec | Done | Sent | Answer) -> None:
        write_whole(self._file(type(letter)), json.dumps(asdict(letter), default=str) + "\n")

    def read(self, kind: type[T]) -> T | None:
        """The newest letter of that kind; None without one, or if it cannot be read."""
        return _read(self._file(kind), kind)

    def last_spec(self) -> Spec | None:
        """What the run is called on wandb, also if its newest attempt never got so far as to say so."""
        return self.read(Spec) or _read(self.path / "spec.before.json", Spec)

    def forget(self, kind: type) -> None:
        self._file(kind).unlink(missing_ok=True)

    @property
    def held(self) -> bool:
        """Whether a living process sends this run."""
        try:
            with open(self.path / "lock", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def tell(self, kind: str, text: str) -> None:
        with contextlib.suppress(OSError), open(self._messages.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "text": text}) + "\n")

    def messages(self) -> list[Message]:
        """Those not seen before. Costs one look at the file's size when there is nothing new."""
        return [Message(**json.loads(line)) for line in self._messages.lines()]

    @contextlib.contextmanager
    def hold(self, take_over: bool, patience: float = 10.0) -> Iterator[None]:
        """Makes sure that one process alone sends this run.

        With `take_over` the one that still sends an earlier attempt gets some seconds to end, then it is killed: what
        it has not sent is sent by this one. The lock that it holds proves that it is alive, and which process it is.

        Raises:
            BlockingIOError: another one sends this run, and it is not to be ended.
        """
        with open(self.path / "lock", "a+") as file:
            begin, killed = time.monotonic(), False
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not take_over:
                        raise
                    if not killed and time.monotonic() - begin > patience:
                        file.seek(0)
                        with contextlib.suppress(OSError, ValueError):
                            os.kill(int(file.read()), signal.SIGKILL)
                        killed = True
                    time.sleep(0.05)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def _file(self, kind: type) -> Path:
        return self.path / f"{kind.__name__.lower()}.json"


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return kind(**{f.name: found[f.name] for f in fields(kind) if f.name in found})  # type: ignore[arg-type]
    except (OSError, ValueError, TypeError):
        return None


class Tail:
    """The lines that are appended to a file, in whole lines."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path, self.offset = path, offset

    def lines(self) -> list[bytes]:
        """What came since the last call; empty if there is no file."""
        try:
            if self.path.stat().st_size <= self.offset:
                return []
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                found = file.read()
        except OSError:
            return []
        whole = found[: found.rfind(b"\n") + 1]
        self.offset += len(whole)
        return whole.splitlines()
