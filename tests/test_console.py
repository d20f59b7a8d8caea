"""What a person reads while a run trains."""

from __future__ import annotations

import io
import logging
import math
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.folder import RunFolder
from trainer.records import Outcome
from trainer.tracking.base import Plan
from trainer.tracking.console import WIDTH, Console, HeldBack, duration, number

ROOT = Path(__file__).resolve().parents[1]
log = logging.getLogger("trainer")
ROW = {
    "step": 78, "epoch": 3, "time": 12.34, "train/loss": 0.4123, "train/grad_norm": 3.2, "lr": 9.3e-3,
    "val/loss": 0.398, "val/dice": 0.61, "val/miou": 0.512, "val/iou/land": 0.4,
}  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    """A pipe whose reader has left."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def plan(folder: RunFolder | None = None) -> Plan:
    lines = {"data": "406 tiles", "monitor": "val/miou (max)"}
    return Plan(folder, 780, 26, 30, monitor="val/miou", mode="max", lines=lines)


def shown(*rows: tuple[dict, bool], stream: io.StringIO | None = None, folder: RunFolder | None = None) -> list[str]:
    stream = stream or io.StringIO()
    console = Console(stream)
    console.start(plan(folder))
    for row, improved in rows:
        console.rows([row])
        console.evaluated(row, improved)
    best = {"step": 78, "epoch": 3, "val/miou": 0.512, "val/iou/land": 0.4}
    console.finish(Outcome("finished", "30 epochs done", best=best, step=780, epoch=30, seconds=3723))
    return stream.getvalue().splitlines()


def test_the_plan_is_shown_with_its_labels_in_line() -> None:
    assert shown()[:3] == ["data     406 tiles", "monitor  val/miou (max)", ""]


def test_an_evaluation_is_one_line_with_the_monitored_metric_first() -> None:
    (line,) = [text for text in shown((ROW, True)) if text.startswith("epoch")]
    assert line == (
        "epoch  3/30  step  78  train/loss 0.4123  val/miou 0.5120  val/loss 0.3980  val/dice 0.6100"
        "  lr 9.3e-03    12.3 s  * best"
    )
    assert len(line) <= WIDTH
    assert "iou/land" not in line


def test_the_columns_of_all_lines_stand_in_line() -> None:
    later = {**ROW, "step": 780, "epoch": 30, "time": 4000.0, "val/miou": 12.5, "val/dice": None, "val/new": 1.0}
    first, second = (text for text in shown((ROW, False), (later, False)) if text.startswith("epoch"))
    assert len(first) == len(second)
    assert [first.index(word) for word in ("step", "val/miou", "lr")] == [
        second.index(word) for word in ("step", "val/miou", "lr")
    ]
    assert "val/dice - " in second
    assert "val/new" not in second


def test_a_line_never_grows_beyond_its_width_and_always_shows_the_monitored_metric() -> None:
    row = {"step": 78, "epoch": 3, "time": 1.0, "lr": 0.1, "val/miou": 0.5} | {
        f"val/some_metric_{n}": 0.1 for n in range(20)
    }
    (line,) = [text for text in shown((row, True)) if text.startswith("epoch")]
    assert "val/miou" in line
    assert len(line) <= WIDTH


def test_the_end_says_how_it_ended_what_was_best_where_and_how_long(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "r")
    folder.create()
    assert shown(folder=folder)[-5:] == [
        "",
        "finished  30 epochs done",
        "best      val/miou 0.5120  at epoch 3, step 78",
        "time      1:02:03 for 780 steps, 30 epochs",
        "folder    r",
    ]


def test_the_log_file_holds_the_same_with_times_and_is_appended_to(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for _ in range(2):
        shown((ROW, True), folder=folder)
    kept = folder.log.read_text().splitlines()
    assert len([line for line in kept if "epoch  3/30" in line]) == 2
    assert all(line[:2] == "20" and "  INFO     " in line for line in kept)


def test_everyone_who_logs_to_trainer_is_heard_once_and_only_while_the_run_lasts() -> None:
    stream, root = io.StringIO(), logging.StreamHandler(other := io.StringIO())
    logging.getLogger().addHandler(root)
    try:
        console = Console(stream)
        console.start(plan())
        logging.getLogger("trainer.something").warning("the disk is full")
        console.finish(Outcome("failed", "an error"))
        handlers = list(log.handlers)
        logging.getLogger("trainer").warning("later")
    finally:
        logging.getLogger().removeHandler(root)
    assert stream.getvalue().count("warning: the disk is full\n") == 1
    assert "later" not in stream.getvalue()
    assert other.getvalue() == "later\n"
    assert handlers == []
    assert log.propagate


def test_a_terminal_gets_a_bar_and_the_lines_stand_above_it() -> None:
    text = "\n".join(shown((ROW, True), stream=Terminal()))
    assert "78/780" in text
    assert "loss 0.4123  lr 0.009300" in text or "loss 0.4123" in text
    assert any(line.rsplit("\r", 1)[-1].startswith("epoch  3/30") for line in text.splitlines())


def test_the_bar_is_redrawn_a_few_times_a_second_whatever_comes() -> None:
    stream = Terminal()
    console = Console(stream)
    console.start(plan())
    for step in range(1, 500):
        console.rows([{**ROW, "step": step}])
    console.finish(Outcome("finished", "done"))
    assert stream.getvalue().count("step") < 30
    assert stream.getvalue().count("\r") < 60


def test_no_bar_is_drawn_into_a_file() -> None:
    assert "\r" not in "\n".join(shown((ROW, True)))


def test_a_quiet_console_shows_warnings_only_and_logs_all(tmp_path: Path) -> None:
    stream, folder = Terminal(), RunFolder(tmp_path)
    console = Console(stream, quiet=True)
    console.start(plan(folder))
    console.rows([ROW])
    console.evaluated(ROW, True)
    log.warning("look here")
    console.finish(Outcome("finished", "done"))
    assert stream.getvalue() == "warning: look here\n"
    assert "epoch  3/30" in folder.log.read_text()


@pytest.mark.parametrize("stream", [Gone(), "closed"])
def test_training_goes_on_without_its_terminal(stream: io.StringIO | str, tmp_path: Path) -> None:
    if isinstance(stream, str):
        stream = io.StringIO()
        stream.close()
    folder = RunFolder(tmp_path)
    console = Console(stream)
    console.start(plan(folder))
    console.rows([ROW])
    console.evaluated(ROW, True)
    console.finish(Outcome("finished", "done"))
    assert "epoch  3/30" in folder.log.read_text()


def test_a_reader_that_leaves_does_not_change_the_exit_code() -> None:
    code = (
        "import sys, time\n"
        "from trainer.tracking.base import Plan\n"
        "from trainer.tracking.console import Console\n"
        "c = Console(); c.start(Plan(None, 9, 9, 1, lines={'a': 'b'}))\n"
        "sys.stdin.read()\n"
        "for n in range(50): c.evaluated({'step': n, 'epoch': n}, True)\n"
        "print('more'); sys.exit(7)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=-1, stdout=-1, stderr=-1, text=True)
    assert child.stdin and child.stdout and child.stderr
    assert child.stdout.readline() == "a  b\n"
    child.stdout.close()
    child.stdin.close()
    assert child.wait() == 7
    assert child.stderr.read() == ""
    child.stderr.close()


def test_a_log_file_that_cannot_be_opened_is_a_warning(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.log.mkdir()
    assert any(line.startswith("warning: ") for line in shown((ROW, True), folder=folder))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.41234, "0.4123"), (12.345, "12.35"), (123.456, "123.5"), (9999.4, "9999"), (12345.0, "1.2e+04"),
        (0.0, "0.0000"), (5e-4, "5.0e-04"), (-0.5, "-0.5000"), (1.0, "1.000"), (7, "7"), (None, "-"),
        (math.nan, "nan"), (math.inf, "inf"),
    ],
)  # fmt: skip
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(1.25, "1.2 s"), (100, "1:40"), (3723, "1:02:03"), (math.nan, "-")])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_what_was_logged_before_the_console_stood_is_shown_once_after_the_plan() -> None:
    stream = io.StringIO()
    with HeldBack() as early:
        log.warning("the newest checkpoint is damaged")
        console = Console(stream, early=early)
        console.start(Plan(None, 10, 5, 2, lines={"data": "points"}))
        log.warning("later")
        console.finish(Outcome("finished", "done"))
    shown = stream.getvalue()
    assert [shown.count(text) for text in ("points", "is damaged", "later")] == [1, 1, 1]
    assert shown.index("points") < shown.index("is damaged") < shown.index("later")


def test_what_was_logged_before_an_error_is_told_where_no_console_ever_stood(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="no console"), HeldBack():
        log.warning("a sign of it")
        raise ValueError("no console")
    assert "a sign of it" in caplog.text
