"""`trainer-compare --watch`, on run folders that change under its eyes."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import Command, command
from tests.folders import run_folder
from trainer import cli
from trainer.folder import RunFolder
from trainer.report import watch as watching
from trainer.report.watch import QUIET, Job, is_over, looked_at, names, overall

ROWS = [{"step": n, "epoch": 0, "time": n / 4, **({"val/accuracy": n / 100} if n % 5 == 0 else {})}
        for n in range(1, 11)]  # fmt: skip


@pytest.fixture
def training(tmp_path: Path) -> Iterator[RunFolder]:
    """A run at step 10 of 30, 4 steps a second, that this process trains."""
    folder = RunFolder(run_folder(tmp_path / "s/lr=1,seed=0", None, ROWS, state="running", result=None))
    folder.write_status(host=socket.gethostname(), pid=os.getpid())
    with folder.hold():
        yield folder


def jobs_of(path: Path) -> list[Job]:
    jobs: dict[Path, Job] = {}
    looked_at([str(path)], jobs)
    return list(jobs.values())


def appended(folder: RunFolder, text: str) -> None:
    with open(folder.metrics, "a") as file:
        file.write(text)


def test_a_job_that_runs_is_followed(training: RunFolder) -> None:
    (job,) = jobs_of(training.path)
    assert (job.step, job.total, job.speed, job.left) == (10, 30, 4.0, 5.0)
    assert (job.latest, job.best) == (0.1, 0.1)
    appended(training, json.dumps({"step": 20, "time": 5.0, "val/accuracy": 0.05}) + '\n{"step": 2')
    job.look()
    assert (job.step, job.latest, job.best) == (20, 0.05, 0.1)
    appended(training, '1, "time": 5.25, "val/accuracy": 0.3}\n')
    job.look()
    assert (job.step, job.best, job.left) == (21, 0.3, 2.25)


def test_a_resumed_run_whose_history_was_cut_is_read_anew(training: RunFolder) -> None:
    (job,) = jobs_of(training.path)
    training.metrics.write_text(json.dumps({"step": 5, "time": 1.0, "val/accuracy": 0.05}) + "\n")
    job.look()
    assert (job.step, job.best, job.left) == (5, 0.05, None)


def test_the_whole_sweep_in_a_line(training: RunFolder) -> None:
    root = training.path.parent
    run_folder(root / "lr=2,seed=0", 0.9)
    run_folder(root / "lr=3,seed=0", None, state="failed", error="bad", result=None)
    run_folder(root / "lr=4,seed=0", None, state="not started", result=None)
    jobs = jobs_of(root)
    assert overall(jobs) == "1 of 4 finished, 1 running, 1 failed, 1 not started, about 1 min 46 s left"  # 5 + 101
    assert names(jobs) == ["lr=1", "lr=2", "lr=3", "lr=4"]


@pytest.mark.parametrize("state", ["not started", "interrupted", "killed"])
def test_between_two_jobs_a_sweep_is_not_over(tmp_path: Path, state: str) -> None:
    now = 1e9
    run_folder(tmp_path / "a", 0.9, updated=now)
    assert is_over(jobs_of(tmp_path), now)
    waiting = RunFolder(run_folder(tmp_path / "b", state=state, result=None))
    assert not is_over(jobs_of(tmp_path), now + QUIET / 2)  # whoever ran the first may be about to start it
    assert is_over(jobs_of(tmp_path), now + QUIET + 1)
    with waiting.hold():  # it starts, and has not said so
        assert not is_over(jobs_of(tmp_path), now + QUIET + 1)


def test_a_change_is_told_once_and_the_end_is_no_error(
    training: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            training.write_status(state="failed", error="it broke\nmore", pid=2**22 + 1)

    monkeypatch.setattr(time, "sleep", sleep)
    assert cli.compare([str(training.path), "--watch"]) == 0
    out = capsys.readouterr().out
    assert looks == [2.0, 2.0, 2.0]
    assert out.count("running") == 2  # the line of the job, and the one of all
    assert "33  10 of 30" in out
    assert f"{socket.gethostname()}, process {os.getpid()}" in out
    assert "it broke" in out
    assert out.rstrip().endswith("0 of 1 finished, 1 failed")


def test_a_terminal_is_drawn_over_in_place_within_its_width(
    training: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "8")
    for n in range(10):
        run_folder(training.path.parent / f"lr={n + 2},a_long_name_of_a_setting={'x' * 60},seed=0", 0.9)
    screen, jobs = watching._Screen(), jobs_of(training.path.parent)
    screen.live = True
    screen.show(jobs, over=False)
    first = capsys.readouterr().out
    assert first.count("\n") == 7
    assert "... and 7 more" in first
    assert first.splitlines()[1].startswith("running")
    screen.show(jobs, over=False)
    second = capsys.readouterr().out
    assert second == "\x1b[7F" + first
    assert max(len(line.replace("\x1b[K", "").replace("\x1b[J", "")) for line in first.splitlines()) < 60


def test_ctrl_c_leaves_it_without_a_word(training: RunFolder, tmp_path: Path) -> None:
    watched = Command("compare", "--watch", "0.01", "s", cwd=tmp_path)
    out, deadline = tmp_path / f".{watched.process.pid}.out", time.monotonic() + 60
    while not (out.exists() and out.stat().st_size):
        assert time.monotonic() < deadline
    assert watched.process.pid is not None
    os.kill(watched.process.pid, signal.SIGINT)
    ended = watched.wait()
    assert (ended.code, ended.err) == (130, "")


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_a_length_that_is_none_is_refused(training: RunFolder, tmp_path: Path, seconds: str) -> None:
    ended = command("compare", "s", f"--watch={seconds}", cwd=tmp_path)
    assert (ended.code, "must be more than 0" in ended.told) == (2, True)


def test_jobs_that_a_sweep_has_still_to_begin_are_shown(tmp_path: Path) -> None:
    first = run_folder(tmp_path / "s/seed=0-0123456789", 0.5)
    (tmp_path / "s/.sweep").mkdir()
    (tmp_path / "s/.sweep/jobs.json").write_text('{"seed=0-0123456789": ["seed=0"], "seed=1-abcdef0123": ["seed=1"]}')
    jobs: dict[Path, Job] = {}
    looked_at([str(tmp_path / "s")], jobs)
    assert [job.state for job in jobs.values()] == ["finished", "not started"]
    assert next(iter(jobs)) == first
    assert "1 of 2 finished, 1 not started" in overall(list(jobs.values()))
