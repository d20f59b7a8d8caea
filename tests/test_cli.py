"""The commands as a user types them, in real processes: what they print, what they leave, what they return."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests import remains
from tests.commands import Command, command
from trainer import cli

ROOT = Path(__file__).resolve().parents[1]
QUICK = ["experiment=digits", "epochs=2", "wandb.mode=disabled", "world.threads=1"]


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    return torch.load(newest / "weights.pt", weights_only=True)


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs of one config, `a` and `b`, and one of another seed, `c`."""
    cwd = tmp_path_factory.mktemp("runs")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        made = command("train", *QUICK, f"name={name}", f"seed={seed}", cwd=cwd)
        assert made.code == 0, made.err
    return cwd


def test_the_run_folder_is_as_the_contract_says(done: Path) -> None:
    folder = done / "runs/a"
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {
        "config.yaml", "status.json", "metrics.jsonl", "train.log", "receipt.jsonl", "media", "checkpoints",
        "preview.png",
    }  # fmt: skip
    status = json.loads((folder / "status.json").read_text())
    assert {"state", "config_hash", "attempt", "host", "pid", "wandb_id", "code_version", "result"} <= status.keys()
    assert status["state"] == "finished"
    assert {"best", "last", "step", "epoch", "reason", "seconds"} <= status["result"].keys()
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    assert {path.name for path in newest.iterdir()} == {"weights.pt", "state.pt", "manifest.json"}
    torch.load(newest / "state.pt", weights_only=True)
    assert (folder / "checkpoints" / (folder / "checkpoints/best").read_text().strip()).is_dir()
    assert list(folder.glob("media/step-*/sheet.png"))
    assert [row["step"] for row in rows(folder)] == sorted({row["step"] for row in rows(folder)})


def test_the_same_config_and_seed_end_with_the_same_bits_and_another_seed_does_not(done: Path) -> None:
    assert same(done / "runs/a", done / "runs/b")
    assert remains.rows(done / "runs/a") == remains.rows(done / "runs/b")
    assert not same(done / "runs/a", done / "runs/c")


def test_a_finished_run_answers_from_its_result(done: Path) -> None:
    before = (done / "runs/a/status.json").read_text()
    made = command("train", "resume=runs/a", cwd=done)
    assert made.code == 0
    assert "already finished" in made.out
    assert (done / "runs/a/status.json").read_text() == before


def test_a_name_that_is_taken_is_refused_and_nothing_is_overwritten(done: Path) -> None:
    before = (done / "runs/a/metrics.jsonl").read_bytes()
    made = command("train", *QUICK, "name=a", cwd=done)
    assert made.code == 2
    assert "resume=auto" in made.err
    assert (done / "runs/a/metrics.jsonl").read_bytes() == before


def test_evaluate_finds_what_the_run_found(done: Path) -> None:
    made = command("evaluate", "runs/a", cwd=done)
    found = json.loads(made.out)
    best = json.loads((done / "runs/a/status.json").read_text())["result"]["best"]
    assert {key: found[key] for key in found if key.startswith("val/")} == {
        key: value for key, value in best.items() if key.startswith("val/")
    }


def test_compare_shows_the_best_run_first_and_the_key_that_differs(done: Path) -> None:
    made = command("compare", "runs", "--runs", "--csv", "table.csv", cwd=done)
    assert made.code == 0
    heads, best = made.out.splitlines()[2:4]
    assert {"seed", "val/accuracy", "epoch", "run"} <= set(heads.split())
    rows = (done / "table.csv").read_text().splitlines()
    assert len(rows) == 4
    assert best.split()[-1] in rows[1]


def test_more_epochs_extend_a_finished_run(done: Path, tmp_path: Path) -> None:
    words = [*QUICK, "model=mlp", "scheduler=constant"]
    first = command("train", *words, "name=short", cwd=tmp_path)
    longer = command("train", "resume=runs/short", "epochs=3", cwd=tmp_path)
    whole = command("train", *words, "epochs=3", "name=whole", cwd=tmp_path)
    assert (first.code, longer.code, whole.code) == (0, 0, 0)
    assert same(tmp_path / "runs/short", tmp_path / "runs/whole")
    assert remains.rows(tmp_path / "runs/short") == remains.rows(tmp_path / "runs/whole")


