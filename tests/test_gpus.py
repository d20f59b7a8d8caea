"""GPUs, handed out by locks on files: no GPU is needed for that."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trainer.gpus import Gpus, visible


def test_each_gpu_is_handed_out_once_by_all_sweeps_and_comes_back(tmp_path: Path) -> None:
    one, other = Gpus(["7", "9"], folder=tmp_path), Gpus(["7", "9"], folder=tmp_path)
    first, second = one.take(), other.take()
    assert first is not None
    assert second is not None
    assert (first.gpu, second.gpu) == ("7", "9")
    assert one.take() is None
    assert other.take() is None
    first.close()
    third = other.take()
    assert third is not None
    assert third.gpu == "7"


def test_two_jobs_on_a_gpu_come_after_one_on_each(tmp_path: Path) -> None:
    gpus = Gpus(["0", "GPU-a/b"], jobs=2, folder=tmp_path)
    held = [gpus.take() for _ in range(4)]
    assert gpus.places == 4
    assert [one.gpu for one in held if one] == ["0", "GPU-a/b"] * 2
    assert gpus.take() is None


def test_a_place_is_free_though_a_forked_process_has_the_file_open(tmp_path: Path) -> None:
    gpus = Gpus(["0"], folder=tmp_path)
    held = gpus.take()
    assert held is not None
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    held.close()
    again = gpus.take()
    os.close(write)
    os.waitpid(child, 0)
    assert again is not None


def test_what_may_be_used_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, found in (("7, 9", ["7", "9"]), ("", []), ("-1", []), ("GPU-1,MIG-2", ["GPU-1", "MIG-2"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert visible() == found
