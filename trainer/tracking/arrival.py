"""What the server has of a run, asked through wandb's public API and compared with the journal."""

from __future__ import annotations

import http.client
import json
import math
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.folder import RunFolder
from trainer.tracking.artifacts import model_name
from trainer.tracking.mailbox import Done, Mailbox, Sent, Spec, Tail

INIT_TIMEOUT = 15.0  # seconds unless WANDB_INIT_TIMEOUT says otherwise; wandb gives up after about twice that


@dataclass(frozen=True)
class Kept:
    """The rows of a journal: the steps in order, and the seconds of training at the last one."""

    steps: list[int]
    seconds: float = 0.0

    @property
    def last(self) -> int:
        return self.steps[-1] if self.steps else 0

    def up_to(self, step: int) -> int:
        return sum(each <= step for each in self.steps)


@dataclass(frozen=True)
class There:
    """A run on the server: how many rows, the last one's step (-1 without), its state, and where it is shown."""

    rows: int
    last: int
    state: str
    url: str


def kept(folder: RunFolder) -> Kept:
    """What the journal of a run holds.

    Raises:
        ValueError: a line cannot be read; the message says which.
    """
    steps, seconds = [], 0.0
    for number, line in enumerate(Tail(folder.metrics).lines(), 1):
        try:
            row = json.loads(line)
            steps.append(int(row["step"]))
            seconds = float(row.get("time") or seconds)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder.metrics.name}: line {number} cannot be read: {line[:40]!r}") from error
    return Kept(steps, seconds)


def there(wandb: Any, spec: Spec, id: str) -> There | None:
    """The run as the server has it now; None if it does not know the run.

    Raises:
        wandb.errors.CommError, ValueError: the server cannot be asked.
    """
    return _seen(_server_run(wandb, spec, id))


def _seen(run: Any) -> There | None:
    return None if run is None else There(_rows(run), int(run.lastHistoryStep), str(run.state), str(run.url))


def _server_run(wandb: Any, spec: Spec, id: str) -> Any:
    """The run as wandb's public API gives it, asked anew each time; None if the server does not know it."""
    try:
        api = wandb.Api(timeout=math.ceil(init_timeout()))
        return api.run("/".join(filter(None, (spec.entity, spec.project, id))))
    except (wandb.errors.CommError, ValueError) as error:
        if "not find" in str(error) or "not found" in str(error):
            return None
        raise


def _rows(run: Any) -> int:
    """How many rows the server has; counted one by one where it does not say."""
    told = getattr(run, "historyLineCount", None)
    return int(told) if told is not None else sum(1 for _ in run.scan_history(keys=["trainer/step"]))


def complete(found: There | None, journal: Kept, box: Mailbox) -> bool:
    """Whether nothing of a run is left to send."""
    sent, done = box.read(Sent), box.read(Done)
    if found is None or sent is None or not sent.closed:
        return False  # not closed: rows may be there, and pictures not
    over = found.state == "finished" if done is not None and done.exit_code == 0 else found.state != "running"
    return over and not _missing(found, journal)


def has_model(wandb: Any, spec: Spec, sent: Sent) -> bool:
    """Whether the server has the model that was handed to wandb."""
    name = "/".join(filter(None, (spec.entity, spec.project, f"{model_name(sent.id or spec.id)}:latest")))
    try:
        found = wandb.Api(timeout=math.ceil(init_timeout())).artifact(name)
    except (wandb.errors.CommError, ValueError):
        return False
    return (found.state, found.digest) == ("COMMITTED", sent.model)


def wait_for(wandb: Any, spec: Spec, id: str, journal: Kept, files: Path, patience: float) -> tuple[There | None, str]:
    """What arrived of a run that was sent, and what is missing of it in words; a server may need a moment to count.

    Args:
        files: what wandb was given to upload beside rows. patience: seconds.
    """
    end, pause = time.monotonic() + patience, 0.2
    while True:
        run = _server_run(wandb, spec, id)
        found = _seen(run)
        missing = "; ".join(filter(None, (_missing(found, journal), _missing_files(run, files))))
        if not missing or time.monotonic() > end:
            return found, missing
        time.sleep(pause)
        pause *= 2


def _missing(found: There | None, journal: Kept) -> str:
    if found is None:
        return "the server does not know the run"
    if found.rows == len(journal.steps) and (found.last == journal.last or not journal.steps):
        return ""
    if found.rows > len(journal.steps):
        return f"the server has {found.rows} rows, and there are {len(journal.steps)}"
    at = f", up to step {found.last} of {journal.last}" if found.rows else ""
    return f"{found.rows} of {len(journal.steps)} rows arrived{at}"


def _missing_files(run: Any, files: Path) -> str:
    wanted = {path.relative_to(files).as_posix() for path in files.glob("media/**/*") if path.is_file()}
    if not wanted:
        return ""
    arrived = {file.name for file in run.files(per_page=1000) if file.size} if run is not None else set()
    lost = len(wanted - arrived)
    return f"{lost} of {len(wanted)} pictures did not arrive" if lost else ""


def refusal(files: Path) -> str:
    """The last answer of the server to wandb's uploads that was no success, from wandb's own log."""
    try:
        text = (files.parent / "logs" / "debug-internal.log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.findall(r'"HTTP error","status":(\d{3})', text.replace("api: HTTP", "HTTP"))
    return f"the server answered {found[-1]}" if found else ""


def init_timeout() -> float:
    try:
        return float(os.environ["WANDB_INIT_TIMEOUT"])
    except (KeyError, ValueError):
        return INIT_TIMEOUT


def unreachable(server: str, seconds: float | None = None) -> str:
    """Why nothing answers at that address; empty if something does, whatever it says."""
    try:
        with urllib.request.urlopen(server, timeout=seconds or init_timeout()):
            return ""
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        known = isinstance(reason, ssl.SSLError)  # wandb may know a certificate that Python does not
        return "" if known else str(reason) or type(error).__name__
