"""Too little memory: half as many samples at once, and everything else as it was."""

from __future__ import annotations

import json
import os
import signal
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from tests.commands import command
from tests.small import Regression, StopAt, make_trainer, network, newest, recorder_of, weights_of
from trainer import _hydra, config
from trainer.accounts import plan
from trainer.data.curriculum import Curriculum
from trainer.data.loader import Loader
from trainer.errors import OutOfMemoryError
from trainer.folder import RunFolder
from trainer.overrides import apply
from trainer.run import Place, run

FLAGS = ("auto_accumulate", "strict_code")


class Tight(nn.Module):
    """A classifier of digits that more than `most` samples at once are too much for, from its `after`-th pass on.

    Where there is a file `kill`, it holds the number of the pass in which the process is killed, once.
    """

    alive: weakref.WeakSet[nn.Module] = weakref.WeakSet()

    def __init__(self, most: int = 6, after: int = 0, norm: bool = False) -> None:
        super().__init__()
        self.found = len(self.alive)
        self.alive.add(self)
        self.most, self.after = most, after
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.1), nn.Linear(8, 10))
        self.norm = nn.BatchNorm1d(10) if norm else nn.Identity()
        self.register_buffer("passes", torch.zeros((), dtype=torch.long))

    def forward(self, pictures: Tensor) -> Tensor:
        if self.training:
            self.passes += 1
            kill = Path("kill")
            if kill.exists() and int(self.passes) == int(kill.read_text()):
                kill.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            if len(pictures) > self.most and int(self.passes) >= self.after:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a ...")
        return self.norm(self.body(pictures))


def words_of(folder: Path, **arguments: Any) -> list[str]:
    """The words of a small run with that model, from a folder that holds its file."""
    (folder / "conf/model").mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{name}: {value}\n" for name, value in arguments.items())
    (folder / "conf/model/tight.yaml").write_text(f"_target_: tests.test_out_of_memory.Tight\n{lines}")
    words = ["experiment=digits", "model=tight", "world.threads=1", "wandb.mode=disabled", "debug.batches=9"]
    return [*words, "epochs=2", "batch_size=16", "accumulate=2", "log_every=1steps", "checkpoint_every=2steps"]


def train(folder: Path, *more: str, **arguments: Any) -> Any:
    cfg = _hydra.compose([*words_of(folder, **arguments), "auto_accumulate=true", *more])
    return run(cfg, Place(RunFolder(folder / "run"), "auto" if (folder / "run").exists() else "never"))


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "time"} for line in lines]


class Drawing(Dataset[Any]):
    """Each sample is its index and a random number."""

    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor([index, torch.rand(()).item()])

    def difficulty(self, index: int) -> float:
        return index * 7 % 23


@pytest.mark.parametrize("options", [
    {}, {"accumulate": 3}, {"accumulate": "full"}, {"limit": 4}, {"shuffle": False}, {"epochs": 3,
    "curriculum": Curriculum("20%", "100%")},
], ids=["1", "3", "full", "limit", "own order", "curriculum"])  # fmt: skip
@pytest.mark.parametrize("batch_size", [2, 3, 4, 5, 11, 22])
def test_an_update_is_made_of_the_same_samples_however_few_are_computed_at_once(batch_size: int, options: Any) -> None:
    whole = Loader(Drawing(), batch_size, **options)
    updates = [torch.cat(group) for group in whole.groups(1)]
    for most in range(1, batch_size):
        parts = Loader(Drawing(), batch_size, micro_batch=most, **options)
        groups = list(parts.groups(1))
        assert parts.steps_per_epoch == whole.steps_per_epoch == len(groups)
        assert all(torch.equal(torch.cat(group), update) for group, update in zip(groups, updates, strict=True))
        sizes = [len(batch) for group in groups for batch in group]
        assert max(sizes) <= max(most, 3 if most == 2 else 0)
        assert 1 not in sizes or most == 1 or 1 in [len(b) for b in whole.batches(1)]
        done = 0
        for n, group in enumerate(groups[:-1]):  # where the epoch stands after each update, counted in either way
            done += len(group)
            at = sum(len(g) for g in list(whole.groups(1))[: n + 1])
            assert (parts.place(at, whole.state_dict()), whole.place(done, parts.state_dict())) == (done, at)
            assert torch.equal(torch.cat(next(parts.groups(1, done))), updates[n + 1])


def test_the_gradients_are_those_of_the_whole_batch_and_training_is_that_of_smaller_batches_to_the_bit() -> None:
    made = {}
    for most in (4, 3, 2, 1):
        trainer = make_trainer(model=network(norm=False, dropout=0.0), batch_size=4, micro_batch=most)
        trainer.model.train()
        group = next(trainer.loader.groups(0))
        trainer.backward(group, [len(batch[0]) for batch in group])
        made[most] = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
    for most in (3, 2, 1):
        torch.testing.assert_close(made[most], made[4], rtol=1e-5, atol=1e-7)
    halved, smaller = make_trainer(batch_size=4, micro_batch=2), make_trainer(batch_size=2, accumulate=2)
    for trainer in (halved, smaller):
        trainer.fit()
    assert weights_of(halved.model) == weights_of(smaller.model)
    assert recorder_of(halved).got[-1]["train/micro_batch"] == 2
    assert "micro-batches of 2; batch norm's statistics are of a micro-batch" in plan(halved).lines["memory"]
    assert plan(halved).config["run"]["micro_batch"] == 2
    assert "memory" not in plan(smaller).lines


