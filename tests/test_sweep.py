"""Sweeps as they are typed: jobs that fail in every way, signals, kills, two sweeps at once, values that are added."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests import sweeps
from tests.commands import Command
from tests.sweeps import LONG, SMALL, family, kill, offspring, states, statuses, training, typed, until

BREAKS = """
import os, signal, sys
from pathlib import Path
from trainer.models import CNN

def net(in_channels, num_classes, how):
    if Path("broken").exists():
        if how == "raises": raise RuntimeError("broken on purpose")
        if how == "exits": sys.exit(3)
        if how == "leaves": os._exit(7)
        if how == "memory": os.kill(os.getpid(), signal.SIGKILL)
    return CNN(in_channels, num_classes)
"""


def breaking(home: Path) -> list[str]:
    """A sweep over a model that fails in four ways while there is a file `broken`, and its words."""
    (home / "breaks.py").write_text(BREAKS)
    (home / "conf/model").mkdir(parents=True)
    (home / "conf/model/breaks.yaml").write_text("_target_: breaks.net\nhow: fine\n")
    (home / "broken").touch()
    words = [word for word in SMALL if not word.startswith("model=")]
    return ["-m", *words, "model=breaks", "model.how=raises,exits,fine,leaves,memory,last"]


@pytest.mark.parametrize("launcher", [pytest.param("basic", marks=pytest.mark.slow), "joblib"])
def test_whatever_becomes_of_a_job_the_others_finish_and_the_same_command_goes_on_with_it(
    launcher: str, tmp_path: Path
) -> None:
    words = [*breaking(tmp_path), *sweeps.LAUNCHERS[launcher]]
    first = typed(tmp_path, *words)
    assert first.code == 1, first.out + first.err
    table = first.out.partition("2 of 6 jobs finished\n")[2]
    for told in (
        "how=raises-[0-9a-f]+  .*RuntimeError: broken on purpose", "how=exits-[0-9a-f]+  SystemExit: 3",
        "how=leaves-[0-9a-f]+  its process left with exit code 7",
        r"how=memory-[0-9a-f]+  killed by SIGKILL: was the memory enough\?", "does what is missing",
    ):  # fmt: skip
        assert re.search(told, table), table
    (tmp_path / "broken").unlink()
    again = typed(tmp_path, *words)
    assert again.code == 0, again.out + again.err
    assert "6 of 6 jobs finished" in again.out
    assert {status["attempt"] for status in statuses(tmp_path).values()} == {1}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_has_the_running_job_save_and_nothing_else_begins(number: signal.Signals, tmp_path: Path) -> None:
    running = Command("train", "-m", *LONG, "seed=0,1,2", cwd=tmp_path)
    (folder,) = until(lambda: training(tmp_path))
    kill(-running.process.pid, number=number)  # to the whole group, as a terminal does
    if number is signal.SIGHUP:
        kill(-running.process.pid, number=number)  # and once more, as a shell that ends does
    ended = running.wait(200)
    assert ended.code == 128 + number, ended.out + ended.err
    assert states(tmp_path) == ["interrupted"]
    saved = max(int(path.parent.name[5:]) for path in folder.glob("checkpoints/step-*/manifest.json"))
    assert saved == (folder / "metrics.jsonl").read_bytes().count(b"\n")
    assert "0 of 3 jobs finished" in ended.told


def test_the_second_ctrl_c_kills(tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text(
        "import time\nfrom pathlib import Path\nfrom trainer.models import CNN\n"
        "def net(in_channels, num_classes):\n"
        "    if not Path('runs').exists(): return CNN(in_channels, num_classes)  # while it is tried\n"
        "    import signal; signal.signal(signal.SIGUSR1, lambda *_: Path('told').touch())\n"
        "    Path('here').touch(); [time.sleep(1) for _ in range(600)]\n"
    )
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/stuck.yaml").write_text("_target_: stuck.net\n")
    words = [word for word in SMALL if not word.startswith("model=")]
    running = Command("train", "-m", *words, "model=stuck", "seed=0,1", cwd=tmp_path)
    until((tmp_path / "here").exists)
    kill(-running.process.pid, number=signal.SIGINT)
    jobs = [job for one in offspring(running.process.pid) for job in offspring(one)]
    until((tmp_path / "told").exists)  # the first one has no effect there
    kill(-running.process.pid, number=signal.SIGINT)
    assert running.wait(200).code == 130
    assert not any(Path(f"/proc/{job}").exists() for job in jobs)


def test_a_sweep_that_is_killed_has_its_job_save_and_the_next_one_takes_over(tmp_path: Path) -> None:
    running = Command("train", "-m", *LONG, "seed=0", cwd=tmp_path)
    until(lambda: training(tmp_path))
    kill(running.process.pid)
    again = Command("train", "-m", *LONG, "seed=0", cwd=tmp_path)  # while the first one's job may be saving still
    until(lambda: "resumed" in next(tmp_path.glob("runs/*/*/train.log")).read_text())
    kill(again.process.pid, number=signal.SIGTERM)
    ended = again.wait(200)
    assert ended.code == 143
    assert running.wait(200).code == -signal.SIGKILL


def test_a_sweep_survives_the_end_of_the_process_that_forks(tmp_path: Path) -> None:
    words = ["-m", *LONG, "epochs=10", "evaluate_every=5epochs", "seed=0,1"]
    running = Command("train", *words, cwd=tmp_path)
    until(lambda: training(tmp_path))
    kill(*offspring(running.process.pid))
    ended = running.wait(200)
    assert ended.code == 0, ended.out + ended.err
    assert [status["attempt"] for status in statuses(tmp_path).values()] == [2, 1]


def test_two_sweeps_at_once_share_the_work_and_one_finishes_what_the_other_leaves(tmp_path: Path) -> None:
    words = ["-m", *LONG, "epochs=8", "evaluate_every=4epochs", "seed=range(4)"]
    one, other = Command("train", *words, cwd=tmp_path), Command("train", *words, cwd=tmp_path)
    until(lambda: training(tmp_path, least=2))
    kill(*family(one.process.pid))
    ended = other.wait(200)
    assert ended.code == 0, ended.out + ended.err
    assert "4 of 4 jobs finished" in ended.told
    assert sum(status["attempt"] for status in statuses(tmp_path).values()) == 5  # that of the killed one twice
    one.wait(200)


def test_two_sweeps_to_the_end_do_nothing_twice(tmp_path: Path) -> None:
    words = ["-m", *SMALL, "seed=range(4)", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    both = [Command("train", *words, cwd=tmp_path) for _ in range(2)]
    assert [one.wait(200).code for one in both] == [0, 0]
    assert [status["attempt"] for status in statuses(tmp_path).values()] == [1] * 4


def test_values_that_are_added_use_the_jobs_that_are_finished(tmp_path: Path) -> None:
    assert typed(tmp_path, "-m", *SMALL, "seed=0", "optimizer=sgd,adamw").code == 0
    before = {name: status["updated"] for name, status in statuses(tmp_path).items()}
    more = typed(tmp_path, "-m", *SMALL, "seed=0,1", "optimizer=sgd,adamw")
    assert "4 of 4 jobs finished" in more.told
    after = statuses(tmp_path)
    assert len(after) == 4
    assert {name: after[name]["updated"] for name in before} == before


def test_a_file_that_is_edited_while_a_sweep_runs_changes_no_job(tmp_path: Path) -> None:
    (tmp_path / "conf/optimizer").mkdir(parents=True)
    mine = tmp_path / "conf/optimizer/mine.yaml"
    mine.write_text("_target_: torch.optim.SGD\nlr: 0.01\n")
    running = Command("train", "-m", *LONG, "epochs=10", "optimizer=mine", "seed=0,1", cwd=tmp_path)
    until(lambda: training(tmp_path))
    mine.write_text("_target_: torch.optim.SGD\nlr: 0.5\n")
    assert running.wait(200).code == 0
    configs = [path.read_text() for path in tmp_path.glob("runs/*/*/config.yaml")]
    assert len(configs) == 2
    assert all("lr: 0.01" in config for config in configs)


@pytest.mark.parametrize("launcher", [pytest.param("basic", marks=pytest.mark.slow), "joblib"])
def test_a_sweep_that_is_killed_in_its_parts_ends_with_the_same_bits(launcher: str, tmp_path: Path) -> None:
    """`scripts/sweep_harness.py` does so with more jobs and kills, and through submitit."""
    (tmp_path / "whole").mkdir()
    assert typed(tmp_path / "whole", *sweeps.words(1, 4, "basic")).code == 0
    account = sweeps.torment(launcher, tmp_path / launcher, tmp_path / "whole", 2, 1, 4, seed=0)
    assert not account.faults, "\n".join(account.faults)
    assert account.fell.total() == 2


BAD = [
    (["hydra/launcher=joblb"], "did you mean joblib"),
    (["hydra/launcher=joblib", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs: 0 must be at least 1"),
    (["hydra/launcher=joblib", "hydra.launcher.jobs_per_gpu=0"], "hydra.launcher.jobs_per_gpu: 0 must be at least 1"),
    (["hydra/launcher=joblib", "hydra.launcher.n_job=2"], "hydra.launcher.n_job"),
    (["hydra/launcher=slurm"], "there is no Slurm here"),
    (["hydra/launcher=submitit_local", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs: 0 must be at least 1"),
]


@pytest.mark.parametrize(("words", "told"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_launcher_that_cannot_be_is_told_before_anything_begins(words: list[str], told: str, tmp_path: Path) -> None:
    made = typed(tmp_path, "-m", *SMALL, "seed=0,1", *words)
    assert made.code == 2
    assert told in made.told
    assert not (tmp_path / "runs").exists()


def test_a_result_is_kept_where_somebody_types_never(tmp_path: Path) -> None:
    words = ["-m", *SMALL, "seed=0,1"]
    assert typed(tmp_path, *words).code == 0
    before = statuses(tmp_path)
    again = typed(tmp_path, *words, "resume=never")
    assert again.told.count("holds a run already; type resume=auto") == 2
    assert statuses(tmp_path) == before