def test_a_run_that_diverged_is_replayed_by_the_command_that_it_prints(tmp_path: Path) -> None:
    (tmp_path / "my_model.py").write_text(DIVERGES)
    words = ["model._target_=my_model.Net", "~model.widths", "~model.dropout"]
    made = command("train", *QUICK, "name=bad", *words, cwd=tmp_path)
    assert made.code == 4
    assert "train/grad_norm became nan at step 20 (epoch 1)" in made.err
    assert "trainer-replay runs/bad shows where" in made.err
    found = command("replay", "runs/bad", cwd=tmp_path)
    assert found.code == 0, found.err
    assert "first     model.root (Root), backward of Sqrt" in found.out
    assert "my_model.py:7 in forward: return x.clamp(min=0).sqrt()" in found.out
    assert command("replay", "runs/none", cwd=tmp_path).code == 5


DIVERGES = """
import torch
from torch import nn

class Root(nn.Module):
    def forward(self, x):
        return x.clamp(min=0).sqrt()

class Net(nn.Module):
    def __init__(self, in_channels: int, num_classes: int):
        super().__init__()
        self.head, self.root = nn.Linear(64, num_classes), Root()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += self.training
        x = self.head(x.flatten(1))
        return x + self.root(x * 0 if self.calls == 20 else x * 0 + 1)
"""


