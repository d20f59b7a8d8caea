"""trainer-diff: whatever makes two runs differ is named, and runs that do not differ are said to be the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from tests.small import Regression, StopAt, make_trainer, network, points, sgd
from trainer.cli import diff
from trainer.folder import RunFolder
from trainer.tracking.journal import Journal
from trainer.tracking.status import Status


def run(path: Path, config: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A run folder of 12 steps, 3 epochs; with `config` in its config.yaml, as composed runs have one."""
    folder = RunFolder(path)
    path.mkdir(parents=True, exist_ok=True)
    if config is not None:
        folder.config.write_text(yaml.safe_dump({"seed": 0, "optimizer": {"lr": 0.05}, **config}))
    make_trainer(folder=folder, trackers=[Journal(folder), Status(folder)], **changes).fit()
    return path


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("runs") / "a", {})


@pytest.fixture
def compared(usual: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[Path], tuple[int, str]]]:
    """The exit code and the report of a run compared with the usual one; both ways round the code is the same."""

    def compare(other: Path, one: Path = usual) -> tuple[int, str]:
        capsys.readouterr()
        back = diff([str(other), str(one)])
        capsys.readouterr()
        code = diff([str(one), str(other)])
        assert code == back
        return code, capsys.readouterr().out

    yield compare


Compare = Callable[..., tuple[int, str]]


def test_a_run_that_was_interrupted_and_gone_on_with_is_the_same(compared: Compare, tmp_path: Path) -> None:
    run(tmp_path / "b", {}, task=StopAt(6))
    run(tmp_path / "b", {}, resume="must")
    code, text = compared(tmp_path / "b")
    assert code == 0
    assert text.splitlines()[2:] == ["", "the same to the last bit up to step 12, the end of both"]


def test_how_often_is_logged_does_not_make_another_training(compared: Compare, tmp_path: Path) -> None:
    code, text = compared(run(tmp_path / "b", {"log_every": "3steps"}, log_every="3steps"))
    assert code == 0
    assert "log_every  -  3steps" in text
    assert text.endswith("\nthe same to the last bit up to step 12, the end of both\n")


class Draws(Regression):
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        torch.rand(1)
        return super().loss(model, batch)


class Scaled(Regression):
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return super().loss(model, batch) * (1 + 2**-20)


def slower(parameters: Any) -> torch.optim.Optimizer:
    optimizer = sgd(parameters)
    optimizer.param_groups[0]["lr"] = 0.04
    return optimizer


OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "seed": ({"seed": 1}, {"seed": 1}, "equal at the start; from step 1 on they differ: the batches were of other "
             "samples, or in another order; likely cause: seed (0 | 1)"),
    "first weights": ({}, {"model": network(seed=3)}, "different before the first step: the first weights are not the "
                      "same; likely cause: weights that were not drawn from the seed"),
    "draws": ({}, {"task": Draws()}, "the same samples in the same order, but other random numbers were drawn in the "
              "update; likely cause: model, loss or a transform draws more of them, or fewer"),
    "rate": ({"optimizer": {"lr": 0.04}}, {"optimizer": slower}, "the same random numbers, but other weights; likely "
             "cause: optimizer.lr (0.05 | 0.04)"),
    "data": ({}, {"data": (points(seed=9), points(5, seed=2))}, "but other weights; likely cause: data digest ("),
    "unknown": ({}, {"task": Scaled()}, "nothing that is recorded differs; so a kernel that is not deterministic"),
    "validation": ({}, {"data": (points(), points(5, seed=3))}, "the training is the same, and what is measured"),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_the_likely_cause_is_named(what: str, compared: Compare, tmp_path: Path) -> None:
    config, changes, words = OTHERS[what]
    code, text = compared(run(tmp_path / "b", config, **changes))
    assert code == 1
    assert words in text.splitlines()[-1]


def test_what_differs_first_is_shown_with_by_how_much(compared: Compare, tmp_path: Path) -> None:
    _, text = compared(run(tmp_path / "b", {}, task=Scaled()))
    sections = dict(part.split("\n", 1) for part in text.split("\n\n")[1:-1])
    assert list(sections) == ["history, at step 1", "receipt, at step 4", "checkpoint of step 4", "the last row"]
    label, a, b, gap = sections["history, at step 1"].splitlines()[0].split()
    assert (label, float(gap)) == ("train/loss", pytest.approx(float(b) - float(a), rel=0.1))
    assert sections["receipt, at step 4"].split()[0] == "weights"


