"""trainer-sync, with the real client: all runs of a tree arrive, and none stands in another's way."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import test_shipper as small
from tests.wandb_server import Run, WandbServer
from trainer.cli import sync as command
from trainer.folder import RunFolder
from trainer.records import Panel
from trainer.sync import Job, find, judged, send
from trainer.tracking.attempts import sync_command
from trainer.tracking.journal import Journal
from trainer.tracking.mailbox import Answer, Done, Mailbox, Sent, Spec
from trainer.tracking.panels import write_panels
from trainer.tracking.resend import home

ROOT = Path(__file__).resolve().parents[1]


def made(path: Path, rows: int = 5, *, sweep: bool = False, started: float = 0.0, **status: Any) -> RunFolder:
    """A run as a training leaves it that could not reach wandb: with its journal, and without anything of wandb's."""
    folder = RunFolder(path)
    folder.create()
    journal = Journal(folder)
    journal.rows([{"step": step, "epoch": 1, "time": step / 10, "train/loss": 1 / step} for step in range(1, rows + 1)])
    journal.saved()
    box = Mailbox(folder)
    box.clear()
    home = path.parent if sweep else path
    box.write(Spec(id=path.name, name=path.name, project="p", mode="offline", dir=str(home), pid=1, attempt=1))
    box.write(Done(exit_code=0))
    folder.write_status(**{"state": "finished", "started": started, "host": socket.gethostname(), **status})
    return folder


def sync(server: WandbServer, *words: object, **env: str) -> subprocess.CompletedProcess[str]:
    given = {**server.env(**{"WANDB_MODE": "offline", **env}), "PYTHONPATH": str(ROOT)}
    line = [sys.executable, str(ROOT / "scripts/sync.py"), *map(str, words)]
    return subprocess.run(line, env=given, capture_output=True, text=True, timeout=90, check=False)


def told(done: subprocess.CompletedProcess[str], folder: RunFolder) -> str:
    """The line of one run."""
    (line,) = (line for line in done.stdout.splitlines() if line.startswith((f"{folder} ", f"{folder.path} ")))
    return line.removeprefix(str(folder)).strip()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def plain(run: Run) -> list[dict[str, Any]]:
    return small.plain([{k: v for k, v in row.items() if k != "val/examples"} for row in run.history])


@pytest.fixture(scope="module")
def server() -> Iterator[WandbServer]:
    with WandbServer() as server:
        yield server
        assert server.unknown == [], "the client asked for something that this server does not know"


class Tree:
    """All that a folder of runs may hold, and what two calls said of it."""

    def __init__(self, path: Path, server: WandbServer) -> None:
        self.path, self.server = path, server
        self.killed = RunFolder(path / "killed")
        small.life(self.killed.path, small.offline_env(path), {**small.OFFLINE, "project": "p"}, last=12, end="killed")
        small.settle(self.killed)
        self.jobs = [made(path / f"sweep/j{n}", n, sweep=True, started=n) for n in (2, 1)]
        self.empty = made(path / "empty", 0)
        for folder, id in ((path / "sweep", "j1"), (self.empty.path, "empty"), (path, "somebody")):
            life = folder / f"wandb/offline-run-20260101_000000-{id}"  # of a kill before wandb wrote anything
            life.mkdir(parents=True)
            (life / f"run-{id}.wandb").touch()
        self.torn = made(path / "torn")
        self.torn.metrics.write_bytes(self.torn.metrics.read_bytes().replace(b'{"step": 3', b'{"st\0p": 3'))
        self.disabled = RunFolder(path / "disabled")
        self.disabled.create()
        self.disabled.write_status(state="finished", started=3.0)
        self.training, self.sending = made(path / "training"), made(path / "sending")
        self.away = made(path / "away", state="running", host="another machine")
        with self.training.hold(), Mailbox(self.sending).hold(take_over=False):
            self.first = sync(server, path, "--timeout", "30")
            self.second = sync(server, path)

    def moved(self) -> list[str]:
        return sorted(path.parent.name for path in self.path.rglob("run-*.wandb*") if "offline" in path.parent.name)