@pytest.mark.parametrize("before", [3, 2])
def test_a_run_that_stopped_inside_an_epoch_goes_on_with_batches_in_other_parts(before: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": network(norm=False, dropout=0.0), "batch_size": 3}
    whole = make_trainer(**options)
    whole.fit()
    options["model"] = network(norm=False, dropout=0.0)
    make_trainer(task=StopAt(3), folder=tmp_path, micro_batch=before, **options).fit()
    options["model"] = network(norm=False, dropout=0.0)
    after = make_trainer(folder=tmp_path, resume="must", micro_batch=5 - before, **options)
    assert after.progress.batch > 0
    after.fit()
    for one, other in zip(after.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("passes", [0, 7, 14], ids=["at once", "in the first epoch", "in the second"])
def test_a_run_goes_on_with_as_many_samples_at_once_as_there_is_memory_for(
    passes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = train(tmp_path, after=passes)
    folder = RunFolder(tmp_path / "run")
    status, told = folder.read_status(), capsys.readouterr().out
    assert (outcome.state, outcome.step, status["micro_batch"], status["attempt"]) == ("finished", 10, 4, 3)
    assert "out of memory with micro-batches of 8 (CUDA out of memory. Tried to allocate 2.00 GiB" in told
    assert "8 samples are computed at once from here on, 16 before; an update is made of the same samples" in told
    assert told.count(f"training goes on from the {'last checkpoint' if passes else 'start'}") == 2
    assert [row["step"] for row in rows(folder.path)] == list(range(1, 11))
    assert (config.read(folder.config).batch_size, config.read(folder.config).accumulate) == (16, 2)
    assert not folder.capsule.exists()
    capsys.readouterr()
    assert train(tmp_path, "epochs=3", after=passes).step == 15
    assert "out of memory" not in capsys.readouterr().out
    assert folder.read_status()["attempt"] == 4
    assert {model.found for model in Tight.alive} <= {0}  # type: ignore[attr-defined]


@pytest.mark.parametrize("kill", [5, 30])
def test_a_run_that_was_halved_and_killed_ends_as_one_that_was_not_killed(kill: int, tmp_path: Path) -> None:
    words = [*words_of(tmp_path, after=9), "auto_accumulate=true", "resume=auto"]
    assert command("train", *words, "name=whole", cwd=tmp_path).code == 0
    (tmp_path / "kill").write_text(str(kill))
    assert command("train", *words, "name=cut", cwd=tmp_path).code == -signal.SIGKILL
    assert command("train", *words, "name=cut", cwd=tmp_path).code == 0
    whole, cut = tmp_path / "runs/whole", tmp_path / "runs/cut"
    ends = [newest(folder) for folder in (cut, whole)]
    for _, state in ends:
        del state["journal"]  # the bytes of rows, which hold times
    assert ends[0] == ends[1]
    assert rows(cut) == rows(whole)
    assert {row.get("train/micro_batch") for row in rows(whole)} == {None, 4}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"most": 0}, "out of memory with micro-batches of 1 (CUDA"),
        ({"most": 1, "norm": "true"}, "out of memory with micro-batches of 2 (CUDA"),
    ],
    ids=["nothing to halve", "batch norm"],
)
def test_where_nothing_is_left_to_halve_the_run_fails_with_what_to_do(
    changes: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutOfMemoryError) as error:
        train(tmp_path, **changes)
    assert str(error.value).startswith(words)
    assert "batch_size=" not in str(error.value)
    assert "use a smaller model" in str(error.value)


def test_it_is_off_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutOfMemoryError, match="auto_accumulate=true does that by itself"):
        train(tmp_path, "auto_accumulate=false")
    assert RunFolder(tmp_path / "run").read_status()["attempt"] == 1


def test_a_flag_that_an_older_run_does_not_know_is_off_and_can_be_typed(tmp_path: Path) -> None:
    cfg = _hydra.compose(["experiment=digits"])
    digest = config.digest(cfg)
    cfg = OmegaConf.create({key: value for key, value in config.unresolved(cfg).items() if key not in FLAGS})
    assert config.problems(cfg) == []
    assert config.digest(cfg) == digest
    OmegaConf.save(cfg, tmp_path / "config.yaml")
    typed = apply(tmp_path / "config.yaml", ["auto_accumulate=true"])
    assert typed.auto_accumulate is True
    wrong = apply(tmp_path / "config.yaml", ["strict_code=7"])
    assert config.problems(wrong) == ["strict_code: 7 is neither true nor false"]


def test_a_model_of_tensors_can_run_out_of_memory_in_an_evaluation_too(tmp_path: Path) -> None:
    class Wide(Regression):
        def judge(self, model: nn.Module, batch: Any) -> Any:
            if len(batch[0]) > 2:
                raise RuntimeError("MPS backend out of memory (MPS allocated: 8 GiB)")
            return super().judge(model, batch)

    data = TensorDataset(torch.zeros(8, 3), torch.zeros(8, 1))
    with pytest.raises(OutOfMemoryError, match=r"out of memory \(MPS backend out of memory"):
        make_trainer(task=Wide(), data=(data, data), batch_size=4).fit()
    assert make_trainer(task=Wide(), data=(data, data), batch_size=4, micro_batch=2).fit().state == "finished"
