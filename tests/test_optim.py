"""The steps of each classic optimizer equal its formula, written in plain numpy from the paper."""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import trainer.optim
from tests.catalogue import node_of
from trainer import _hydra, schedules
from trainer.errors import ConfigError
from trainer.optim import MuonWithAdamW, SparseAdam, trainable
from trainer.signatures import misfits

STEPS = 8  # at the sixth RAdam begins to adapt
Array = Any
Steps = Iterator[Array]
Gradient = Callable[[Array], Array]

_draw = np.random.default_rng(0)
INPUTS, TARGETS, START = _draw.normal(size=(12, 6)), _draw.normal(size=12), _draw.normal(size=6)


def gradient(w: Array) -> Array:
    """Of the mean squared error of a linear model, with a bit of curvature that changes."""
    return 2 / len(INPUTS) * INPUTS.T @ (INPUTS @ w - TARGETS) + 0.1 * w**3


# Each gives the weights after every step. `c` holds the values of the file; all weight decay is what `c` says.


def sgd(w: Array, c: Any) -> Steps:
    """Sutskever et al. 2013 in torch's form: the velocity is a sum of gradients, the learning rate stands outside."""
    v = np.zeros_like(w)
    for _ in itertools.count():
        g = gradient(w) + c.weight_decay * w
        v = c.momentum * v + g
        w = w - c.lr * (g + c.momentum * v if c.nesterov else v)
        yield w


def sgdw(w: Array, c: Any) -> Steps:
    """Loshchilov and Hutter 2017, algorithm 1, with the schedule's factor taken into the learning rate as in AdamW."""
    v = np.zeros_like(w)
    for _ in itertools.count():
        v = c.momentum * v + gradient(w)
        w = w - c.lr * v - c.lr * c.weight_decay * w
        yield w


def adagrad(w: Array, c: Any) -> Steps:
    total = np.full_like(w, c.initial_accumulator_value)
    for t in itertools.count(1):
        g = gradient(w) + c.weight_decay * w
        total = total + g**2
        w = w - c.lr / (1 + (t - 1) * c.lr_decay) * g / (np.sqrt(total) + c.eps)
        yield w


def adadelta(w: Array, c: Any) -> Steps:
    squares = moves = np.zeros_like(w)
    for _ in itertools.count():
        g = gradient(w) + c.weight_decay * w
        squares = c.rho * squares + (1 - c.rho) * g**2
        move = np.sqrt(moves + c.eps) / np.sqrt(squares + c.eps) * g
        moves = c.rho * moves + (1 - c.rho) * move**2
        w = w - c.lr * move
        yield w


def rmsprop(w: Array, c: Any) -> Steps:
    squares = velocity = np.zeros_like(w)
    for _ in itertools.count():
        g = gradient(w) + c.weight_decay * w
        squares = c.alpha * squares + (1 - c.alpha) * g**2
        velocity = c.momentum * velocity + g / (np.sqrt(squares) + c.eps)
        w = w - c.lr * velocity
        yield w


def adam(w: Array, c: Any, decoupled: bool = False) -> Steps:
    """AMSGrad too. Reddi et al. 2018 correct no bias; torch takes the largest uncorrected value, then corrects it."""
    (b1, b2), m, v = c.betas, np.zeros_like(w), np.zeros_like(w)
    largest = v
    for t in itertools.count(1):
        g = gradient(w) + (0 if decoupled else c.weight_decay * w)
        w = w - (c.lr * c.weight_decay * w if decoupled else 0)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        largest = np.maximum(largest, v) if c.amsgrad else v
        w = w - c.lr * m / (1 - b1**t) / (np.sqrt(largest / (1 - b2**t)) + c.eps)
        yield w


def adamw(w: Array, c: Any) -> Steps:
    return adam(w, c, decoupled=True)


def adamw_uncorrected(w: Array, c: Any) -> Steps:
    """transformers' AdamW with correct_bias=False; its decay comes after the update."""
    (b1, b2), m, v = c.betas, np.zeros_like(w), np.zeros_like(w)
    for _ in itertools.count():
        g = gradient(w)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        w = w - c.lr * m / (np.sqrt(v) + c.eps)
        w = w - c.lr * c.weight_decay * w
        yield w


def adamax(w: Array, c: Any) -> Steps:
    """Kingma and Ba 2014, algorithm 2. The paper has no eps; torch adds it to the gradient's size."""
    (b1, b2), m, u = c.betas, np.zeros_like(w), np.zeros_like(w)
    for t in itertools.count(1):
        g = gradient(w) + c.weight_decay * w
        m, u = b1 * m + (1 - b1) * g, np.maximum(b2 * u, np.abs(g) + c.eps)
        w = w - c.lr / (1 - b1**t) * m / u
        yield w


