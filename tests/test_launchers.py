"""Jobs on this machine: how many at once, on which GPU, with how many threads."""

from __future__ import annotations

import importlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainer.children import PRELOADED
from trainer.errors import ConfigError
from trainer.launchers import BUSY, Item, Local, processors
from trainer.world import World

for _name in PRELOADED:  # once, rather than in each process that forks
    importlib.import_module(_name)


class Seen:
    """Wants every job, and keeps what it is told."""

    def __init__(self, unwanted: str = "") -> None:
        self.unwanted, self.order = unwanted, list[str]()
        self.ended: dict[str, tuple[str, bool]] = {}

    def over(self, key: str) -> bool:
        return key == self.unwanted

    def held(self, key: str) -> bool:
        return key == "x" and "c" not in self.ended  # by another process

    def begun(self, key: str) -> None:
        self.order.append(key)

    def done(self, key: str, why: str, again: bool) -> None:
        self.ended[key] = (why, again)


@pytest.fixture(autouse=True)
def _locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The locks of GPUs lie in a folder of the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield


def work(folder: Path, name: str) -> None:
    """Notes when it began and ended on which GPU, and its threads."""
    begin = time.monotonic()
    time.sleep(0.2)
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
    (folder / name).write_text(f"{gpu} {begin} {time.monotonic()} {World('cpu').threads}")


def ran(launcher: Local, folder: Path, names: str, watcher: Any = None) -> Seen:
    seen = watcher or Seen()
    items = {name: Item(work, (folder, name), folder / f"{name}.txt") for name in names}
    try:
        launcher.run(items, seen)
    finally:
        launcher.close()
    return seen


def notes(folder: Path, names: str) -> list[tuple[str, float, float]]:
    found = [(folder / name).read_text().split() for name in names]
    return [(gpu, float(begin), float(end)) for gpu, begin, end, _ in found]


def most_at_once(spans: list[tuple[str, float, float]]) -> int:
    return max(sum(a <= begin < b for _, a, b in spans) for _, begin, _ in spans)


def test_one_after_the_other_in_their_order_without_those_that_are_not_wanted(tmp_path: Path) -> None:
    seen = ran(Local(), tmp_path, "abc", Seen(unwanted="b"))
    assert seen.order == ["a", "c"]
    assert seen.ended == {"a": ("", False), "c": ("", False)}
    assert most_at_once(notes(tmp_path, "ac")) == 1


def test_what_another_process_has_comes_when_it_is_free(tmp_path: Path) -> None:
    assert ran(Local(), tmp_path, "xabc").order == ["a", "b", "c", "x"]
    assert ran(Local(), tmp_path, "x").order == []


def test_several_at_once_share_the_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    ran(Local(n_jobs=2), tmp_path, "abcd")
    assert most_at_once(notes(tmp_path, "abcd")) == 2
    threads = {(tmp_path / name).read_text().split()[3] for name in "abcd"}
    assert threads == {str(max(1, processors() // 2 // 2))}


def test_each_job_sees_one_gpu_and_no_gpu_has_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,9")
    ran(Local(n_jobs=3), tmp_path, "abcde")
    spans = notes(tmp_path, "abcde")
    assert {gpu for gpu, *_ in spans} == {"7", "9"}
    assert [most_at_once([span for span in spans if span[0] == gpu]) for gpu in "79"] == [1, 1]


def test_two_jobs_may_share_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    ran(Local(n_jobs=-1, jobs_per_gpu=2), tmp_path, "abcd")
    assert most_at_once(notes(tmp_path, "abcd")) == 2


def test_two_sweeps_share_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,9")
    other = os.fork()
    if other == 0:
        ran(Local(n_jobs=-1), tmp_path, "abc")
        os._exit(0)
    ran(Local(n_jobs=-1), tmp_path, "def")
    assert os.waitpid(other, 0)[1] == 0
    spans = notes(tmp_path, "abcdef")
    assert [most_at_once([span for span in spans if span[0] == gpu]) for gpu in "79"] == [1, 1]


def test_how_a_job_ended_is_told(tmp_path: Path) -> None:
    seen, launcher = Seen(), Local()
    items = {str(code): Item(os._exit, (code,), tmp_path / "x") for code in (0, 3, BUSY)}
    items["9"] = Item(os.kill, (0, 9), tmp_path / "x")  # itself and its group
    launcher.run(items, seen)
    launcher.close()
    assert seen.ended == {
        "0": ("", False),
        "3": ("its process left with exit code 3", False),
        str(BUSY): (f"its process left with exit code {BUSY}", True),
        "9": ("killed by SIGKILL: was the memory enough?", False),
    }


@pytest.mark.parametrize("wrong", [0, -2, "two", 1.5])
def test_a_number_of_jobs_that_cannot_be_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"n_jobs: .* must be at least 1, or -1"):
        Local(n_jobs=wrong)
