"""Checkpoints are whole or absent, whatever happens to the disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.small import Scripted, StopAt, make_trainer, newest, points, recorder_of, weights_of
from trainer.checkpoint import FORMAT, Checkpoint, Checkpoints, read, retained
from trainer.data.base import Data
from trainer.errors import CheckpointError, SaveError, TrainerError
from trainer.folder import BEST, MANIFEST, STATE, WEIGHTS, step_name
from trainer.loop import Trainer


def kept(folder: Path, keep: int = 1) -> Checkpoints:
    made = Checkpoints(keep)
    made.attach(folder)
    return made


def save(checkpoints: Checkpoints, step: int, best: bool = False, value: float | None = None) -> None:
    weights = {"w": torch.full((100,), float(step) if value is None else value)}
    checkpoints.save(step, weights, {"progress": {"step": step}}, {"epoch": step}, best)
    checkpoints.wait()


def step_of(found: Checkpoint | None) -> int:
    assert found is not None
    return int(found.state["progress"]["step"])


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    checkpoints = kept(tmp_path / "c")
    assert checkpoints.newest() is None
    save(checkpoints, 120)
    checkpoints.close()
    found = checkpoints.newest()
    assert found is not None
    assert found.path == tmp_path / "c" / "step-000000120"
    assert torch.equal(found.weights["w"], torch.full((100,), 120.0))
    assert found.state == {"progress": {"step": 120}}
    assert (found.manifest["step"], found.manifest["epoch"], found.manifest["format"]) == (120, 120, FORMAT)
    assert sorted(path.name for path in found.path.iterdir()) == [MANIFEST, STATE, WEIGHTS]


def test_the_manifest_tells_the_size_and_the_checksum_of_each_file(tmp_path: Path) -> None:
    save(kept(tmp_path), 1)
    folder = tmp_path / step_name(1)
    files = json.loads((folder / MANIFEST).read_text())["files"]
    assert set(files) == {WEIGHTS, STATE}
    for name, facts in files.items():
        content = (folder / name).read_bytes()
        assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def resize(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "weights cut": lambda folder: truncate(folder / WEIGHTS),
    "weights empty": lambda folder: (folder / WEIGHTS).write_bytes(b""),
    "weights flipped": lambda folder: flip(folder / WEIGHTS),
    "weights gone": lambda folder: (folder / WEIGHTS).unlink(),
    "state cut": lambda folder: truncate(folder / STATE),
    "state flipped": lambda folder: flip(folder / STATE),
    "state longer": lambda folder: resize(folder / STATE),
    "state gone": lambda folder: (folder / STATE).unlink(),
    "manifest cut": lambda folder: truncate(folder / MANIFEST),
    "manifest empty": lambda folder: (folder / MANIFEST).write_bytes(b""),
    "manifest garbage": lambda folder: (folder / MANIFEST).write_bytes(b"\xff\x00{"),
    "manifest a list": lambda folder: (folder / MANIFEST).write_text("[]"),
    "manifest without files": lambda folder: (folder / MANIFEST).write_text('{"format": 1, "step": 9}'),
    "manifest that checks nothing": lambda folder: (
        flip(folder / WEIGHTS),
        (folder / MANIFEST).write_text('{"format": 1, "step": 9, "files": {}}'),
    ),
    "newer format": lambda folder: (folder / MANIFEST).write_text(
        json.dumps({**json.loads((folder / MANIFEST).read_text()), "format": FORMAT + 1})
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    damage: Callable[[Path], Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = kept(tmp_path, keep=2)
    save(checkpoints, 3)
    save(checkpoints, 9)
    damage(tmp_path / step_name(9))
    with caplog.at_level(logging.WARNING):
        assert step_of(checkpoints.newest()) == 3
    assert step_name(9) in caplog.text
    damage(tmp_path / step_name(3))
    with pytest.raises(CheckpointError, match="no checkpoint can be read") as told:
        checkpoints.newest()
    assert step_name(3) in str(told.value)
    assert step_name(9) in str(told.value)


def test_without_its_manifest_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    """It is written last and removed first, so such a folder is a removal that was cut short."""
    checkpoints = kept(tmp_path, keep=2)
    save(checkpoints, 3)
    save(checkpoints, 9)
    (tmp_path / step_name(9) / MANIFEST).unlink()
    assert checkpoints.names() == [step_name(3)]
    assert step_of(checkpoints.newest()) == 3


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    save(kept(tmp_path), 1)
    folder = tmp_path / step_name(1)
    torch.save({"w": Evil()}, folder / WEIGHTS)
    content = (folder / WEIGHTS).read_bytes()
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][WEIGHTS] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="holds more than plain data, and is not loaded"):
        read(folder)
    assert not (tmp_path / "ran").exists()


# ------------------------------------------------------------------------------------------- what stays, and best


@pytest.mark.parametrize(
    ("names", "best", "keep", "left"),
    [
        ("abcd", None, 1, "d"),
        ("abcd", "b", 1, "bd"),
        ("abcd", "d", 1, "d"),
        ("abcd", "a", 2, "acd"),
        ("dbca", "x", 3, "bcd"),
        ("a", None, 5, "a"),
        ("", "a", 1, ""),
    ],
)
def test_the_newest_and_the_best_stay(names: str, best: str | None, keep: int, left: str) -> None:
    assert retained(names, best, keep) == set(left)


def test_old_checkpoints_go_and_the_best_can_be_asked_for(tmp_path: Path) -> None:
    checkpoints = kept(tmp_path)
    with pytest.raises(CheckpointError, match="no best checkpoint"):
        checkpoints.best()
    for step, best in [(1, True), (2, False), (3, True), (4, False), (5, False)]:
        save(checkpoints, step, best)
        assert checkpoints.names()[-1] == step_name(step)
    assert checkpoints.names() == [step_name(3), step_name(5)]
    assert (tmp_path / BEST).read_text() == step_name(3) + "\n"
    assert step_of(checkpoints.best()) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEST, step_name(3), step_name(5)]


def test_a_damaged_best_is_an_error_and_not_another_checkpoint(tmp_path: Path) -> None:
    checkpoints = kept(tmp_path)
    save(checkpoints, 1, best=True)
    save(checkpoints, 2)
    flip(tmp_path / step_name(1) / WEIGHTS)
    with pytest.raises(CheckpointError, match=step_name(1)):
        checkpoints.best()


def test_a_step_that_is_saved_again_is_left_as_it_is_unless_it_is_damaged(tmp_path: Path) -> None:
    """A run is exact, so that it is the same; and while it is replaced it would be gone."""
    checkpoints = kept(tmp_path, keep=2)
    save(checkpoints, 1, value=1.0)
    save(checkpoints, 2, value=1.0)
    (tmp_path / step_name(2) / WEIGHTS).write_bytes(b"")
    found = checkpoints.newest()
    assert found is not None and found.path.name == step_name(1)
    for step in (1, 2):
        save(checkpoints, step, value=2.0)
    assert torch.equal(read(tmp_path / step_name(1)).weights["w"], torch.full((100,), 1.0))
    assert torch.equal(read(tmp_path / step_name(2)).weights["w"], torch.full((100,), 2.0))


def test_keep_must_be_at_least_one() -> None:
    with pytest.raises(ValueError, match="^keep: 0"):
        Checkpoints(0)


def test_what_a_killed_save_left_behind_is_removed(tmp_path: Path) -> None:
    save(kept(tmp_path), 1)
    (tmp_path / ".tmp-step-000000002-77").mkdir()
    (tmp_path / ".tmp-step-000000002-77" / WEIGHTS).write_bytes(b"half")
    kept(tmp_path).clear()
    assert [path.name for path in tmp_path.iterdir()] == [step_name(1)]


# -------------------------------------------------------------------------------------------------- in the background


def test_a_new_save_waits_for_the_one_before_and_none_is_lost(tmp_path: Path) -> None:
    checkpoints = kept(tmp_path, keep=20)
    for step in range(20):
        checkpoints.save(step, {"w": torch.full((1000,), step)}, {}, {}, False)
    checkpoints.close()
    assert checkpoints.names() == [step_name(step) for step in range(20)]
    assert not [thread for thread in threading.enumerate() if thread.name == "checkpoint"]


def saved_and_changed(folder: Path) -> tuple[Trainer, Any]:
    """A trainer whose save has begun and whose weights are others since; and the weights that are being saved."""
    trainer = make_trainer(folder=folder)
    trainer.train_group(next(trainer.loader.groups(0)))
    before = weights_of(trainer.model)
    trainer.save()
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.zero_()
    return trainer, before


def test_the_live_model_may_change_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    trainer, before = saved_and_changed(tmp_path)
    trainer.checkpoints.wait()
    assert newest(tmp_path)[0] == before


def test_a_snapshot_waits_until_the_memory_that_it_takes_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may, save = threading.Event(), torch.save
    monkeypatch.setattr(torch, "save", lambda *args, **kwargs: may.wait(30) and save(*args, **kwargs))
    trainer, before = saved_and_changed(tmp_path)
    again = threading.Thread(target=trainer.checkpoints.snapshot, args=(trainer.parts,))
    again.start()
    again.join(0.1)  # long enough to write over the memory, if it does not wait
    may.set()
    again.join()
    assert newest(tmp_path)[0] == before


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 KiB."""
    path = tmp_path / "tiny"
    path.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root may mount")
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("nothing may be mounted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_on_a_full_disk_the_old_checkpoint_stays_the_next_save_tries_again_and_close_tells(
    tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = kept(tiny)
    save(checkpoints, 1)
    (tiny / "filler").write_bytes(b"x" * 150_000)
    checkpoints.save(2, {"w": torch.zeros(20_000)}, {}, {}, False)
    checkpoints.wait()
    assert checkpoints.names() == [step_name(1)]
    assert "checkpoint at step 2 could not be written" in caplog.text
    assert not list(tiny.glob(".tmp-*"))
    (tiny / "filler").unlink()
    save(checkpoints, 3)
    checkpoints.close()
    assert checkpoints.names() == [step_name(3)]
    (tiny / "filler").write_bytes(b"x" * 150_000)
    checkpoints.save(4, {"w": torch.zeros(20_000)}, {}, {}, False)
    with pytest.raises(SaveError, match="the last checkpoint could not be written"):
        checkpoints.close()
    assert step_of(checkpoints.newest()) == 3
    checkpoints.close()  # told once


def test_room_for_one_checkpoint_alone_is_made_by_dropping_all_but_the_newest(tiny: Path) -> None:
    checkpoints = kept(tiny, keep=5)
    for step in range(1, 8):
        checkpoints.save(step, {"w": torch.zeros(10_000)}, {}, {}, False)
    checkpoints.close()
    assert step_of_name(checkpoints.names()[-1]) == 7


def step_of_name(name: str) -> int:
    return int(name.removeprefix("step-"))


def test_where_nothing_can_be_written_training_goes_on_and_the_end_tells(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("a file in the way")
    trainer = make_trainer(folder=tmp_path / "run")
    with pytest.raises(SaveError, match="checkpoints: the last checkpoint could not be written") as told:
        trainer.fit()
    assert told.value.exit_code == 6
    assert trainer.progress.epoch == 3
    outcome = recorder_of(trainer).outcomes[-1]
    assert (outcome.state, outcome.exit_code, outcome.step) == ("failed", 6, 12)
    assert outcome.best["val/loss"] == trainer.best.row["val/loss"]


def test_a_fact_of_the_data_that_cannot_be_written_is_told_and_never_swallowed(tmp_path: Path) -> None:
    """A user's data source may well give its colours as a numpy array."""
    import numpy as np

    data = Data(points(), points(5), facts={"colors": np.zeros((2, 3), dtype=np.uint8)})
    try:
        make_trainer(data=data, folder=tmp_path / "run").fit()
    except TrainerError as error:
        assert "colors" in str(error)  # noqa: PT017
    else:
        assert newest(tmp_path / "run")


# ------------------------------------------------------------------------------------------------ after damage


def test_what_is_saved_after_a_damaged_newer_checkpoint_was_passed_over_is_kept(tmp_path: Path) -> None:
    checkpoints = kept(tmp_path)
    save(checkpoints, 3, best=True)
    save(checkpoints, 9)
    flip(tmp_path / step_name(9) / STATE)
    again = kept(tmp_path)
    assert step_of(again.newest()) == 3
    save(again, 6)
    assert step_of(again.newest()) == 6


def test_best_names_the_best_row_though_the_run_was_killed_before_the_pointer_moved(tmp_path: Path) -> None:
    """The checkpoint is renamed first and the pointer moved after it; a kill may fall between the two."""
    task = Scripted([3.0, 2.0, 4.0])
    trainer = make_trainer(task=task, folder=tmp_path, checkpoints=Checkpoints(keep=9), epochs=2)
    task.trainer = trainer
    trainer.fit()
    assert trainer.best.row["step"] == 8
    (tmp_path / "checkpoints" / BEST).write_text(step_name(4) + "\n")  # as that kill leaves it
    task = Scripted([3.0, 2.0, 4.0])
    trainer = make_trainer(task=task, folder=tmp_path, checkpoints=Checkpoints(keep=9), resume="must")
    task.trainer = trainer
    outcome = trainer.fit()
    assert outcome.best["step"] == 8
    assert trainer.checkpoints.best_name() == step_name(8)


@pytest.mark.parametrize("damage", ["weights flipped", "manifest garbage", "state gone"])
def test_a_run_whose_newest_checkpoint_is_damaged_ends_with_the_same_bits(damage: str, tmp_path: Path) -> None:
    make_trainer(folder=tmp_path / "whole").fit()
    options: dict[str, Any] = {"folder": tmp_path / "cut", "resume": "auto", "checkpoint_every": "1step"}
    options["checkpoints"] = Checkpoints(keep=3)
    make_trainer(task=StopAt(7), **options).fit()
    DAMAGES[damage](tmp_path / "cut" / "checkpoints" / step_name(7))
    trainer = make_trainer(**options)
    assert trainer.progress.step == 6
    trainer.fit()
    assert newest(tmp_path / "cut") == newest(tmp_path / "whole")
    assert (tmp_path / "cut/checkpoints/best").read_text() == (tmp_path / "whole/checkpoints/best").read_text()