def nadam(w: Array, c: Any) -> Steps:
    (b1, b2), m, v, product = c.betas, np.zeros_like(w), np.zeros_like(w), 1.0

    def momentum(t: int) -> float:
        return float(b1 * (1 - 0.5 * 0.96 ** (t * c.momentum_decay)))

    for t in itertools.count(1):
        g = gradient(w) + (0 if c.decoupled_weight_decay else c.weight_decay * w)
        w = w - (c.lr * c.weight_decay * w if c.decoupled_weight_decay else 0)
        now, then = momentum(t), momentum(t + 1)
        product = product * now
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        ahead = then * m / (1 - product * then) + (1 - now) * g / (1 - product)
        w = w - c.lr * ahead / (np.sqrt(v / (1 - b2**t)) + c.eps)
        yield w


def radam(w: Array, c: Any) -> Steps:
    """Liu et al. 2019, algorithm 2. The paper adapts from a length of 4 on, torch from 5 on; the paper has no eps."""
    (b1, b2), m, v = c.betas, np.zeros_like(w), np.zeros_like(w)
    most = 2 / (1 - b2) - 1
    for t in itertools.count(1):
        g = gradient(w) + c.weight_decay * w
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        length = most - 2 * t * b2**t / (1 - b2**t)
        step = m / (1 - b1**t)
        if length > 5:
            rectified = (length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length)
            step = step * np.sqrt(rectified) * np.sqrt(1 - b2**t) / (np.sqrt(v) + c.eps)
        w = w - c.lr * step
        yield w


def adabound(w: Array, c: Any) -> Steps:
    """Luo et al. 2019, algorithm 2, and AMSBound. The paper corrects no bias and divides the step by the root of t.

    pytorch_optimizer, as the authors' code, corrects the bias as Adam does, and leaves out that root; it adds 1e-15
    below the root of the squares.
    """
    (b1, b2), m, v, largest = c.betas, np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for t in itertools.count(1):
        w = w - c.lr * c.weight_decay * w
        g = gradient_before_decay(w, c)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        largest = np.maximum(largest, v) if c.ams_bound else v
        lower, upper = c.final_lr * (1 - 1 / (c.gamma * t + 1)), c.final_lr * (1 + 1 / (c.gamma * t))
        step = c.lr * np.sqrt(1 - b2**t) / (1 - b1**t) / (np.sqrt(largest + 1e-15) + c.eps)
        w = w - np.clip(step, lower, upper) * m
        yield w


def gradient_before_decay(w: Array, c: Any) -> Array:
    return gradient(w / (1 - c.lr * c.weight_decay))


def swats(w: Array, c: Any) -> Steps:
    """Keskar and Socher 2017, algorithm 1. The paper compares with an absolute eps, pytorch_optimizer with a relative.

    It also uses that eps in Adam's denominator, corrects the bias of the averages before it adds it, and looks at each
    tensor by itself; here there is one.
    """
    (b1, b2), m, v, rate, sgd_lr = c.betas, np.zeros_like(w), np.zeros_like(w), 0.0, None
    velocity = np.zeros_like(w)
    for t in itertools.count(1):
        g = gradient(w) + c.weight_decay * w
        if sgd_lr is not None:
            velocity = b1 * velocity + g
            w = w - (1 - b1) * sgd_lr * velocity
            yield w
            continue
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        step = -c.lr * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v + 1e-15) + c.eps)
        w = w + step
        projected = step @ step / -(step @ g)
        rate = b2 * rate + (1 - b2) * projected
        mean = rate / (1 - b2**t)
        if t > 1 and mean > 0 and abs(mean - projected) <= 1e-8 + c.eps * abs(projected):
            sgd_lr = mean
        yield w


def lookahead(w: Array, c: Any) -> Steps:
    """Zhang et al. 2019, algorithm 1, around AdamW, whose averages go on as they are."""
    slow, box = w, SimpleNamespace(w=w)
    inner = adamw_in(box, SimpleNamespace(**c.base | {"lr": c.lr}))
    for t in itertools.count(1):
        next(inner)
        if t % c.k == 0:
            slow = box.w = slow + c.alpha * (box.w - slow)
        yield box.w


def adamw_in(box: Any, c: Any) -> Iterator[None]:
    (b1, b2), m, v = c.betas, 0.0, 0.0
    for t in itertools.count(1):
        g = gradient(box.w)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        box.w = box.w * (1 - c.lr * c.weight_decay) - c.lr * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + c.eps)
        yield


