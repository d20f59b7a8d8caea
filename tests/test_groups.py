"""Parameter groups: which weights decay, at which rate each trains, and from when on."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from tests.catalogue import NAMES, convolutional, node_of
from tests.small import Regression, StopAt, make_trainer, network, newest, recorder_of, weights_of
from trainer import _hydra, schedules
from trainer.build import build, build_optimizer, foresee
from trainer.errors import ConfigError
from trainer.gradients import Clip
from trainer.loop import Trainer
from trainer.optim import Groups, Trainable, trainable
from trainer.optim.groups import decoupled
from trainer.overrides import apply, check
from trainer.schedules import simulate
from trainer.update import needs_closure

LR, DECAY = 0.01, 0.1
ONE_RATE = ("prodigy", "lbfgs")  # refused with a rate or a freeze by name
SPARSE = ("sparse_adam",)  # refused with a common model
OTHERS = [name for name in NAMES if name not in (*ONE_RATE, *SPARSE)]


class Stack(nn.Module):
    """A small network whose layers have the names that transformers give them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.blocks = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm((3, 4)), nn.Linear(4, 4))
        self.head = nn.Linear(4, 2)


def adamw(params: Any) -> Optimizer:
    return AdamW(params, lr=LR, weight_decay=DECAY)


def made(name: str, params: Any, **values: Any) -> Optimizer:
    """The optimizer of a file of conf/optimizer."""
    optimizer: Optimizer = _hydra.instantiate({**node_of(name), **values}, "optimizer", params=params)
    return optimizer