@pytest.fixture(scope="module")
def tree(server: WandbServer, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return Tree(tmp_path_factory.mktemp("tree"), server)


def test_each_run_arrives_whole_whatever_lies_beside_it(tree: Tree) -> None:
    for folder, id in ((tree.killed, "r1"), *((job, job.path.name) for job in tree.jobs)):
        run = tree.server.run(id)
        assert plain(run) == small.journal_of(folder)
        rows = len(run.history)
        assert told(tree.first, folder) == f"sent: {rows} row{'s' * (rows > 1)}  {tree.server.url}/local/p/runs/{id}"
        assert sync_command(folder) is None
    assert tree.server.run("r1").state == "failed"
    assert tree.server.run("j1").state == "finished"
    assert {run.id for run in tree.server.runs} == {"r1", "j1", "j2"}


def test_what_cannot_be_sent_is_told_with_its_reason(tree: Tree) -> None:
    assert told(tree.first, tree.empty) == "skipped: it has no row yet"
    assert told(tree.first, tree.disabled) == "skipped: it was trained with wandb.mode=disabled"
    assert told(tree.first, tree.training) == "skipped: it is still training"
    assert (
        told(tree.first, tree.sending) == "skipped: another process is sending it; type this again when that has ended"
    )
    assert told(tree.first, tree.away) == "skipped: it seems to be training on another machine"
    assert told(tree.first, tree.torn).startswith("FAILED: metrics.jsonl: line 3 cannot be read: ")
    assert "\n9 runs: 3 sent, 5 skipped, 1 failed\n" in tree.first.stdout
    assert tree.first.returncode == 1
    assert f"again: trainer-sync {tree.path}" in tree.first.stdout


def test_a_second_call_sends_nothing_and_says_that_all_is_there(tree: Tree) -> None:
    for folder, id in ((tree.killed, "r1"), (tree.jobs[1], "j1")):
        assert " there already  http" in told(tree.second, folder)
        assert (tree.server.run(id).overwritten, len(tree.server.run(id).rewinds)) == (0, 0)
    assert "\n9 runs: 3 there already, 5 skipped, 1 failed\n" in tree.second.stdout


def test_wandb_sync_would_not_send_a_run_twice_and_runs_of_others_are_left_to_it(tree: Tree) -> None:
    assert (
        [name[:28] for name in tree.moved()]
        == [
            "offline-run-20260101_000000-",  # of the run without a row
            "offline-run-20260101_000000-",  # of nobody
            "superseded-offline-run-20260",
            "superseded-offline-run-20" + tree.moved()[3][25:28],
        ]
    )
    assert f"1 offline run of wandb that no run folder here belongs to: wandb sync --yes DIR\n  {tree.path}/wandb/" in (
        tree.first.stdout
    )


def test_rows_keep_the_time_at_which_they_were_made(tree: Tree) -> None:
    rows = tree.server.run("j2").history
    assert rows[1]["_timestamp"] - rows[0]["_timestamp"] == pytest.approx(0.1, abs=1e-3)
    assert rows[1]["_timestamp"] == pytest.approx(tree.jobs[0].metrics.stat().st_mtime, abs=1e-3)


def test_what_a_server_lost_or_refused_is_told_and_sent_by_the_next_call(server: WandbServer, tmp_path: Path) -> None:
    first, second = made(tmp_path / "first", 3, started=1), made(tmp_path / "second", 4, started=2)
    picture = np.full((8, 8, 3), 9, np.uint8)
    write_panels(second.media_at(2), [Panel("val/examples", "s0", picture)])

    def die() -> None:
        until(lambda: any(run.id == "second" for run in server.runs))
        server.down()

    thread = threading.Thread(target=die)
    thread.start()
    done = sync(server, tmp_path, "--timeout", "6", WANDB_INIT_TIMEOUT="2")
    thread.join()
    assert told(done, first).startswith("sent: 3 rows")
    assert told(done, second).startswith("FAILED: ")
    assert done.returncode == 1
    assert sync_command(second) == f"trainer-sync {second}"

    server.up()
    server.fail("filestream", 403)
    server.fail("storage", 403)
    done = sync(server, tmp_path, "--timeout", "20")
    server.heal()
    assert "3 rows there already" in told(done, first)
    assert "0 of 4 rows arrived; 1 of 1 pictures did not arrive; the server answered 403" in told(done, second)
    assert (done.returncode, sync_command(second)) == (1, f"trainer-sync {second}")

    done = sync(server, tmp_path)
    assert told(done, second).startswith("sent: 4 rows")
    assert done.returncode == 0
    assert plain(server.run("second")) == small.journal_of(second)
    assert [name for name in server.run("second").files if name.endswith(".png")] != []
    assert server.run("second").state == "finished", "and no run under another id"
    assert sync_command(second) is None


def test_no_login_no_server_and_a_refused_key_are_told_once_before_any_run_is_tried(tmp_path: Path) -> None:
    folders = [made(tmp_path / f"r{n}") for n in range(2)]
    with WandbServer() as here, WandbServer() as gone:
        here.fail("graphql", 401)
        gone.down()
        env = {"PYTHONPATH": str(ROOT)}
        words = [sys.executable, str(ROOT / "scripts/sync.py"), str(tmp_path)]
        cases = (here.env(WANDB_API_KEY=""), here.env(), gone.env())
        started = [subprocess.Popen(words, env={**case, **env}, stdout=-1, stderr=-1, text=True) for case in cases]
        said = [(*process.communicate(timeout=60), process.returncode) for process in started]
    for (out, err, code), (expected, text) in zip(
        said,
        (
            (2, f"no login for {here.url}; type wandb login, or set WANDB_API_KEY"),
            (2, "injected 401; type wandb login --relogin"),
            (1, f"{gone.url} cannot be reached: "),
        ),
        strict=True,
    ):
        assert (out, code) == ("", expected), err
        assert err.count(text) == 1
        assert "WANDB_BASE_URL" in err
    assert not any((folder.path / "wandb").exists() for folder in folders)


def test_a_run_that_takes_too_long_is_ended_and_told(tmp_path: Path) -> None:
    job = Job(made(tmp_path / "slow"))
    send(job, 0.01)
    assert job.line == "FAILED: not done after 0.01 s; --timeout SECONDS gives it more"
    assert Mailbox(job.folder).read(Answer) is None, "it went on"


# ------------------------------------------------------------------------------------------------- without any server


def test_a_dry_run_lists_what_would_be_sent_and_asks_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new, known, empty = made(tmp_path / "a", 7), made(tmp_path / "b"), made(tmp_path / "c", 0)
    Mailbox(known).write(Sent(attempt=1, id="b", mode="online", closed=True))
    assert command([str(tmp_path), "--dry-run"]) == 0
    assert sorted(line.split(None, 1)[1] for line in capsys.readouterr().out.splitlines()) == [
        "skipped: it has no row yet",
        "would look whether all is there: 5 rows",
        "would send: 7 rows",
    ]
    assert not any(folder.wandb.exists() for folder in (new, known, empty))


def test_runs_are_sent_in_the_order_in_which_they_were_started_and_each_once(tmp_path: Path) -> None:
    folders = [made(tmp_path / f"deep/er/{n}", started=10 - n) for n in range(1, 4)]
    found = find([str(tmp_path), str(tmp_path / "deep"), str(folders[0])])
    assert [folder.path for folder in found] == [folder.path for folder in reversed(folders)]


def test_a_wrong_path_is_told_with_what_was_meant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made(tmp_path / "runs/coast")
    (folder.path / "wandb/offline-run-1-x").mkdir(parents=True)
    (tmp_path / "none").mkdir()
    for path, text in (
        ("runs/coats", f"there is no such folder; did you mean {tmp_path}/runs/coast?"),
        ("none", "holds no run"),
        ("runs/coast/wandb/offline-run-1-x", f"holds no run; it is a part of one: trainer-sync {folder}"),
    ):
        assert command([str(tmp_path / path)]) == 2
        assert text in capsys.readouterr().err
    assert command([str(folder), "--timeout", "0"]) == 2
    assert "--timeout: 0 must be more than 0" in capsys.readouterr().err


def test_an_attempt_that_never_started_does_not_hide_what_was_to_be_sent_before(tmp_path: Path) -> None:
    folder = made(tmp_path / "r")
    Mailbox(folder).clear()
    assert Mailbox(folder).read(Spec) is None
    assert judged(folder).state == "send"
    (folder.shipper / "spec.before.json").write_text("{")
    assert judged(folder).line.endswith(f"spec.json cannot be read; trainer resume={folder}")


def test_a_tree_that_was_moved_is_sent_from_where_it_lies_now(tmp_path: Path) -> None:
    job, single = made(tmp_path / "old/sweep/job", sweep=True), made(tmp_path / "old/single")
    (job.path.parent / "wandb").mkdir()
    (tmp_path / "old").rename(tmp_path / "new")
    for path, place in (("sweep/job", "sweep"), ("single", "single")):
        folder = RunFolder(tmp_path / "new" / path)
        spec = Mailbox(folder).last_spec()
        assert spec is not None
        assert home(folder, spec) == tmp_path / "new" / place
    assert single.path.exists() is False
