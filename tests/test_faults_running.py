"""Faults while a training runs: signals, a clock that goes back, dead workers, too little memory, numbers that are
none. Each in a real process; each time the same command finishes the run with the bits of one that met no fault."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import faulty
from tests.faulty import STEPS, WORDS, Training, result, rows, sample_of, state, step_with, train
from trainer.folder import step_name

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """What a run that meets no fault ends with, by the number of loader workers."""
    cwd = tmp_path_factory.mktemp("whole")
    for workers in (0, 2):
        assert train(cwd, f"name=whole{workers}", f"data.num_workers={workers}").code == 0
    found = {workers: result(cwd / f"runs/whole{workers}") for workers in (0, 2)}
    assert found[0][0] == found[2][0]  # the weights; main generators are drawn from where there are no workers
    return found


@pytest.fixture
def whole(known: dict[int, Any]) -> tuple[Any, ...]:
    return tuple(known[0])


# --------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize(
    ("number", "code", "action", "workers"),
    [
        (signal.SIGTERM, 143, faulty.kill, 0),
        (signal.SIGUSR1, 138, faulty.kill, 0),
        (signal.SIGINT, 130, faulty.kill_group, 2),
    ],
    ids=["SIGTERM", "SIGUSR1", "Ctrl-C with workers"],
)
def test_the_command_that_a_stopped_run_prints_leads_to_the_same_bits(
    number: int, code: int, action: Callable[..., Any], workers: int, tmp_path: Path, known: dict[int, Any]
) -> None:
    ended = Training(tmp_path, *WORDS, "name=a", f"data.num_workers={workers}", at={9: partial(action, number)}).wait()
    assert ended.code == code, ended.told
    assert ended.err == ""
    assert f"interrupted  by {signal.Signals(number).name}" in ended.told
    assert (state(tmp_path / "runs/a"), len(rows(tmp_path / "runs/a"))) == ("interrupted", 9)
    found = re.search(r"^  resume +(.+)$", ended.out, re.MULTILINE)
    assert found is not None
    program, *words = found[1].split()
    assert words == ["resume=runs/a"]
    if number == signal.SIGTERM:  # pasted into a shell as it is
        assert shutil.which(program, path=os.pathsep.join([os.environ["PATH"], str(tmp_path)]))
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        made = subprocess.run(found[1], shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
    else:
        assert Training(tmp_path, *words).wait().code == 0
    assert result(tmp_path / "runs/a") == known[workers]


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGINT)])
def test_a_second_signal_ends_at_once_and_the_run_goes_on_from_its_checkpoint(
    numbers: tuple[int, int], tmp_path: Path, whole: Any
) -> None:
    ended = train(tmp_path, "name=a", at={10: partial(faulty.together, faulty.saved, partial(faulty.kill, *numbers))})
    assert ended.code == -numbers[1]
    assert state(tmp_path / "runs/a") == "running"  # nobody was left to change it
    again = train(tmp_path, "name=a")
    assert again.code == 0, again.told
    assert "resumed    at step 8" in again.out
    assert result(tmp_path / "runs/a") == whole


def test_the_folder_is_free_at_once_after_a_kill_though_loader_workers_outlive_it(tmp_path: Path, whole: Any) -> None:
    ended = train(tmp_path, "name=a", "data.num_workers=2", at={10: partial(faulty.kill, signal.SIGKILL)})
    assert ended.code == -signal.SIGKILL
    again = train(tmp_path, "name=a")  # from an earlier checkpoint: the newest may have been in the making
    assert again.code == 0, again.told
    assert result(tmp_path / "runs/a") == whole


# ------------------------------------------------------------------------------------------------------- the clock


def test_a_wall_clock_that_goes_back_changes_nothing(tmp_path: Path, whole: Any) -> None:
    words = ["name=a", "checkpoint_every=0.001s", "checkpoint.keep=99"]
    for at, code in (({15: partial(faulty.kill, signal.SIGTERM)}, 143), ({}, 0)):
        ended = train(tmp_path, *words, at=at, first=faulty.set_clock_back)
        assert ended.code == code, ended.told
    folder = tmp_path / "runs/a"
    assert result(folder) == whole
    times = [row["time"] for row in rows(folder, leave_out="")]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] < 60
    assert 0 < json.loads((folder / "status.json").read_text())["result"]["seconds"] < 60
    assert len(list(folder.glob("checkpoints/step-*"))) > 5, "a length of time must pass all the same"


# ---------------------------------------------------------------------------------------------------- dead workers


def test_dead_loader_workers_change_nothing_or_are_told_with_advice(tmp_path: Path, known: dict[int, Any]) -> None:
    """Both at once, for torch looks after its workers every five seconds."""
    words = [*WORDS, "data.num_workers=2"]
    once = Training(tmp_path, *words, "name=once", at={7: faulty.kill_worker})
    always = Training(tmp_path, *words, "name=always", first=partial(faulty.make_deadly, sample_of(6)))

    ended = once.wait()
    assert ended.code == 0, ended.told
    assert "warning: data: a loader worker exited unexpectedly" in ended.told
    assert result(tmp_path / "runs/once") == known[2]

    ended = always.wait()
    assert ended.code == 1
    assert "exited unexpectedly, twice at the same batch" in ended.told
    assert "Use fewer data.num_workers" in ended.err
    assert state(tmp_path / "runs/always") == "failed"
    again = train(tmp_path, "name=always", "data.num_workers=2")
    assert again.code == 0, again.told
    assert result(tmp_path / "runs/always") == known[2]


# ---------------------------------------------------------------------------------------------------------- memory


MEMORY: dict[str, Callable[[], Any]] = {
    "a tensor that is too large": partial(faulty.ask_for, 10**14),
    "a limit": partial(faulty.together, partial(faulty.limit_memory, 1 << 28), partial(faulty.ask_for, 1 << 30)),
    "python": partial(faulty.ask_python_for, 10**14),
    "a GPU": faulty.fail_on_gpu,
}


@pytest.mark.parametrize("fault", MEMORY)
def test_too_little_memory_is_told_with_what_to_type_and_the_run_goes_on_with_more(
    fault: str, tmp_path: Path, whole: Any
) -> None:
    if fault == "a limit" and sys.platform != "linux":
        pytest.skip("only Linux keeps to RLIMIT_AS")
    ended = train(tmp_path, "name=a", at={14: MEMORY[fault]})
    assert ended.code == 1
    assert "Traceback" not in ended.out + ended.err
    assert len(ended.err.strip().splitlines()) <= 4
    for words in ("out of memory", "batch_size=4", "accumulate=2"):
        assert words in ended.err
    folder = tmp_path / "runs/a"
    log = (folder / "train.log").read_text()
    assert "Traceback" in log
    assert "tests/faulty.py" in log, "where in the user's code it was"
    assert state(folder) == "failed"
    again = train(tmp_path, "name=a")
    assert again.code == 0, again.told
    assert "resumed    at step 12" in again.out
    assert result(folder) == whole


# ------------------------------------------------------------------------------------------------ not finite


def test_a_sample_that_is_not_finite_ends_the_run_at_its_step_and_the_run_goes_on_without_it(
    tmp_path: Path, whole: Any
) -> None:
    ended = train(tmp_path, "name=a", at={13: partial(faulty.poison, sample_of(15))})
    assert ended.code == 4
    assert re.search(r"train/loss became nan .*step 15 \(epoch 3\)", ended.told)
    assert step_name(12) in ended.err
    assert len(ended.err.strip().splitlines()) <= 4
    folder = tmp_path / "runs/a"
    assert state(folder) == "failed"
    assert [row["step"] for row in rows(folder)] == list(range(1, 15))
    again = train(tmp_path, "name=a")
    assert again.code == 0, again.told
    assert result(folder) == whole


def finite(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def test_updates_that_are_not_finite_can_be_left_out_and_are_counted_over_a_stop(tmp_path: Path) -> None:
    """Four epochs, a bad sample in each: the run goes on, no weight and no running mean is touched by it."""
    sample = sample_of(3)
    words, bad = ["skip_nonfinite=1"], partial(faulty.poison, sample)
    assert train(tmp_path, *words, "name=a", first=bad).told
    folder, last = tmp_path / "runs/a", tmp_path / "runs/a/checkpoints" / step_name(STEPS)
    assert state(folder) == "finished"
    for name in ("weights.pt", "state.pt"):
        assert finite(torch.load(last / name, weights_only=True))
    found, steps = rows(folder), [step_with(sample, epoch) for epoch in range(4)]
    assert len(found) == STEPS
    assert [row["train/skipped"] for row in found] == [sum(row["step"] >= step for step in steps) for row in found]
    assert (
        train(tmp_path, *words, "name=b", first=bad, at={steps[1] + 1: partial(faulty.kill, signal.SIGTERM)}).code
        == 143
    )
    assert train(tmp_path, *words, "name=b", first=bad).code == 0
    assert result(tmp_path / "runs/b") == result(folder)


@pytest.mark.parametrize(("limit", "code"), [(2, 4), (3, 0)])
def test_more_updates_in_a_row_that_are_not_finite_end_the_run(
    limit: int, code: int, tmp_path: Path, whole: Any
) -> None:
    """The first three updates of the third epoch."""
    bad = partial(faulty.poison, *(sample_of(step) for step in (14, 15, 16)))
    ended = train(tmp_path, "name=a", f"skip_nonfinite={limit}", at={13: bad, 17: faulty.poison})
    assert ended.code == code, ended.told
    if code:
        assert "step 16" in ended.err
        assert step_name(12) in ended.err
        assert train(tmp_path, "name=a", f"skip_nonfinite={limit}").code == 0
        assert result(tmp_path / "runs/a")[0] == whole[0]
    else:
        assert rows(tmp_path / "runs/a")[-1]["train/skipped"] == 3
