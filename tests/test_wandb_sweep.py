"""A sweep on wandb: a job that fails and one that is interrupted are runs that tell so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import command
from tests.remains import rows
from tests.wandb_server import Run, WandbServer

ROOT = Path(__file__).resolve().parents[1]
MODEL = """
import os, signal
from torch import nn

class Net(nn.Module):
    def __init__(self, in_channels, num_classes, how):
        super().__init__()
        self.body, self.how, self.calls = nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes)), how, 0

    def forward(self, x):
        self.calls += self.training
        if self.how == "fails" and self.calls == 20:
            raise RuntimeError("broken on purpose")
        if self.how == "stopped" and self.calls == 20:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.body(x)
"""
HOW = {"fine": 0, "fails": 1, "stopped": 143}  # exit codes


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Run], str]]:
    """The folder of the sweep, its runs on the server by what their model does, and what was printed."""
    path = tmp_path_factory.mktemp("sweep")
    (path / "mine.py").write_text(MODEL)
    (path / "conf/model").mkdir(parents=True)
    (path / "conf/model/mine.yaml").write_text("_target_: mine.Net\nhow: fine\n")
    with WandbServer() as server:
        words = ["experiment=digits", "epochs=2", "world.threads=1", "log_every=1step", "name=three", "wandb.project=p"]
        made = command("train", "-m", *words, "model=mine", f"model.how={','.join(HOW)}", cwd=path, env={
            **server.env(), "PYTHONPATH": os.pathsep.join([str(ROOT), str(path)])})  # fmt: skip
        assert made.code == 1, made.err
        yield path / "runs/three", {run.config["model"]["how"]: run for run in server.runs}, made.out
        assert server.unknown == []


def job(folder: Path, how: str) -> Path:
    (found,) = folder.glob(f"*model.how={how}-*")
    return found


def test_each_job_is_a_run_that_ended_as_the_job_did(sweep: tuple[Path, dict[str, Run], str]) -> None:
    folder, runs, said = sweep
    assert runs.keys() == HOW.keys()
    assert {how: run.exit_code for how, run in runs.items()} == HOW
    assert {how for how, run in runs.items() if run.state == "finished"} == {"fine"}
    assert "1 of 3 jobs finished" in said
    assert len(list(folder.glob("wandb/run-*"))) == 3, "all in one flat folder"


def test_the_runs_of_a_sweep_are_a_group_and_each_has_its_own_config_and_name(
    sweep: tuple[Path, dict[str, Run], str],
) -> None:
    folder, runs, _ = sweep
    for how, run in runs.items():
        assert (run.group, run.config["choices"]["model"]) == ("three", "mine")
        assert run.name == job(folder, how).name


def test_each_run_has_the_rows_of_its_own_job(sweep: tuple[Path, dict[str, Run], str]) -> None:
    folder, runs, _ = sweep
    for how, run in runs.items():
        assert [row["trainer/step"] for row in run.history] == [row["step"] for row in rows(job(folder, how))]
        assert run.overwritten == 0
    assert runs["fails"].history[-1]["trainer/step"] < runs["fine"].history[-1]["trainer/step"]
