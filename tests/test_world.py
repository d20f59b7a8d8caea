"""The device and the threads of a process, and a world of one that answers like many."""

from __future__ import annotations

import dataclasses
import os

import pytest
import torch

from trainer.errors import ConfigError
from trainer.world import World


def test_auto_takes_the_best_device_there_is() -> None:
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert World().device.type == expected
    assert World("cpu").device == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", 7, None])
def test_a_device_that_is_not_there_is_refused_by_its_key(name: object) -> None:
    with pytest.raises(ConfigError, match=r"^world\.device: .*cannot be used here.*use auto, cpu or cuda:0"):
        World(name)


@pytest.mark.parametrize("threads", [0, -1, 2.0, "4", True, None, 5000])
def test_a_number_of_threads_that_is_none_is_refused_by_its_key(threads: object) -> None:
    with pytest.raises(ConfigError, match=r"^world\.threads: .* use auto or 1 to 1024"):
        World("cpu", threads)


def test_auto_takes_a_number_of_threads_that_this_machine_has() -> None:
    assert 1 <= World("cpu").threads <= (os.cpu_count() or 1)


def test_apply_sets_the_threads_of_the_process() -> None:
    before = torch.get_num_threads()
    try:
        World("cpu", before + 1).apply()
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_world_of_one_is_the_main_process_and_sums_to_itself() -> None:
    world, totals = World("cpu"), {"loss": torch.tensor([2.0, 3.0])}
    assert world.main
    assert (world.rank, world.size) == (0, 1)
    assert torch.equal(world.sum(totals)["loss"], totals["loss"])
    assert (world.any(True), world.any(False)) == (True, False)


def test_a_world_cannot_be_changed_and_says_what_it_is() -> None:
    world = World("cpu", 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        world.threads = 2  # type: ignore[misc]
    assert world.describe().startswith("cpu, 1 thread of ")
    assert World("cpu", 2).describe().startswith("cpu, 2 threads of ")


def test_going_on_takes_the_number_of_threads_that_a_run_was_started_with_unless_another_is_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = torch.get_num_threads()
    try:
        follows, insists = World("cpu"), World("cpu", threads=1)
        then = {**follows.facts(), "threads": 3}
        follows.follow(then)
        assert (follows.threads, torch.get_num_threads(), caplog.text) == (3, 3, "")
        insists.follow(then)
        assert insists.threads == 1
        assert "world.threads was 3 and is 1 now: the bits may differ from here on" in caplog.text
    finally:
        torch.set_num_threads(before)


def test_going_on_elsewhere_is_told(caplog: pytest.LogCaptureFixture) -> None:
    world = World("cpu", threads=1)
    world.follow(world.facts())
    world.follow({})
    assert caplog.text == ""
    world.follow({"threads": 1, "device": "NVIDIA A100", "torch": "2.6.0"})
    assert "world.device was NVIDIA A100 and is cpu now; torch was 2.6.0 and is" in caplog.text
