"""The history on wandb after a crash at step 1000 with a checkpoint at 900: each of 1200 steps once, from what counts.

Real trainings are killed and typed again. The values of both lives are the same by design, so what tells them apart is
`time`: rows 901 to 1000 must be those of the second life, which are the ones in metrics.jsonl.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import test_shipper as small
from tests.commands import Ended, command
from tests.small import timeless
from tests.wandb_server import Run, WandbServer
from trainer.folder import RunFolder
from trainer.tracking.attempts import sync_command
from trainer.tracking.mailbox import Mailbox, Sent

ROOT = Path(__file__).resolve().parents[1]
CODE = "import sys; from trainer.cli import train; sys.exit(train())"
WORDS = ["experiment=digits", "model=mlp", "epochs=30", "batch_size=36", "evaluate_every=400steps",
         "log_every=1steps", "checkpoint_every=100steps", "world.threads=1", "resume=auto", "name=r",
         "+hooks.crash._target_=crash.Crash"]  # fmt: skip
CRASH = """
import os, signal, sys
from trainer import Hook

class Crash(Hook):
    def on_fit_start(self, trainer):
        write = trainer.trackers.rows
        trainer.trackers.rows = lambda rows: (write(rows), [self.after(trainer, row) for row in rows])

    def after(self, trainer, row):  # all rows up to this one are in metrics.jsonl
        if row["step"] in map(int, os.environ.get("WAIT_AT", "").split()):
            trainer.checkpoints.wait()
            sys.stdin.readline()
        if row["step"] == int(os.environ.get("CRASH_AT", 0)):
            trainer.checkpoints.wait()
            os.kill(os.getpid(), signal.SIGKILL)
"""
OFFLINE = "wandb.mode=offline"


class Place:
    """A working directory with one run in it, `runs/r`, which is `project` on the server."""

    def __init__(self, path: Path, server: WandbServer, project: str) -> None:
        path.mkdir(parents=True, exist_ok=True)
        (path / "crash.py").write_text(CRASH)
        self.path, self.server, self.project = path, server, project
        self.folder = RunFolder(path / "runs/r")

    def start(self, **env: str) -> subprocess.Popen[str]:
        env = {**self.server.env(**env), "PYTHONPATH": str(ROOT)}
        words = (*WORDS, f"wandb.project={self.project}")
        return subprocess.Popen(
            [sys.executable, "-c", CODE, *words], cwd=self.path, env=env, stdin=-1, stdout=-1, stderr=-2, text=True
        )

    def ended(self, *words: str, **env: str) -> Ended:
        words = (*WORDS, *words, f"wandb.project={self.project}")
        return command("train", *words, cwd=self.path, env={**self.server.env(**env), "PYTHONPATH": str(ROOT)})

    def crash(self, *words: str) -> None:
        """A life that is killed at step 1000, and nothing else with it."""
        ended = self.ended(*words, CRASH_AT="1000")
        assert ended.code == -signal.SIGKILL, ended.told
        assert self.rows[-1]["step"] == 1000
        assert sorted(path.name for path in self.folder.checkpoints.glob("step-*"))[-1] == "step-000000900"

    def finish(self, *words: str) -> str:
        """A life that gets to the end; returns what it printed."""
        ended = self.ended(*words)
        assert ended.code == 0, ended.told
        assert ended.told.count("resumed    at step 900") == 1
        return ended.told

    def send(self, said: str, code: int = 0, more: str = "") -> str:
        """Types the command that a training printed as the one that sends the run."""
        (typed,) = re.findall(r"^  send +(.+)$", said, re.MULTILINE)
        return sent(f"{typed} {more}", self.server, self.path, code)

    def copy(self, path: Path, project: str, arrived: int = 1000) -> Place:
        """The same run once more, in its own folder and project, so that one first life serves several tests.

        `arrived`: how many of its rows the server has got.
        """
        shutil.copytree(self.path, path, symlinks=True, dirs_exist_ok=True)
        for run in self.runs:
            twin = copy.deepcopy(run)
            twin.project = project
            lines = twin.lines["wandb-history.jsonl"]
            twin.lines["wandb-history.jsonl"] = {at: line for at, line in lines.items() if at < arrived}
            self.server.backend.runs[(twin.entity, project, twin.id)] = twin
        return Place(path, self.server, project)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.folder.metrics.read_text().splitlines()]

    @property
    def sent(self) -> Sent:
        return Mailbox(self.folder).read(Sent) or Sent()

    @property
    def runs(self) -> list[Run]:
        return [run for run in self.server.runs if run.project == self.project]

    @property
    def run(self) -> Run:
        (run,) = self.runs
        return run


def sent(typed: str, server: WandbServer, path: Path, code: int = 0) -> str:
    """Types a `trainer-sync` of this checkout; returns what it printed."""
    program, _, rest = typed.partition(" ")
    assert Path(program).name == "trainer-sync"
    line = [sys.executable, ROOT / "scripts/sync.py", *shlex.split(rest)]
    done = subprocess.run(line, env=server.env(), cwd=path, stdout=-1, stderr=-2, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout
    return done.stdout


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def kill_with_all_its_children(pid: int) -> None:
    """What a scheduler does to a job: training, shipper and wandb's own process, which have groups of their own."""
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [(int(child), int(parent)) for child, parent in map(str.split, table.splitlines())]
    found = [pid]
    for parent in found:
        found += [child for child, its in pairs if its == parent]
    assert len(found) > 2, "the training, the shipper, wandb-core"
    for each in found:
        os.kill(each, signal.SIGKILL)


