"""Snapshots of parts, putting them back, and the random generators."""

from __future__ import annotations

import enum
import random
from collections import OrderedDict, defaultdict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.small import bits, timeless
from trainer.errors import CheckpointError
from trainer.state import Rng, Stateful, mix, restore, seed_generators, snapshot


class Part:
    def __init__(self, state: Any = None) -> None:
        self.state = {} if state is None else state

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = state


def test_training_on_after_a_snapshot_does_not_change_it() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)

    def train() -> None:
        optimizer.zero_grad(set_to_none=False)
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()

    train()
    taken = snapshot({"model": model, "optimizer": optimizer})
    before, weight = timeless(taken), taken["model"]["0.weight"]
    train()
    assert timeless(taken) == before
    assert not torch.equal(weight, model[0].weight)
    live = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    assert not live & {tensor.untyped_storage().data_ptr() for tensor in taken["model"].values()}
    assert not weight.requires_grad


def test_a_snapshot_is_written_into_the_memory_of_the_one_before_where_it_fits() -> None:
    memory: list[torch.Tensor] = []
    part = Part({"a": torch.zeros(4), "b": torch.zeros(2, 3)})
    first = snapshot({"part": part}, memory)["part"]
    part.state = {"a": torch.ones(4), "b": torch.ones(3, 2).T, "c": torch.ones(5)}
    second = snapshot({"part": part}, memory)["part"]
    assert second["a"].data_ptr() == first["a"].data_ptr()
    assert second["b"].data_ptr() != first["b"].data_ptr()
    assert all(torch.equal(second[name], part.state[name]) for name in "abc")
    assert [tensor.data_ptr() for tensor in memory] == [second[name].data_ptr() for name in "abc"]
    part.state["a"].zero_()
    assert torch.equal(second["a"], torch.ones(4))


def test_a_snapshot_shares_no_container_with_the_part() -> None:
    part = Part({"rows": [{"step": 1}], "seen": {1, 2}})
    taken = snapshot({"part": part})
    part.state["rows"][0]["step"] = 2
    part.state["seen"].add(3)
    assert taken == {"part": {"rows": [{"step": 1}], "seen": {1, 2}}}


def test_a_view_of_a_large_tensor_is_kept_without_the_rest() -> None:
    taken = snapshot({"part": Part({"view": torch.zeros(1000)[:2], "wide": torch.zeros(1).expand(100)})})
    assert taken["part"]["view"].untyped_storage().nbytes() == 8
    assert torch.equal(taken["part"]["wide"], torch.zeros(100))


PLAIN = {
    "none": None, "flag": True, "count": 3, "big": 1 << 62, "share": 0.5, "nan": float("inf"), "name": "x",
    "list": [1, [2]], "tuple": (1, (2, "b")), "set": {1, 2}, "dictionary": {"a": {1: 2, (1, 2): 3}},
    "dtype": torch.float16, "device": torch.device("cpu"), "size": torch.Size([1, 2]),
    "half": torch.ones(2, dtype=torch.bfloat16), "empty": torch.empty(0), "scalar": torch.tensor(3),
    "ordered": OrderedDict(a=1), "default": defaultdict(list, {"a": [1]}),
}  # fmt: skip


def test_whatever_a_snapshot_takes_can_be_read_back_without_running_code(tmp_path: Path) -> None:
    taken = snapshot({"part": Part(PLAIN), "rng": Rng()})
    torch.save(taken, tmp_path / "state.pt")
    found = torch.load(tmp_path / "state.pt", weights_only=True)
    assert timeless(found) == timeless(taken)
    assert type(found["part"]["default"]) is dict


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    "value",
    [np.float64(1.0), np.zeros(2), deque([1]), Colour.RED, object(), frozenset({1}), b"x", 1j, len, Path("x")],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_could_not_be_read_back_is_refused_by_its_place(value: Any) -> None:
    with pytest.raises(CheckpointError, match=r"^hook:mine\.a\[1\]\.b: a .*cannot be saved"):
        snapshot({"hook:mine": Part({"a": [0, {"b": value}]})})


