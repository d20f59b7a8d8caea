"""A step that failed is kept, and run again elsewhere; what is told names the module where it first went wrong."""

from __future__ import annotations

import math
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.small import Regression, make_trainer, points, weights_of
from trainer.capsule import read
from trainer.errors import CheckpointError, DataError, DivergedError
from trainer.loop import Trainer
from trainer.replay import Finding, replay


class Root(nn.Module):
    """Its value is fine and its gradient is not, where its input is zero."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(x.abs())


class InPlace(nn.Module):
    """Changes what it is given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.log_()


class Net(nn.Module):
    """Goes wrong in its sixth step in one way; its count is a buffer, and so is known in a capsule too."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way = way
        self.body = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.ReLU())
        self.root, self.log = Root(), InPlace()
        self.register_buffer("mask", torch.full((1, 1), -math.inf).expand(8, 8))  # as a causal mask: infinity is meant
        self.head = nn.Linear(8, 1)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.calls += 1
        now = self.training and self.calls >= 6
        if now and self.way == "raise":
            raise IndexError("12 is out of range")
        x = self.body(x)
        if now and self.way == "between":
            x = x / (x * 0)
        if now and self.way == "between backward":
            x = torch.sqrt(x - x.detach()) + x
        if now and self.way == "in place":
            x = self.log(-1 - x)
        if now and self.way == "weights":
            with torch.no_grad():
                self.head.weight[0, 0] = math.inf
        if now and self.way == "backward":
            x = self.root(x * 0) + x
        x = self.head(x)
        return x * 1e30 if now and self.way == "loss" else x


def trainer_of(way: str, **options: Any) -> Trainer:
    return make_trainer(model=Net(way), **{"optimizer": lambda p: torch.optim.Adam(p, lr=0.01), **options})


def fails(way: str, folder: Path, **options: Any) -> Path:
    with pytest.raises((DivergedError, IndexError)):
        trainer_of(way, folder=folder, **options).fit()
    (capsule,) = (folder / "capsule").iterdir()
    return capsule


def again(way: str, capsule: Path, **options: Any) -> Finding:
    return replay(trainer_of(way, **options), read(capsule))


@pytest.mark.parametrize(
    ("way", "where", "first", "error"),
    [
        ("between", "model (Net), between its modules", "before model.head (Linear)", "train/loss became nan"),
        ("backward", "model.root (Root)", "backward of Sqrt", "train/grad_norm became nan"),
        ("between backward", "model (Net), between its modules", "backward of Sqrt", "train/grad_norm became"),
        ("in place", "model.log (InPlace)", "forward", "train/loss became nan"),
        ("loss", "Regression.loss", "forward", "train/loss became inf"),
        ("weights", "the weights of model.head (Linear)", "before the step", "train/loss became"),
        ("raise", "model (Net)", "raised", "IndexError: 12 is out of range"),
    ],
)
def test_the_module_is_named_where_it_first_went_wrong(
    way: str, where: str, first: str, error: str, tmp_path: Path
) -> None:
    capsule = fails(way, tmp_path)
    assert capsule.name == "step-000000006.pt"
    found = again(way, capsule)
    assert error in found.error
    assert (found.where, first in found.facts["first"]) == (where, True)


def test_the_line_of_the_users_code_is_named(tmp_path: Path) -> None:
    assert (
        again("backward", fails("backward", tmp_path)).facts["line"].endswith("in forward: return torch.sqrt(x.abs())")
    )
    line = again("raise", fails("raise", tmp_path / "second")).facts["line"]
    assert line.startswith(__file__)
    assert line.endswith('raise IndexError("12 is out of range")')


def test_a_batch_that_is_not_finite_is_named_with_the_sample(tmp_path: Path) -> None:
    data = points()
    data.tensors[0][4, 1] = math.nan
    capsule = fails("none", tmp_path, data=(data, points(5, 2)))
    found = again("none", capsule)
    assert found.where == "the batch"
    assert "1 of 9 values not finite (in sample" in found.facts["batch"]


def test_a_step_is_run_again_from_the_very_same_state_and_draws(tmp_path: Path) -> None:
    """The state before the step, batch norm's statistics too: else another step would be looked at."""
    capsule = read(fails("raise", tmp_path, accumulate=2))
    assert capsule["step"] == 3 and len(capsule["group"]) == 2
    cured, whole = trainer_of("none", accumulate=2), trainer_of("none", accumulate=2, epochs=2)
    found = replay(cured, capsule)
    assert (found.error, found.where) == ("", "")
    groups = [*whole.loader.groups(0), *whole.loader.groups(1)]
    for group in groups[:3]:
        whole.train_group(group)
    assert weights_of(cured.model) == weights_of(whole.model)


def test_looking_leaves_no_hooks_and_no_changed_method_behind(tmp_path: Path) -> None:
    trainer = trainer_of("backward")
    replay(trainer, read(fails("backward", tmp_path)))
    assert "loss" not in vars(trainer.task)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in trainer.model.modules())


def test_weights_that_the_optimizer_spoils_are_told(tmp_path: Path) -> None:
    capsule = fails("between", tmp_path)
    spoilt = trainer_of("none")
    spoilt.update.optimizer.step = lambda: spoilt.model.head.weight.data.fill_(math.nan)  # type: ignore[method-assign]
    found = replay(spoilt, read(capsule))
    assert found.error == "the step ended with weights that are not finite"
    assert "made head.weight" in found.facts["first"]


def test_only_the_newest_capsule_is_kept(tmp_path: Path) -> None:
    fails("between", tmp_path, checkpoint_every="2steps")
    trainer = trainer_of("raise", folder=tmp_path, resume="must")
    trainer.model.calls.fill_(2)
    with pytest.raises(IndexError):
        trainer.fit()
    assert [path.name for path in (tmp_path / "capsule").iterdir()] == ["step-000000008.pt"]


Pair = namedtuple("Pair", "x y")


def test_a_batch_that_cannot_be_kept_does_not_hide_the_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = trainer_of("raise", folder=tmp_path)
    own = trainer.loader.groups
    trainer.loader.groups = lambda *place: ([Pair(*batch) for batch in group] for group in own(*place))  # type: ignore[method-assign]
    with pytest.raises(IndexError):
        trainer.fit()
    assert "what step 6 was given could not be kept (batch[0]: a" in caplog.text
    assert not (tmp_path / "capsule").exists()


def test_mistakes_of_the_user_and_faults_outside_a_step_make_no_capsule(tmp_path: Path) -> None:
    class Wrong(Regression):
        def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
            if model.training:
                raise DataError("label 12 is out of range")
            return super().loss(model, batch)

    with pytest.raises(DataError):
        make_trainer(task=Wrong(), folder=tmp_path).fit()
    assert not (tmp_path / "capsule").exists()


def test_a_file_that_is_no_capsule_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"x\.pt: is no capsule of a step"):
        read(tmp_path / "x.pt")