def plain(run: Run) -> list[dict[str, Any]]:
    """The history on the server, without what wandb adds, and without pictures."""
    added = ("_", "trainer/step", "val/examples", "val/worst", "val/confusion", "schedule", "speed/")
    return [
        {"step": row["trainer/step"], **{k: v for k, v in row.items() if not k.startswith(added)}}
        for row in run.history
    ]


def whole(place: Place) -> None:
    """Each step of 1200 stands once, in order and finished, on disk and on the server."""
    assert [row["step"] for row in place.rows] == list(range(1, 1201))
    run = place.run
    assert [row["_step"] for row in run.history] == list(range(1, 1201))
    assert timeless(plain(run)) == timeless(place.rows)
    assert [row["_step"] for row in run.history if "val/examples" in row] == [400, 800, 1200]
    assert (run.state, run.exit_code, run.overwritten) == ("finished", 0, 0)
    assert run.config["choices"]["optimizer"]
    assert run.config["run"]["steps"] == 1200
    assert run.config["code"] == place.folder.read_status()["code_version"]
    best = place.folder.read_status()["result"]["best"]
    assert {k: v for k, v in run.summary.items() if k.startswith("best/")} == {
        f"best/{name}": value for name, value in best.items() if name != "time"
    }
    assert run.summary["trainer/step"] == 1200


def exact(place: Place, dead: list[dict[str, Any]]) -> None:
    """As `whole`, and every value is the journal's: nothing of the dead life's steps after 900 is left."""
    whole(place)
    assert plain(place.run) == place.rows
    assert place.rows[:900] == dead[:900]
    assert timeless(place.rows[900:1000]) == timeless(dead[900:])
    assert place.rows[900:1000] != dead[900:], "the two lives cannot be told apart"


@pytest.fixture(scope="module")
def server() -> Iterator[WandbServer]:
    with WandbServer() as server:
        yield server
        assert server.unknown == [], "the client asked for something that this server does not know"


