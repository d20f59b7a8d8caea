"""Clipping against torch and a loop written by hand, noise against its formula; sparse gradients like dense ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from tests.small import Recorder, Regression, StopAt, bits, make_trainer, network, newest, points
from trainer.gradients import Clip, Noise, norm_of, values_of


def with_gradients(factor: float = 1.0) -> list[nn.Parameter]:
    """The parameters of a network, each with a gradient."""
    model = network(dropout=0.0)
    inputs, target = points().tensors
    (nn.functional.mse_loss(model(inputs), target) * factor).backward()
    return list(model.parameters())


def gradients_of(parameters: list[nn.Parameter]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]


@pytest.mark.parametrize("bound", [1e-3, 0.1, 1.0, 2.5, 100.0, math.inf])
def test_clipping_by_norm_is_torchs_to_the_last_bit(bound: float) -> None:
    mine, theirs = with_gradients(3.0), with_gradients(3.0)
    norm = norm_of(mine)
    after = Clip(norm=bound)(mine, norm)
    assert bits(clip_grad_norm_(theirs, bound)) == bits(norm)
    assert list(map(bits, gradients_of(mine))) == list(map(bits, gradients_of(theirs)))
    assert after.item() == pytest.approx(min(norm.item(), bound), rel=1e-5)


def test_clipping_by_value_is_torchs_and_comes_after_the_norm() -> None:
    mine, theirs = with_gradients(), with_gradients()
    after = Clip(norm=0.5, value=0.05)(mine, norm_of(mine))
    clip_grad_norm_(theirs, 0.5)
    clip_grad_value_(theirs, 0.05)
    assert list(map(bits, gradients_of(mine))) == list(map(bits, gradients_of(theirs)))
    assert after.item() == norm_of(theirs).item()


def test_clipping_by_unit_is_a_loop_over_units() -> None:
    parameters = with_gradients(3.0)
    convolution = nn.Conv2d(3, 4, 2)
    convolution(torch.ones(2, 3, 5, 5)).square().sum().backward()
    parameters += convolution.parameters()
    expected = []
    for p in parameters:
        assert p.grad is not None
        units = [(p.detach(), p.grad)] if p.ndim < 2 else list(zip(p.detach(), p.grad, strict=True))
        kept = [g * min(1.0, (0.05 * max(w.norm(), 1e-3) / g.norm()).item()) for w, g in units]  # type: ignore[call-overload]
        expected.append(kept[0] if p.ndim < 2 else torch.stack(kept))
    assert any(not torch.allclose(a, b) for a, b in zip(expected, gradients_of(parameters), strict=True))
    after = Clip(adaptive=0.05)(parameters, norm_of(parameters))
    for a, b in zip(expected, gradients_of(parameters), strict=True):
        torch.testing.assert_close(a, b)
    assert after.item() == norm_of(parameters).item()


def test_without_a_bound_nothing_is_clipped() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    parameter.grad = torch.full((3,), 1e30)
    clip = Clip()
    assert not clip.on
    clip([parameter], torch.tensor(1e30))
    assert parameter.grad.tolist() == pytest.approx([1e30] * 3)


@pytest.mark.parametrize(
    "settings", [{"norm": 0}, {"norm": -1}, {"value": 0}, {"norm": math.nan}, {"value": -0.5}, {"adaptive": 0}]
)
def test_a_bound_that_is_not_positive_is_refused_by_its_name(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(settings))}: .* must be more than 0"):
        Clip(**settings)


@pytest.mark.parametrize("settings", [{"eta": -1}, {"gamma": -0.1}, {"eta": math.nan}, {"eta": math.inf}])
def test_noise_out_of_range_is_refused_by_its_name(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(settings))}: .* must be at least 0"):
        Noise(**settings)


@pytest.mark.parametrize(("step", "variance"), [(0, 0.3), (99, 0.3 / 100**0.55)])
def test_the_noise_has_the_variance_of_the_paper(step: int, variance: float) -> None:
    parameter = nn.Parameter(torch.zeros(100_000))
    parameter.grad = torch.ones(100_000)
    torch.manual_seed(0)
    Noise(0.3, 0.55)([parameter], step)
    assert parameter.grad.mean().item() == pytest.approx(1.0, abs=0.01)
    assert parameter.grad.var().item() == pytest.approx(variance, rel=0.02)


@pytest.mark.parametrize("clip", [Clip(norm=0.1), Clip(value=0.01), Clip(adaptive=0.01)])
def test_a_sparse_gradient_is_clipped_like_the_dense_one(clip: Clip) -> None:
    found = []
    for sparse in (True, False):
        torch.manual_seed(0)
        embedding = nn.Embedding(6, 3, sparse=sparse)
        embedding(torch.tensor([4, 1, 4])).square().sum().backward()
        norm = norm_of([embedding.weight])
        after = clip([embedding.weight], norm)
        assert embedding.weight.grad is not None
        assert embedding.weight.grad.is_sparse == sparse
        found.append((norm, after, embedding.weight.grad.to_dense()))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_noise_on_a_sparse_gradient_touches_the_rows_that_were_used_alone() -> None:
    embedding = nn.Embedding(6, 3, sparse=True)
    embedding(torch.tensor([4, 1, 4])).sum().backward()
    Noise(1.0)([embedding.weight], 0)
    assert values_of(embedding.weight).shape == (2, 3)
    assert embedding.weight.grad is not None
    assert embedding.weight.grad.to_dense()[[0, 2, 3, 5]].abs().sum() == 0


def test_the_norm_before_and_after_is_in_the_rows_where_something_is_clipped() -> None:
    recorder = Recorder()
    make_trainer(clip=Clip(norm=0.5), recorder=recorder).fit()
    for row in recorder.got:
        assert row["train/grad_norm_clipped"] == pytest.approx(min(row["train/grad_norm"], 0.5), rel=1e-5)
    plain = Recorder()
    make_trainer(recorder=plain).fit()
    assert all("train/grad_norm_clipped" not in row for row in plain.got)


def test_a_run_with_noise_and_bounds_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    def run(name: str, **changes: Any) -> int:
        options: dict[str, Any] = {
            "noise": Noise(0.3),
            "clip": Clip(adaptive=0.05),
            "folder": tmp_path / name,
            "log_every": "3steps",
        }
        return make_trainer(**options, **changes).fit().exit_code

    assert run("whole") == 0
    assert run("cut", task=StopAt(6)) == 143
    assert run("cut", task=Regression(), resume="must") == 0
    assert newest(tmp_path / "cut") == newest(tmp_path / "whole")
    quiet = make_trainer(clip=Clip(adaptive=0.05), folder=tmp_path / "quiet", log_every="3steps")
    quiet.fit()
    assert newest(tmp_path / "quiet") != newest(tmp_path / "whole")
