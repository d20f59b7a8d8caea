"""Pictures whose encoding is left to another process are whole at the end, whoever lives."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trainer.folder import RunFolder
from trainer.records import Outcome, Panel
from trainer.tracking import encoding
from trainer.tracking.base import Plan
from trainer.tracking.journal import Journal
from trainer.tracking.panels import write_panels

ROOT = Path(__file__).resolve().parents[1]
ENCODE = "import sys; from pathlib import Path; from trainer.tracking.encoding import encode; encode(Path(sys.argv[1]))"


def panels(size: int = 24) -> list[Panel]:
    image = np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8)
    masks = {"true": image[..., 0] // 128, "error": image[..., 1] // 128}
    legends = {"error": {"right": (0, 0, 0), "wrong": (255, 0, 0)}}
    colors = ((1, 2, 3), (4, 5, 6))
    one = Panel("val/examples", "a", image, masks, ("sea", "land"), colors, "a  IoU 0.5", legends, True)
    return [one, Panel("val/confusion", "all", image[..., 0], drawn=True)]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def names(media: Path) -> list[str]:
    return sorted(path.name for path in media.iterdir())


def plan(folder: RunFolder, start: int) -> Plan:
    return Plan(folder, steps=99, steps_per_epoch=9, epochs=11, start=start)


def test_bytes_that_waited_become_the_same_files_as_pictures_that_were_encoded_at_once(tmp_path: Path) -> None:
    at_once, later = tmp_path / "a" / "step-000000001", tmp_path / "b" / "step-000000001"
    write_panels(at_once, panels(600))  # larger than what is kept
    encoding.put(later, panels(600))
    assert not later.exists(), "a reader must find all of the folder or nothing"
    encoding.encode(later)
    assert files(later) == files(at_once)
    assert names(tmp_path / "b") == ["step-000000001"]
    encoding.encode(later)  # nothing waits: nothing is done
    assert files(later) == files(at_once)


def test_no_more_waits_than_was_settled_and_nothing_is_left_at_the_end(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    journal = Journal(folder, followed=True)  # by nobody: that process is dead
    for step in range(1, encoding.MOST + 3):
        journal.panels(step, panels())
    assert names(folder.media).count("step-000000009") == 1
    assert len(encoding.waiting(folder.media)) == encoding.MOST
    journal.finish(Outcome("finished", "done"))
    assert names(folder.media) == [f"step-{step:09d}" for step in range(1, encoding.MOST + 3)]
    large = np.zeros((512, 512, 3), np.uint8)
    big = [Panel("mine", str(n), large) for n in range(encoding.BYTES // large.nbytes + 1)]
    encoding.put(folder.media_at(98), big)
    assert not encoding.room(folder.media)
    Journal(RunFolder(tmp_path / "alone")).panels(1, panels())
    assert names(tmp_path / "alone/media") == ["step-000000001"]


def test_what_a_kill_left_is_mended_by_the_next_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = RunFolder(tmp_path)
    for step in (1, 2, 3):
        encoding.put(folder.media_at(step), panels())
    raw = folder.media / ".raw-step-000000002.bin"
    raw.write_bytes(raw.read_bytes()[:-5000])  # a power cut
    (folder.media / ".raw-step-000000003.tmp").write_bytes(b"half")
    holder = (
        "import fcntl, os, signal, sys; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX); "
        "os.mkdir(sys.argv[2]); os.kill(os.getpid(), signal.SIGKILL)"
    )
    half = folder.media / ".step-000000001.77"
    done = subprocess.run([sys.executable, "-c", holder, folder.media / ".raw-step-000000001.bin", half], check=False)
    assert (done.returncode, half.is_dir()) == (-signal.SIGKILL, True)
    with caplog.at_level(logging.WARNING, logger="trainer"):
        Journal(folder).start(plan(folder, start=2))
    assert names(folder.media) == ["step-000000001"]
    assert "damaged" in caplog.text
    journal = Journal(folder, followed=True)
    journal.panels(3, panels())
    journal.finish(Outcome("finished", "done"))
    assert names(folder.media) == ["step-000000001", "step-000000003"]


def test_one_who_holds_pictures_and_does_not_go_on_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(encoding, "PATIENCE", 0.05)
    folder = RunFolder(tmp_path)
    encoding.put(folder.media_at(1), panels())
    with open(folder.media / ".raw-step-000000001.bin", "rb") as held, caplog.at_level(logging.WARNING, "trainer"):
        fcntl.flock(held, fcntl.LOCK_EX)
        Journal(folder, followed=True).finish(Outcome("finished", "done"))
    assert "not encoded in 0.05 s by another process" in caplog.text
    encoding.encode(folder.media_at(1))
    assert names(folder.media) == ["step-000000001"]


def test_of_several_processes_one_encodes_and_the_others_wait_for_it(tmp_path: Path) -> None:
    folder = tmp_path / "step-000000001"
    encoding.put(folder, panels(512))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", ENCODE, str(folder)]
    racing = [subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    encoding.encode(folder)
    assert (folder / "sheet.png").exists(), "it did not wait for the one who was first"
    assert [child.communicate()[1] for child in racing] == ["", "", ""]
    write_panels(tmp_path / "at_once", panels(512))
    assert files(folder) == files(tmp_path / "at_once")