@pytest.mark.parametrize("key", [np.int64(1), Colour.RED, np.str_("a")], ids=lambda key: type(key).__name__)
def test_a_key_that_could_not_be_read_back_is_refused_too(key: Any) -> None:
    """A hook that counts by class has such keys; `torch.load(weights_only=True)` refuses the whole file for one."""
    with pytest.raises(CheckpointError, match=r"^hook:mine\.counts"):
        snapshot({"hook:mine": Part({"counts": {key: 1}})})


def test_a_snapshot_is_put_back() -> None:
    source, target = nn.Linear(2, 2), nn.Linear(2, 2)
    taken = snapshot({"model": source, "other": Part({"n": 3})})
    other = Part()
    restore({"other": other, "model": target}, taken)
    assert torch.equal(source.weight, target.weight)
    assert other.state == {"n": 3}


def test_a_part_that_changes_what_it_is_given_does_not_change_the_snapshot() -> None:
    class Greedy(Part):
        def load_state_dict(self, state: Any) -> None:
            state["list"].clear()
            state.pop("n")

    taken = {"a": {"n": 1, "list": [1]}}
    restore({"a": Greedy()}, taken)
    assert taken == {"a": {"n": 1, "list": [1]}}


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        (["model"], r"it lacks 'ema'"),
        (["model", "ema", "old"], r"it holds 'old', which this run has not"),
        (["model", "emma"], r"it lacks 'ema'; it holds 'emma'.*\('ema' may be its 'emma'\)"),
        ([], r"it lacks 'model', 'ema'"),
    ],
)
def test_a_missing_or_surplus_part_is_an_error_that_names_it_and_nothing_is_restored(
    saved: list[str], words: str
) -> None:
    model, ema = Part("before"), Part("before")
    with pytest.raises(CheckpointError, match=words):
        restore({"model": model, "ema": ema}, {name: {} for name in saved})
    assert (model.state, ema.state) == ("before", "before")


def test_a_part_that_does_not_fit_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"does not fit this run: model: .*(\n.*)*size mismatch"):
        restore({"model": nn.Linear(2, 2)}, snapshot({"model": nn.Linear(3, 2)}))


def test_what_has_both_methods_is_a_part() -> None:
    assert isinstance(Part(), Stateful)
    assert not isinstance(object(), Stateful)


# ---------------------------------------------------------------------------------------------------- randomness


def draws() -> list[Any]:
    return [bits(torch.rand(3)), np.random.rand(3).tolist(), np.random.randn(), random.random(), random.gauss(0, 1)]


def test_the_generators_go_on_where_they_were() -> None:
    seed_generators(3)
    np.random.randn()  # numpy now holds the second of a pair of normal numbers
    random.gauss(0, 1)
    taken = snapshot({"rng": Rng()})
    first = draws()
    draws()
    restore({"rng": Rng()}, taken)
    assert draws() == first


def test_a_seed_decides_every_generator() -> None:
    def after(seed: int) -> list[Any]:
        seed_generators(seed)
        return draws()

    assert after(1 << 62) == after(1 << 62)
    assert all(a != b for a, b in zip(after(5), after(6), strict=True))


def test_seeding_torch_here_is_what_manual_seed_does() -> None:
    seed_generators(1234)
    mine = torch.rand(5)
    torch.manual_seed(1234)
    assert torch.equal(mine, torch.rand(5))


def test_a_mixed_seed_depends_on_each_number_and_on_their_order() -> None:
    seen = {mix(a, b, c) for a in range(12) for b in range(12) for c in range(12)}
    assert len(seen) == 12**3
    assert all(0 <= seed < 1 << 63 for seed in seen)
    assert len({mix(), mix(0), mix(0, 0), mix(1), mix(-1), mix(1 << 63)}) == 6


def test_neighbouring_numbers_give_seeds_that_differ_in_half_their_bits() -> None:
    flips = [(mix(7, n) ^ mix(7, n + 1)).bit_count() for n in range(500)]
    assert 30 < sum(flips) / len(flips) < 33


def test_a_mixed_seed_is_the_same_for_ever() -> None:
    """The order of the data of every run there is depends on it."""
    assert (mix(0), mix(0, 1, 2), mix(42, 3)) == (3980143261097177850, 7862180293416889277, 7285557717572816403)