def told_by_name(optimizer: Optimizer, model: nn.Module, key: str) -> dict[str, Any]:
    """What the group of each weight says, by the weight's name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = optimizer.param_groups
    found = {names[id(parameter)]: group.get(key) for group in groups for parameter in group["params"]}
    return {name: found[name] for name, _ in model.named_parameters()}


def trains(
    groups: Groups | None = None, optimizer: Any = adamw, model: nn.Module | None = None, **options: Any
) -> Trainer:
    """A trainer of 12 updates whose optimizer is made by groups."""
    net = model or network()
    return make_trainer(
        model=net, optimizer=lambda _: groups.make(net, optimizer) if groups else optimizer(net), **options
    )


# ------------------------------------------------------------------------------------------------------ weight decay


def test_without_decay_for_biases_and_norms_training_is_that_of_torchs_groups_written_by_hand() -> None:
    def by_hand(model: Any) -> Optimizer:
        sorts: dict[bool, list[Any]] = {True: [], False: []}
        for parameter in model.parameters():
            sorts[parameter.ndim > 1].append(parameter)
        groups = [{"params": sorts[True], "weight_decay": 3.0}, {"params": sorts[False], "weight_decay": 0.0}]
        return AdamW(groups, lr=LR, weight_decay=3.0)

    mine = trains(Groups(), lambda params: AdamW(params, lr=LR, weight_decay=3.0))
    theirs, alike = trains(None, by_hand), trains(Groups(no_decay=False), lambda p: AdamW(p, lr=LR, weight_decay=3.0))
    for trainer in (mine, theirs, alike):
        trainer.fit()
    assert weights_of(mine.model) == weights_of(theirs.model)
    assert weights_of(mine.model) != weights_of(alike.model)


def test_vectors_norms_of_any_shape_and_what_the_model_names_do_not_decay() -> None:
    model = Stack()
    model.no_weight_decay = lambda: {"embed.weight"}  # type: ignore[assignment]
    decays = told_by_name(Groups().make(model, adamw), model, "weight_decay")
    assert {name for name, decay in decays.items() if decay} == {"blocks.0.weight", "blocks.2.weight", "head.weight"}


DECOUPLED = {"adabelief", "adabound", "adafactor", "adamw", "adamw_transformer", "adamw_uncorrected", "amsbound",
             "lamb", "lion", "lookahead", "muon", "prodigy", "sgdw", "soap", "yogi"}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SPARSE])
def test_biases_are_left_out_of_the_decay_of_an_optimizer_by_itself_where_it_is_decoupled(name: str) -> None:
    model, values = Stack(), {"weight_decay": DECAY}
    if name in ("lookahead", "sam"):
        values = {"base": {**node_of(name)["base"], "weight_decay": DECAY}}  # type: ignore[dict-item]
    if name in ("rprop", "lbfgs"):  # have no weight decay
        values = {}
    spared = {}
    for word in ("auto", True, False):
        optimizer = Groups(no_decay=word).make(model, lambda params: made(name, params, **values))
        decays = told_by_name(optimizer, model, "weight_decay")
        spared[word] = {key for key, decay in decays.items() if not decay}
    vectors = {"blocks.0.bias", "blocks.1.weight", "blocks.1.bias", "blocks.2.bias", "head.bias"}
    if not values:
        return
    assert spared == {"auto": vectors if name in DECOUPLED else set(), True: vectors, False: set()}


def test_the_decay_of_an_optimizer_inside_another_counts() -> None:
    for outer, name in itertools.product(("lookahead", "sam"), ("sgdw", "momentum")):
        base = {**node_of(name), "_partial_": True}
        optimizer = made(outer, [nn.Parameter(torch.zeros(1))], base=base, lr=LR)
        assert decoupled(optimizer) == (name == "sgdw")


@pytest.mark.parametrize("outer", ["lookahead", "sam"])
def test_an_optimizer_of_one_rate_is_refused_layer_decay_inside_another_too(outer: str) -> None:
    base = {**node_of("prodigy"), "_partial_": True}
    with pytest.raises(ConfigError, match="layer_decay: Prodigy takes one step with all weights"):
        Groups(layer_decay=0.5).make(Stack(), lambda params: made(outer, params, base=base, lr=LR))


def test_where_nothing_differs_the_optimizer_is_given_plain_parameters() -> None:
    given = []

    def keeps(params: Any) -> Optimizer:
        given.append(params)
        return SGD(params, lr=LR)

    Groups().make(network(), keeps)
    assert isinstance(given[-1], Trainable)


# -------------------------------------------------------------------------------------------------------------- rates


def test_the_rate_of_a_layer_falls_with_its_distance_from_the_output() -> None:
    model = Stack()
    optimizer = Groups(layer_decay=0.5).make(model, adamw)
    rates = {name.rpartition(".")[0]: rate for name, rate in told_by_name(optimizer, model, "lr").items()}
    assert rates == {"head": LR, "blocks.2": LR / 2, "blocks.1": LR / 4, "blocks.0": LR / 8, "embed": LR / 16}
    assert optimizer.param_groups[0]["lr"] == LR, "what is logged as lr is the rate that was typed"


def test_a_weight_follows_the_first_rule_that_matches_it() -> None:
    rules = {
        "own": {"match": ["blocks.0.*", "*.bias"], "lr": 0.5, "weight_decay": 0.3},
        "blocks": {"lr_factor": 0.1, "2": {"freeze": True}},
    }
    model = Stack()
    optimizer = Groups(layer_decay=0.5, rules=rules).make(model, adamw)
    factors = {"embed.weight": 1 / 16, "blocks.1.weight": 0.1 / 4, "blocks.2.weight": 1 / 2, "head.weight": 1.0}
    rates = dict.fromkeys((name for name, _ in model.named_parameters()), 0.5) | {k: LR * f for k, f in factors.items()}
    assert told_by_name(optimizer, model, "lr") == pytest.approx(rates)
    assert told_by_name(optimizer, model, "name") == {
        "embed.weight": "embed", "blocks.0.weight": "own", "blocks.0.bias": "own", "blocks.1.weight": "blocks/blocks.1",
        "blocks.1.bias": "own", "blocks.2.weight": "blocks.2/blocks.2", "blocks.2.bias": "own",
        "head.weight": "head", "head.bias": "own",
    }  # fmt: skip
    decays = told_by_name(optimizer, model, "weight_decay")
    assert (decays["head.bias"], decays["head.weight"], decays["blocks.1.weight"]) == (0.3, DECAY, 0.0)
    assert [group["name"] for group in optimizer.param_groups].count("own") == 1, "no layers where the rate is given"
    frozen = told_by_name(optimizer, model, "freeze")
    assert [name for name in frozen if frozen[name]] == ["blocks.2.weight"]


@pytest.mark.parametrize("name", OTHERS)
def test_the_first_step_of_every_optimizer_follows_the_rates_of_the_groups(name: str) -> None:
    """A tenth of the rate gives a tenth of the move, and each layer counts by its distance."""
    moves = []
    for groups in (Groups(), Groups(layer_decay=0.5, rules={"8": {"lr_factor": 0.1}})):
        model = convolutional()
        optimizer = groups.make(model, lambda params: made(name, params))
        start = {key: p.detach().clone() for key, p in model.named_parameters()}

        def evaluate(model: nn.Module = model, optimizer: Optimizer = optimizer) -> None:
            optimizer.zero_grad()
            model.eval()(torch.ones(4, 3)).square().sum().backward()

        for _ in range(2 if name == "soap" else 1):  # its first step only looks
            evaluate()
            optimizer.step(*([evaluate] if needs_closure(optimizer) else []))
            optimizer.zero_grad()
        moves.append({key: (p.detach() - start[key]).norm().item() for key, p in model.named_parameters()})
    whole, less = moves
    factors = {"0.weight": 1 / 8, "2.weight": 1 / 4, "3.weight": 1 / 2, "8.weight": 0.1, "8.bias": 0.1}
    power = 2 / 3 if name == "madgrad" else 1
    for key, factor in factors.items():
        assert less[key] == pytest.approx(whole[key] * factor**power, rel=1e-2), key
        assert whole[key] > 0


def test_the_rate_that_adabound_closes_in_on_follows_too() -> None:
    model = Stack()
    rules = {"head": {"lr_factor": 0.1}}
    optimizer = Groups(rules=rules).make(model, lambda params: made("adabound", params, gamma=1e9))
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moves = {name: (start[name] - p).detach().mean().item() for name, p in model.named_parameters()}
    assert moves["head.weight"] == pytest.approx(moves["embed.weight"] / 10, rel=1e-3)


def test_the_highest_rate_of_a_cycle_keeps_the_ratio_of_the_groups() -> None:
    model = Stack()
    optimizer = Groups(rules={"embed": {"lr_factor": 0.1}}).make(model, lambda p: SGD(p, lr=LR, momentum=0.9))
    lrs = simulate(lambda o: schedules.onecycle(o, 20, max_lr=0.5), optimizer, 20, 5).lrs
    assert [max(line) for line in lrs] == pytest.approx([0.5, 0.05], rel=1e-2)


# ------------------------------------------------------------------------------------------------------------- freeze


@pytest.mark.parametrize("freeze", ["5steps", "1epoch", "50%", "20epochs", True, "never", False])
def test_weights_are_frozen_for_as_long_as_told_and_train_from_then_on(freeze: Any) -> None:
    trainer = trains(Groups(rules={"0": {"freeze": freeze}}), epochs=3)
    until = {"5steps": 5, "1epoch": 4, "50%": 6, "20epochs": 12, True: 12, "never": 0, False: 0}[freeze]
    weight = trainer.model[0].weight
    before, still = weight.detach().clone(), []
    while trainer.progress.epoch < 3:
        for group in trainer.loader.groups(trainer.progress.epoch, 0):
            trainer.train_group(group)
            still.append(torch.equal(weight, before))
        trainer.progress.finish_epoch()
    assert still == [True] * until + [False] * (12 - until)


def test_frozen_weights_are_in_no_norm_no_state_and_no_decay_and_their_logged_rate_is_zero() -> None:
    groups = Groups(rules={"0": {"freeze": "1epoch", "lr_factor": 0.5}})
    trainer = trains(
        groups, model=network(dropout=0.0), schedule=lambda o: schedules.linear(o, 12), clip=Clip(norm=0.1)
    )
    batch = next(iter(trainer.loader.groups(0)))
    loss = trainer.task.loss(trainer.model, batch[0])
    norms = [
        g.norm() for g in torch.autograd.grad(loss, [*trainer.model[1].parameters(), *trainer.model[4].parameters()])
    ]
    trainer.model[1].reset_running_stats()
    trainer.fit()
    rows = recorder_of(trainer).got
    assert rows[0]["train/grad_norm"] == pytest.approx(torch.stack(norms).norm().item(), rel=1e-5)
    assert [row["lr/0"] for row in rows] == pytest.approx([0.0] * 4 + [LR / 2 * (1 - n / 12) for n in range(4, 12)])
    assert (
        [row["lr/rest"] for row in rows]
        == [row["lr"] for row in rows]
        == pytest.approx([LR * (1 - n / 12) for n in range(12)])
    )
    assert trainer.update.optimizer.state[trainer.model[0].weight]["step"] == 8


@pytest.mark.parametrize("name", OTHERS)
def test_every_optimizer_goes_on_with_the_same_bits_while_weights_are_frozen_and_across_the_thaw(
    name: str, tmp_path: Path
) -> None:
    def begin(folder: str, stop: int = 0, **options: Any) -> Trainer:
        model = convolutional()
        groups = Groups(rules={"2": {"freeze": "7steps"}, "8": {"lr_factor": 0.1}})
        optimizer = groups.make(model, lambda params: made(name, params))
        task = StopAt(stop) if stop else Regression()
        return make_trainer(model=model, optimizer=lambda _: optimizer, task=task, folder=tmp_path / folder, **options)

    whole, start = begin("whole"), convolutional()[2].weight
    whole.fit()
    calls = 2 if name == "sam" else 1  # of the model in an update
    for stop, updates in ((4, 4), (7, 3), (9, 2)):  # stopped after that step, and gone on with
        cut = begin("cut", updates * calls, resume="auto")
        assert cut.fit().exit_code == 143
        assert cut.progress.step == stop
        assert torch.equal(cut.model[2].weight, start) == (stop <= 7)
    begin("cut", resume="must").fit()
    assert newest(tmp_path / "cut") == newest(tmp_path / "whole")
    assert not torch.equal(whole.model[2].weight, start)
    counts = {group["name"]: group.get("step", 5) for group in whole.update.optimizer.param_groups}
    assert counts["2"] == (0 if name == "madgrad" else 5), (
        "averages that a group's updates correct are corrected by those that it had"
    )


def test_groups_written_by_hand_are_named_and_thaw_too() -> None:
    def by_hand(model: Any) -> Optimizer:
        first, *rest = model.parameters()
        return SGD([{"params": rest}, {"params": [first], "name": "first", "freeze": "2epochs", "lr": 0.02}], lr=0.05)

    trainer = trains(None, by_hand)
    trainer.fit()
    rows = recorder_of(trainer).got
    assert [row["lr/first"] for row in rows] == [0.0] * 8 + [0.02] * 4
    assert {(row["lr"], row["lr/0"]) for row in rows} == {(0.05, 0.05)}


@pytest.mark.parametrize(
    ("freeze", "words"),
    [
        (True, "param_groups: all weights are frozen for the whole run, so nothing would train"),
        ("1epoch", "param_groups: all weights are frozen for the first 1epoch, so nothing would train"),
        ("10min", "freeze of the parameter group 0: 10min is a time; use steps, epochs or %"),
        ("10", "freeze of the parameter group 0: 10 has no unit; write "),
    ],
)
def test_a_run_in_which_nothing_would_train_is_refused(freeze: Any, words: str) -> None:
    def frozen(model: Any) -> Optimizer:
        return SGD([{"params": list(model.parameters()), "freeze": freeze}], lr=LR)

    with pytest.raises(ConfigError, match=f"^{re.escape(words)}"):
        trains(None, frozen)


# ------------------------------------------------------------------------------------------------------ what is shown


def test_groups_that_differ_in_their_decay_alone_have_one_name_and_one_rate_in_the_log() -> None:
    trainer = trains(Groups())
    assert len(trainer.update.optimizer.param_groups) == 2
    trainer.fit()
    assert [name for name in recorder_of(trainer).got[0] if name.startswith("lr")] == ["lr"]


@pytest.mark.parametrize("make", [lambda o: schedules.cosine(o, 12), lambda o: schedules.onecycle(o, 12)])
def test_the_curves_of_the_groups_are_what_a_training_logs(make: Any) -> None:
    rules = {"0": {"freeze": "5steps", "lr_factor": 0.1}}
    trainer = trains(Groups(rules=rules), schedule=make)
    trainer.fit()
    model = network()
    curves = simulate(make, Groups(rules=rules).make(model, adamw), 12, 4)
    rows = recorder_of(trainer).got
    assert curves.names == ["rest", "0"]
    for name, line in zip(curves.names, curves.lrs, strict=True):
        assert [row[f"lr/{name}"] for row in rows] == line
    for name, line in zip(curves.names, curves.momenta, strict=False):
        assert [row[f"momentum/{name}"] for row in rows] == line


@pytest.mark.parametrize(
    ("groups", "line"),
    [
        (Groups(), "25 of 57 weights without weight decay"),
        (Groups(no_decay=False), None),
        (
            Groups(rules={"0": {"lr_factor": 0.1, "freeze": "2epochs"}}),
            "rest 25 weights; 0 32 weights, lr x0.1, frozen for 2epochs; 25 without weight decay",
        ),
        (
            Groups(no_decay=False, layer_decay=0.5, rules={"0": {"freeze": True}}),
            "4 9 weights; 1 16 weights, lr x0.5; 0/0 32 weights, lr x0.25, frozen",
        ),
    ],
)
def test_the_plan_says_what_differs_between_the_weights(groups: Groups, line: str | None) -> None:
    trainer = trains(groups)
    trainer.fit()
    plan = recorder_of(trainer).plan
    assert plan is not None
    assert plan.lines.get("groups") == line


def test_of_many_groups_the_plan_names_the_first_and_the_last() -> None:
    model = nn.Sequential(nn.Linear(3, 3), *(nn.Linear(3, 3) for _ in range(9)), nn.Linear(3, 1))
    trainer = trains(Groups(no_decay=False, layer_decay=0.5), model=model)
    trainer.fit()
    plan = recorder_of(trainer).plan
    assert plan is not None
    assert plan.lines["groups"].startswith("10 4 weights; 9 12 weights, lr x0.5; ")
    assert plan.lines["groups"].endswith("; 5 more; 0 12 weights, lr x0.000977")


# ------------------------------------------------------------------------------------------------------------ mistakes

MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"layer_decay": 0}, "layer_decay: 0 must be more than 0 and at most 1"),
    ({"layer_decay": 2}, "layer_decay: 2 must be more than 0 and at most 1"),
    ({"rules": {"head": 0.1}}, "rules.head: 0.1 is a value; a rule has match, lr, lr_factor, weight_decay, freeze"),
    ({"rules": {"head": {"lr_facto": 0.1}}}, "rules.head.lr_facto: there is no such key; did you mean lr_factor?"),
    ({"rules": {"head": {"lr": -1}}}, "rules.head.lr: -1 must be a number of at least 0"),
    ({"rules": {"head": {"lr": True}}}, "rules.head.lr: True must be a number of at least 0"),
    ({"rules": {"head": {"lr_factor": "x"}}}, "rules.head.lr_factor: 'x' must be a number of at least 0"),
    ({"rules": {"head": {"weight_decay": -1}}}, "rules.head.weight_decay: -1 must be a number of at least 0"),
    ({"rules": {"head": {"lr": 1, "lr_factor": 1}}}, "rules.head.lr_factor: lr is set too; only one of them can hold"),
    ({"rules": {"head": {"freeze": 2}}}, "rules.head.freeze: 2 has no unit; write rules.head.freeze=2steps or"),
    ({"rules": {"head": {"freeze": "2epoks"}}}, "rules.head.freeze: '2epoks' is not a duration"),
    ({"rules": {"head": {"freeze": "1h"}}}, "rules.head.freeze: 1h is a time; use steps, epochs or %"),
    ({"rules": {"head": {"match": 3}}}, "rules.head.match: 3 is no pattern of names such as 'encoder.*'"),
    ({"rules": {"head": {"match": []}}}, "rules.head.match: [] is no pattern of names"),
    ({"rules": {"rest": {"match": "head"}}}, "rules.rest: rest is the name of what no rule matches; use another"),
    ({"rules": {"haed": {"lr": 1}}}, "rules.haed: matches no weight; did you mean head?"),
    ({"rules": {"blocks": {"7": {"lr": 1}}}}, "rules.blocks.7: matches no weight; did you mean blocks"),
    ({"rules": {"a": {"match": "haed.*"}}}, "rules.a: match 'haed.*' matches no weight; did you mean head?"),
    ({"rules": {"a": {"match": ["head", "x"]}}}, "rules.a: match 'x' matches no weight; known: embed, "),
    ({"rules": {"head": {}, "b": {"match": "head.bias"}}},
     "rules.b: all that it matches is taken by rules.head before it; put it first"),
    ({"rules": {"fixed": {"lr": 1}}}, "rules.fixed: matches only what the model itself has frozen"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "words"), MISTAKES)
def test_a_mistake_in_a_rule_is_told_by_its_key(settings: dict[str, Any], words: str) -> None:
    model = Stack()
    model.fixed = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ConfigError) as told:
        Groups(**settings).make(model, adamw)
    (problem,) = told.value.problems
    assert problem.startswith(words)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as told:
        Groups(layer_decay=0, rules={"a": {"lr": -1, "x": 1}, "b": {"freeze": "x"}})
    assert len(told.value.problems) == 4
    with pytest.raises(ConfigError) as told:
        Groups(rules={"a": {"lr": 1}, "b": {}, "head": {"weight_decay": 1}}).make(Stack(), lambda p: made("rprop", p))
    assert [problem.partition(":")[0] for problem in told.value.problems] == [
        "rules.a", "rules.b", "rules.head.weight_decay",
    ]  # fmt: skip


def test_an_optimizer_with_one_rate_for_all_is_refused_where_rates_differ() -> None:
    groups = Groups(layer_decay=0.5, rules={"8": {"lr_factor": 0.1}, "2": {"freeze": True}})
    with pytest.raises(ConfigError) as told:
        groups.make(convolutional(), lambda params: made("prodigy", params))
    assert [problem.partition(": Prodigy takes one step with all w")[0] for problem in told.value.problems] == [
        "rules.8.lr_factor", "rules.2.freeze", "layer_decay",
    ]  # fmt: skip
    groups = Groups(rules={"8": {"weight_decay": 0.1}})
    trainer = trains(groups, lambda params: made("prodigy", params), convolutional())
    trainer.fit()
    assert len({group["d"] for group in trainer.update.optimizer.param_groups}) == 1


def test_a_model_of_dense_weights_is_refused_by_sparse_adam_in_groups_too() -> None:
    with pytest.raises(ConfigError, match=r"^optimizer: SparseAdam .* 9 of 9 weights are dense"):
        Groups(layer_decay=0.5).make(Stack(), lambda params: made("sparse_adam", params))


def test_muon_divides_each_group_into_its_matrices_and_the_rest() -> None:
    model = Stack()
    plain = Groups(no_decay=False).make(model, lambda params: made("muon", params))
    assert [group["name"] for group in plain.param_groups] == ["muon", "adamw"]
    spared = Groups().make(model, lambda params: made("muon", params))
    assert [(group["name"], group["weight_decay"]) for group in spared.param_groups] == [
        ("muon", 0.1), ("adamw", 0.1), ("adamw", 0.0),
    ]  # fmt: skip
    ruled = Groups(rules={"head": {"lr_factor": 0.5}}).make(model, lambda params: made("muon", params))
    assert [(group["name"], group["lr"], "momentum" in group) for group in ruled.param_groups] == [
        ("rest", 0.001, True), ("rest", 0.001, False), ("rest", 0.001, False),
        ("head", 0.0005, True), ("head", 0.0005, False),
    ]  # fmt: skip
    assert trainable(model).owners.keys() == told_by_name(ruled, model, "lr").keys()


# ------------------------------------------------------------------------------------------------ on the command line

DIGITS = ["experiment=digits", "model=mlp", "debug=quick"]


def composed(*words: str) -> Any:
    return check(_hydra.implied([*DIGITS, *words]))


@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_a_rule_is_typed_with_or_without_a_plus_sign(sign: str) -> None:
    keys = [f"{sign}param_groups.rules.stages.{key}" for key in ("0.freeze=1epoch", "lr_factor=0.1")]
    cfg = composed("model=cnn", *keys)
    optimizer = build(cfg).update.optimizer
    groups = {group["name"]: (group["lr"], group.get("freeze")) for group in optimizer.param_groups}
    assert list(groups) == ["rest", "stages.0", "stages"]
    assert groups["stages.0"] == (groups["rest"][0], "1epoch")
    assert groups["stages"] == (pytest.approx(groups["rest"][0] / 10), None)


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("param_groups.rules.layers.lr_facto=0.1", "param_groups.rules.layers.lr_facto: there is no such key; did you"),
        (
            "param_groups.rules.layers.freeze=2",
            "param_groups.rules.layers.freeze: 2 has no unit; write param_groups.rules",
        ),
        ("param_groups.rules.layrs.freeze=true", "param_groups.rules.layrs: matches no weight; did you mean layers?"),
        ("param_groups.layer_decay=2", "param_groups.layer_decay: 2 must be more than 0 and at most 1"),
        ("param_groups.layer_decy=1", "param_groups.layer_decy: trainer.optim.Groups takes no such argument; did you"),
        (
            "param_groups.no_decay=flase",
            "param_groups.no_decay: 'flase' is neither true nor false, and 'flase' is not one",
        ),
        ("param_groups=non", "param_groups: there is no 'non'; did you mean none?"),
    ],
)
def test_a_wrong_word_is_told_with_its_full_key(word: str, words: str) -> None:
    with pytest.raises(ConfigError) as told:
        foresee(composed(word))
    (problem,) = told.value.problems
    assert words in problem


def test_the_curves_of_rules_are_foreseen() -> None:
    curves, known = foresee(composed("param_groups.rules.layers.7.freeze=1epoch", "scheduler=none"))
    assert known
    assert curves.names == ["rest", "layers.7"]
    assert curves.lrs[1][: curves.steps_per_epoch + 1] == [0.0] * curves.steps_per_epoch + [curves.lrs[0][0]]


def test_a_freeze_can_be_made_longer_when_a_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("param_groups: {rules: {head: {freeze: 1epoch}}}\n", encoding="utf-8")
    cfg = apply(path, _hydra.implied(["param_groups.rules.head.freeze=2epochs"]))
    assert cfg.param_groups.rules.head.freeze == "2epochs"


def test_off_is_one_group() -> None:
    cfg = composed("param_groups=none")
    assert len(build(cfg).update.optimizer.param_groups) == 1
    assert len(build_optimizer(composed(), build(cfg).model).param_groups) == 2
