"""`trainer-sync`: every run below some folders is brought to wandb from its journal, each by a process of its own."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from trainer.durations import count
from trainer.errors import ConfigError, TrainerError, closest
from trainer.folder import RunFolder, shown
from trainer.tracking.arrival import kept
from trainer.tracking.mailbox import Answer, Mailbox, Sent, Tail
from trainer.tracking.resend import SECONDS
from trainer.tracking.shipper import python_path

LOOKING = 60.0  # seconds that the server may take to say what it has of a run
FRESH = 300.0  # a run of another machine that wrote a row this many seconds ago may still train
_INSIDE = ("wandb", "checkpoints", "media", "capsule")  # of a run folder; no runs lie there


@dataclass
class Job:
    """One run, and what is to be done with it.

    Attributes:
        state: `send`, `there` (the server has it), `skipped` or `failed`. text: why, or what came of it.
    """

    folder: RunFolder
    rows: int = 0
    state: str = "send"
    text: str = ""
    url: str = ""

    @property
    def line(self) -> str:
        known = {"there": f"{count(self.rows, 'row')} there already", "failed": f"FAILED: {self.text}"}
        return "  ".join(filter(None, (known.get(self.state, f"{self.state}: {self.text}"), self.url)))


def program(words: Sequence[str]) -> int:
    """What `trainer-sync` does with the words after it."""
    about = "Sends to wandb what it does not have of the runs in a folder tree, and checks what arrived."
    parser = argparse.ArgumentParser("trainer-sync", description=about)
    parser.add_argument("folders", nargs="+", help="run folders, sweeps, or folders that hold them")
    parser.add_argument("--dry-run", action="store_true", help="lists what would be sent; asks no server")
    parser.add_argument("--timeout", type=float, default=SECONDS, metavar="SECONDS", help="for each run (%(default)g)")
    given = parser.parse_args(words)
    if not given.timeout > 0:
        raise ConfigError(f"--timeout: {given.timeout:g} must be more than 0 (seconds)")
    from trainer.dotenv import load_env

    load_env()
    return sync(given.folders, seconds=given.timeout, dry_run=given.dry_run)


def sync(paths: Sequence[str], *, seconds: float = SECONDS, dry_run: bool = False) -> int:
    """Sends what is missing on the server, tells of each run in a line, and returns the exit code.

    Args:
        paths: run folders, sweeps, or folders above them. seconds: that one run may take.
        dry_run: tells what would be sent, as far as it is known without the server.

    Raises:
        ConfigError: a path is no folder, or there is no run; or there is no login. TrainerError: no server.
    """
    folders = find(paths)
    jobs = [judged(folder) for folder in folders]
    wide = max(len(str(job.folder)) for job in jobs)
    if dry_run:
        for job in jobs:
            print(f"{job.folder!s:{wide}}  {_planned(job)}")
    else:
        with _bar(jobs) as bar:
            for job in _worked(jobs, seconds, bar):
                bar.write(f"{job.folder!s:{wide}}  {job.line}", file=sys.stdout)
                sys.stdout.flush()
                bar.update()
        print(f"\n{_summary(jobs)}")
    if left := foreign(paths, folders):
        print(f"\n{count(len(left), 'offline run')} of wandb that no run folder here belongs to: wandb sync --yes DIR")
        print("\n".join(f"  {shown(path)}" for path in left[:5]) + ("\n  ..." if len(left) > 5 else ""))
    failed = any(job.state == "failed" for job in jobs)
    if failed and not dry_run:
        print(f"\nagain: trainer-sync {' '.join(map(shlex.quote, paths))}  sends what is missing")
    return 1 if failed else 0


def _planned(job: Job) -> str:
    """What would be done with a run; the server may know better."""
    sent = Mailbox(job.folder).read(Sent) or Sent()
    if job.state != "send":
        return job.line
    there = sent.mode == "online" and sent.closed
    return f"would {'look whether all is there' if there else 'send'}: {count(job.rows, 'row')}"


def _summary(jobs: Sequence[Job]) -> str:
    names = {"sent": "sent", "there": "there already", "skipped": "skipped", "failed": "failed"}
    numbers = {state: sum(job.state == state for job in jobs) for state in names}
    return f"{count(len(jobs), 'run')}: " + ", ".join(f"{n} {names[state]}" for state, n in numbers.items() if n)


# ------------------------------------------------------------------------------------------------- which runs there are


def find(paths: Iterable[str]) -> list[RunFolder]:
    """Every run in the given folders, the one that was started first first.

    Raises:
        ConfigError: a path is no folder, or there is no run in any.
    """
    found: dict[Path, RunFolder] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise ConfigError(
                f"{path}: there is no such folder{_meant(path)}; give run folders, sweeps or what is above"
            )
        inner = [RunFolder(folder) for folder in _walk(path.absolute()) if _is_run(folder)]
        found |= {folder.path.resolve(): folder for folder in inner}
    if not found:
        raise ConfigError(f"{', '.join(map(str, paths))}: holds no run{_around(paths)}")
    return sorted(found.values(), key=lambda folder: (_started(folder), folder.path))


def _walk(path: Path) -> Iterator[Path]:
    for name, inner, _ in os.walk(path):
        folder = Path(name)
        yield folder
        inner[:] = (
            []
            if _is_run(folder)
            else sorted(each for each in inner if not each.startswith(".") and each not in _INSIDE)
        )


def _is_run(folder: Path) -> bool:
    return (folder / ".shipper").is_dir() or (folder / "status.json").is_file()


def _started(folder: RunFolder) -> float:
    with contextlib.suppress(OSError, TypeError, ValueError):
        return float(folder.read_status().get("started") or folder.shipper.stat().st_mtime)
    return 0.0


def _meant(path: Path) -> str:
    with contextlib.suppress(OSError):
        near = closest(path.name, (each.name for each in path.parent.iterdir() if each.is_dir()))
        return f"; did you mean {path.parent / near}?" if near else ""
    return ""


def _around(paths: Iterable[str]) -> str:
    for path in paths:
        for above in Path(path).absolute().parents:
            if _is_run(above):
                return f"; it is a part of one: trainer-sync {shlex.quote(shown(above))}"
    return ""


def foreign(paths: Iterable[str], ours: Sequence[RunFolder]) -> list[Path]:
    """Offline runs of wandb that nobody has synced and that belong to none of our runs."""
    ids = set()
    for box in map(Mailbox, ours):
        spec, sent = box.last_spec(), box.read(Sent)
        ids |= {each.id for each in (spec, sent) if each is not None}
    roots = {each / "wandb" for path in paths for each in _walk(Path(path).absolute())}
    files = sorted({file.resolve() for root in roots for file in root.glob("offline-run-*/run-*.wandb")})
    return [
        file.parent
        for file in files
        if file.stem.removeprefix("run-") not in ids and not file.with_suffix(".wandb.synced").exists()
    ]


def judged(folder: RunFolder) -> Job:
    """What is to be done with a run, as far as its folder tells."""
    box, status = Mailbox(folder), folder.read_status()
    if folder.held:
        return Job(folder, state="skipped", text="it is still training")
    if box.held:
        return Job(folder, state="skipped", text="another process is sending it; type this again when that has ended")
    if not folder.shipper.is_dir():
        return Job(folder, state="skipped", text="it was trained with wandb.mode=disabled")
    elsewhere = status.get("state") == "running" and status.get("host") != socket.gethostname()
    try:
        if elsewhere and time.time() - folder.metrics.stat().st_mtime < FRESH:
            return Job(folder, state="skipped", text=f"it seems to be training on {status.get('host')}")
        rows = len(kept(folder).steps)
    except FileNotFoundError:
        rows = 0
    except (OSError, ValueError) as error:
        return Job(folder, state="failed", text=f"{error}; take that line out")
    if not rows:
        return Job(folder, state="skipped", text="it has no row yet")
    if box.last_spec() is None and not any(folder.shipper.glob("spec*.json")):
        return Job(folder, rows, "skipped", "it was not meant for wandb since it was downloaded from there")
    if box.last_spec() is None:
        return Job(folder, rows, "failed", f"{shown(folder.shipper)}/spec.json cannot be read; trainer resume={folder}")
    return Job(folder, rows)


# ------------------------------------------------------------------------------------------------------- what is done


def _bar(jobs: Sequence[Job]) -> Any:
    hidden = not (sys.stderr.isatty() and sys.stdout.isatty())
    return tqdm(total=len(jobs), desc="runs", unit="run", disable=hidden, leave=False, dynamic_ncols=True)


def _worked(jobs: Sequence[Job], seconds: float, bar: Any) -> Iterator[Job]:
    """Each job when it is done, in order."""
    wanted = [job for job in jobs if job.state == "send"]
    bar.set_description("asking the server")
    seen = look(wanted) if wanted else {}
    for job in jobs:
        found = seen.get(str(job.folder.path), {})
        if found.get("complete"):
            job.state, job.url = "there", found["url"]
        elif job.state == "send":
            bar.set_description(f"sending {job.folder.path.name}")
            send(job, seconds)
        yield job


def look(jobs: Sequence[Job]) -> dict[str, dict[str, Any]]:
    """What the server has of some runs, by their folders.

    Raises:
        ConfigError: there is no login. TrainerError: there is no server.
    """
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as path, child("--look", f"{path}/answers") as process:
        assert process.stdin is not None
        process.stdin.write("\n".join(str(job.folder.path) for job in jobs).encode())
        process.stdin.close()
        answers, heard = Tail(Path(path) / "answers"), time.monotonic()
        while time.monotonic() - heard < LOOKING:
            over = process.poll() is not None
            for answer in map(json.loads, answers.lines()):
                heard = time.monotonic()
                if problem := answer.get("problem"):
                    raise (ConfigError if answer["exit_code"] == 2 else TrainerError)(problem)
                if "folder" in answer:
                    found[answer["folder"]] = answer
            if over:
                return found
            time.sleep(0.05)
    return found  # each run that it was too slow for is tried by itself


def send(job: Job, seconds: float) -> None:
    """Sends one run in a process of its own, which has that many seconds."""
    box = Mailbox(job.folder)
    box.forget(Answer)
    with child(str(job.folder.path), f"{seconds:g}", "s", log=box.log) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            job.state, job.text = "failed", f"not done after {seconds:g} s; --timeout SECONDS gives it more"
            return
    answer = box.read(Answer)
    if answer is None:
        job.state, job.text = "failed", f"its process ended with code {process.returncode}; see {shown(box.log)}"
        return
    job.state, job.text, job.url = "sent" if answer.good else "failed", answer.text, answer.url
    if answer.good:
        job.text = ", ".join(filter(None, (count(answer.rows, "row"), answer.text)))


@contextlib.contextmanager
def child(*words: str, log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """The process that owns wandb; it does not outlive this."""
    with open(log or os.devnull, "ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer.tracking.shipper", *words],
            env={**os.environ, "PYTHONPATH": python_path()},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for this program, which then ends it
        )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