def test_a_tensor_altered_in_a_checkpoint_is_named(usual: Path, compared: Compare, tmp_path: Path) -> None:
    other = Path(shutil.copytree(usual, tmp_path / "b"))
    file = other / "checkpoints/step-000000012/weights.pt"
    weights = torch.load(file, weights_only=True)
    weights["1.running_var"][2] += 0.25
    torch.save(weights, file)
    code, text = compared(other)
    assert code == 1
    assert "1 of 9 tensors differ" in text
    assert "first 1.running_var  largest difference 0.25" in text
    assert "equal in history and receipt; the checkpoint of step 12 is not: tensor 1.running_var" in text
    assert "B has not the checksum that it was written with" in text


def test_a_run_that_is_not_as_far_is_equal_so_far(compared: Compare, tmp_path: Path) -> None:
    code, text = compared(run(tmp_path / "b", {}, task=StopAt(9)))
    assert code == 1
    words = "the same in history up to step 9, and in weights up to step 8, the end of B; A goes on to step 12"
    assert text.endswith(f"\n\n{words}\n")
    (tmp_path / "b/metrics.jsonl").write_text("")
    code, text = compared(tmp_path / "b")
    assert text.endswith("\n\nthe same to the last bit up to step 8, the end of B; A goes on to step 12\n")


def test_runs_without_receipt_and_config_are_compared_too(usual: Path, compared: Compare, tmp_path: Path) -> None:
    other = Path(shutil.copytree(usual, tmp_path / "b"))
    (other / "receipt.jsonl").unlink()
    (other / "config.yaml").unlink()
    code, text = compared(other)
    assert (code, text.splitlines()[-1]) == (0, "the same to the last bit up to step 12, the end of both")
    shutil.rmtree(other / "checkpoints")
    code, text = compared(other)
    words = "the same in history up to step 12 (there is nothing to tell the weights by), the end of both"
    assert (code, text.splitlines()[-1]) == (0, words)
    (other / "metrics.jsonl").write_text("")
    assert compared(other)[1].endswith("nothing can be compared: they have no step in common\n")


def test_code_packages_and_machine_are_shown(usual: Path, compared: Compare, tmp_path: Path) -> None:
    one, other = (Path(shutil.copytree(usual, tmp_path / name)) for name in "ab")
    for folder, digits in {one: "1111", other: "2222"}.items():
        status = json.loads((folder / "status.json").read_text())
        assert status["packages"]["torch"] == torch.__version__
        assert status["packages"]["numpy"] == np.__version__
        status["code_version"] = {"trainer": "1", "commit": digits, "files": {"net.py": digits, "same.py": "0"}}
        status["packages"]["torch"] += digits
        (folder / "status.json").write_text(json.dumps(status))
        path = folder / "checkpoints/step-000000012/manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "device": digits}))
    code, text = compared(other, one)
    assert code == 0
    for line in ("commit  1111  2222", "net.py  1111  2222", f"torch  {torch.__version__}1111", "device  1111  2222"):
        assert line in text
    assert "same.py" not in text


def test_pictures_that_differ_are_counted(usual: Path, compared: Compare, tmp_path: Path) -> None:
    one, other = (Path(shutil.copytree(usual, tmp_path / name)) for name in "ab")
    for folder, step, text in ((one, 4, "1"), (other, 4, "1"), (one, 8, "1"), (other, 8, "2")):
        (folder / f"media/step-00000000{step}").mkdir(parents=True)
        (folder / f"media/step-00000000{step}/x.png").write_text(text)
    code, text = compared(other, one)
    assert code == 1
    assert "1 of 2 differ  first at step 8" in text


def test_what_is_no_run_folder_is_refused(usual: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, words in {tmp_path / "none": "there is no such folder", tmp_path: "holds no run"}.items():
        assert diff([str(usual), str(path)]) == 2
        assert words in capsys.readouterr().err
    assert diff([str(usual), str(usual.parent)]) == 2
    assert "is no run folder; it holds 1 run, give one: " in capsys.readouterr().err
