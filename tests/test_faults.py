"""Faults of the disk, in real processes: told in a line or two, nothing good is lost, and the same command finishes
the run with the bits of one that never met the fault."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import faulty
from tests.faulty import Ended, Training, content, result, train
from trainer.folder import BEST, MANIFEST, STATE, WEIGHTS, step_name

STOP = {15: partial(faulty.kill, signal.SIGTERM)}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that met no fault, `whole`, and one that was stopped after step 15, `cut`."""
    cwd = tmp_path_factory.mktemp("known")
    assert train(cwd, "name=whole").code == 0
    assert train(cwd, "name=cut", at=STOP).code == 143
    return cwd / "runs"


@pytest.fixture
def whole(known: Path) -> tuple[Any, ...]:
    return result(known / "whole")


@pytest.fixture
def cut(known: Path, tmp_path: Path) -> Path:
    """A copy of the stopped run as `runs/cut`. It holds checkpoints of the steps 6 (the best one), 12 and 15."""
    shutil.copytree(known / "cut", tmp_path / "runs/cut", ignore=shutil.ignore_patterns(".lock"))
    return tmp_path / "runs/cut"


def brief(ended: Ended, code: int, *words: str) -> None:
    """It ended with that code and a few lines on standard error that hold these words."""
    assert ended.code == code, ended.told
    assert 1 <= len(ended.err.strip().splitlines()) <= 3, ended.err
    for word in words:
        assert word in ended.told


