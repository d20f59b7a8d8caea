"""Functions in processes of their own: how they end, what reaches them, what becomes of them without their parents."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweeps import offspring, until
from trainer.children import LOST, PRELOADED, SAVE, Children

for _name in PRELOADED:  # once, rather than in each process that forks
    importlib.import_module(_name)


@pytest.fixture
def children() -> Iterator[Children]:
    made = Children()
    yield made
    made.end(signal.SIGKILL)
    made.close()


def wait_for_ever(mark: Path) -> None:
    mark.write_text(str(os.getpid()))
    time.sleep(600)


def save_when_told(mark: Path) -> None:
    signal.signal(SAVE, lambda *_: (mark.with_suffix(".saved").touch(), os._exit(0)))
    wait_for_ever(mark)


def all_of(children: Children) -> dict[str, int]:
    ended: dict[str, int] = {}
    while more := children.wait(60):
        ended |= more
    return ended


def test_each_child_ends_with_its_own_code_and_ends_no_other(children: Children) -> None:
    children.start("done", len, "abc")
    children.start("exits", sys.exit, 3)
    children.start("leaves", os._exit, 7)
    children.start("raises", int, "x", output=Path("said.txt"))
    children.start("killed", signal.raise_signal, signal.SIGKILL)
    assert all_of(children) == {"done": 0, "exits": 3, "leaves": 7, "raises": 1, "killed": -signal.SIGKILL}
    assert "ValueError" in Path("said.txt").read_text()


def test_a_child_has_its_own_environment_and_file(children: Children) -> None:
    for name in ("a", "b"):
        children.start(name, os.system, "echo $MINE", env={"MINE": name}, output=Path(f"{name}.txt"))
    assert set(all_of(children).values()) == {0}
    assert [Path(f"{name}.txt").read_text() for name in ("a", "b")] == ["a\n", "b\n"]
    assert "MINE" not in os.environ


def test_a_signal_reaches_a_child_that_is_being_forked(children: Children) -> None:
    children.start("late", time.sleep, 600)
    children.end(SAVE)
    assert all_of(children) == {"late": -SAVE}


def test_a_child_saves_where_the_process_that_forks_is_killed_and_another_one_takes_its_place(
    children: Children, tmp_path: Path
) -> None:
    children.start("a", save_when_told, tmp_path / "a")
    until((tmp_path / "a").exists)
    os.kill(children._nursery, signal.SIGKILL)
    assert children.wait(60) == {"a": LOST}
    until((tmp_path / "a.saved").exists)
    children.start("b", len, "abc")
    assert all_of(children) == {"b": 0}


def test_a_child_saves_where_the_sweep_is_killed(tmp_path: Path) -> None:
    parent = os.fork()
    if parent == 0:
        ours = Children()
        ours.start("a", save_when_told, tmp_path / "a")
        ours.wait()
        os._exit(1)
    until(lambda: (tmp_path / "a").exists() and (tmp_path / "a").read_text())
    (nursery,) = offspring(parent)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    until((tmp_path / "a.saved").exists)
    until(lambda: not Path(f"/proc/{nursery}").exists())


def test_closing_ends_the_process_that_forks_at_once() -> None:
    made = Children()
    made.prepare()
    nursery = made._nursery
    made.close()
    assert not Path(f"/proc/{nursery}").exists()
    made.close()
