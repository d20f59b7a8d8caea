"""What a run leaves alone: another process's run, a frozen module, the caller's generators, the first error."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader

import trainer
from tests.small import Recorder, Regression, StopAt, bits, make_trainer, network, newest, points, sgd
from trainer import _hydra
from trainer.agent import Announced
from trainer.data.base import Data
from trainer.errors import BusyError, ConfigError, DataError
from trainer.folder import RunFolder
from trainer.hooks import Hook
from trainer.loop import Trainer
from trainer.overrides import check_with_choices
from trainer.records import Outcome
from trainer.run import Place, _shipper, place, run
from trainer.schedules import cosine
from trainer.sweep import job_place
from trainer.tracking.mailbox import Mailbox, Spec

WORDS = ["experiment=digits", "epochs=1", "wandb.mode=disabled", "world.threads=1", "debug=quick"]


def test_a_folder_that_another_process_holds_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.hold():
        with pytest.raises(BusyError, match="is training here"):
            run(_hydra.compose(WORDS), Place(RunFolder(folder.path), "auto"))
        assert folder.path.is_dir()
        assert not folder.status.exists()


def test_a_folder_that_was_made_for_a_run_that_cannot_start_is_gone_again(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        run(_hydra.compose([*WORDS, "model=unet"]), Place(RunFolder(tmp_path / "runs/run"), "never"))
    assert not (tmp_path / "runs").exists()


def test_what_a_function_gives_instead_of_a_hook_is_told_and_its_run_leaves_no_folder(tmp_path: Path) -> None:
    cfg = _hydra.compose([*WORDS, "+hooks.mine={_target_: builtins.sorted, _args_: [[2, 1]]}"])
    with pytest.raises(ConfigError, match=r"hooks\.mine: builtins\.sorted gives a list, and a trainer\.Hook is needed"):
        run(cfg, Place(RunFolder(tmp_path / "runs/run"), "never"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("resume", ["never", "auto"])
def test_a_whole_number_is_the_name_of_a_folder_too(resume: str) -> None:
    words = [*WORDS, "name=0", "runs=7", f"resume={resume}"]
    cfg, choices = check_with_choices(words)
    assert place(cfg, choices).folder.path == Path("7/0").absolute()
    assert job_place(cfg, words, choices).sweep == Path("7/0")


@pytest.mark.parametrize("one", ["wandb:p/m:best", "."])
def test_a_run_that_only_a_config_names_is_refused_instead_of_another_one_being_trained(one: str) -> None:
    cfg, choices = check_with_choices([*WORDS, f"++resume='{one}'"])
    for go in (lambda: place(cfg, choices), lambda: job_place(cfg, WORDS, choices)):
        with pytest.raises(ConfigError, match=rf"resume: {one} is one run; .* trainer resume={one}"):
            go()
    assert not Path("runs").exists()


def test_a_run_of_a_sweep_of_wandb_that_somebody_goes_on_with_by_hand_stays_what_it_was(tmp_path: Path) -> None:
    folder, cfg = RunFolder(tmp_path / "run"), _hydra.compose([*WORDS, "wandb.project=other"])
    folder.create()
    agent = Announced("sweep", "id", "theirs", None, {"optimizer": "adamw", "seed": 0})
    for at in (Place(folder, "auto", None, {"optimizer": "adamw"}, agent), Place(folder, "auto")):
        shipper = _shipper(cfg, at)
        assert folder.read_status()["wandb_id"] == "id"
        Mailbox(folder).clear()
        shipper._box.write(shipper._spec)
        spec = Mailbox(folder).read(Spec)
        assert spec is not None
        assert (spec.id, spec.sweep, spec.project) == ("id", "sweep", "theirs")
        assert (spec.config["optimizer"], spec.config["choices"]) == ("adamw", {"optimizer": "adamw"})


def test_a_training_that_was_interrupted_goes_on_when_fit_is_called_again(tmp_path: Path) -> None:
    whole = make_trainer(folder=tmp_path / "whole")
    whole.fit()
    cut = make_trainer(folder=tmp_path / "cut", task=StopAt(5))
    assert cut.fit().state == "interrupted"
    assert cut.fit().state == "finished"
    assert newest(tmp_path / "cut")[0] == newest(tmp_path / "whole")[0]


def test_the_seconds_of_a_run_grow_only_while_it_trains() -> None:
    made = make_trainer()
    first = made.fit().seconds
    assert made.fit().seconds >= first > 0


class Counting(nn.MSELoss):
    """A criterion with a buffer that changes with each call and counts in the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(output, target) * (1 + 0.01 * self.calls)