def test_a_stopped_run_goes_on_by_the_command_that_it_prints(tmp_path: Path) -> None:
    """By Ctrl-C, in a process as a shell starts it; tests/test_faults_running.py has the other signals."""
    code = "import sys; from trainer.cli import train; sys.exit(train())"
    words = [*QUICK, "epochs=400", "early_stopping=none", "name=cut", "log_every=1step"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    start = [sys.executable, "-c", code, *words]
    with subprocess.Popen(start, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stdout.read()
    assert process.returncode == 130
    assert "trainer resume=runs/cut" in rest
    status = json.loads((tmp_path / "runs/cut/status.json").read_text())
    assert status["state"] == "interrupted"
    reached = status["result"]["step"]
    made = command("train", "resume=runs/cut", f"epochs={reached // 45 + 2}", cwd=tmp_path)
    assert made.code == 0, made.err
    steps = [row["step"] for row in rows(tmp_path / "runs/cut")]
    assert steps == list(range(1, 45 * (reached // 45 + 2) + 1))


def test_a_sweep_runs_each_job_once_and_answers_the_second_time_wherever_its_m_stands(tmp_path: Path) -> None:
    words = ["-m", *QUICK, "model=mlp", "optimizer=sgd,adamw", "seed=0,1"]
    first = command("train", *words, cwd=tmp_path)
    assert first.code == 0, first.err
    assert "4 of 4 jobs finished" in first.out
    folders = sorted(path.parent for path in tmp_path.glob("runs/*/*/status.json"))
    assert len(folders) == 4
    before = [(folder / "status.json").read_text() for folder in folders]
    again = command("train", *words[1:3], "-m", *words[3:], cwd=tmp_path)
    assert again.code == 0
    assert "4 of 4 jobs finished" in again.out
    assert "job 1 of 4" not in again.out
    assert [(folder / "status.json").read_text() for folder in folders] == before


def test_one_failing_job_does_not_end_a_sweep(tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text(
        "import sys\nfrom trainer.models import CNN\n"
        "def net(in_channels, num_classes, how):\n"
        "    if how == 'exit': sys.exit(3)\n"
        "    if how == 'raise': raise RuntimeError('broken on purpose')\n"
        "    return CNN(in_channels, num_classes)\n"
    )
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/fails.yaml").write_text("_target_: fails.net\nhow: fine\n")
    made = command("train", "-m", *QUICK, "model=fails", "model.how=raise,exit,fine", cwd=tmp_path)
    assert made.code == 1
    assert "1 of 3 jobs finished" in made.out
    assert "broken on purpose" in made.out


def test_a_job_that_does_not_fit_is_refused_with_its_reason_in_the_table(tmp_path: Path) -> None:
    made = command("train", "-m", *QUICK, "model=mlp", "optimizer=sparse_adam,sgd", cwd=tmp_path)
    assert made.code == 1
    table = made.out.partition("jobs finished")[2]
    assert re.search(r"refused +\S*optimizer=sparse_adam\S+  optimizer: SparseAdam takes only sparse gradients", table)
    assert re.search(r"finished +\S*optimizer=sgd", table)


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    words = [sys.executable, "-u", "-c", "import sys; from trainer.cli import train; sys.exit(train(['--help']))"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, cwd=tmp_path, env=environment, text=True, **pipes) as made:
        assert made.stdout is not None
        assert made.stderr is not None
        made.stdout.close()
        assert made.stderr.read() == ""
    assert made.returncode == 141


def test_several_configs_are_not_shown_at_once(tmp_path: Path) -> None:
    made = command("train", "-m", "seed=0,1", "--cfg", "job", cwd=tmp_path)
    assert made.code == 2
    assert "-m: these options show one config" in made.err


def test_a_model_of_ones_own_trains_from_a_file_and_a_module_in_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "my_model.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, in_features: int, num_classes: int, width: int = 16):\n"
        "        super().__init__()\n"
        "        layers = nn.Linear(in_features, width), nn.ReLU(), nn.Linear(width, num_classes)\n"
        "        self.net = nn.Sequential(nn.Flatten(), *layers)\n"
        "    def forward(self, x):\n"
        "        return self.net(x)\n"
    )
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/mine.yaml").write_text("_target_: my_model.Net\nwidth: 24\n")
    made = command("train", *QUICK, "model=mine", "name=mine", cwd=tmp_path)
    assert made.code == 0, made.err
    assert weights(tmp_path / "runs/mine")["net.1.weight"].shape == (24, 64)
    loading = (
        "import trainer; from PIL import Image\n"
        "model = trainer.load('runs/mine')\n"
        "print(tuple(model(model.preprocess(Image.new('RGB', (20, 30)))).shape), len(model.classes), model.training)"
    )
    loaded = Command(partial(exec, loading, {}), cwd=tmp_path).wait()
    assert loaded.out.strip() == "(1, 10) 10 False", loaded.err


def test_check_shows_the_learning_rate_of_the_whole_run_and_a_run_says_it_in_a_line(tmp_path: Path) -> None:
    words = [*QUICK, "scheduler=onecycle", "optimizer=momentum", "warmup=10%"]
    plain = {"PYTHONIOENCODING": "ascii"}
    seen = command("check", *words, cwd=tmp_path, env=plain)
    assert seen.code == 0, seen.err
    (line,) = [line for line in seen.out.splitlines() if line.startswith("schedule")]
    assert "onecycle after a warm-up of 10%, per step: " in line
    assert "momentum 0.85 to 0.95" in line
    assert seen.out.count("*") > 100
    assert "no mistake found" in seen.out
    assert not (tmp_path / "runs").exists()
    made = command("train", *words, "name=a", cwd=tmp_path, env=plain)
    assert made.code == 0, made.err
    assert line.split(maxsplit=1)[1] in (tmp_path / "runs/a/train.log").read_text()
    assert {"lr", "momentum"} <= rows(tmp_path / "runs/a")[0].keys()


def test_a_schedule_that_ends_before_the_run_is_refused_before_training(tmp_path: Path) -> None:
    words = [*QUICK, "scheduler=onecycle", "+scheduler.total_steps=5steps"]
    for program in ("train", "check"):
        made = command(program, *words, cwd=tmp_path)
        assert made.code == 2, made.err
        assert "scheduler.total_steps: 5steps are less than the run (90 steps), and it cannot go on" in made.err
        assert not (tmp_path / "runs").exists()


def shapes_and_masks(root: Path, count: int = 12) -> None:
    generator = np.random.default_rng(0)
    for folder in ("imgs", "masks"):
        (root / folder).mkdir(parents=True)
    for n in range(count):
        mask = np.zeros((32, 40), np.uint8)
        y, x = generator.integers(0, 20, 2)
        mask[y : y + 12, x : x + 12] = 255
        image = (mask[..., None] // 2 + generator.integers(0, 60, (32, 40, 3))).astype(np.uint8)
        Image.fromarray(image).save(root / f"imgs/{n}.png")
        Image.fromarray(mask).save(root / f"masks/{n}_mask.gif")


def test_a_folder_of_images_and_masks_trains_and_shows_them(tmp_path: Path) -> None:
    shapes_and_masks(tmp_path / "mine")
    words = ["data=image_mask_folder", "data.root=mine", "epochs=2", "batch_size=4", "wandb.mode=disabled", "name=m"]
    made = command("train", *words, "world.threads=1", cwd=tmp_path)
    assert made.code == 0, made.err
    panels = sorted((tmp_path / "runs/m/media").glob("step-*"))[-1]
    shown = json.loads((panels / "panels.json").read_text())
    assert shown[0]["masks"].keys() == {"true", "pred", "error"}
    assert set(np.unique(np.asarray(Image.open(panels / shown[0]["masks"]["true"])))) <= {0, 1}


BAD = [
    (["optimizer=sdg"], "did you mean sgd"),
    (["optimzer=sgd"], "did you mean optimizer"),
    (["optimizer.lrr=1"], "optimizer.lr"),
    (["+optimizer.lrr=1"], "optimizer.lr"),
    (["++epoch=3"], "epochs"),
    (["optimizer.lr=-1"], "optimizer.lr"),
    (["epochs=0"], "epochs: 0"),
    (["batch_size=0"], "batch_size: 0"),
    (["log_every=10"], "10steps"),
    (["early_stopping.monitor=val/acuracy"], "val/accuracy"),
    (["model._target_=nowhere.Net"], "nowhere"),
    (["optimizer.lr=-1", "epochs=0", "clip=nrom"], "did you mean norm"),
    (["data=image_folder", "data.root=absent"], "absent"),
    (["data=image_mask_folder"], "data.root"),
    (["warmup=5"], "warmup=5steps or warmup=5epochs"),
    (["scheduler=onecycle", "scheduler.total_steps=10", "epochs=50"], "+scheduler.total_steps=10epochs"),
    (["resume=absent"], "no run folder"),
    (["resume=must"], "resume=auto"),
    (["model=unet_small"], "does not fit the target of shape"),
]

# Told with the data at hand: the key, and what to type instead.
UNFIT = [
    (["experiment=coast", "loss=ctc"], "loss: CTCLoss needs a sequence of logits", "use loss=cross_entropy"),
    (["experiment=topics", "loss=ctc"], "loss: CTCLoss needs a sequence of logits", "use loss=cross_entropy"),
    (["experiment=digits", "loss=bce"], "loss: BCE needs a model output of one channel", "use loss=cross_entropy"),
    (["experiment=coast", "loss=bce"], "loss: BCE needs a model output of one channel", "use loss=cross_entropy"),
    (["experiment=digits", "optimizer=sparse_adam"], "optimizer: SparseAdam takes only sparse", "use optimizer=adam,"),
    (["experiment=coast", "optimizer=sparse_adam"], "optimizer: SparseAdam takes only sparse", "use optimizer=adam,"),
    (["experiment=digits", "task.l1=-1"], "task.l1: -1 must be at least 0", ""),
    (["experiment=coast", "scheduler=onecycle", "+scheduler.total_steps=10steps", "epochs=50"],
     "scheduler.total_steps: 10steps are less than the run (1250 steps)", "type +scheduler.total_steps=50epochs"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "what", "hint"), UNFIT, ids=lambda value: " ".join(value[:3]))
def test_what_does_not_fit_the_data_is_told_by_key_by_the_run_and_by_the_check(
    words: list[str], what: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    for program in (cli.train, cli.check):
        assert program([*words, "world.threads=1"]) == 2
        told = capsys.readouterr().err.strip()
        assert told.startswith(what)
        assert hint in told
        assert len(told.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("words", "told"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_bad_input_is_told_with_its_key_and_starts_nothing(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    first = [] if any(word.startswith("data=") for word in words) else ["experiment=digits"]
    assert cli.train([*first, *words]) == (5 if words == ["resume=must"] else 2)
    out, err = capfd.readouterr()
    assert told in err
    assert "Traceback" not in err + out
    assert len(err.splitlines()) < 20
    assert not (tmp_path / "runs").exists()


def test_bad_input_is_told_and_nothing_else_by_the_command_too(tmp_path: Path) -> None:
    """In a process of its own from the first import on, since those may say something too."""
    code = "import sys; from trainer.cli import train; sys.exit(train())"
    words = [sys.executable, "-c", code, "experiment=digits", "optimizer.lr=-1", "epochs=0", "clip=nrom"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    made = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert made.returncode == 2
    assert made.stdout == ""
    assert len(made.stderr.strip().splitlines()) < 10
    assert list(tmp_path.iterdir()) == []
