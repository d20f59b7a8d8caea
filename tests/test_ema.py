"""Averaged weights against a loop written by hand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.small import bits, make_trainer, network, points, recorder_of, weights_of
from trainer.ema import Ema
from trainer.errors import CheckpointError
from trainer.optim.extra import ScheduleFreeAdamW
from trainer.state import restore, snapshot


def attached(decay: float, model: nn.Module) -> Ema:
    ema = Ema(decay)
    ema.attach(model)
    return ema


def nudge(model: nn.Module, seed: int) -> None:
    """A change as a training makes it: weights, running statistics and the count of batches."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.train()
    model(torch.randn(6, 3))


def test_off_keeps_no_copy_and_changes_nothing() -> None:
    model = network()
    ema, before = attached(0.0, model), weights_of(model)
    assert not ema.on
    ema.update()
    assert ema.state_dict() == {"updates": 0, "average": {}}
    own = {"0.weight": torch.ones(2)}
    state = {"ema": ema.state_dict(), "model": own, "rng": {}}
    assert ema.take(state) is own
    assert "model" not in state
    with ema.applied():
        nudge(model, 1)
        inside = weights_of(model)
    assert weights_of(model) == inside != before


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_average_is_the_one_of_a_loop_written_by_hand(decay: float) -> None:
    model = network()
    ema = attached(decay, model)
    expected = {name: value.double().clone() for name, value in model.state_dict().items()}
    for n in range(1, 30):
        nudge(model, n)
        ema.update()
        share = min(decay, (1 + n) / (10 + n))
        for name, value in model.state_dict().items():
            floating = value.is_floating_point()
            expected[name] = share * expected[name] + (1 - share) * value.double() if floating else value.double()
    for name, value in ema.average.items():
        assert torch.allclose(value.double(), expected[name], atol=1e-5), name
    assert int(ema.average["1.num_batches_tracked"]) == 29
    assert ema.average["1.num_batches_tracked"].dtype == torch.int64


def test_inside_applied_the_model_is_the_average_and_afterwards_itself_bit_for_bit_also_after_an_error() -> None:
    model = network()
    ema = attached(0.9, model)
    nudge(model, 1)
    ema.update()
    own, average = weights_of(model), {name: bits(value) for name, value in ema.average.items()}
    assert own != average
    with pytest.raises(ZeroDivisionError), ema.applied():
        assert weights_of(model) == average
        nudge(model, 2)
        raise ZeroDivisionError
    assert weights_of(model) == own
    assert {name: bits(value) for name, value in ema.average.items()} == average


def test_the_average_does_not_change_with_the_model_and_has_no_gradient() -> None:
    model = network()
    ema = attached(0.9, model)
    before = {name: bits(value) for name, value in ema.average.items()}
    nudge(model, 1)
    assert {name: bits(value) for name, value in ema.average.items()} == before
    assert not any(value.requires_grad for value in ema.average.values())


def test_it_goes_on_where_it_was() -> None:
    model = network()
    one = attached(0.9, model)
    for n in range(3):
        nudge(model, n)
        one.update()
    two = attached(0.9, model)
    restore({"ema": two}, snapshot({"ema": one}))
    nudge(model, 9)
    one.update()
    two.update()
    assert one.updates == two.updates == 4
    for name, value in one.average.items():
        assert bits(value) == bits(two.average[name])


@pytest.mark.parametrize(("saved", "now"), [(0.9, 0.0), (0.0, 0.9)])
def test_switching_it_on_or_off_on_the_way_is_refused(saved: float, now: float) -> None:
    with pytest.raises(CheckpointError, match="ema was switched on or off"):
        restore({"ema": attached(now, network())}, snapshot({"ema": attached(saved, network())}))


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5])
def test_a_decay_out_of_range_is_refused_by_its_name(decay: float) -> None:
    with pytest.raises(ValueError, match="^decay: "):
        Ema(decay)


def test_evaluation_measures_the_average_and_training_goes_on_with_the_own_weights() -> None:
    trainer = make_trainer(ema=Ema(0.9), epochs=1)
    trainer.train_epoch()
    inputs, target = points(5, seed=2).tensors
    own = weights_of(trainer.model)
    with torch.no_grad():
        trainer.model.load_state_dict(trainer.ema.average)
        expected = nn.functional.mse_loss(trainer.model.eval()(inputs), target).item()
    trainer = make_trainer(ema=Ema(0.9), epochs=1)
    trainer.train_epoch()
    assert trainer.best.row["val/loss"] == pytest.approx(expected, rel=1e-6)
    assert weights_of(trainer.model) == own
    assert trainer.model.training


# --------------------------------------------------------------------------------- optimizers that average themselves


def schedule_free(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    made: torch.optim.Optimizer = ScheduleFreeAdamW(parameters, lr=0.05)
    return made


def test_of_a_schedule_free_optimizer_the_average_is_evaluated_and_kept(tmp_path: Path) -> None:
    trainer = make_trainer(optimizer=schedule_free, folder=tmp_path, epochs=2)
    trainer.fit()
    own, (group,) = trainer.model.state_dict(), trainer.update.optimizer.param_groups
    beta, state = group["betas"][0], trainer.update.optimizer.state
    average = {  # y = (1 - beta) z + beta x, solved for x
        name: (p.detach() - (1 - beta) * state[p]["z"]) / beta for name, p in trainer.model.named_parameters()
    }
    found = trainer.checkpoints.newest()
    assert found is not None
    for name, value in average.items():
        torch.testing.assert_close(found.weights[name], value)
        assert not torch.equal(found.weights[name], own[name])
        assert bits(found.state["model"][name]) == bits(own[name])
    trainer.model.load_state_dict(found.weights)
    inputs, target = points(5, seed=2).tensors
    with torch.no_grad():
        expected = nn.functional.mse_loss(trainer.model.eval()(inputs), target).item()
    assert recorder_of(trainer).evaluations[-1][0]["val/loss"] == pytest.approx(expected, rel=1e-5)


def test_evaluating_a_schedule_free_optimizer_moves_no_bit_of_its_training(tmp_path: Path) -> None:
    often, seldom = (
        make_trainer(optimizer=schedule_free, evaluate_every=every, folder=tmp_path / every)
        for every in ("1steps", "3epochs")
    )
    often.fit()
    seldom.fit()
    assert weights_of(often.model) == weights_of(seldom.model)