class Counted(Regression):
    def __init__(self, stop: int = 0) -> None:
        self.criterion, self.stop = Counting(), StopAt(stop)

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        self.stop.loss(model, batch)
        return self.criterion(model(batch[0]), batch[1])


def test_a_criterion_with_a_state_goes_on_where_it_was(tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": network(dropout=0.0)}
    make_trainer(task=Counted(), folder=tmp_path / "whole", **options).fit()
    for stop in (5, 0):
        options = {"model": network(dropout=0.0)}
        make_trainer(task=Counted(stop), folder=tmp_path / "cut", resume="auto", **options).fit()
    assert newest(tmp_path / "cut")[0] == newest(tmp_path / "whole")[0]


def test_a_module_that_was_frozen_in_evaluation_mode_stays_so() -> None:
    model = network()
    model[1].eval()
    before = bits(model[1].running_mean)
    make_trainer(model=model).fit()
    assert bits(model[1].running_mean) == before
    assert (model.training, model[1].training) == (True, False)


class Broken(Hook):
    def on_log(self, trainer: Any, row: Any) -> None:
        raise ValueError("the first error")

    def on_exception(self, trainer: Any, error: BaseException) -> None:
        raise ValueError("a second error")


class Bad(Recorder):
    def finish(self, outcome: Outcome) -> None:
        super().finish(outcome)
        raise OSError("the disk is gone")


def test_a_hook_that_fails_ends_the_run_with_its_own_error_and_every_tracker_hears_of_it(tmp_path: Path) -> None:
    recorder = Recorder()
    with pytest.raises(ValueError, match="the first error"):
        make_trainer(hooks=[Broken()], trackers=[recorder]).fit()
    assert recorder.outcomes[0].state == "failed"
    assert recorder.got


def test_a_tracker_that_fails_at_the_end_keeps_no_other_one_from_ending() -> None:
    first, second = Bad(), Recorder()
    with pytest.raises(OSError, match="the disk is gone"):
        make_trainer(trackers=[first, second]).fit()
    assert second.outcomes[0].state == "finished"


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"data": (DataLoader(points()), None)}, DataError, "is a DataLoader; give its dataset"),
        ({"data": (points(), points(), points())}, ConfigError, "give trainer.Data or a pair"),
        ({"schedule": lambda optimizer: StepLR(optimizer, 3)}, ConfigError, "does not say when it moves"),
    ],
    ids=["loader", "three sets", "bare scheduler"],
)
def test_what_a_torch_user_may_try_is_told_in_words(changes: dict[str, Any], error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        make_trainer(**changes)


def test_a_schedule_may_be_made_of_the_optimizer_and_the_length_of_the_run() -> None:
    model = network()
    made = Trainer(model, Regression(), (points(), None), sgd(model.parameters()), schedule=cosine, trackers=[])
    made.fit()
    assert made.schedule.lrs == pytest.approx([0.0], abs=1e-12)


def test_other_batches_on_going_on_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_trainer(folder=tmp_path, task=StopAt(3)).fit()
    with caplog.at_level(logging.WARNING, logger="trainer"):
        make_trainer(folder=tmp_path, resume="auto", batch_size=2)
    assert "batch_size: was 3 before and is 2 now" in caplog.text


def test_a_compiled_model_is_saved_under_its_own_names(tmp_path: Path) -> None:
    model = torch.compile(network(), backend="eager")
    make_trainer(model=model, optimizer=sgd, folder=tmp_path, epochs=1).fit()
    weights, _ = newest(tmp_path)
    assert weights.keys() == network().state_dict().keys()


def test_loading_a_model_does_not_change_what_is_drawn_next(tmp_path: Path) -> None:
    run(_hydra.compose(WORDS), Place(RunFolder(tmp_path / "run"), "never"))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    trainer.load(tmp_path / "run")
    assert torch.equal(torch.rand(2), expected)


def test_facts_of_numpy_are_kept_as_plain_values() -> None:
    import numpy as np

    data = Data(points(), facts={"classes": tuple(np.unique([2, 1])), "weights": {"a": torch.ones(2)}})
    assert json.loads(json.dumps(data.plain_facts())) == {"classes": [1, 2], "weights": {"a": [1.0, 1.0]}}
