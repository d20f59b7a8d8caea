"""What is done with wandb: a run is opened, gets the rows and pictures of a journal, and is finished."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer.errors import brief
from trainer.folder import RunFolder
from trainer.records import Panel, Row
from trainer.tracking.arrival import init_timeout, kept, there, unreachable, wait_for
from trainer.tracking.artifacts import Artifacts
from trainer.tracking.attempts import again_command, lives, marked, set_aside, sync_command, synced
from trainer.tracking.beside import Beside
from trainer.tracking.ear import Ear, watch
from trainer.tracking.encoding import encode
from trainer.tracking.journal import by_step
from trainer.tracking.mailbox import Done, Mailbox, Sent, Spec, Tail
from trainer.tracking.panels import read_panels

REACH = 5.0  # seconds that the server may take for its first answer
LINGER = 600.0  # seconds that the child may take to end after training, while nobody waits for it


class Sender:
    """One run on wandb, made from a run folder.

    Offline every attempt writes the whole run anew and sets the files of earlier ones aside, so that one `wandb sync`
    gives the exact history. Online the server's history is cut to what the journal agrees with, and the rest is sent.

    Args:
        wandb: the module; only the shipper imports it.
        child: this process exists for wandb alone, so what it prints is the run's log.
        again: the run is over and is sent once more: online or not at all, and without the use of this machine.
    """

    def __init__(self, wandb: Any, folder: RunFolder, spec: Spec, child: bool, again: bool = False) -> None:
        self.folder, self.spec, self.box = folder, spec, Mailbox(folder)
        self.sent = self.box.read(Sent) or Sent()
        if spec.sweep and self.sent.id != spec.id:  # the agent awaits a run of its own id, whatever there was before
            self.sent = Sent()
        self.sent.id = self.sent.id or spec.id
        self.count = 0  # rows that were sent
        self.again = again
        self._wandb, self._wandb_folder = wandb, Path(spec.dir) / "wandb"
        self._log = Tail(folder.log) if child else None
        self._journal, self._speed = Tail(folder.metrics), Tail(folder.speed)
        self._speeds: dict[int, dict[str, float]] = {}  # by the step of the row that they go with
        self._more = Beside(wandb, folder, spec.side_by_side)
        self._best = Best(spec.monitor, spec.direction)
        self._artifacts = Artifacts(wandb, folder, spec)
        self.lost = ""  # what the server did not take, once the run is finished there
        self._after = 0  # rows up to this step are there already
        self._blind = False  # whether pictures that cannot be shown were told of
        self._drawn = False  # whether the curve of the learning rate is there
        self._begun = _begun(folder) if again else None
        self._ear = Ear(self.box, again_command(folder))
        self._run: Any = None
        self.files = Path()  # of the run, which wandb uploads

    def open(self) -> None:
        """Starts the run, online if that is wanted and possible."""
        mode = "online" if self.again else self._mode()
        if any(map(marked, lives(self._wandb_folder, self.sent.id))):  # somebody has synced an offline attempt
            whole = self.sent.closed and synced(Path(self.sent.dir))
            self.sent.base = self.sent.step if whole else self.sent.base or 0
        if mode == "online":
            try:
                self._open_online()
            except (self._wandb.Error, OSError, TimeoutError) as error:
                if self.again:
                    raise
                self._wandb.teardown()
                mode = "offline"
                refused = "the server refuses the login (401; type wandb login --relogin)"
                why = refused if re.search(r"\b401\b", str(error)) else brief(error)
                self.box.tell("warning", f"{why}; this run is kept offline")
        if mode == "offline":
            self.box.tell("offline", "")
            self._open_offline()
        self._run.define_metric("trainer/step", hidden=True)
        self._run.define_metric("*", step_metric="trainer/step")
        found = {"attempt": self.spec.attempt, "id": self._run.id, "mode": mode, "dir": str(self._run.sync_dir)}
        self.sent = replace(self.sent, **found, closed=False)
        self.box.write(self.sent)
        self.files = Path(self._run.sync_dir) / "files"
        set_aside(self._wandb_folder, self._run.id, but=Path(self._run.sync_dir))
        if mode == "online":
            self.box.tell("url", self._run.url)
            self._artifacts.data(self._run)

    def pump(self) -> None:
        """Sends what is new in the journal, a row at a time, and in the log."""
        before = self._journal.offset
        lines = list(self._journal.lines())
        self._speeds |= by_step(self._speed.lines())
        self._more.look(self._run, self._after)
        told = time.monotonic()
        for line in lines:
            if self.sent.mode == "online" and time.monotonic() - told > 1.0:  # a long history takes its time
                self.box.tell("server", "")
                told = time.monotonic()
            row = json.loads(line)
            if row["step"] > self._after:
                self._send(row)
            if self._best.update(row) and row["step"] > self._after:
                self._run.summary.update(self._best.summary())
        if self._journal.offset != before:
            self.sent.offset = self._journal.offset
            self.box.write(self.sent)
        for text in self._log.lines() if self._log else []:
            print(text.decode(errors="replace"))  # wandb keeps what this process prints as the run's log
        if self.sent.mode == "online":
            self._artifacts.while_training(self._run)

    def close(self, done: Done) -> None:
        """Finishes the run; tells if the server did not take everything in time."""
        self._best.row = done.best or self._best.row
        self._run.summary.update(self._best.summary())
        if done.interrupted:
            self._run.mark_preempting()
        self._ear.closed = True
        begin = time.monotonic()
        self.sent.model = self._artifacts.at_the_end(self._run, self.sent.model)
        with watch(self._run, self.box):
            self._run.finish(exit_code=done.exit_code)
        if self.sent.mode == "online":
            late = time.monotonic() - begin >= self._finish_timeout
            self.lost = "the server did not take everything in time" if late else self._missing()
        if self.lost:
            self.box.write(self.sent)
            if not self.again:
                self.box.tell("warning", f"{self.lost}; later: {again_command(self.folder)}")
            return
        self.sent.closed = True
        self.sent.base = self.sent.step if self.sent.mode == "online" else self.sent.base
        self.box.write(self.sent)
        self.box.tell("done", self._run.url or f"{sync_command(self.folder)}")

    def _missing(self) -> str:
        """What has not arrived, in words: wandb ends a run without a word when the server refuses its pictures."""
        lost = self._artifacts.lost()
        if lost or self.again:  # who sends a run again asks for the rest
            return lost
        try:
            patience = 0.0 if self._ear.refused else 3.0
            return wait_for(self._wandb, self.spec, self.sent.id, kept(self.folder), self.files, patience)[1]
        except (self._wandb.Error, OSError, ValueError) as error:
            return f"the server does not tell what arrived ({brief(error)})"

    # ---------------------------------------------------------------------------------------------- how it is opened

    def _mode(self) -> str:
        wanted = os.environ.get("WANDB_MODE", "auto") if self.spec.mode == "auto" else self.spec.mode
        if wanted in ("offline", "dryrun"):
            return "offline"
        try:
            known = self._wandb.login(prompt=False, verify=False)
            server = str(self._wandb.setup().settings.base_url)
            if known:
                self.box.tell("server", "")
            if known and (why := unreachable(server, REACH)):
                self.box.tell("warning", f"no answer from {server} ({why}); this run is kept offline")
                return "offline"
        except (self._wandb.Error, ValueError) as error:
            self.box.tell("warning", f"{brief(error)}; this run is kept offline")
            return "offline"
        if not known and wanted != "auto":
            self.box.tell("warning", "no login was found (type wandb login); this run is kept offline")
        return "online" if known else "offline"

    def _open_online(self) -> None:
        found = None if self.sent.base is None else there(self._wandb, self.spec, self.sent.id)
        if found is None and not self.spec.sweep:
            self._open_new()
            return
        if found is None or found.last < 0:  # there is nothing to rewind; the run of a sweep was announced
            self._append()
            return
        again = [self.sent.base or 0] if self.sent.mode == "offline" else []  # rows that an offline attempt did again
        if self.again and not (self.sent.closed and found.rows == kept(self.folder).up_to(found.last)):
            again = [0]  # rows are missing or stand twice, or pictures may be missing
        self._after = min(self.spec.start, found.last, *again)
        try:
            self._run = self._init(resume_from=f"{self.sent.id}?_step={self._after}")
        except self._wandb.errors.CommError as error:
            if "rewind" not in str(error):
                raise
            self._wandb.teardown()
            self._append()
            rows = f"rows up to step {self._after} on the website are those of the earlier attempt"
            self.box.tell("warning", f"the server does not rewind runs: {rows}; the folder has the right ones")
        self.sent.base = self._after

    def _append(self) -> None:
        self._run = self._init(id=self.sent.id, resume="allow")
        self._after = self.sent.base = max(0, self._run.starting_step - 1)

    def _open_new(self) -> None:
        try:
            self._run = self._init(id=self.sent.id, resume="never")
        except self._wandb.errors.UsageError as error:
            if "already exists" not in str(error):
                raise
            self._wandb.teardown()
            found = there(self._wandb, self.spec, self.sent.id)
            if found is not None and found.last < 0:  # left by a kill before it was noted that the run is there
                self._append()
            else:  # a run of somebody else, or of a folder that was removed: it stays as it is
                self._run = self._init(id=f"{self.sent.id}-{secrets.token_hex(2)}", resume="never")
        self.sent.base = 0

    def _open_offline(self) -> None:
        base = self.sent.base
        if base is None:
            self._run = self._init(id=self.sent.id, mode="offline")
            return
        self._after = self.sent.base = min(base, self.spec.start)
        self._run = self._init(resume_from=f"{self.sent.id}?_step={self._after}", mode="offline")

    def _init(self, **how: Any) -> Any:
        Path(self.spec.dir).mkdir(parents=True, exist_ok=True)
        settings = self._wandb.Settings(
            init_timeout=init_timeout(),
            finish_timeout=self._finish_timeout,
            console="wrap" if self._log else "off",
            silent=True,
            quiet=True,
            disable_git=True,
            disable_code=True,
            save_code=False,
            stop_fn=lambda: self.box.tell("stopped", "somebody pressed Stop on the website"),
            x_stats_pid=self.spec.pid,
            x_disable_stats=self.again,
            x_transaction_log_flush_interval=1.0,
            sweep_id=self.spec.sweep,
        )
        run = self._wandb.init(
            **how,
            **{
                key: getattr(self.spec, key)
                for key in ("project", "entity", "name", "group", "job_type", "tags", "notes", "dir")
            },
            config=self.spec.config,
            settings=settings,
            reinit="finish_previous",
        )
        self._wandb.termsetup(settings, self._ear)
        return run

    @property
    def _finish_timeout(self) -> float:
        return max(LINGER, self.spec.finish_timeout) if self._log and not self.again else self.spec.finish_timeout

    # -------------------------------------------------------------------------------------------------- what is sent

    def _send(self, row: Row) -> None:
        step = row["step"]
        values = {key: math.nan if value is None else value for key, value in row.items() if key != "step"}
        values = {"trainer/step": step, **values, **self._speeds.pop(step, {}), **self._pictures(step)}
        values |= self._more.histograms(step)
        if self._begun is not None:
            values["_timestamp"] = self._begun + (row.get("time") or 0.0)
        self._run.log(values, step=step, commit=True)  # else it is kept back until the next row comes
        self.sent.step = step
        self.count += 1

    def _pictures(self, step: int) -> dict[str, list[Any]]:
        """The panels of that step, one list of pictures under each name; with the first row the drawn schedule."""
        pictures: dict[str, list[Any]] = {}
        try:
            if not self._drawn and self.folder.preview.is_file():
                pictures["schedule"] = [self._wandb.Image(str(self.folder.preview))]
            self._drawn = True
            encode(self.folder.media_at(step))
            panels = read_panels(self.folder.media_at(step))
            for panel in panels:
                pictures.setdefault(panel.name, []).append(picture(self._wandb, panel))
            pictures |= self._more.plain(panels)
        except Exception as error:  # pictures that cannot be read or shown must not cost the rows
            if not self._blind:
                self.box.tell("warning", f"pictures cannot be shown there: {brief(error)}")
            self._blind = True
        return pictures


def picture(wandb: Any, panel: Panel) -> Any:
    """A panel as wandb.Image; its masks are laid over it on the website, a switch for each class."""
    masks = {}
    for name, mask in panel.masks.items():
        labels = {number: str(label) for number, label in enumerate(panel.legends.get(name, panel.classes))}
        masks[name] = {"mask_data": mask, **({"class_labels": labels} if labels else {})}
    return wandb.Image(panel.image, caption=panel.caption or panel.sample, masks=masks or None)


class Best:
    """The best row so far: that of the best finite value of one metric, the first of equal ones."""

    def __init__(self, monitor: str, direction: str) -> None:
        self.monitor, self.sign = monitor, -1 if direction == "max" else 1
        self.row: Row = {}

    def update(self, row: Row) -> bool:
        """Whether this row is better than all before."""
        value = row.get(self.monitor)
        if value is None or not math.isfinite(value):
            return False
        better = not self.row or self.sign * value < self.sign * self.row[self.monitor]
        self.row = row if better else self.row
        return better

    def summary(self) -> dict[str, Any]:
        """Every metric of that row, and its step and epoch, as `best/...`."""
        return {f"best/{name}": value for name, value in self.row.items() if name != "time"}


def _begun(folder: RunFolder) -> float | None:
    """When training would have begun for its last row to be as old as the journal; None without a journal."""
    try:
        return folder.metrics.stat().st_mtime - kept(folder).seconds
    except (OSError, ValueError):
        return None
