"""One optimizer update: accumulation, precision, closures, and values that are not finite."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from torch import nn

from tests.small import Regression, bits, make_trainer, network, points, recorder_of, weights_of
from trainer.errors import CheckpointError, ConfigError, DivergedError
from trainer.gradients import Clip, Noise
from trainer.optim import LBFGS
from trainer.optim.extra import SAM
from trainer.state import restore, snapshot
from trainer.update import Precision, Skips, Update, finite, needs_closure

CPU = torch.device("cpu")


def update_of(
    model: nn.Module,
    clip: Clip | None = None,
    precision: Precision | None = None,
    lr: float = 0.1,
    skips: Skips | None = None,
) -> Update:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return Update(optimizer, clip or Clip(), precision or Precision(), CPU, skips)


def backward(update: Update, model: nn.Module, factor: float = 1.0) -> None:
    inputs, target = points().tensors
    update.backward(nn.functional.mse_loss(model(inputs), target) * factor)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_refused_before_anything_changes(value: float) -> None:
    model = network()
    update, before = update_of(model), weights_of(model)
    with pytest.raises(DivergedError, match="^train/loss became"):
        update.backward(model[0].weight.sum() * value)
    assert weights_of(model) == before
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_refused_before_the_weights_change(value: float) -> None:
    model = network()
    update = update_of(model)
    backward(update, model)
    update.step()
    before, momentum = weights_of(model), snapshot(update.parts())
    backward(update, model)
    assert model[0].bias.grad is not None
    model[0].bias.grad[3] = value
    weights = {name: value for name, value in weights_of(model).items() if "running" not in name and "num_" not in name}
    with pytest.raises(DivergedError, match="^train/grad_norm became"):
        update.step()
    assert weights.items() <= weights_of(model).items()
    assert before["0.weight"] == weights_of(model)["0.weight"]
    after = snapshot(update.parts())
    for n, state in momentum["optimizer"]["state"].items():
        assert bits(state["momentum_buffer"]) == bits(after["optimizer"]["state"][n]["momentum_buffer"])


def test_finite_lets_numbers_pass() -> None:
    finite("a", 1e300)
    with pytest.raises(DivergedError, match="a became nan"):
        finite("a", math.nan)


def test_gradients_are_gone_after_an_update() -> None:
    model = network()
    update = update_of(model)
    backward(update, model)
    update.step()
    assert all(p.grad is None for p in model.parameters())


def test_a_model_that_the_loss_does_not_reach_is_told() -> None:
    model = network()
    with pytest.raises(ConfigError, match="no parameter got a gradient"):
        update_of(model).step()


@pytest.mark.parametrize("sizes", [[3, 3, 3, 2], [1, 4, 6], [11], [5, 1, 1, 4]])
def test_accumulating_ragged_micro_batches_is_one_big_batch(sizes: list[int]) -> None:
    whole = network(norm=False, dropout=0.0)
    parts = network(norm=False, dropout=0.0)
    inputs, target = points(sum(sizes)).tensors
    one = make_trainer(model=whole)
    one.train_group([(inputs, target)])
    many = make_trainer(model=parts)
    many.train_group(list(zip(inputs.split(sizes), target.split(sizes), strict=True)))
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-6)
    first, second = one.note(), many.note()
    for key in ("train/loss", "train/grad_norm"):
        assert first[key] == pytest.approx(second[key], rel=1e-5)


# ------------------------------------------------------------------------------------------------------ precision


class Watching(Regression):
    """Remembers in which number format the model answered."""

    def __init__(self) -> None:
        self.seen: set[torch.dtype] = set()

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        output = model(batch[0])
        self.seen.add(output.dtype)
        return nn.functional.mse_loss(output.float(), batch[1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_training_runs_in_its_number_format_and_keeps_its_weights_in_float32(dtype: Any) -> None:
    task = Watching()
    trainer = make_trainer(
        task=task,
        model=network(norm=False, dropout=0.0),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.02),
        precision=Precision(dtype),
        batch_size=11,
        epochs=20,
    )
    outcome = trainer.fit()
    assert task.seen == {getattr(torch, dtype)}
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    losses = [row["train/loss"] for row in recorder_of(trainer).got if "train/loss" in row]
    assert len(losses) > 15, "a scaler leaves out the first few, until its scale fits"
    assert losses[-1] < losses[0] / 2
    assert outcome.state == "finished"


def test_an_update_that_overflows_in_float16_is_skipped_and_is_no_divergence() -> None:
    """A scaler starts at 65536 and finds its scale by overflowing: the first updates of such a training often do."""

    class Steep(Regression):
        def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
            return super().loss(model, batch) * 10  # 65536 times that is beyond float16

    trainer = make_trainer(task=Steep(), model=network(dropout=0.0), precision=Precision("float16"), epochs=5)
    scale = trainer.update.scaler.get_scale()
    outcome = trainer.fit()
    assert trainer.update.scaler.get_scale() < scale, "the test is meant to overflow"
    assert outcome.state == "finished"


def test_gradients_that_overflow_at_every_scale_are_a_divergence() -> None:
    """Else such a training would be finished one day, and no weight would ever have moved."""

    class Endless(Regression):
        def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
            return super().loss(model, batch) * torch.tensor(math.inf).sqrt().clamp(max=1e30)

    trainer = make_trainer(task=Endless(), model=network(dropout=0.0), precision=Precision("float16"), epochs=9)
    before = weights_of(trainer.model)
    with pytest.raises(DivergedError, match="train/grad_norm became .*, with the 20 updates before it, at step 21 "):
        trainer.fit()
    assert {n: v for n, v in before.items() if n.endswith("weight")}.items() <= weights_of(trainer.model).items()


def test_an_update_whose_loss_alone_is_not_finite_moves_no_weight_in_float16() -> None:
    model = network(dropout=0.0)
    update = update_of(model, precision=Precision("float16"), skips=Skips(1))
    before = weights_of(model)
    update.backward(model(torch.zeros(2, 3)).mean() + torch.tensor(math.nan))
    assert update.step() is None
    assert weights_of(model)["0.weight"] == before["0.weight"]


def test_in_float16_the_norm_and_its_bound_are_those_of_the_gradient_without_the_scale() -> None:
    norms, moved = [], []
    for dtype in ("float32", "float16"):
        model = network(norm=False, dropout=0.0)
        update = update_of(model, Clip(norm=0.5), Precision(dtype), lr=1.0)  # type: ignore[arg-type]
        before = model[0].weight.detach().clone()
        backward(update, model)
        norms.append(update.step().raw.item())
        moved.append(model[0].weight.detach() - before)
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)
    assert torch.allclose(moved[0], moved[1], rtol=1e-4)


def test_the_scale_of_float16_is_a_part_of_the_run() -> None:
    first, second = (update_of(network(), precision=Precision("float16")) for _ in range(2))
    first.scaler.scale(torch.ones(1))
    first.scaler.update(new_scale=128.0)
    restore(second.parts(), snapshot(first.parts()))
    assert second.scaler.get_scale() == 128.0


def test_an_unknown_number_format_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="^dtype: 'half' is unknown"):
        Precision("half")  # type: ignore[arg-type]


def test_a_checkpoint_of_another_optimizer_is_told_as_such() -> None:
    model = network()
    adam = Update(torch.optim.Adam(model.parameters()), Clip(), Precision(), CPU)
    with pytest.raises(CheckpointError, match="the checkpoint is of SGD, and this run uses Adam"):
        restore(adam.parts(), snapshot(update_of(model).parts()))


# ------------------------------------------------------------------------- optimizers that evaluate within an update


class Twice(torch.optim.SGD):
    """Plain descent by the gradients of a second evaluation, at the same weights."""

    needs_closure = True

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.losses: list[float] = []

    def step(self, closure: Any = None) -> None:
        with torch.enable_grad():
            self.losses.append(float(closure()))
        super().step()


def descending(optimizer: type[torch.optim.SGD], **changes: Any) -> Any:
    return make_trainer(optimizer=lambda p: optimizer(p, lr=0.05), **changes)


@pytest.mark.parametrize("changes", [{}, {"accumulate": 3, "clip": Clip(norm=0.5), "noise": Noise(0.1)}])
def test_a_second_evaluation_of_the_same_weights_changes_nothing(changes: dict[str, Any]) -> None:
    """Dropout, batch norm's statistics, clipping, noise and accumulation are those of the first."""
    twice, once = descending(Twice, **changes), descending(torch.optim.SGD, **changes)
    twice.fit()
    once.fit()
    assert weights_of(twice.model) == weights_of(once.model)
    first = [row["train/loss"] for row in recorder_of(once).got]
    assert twice.update.optimizer.losses == pytest.approx(first, rel=1e-6)


