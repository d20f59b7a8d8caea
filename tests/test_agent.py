"""W&B Sweeps, with the real `wandb sweep` and `wandb agent`: their runs are the announced ones, also after a kill."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_sync import until
from tests.wandb_server import WandbServer
from trainer.agent import Announced
from trainer.folder import RunFolder
from trainer.tracking.mailbox import Tail

ROOT = Path(__file__).resolve().parents[1]
AGENT = "import wandb.wandb_agent as a; from wandb.cli.cli import cli; a.Agent.POLL_INTERVAL = 0.2; cli()"
CHOSEN: list[dict[str, Any]] = [
    {"optimizer": "sgd", "optimizer.lr": 0.05, "scheduler": "none", "seed": 0, "epochs": 2},
    {"optimizer": "adamw", "optimizer.lr": 0.0005, "scheduler": "cosine", "seed": 1, "epochs": 8},
]


class Agents:
    """The shipped sweep: two runs, the second of them ended half-way by SIGTERM, and the first one's values again."""

    def __init__(self, server: WandbServer, path: Path) -> None:
        self.server = server
        own = {"RUNS_DIR": str(path / "runs"), "WANDB_DIR": str(path), "PYTHONPATH": str(ROOT), "WANDB_PROJECT": "p"}
        env = server.env(**own, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}", OMP_NUM_THREADS="1")
        words = [sys.executable, "-m", "wandb", "sweep", "conf/wandb_sweep.yaml"]
        made = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=True)
        (self.path,) = re.findall(r"wandb agent (\S+)", made.stderr)
        (self.sweep,) = server.backend.sweeps.values()
        self.offered = self.sweep.waiting
        self.sweep.waiting = [
            {key: {"value": value} for key, value in values.items()} for values in (*CHOSEN, CHOSEN[0])
        ]
        del env["WANDB_PROJECT"]  # the agent is told by its argument
        words = [sys.executable, "-c", AGENT, "agent", self.path]
        agent = subprocess.Popen(words, cwd=ROOT, env=env, stdout=-1, stderr=subprocess.STDOUT, text=True)
        until(lambda: agent.poll() is not None or bool(list(path.glob("runs/*/*adamw*/metrics.jsonl"))))
        self.killed = RunFolder(next(path.glob("runs/*/*adamw*")))
        self.first = RunFolder(next(path.glob("runs/*/*sgd*")))
        rows = Tail(self.killed.metrics)
        until(lambda: bool(rows.lines()))
        os.kill(self.killed.read_status()["pid"], signal.SIGTERM)
        self.said, _ = agent.communicate(timeout=120)
        self.folders = sorted(path.glob("runs/*/*/config.yaml"))


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    with WandbServer() as server:
        yield Agents(server, tmp_path_factory.mktemp("agents"))
        assert server.unknown == [], "the client asked for something that this server does not know"
        assert not any(run.overwritten for run in server.runs)


def steps(rows: list[dict[str, Any]], key: str) -> list[int]:
    return [row[key] for row in rows]


def test_each_run_of_an_agent_is_the_one_that_it_announced_and_belongs_to_the_sweep(agents: Agents) -> None:
    assert [run.id for run in agents.server.runs] == ["sweep001-1", "sweep001-2", "sweep001-3"], agents.said
    assert {(run.sweep, run.project, run.state, run.exit_code) for run in agents.server.runs} == {
        ("sweep001", "p", "finished", 0)
    }
    assert {run.upserts[0].get("sweep") for run in agents.server.runs} == {"sweep001"}, "told by the run itself"
    assert all(values.keys() == {"optimizer", "optimizer.lr", "scheduler", "seed"} for values in agents.offered)


def test_a_search_finds_its_parameters_by_their_names_and_the_composed_config_is_there_too(agents: Agents) -> None:
    for run, chosen in zip(agents.server.runs, (*CHOSEN, CHOSEN[0]), strict=True):
        assert {key: run.config[key] for key in chosen} == chosen
        assert (
            run.config["choices"] | {"optimizer": chosen["optimizer"], "experiment": "digits"} == run.config["choices"]
        )
        assert run.config["early_stopping"]["monitor"] == "val/accuracy"
        assert run.config["optimizer._target_"].startswith("torch.optim.")


def test_a_run_that_was_ended_goes_on_as_the_same_run_when_the_agent_starts_it_again(agents: Agents) -> None:
    run, status = agents.server.run("sweep001-2"), agents.killed.read_status()
    assert "received command: resume" in agents.said
    assert (status["attempt"], status["result"]["step"]) == (2, 360)
    journal = [json.loads(line) for line in agents.killed.metrics.read_text().splitlines()]
    assert steps(run.history, "_step") == steps(journal, "step")
    assert len(agents.folders) == 2


def test_values_that_a_sweep_draws_again_are_not_trained_again_and_their_result_is_sent(agents: Agents) -> None:
    first, again = agents.server.run("sweep001-1"), agents.server.run("sweep001-3")
    assert agents.first.read_status()["attempt"] == 1
    assert agents.first.read_status()["wandb_id"] == "sweep001-3"
    assert steps(again.history, "train/loss") == steps(first.history, "train/loss")
    assert again.summary["best/val/accuracy"] == first.summary["best/val/accuracy"]


def test_a_parameter_of_a_value_stands_beside_the_group_and_nested_parameters_are_in_it() -> None:
    composed = {"optimizer": {"lr": 0.1, "momentum": 0.9}, "seed": 1}
    assert Announced("s", "r", parameters={"optimizer.lr": 0.1}).config(composed) == {**composed, "optimizer.lr": 0.1}
    assert Announced("s", "r", parameters={"optimizer": {"lr": 0.1}}).config(composed) == composed
