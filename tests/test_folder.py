"""The run folder: claimed once, held by one process, its status never half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trainer.errors import ConfigError
from trainer.folder import RunFolder, claim, step_name, write_whole


def test_names_of_steps_sort_as_steps_do() -> None:
    steps = [0, 9, 10, 99, 100, 12_345_678]
    assert sorted(map(step_name, steps)) == [step_name(step) for step in steps]
    assert step_name(120) == "step-000000120"


def test_a_claimed_folder_is_never_given_twice(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)

    def take(_: int) -> list[Path]:
        barrier.wait()
        return [claim(tmp_path / "runs", "a").path for _ in range(10)]

    with ThreadPoolExecutor(8) as pool:
        paths = [path for found in pool.map(take, range(8)) for path in found]
    assert {path.name for path in paths} == {"a", *(f"a-{n}" for n in range(2, 81))}


def test_claim_and_create_refuse_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^runs: cannot write to .*file.*use runs=FOLDER"):
        claim(tmp_path / "file", "a")
    with pytest.raises(ConfigError, match=r"^runs: cannot write to .*file"):
        RunFolder(tmp_path / "file" / "a").create()


def test_create_leaves_an_empty_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a" / "b")
    folder.create()
    folder.create()
    assert list(folder.path.iterdir()) == []


def test_a_path_is_shown_as_a_person_would_type_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(RunFolder("runs/a")) == "runs/a"
    assert str(RunFolder("/elsewhere/a")) == "/elsewhere/a"


HOLDER = """
import os, sys
from trainer.folder import RunFolder
with RunFolder(sys.argv[1]).hold():
    {fork}
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path: Path, fork: str = "pass") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER.format(fork=fork), str(path)]
    found = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert found.stdout is not None
    assert found.stdout.readline() == "held\n"
    return found


def test_a_held_folder_is_refused_by_naming_its_holder_and_free_once_that_is_dead(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        refused = pytest.raises(ConfigError, match=f"process {process.pid} on .* is training")
        for _ in range(2):  # being refused leaves the holder's name there
            with refused, RunFolder(tmp_path).hold():
                pass
    finally:
        process.kill()
        process.communicate()
    with RunFolder(tmp_path).hold():
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_a_dead_holder_frees_the_folder_though_a_forked_loader_worker_outlives_it(tmp_path: Path) -> None:
    fork = """ready, tell = os.pipe()
    if os.fork() == 0: os.write(tell, b"1"); os.read(0, 1); os._exit(0)
    os.read(ready, 1)"""
    process = holder(tmp_path, fork)
    try:
        process.kill()
        process.wait()
        with RunFolder(tmp_path).hold():  # the child lives until its input is closed
            pass
    finally:
        process.communicate()


def test_a_holder_that_leaves_frees_the_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for _ in range(2):
        with folder.hold():
            pass


def test_status_keeps_what_is_not_changed_and_forgives_what_cannot_be_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.read_status() == {}
    folder.write_status(state="running", pid=1)
    folder.write_status(state="finished")
    assert {key: folder.read_status()[key] for key in ("state", "pid")} == {"state": "finished", "pid": 1}
    for text in ("", "{", "[1]", "\xff"):
        folder.status.write_text(text, encoding="latin-1")
        assert folder.read_status() == {}


def test_a_reader_sees_the_old_status_or_the_new_one_never_a_part(tmp_path: Path) -> None:
    folder, stop, seen = RunFolder(tmp_path), threading.Event(), []
    folder.write_status(filler=["x" * 1000] * 50)

    def read() -> None:
        while not stop.is_set():
            seen.append(len(json.loads(folder.status.read_text())["filler"]))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for n in range(150):
            folder.write_status(filler=["x" * 1000] * (50 + n % 2))
    finally:
        stop.set()
        reader.join()
    assert set(seen) <= {50, 51}
    assert len(seen) > 10
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_a_write_that_fails_leaves_the_old_text(tmp_path: Path) -> None:
    path = tmp_path / "best"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new \ud800")
    assert path.read_text() == "old"