def test_a_closure_is_wanted_by_lbfgs_and_by_what_says_so() -> None:
    parameters = [nn.Parameter(torch.zeros(2))]
    assert needs_closure(torch.optim.LBFGS(parameters))
    assert needs_closure(Twice(parameters, lr=0.1))
    assert not needs_closure(torch.optim.Adam(parameters))


def test_lbfgs_finds_the_least_squares_of_a_line_in_a_few_updates() -> None:
    inputs, target = points().tensors
    model = nn.Linear(3, 1)
    trainer = make_trainer(model=model, optimizer=LBFGS, batch_size=11, epochs=4)
    trainer.fit()
    design = torch.cat([inputs, torch.ones(11, 1)], 1)
    best = torch.linalg.lstsq(design, target).solution.squeeze()
    torch.testing.assert_close(torch.cat([model.weight.squeeze(), model.bias]).detach(), best, rtol=1e-3, atol=1e-4)


def test_sam_descends_by_the_gradient_of_the_worst_weights_nearby() -> None:
    mine, theirs = nn.Linear(3, 1), nn.Linear(3, 1)
    theirs.load_state_dict(mine.state_dict())
    inputs, target = points(4).tensors

    def gradients(model: nn.Module) -> list[torch.Tensor]:
        return list(torch.autograd.grad(nn.functional.mse_loss(model(inputs), target), list(model.parameters())))

    first = gradients(theirs)
    norm = torch.cat([g.flatten() for g in first]).norm()
    with torch.no_grad():
        for p, g in zip(theirs.parameters(), first, strict=True):
            p.add_(g * 0.5 / norm)
    worst = gradients(theirs)
    expected = [p - 0.1 * g for p, g in zip(mine.parameters(), worst, strict=True)]
    base = functools.partial(torch.optim.SGD)
    trainer = make_trainer(
        model=mine, data=(points(4), None), batch_size=4, epochs=1, optimizer=lambda p: SAM(p, base, lr=0.1, rho=0.5)
    )
    trainer.train_group(next(iter(trainer.loader.groups(0))))
    for p, w in zip(mine.parameters(), expected, strict=True):
        torch.testing.assert_close(p.detach(), w.detach())


def test_float16_with_an_optimizer_that_evaluates_within_an_update_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^precision: float16 .*Twice cannot use; type precision=bfloat16"):
        Update(Twice([nn.Parameter(torch.zeros(1))], lr=0.1), Clip(), Precision("float16"), CPU)


def test_a_loss_that_diverges_within_an_update_ends_the_run_and_is_never_saved(tmp_path: Any) -> None:
    class Leap(Twice):
        def step(self, closure: Any = None) -> None:
            self.param_groups[0]["params"][0].data.fill_(math.nan)
            super().step(closure)

    trainer = descending(Leap, folder=tmp_path)
    with pytest.raises(DivergedError, match="train/loss became nan"):
        trainer.fit()
    assert trainer.checkpoints.newest() is None
