"""receipt.jsonl: the same for the same run however it came about, and another one for each thing that changes bits."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from tests.small import Regression, StopAt, make_trainer, network, points
from trainer.data.base import Data
from trainer.data.loader import Loader
from trainer.receipt import Receipt, of_generators, of_weights

Lines = dict[int, dict[str, Any]]
CPU = torch.device("cpu")


def lines(folder: Path) -> Lines:
    found = [json.loads(line) for line in (folder / "receipt.jsonl").read_text().splitlines()]
    assert [line["step"] for line in found] == sorted({line["step"] for line in found})
    return {line["step"]: line for line in found}


def trained(folder: Path, **changes: Any) -> Lines:
    make_trainer(folder=folder, **changes).fit()
    return lines(folder)


def differing(a: Lines, b: Lines) -> dict[int, set[str]]:
    assert a.keys() == b.keys()
    return {step: {key for key in a[step] if a[step][key] != b[step][key]} for step in a}


def test_a_line_is_written_before_the_first_step_and_at_each_evaluation(tmp_path: Path) -> None:
    found = trained(tmp_path / "a")
    assert list(found) == [0, 4, 8, 12]
    assert found[0]["generators"] is None
    values = [value for line in found.values() for key, value in line.items() if key != "step" and value is not None]
    assert len(set(values)) == len(values) == 11
    assert {len(value) for value in values} == {16}


@pytest.mark.parametrize(
    "changes", [{"log_every": "3steps"}, {"checkpoint_every": "1step"}, {"evaluate_every": "2steps"}], ids=str
)
def test_how_often_something_is_done_changes_no_line(changes: dict[str, str], tmp_path: Path) -> None:
    usual, other = trained(tmp_path / "a"), trained(tmp_path / "b", **changes)
    assert {step: other[step] for step in usual} == usual


def test_a_run_that_was_stopped_inside_an_epoch_has_the_file_of_one_that_never_was(tmp_path: Path) -> None:
    """Lines of steps that are done again, and half a line, are cut off."""
    trained(tmp_path / "whole")
    make_trainer(folder=tmp_path / "cut", task=StopAt(7)).fit()
    assert list(lines(tmp_path / "cut")) == [0, 4]
    with open(tmp_path / "cut/receipt.jsonl", "a") as file:
        file.write('{"step": 8, "weights": "of a life that was killed"}\n{"step": 1')
    make_trainer(folder=tmp_path / "cut", resume="must").fit()
    assert (tmp_path / "cut/receipt.jsonl").read_bytes() == (tmp_path / "whole/receipt.jsonl").read_bytes()


def test_another_order_shows_in_the_batches_of_every_later_line(tmp_path: Path) -> None:
    usual, other = trained(tmp_path / "a"), trained(tmp_path / "b", seed=1)
    assert differing(usual, other)[0] == set()
    assert all("batches" in keys for step, keys in differing(usual, other).items() if step)


def test_other_weights_alone_show_in_the_weights_alone(tmp_path: Path) -> None:
    model = network()
    with torch.no_grad():
        model[0].bias[3].mul_(1 + 2**-20)
    found = differing(trained(tmp_path / "a"), trained(tmp_path / "b", model=model))
    assert set(map(frozenset, found.values())) == {frozenset({"weights"})}


class Draws(Regression):
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        result = super().loss(model, batch)
        np.random.random()
        return result


def test_a_draw_more_shows_in_the_generators(tmp_path: Path) -> None:
    """Of numpy, which nothing here draws from, so that weights are the same."""
    found = differing(trained(tmp_path / "a"), trained(tmp_path / "b", task=Draws()))
    assert found == {0: set(), 4: {"generators"}, 8: {"generators"}, 12: {"generators"}}


@pytest.mark.parametrize("workers", [0, 1])
def test_the_batches_are_those_that_are_handed_out_and_where_they_are_cut(workers: int, tmp_path: Path) -> None:
    heard: dict[str, list[list[int]]] = {"all": [], "rest": []}
    loader = Loader(list(range(11)), 3, workers=workers)  # type: ignore[arg-type]
    for name, start in {"all": 0, "rest": 2}.items():
        loader.listener = lambda indices, into=heard[name]: into.append(indices.tolist())  # type: ignore[misc]
        given = [batch.tolist() for batch in loader.batches(epoch=1, start=start)]
        assert heard[name] == given
    loader.close()
    assert heard["rest"] == heard["all"][2:]


def test_every_batch_before_counts_and_where_it_was_cut() -> None:
    orders = [[[0, 1, 2], [3, 4, 5]], [[0, 1], [2, 3, 4, 5]], [[0, 1, 2, 3, 4, 5]], [[0, 2, 1], [3, 4, 5]]]
    digests = set()
    for batches in orders:
        receipt = Receipt(None, nn.Identity(), Loader(points(6), 3), CPU)
        receipt.known = True
        for indices in batches:
            receipt.see(torch.tensor(indices))
        digests.add(receipt.state_dict()["batches"])
    assert len(digests) == len(orders)


class Numbers(IterableDataset[Any]):
    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Any:
        return iter(points(6))


def test_a_stream_has_no_indices_and_the_rest_is_told(tmp_path: Path) -> None:
    found = trained(tmp_path / "a", data=Data(Numbers()), epochs=1)
    assert [line["batches"] for line in found.values()] == [None, None]
    assert found[2]["weights"] != found[0]["weights"]


def test_a_run_that_began_without_a_receipt_goes_on_and_says_that_its_batches_are_not_known(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    trainer = make_trainer(folder=tmp_path / "old", task=StopAt(6))
    del trainer.parts["receipt"], trainer.parts["pruning"]
    trainer.fit()
    (tmp_path / "old/receipt.jsonl").unlink()
    found = [make_trainer(folder=tmp_path / "old", resume="must").fit() and lines(tmp_path / "old")]
    assert found == [{step: {**whole[step], "batches": None} for step in (8, 12)}]


def test_a_file_that_cannot_be_written_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a/receipt.jsonl").mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        assert make_trainer(folder=tmp_path / "a").fit().state == "finished"
    assert "the line of step 12 is left out" in caplog.text


def test_weights_of_every_kind_count_with_their_names_shapes_and_types() -> None:
    a = torch.arange(6.0)
    kinds = [{"a": a}, {"b": a}, {"a": a.view(2, 3)}, {"a": a.int()}, {"a": a.bfloat16()}, {"a": (2 * a).to_sparse()},
             {"a": a.flip(0)}, {"a": torch.tensor(1.0)}, {"a": torch.tensor([])}, {"a": -a * 0}]  # fmt: skip
    assert len({of_weights(kind) for kind in kinds}) == len(kinds)
    assert of_weights({"a": a.view(2, 3).T.contiguous().T}) == of_weights({"a": a.view(2, 3)})
    large = {"a": torch.zeros(1 << 20), "b": torch.ones(5)}
    assert of_weights(large) == of_weights({name: value.clone() for name, value in large.items()})
    assert of_weights(large) != of_weights({**large, "b": torch.zeros(5)})


def test_a_draw_or_a_seed_of_any_generator_changes_their_digest() -> None:
    import random

    before = of_generators(CPU)
    seeds = [lambda n=n: np.random.seed(n) for n in (5, 6)]  # after both the position in the numbers is the same
    for draw in (lambda: torch.rand(1), np.random.random, *seeds, random.random):
        draw()
        assert of_generators(CPU) != before
        before = of_generators(CPU)


def test_smaller_micro_batches_have_the_same_batches(tmp_path: Path) -> None:
    whole, parts = trained(tmp_path / "whole"), trained(tmp_path / "parts", micro_batch=2)
    assert [line["batches"] for line in parts.values()] == [line["batches"] for line in whole.values()]
