"""wandb: the journal of a run is sent there by a process of its own, so that nothing wandb does can touch the training.

`python -m trainer.tracking.shipper RUN_FOLDER` sends a run again, once; `trainer-sync` does so for all of a folder.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer.errors import brief
from trainer.folder import RunFolder
from trainer.records import Outcome, Row
from trainer.signals import NUMBERS
from trainer.tracking import resend
from trainer.tracking.attempts import again_command, write_into
from trainer.tracking.base import Plan, Tracker
from trainer.tracking.download import download
from trainer.tracking.ear import STILL
from trainer.tracking.mailbox import Done, Mailbox, Message, Sent, Spec
from trainer.tracking.sender import Sender
from trainer.tracking.settings import Wandb

__all__ = ["Shipper", "Wandb"]

log = logging.getLogger("trainer")

POLL = 0.2  # seconds between two looks at the journal
LIVES = 3  # times that the process is started again after it was killed
_IGNORED = (
    "RUN_ID", "RESUME", "RESUME_FROM", "FORK_FROM", "NAME", "RUN_GROUP", "JOB_TYPE", "NOTES", "TAGS", "SWEEP_ID",
    "SWEEP_PARAM_PATH", "DIR", "SERVICE", "DISABLED", "CONSOLE", "QUIET", "REINIT", "PROGRAM",
)  # fmt: skip  # as WANDB_...: they would make several runs one, or send a run elsewhere
_LEVELS = {"url": logging.INFO, "warning": logging.WARNING, "stopped": logging.WARNING}
_LEFT: list[subprocess.Popen[bytes]] = []  # those still sending when their run was over


class Shipper(Tracker):
    """Tracks a run on wandb from its journal. Stands after the journal among the trackers.

    Args:
        folder: the run folder.
        id, name, group: of the run on wandb. dir: what holds wandb's folder `wandb`; the run folder without.
        config: nested plain values. tags: beside those of the settings.
        sweep: the sweep of wandb whose agent announced a run of that id.
    """

    def __init__(
        self,
        folder: RunFolder,
        settings: Wandb,
        *,
        id: str,
        name: str,
        group: str | None = None,
        dir: Path | None = None,
        config: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        sweep: str | None = None,
    ) -> None:
        self.folder, self.settings = folder, settings
        self.stopped = False  # whether somebody pressed Stop on the website
        self._box = Mailbox(folder)
        self._child: subprocess.Popen[bytes] | None = None
        self._sender: Sender | None = None
        self._prior: Spec | None = None
        self._begun = self._ended = False
        self._lives = LIVES
        self._moved: float | None = None  # when something was sent last; None where no server is waited for
        self._why = ""  # what was in the way since
        self._spec = Spec(
            id=id,
            name=name,
            project=settings.project,
            mode=settings.mode,
            dir=str((dir or folder.path).absolute()),
            pid=os.getpid(),
            entity=settings.entity,
            group=settings.group or group,
            job_type=settings.job_type,
            tags=list(dict.fromkeys([*settings.tags, *tags])),
            notes=settings.notes,
            config=dict(config or {}),
            finish_timeout=settings.finish_timeout,
            model_every=settings.model_every,
            side_by_side=settings.side_by_side,
            sweep=sweep,
        )

    @property
    def apart(self) -> bool:
        """Whether a process of its own sends the run."""
        return not self.settings.disabled and self.settings.process == "child"

    def launch(self) -> None:
        """Starts the process at once, so that it imports wandb while the training process imports torch."""
        if self.settings.disabled or self._child is not None:
            return
        with self._guarded():
            self._prior = self._box.last_spec()
            self._box.clear()
            if self.settings.process == "child":
                self._child = self._process()

    def _process(self) -> subprocess.Popen[bytes]:
        with open(self._box.log, "ab") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "trainer.tracking.shipper", str(self.folder.path), str(os.getpid())],
                env={**os.environ, "PYTHONPATH": python_path()},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,  # Ctrl-C is for the training alone
            )

    def _revive(self) -> None:
        """Starts the process again if somebody has killed it, such as the kernel for want of memory."""
        code = self._child.poll() if self._child is not None else None
        if code is None or code >= 0 or self._lives == 0:
            return
        self._lives -= 1
        log.warning("wandb: its process was killed by signal %d, and is started again", -code)
        with self._guarded():
            self._child = self._process()

    def start(self, plan: Plan) -> None:
        if self.settings.disabled:
            return
        self._begun = True
        if self._child is None:
            self.launch()
        with self._guarded():
            spec = replace(self._spec, start=plan.start, attempt=1, monitor=plan.monitor, direction=plan.mode)
            if self._prior is not None:
                seen = (self._box.read(Sent) or Sent()).attempt >= self._prior.attempt
                start = plan.start if seen else min(plan.start, self._prior.start)
                spec = replace(spec, start=start, attempt=self._prior.attempt + 1)
            spec = replace(spec, config={**plan.config, **spec.config})
            self._box.write(spec)
            if self.settings.process == "inline":
                self._sender = Sender(_wandb(), self.folder, spec, child=False)
                self._sender.open()
                self._sender.pump()
        self.messages()

    def rename(self) -> bool:
        """Says that a run that is over is called otherwise now; whether there is anything to send of it."""
        before = self._box.last_spec()
        if before is not None:
            known = {name: getattr(before, name) for name in ("attempt", "monitor", "direction")}
            self._box.write(replace(self._spec, **known))
        return before is not None

    def rows(self, rows: Sequence[Row]) -> None:
        self._revive()
        self._pump()
        self.messages()

    def messages(self) -> list[Message]:
        """What came from wandb since the last call; it is logged, too, and `stopped` is set by a press of Stop."""
        if self.settings.disabled:
            return []
        found: list[Message] = []
        with self._guarded():
            found = self._box.messages()
        for message in found:
            self.stopped = self.stopped or message.kind == "stopped"
            if message.kind in ("server", "url", "offline"):
                self._why = message.text if message.kind == "server" else ""
                if not self._why:
                    self._moved = None if message.kind == "offline" else time.monotonic()
            level = _LEVELS.get(message.kind, logging.DEBUG)
            log.log(level, "wandb: %s", message.text)
        return found

    def finish(self, outcome: Outcome) -> None:
        """Waits until wandb has everything, at most `finish_timeout` seconds; says so if it has not."""
        if self.settings.disabled or self._ended:
            return
        self._ended = True
        done = Done(outcome.exit_code, outcome.state == "interrupted", outcome.best)
        with self._guarded():
            self._box.write(done)
            if self._sender is not None:
                self._sender.pump()
                self._sender.close(done)
        self._revive()
        if self._child is not None:
            self._wait(self._child)
        self.messages()

    def abandon(self) -> None:
        """Ends the process of a run that could not start; does nothing after `finish`."""
        if self.settings.disabled or self._ended:
            return
        if self._begun:
            self.finish(Outcome("failed", "it ended without a word", exit_code=1))
            return
        self._ended = True
        with self._guarded():
            self._box.write(Done())
        if self._child is not None:
            _LEFT.append(self._child)

    def _wait(self, child: subprocess.Popen[bytes]) -> None:
        begin = time.monotonic()
        why = ""
        while (code := child.poll()) is None and not why:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(POLL)
            self.messages()
            if self._moved is not None and time.monotonic() - max(begin, self._moved) >= STILL:
                why = self._why or f"nothing has moved for {STILL:g} s"
            if time.monotonic() - begin >= self.settings.finish_timeout:
                why = why or f"not all was sent in {self.settings.finish_timeout:g} s"
        if code is None:
            _LEFT.append(child)
            log.warning(
                "wandb: %s; the rest is sent in the background (process %d); if that fails: %s",
                *(why, child.pid, again_command(self.folder)),
            )
            return
        if code:
            where = f"see {self.folder}/{self._box.log.relative_to(self.folder.path)}"
            log.warning("wandb: its process ended with code %d (%s); %s", code, where, again_command(self.folder))

    def _pump(self) -> None:
        if self._sender is not None:
            with self._guarded():
                self._sender.pump()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Tracking must not end a training: the first failure is told, and wandb is left alone from then on."""
        try:
            yield
        except Exception as error:
            if self._sender is not None or not self._ended:
                log.warning("wandb: %s; later: %s", brief(error), again_command(self.folder))
            self._sender = None