@pytest.fixture(scope="module")
def online(server: WandbServer, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Killed at 1000 together with its shipper and wandb's process, when the server had all of its rows."""
    place = Place(tmp_path_factory.mktemp("online"), server, "online")
    with place.start(WAIT_AT="1000") as process:
        until(lambda: any(len(run.lines.get("wandb-history.jsonl", ())) == 1000 for run in place.runs))
        kill_with_all_its_children(process.pid)
    assert (place.run.state, place.sent.closed, len(place.rows)) == ("running", False, 1000)
    assert plain(place.run) == place.rows
    return place


@pytest.fixture(scope="module")
def offline(server: WandbServer, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Killed at 1000 alone: its shipper wrote all of its rows to an offline run, and ended that."""
    place = Place(tmp_path_factory.mktemp("offline"), server, "offline")
    place.crash(OFFLINE)
    until(lambda: place.sent.closed)
    assert (place.sent.mode, place.sent.step) == ("offline", 1000)
    return place


def test_online_a_killed_training_that_is_typed_again_at_once_leaves_one_exact_history(
    server: WandbServer, tmp_path: Path
) -> None:
    place = Place(tmp_path, server, "alone")
    place.crash()
    dead = place.rows
    assert "  send " not in place.finish()
    exact(place, dead)


def test_online_with_shipper_and_wandb_killed_too_the_history_is_rewound_to_the_checkpoint_and_exact(
    online: Place, tmp_path: Path
) -> None:
    place = online.copy(tmp_path, "group")
    place.finish()
    exact(place, online.rows)
    assert place.run.rewinds == [("_step", 900)]


def test_online_a_server_that_does_not_rewind_keeps_the_rows_it_has_and_gets_the_others_once(
    online: Place, server: WandbServer, tmp_path: Path
) -> None:
    place = online.copy(tmp_path, "refused")
    server.fail("graphql:RewindRun", 400)
    said = place.finish()
    server.heal()
    whole(place)
    assert plain(place.run) == online.rows + place.rows[1000:]
    assert said.count("rows up to step 1000 on the website are those of the earlier attempt") == 1


def test_offline_one_sync_of_the_second_life_gives_an_exact_history(offline: Place, tmp_path: Path) -> None:
    place = offline.copy(tmp_path, "synced")
    place.send(place.finish(OFFLINE))
    exact(place, offline.rows)
    assert place.run.rewinds == []


@pytest.mark.slow
def test_online_then_offline_one_sync_gives_an_exact_history_and_a_refused_one_loses_nothing(
    online: Place, server: WandbServer, tmp_path: Path
) -> None:
    place = online.copy(tmp_path, "went-offline", arrived=850)
    server.down()
    said = place.finish(OFFLINE)
    server.up()
    server.fail("graphql:RewindRun", 400)
    refused = place.send(said, 1, "--timeout 20")  # of which it waits a part for the rows that do not come
    assert "FAILED: 1050 of 1200 rows arrived" in refused
    assert "the server does not rewind runs" in refused
    server.heal()
    place.send(said)
    exact(place, online.rows)
    assert "1200 rows there already" in place.send(said)


def test_offline_then_online_the_server_gets_an_exact_history_and_there_is_nothing_left_to_sync(
    offline: Place, tmp_path: Path
) -> None:
    place = offline.copy(tmp_path, "went-online")
    assert "  send " not in place.finish()
    exact(place, offline.rows)
    assert list(place.folder.wandb.glob("offline-run-*")) == [], "a wandb sync would send the run twice"


# ------------------------------------------------------------- longer stories, told with 20 rows and without a model


def test_online_then_offline_then_online_no_step_is_left_from_a_life_that_does_not_count(
    server: WandbServer, tmp_path: Path
) -> None:
    folder, project = RunFolder(tmp_path / "r"), {"project": "three-lives"}
    small.life(folder.path, server.env(), {**small.ONLINE, **project}, last=12, end="killed")
    small.settle(folder)
    small.life(folder.path, server.env(), {**small.OFFLINE, **project}, first=9, last=16, end="killed")
    until(lambda: (Mailbox(folder).read(Sent) or Sent()).attempt == 2)
    small.settle(folder)
    small.life(folder.path, server.env(), {**small.ONLINE, **project}, first=15)
    (run,) = (run for run in server.runs if run.project == "three-lives")
    assert [row["life"] for row in run.history] == [1] * 8 + [9] * 6 + [15] * 6
    assert small.plain(run.history) == small.journal_of(folder)


@pytest.mark.slow
def test_offline_what_comes_after_an_early_sync_is_neither_forgotten_nor_missing_after_a_crash(
    server: WandbServer, tmp_path: Path
) -> None:
    folder, settings = RunFolder(tmp_path / "r"), {**small.OFFLINE, "project": "early-sync"}
    wandb = Path(sys.executable).with_name("wandb")
    with small.began(folder.path, server.env(), settings, last=12, end="waits") as process:
        until(lambda: (Mailbox(folder).read(Sent) or Sent()).step == 12)
        (path,) = folder.wandb.glob("offline-run-*")
        until(lambda: len(small.history(small.inspect(path))) == 12)
        server.exec([str(wandb), "sync", str(path)], capture_output=True)
        assert path.joinpath("run-r1.wandb.synced").exists()
        with open(folder.metrics, "a") as file:
            file.writelines(json.dumps({"step": step, "life": 1}) + "\n" for step in range(13, 19))
        process.kill()
    small.settle(folder)
    assert sync_command(folder) is not None, "the server has 12 of 18 rows"
    small.life(folder.path, server.env(), settings, first=17)
    typed = sync_command(folder)
    assert typed is not None
    (run,) = (run for run in server.runs if run.project == "early-sync")
    assert len(run.history) == 12
    sent(typed, server, tmp_path)
    assert small.plain(run.history) == small.journal_of(folder)
