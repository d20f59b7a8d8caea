"""Jobs in a queue: submitit on this machine, and a Slurm that is a few scripts. Time limits, requeues, Ctrl-C."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests import slurm
from tests.commands import Command
from tests.remains import differences, rows
from tests.sweeps import LONG, SMALL, family, kill, states, statuses, training, typed, until
from tests.wandb_server import WandbServer

ROOT = Path(__file__).resolve().parents[1]
LOCAL = ["hydra/launcher=submitit_local", "hydra.launcher.n_jobs=2"]
JOBS = ["-m", *LONG, "epochs=30", "evaluate_every=10epochs", "checkpoint_every=500steps"]
PATHS = {"PYTHONPATH": str(ROOT)}


def pid_of(folder: Path) -> int:
    return int(statuses(folder.parents[2])[folder.name]["pid"])


@pytest.mark.slow
def test_the_signal_before_a_time_limit_has_a_job_save_queue_again_and_go_on_as_the_same_run(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    words = [*JOBS, "seed=0,1", *LOCAL]
    with WandbServer() as server:
        online = {**server.env(), **PATHS, "WANDB_PROJECT": "p"}
        words = [word for word in words if not word.startswith("wandb.mode")]
        running = Command("train", *words, "wandb.project=p", cwd=tmp_path / "cut", env=online)
        folder = until(lambda: training(tmp_path / "cut"))[0]
        before = statuses(tmp_path / "cut")[folder.name]
        kill(*family(pid_of(folder)), number=signal.SIGUSR2)  # Slurm signals every process of the step
        ended = running.wait(200)
        assert ended.code == 0, ended.out + ended.err
        after = statuses(tmp_path / "cut")
        assert sorted(status["attempt"] for status in after.values()) == [1, 2]
        assert after[folder.name]["wandb_id"] == before["wandb_id"]
        assert "resumed" in (folder / "train.log").read_text()
        history = [row["_step"] for row in server.run(before["wandb_id"]).history]
        assert history == list(range(1, len(rows(folder)) + 1))
        assert server.run(before["wandb_id"]).state == "finished"
    assert typed(tmp_path / "whole", *JOBS, "seed=0,1").code == 0
    (other,) = (tmp_path / "whole").glob(f"runs/*/{folder.name}")
    assert differences(other, folder) == []


@pytest.mark.slow
def test_a_ctrl_c_has_the_processes_save_and_the_sweep_end(tmp_path: Path) -> None:
    running = Command("train", "-m", *LONG, "seed=0,1,2", *LOCAL, cwd=tmp_path, env=PATHS)
    until(lambda: training(tmp_path, least=2))
    kill(-running.process.pid, number=signal.SIGINT)
    ended = running.wait(200)
    assert ended.code == 130, ended.out + ended.err
    assert states(tmp_path) == ["interrupted"] * 2
    assert "0 of 3 jobs finished" in ended.told


def test_on_slurm_jobs_are_queued_again_outlive_the_sweep_and_are_not_sent_twice(tmp_path: Path) -> None:
    env = {**slurm.install(tmp_path / "slurm"), **PATHS}
    preset = ["hydra/launcher=slurm", "hydra.launcher.timeout_min=30", "hydra.launcher.array_parallelism=2"]
    words = [*JOBS, "seed=0,1", *preset, "+hydra.launcher.mail_user=me", "hydra.launcher.partition=short"]
    running = Command("train", *words, cwd=tmp_path, env=env)
    first = until(lambda: training(tmp_path))[0]
    (script,) = slurm.scripts(tmp_path / "slurm")
    for line in ("array=0-1%2", "time=30", "signal=USR2@120", "gpus-per-node=1", "cpus-per-task=8", "mem=32GB",
                 "ntasks-per-node=1", "job-name=trainer", "mail-user=me", "partition=short"):  # fmt: skip
        assert f"#SBATCH --{line}\n" in script
    kill(pid_of(first), number=signal.SIGUSR2)
    kill(-running.process.pid, number=signal.SIGINT)
    ended = running.wait(200)
    assert ended.code == 130, ended.out + ended.err
    assert "the jobs stay on the cluster; end them by  scancel 100" in ended.told
    again = typed(tmp_path, *words, env=env)
    assert again.code == 0, again.out + again.err
    assert "2 of 2 jobs finished" in again.told
    assert len(slurm.scripts(tmp_path / "slurm")) == 1
    assert sorted(status["attempt"] for status in statuses(tmp_path).values()) == [1, 2]


@pytest.mark.slow
def test_a_process_that_is_killed_ends_no_other_and_is_told(tmp_path: Path) -> None:
    running = Command("train", *JOBS, "seed=0,1", *LOCAL, cwd=tmp_path, env=PATHS)
    folder = until(lambda: training(tmp_path))[0]
    kill(pid_of(folder))
    ended = running.wait(200)
    assert ended.code == 1, ended.out + ended.err
    assert f"killed       {folder.name}  its process is gone" in ended.told
    assert "1 of 2 jobs finished" in ended.told


def test_what_slurm_does_not_know_is_told_by_key(tmp_path: Path) -> None:
    env = {**slurm.install(tmp_path / "slurm"), **PATHS}
    words = ["-m", *SMALL, "seed=0,1", "hydra/launcher=slurm"]
    for word, told in (("+hydra.launcher.color=red", "color"), ("hydra.launcher.timeout_min=1", "signal_delay_s=120")):
        made = typed(tmp_path, *words, word, env=env)
        assert made.code == 2
        assert told in made.told
        assert "hydra.launcher" in made.told


def test_without_submitit_the_command_that_installs_it_is_told(tmp_path: Path) -> None:
    made = Command("train", "-m", *SMALL, "seed=0,1", *LOCAL, cwd=tmp_path, first=_hide).wait(200)
    assert made.code == 2
    assert "pip install 'wandb-trainer[slurm]'" in made.told


def _hide() -> None:
    sys.modules["submitit"] = None  # type: ignore[assignment]
