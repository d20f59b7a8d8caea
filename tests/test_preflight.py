"""Before a sweep: what will be done, what cannot go well, what it will cost; nothing is started for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.commands import command
from tests.small import make_trainer, network
from trainer.measure import measure
from trainer.overrides import check_jobs
from trainer.preflight import Kind, costs, disk, kinds
from trainer.sweep import Sweep, job_place

ROOT = Path(__file__).resolve().parents[1]
QUICK = ["experiment=digits", "model=mlp", "epochs=1", "debug=quick", "wandb.mode=disabled"]
MODEL = """
import os, sys
from torch import nn
class Net(nn.Module):
    def __init__(self, in_features, num_classes, how):
        super().__init__()
        if how == "exit":
            sys.exit(3)
        self.how, self.layer = how, nn.Sequential(nn.Flatten(), nn.Linear(in_features, num_classes))
    def forward(self, x):
        if self.how == "raise":
            raise RuntimeError("broken on purpose")
        if self.how == "kill":
            os.kill(os.getpid(), 9)
        return self.layer(x)
"""


def a_model_that(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MODEL.replace("in_features", "image_size").replace(
        "nn.Linear(image_size,", "nn.Linear(image_size[0] * image_size[1],"))  # fmt: skip
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/mine.yaml").write_text("_target_: mine.Net\nhow: fine\n")


def test_a_run_is_measured_by_real_updates() -> None:
    trainer = make_trainer(model=network(norm=False), evaluate_every="1epoch")
    before = [p.clone() for p in trainer.model.parameters()]
    cost = measure(trainer)
    assert trainer.progress.step == 4
    assert any((p != q).any() for p, q in zip(trainer.model.parameters(), before, strict=True))
    assert (cost.steps, cost.evaluations) == (12, 4)
    assert 0 < cost.step < 1
    weights = 41 * 4
    assert cost.checkpoint >= 2 * weights  # SGD with momentum has as many numbers again
    assert cost.seconds == pytest.approx(12 * cost.step + 4 * cost.evaluation)


def test_jobs_that_differ_in_numbers_only_are_of_one_kind() -> None:
    words = ["experiment=digits", "model=mlp"]
    jobs = check_jobs(
        [*words, *more]
        for more in (["optimizer=sgd", "optimizer.lr=0.1", "seed=0"], ["optimizer=sgd", "optimizer.lr=0.2", "seed=1"],
                     ["optimizer=adamw", "seed=0"], ["optimizer=adamw", "seed=0", "batch_size=64"])
    )  # fmt: skip
    sweep = Sweep.__new__(Sweep)
    sweep.jobs = {str(n): job for n, job in enumerate(jobs)}
    sweep.places = {str(n): job_place(job.cfg, job.words, job.choices) for n, job in enumerate(jobs)}
    found = kinds(sweep, list(sweep.jobs))
    assert [kind.keys for kind in found] == [["0", "1"], ["2"], ["3"]]
    assert found[0].label == "optimizer=sgd"
    assert "batch_size=64" in found[2].label


def test_a_sweep_is_refused_before_its_first_job_where_a_monitor_is_measured_by_nothing(tmp_path: Path) -> None:
    made = command("train", "-m", *QUICK, "early_stopping.monitor=val/accuracy,val/acc", cwd=tmp_path)
    assert made.code == 2
    assert "nothing measures 'val/acc'" in made.told
    assert not list(tmp_path.glob("runs/*/*/status.json"))


def test_what_a_users_code_raises_is_told_first_and_ends_its_own_job_only(tmp_path: Path) -> None:
    a_model_that(tmp_path)
    words = [*QUICK, "model=mine", "model.how=raise,exit,kill,fine"]
    made = command("check", "-m", *words, cwd=tmp_path)
    assert made.code == 2
    for text in ("broken on purpose", "exit code 3", "killed by SIGKILL"):
        assert text in made.told
    assert not list(tmp_path.glob("runs/*/*"))
    swept = command("train", "-m", *words, cwd=tmp_path)
    assert swept.code == 1
    assert swept.err.count("warning: will fail") == 3
    assert "1 of 4 jobs finished" in swept.out
    assert re.search(r"refused +model.how=kill\S+ +killed by SIGKILL: was the memory enough", swept.out)


def test_the_plan_says_what_is_answered_what_is_new_and_what_has_changed(tmp_path: Path) -> None:
    first = command("train", "-m", *QUICK, "seed=0,1", cwd=tmp_path)
    assert "2 jobs in runs/digits-sweep: 2 new" in first.out
    made = command("check", "-m", *QUICK, "seed=0,1,2", cwd=tmp_path)
    assert made.code == 0, made.err
    assert "3 jobs in runs/digits-sweep: 2 finished, 1 new" in made.out
    assert re.search(r"new +seed=2-", made.out)
    (tmp_path / "conf/optimizer").mkdir(parents=True)
    shipped = (ROOT / "conf/optimizer/adamw.yaml").read_text()
    (tmp_path / "conf/optimizer/adamw.yaml").write_text(re.sub("eps: .*", "eps: 0.001", shipped))
    changed = command("check", "-m", *QUICK, "seed=0,1", cwd=tmp_path)
    assert "2 earlier jobs of the same name differ" in changed.out
    assert "optimizer.eps was 1e-08 and is 0.001" in changed.out


def test_the_time_and_the_disk_of_a_sweep_are_added_up(tmp_path: Path) -> None:
    from trainer.measure import Cost

    cost = Cost(step=0.5, evaluation=2.0, steps=100, evaluations=5, memory=1 << 30, checkpoint=10 << 20)
    found = [Kind("model=a", ["1", "2"], cost), Kind("model=b", ["3"])]
    assert disk(found) == 2 * 3 * (10 << 20)
    lines = costs(found, 2, tmp_path / "not" / "there")
    assert "about 60.0 s for what is new, 2 at once" in lines[-1]
    assert "model=b" not in "\n".join(lines)
    full = costs([Kind("model=a", ["1"], Cost(**{**vars(cost), "checkpoint": 1 << 60}))], 1, tmp_path)
    assert "the disk will be full" in full[-1]


def test_where_jobs_would_go_on_in_smaller_micro_batches_the_trial_does_so_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom trainer.models import MLP\n"
        "class Net(MLP):\n"
        "    def forward(self, x):\n"
        "        if len(x) > 8: raise torch.OutOfMemoryError('CUDA out of memory.')\n"
        "        return super().forward(x)\n"
    )
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/mine.yaml").write_text("_target_: mine.Net\n")
    words = [*QUICK, "model=mine", "seed=0,1"]
    assert "out of memory" in command("check", "-m", *words, cwd=tmp_path).told
    made = command("check", "-m", *words, "auto_accumulate=true", cwd=tmp_path)
    assert made.code == 0, made.told
