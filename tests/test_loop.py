"""The loop: the same bits as a loop written by hand, and the same bits however often it was interrupted."""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from tests.small import (
    Recorder,
    Regression,
    Scripted,
    StopAt,
    bits,
    make_trainer,
    network,
    newest,
    points,
    recorder_of,
    sgd,
    timeless,
    weights_of,
)
from trainer import schedules
from trainer.checkpoint import Checkpoints
from trainer.data.base import Data
from trainer.durations import count
from trainer.ema import Ema
from trainer.errors import CheckpointError, ConfigError, DataError, DivergedError
from trainer.gradients import Clip
from trainer.hooks import Hook
from trainer.loop import Trainer
from trainer.monitor import Patience
from trainer.records import Evaluation
from trainer.schedules import Schedule
from trainer.state import ORDER, STEP, mix
from trainer.world import World

# ---------------------------------------------------------------------------------------------- against plain PyTorch


def by_hand(epochs: int, seed: int) -> tuple[nn.Module, list[float], list[float]]:
    """What the trainer does, as anybody would write it: weights, losses and gradient norms."""
    model, losses, norms = network(), [], []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    inputs, target = points().tensors
    step = 0
    for epoch in range(epochs):
        order = torch.randperm(11, generator=torch.Generator().manual_seed(mix(seed, ORDER, epoch)))
        for indices in order.split(3):
            torch.manual_seed(mix(seed, STEP, step, 0))
            loss = nn.functional.mse_loss(model(inputs[indices]), target[indices])
            optimizer.zero_grad()
            loss.backward()
            norms.append(nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
            optimizer.step()
            losses.append(loss.item())
            step += 1
    return model, losses, norms


def test_a_training_is_a_plain_loop_to_the_last_bit() -> None:
    model, losses, norms = by_hand(epochs=3, seed=4)
    trainer = make_trainer(clip=Clip(norm=1.0), seed=4)
    outcome = trainer.fit()
    assert weights_of(trainer.model) == weights_of(model)
    rows = recorder_of(trainer).got
    assert [row["train/loss"] for row in rows] == losses
    assert [row["train/grad_norm"] for row in rows] == norms
    with torch.no_grad():
        inputs, target = points(5, seed=2).tensors
        squares = [
            (model.eval()(x) - y).square().mean() * len(x)
            for x, y in zip(inputs.split(3), target.split(3), strict=True)
        ]
    assert outcome.last["val/loss"] == pytest.approx(sum(squares).item() / 5)


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not() -> None:
    def trained(seed: int) -> tuple[Any, Any]:
        trainer = make_trainer(seed=seed)
        trainer.fit()
        return weights_of(trainer.model), timeless(recorder_of(trainer).got)

    assert trained(1) == trained(1)
    assert trained(1)[0] != trained(2)[0]
    assert trained(1)[1] != trained(2)[1]


class Noisy(Dataset[Any]):
    """The points, with noise as an augmentation makes it."""

    def __init__(self, count: int = 11, seed: int = 1) -> None:
        self.points = points(count, seed)

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> Any:
        inputs, target = self.points[index]
        return inputs + 0.1 * torch.randn(3), target


def test_the_number_of_workers_changes_nothing() -> None:
    found = []
    for workers in (0, 2):
        trainer = make_trainer(data=Data(Noisy(), Noisy(5, 2), num_workers=workers))
        trainer.fit()
        found.append((weights_of(trainer.model), timeless(recorder_of(trainer).got)))
    assert found[0] == found[1]


@pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
def test_the_workers_are_gone_once_the_training_is_over(fails: bool) -> None:
    """A sweep makes many trainers in one process; left to the collector of cycles, each worker takes 5 s to end."""
    before = set(multiprocessing.active_children())
    task = Explodes(5) if fails else Regression()
    trainer = make_trainer(task=task, data=Data(Noisy(), Noisy(5, 2), num_workers=1), epochs=2)
    with pytest.raises(DivergedError) if fails else contextlib.nullcontext():
        trainer.fit()
    assert set(multiprocessing.active_children()) <= before


class Doubled(nn.Sequential):
    """A network without batch norm in double precision, where rounding is 1e-16."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), *network(norm=False, dropout=0.0).double())


def doubled(count: int) -> TensorDataset:
    return TensorDataset(*(tensor.double() for tensor in points(count).tensors))


@pytest.mark.parametrize("count", [11, 10, 2])
def test_full_accumulation_is_gradient_descent_on_the_mean_over_all_samples(count: int) -> None:
    data, plain_model = (doubled(count), doubled(5)), Doubled()
    optimizer = sgd(plain_model.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.mse_loss(plain_model(data[0].tensors[0]), data[0].tensors[1]).backward()
        optimizer.step()
    expected = list(plain_model.parameters())
    for options in ({"accumulate": "full"}, {"batch_size": count}):
        trainer = make_trainer(model=Doubled(), data=data, **options)
        assert trainer.fit().step == 3
        torch.testing.assert_close(list(trainer.model.parameters()), expected, rtol=1e-12, atol=1e-14)
    trainer = make_trainer(model=Doubled(), data=data, accumulate=1)  # and the comparison can tell
    trainer.fit()
    assert count == 2 or not torch.allclose(next(trainer.model.parameters()), expected[0], rtol=1e-3)


@pytest.mark.parametrize("kind", ["dataset", "stream"])
def test_a_run_of_full_batches_that_is_stopped_in_any_of_them_ends_with_the_same_bits(
    kind: str, tmp_path: Path
) -> None:
    data: Any = (Noisy() if kind == "dataset" else Streamed(), points(5, seed=2))
    options: dict[str, Any] = {"data": data, "accumulate": "full", "epochs": 4, "resume": "auto"}
    whole = make_trainer(folder=tmp_path / "whole", **options)
    whole.fit()
    for call in range(1, 13):  # every micro-batch of the first three epochs
        folder = tmp_path / f"cut-{call}"
        assert make_trainer(folder=folder, task=StopAt(call), **options).fit().step == -(-call // 4)
        make_trainer(folder=folder, **options).fit()
        assert newest(folder) == newest(tmp_path / "whole")


class Streamed(IterableDataset[Any]):
    """The points in turn."""

    def __len__(self) -> int:
        return 11

    def __iter__(self) -> Iterator[Any]:
        yield from points(11)


# ------------------------------------------------------------------------------------------------ stop and go on

Make = Callable[[Optimizer, int], Schedule]
SCHEDULES: dict[str, Make] = {
    "constant": lambda o, steps: schedules.constant(o),
    "cosine": lambda o, steps: schedules.cosine(o, steps, min_lr=1e-4),
    "linear": schedules.linear,
    "polynomial": schedules.polynomial,
    "exponential": lambda o, steps: schedules.exponential(o, factor=0.5),
    "step": lambda o, steps: schedules.step(o, 4, steps, every="30%", factor=0.5),
    "onecycle": schedules.onecycle,
    "cyclic": lambda o, steps: schedules.cyclic(o, 4, steps, half_cycle="2steps", shape="triangular2"),
    "plateau": lambda o, steps: schedules.plateau(o, factor=0.5, patience=0),
}


class Attempts:
    """A run in a folder, of as many attempts as it takes; the rows of all of them in turn."""

    def __init__(self, folder: Path, schedule: str = "cosine", warm: int = 2, ema: float = 0.0, **options: Any) -> None:
        self.folder, self.schedule, self.warm, self.decay, self.options = folder, schedule, warm, ema, options
        self.rows: list[Any] = []
        self.exit_codes: list[int] = []

    def build(self, task: Regression | None = None) -> Trainer:
        total = 3 * -(-4 // self.options.get("accumulate", 1))
        return make_trainer(
            task=task or Regression(),
            schedule=lambda o: SCHEDULES[self.schedule](o, total - self.warm).warm_up(self.warm, 0.1),
            ema=Ema(self.decay),
            folder=self.folder,
            resume="auto",
            **{"patience": Patience("val/loss", patience=50), **self.options},
        )

    def attempt(self, stop: int | None = None, number: int = signal.SIGTERM) -> Trainer:
        trainer = self.build(StopAt(stop, number) if stop else None)
        outcome = trainer.fit()
        self.rows += recorder_of(trainer).got
        self.exit_codes.append(outcome.exit_code)
        return trainer

    def result(self) -> Any:
        """All that must be equal, bit for bit."""
        weights, state = newest(self.folder)
        return weights, state, timeless(self.rows), (self.folder / "checkpoints" / "best").read_text()

    def whole(self) -> Any:
        self.attempt()
        return self.result()


@pytest.mark.parametrize("ema", [0.0, 0.9], ids=["raw", "ema"])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_that_is_stopped_after_each_single_update_ends_with_the_same_bits(
    schedule: str, accumulate: int, ema: float, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"schedule": schedule, "accumulate": accumulate, "ema": ema}
    expected = Attempts(tmp_path / "whole", **options).whole()
    cut = Attempts(tmp_path / "cut", **options)
    updates = 3 * -(-4 // accumulate)
    for done in range(1, updates):
        assert cut.attempt(stop=1).progress.step == done
    cut.attempt()
    assert cut.exit_codes == [143] * (updates - 1) + [0]
    for part, (a, b) in zip(
        ["weights", "state", "rows", "best"], zip(cut.result(), expected, strict=True), strict=True
    ):
        assert a == b, part


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_a_run_that_is_stopped_once_anywhere_ends_with_the_same_bits(
    schedule: str, accumulate: int, tmp_path: Path
) -> None:
    """Every micro-batch of the run, so in the middle of a group, in the middle of an epoch and at its end."""
    options: dict[str, Any] = {
        "schedule": schedule, "accumulate": accumulate, "ema": 0.9, "log_every": "3steps", "evaluate_every": "5steps",
        "checkpoint_every": "2epochs",
    }  # fmt: skip
    expected = Attempts(tmp_path / "whole", **options).whole()
    for call in range(1, 12):
        cut = Attempts(tmp_path / f"cut-{call}", **options)
        cut.attempt(stop=call)
        cut.attempt()
        assert cut.result() == expected, f"stopped in micro-batch {call}"


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "RMSprop", "Adagrad"])
def test_every_optimizer_goes_on_with_the_same_bits(optimizer: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"optimizer": lambda parameters: getattr(torch.optim, optimizer)(parameters, lr=0.01)}
    expected = Attempts(tmp_path / "whole", **options).whole()
    cut = Attempts(tmp_path / "cut", **options)
    for stop in (3, 2, 1, None):
        cut.attempt(stop)
    assert cut.result() == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_random_augmentation_goes_on_with_the_same_bits(workers: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": Data(Noisy(), Noisy(5, 2), num_workers=workers)}
    expected = Attempts(tmp_path / "whole", **options).whole()
    cut = Attempts(tmp_path / "cut", **options)
    for stop in (6, 1, None):
        cut.attempt(stop)
    assert cut.result() == expected


def test_a_task_that_draws_in_evaluation_measures_the_same_after_a_stop(tmp_path: Path) -> None:
    """Test-time noise, MC dropout: what an evaluation finds must not depend on whether it is the first one."""

    class Draws(StopAt):
        def judge(self, model: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
            found = super().judge(model, batch)
            return {"loss": found["loss"] + torch.rand(1).item() * torch.tensor([1.0, 0.0])}

    rows: dict[str, list[Any]] = {}
    for name, stops in (("whole", [0]), ("cut", [6, 0])):
        rows[name] = []
        for stop in stops:
            options: dict[str, Any] = {"folder": tmp_path / name, "resume": "auto"}
            trainer = make_trainer(task=Draws(stop), data=Data(Noisy(), Noisy(5, 2), num_workers=1), **options)
            trainer.fit()
            rows[name] += timeless(recorder_of(trainer).got)
    assert rows["cut"] == rows["whole"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP], ids=lambda n: n.name)
def test_each_signal_ends_the_run_saved_with_its_own_exit_code(number: signal.Signals, tmp_path: Path) -> None:
    run = Attempts(tmp_path)
    before = signal.getsignal(number)
    trainer = run.attempt(3, number)
    assert run.exit_codes == [128 + number]
    assert (trainer.state, trainer.reason) == ("interrupted", f"interrupted by {number.name}")
    assert newest(tmp_path)[1]["progress"] == {"epoch": 0, "batch": 3, "step": 3, "samples": 9}
    assert signal.getsignal(number) == before


class Terminated(Noisy):
    """As the first sample of the second epoch is asked for, the whole job is told to end, workers included: Slurm."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __getitem__(self, index: int) -> Any:
        self.calls += torch.utils.data.get_worker_info() is not None
        if self.calls == 12:
            os.kill(os.getppid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_a_signal_that_ends_the_loaders_workers_too_is_an_interruption_and_no_failure(tmp_path: Path) -> None:
    """And what was due at that step is not done a second time: patience would count it twice."""
    trainer = make_trainer(
        data=Data(Terminated(), points(5), num_workers=1),
        folder=tmp_path,
        evaluate_every="2steps",
        patience=Patience(patience=99),
    )
    outcome = trainer.fit()
    assert (outcome.state, outcome.exit_code, outcome.step) == ("interrupted", 143, 5)  # new workers load that batch
    assert newest(tmp_path)[1]["progress"]["step"] == 5
    assert [row["step"] for row in recorder_of(trainer).got] == [1, 2, 3, 4, 5]
    assert [row["step"] for row, _ in recorder_of(trainer).evaluations] == [2, 4]


class TerminatedInEvaluation(Noisy):
    """As the first sample of the second evaluation is asked for, the whole job is told to end, workers included."""

    def __init__(self) -> None:
        super().__init__(5, 2)
        self.calls = 0

    def __getitem__(self, index: int) -> Any:
        self.calls += torch.utils.data.get_worker_info() is not None
        if self.calls == 6:
            os.kill(os.getppid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_an_evaluation_whose_workers_are_ended_by_the_signal_is_never_made_of_a_part_of_the_samples(
    tmp_path: Path,
) -> None:
    """Best, patience and a plateau schedule would go on with a value that is wrong."""
    expected = Attempts(tmp_path / "whole", data=Data(Noisy(), Noisy(5, 2)), schedule="plateau").whole()
    cut = Attempts(tmp_path / "cut", data=Data(Noisy(), TerminatedInEvaluation(), num_workers=1), schedule="plateau")
    cut.attempt()
    assert cut.exit_codes == [143]
    cut.options["data"] = Data(Noisy(), Noisy(5, 2))
    cut.attempt()
    assert cut.result() == expected


def test_a_time_between_two_evaluations_is_not_over_at_once_after_a_resume(tmp_path: Path) -> None:
    """The clock goes on where it was; so must the time of the last evaluation."""
    steps = []
    for stop in (6, None):
        options: dict[str, Any] = {"folder": tmp_path, "resume": "auto", "evaluate_every": "1h"}
        trainer = make_trainer(task=StopAt(stop or 0), **options)
        if stop:
            trainer.clock.load_state_dict({"seconds": 7200.0})
        trainer.fit()
        steps += [row["step"] for row, _ in recorder_of(trainer).evaluations]
    assert steps == [1, 12]


def test_a_finished_run_has_nothing_to_do_and_more_epochs_extend_it(tmp_path: Path) -> None:
    first = make_trainer(folder=tmp_path, epochs=2)
    first.fit()
    again = make_trainer(folder=tmp_path, epochs=2, resume="must")
    outcome = again.fit()
    assert (outcome.state, outcome.step, outcome.reason) == ("finished", 8, "2 epochs done")
    assert recorder_of(again).got == []
    assert weights_of(again.model) == weights_of(first.model)
    longer = make_trainer(folder=tmp_path, epochs=3, resume="must")
    longer.fit()
    whole = make_trainer()
    whole.fit()
    assert weights_of(longer.model) == weights_of(whole.model)


def test_resume_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint to go on from; use resume=auto or never"):
        make_trainer(folder=tmp_path / "a", resume="must")
    make_trainer(folder=tmp_path / "a", resume="auto", epochs=1).fit()
    with pytest.raises(ConfigError, match="holds a run; go on with"):
        make_trainer(folder=tmp_path / "a")
    with pytest.raises(CheckpointError, match="training samples were 11 .* and are 12 now"):
        make_trainer(folder=tmp_path / "a", resume="auto", data=(points(12), points(5)))
    with pytest.raises(CheckpointError, match="the checkpoint is of SGD, and this run uses Adam"):
        make_trainer(folder=tmp_path / "a", resume="auto", optimizer=torch.optim.Adam)
    with pytest.raises(CheckpointError, match="model: "):
        make_trainer(folder=tmp_path / "a", resume="auto", model=network(norm=False))


# ------------------------------------------------------------------------------------ best, patience and evaluations


def scripted(values: list[float], **changes: Any) -> Trainer:
    task = Scripted(values)
    trainer = make_trainer(task=task, **{"epochs": len(values), **changes})
    task.trainer = trainer
    return trainer


@pytest.mark.parametrize(
    ("values", "patience", "stop", "best"),
    [
        ([5, 4, 6, 6, 6, 6, 6], 2, 4, 2),
        ([5, 4, 6, 6, 3, 6, 6, 6, 6], 3, 8, 5),
        ([5, 6, 1, 1], 1, 2, 1),
        ([5, 4, 3], 1, 3, 3),
        ([math.nan, 4, math.nan, math.nan, 1], 2, 4, 2),
    ],
)
def test_a_run_stops_exactly_when_patience_is_exhausted(
    values: list[float], patience: int, stop: int, best: int
) -> None:
    trainer = scripted(values, patience=Patience("val/loss", "min", patience))
    outcome = trainer.fit()
    assert (outcome.state, outcome.exit_code) == ("finished", 0)
    assert (outcome.epoch, outcome.step) == (stop, 4 * stop)
    assert outcome.best["epoch"] == best
    early = stop < len(values)
    stale = f"no better val/loss for {count(patience, 'evaluation')}"
    assert outcome.reason == (stale if early else f"{stop} epochs done")
    assert [improved for _, improved in recorder_of(trainer).evaluations].count(True) >= 1


def test_the_schedule_moves_with_each_step_each_epoch_and_each_value() -> None:
    rates = {}
    for name in ("linear", "exponential", "plateau"):
        trainer = scripted([1.0, 2.0, 3.0], schedule=lambda o, name=name: SCHEDULES[name](o, 12))
        trainer.fit()
        rates[name] = [row["lr"] for row in recorder_of(trainer).got]
    assert rates["linear"] == pytest.approx([0.05 * (1 - n / 12) for n in range(12)])
    assert rates["exponential"] == pytest.approx([0.05] * 4 + [0.025] * 4 + [0.0125] * 4)
    assert rates["plateau"] == pytest.approx([0.05] * 8 + [0.025] * 4), "worse for the first time after epoch 2"


@pytest.mark.parametrize("stop", [2, 4, 5, 9, 12, 14])
def test_patience_survives_a_stop(stop: int, tmp_path: Path) -> None:
    values = [5.0, 4.0, 6.0, 6.0, 6.0, 6.0]
    options: dict[str, Any] = {"folder": tmp_path, "resume": "auto", "epochs": 6}

    class Both(Scripted, StopAt):
        def __init__(self, values: list[float], call: int) -> None:
            StopAt.__init__(self, call)
            Scripted.__init__(self, values)

    outcomes = []
    for call in (stop, 0):
        task = Both(values, call)
        trainer = make_trainer(task=task, patience=Patience("val/loss", "min", 2), **options)
        task.trainer = trainer
        outcomes.append(trainer.fit())
    assert [outcome.state for outcome in outcomes] == ["interrupted", "finished"]
    assert outcomes[1].epoch == 4
    assert outcomes[1].best["val/loss"] == 4.0
    assert outcomes[1].reason == "no better val/loss for 2 evaluations"


def test_the_best_row_is_the_whole_row_of_one_evaluation_and_best_holds_its_weights(tmp_path: Path) -> None:
    trainer = scripted([3.0, 1.0, 2.0], folder=tmp_path)
    outcome = trainer.fit()
    rows = {row["step"]: row for row in recorder_of(trainer).got}
    assert outcome.best == rows[8]
    assert (outcome.best["epoch"], outcome.best["val/loss"]) == (2, 1.0)
    assert outcome.last == rows[12]
    found = trainer.checkpoints.best()
    assert found.manifest["step"] == 8
    half = make_trainer(epochs=2)
    half.fit()
    assert {name: bits(value) for name, value in found.weights.items()} == weights_of(half.model)
    json.dumps([outcome.best, outcome.last], allow_nan=False)


def test_with_averaged_weights_the_checkpoint_holds_those_that_were_measured(tmp_path: Path) -> None:
    trainer = make_trainer(folder=tmp_path, ema=Ema(0.9))
    trainer.fit()
    weights, state = newest(tmp_path)
    assert weights == {name: bits(value) for name, value in trainer.ema.average.items()}
    assert state["model"] == weights_of(trainer.model) != weights


@pytest.mark.parametrize(
    ("evaluate_every", "steps"),
    [
        ("1epoch", [4, 8, 12]), ("2epochs", [8, 12]), ("5steps", [5, 10, 12]), ("1step", list(range(1, 13))),
        ("50%", [6, 12]), ("never", [12]), ("0.5epochs", [2, 4, 6, 8, 10, 12]), ("99epochs", [12]),
    ],
)  # fmt: skip
def test_evaluations_come_when_they_are_due_and_always_at_the_end(evaluate_every: str, steps: list[int]) -> None:
    trainer = make_trainer(evaluate_every=evaluate_every)
    trainer.fit()
    assert [row["step"] for row, _ in recorder_of(trainer).evaluations] == steps
    assert [row["step"] for row in recorder_of(trainer).got if "val/loss" in row] == steps


@pytest.mark.parametrize(
    ("log_every", "evaluate_every", "steps"),
    [
        ("5steps", "1epoch", [4, 5, 8, 10, 12]), ("never", "1epoch", [4, 8, 12]), ("5steps", "never", [5, 10, 12]),
        ("1epoch", "never", [4, 8, 12]), ("2epochs", "never", [8, 12]),
    ],
)  # fmt: skip
def test_rows_come_when_they_are_due_and_at_each_evaluation(
    log_every: str, evaluate_every: str, steps: list[int]
) -> None:
    trainer = make_trainer(log_every=log_every, evaluate_every=evaluate_every)
    trainer.fit()
    rows = recorder_of(trainer).got
    assert [row["step"] for row in rows] == steps
    every = make_trainer()
    every.fit()
    losses = [row["train/loss"] for row in recorder_of(every).got]
    since = 0
    for row in rows:  # batches of 3, 3, 3 and 2 samples
        weights = [2 if step % 4 == 3 else 3 for step in range(since, row["step"])]
        expected = sum(w * loss for w, loss in zip(weights, losses[since : row["step"]], strict=True)) / sum(weights)
        assert row["train/loss"] == pytest.approx(expected, rel=1e-9)
        since = row["step"]


@pytest.mark.parametrize(
    ("checkpoint_every", "steps"),
    [("1epoch", [4, 8, 12]), ("2epochs", [4, 8, 12]), ("5steps", [4, 5, 10, 12]), ("never", [4, 12])],
)
def test_checkpoints_come_when_they_are_due_at_a_new_best_and_at_the_end(
    checkpoint_every: str, steps: list[int], tmp_path: Path
) -> None:
    trainer = scripted([1.0, 2.0, 3.0], folder=tmp_path, checkpoints=Checkpoints(9), checkpoint_every=checkpoint_every)
    trainer.fit()
    assert [int(name[5:]) for name in trainer.checkpoints.names()] == steps
    assert trainer.checkpoints.best_name() == "step-000000004"


def test_the_boundary_is_in_order_evaluate_best_patience_hooks_trackers_and_the_save_comes_last(tmp_path: Path) -> None:
    seen: list[str] = []

    class Watch(Hook):
        def on_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
            assert trainer.best.row["step"] == trainer.progress.step
            assert trainer.patience.reference == evaluation.metrics["val/loss"]
            assert trainer.progress.batch == 0
            assert recorder_of(trainer).calls == ["start"], "the row can be added to until hooks were told"
            seen.append("evaluation")

        def on_save(self, trainer: Trainer, folder: Path) -> None:
            assert recorder_of(trainer).calls[-1] == "saved"
            seen.append("save")

    recorder = Recorder()
    make_trainer(hooks={"watch": Watch()}, folder=tmp_path, epochs=1, recorder=recorder).fit()
    assert seen == ["evaluation", "save"]
    assert recorder.calls == ["start", "rows", "evaluated", "saved", "finish"]


def test_no_validation_set_means_no_evaluation_and_no_best(tmp_path: Path) -> None:
    trainer = make_trainer(data=(points(), None), folder=tmp_path)
    outcome = trainer.fit()
    assert (outcome.state, outcome.best) == ("finished", {})
    assert trainer.checkpoints.best_name() is None
    assert newest(tmp_path)[0] == weights_of(trainer.model)


def test_early_stopping_and_a_plateau_schedule_without_a_validation_set_are_refused() -> None:
    """The one would never stop, and the other never move."""
    with pytest.raises(ConfigError, match="early_stopping"):
        make_trainer(data=(points(), None), patience=Patience(patience=2)).fit()
    with pytest.raises(ConfigError, match="plateau"):
        make_trainer(data=(points(), None), schedule=schedules.plateau).fit()

    def chained(optimizer: Optimizer, steps: int) -> Schedule:
        return schedules.chained(optimizer, 4, steps, parts=[{"schedule": schedules.plateau}])

    with pytest.raises(ConfigError, match="plateau"):
        make_trainer(data=(points(), None), schedule=lambda optimizer: chained(optimizer, 12)).fit()


# ------------------------------------------------------------------------------------------------- divergence


class Explodes(Regression):
    """The loss of the n-th forward pass in training is not finite."""

    def __init__(self, call: int) -> None:
        self.call, self.calls = call, 0

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        self.calls += model.training
        return super().loss(model, batch) * (math.nan if model.training and self.calls == self.call else 1.0)


def test_a_divergence_names_the_step_and_the_last_good_checkpoint_and_the_weights_are_those_before(
    tmp_path: Path,
) -> None:
    recorder = Recorder()
    trainer = make_trainer(task=Explodes(7), folder=tmp_path, recorder=recorder, checkpoint_every="5steps")
    with pytest.raises(DivergedError, match=r"train/loss became nan .*step 7 \(epoch 2\).*step-000000005") as told:
        trainer.fit()
    assert told.value.exit_code == 4
    outcome = recorder.outcomes[-1]
    assert (outcome.state, outcome.exit_code, outcome.step) == ("failed", 4, 6)
    assert outcome.reason == str(told.value)
    good = make_trainer(task=StopAt(6), folder=tmp_path / "good")
    good.fit()
    assert weights_of(trainer.model) == weights_of(good.model)


def test_a_divergence_before_any_checkpoint_says_so() -> None:
    with pytest.raises(DivergedError, match=r"step 2 \(epoch 1\); no checkpoint was saved before"):
        make_trainer(task=Explodes(2)).fit()


def test_the_rows_before_a_divergence_are_handed_on() -> None:
    """They show how it came; a run that failed shows its curve like any other."""
    recorder = Recorder()
    with pytest.raises(DivergedError):
        make_trainer(task=Explodes(7), recorder=recorder).fit()
    assert [row["step"] for row in recorder.got] == [1, 2, 3, 4, 5, 6]


def test_where_a_look_at_each_loss_would_cost_time_no_checkpoint_is_written_of_a_diverged_model(tmp_path: Path) -> None:
    """On a GPU a loss is looked at when a row is due. A save in between must not replace the last good checkpoint."""
    trainer = make_trainer(
        task=Explodes(6), folder=tmp_path, log_every="99steps", evaluate_every="never", checkpoint_every="1epoch"
    )
    trainer.update.looks = False  # as on a GPU
    with pytest.raises(DivergedError, match=r"train/loss became nan between steps 1 and 8;"):
        trainer.fit()
    assert trainer.checkpoints.names() == ["step-000000004"]


class Bursts(Regression):
    """Its loss is NaN in the n-th forward passes of a training, and so are then batch norm's statistics."""

    def __init__(self, *calls: int) -> None:
        self.bad, self.calls = calls, 0

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        self.calls += model.training
        spoilt = math.nan if model.training and self.calls in self.bad else 1.0
        return super().loss(model, [batch[0] * spoilt, batch[1]])


def test_updates_that_are_not_finite_are_left_out_and_counted(tmp_path: Path) -> None:
    """Weights, batch norm's statistics and averages stay as they were; the schedule and the counters go on."""
    recorder = Recorder()
    options: dict[str, Any] = {"ema": Ema(0.9), "folder": tmp_path, "recorder": recorder}
    trainer = make_trainer(task=Bursts(3, 6, 7), skip_nonfinite=2, **options)
    trainer.fit()
    assert all(torch.isfinite(value).all() for value in trainer.model.state_dict().values())
    assert [row["train/skipped"] for row in recorder.got] == [0, 0, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3]
    assert [row["step"] for row in recorder.got if "train/loss" not in row] == [3, 6, 7]
    assert trainer.ema.updates == 9
    assert trainer.progress.step == 12


def test_no_update_is_left_out_unless_it_is_allowed_and_only_so_many_in_a_row() -> None:
    options: dict[str, Any] = {"epochs": 2}
    with pytest.raises(DivergedError, match=r"nan, with the 1 updates before it, at step 4 "):
        make_trainer(task=Bursts(3, 4), skip_nonfinite=1, **options).fit()
    make_trainer(task=Bursts(3, 5), skip_nonfinite=1, **options).fit()
    with pytest.raises(DivergedError, match="at step 3 "):
        make_trainer(task=Bursts(3), **options).fit()


def test_what_was_left_out_is_counted_over_an_interruption_too(tmp_path: Path) -> None:
    recorder = Recorder()
    trainer = make_trainer(task=Bursts(3), skip_nonfinite=2, folder=tmp_path, epochs=1)
    trainer.fit()
    make_trainer(task=Bursts(3), skip_nonfinite=2, folder=tmp_path, epochs=2, resume="must", recorder=recorder).fit()
    assert [row["train/skipped"] for row in recorder.got] == [1, 1, 2, 2]


def test_a_group_that_failed_in_its_middle_leaves_no_gradients_behind() -> None:
    """In a notebook `fit` is called again: it goes on with the very same bits."""

    class Fails(Bursts):
        def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
            value = super().loss(model, batch)
            if model.training and self.calls == 2:
                raise RuntimeError("a cable")
            return value

    again, whole = make_trainer(task=Fails(), accumulate=3), make_trainer(accumulate=3)
    with pytest.raises(RuntimeError, match="a cable"):
        again.fit()
    again.fit()
    whole.fit()
    assert weights_of(again.model) == weights_of(whole.model)


# --------------------------------------------------------------------------------------- before the first step


class Absent(Regression):
    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1].long())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": nn.Sequential(nn.Linear(7, 1))}, r"model: Sequential and Regression do not fit (.*\n)*.*\(2, 3\)"),
        ({"task": Absent()}, "model: Sequential and Absent do not fit the data"),
        ({"data": (points(), TensorDataset(torch.zeros(4, 9), torch.zeros(4, 1)))}, "do not fit the data"),
        ({"patience": Patience("val/dice", "max")}, r"early_stopping\.monitor: 'val/dice' is not measured.*val/loss"),
        ({"patience": Patience("val/dice")}, r"early_stopping\.mode: .*val/dice"),
        ({"log_every": "10"}, r"log_every: 10 has no unit"),
        ({"evaluate_every": "soon"}, r"evaluate_every: 'soon' is not a duration"),
    ],
    ids=["model", "task", "validation set", "monitor", "mode", "duration without unit", "no duration"],
)  # fmt: skip
def test_what_does_not_fit_is_told_before_the_first_step_and_nothing_is_written(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    recorder = Recorder()
    with pytest.raises(ConfigError, match=words):
        make_trainer(folder=tmp_path / "run", recorder=recorder, **changes).fit()
    assert recorder.calls == []
    assert not (tmp_path / "run").exists()


def test_an_empty_set_is_told_before_the_first_step() -> None:
    with pytest.raises(DataError, match="the training set is empty"):
        make_trainer(data=(points(0), points(5)))
    with pytest.raises(DataError, match="the validation set is empty"):
        make_trainer(data=(points(), points(0)))


def test_the_rehearsal_leaves_no_trace() -> None:
    trainer = make_trainer(data=Data(Noisy(), Noisy(5)), epochs=1)
    before = weights_of(trainer.model)
    from trainer.rehearsal import rehearse

    rehearse(trainer)
    assert weights_of(trainer.model) == before
    assert trainer.model.training
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_the_plan_says_what_will_be_done(tmp_path: Path) -> None:
    trainer = make_trainer(folder=tmp_path, accumulate=3, lines={"mine": "yes"}, config={"a": 1})
    trainer.fit()
    plan = recorder_of(trainer).plan
    assert plan is not None
    assert (plan.steps, plan.steps_per_epoch, plan.epochs, plan.start) == (6, 2, 3, 0)
    assert (plan.monitor, plan.mode, plan.config["a"]) == ("val/loss", "min", 1)
    assert plan.lines["steps"] == "3 epochs x 2 = 6 steps of 3 samples x 3"
    assert plan.lines["model"] == f"Sequential, {sum(p.numel() for p in trainer.model.parameters())} parameters"
    assert plan.lines["mine"] == "yes"


def test_a_limit_is_a_quick_look_at_everything() -> None:
    trainer = make_trainer(limit=1, batch_size=2)
    outcome = trainer.fit()
    assert (outcome.step, outcome.epoch, trainer.progress.samples) == (3, 3, 6)


# --------------------------------------------------------------------------------------------------- the parts


class Memory(Hook):
    """A hook with a state."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        self.seen.append(evaluation.metrics["val/loss"])

    def state_dict(self) -> dict[str, Any]:
        return {"seen": list(self.seen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


def leaves(value: Any, path: str, found: dict[str, Any], above: tuple[int, ...] = ()) -> dict[str, Any]:
    """Every plain value that can be reached from an object, by its path."""
    if isinstance(value, torch.Tensor):
        found[path] = bits(value) if value.ndim else repr(value.item())
    elif isinstance(value, torch.Generator):
        found[path] = bits(value.get_state())
    elif isinstance(value, (bool, int, float, str, bytes, type(None), Path)):
        found[path] = repr(value)
    elif id(value) in above:
        pass
    elif isinstance(value, Mapping):
        found[f"{path}.len"] = len(value)
        for key, entry in value.items():
            # the state of an optimizer is by parameter, which has no name
            name = f"tensor of shape {tuple(key.shape)}" if isinstance(key, torch.Tensor) else str(key)
            leaves(entry, f"{path}.{name}", found, (*above, id(value)))
    elif isinstance(value, (list, tuple, set)):
        found[f"{path}.len"] = len(value)
        for n, entry in enumerate(value):
            leaves(entry, f"{path}[{n}]", found, (*above, id(value)))
    elif hasattr(value, "__dict__") and not isinstance(value, type) and not callable(getattr(value, "__code__", None)):
        for name, entry in vars(value).items():
            leaves(entry, f"{path}.{name}", found, (*above, id(value)))
    return found


UNSAVED = {
    # path: why it need not be saved
    "clock.": "wall time",
    "history._since": "wall time",
    "_rates": "the rates of the last update; not asked before the next one",
    "history.last.time": "wall time",
    "parts.": "the same objects under another name",
    "trackers.": "what a test remembers",
    "evaluator._examples": "made of the data when first needed",
    "checkpoints._writer": "a thread",
    "checkpoints._memory": "written anew at the next save",
    "checkpoints._newest": "the step that was saved last in this process",
    "watch.buffers._kept": "written anew before each step",
    "hooks.memory.trainer": "the trainer itself",
    "loader.": "order is f(seed, epoch); nothing is remembered",
    "schedule.scheduler.optimizer.step": "torch's own counting of calls, to warn of a wrong order",
    "update.optimizer.step": "the same",
    "update.optimizer._opt_called": "the same",
    "schedule.scheduler.optimizer._opt_called": "the same",
    "update.scaler.": "off",
    "schedule._moved": "whether torch may still warn",
}


def test_whatever_changes_in_an_epoch_is_put_back_by_a_resume(tmp_path: Path) -> None:
    """Everything reachable from the trainer is compared with a trainer built anew and resumed. What differs is a bug,
    or has a reason."""

    def build(resume: Any) -> Trainer:
        return make_trainer(
            optimizer=lambda p: torch.optim.Adam(p, lr=0.01),
            schedule=lambda o: schedules.plateau(o, patience=0).warm_up(6, 0.1),
            ema=Ema(0.9),
            hooks={"memory": Memory()},
            patience=Patience(patience=5),
            log_every="3steps",
            folder=tmp_path,
            resume=resume,
        )

    trainer = build("never")
    before = leaves(trainer, "", {})
    trainer.train_epoch()
    for group, _ in zip(trainer.loader.groups(1), range(2), strict=False):
        trainer.train_group(group)
    trainer.save()
    trainer.checkpoints.wait()
    after, resumed = leaves(trainer, "", {}), leaves(build("must"), "", {})
    changed = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    assert {".progress.step", ".model._modules.0._parameters.weight", ".ema.updates", ".history._losses.len"} <= changed
    lost = {path for path in changed if resumed.get(path) != after.get(path)}
    unexplained = sorted(path for path in lost if not path.removeprefix(".").startswith(tuple(UNSAVED)))
    assert not unexplained


def test_what_is_trained_otherwise_is_trained_by_overriding_one_method() -> None:
    class Twice(Trainer):
        def train_group(self, group: Any) -> None:
            self.seen = getattr(self, "seen", 0) + 1
            super().train_group(group)

    model = network()
    trainer = Twice(model, Regression(), (points(), None), sgd(model.parameters()), epochs=1, batch_size=3, trackers=())
    trainer.fit()
    assert trainer.seen == 4


# ------------------------------------------------------------------------------------------------- on a GPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_every_row_is_plain_numbers_the_best_one_too(tmp_path: Path) -> None:
    trainer = make_trainer(folder=tmp_path, world=World("cuda"))
    outcome = trainer.fit()
    json.dumps([outcome.best, outcome.last, *recorder_of(trainer).got])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_stopped_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    options: dict[str, Any] = {"ema": 0.9, "world": World("cuda")}
    expected = Attempts(tmp_path / "whole", **options).whole()
    cut = Attempts(tmp_path / "cut", **options)
    for stop in (3, 4, None):
        cut.attempt(stop)
    assert cut.result() == expected


def test_what_is_drawn_next_after_a_resume_is_what_would_have_been_drawn(tmp_path: Path) -> None:
    """Steps are seeded; this is for the code of a user that draws outside of them."""

    def drawn() -> tuple[float, float, float]:
        return float(torch.rand(())), float(np.random.rand()), random.random()

    make_trainer(folder=tmp_path, task=StopAt(6)).fit()
    expected = drawn()
    make_trainer(folder=tmp_path, resume="must")
    assert drawn() == expected
