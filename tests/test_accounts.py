"""What is allowed and probably not meant stands in the plan; a plain run has nothing of the kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.small import make_trainer, network, points
from trainer.accounts import in_words, plan
from trainer.errors import OutOfMemoryError
from trainer.monitor import Patience


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 12}, "batch_size=12 is more than the 11 training samples"),
        ({"accumulate": 5}, "accumulate=5 is more than the 4 batches of an epoch"),
        ({"evaluate_every": "9epochs", "patience": Patience(patience=2)}, "cannot act: 1 evaluation in the whole run"),
        ({"evaluate_every": "6steps", "patience": Patience(patience=2)}, "cannot act: 2 evaluations in the whole run"),
    ],
    ids=["batch size", "accumulate", "no evaluation", "few evaluations"],
)
def test_what_is_probably_not_meant_is_pointed_out(changes: dict[str, Any], words: str) -> None:
    assert words in plan(make_trainer(**changes)).lines["attention"]


@pytest.mark.parametrize("changes", [{}, {"patience": Patience(patience=5)}, {"accumulate": 4}, {"batch_size": 11}])
def test_a_plain_run_and_a_short_try_have_nothing_to_point_out(changes: dict[str, Any]) -> None:
    assert "attention" not in plan(make_trainer(**changes)).lines


def test_a_run_that_goes_on_with_another_length_says_what_that_does_to_the_learning_rate(tmp_path: Path) -> None:
    make_trainer(folder=tmp_path).fit()
    longer = make_trainer(folder=tmp_path, resume="must", epochs=5)
    assert plan(longer).lines["length"].startswith("20 steps now, 12 before; from here on the learning rate is that of")
    assert "length" not in plan(make_trainer(folder=tmp_path, resume="must")).lines


def test_what_a_run_is_made_on_and_of_stands_in_its_config() -> None:
    model = network()
    model[0].bias.requires_grad_(False)
    facts = plan(make_trainer(model=model, config={"seed": 3})).config
    assert facts["seed"] == 3
    run = facts["run"]
    assert (run["parameters"], run["trainable"], run["steps"]) == (57, 49, 12)
    assert (run["samples"], run["val_samples"], run["torch"]) == (11, 5, torch.__version__)
    assert "cpu" in run["device"]
    assert plan(make_trainer(data=(points(), None))).config["run"]["val_samples"] == 0


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")]
)
def test_a_lack_of_memory_is_told_with_what_to_type(error: Exception) -> None:
    told = in_words(make_trainer(batch_size=4, accumulate=3), error)
    assert isinstance(told, OutOfMemoryError)
    assert "batch_size=2 accumulate=6 is about the same effective batch" in str(told)
    assert "batch_size=2 accumulate=full is" in str(in_words(make_trainer(batch_size=4, accumulate="full"), error))
    assert "batch_size" not in str(in_words(make_trainer(batch_size=1), error))


def test_what_torch_says_of_memory_on_the_cpu_is_known() -> None:
    with pytest.raises(RuntimeError) as real:
        torch.empty(10**13)
    told = str(in_words(make_trainer(), real.value))
    assert told.splitlines()[0] == "out of memory (you tried to allocate 40000000000000 bytes)."


def test_any_other_error_stays_as_it_is() -> None:
    error = RuntimeError("size mismatch")
    assert in_words(make_trainer(), error) is error