# ----------------------------------------------------------------------------------------------------- a full disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB at `runs`, which others can fill."""
    path = tmp_path / "runs"
    path.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("nothing may be mounted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def clear(disk: Path) -> Callable[[], Any]:
    return partial(faulty.empty, disk)


def test_a_disk_that_is_full_for_a_while_costs_a_warning_and_nothing_else(disk: Path, whole: Any) -> None:
    """Rows, too: what could not be written is written later."""
    at = {1: partial(faulty.fill, disk), 5: clear(disk), 9: partial(faulty.fill, disk), 15: clear(disk)}
    ended = train(disk.parent, "name=a", "checkpoint.keep=1", at=at)
    assert ended.code == 0, ended.told
    for step in (4, 12):
        assert f"warning: checkpoint at step {step} could not be written (no space left" in ended.told
    assert ended.err == ""
    assert result(disk / "a") == whole


def test_a_best_checkpoint_that_could_not_be_written_is_written_as_soon_as_there_is_room(
    disk: Path, whole: Any
) -> None:
    """The best weights of a run are its result; those of step 6 are gone once they are trained on."""
    ended = train(disk.parent, "name=a", at={5: partial(faulty.fill, disk), 7: clear(disk)})
    assert ended.code == 0, ended.told
    assert "warning: checkpoint at step 6 could not be written" in ended.told
    assert result(disk / "a") == whole
    assert (disk / "a/checkpoints" / step_name(6) / WEIGHTS).is_file()


@pytest.mark.parametrize("step", [1, 14])
def test_a_disk_that_stays_full_ends_a_run_that_goes_on_once_there_is_room(step: int, disk: Path, whole: Any) -> None:
    ended = train(disk.parent, "name=a", "checkpoint.keep=1", at={step: partial(faulty.fill, disk)})
    brief(ended, 6, "could not be written (no space left")
    assert "epoch 4/4" in ended.out, "training must go on to its end: perhaps room is made"
    good = sorted(path.name for path in (disk / "a/checkpoints").glob("step-*"))
    assert good[-1:] == ([] if step == 1 else [step_name(12)])
    faulty.empty(disk)
    again = train(disk.parent, "name=a", "checkpoint.keep=1")
    assert again.code == 0, again.told
    assert ("at step 12" in again.out) == (step == 14)
    assert result(disk / "a") == whole


def test_rows_that_found_no_room_are_not_lost_when_the_run_goes_on(disk: Path, tmp_path: Path, whole: Any) -> None:
    """There may be room for checkpoints, since older ones make room for newer ones, and none for rows."""
    faulty.fill(disk)
    folder = tmp_path / "other/a"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").symlink_to(disk / "metrics.jsonl")
    ended = train(tmp_path, "name=a", "runs=other", at=STOP)
    assert ended.code == 143, ended.told
    assert "warning: other/a: [Errno 28] No space left on device" in ended.told
    faulty.empty(disk)
    assert train(tmp_path, "name=a", "runs=other").code == 0
    assert result(folder) == whole


@pytest.mark.parametrize("cut_before", [False, True], ids=["new", "resumed"])
def test_a_disk_that_is_full_at_the_start_is_told_before_training(cut_before: bool, disk: Path, known: Path) -> None:
    if cut_before:
        shutil.copytree(known / "cut", disk / "a")
    before = content(disk / "a/checkpoints")
    faulty.fill(disk)
    ended = train(disk.parent, "name=a")
    brief(ended, 2, "cannot write to", "the disk is full", "runs=FOLDER")
    assert content(disk / "a/checkpoints") == before
    faulty.empty(disk)
    assert train(disk.parent, "name=a").code == 0
    assert result(disk / "a") == result(known / "whole")


def test_files_that_may_not_grow_for_a_while_cost_a_warning_and_nothing_else(tmp_path: Path, whole: Any) -> None:
    """A quota, or a limit of the shell; it needs no rights, so it is tried everywhere."""
    free = partial(faulty.limit_files, -1)
    ended = train(tmp_path, "name=a", at={9: partial(faulty.limit_files, 5000), 15: free})
    assert ended.code == 0, ended.told
    assert "warning: checkpoint at step 12 could not be written" in ended.told
    assert result(tmp_path / "runs/a") == whole


def test_files_that_may_no_longer_grow_end_a_run_that_goes_on_once_they_may(tmp_path: Path, whole: Any) -> None:
    ended = train(tmp_path, "name=a", at={14: partial(faulty.limit_files, 5000)})
    brief(ended, 6, "could not be written (File too large")
    assert train(tmp_path, "name=a").code == 0
    assert result(tmp_path / "runs/a") == whole


# ---------------------------------------------------------------------------------------- a folder that is read-only


def test_a_folder_that_cannot_be_written_to_is_told_before_training(tmp_path: Path, cut: Path, whole: Any) -> None:
    for folder, name in ((cut.parent, "new"), (cut, "cut")):
        faulty.allow(0o500, folder)
        ended = train(tmp_path, f"name={name}", first=faulty.lose_privileges)
        faulty.allow(0o700, folder)
        brief(ended, 2, f"cannot write to {tmp_path / 'runs' / name} (no permission)", "runs=FOLDER")
    assert not (tmp_path / "runs/new").exists()
    assert train(tmp_path, "name=cut").code == 0
    assert result(cut) == whole


def test_a_folder_that_cannot_be_written_to_for_a_while_costs_a_warning(tmp_path: Path, whole: Any) -> None:
    folders = tmp_path / "runs/a/checkpoints", tmp_path / "runs/a/media", tmp_path / "runs/a"
    at = {9: partial(faulty.allow, 0o500, *folders), 13: partial(faulty.allow, 0o700, *folders)}
    ended = train(tmp_path, "name=a", at=at, first=faulty.lose_privileges)
    assert ended.code == 0, ended.told
    assert re.search(r"warning: checkpoint at step 12 could not be written \(.*Permission denied", ended.told)
    assert result(tmp_path / "runs/a") == whole


def test_a_folder_that_can_no_longer_be_written_to_ends_a_run_that_goes_on_later(tmp_path: Path, whole: Any) -> None:
    folders = tmp_path / "runs/a/checkpoints", tmp_path / "runs/a/media", tmp_path / "runs/a"
    ended = train(tmp_path, "name=a", at={14: partial(faulty.allow, 0o500, *folders)}, first=faulty.lose_privileges)
    faulty.allow(0o700, *folders)
    brief(ended, 6, "could not be written", "Permission denied")
    again = train(tmp_path, "name=a")
    assert again.code == 0, again.told
    assert "resumed    at step 12" in again.out
    assert result(tmp_path / "runs/a") == whole


# ------------------------------------------------------------------------------------------- damaged checkpoints


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    found = bytearray(path.read_bytes())
    found[len(found) // 2] ^= 1
    path.write_bytes(found)


class Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran"),)


def plant(path: Path) -> None:
    """Puts a pickle that runs code there, and a manifest that says that it is right: all that a thief can do."""
    path.write_bytes(pickle.dumps({"progress": Evil()}, protocol=2))
    manifest = json.loads((path.parent / MANIFEST).read_text())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest["files"][path.name] = {"bytes": path.stat().st_size, "sha256": digest}
    (path.parent / MANIFEST).write_text(json.dumps(manifest))


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "weights cut": lambda path: shorten(path / WEIGHTS),
    "weights flipped": lambda path: flip(path / WEIGHTS),
    "state cut": lambda path: shorten(path / STATE),
    "state flipped": lambda path: flip(path / STATE),
    "state gone": lambda path: (path / STATE).unlink(),
    "state that runs code": lambda path: plant(path / STATE),
    "manifest cut": lambda path: shorten(path / MANIFEST),
    "manifest without files": lambda path: (path / MANIFEST).write_text('{"format": 1, "step": 15}'),
    "no permission": lambda path: (path / WEIGHTS).chmod(0),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_leads_to_the_same_bits(
    damage: Callable[[Path], Any], tmp_path: Path, cut: Path, whole: Any
) -> None:
    paths = [cut / "checkpoints" / step_name(step) for step in (6, 12, 15)]
    alone = shutil.copytree(cut, cut.with_name("alone"))
    damage(paths[-1])
    ended = train(tmp_path, "name=cut", first=faulty.lose_privileges)
    assert ended.code == 0, ended.told
    assert str(paths[-1]) in ended.told
    assert "the one before it is used" in ended.told
    assert "resumed    at step 12" in ended.out
    assert result(cut) == whole

    for path in paths:
        damage(alone / "checkpoints" / path.name)
    before = {path: path.lstat().st_size for path in (alone / "checkpoints").rglob("*")}
    ended = train(tmp_path, "name=alone", first=faulty.lose_privileges)
    assert ended.code == 5
    assert "no checkpoint can be read" in ended.told
    assert all(path.name in ended.err for path in paths)
    assert len(ended.err.strip().splitlines()) == 4
    assert {path: path.lstat().st_size for path in (alone / "checkpoints").rglob("*")} == before
    assert not (tmp_path / "ran").exists()
    assert "Weights only load failed" not in ended.told, "torch's advice to load it all the same is not for users"


def test_a_checkpoint_that_was_passed_over_stands_in_the_log(tmp_path: Path, cut: Path) -> None:
    flip(cut / "checkpoints" / step_name(15) / STATE)
    ended = train(tmp_path, "name=cut")
    assert "warning: " in ended.told
    assert re.search(r"WARNING .*step-000000015/state.pt: damaged.*is used", (cut / "train.log").read_text())


@pytest.mark.parametrize("pointer", [None, step_name(99), "\xff"], ids=["none", "to nothing", "garbage"])
def test_best_is_found_again_whatever_has_become_of_its_file(
    pointer: str | None, tmp_path: Path, cut: Path, whole: Any
) -> None:
    (cut / "checkpoints" / BEST).unlink()
    if pointer is not None:
        (cut / "checkpoints" / BEST).write_text(pointer, encoding="latin-1")
    (cut / "checkpoints" / step_name(99)).mkdir()  # what a removal that was cut short leaves
    ended = train(tmp_path, "name=cut")
    assert ended.code == 0, ended.told
    assert result(cut) == whole


# -------------------------------------------------------------------------------------------------- other files


@pytest.mark.parametrize("torn", [b'{"step": 16}\n{"step": 17', b"\x00" * 50], ids=["half a row", "zeros"])
def test_rows_after_the_checkpoint_may_be_whole_torn_or_garbage(
    torn: bytes, tmp_path: Path, cut: Path, whole: Any
) -> None:
    with open(cut / "metrics.jsonl", "ab") as file:
        file.write(torn)
    assert train(tmp_path, "name=cut").code == 0
    assert result(cut) == whole


@pytest.mark.parametrize("left", [None, 0, 1000], ids=["gone", "empty", "cut"])
def test_a_history_that_lacks_rows_is_told_and_nothing_is_touched(left: int | None, tmp_path: Path, cut: Path) -> None:
    if left is None:
        (cut / "metrics.jsonl").unlink()
    else:
        os.truncate(cut / "metrics.jsonl", left)
    before = content(cut / "checkpoints")
    ended = train(tmp_path, "name=cut")
    brief(ended, 5, "metrics.jsonl", "rows of the history are missing")
    assert content(cut / "checkpoints") == before
    assert (left or 0) == ((cut / "metrics.jsonl").stat().st_size if left is not None else 0)


@pytest.mark.parametrize("text", [None, "", "[1]"])
def test_a_run_goes_on_whatever_its_status_says(text: str | None, tmp_path: Path, cut: Path, whole: Any) -> None:
    (cut / "status.json").unlink()
    if text is not None:
        (cut / "status.json").write_text(text)
    ended = Training(tmp_path, "resume=runs/cut").wait()
    assert ended.code == 0, ended.told
    assert result(cut) == whole


@pytest.mark.parametrize("text", [None, "", "a: ["])
def test_a_config_that_cannot_be_read_is_told_and_nothing_is_touched(
    text: str | None, tmp_path: Path, cut: Path, whole: Any
) -> None:
    (cut / "config.yaml").unlink()
    if text is not None:
        (cut / "config.yaml").write_text(text)
    before = content(cut)
    ended = Training(tmp_path, "resume=runs/cut").wait()
    assert ended.code == 2
    assert "config.yaml" in ended.told
    assert content(cut) == before


@pytest.mark.parametrize("lost", ["config.yaml", "config.yaml metrics.jsonl status.json"])
def test_what_is_left_of_a_damaged_folder_is_never_deleted(lost: str, tmp_path: Path, cut: Path) -> None:
    """Checkpoints, and files that are not the trainer's: a run that cannot start takes nothing with it."""
    for name in lost.split():
        (cut / name).unlink()
    (cut / "notes.txt").write_text("mine")
    before = {name: digest for name, digest in content(cut).items() if name.startswith(("checkpoints/", "notes"))}
    for word in ("resume=never", "model=unet_small"):
        ended = train(tmp_path, "name=cut", word)
        assert ended.code in (2, 5), ended.told
        assert before.items() <= content(cut).items()


def test_a_folder_of_ones_own_survives_a_run_that_cannot_start_there(tmp_path: Path) -> None:
    (tmp_path / "runs/mine").mkdir(parents=True)
    (tmp_path / "runs/mine/notes.txt").write_text("mine")
    assert train(tmp_path, "name=mine", "model=unet_small").code == 2
    assert (tmp_path / "runs/mine/notes.txt").read_text() == "mine"