CASES: list[tuple[str, Callable[[Array, Any], Steps], dict[str, Any]]] = [
    ("sgd", sgd, {"weight_decay": 0.01}),
    ("momentum", sgd, {"weight_decay": 0.01}),
    ("nag", sgd, {"weight_decay": 0.01}),
    ("sgd_cv", sgd, {}),
    ("sgdw", sgdw, {"weight_decay": 0.01}),
    ("adagrad", adagrad, {"lr_decay": 0.1, "weight_decay": 0.01}),
    ("adadelta", adadelta, {"weight_decay": 0.01}),
    ("rmsprop", rmsprop, {"weight_decay": 0.01}),
    ("rmsprop", rmsprop, {"momentum": 0.5}),
    ("adam", adam, {"weight_decay": 0.01}),
    ("amsgrad", adam, {"betas": [0.5, 0.6], "lr": 0.1}),  # so that the largest is not the newest
    ("adamw", adamw, {}),
    ("adamw_transformer", adamw, {}),
    ("adamw_uncorrected", adamw_uncorrected, {"weight_decay": 0.01}),
    ("adamax", adamax, {"weight_decay": 0.01}),
    ("nadam", nadam, {"weight_decay": 0.01}),
    ("nadam", nadam, {"weight_decay": 0.01, "decoupled_weight_decay": True}),
    ("radam", radam, {"weight_decay": 0.01}),
    ("adabound", adabound, {"weight_decay": 0.01}),
    ("amsbound", adabound, {"betas": [0.5, 0.6], "lr": 0.1, "final_lr": 0.05}),
    ("adabound", adabound, {"gamma": 1.0}),  # both bounds hold within a few steps
    ("swats", swats, {"weight_decay": 0.01}),
    ("swats", swats, {"eps": 0.3, "lr": 0.1}),  # switches within a few steps
    ("lookahead", lookahead, {"k": 3}),
    ("lookahead", lookahead, {"lr": 0.05, "k": 2, "alpha": 0.8}),
]


@pytest.mark.parametrize(("name", "formula", "changes"), CASES, ids=[f"{n}-{'-'.join(c)}" for n, _, c in CASES])
def test_the_steps_are_those_of_the_paper(
    name: str, formula: Callable[[Array, Any], Steps], changes: dict[str, Any]
) -> None:
    """A constant schedule moves after each step, as in a run; it must change nothing."""
    node = node_of(name) | changes
    weight = nn.Parameter(torch.from_numpy(START.copy()))
    optimizer = _hydra.instantiate(node, "optimizer", params=[weight])
    schedule = schedules.constant(optimizer)
    for n, expected in enumerate(itertools.islice(formula(START, SimpleNamespace(**node)), STEPS)):
        weight.grad = torch.from_numpy(gradient(weight.detach().numpy()))
        optimizer.step()
        schedule.on_step()
        assert np.allclose(weight.detach().numpy(), expected, rtol=1e-10, atol=1e-12), f"step {n + 1}"


def test_swats_has_switched_in_the_case_that_is_there_to_switch_and_follows_the_schedule_afterwards() -> None:
    weight = nn.Parameter(torch.from_numpy(START.copy()))
    optimizer = _hydra.instantiate(node_of("swats") | {"eps": 0.3, "lr": 0.1}, "optimizer", params=[weight])
    (group,) = optimizer.param_groups
    for step in range(STEPS):
        assert group["lr"] == 0.1
        if step == STEPS - 1:
            group["lr"] = 0.0  # what a schedule may do at the end of a run
            before = weight.detach().clone()
        weight.grad = torch.from_numpy(gradient(weight.detach().numpy()))
        optimizer.step()
    assert group["phase"] == "sgd"
    assert torch.equal(weight, before)


# What sets a file apart from others of the same target.
APART = [
    ("sgd", {"momentum": 0, "nesterov": False, "weight_decay": 0}),
    ("momentum", {"momentum": 0.9, "nesterov": False, "weight_decay": 0}),
    ("nag", {"momentum": 0.9, "nesterov": True, "weight_decay": 0}),
    ("sgd_cv", {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}),
    ("adam", {"amsgrad": False, "weight_decay": 0}),
    ("amsgrad", {"amsgrad": True}),
    ("adamw", {"betas": [0.9, 0.999], "weight_decay": 0.01}),
    ("adamw_transformer", {"betas": [0.9, 0.95], "weight_decay": 0.1}),
    ("adabound", {"ams_bound": False}),
    ("amsbound", {"ams_bound": True}),
]


@pytest.mark.parametrize(("name", "values"), APART, ids=[name for name, _ in APART])
def test_a_file_holds_what_its_name_says(name: str, values: dict[str, Any]) -> None:
    assert node_of(name).items() >= values.items()


# --------------------------------------------------------------------------------------------------------- our own


def words() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 2))