# ------------------------------------------------------------------------------------------------- the child process


def main(argv: Sequence[str]) -> int:
    """`RUN_FOLDER PID`: follows the run that the process PID trains. `RUN_FOLDER [SECONDS s]`: sends what is there,
    once, within about that time. `--look FILE`: what the server has of the folders that standard input names.
    `--download NAME RUNS FOLDER WORK`: a model, which shall become FOLDER below RUNS, into the folder WORK.
    """
    if argv and argv[0] == "--look":
        return resend.look(sys.stdin.read().splitlines(), Path(argv[1]), _online)
    if argv and argv[0] == "--download":
        return download(argv[1], Path(argv[2]), argv[3], Path(argv[4]), _online)
    if not argv or argv[0].startswith("-"):
        print(__doc__)
        return 2
    folder, words = RunFolder(argv[0]), argv[1:]
    if not words or words[-1] == "s":
        return resend.again(folder, float(words[0]) if words else resend.SECONDS, _online)
    return _live(folder, argv, int(words[0]))


def _online() -> Any:
    return _wandb(WANDB_SILENT="true", WANDB_MODE="online")


def _live(folder: RunFolder, argv: Sequence[str], parent: int) -> int:
    box = Mailbox(folder)
    box.messages()  # those of earlier on
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)  # it ends when the training does, and that is told in other ways
    if len(argv) == 2:
        os.nice(5)  # where cores are few they belong to the training
    try:
        with box.hold(take_over=True):
            _ship(folder, box, parent)
    except Exception as error:
        traceback.print_exc()
        if len(argv) == 2:  # wandb broke down, or its own process was killed: once more, anew
            os.execv(sys.executable, [sys.executable, "-m", "trainer.tracking.shipper", *argv, "again"])
        box.tell("warning", f"{brief(error)}; training goes on without it; later: {again_command(folder)}")
        return 1
    return 0


def _ship(folder: RunFolder, box: Mailbox, parent: int) -> None:
    def alive() -> bool:
        return os.getppid() == parent

    # Before it is known what to send: that takes as long as the training process needs to say it.
    wandb = _wandb(WANDB_SILENT="true")
    while (spec := box.read(Spec)) is None:
        if not alive() or box.read(Done) is not None:
            return
        time.sleep(POLL / 4)
    write_into(spec)
    sender = Sender(wandb, folder, spec, child=True)
    sender.open()
    _follow(sender, box, alive)


def _follow(sender: Sender, box: Mailbox, alive: Callable[[], bool]) -> None:
    while True:
        over = not alive()
        done = box.read(Done)  # asked before the journal is read, which then holds everything
        sender.pump()
        if done is not None or over:
            break
        time.sleep(POLL)
    sender.close(done or Done())


def _wandb(**environment: str) -> Any:
    for name in _IGNORED:
        os.environ.pop(f"WANDB_{name}", None)
    os.environ |= environment
    import wandb

    return wandb


def python_path() -> str:
    """PYTHONPATH under which a child finds this package, also from a checkout that is not installed."""
    given = [str(Path(entry).absolute()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return os.pathsep.join([*given, str(Path(__file__).resolve().parents[2])])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
