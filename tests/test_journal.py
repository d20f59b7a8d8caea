"""The history of a run on disk."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest

from trainer.errors import CheckpointError
from trainer.folder import RunFolder
from trainer.records import Histogram, Outcome, Panel
from trainer.tracking.base import Plan
from trainer.tracking.journal import Journal
from trainer.tracking.panels import read_panels


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def lines(folder: RunFolder) -> list[dict]:
    return [json.loads(line) for line in folder.metrics.read_text().splitlines()]


def plan(folder: RunFolder, start: int = 0) -> Plan:
    return Plan(folder, steps=10, steps_per_epoch=5, epochs=2, start=start)


def panel() -> Panel:
    return Panel("val/examples", "a", np.zeros((4, 4), np.uint8))


def test_rows_are_lines_in_their_order_and_with_the_keys_in_theirs(folder: RunFolder) -> None:
    journal = Journal(folder)
    journal.rows([{"step": 1, "z": 0.5, "a": 2}, {"step": 2, "z": np.float32(0.25), "a": np.int64(3)}])
    journal.rows([])
    journal.rows([{"step": 3}])
    assert folder.metrics.read_text() == '{"step": 1, "z": 0.5, "a": 2}\n{"step": 2, "z": 0.25, "a": 3}\n{"step": 3}\n'


def test_what_is_not_finite_is_null_so_that_every_reader_of_json_reads_it(folder: RunFolder) -> None:
    nan, inf = float("nan"), float("inf")
    Journal(folder).rows([{"step": 1, "a": nan, "b": inf, "c": -inf, "d": 1e300, "e": np.float32(nan)}])
    assert "NaN" not in folder.metrics.read_text()
    assert lines(folder) == [{"step": 1, "a": None, "b": None, "c": None, "d": 1e300, "e": None}]


def test_many_rows_are_one_write(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: sizes.append(len(data)) or write(file, data))
    Journal(folder).rows([{"step": n} for n in range(50)])
    assert len(sizes) == 1
    assert len(lines(folder)) == 50


def test_a_resumed_run_cuts_off_the_rows_after_its_checkpoint(folder: RunFolder) -> None:
    journal = Journal(folder)
    journal.rows([{"step": 1}, {"step": 2}])
    journal.saved()
    state = journal.state_dict()
    journal.rows([{"step": 3}])
    again = Journal(folder)
    again.load_state_dict(state)
    again.start(plan(folder, start=2))
    again.rows([{"step": 3, "life": 2}])
    assert lines(folder) == [{"step": 1}, {"step": 2}, {"step": 3, "life": 2}]


def test_a_history_shorter_than_the_checkpoint_says_is_an_error_that_names_the_file(folder: RunFolder) -> None:
    journal = Journal(folder)
    journal.rows([{"step": 1}])
    with pytest.raises(CheckpointError, match=r"metrics.jsonl has 12 bytes, and .* 99"):
        journal.load_state_dict({"offset": 99, "waiting": ""})
    folder.metrics.unlink()
    with pytest.raises(CheckpointError, match="has 0 bytes"):
        journal.load_state_dict({"offset": 12, "waiting": ""})
    journal.load_state_dict({"offset": 0, "waiting": ""})


@pytest.mark.parametrize("torn", ['{"step": 3, "va', "x" * 200_000])
def test_half_a_line_that_a_crash_left_is_cut_off(folder: RunFolder, torn: str) -> None:
    folder.metrics.write_text('{"step": 1}\n{"step": 2}\n' + torn)
    journal = Journal(folder)
    journal.start(plan(folder, start=2))
    journal.rows([{"step": 3}])
    assert [row["step"] for row in lines(folder)] == [1, 2, 3]


def test_a_file_without_any_newline_is_cut_to_nothing(folder: RunFolder) -> None:
    folder.metrics.write_text("x" * 70_000)
    Journal(folder).start(plan(folder))
    assert folder.metrics.read_text() == ""


def test_pictures_of_steps_that_will_be_done_again_are_removed(folder: RunFolder) -> None:
    journal = Journal(folder)
    for step in (2, 4):
        journal.panels(step, [panel()])
    journal.panels(6, [])
    Journal(folder).start(plan(folder, start=2))
    assert [path.name for path in folder.media.iterdir()] == ["step-000000002"]


def test_a_full_disk_costs_one_warning_and_no_row(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal, write, room = Journal(folder), os.write, [5]
    journal.rows([{"step": 1}])

    def short(file: int, data: bytes) -> int:
        return write(file, data[: room[0]])

    monkeypatch.setattr(os, "write", short)
    with caplog.at_level(logging.WARNING, logger="trainer"):
        journal.rows([{"step": 2}])
        assert folder.metrics.read_text() == '{"step": 1}\n', "half a line stands in the file"
        assert journal.state_dict() == {"offset": 12, "waiting": '{"step": 2}\n'}
        journal.rows([{"step": 3}])
    assert len(caplog.messages) == 1
    assert "No space left" in caplog.messages[0]
    room[0] = 10_000
    journal.finish(Outcome("finished", "done"))
    assert [row["step"] for row in lines(folder)] == [1, 2, 3]


def test_histograms_that_a_full_disk_cuts_short_do_not_spoil_the_next_ones(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal, write, room = Journal(folder), os.write, [5]
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[: room[0]]))
    with caplog.at_level(logging.WARNING, logger="trainer"):
        journal.histograms(1, {"a": Histogram([1], [0, 1])})
    assert folder.histograms.read_bytes() == b""
    assert caplog.messages[0].endswith("No space left on device; training goes on, and it is left out")
    room[0] = 10_000
    journal.histograms(2, {"a": Histogram([1], [0, 1])})
    assert json.loads(folder.histograms.read_text()) == {"step": 2, "a": {"counts": [1], "edges": [0, 1]}}


def test_panels_that_cannot_be_written_do_not_stop_the_training(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.media.write_text("not a folder")
    with caplog.at_level(logging.WARNING, logger="trainer"):
        Journal(folder).panels(1, [panel()])
        Journal(folder).panels(1, [Panel("val/examples", "a", np.zeros((4, 4)))])
    assert len(caplog.messages) == 2


def test_a_panel_that_holds_no_picture_costs_only_itself(folder: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="trainer"):
        Journal(folder).panels(1, [Panel("mine/x", "s", np.zeros((4, 4))), panel()])
    assert [one.name for one in read_panels(folder.media_at(1))] == [panel().name]
    assert "mine/x: the picture of s is float64 of shape (4, 4)" in caplog.messages[0]


def test_fifty_rows_take_well_under_a_millisecond(folder: RunFolder) -> None:
    rows = [
        {"step": n, "epoch": 1, "time": n / 7, "train/loss": n / 3, "train/grad_norm": 0.1, "lr": 1e-2}
        for n in range(50)
    ]
    journal, taken = Journal(folder), []
    for _ in range(30):
        begin = time.perf_counter()
        journal.rows(rows)
        taken.append(time.perf_counter() - begin)
    assert min(taken) < 0.001