def descend(model: nn.Module, *optimizers: torch.optim.Optimizer, steps: int = 4) -> None:
    inputs = torch.randint(0, 5, (7, 2), generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        model.zero_grad()
        model(inputs).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()


def test_muon_trains_hidden_matrices_as_torchs_does_and_adamw_the_rest() -> None:
    mine, theirs = words(), words()
    both = MuonWithAdamW(trainable(mine), lr=0.01, adamw_names=["4.*"])
    assert [group["param_names"] for group in both.param_groups] == [
        ["2.weight"],
        ["0.weight", "2.bias", "3.weight", "3.bias", "4.weight", "4.bias"],
    ]
    by_name = dict(theirs.named_parameters())
    matrix = by_name.pop("2.weight")
    muon = torch.optim.Muon([matrix], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(by_name.values(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    descend(mine, both)
    descend(theirs, muon, adamw)
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))


def test_muon_goes_on_from_its_state_with_both_learning_rates_driven() -> None:
    models = [words(), words()]
    first, second = (MuonWithAdamW(trainable(model)) for model in models)
    for group in first.param_groups:
        group["lr"] = 0.02
    descend(models[0], first)
    models[1].load_state_dict(models[0].state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert [group["name"] for group in second.param_groups] == ["muon", "adamw"]
    for model, optimizer in zip(models, (first, second), strict=True):
        descend(model, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(*(model.parameters() for model in models), strict=True))


def test_muon_refuses_a_model_without_matrices_and_a_pattern_that_matches_nothing() -> None:
    with pytest.raises(
        ConfigError,
        match="^optimizer: Muon trains the matrices of hidden layers, and this model has none; use optimizer=adamw",
    ):
        MuonWithAdamW(trainable(nn.Sequential(nn.Embedding(3, 2), nn.Conv1d(2, 2, 3))))
    with pytest.raises(ConfigError, match=r"^adamw_names: 'haed\.\*' matches no weight; they are called 0\.weight"):
        MuonWithAdamW(trainable(words()), adamw_names=["haed.*"])


def test_sparse_adam_takes_sparse_embeddings_alone_and_says_which_weight_is_dense() -> None:
    assert SparseAdam(trainable(nn.EmbeddingBag(4, 2, sparse=True)))
    with pytest.raises(ConfigError, match=r"those of 2 of 3 weights are dense \(1\.weight, \.\.\.\); use optimizer=ad"):
        SparseAdam(trainable(nn.Sequential(nn.Embedding(4, 2, sparse=True), nn.Linear(2, 1))))


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("sgdw", {"lr": -1}, "optimizer.lr: Invalid learning rate: -1"),
        ("adamw_uncorrected", {"lr": -1}, "optimizer.lr: -1 must be at least 0"),
        ("adamw_uncorrected", {"betas": [0.9, 1.5]}, "optimizer.betas: [0.9, 1.5] must be at least 0 and less than 1"),
        ("muon", {"lr": -1}, "Learning rate should be >= 0 but is: -1"),
        ("adabound", {"lr": -1}, "optimizer.lr: -1 must be at least 0"),
        ("lookahead", {"lr": -1}, "Invalid learning rate: -1"),
        ("lookahead", {"k": 0}, "optimizer: k must be positive"),
    ],
)
def test_a_value_out_of_range_is_told_by_its_key(name: str, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _hydra.instantiate(node_of(name) | changes, "optimizer", params=[nn.Parameter(torch.zeros(2, 2))])
    assert told in str(caught.value)


@pytest.mark.parametrize("outer", ["lookahead", "sam"])
@pytest.mark.parametrize(("name", "why"), [("lbfgs", "evaluates the loss"), ("schedulefree", "averages its weights")])
def test_an_optimizer_that_cannot_work_inside_another_is_refused(outer: str, name: str, why: str) -> None:
    base = {**node_of(name), "_partial_": True}
    with pytest.raises(ConfigError, match=rf"optimizer\.base: .* {why}.*; use another base"):
        _hydra.instantiate(
            node_of(outer) | {"base": base, "lr": 0.1}, "optimizer", params=[nn.Parameter(torch.ones(2))]
        )


def test_without_pytorch_optimizer_what_to_install_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    monkeypatch.delitem(sys.modules, "trainer.optim.extra", raising=False)
    monkeypatch.delattr(trainer.optim, "extra", raising=False)
    (told,) = misfits("optimizer", node_of("adabound"), ("params",))
    assert told.startswith("optimizer: trainer.optim.extra.AdaBound cannot be imported: pytorch_optimizer is not ")
    assert "installed; pip install 'wandb-trainer[optim]'" in told
    assert misfits("optimizer", node_of("muon"), ("params",)) == []


def test_an_argument_that_pytorch_optimizer_would_take_and_ignore_is_refused() -> None:
    (told,) = misfits("optimizer", node_of("adabound") | {"gama": 1}, ("params",))
    assert told == "optimizer.gama: trainer.optim.extra.AdaBound takes no such argument; did you mean gamma?"
