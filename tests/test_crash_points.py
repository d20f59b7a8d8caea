"""Whichever file operation is the last before a kill or a power cut, or fails: what was saved before can be read."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.crashing import (
    BEFORE,
    BROKEN,
    BROKEN_ONCE,
    ERRORS,
    FULL,
    FULL_ONCE,
    KILLS,
    SHORT,
    TORN,
    Ended,
    Job,
    Operation,
    Tree,
    after_power_cuts,
    at_last,
    in_child,
    lay,
    unavailable,
)
from tests.small import Recorder, make_trainer, newest, timeless
from trainer.checkpoint import BEST, MANIFEST, Checkpoint, Checkpoints, read
from trainer.errors import TrainerError
from trainer.folder import RunFolder, step_name
from trainer.records import Outcome
from trainer.tracking.base import Plan
from trainer.tracking.journal import Journal
from trainer.tracking.status import Status

FAULTS = (*KILLS, *ERRORS)


@pytest.fixture(autouse=True)
def _layer() -> None:
    if reason := unavailable():
        pytest.skip(reason)


Action = Callable[[Path], Any]


def counted(action: Action, before: Path) -> tuple[Operation, ...]:
    """The operations of the action in a copy of a folder, where nothing goes wrong."""
    shutil.copytree(before, copy := before.with_name("counted"))
    [ended] = in_child(Job(lambda: action(copy), copy))
    assert ended.code == 0
    return ended.operations


def at_each_operation(
    fault: str, action: Action, before: Path, check: Callable[[Path, Ended], None], every: int = 1
) -> int:
    """Does the action in copies of a folder, each time with the fault at another operation; returns how many times."""
    operations = counted(action, before)
    kinds = {TORN: "write", SHORT: "write"}.get(fault, "")
    points = [n for n, found in enumerate(operations, 1) if found.kind.startswith(kinds)][::every]
    jobs = []
    for at in points:
        shutil.copytree(before, copy := before.with_name(f"{fault} {at}"))
        jobs.append(Job(lambda copy=copy: action(copy), copy, fault, at))
    all_ended = [in_child(job)[0] for job in jobs] if fault in KILLS else in_child(*jobs)
    failures: list[str] = []
    for job, ended in zip(jobs, all_ended, strict=True):
        operation = operations[job.at - 1]
        with noted(failures, f"{fault} {job.at}: {operation.kind} {' '.join(operation.paths)}"):
            assert ended.code == (-9 if fault in KILLS else 0), f"the child ended with {ended.code}"
            check(job.root, ended)
    assert not failures, f"{len(failures)} of {len(points)}\n" + "\n".join(failures)
    return len(points)


def after_each_power_cut(action: Action, before: Path, check: Callable[[Path], None], every: int = 1) -> Tree:
    """Checks all that a power cut during the action may leave; returns what one at its end leaves at worst."""
    operations = counted(action, before)
    failures: list[str] = []
    cuts = list(after_power_cuts(before, operations))[::every]
    for n, (number, tree) in enumerate(cuts):
        lay(tree, folder := before.with_name(f"cut {n}"))
        operation = operations[number - 1]
        with noted(failures, f"after {number}: {operation.kind} {' '.join(operation.paths)}"):
            check(folder)
    assert not failures, f"{len(failures)} of {len(cuts)}\n" + "\n".join(failures)
    return at_last(before, operations)


@contextlib.contextmanager
def noted(failures: list[str], where: str) -> Iterator[None]:
    try:
        yield
    except (AssertionError, TrainerError, OSError) as error:
        failures.append(f"{where}: {error!r:.500}")


def test_what_cpp_writes_counts_and_can_be_torn(tmp_path: Path) -> None:
    path = tmp_path / "in" / "a.pt"
    path.parent.mkdir()

    def write() -> None:
        torch.save({"w": torch.zeros(100_000)}, path)
        (tmp_path / "outside").write_bytes(b"x")

    kinds = [operation.kind for operation in in_child(Job(write, path.parent))[0].operations]
    assert set(kinds) == {"open", "write"}
    whole = path.stat().st_size
    assert in_child(Job(write, path.parent, TORN, kinds.index("write") + 1)) == [Ended(-9)]
    assert 0 < path.stat().st_size < whole
    assert in_child(Job(write, path.parent, BROKEN, 1), Job(lambda: 7, tmp_path)) == [Ended(1), Ended(0, 7)]


# -------------------------------------------------------------------------------------------------- one checkpoint


def contents(value: int) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"w": torch.arange(3000.0) + value}, {"value": value, "moments": torch.arange(2000) * value}


def kept(folder: Path) -> Checkpoints:
    made = Checkpoints(keep=1)
    made.attach(folder)
    return made


def save(folder: Path, step: int, value: int, best: bool) -> tuple[int, int]:
    """Returns the exit code that the run would have, and how many warnings were given."""
    warnings: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = warnings.append
    logging.getLogger("trainer").addHandler(handler)
    checkpoints, code = kept(folder), 0
    try:
        checkpoints.save(step, *contents(value), {"epoch": 1}, best)
        checkpoints.close()
    except TrainerError as error:
        code = error.exit_code
    finally:
        logging.getLogger("trainer").removeHandler(handler)
    return code, len(warnings)


def value_of(found: Checkpoint | None) -> int:
    """What was saved there, once it has been found the same to the last bit."""
    assert found is not None
    value = int(found.state["value"])
    assert (timeless(found.weights), timeless(found.state)) == tuple(map(timeless, contents(value)))
    return value


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {BEST}


def values_after(folder: Path) -> tuple[int, int]:
    """The values of the newest and the best checkpoint, in a folder where all is as it must be after a crash."""
    checkpoints = kept(folder)
    newest = value_of(checkpoints.newest())
    best = value_of(checkpoints.best()) if (folder / BEST).exists() else 0
    assert newest in (1, 2)
    assert best in (0, 1, 2)
    for name in checkpoints.names():
        value_of(read(folder / name))
    checkpoints.clear()
    assert left(folder) == set(checkpoints.names()), "something was left behind"
    assert save(folder, 3, 3, True) == (0, 0)
    assert value_of(checkpoints.newest()) == value_of(checkpoints.best()) == 3
    assert left(folder) == {step_name(3)}
    return newest, best


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A folder with one checkpoint, the best so far."""
    save(tmp_path / "before", 1, 1, True)
    return tmp_path / "before"


@pytest.mark.parametrize("fault", KILLS)
def test_a_save_killed_at_any_operation_leaves_the_old_checkpoint_or_the_new_one(fault: str, before: Path) -> None:
    def check(folder: Path, _: Ended) -> None:
        assert values_after(folder) in ((1, 1), (2, 1), (2, 2))

    assert at_each_operation(fault, lambda folder: save(folder, 2, 2, True), before, check) >= 3


@pytest.mark.parametrize("fault", ERRORS)
def test_a_save_that_fails_at_any_operation_is_tried_again_or_told(fault: str, before: Path) -> None:
    def check(folder: Path, ended: Ended) -> None:
        code, warnings = ended.answer
        values = values_after(folder)
        if code == 0:
            assert (values, warnings) == ((2, 2), 0)
        else:
            assert fault in (FULL, BROKEN)
            assert code == 6
            assert warnings
            assert values in ((1, 1), (2, 1), (2, 2))

    assert at_each_operation(fault, lambda folder: save(folder, 2, 2, True), before, check) >= 3


def test_a_step_saved_again_is_there_all_the_time(before: Path) -> None:
    def check(folder: Path, _: Ended) -> None:
        assert values_after(folder) in ((1, 1), (2, 2))

    at_each_operation(BEFORE, lambda folder: save(folder, 1, 2, True), before, check)


@pytest.mark.parametrize("best", [True, False], ids=["a new best", "not the best"])
def test_a_power_cut_during_a_save_leaves_the_old_checkpoint_or_the_new_one(best: bool, tmp_path: Path) -> None:
    save(tmp_path / "before", 1, 1, best)

    def check(folder: Path) -> None:
        values_after(folder)

    kept_for_sure = after_each_power_cut(lambda folder: save(folder, 2, 2, best), tmp_path / "before", check)
    assert f"{step_name(2)}/{MANIFEST}" in kept_for_sure
    assert not best or kept_for_sure[BEST] == f"{step_name(2)}\n".encode()


# -------------------------------------------------------------------------------------- status.json, metrics.jsonl


@pytest.mark.parametrize("fault", FAULTS)
def test_status_json_is_the_old_text_or_the_new_one(fault: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "before")
    folder.create()
    folder.write_status(state="running", filler="x" * 20_000)

    def write(path: Path) -> str:
        with contextlib.suppress(OSError):
            RunFolder(path).write_status(state="finished", filler="y" * 20_000)
            return "finished"
        return "running"

    def check(path: Path, ended: Ended) -> None:
        found = json.loads((path / "status.json").read_text())
        assert (found["state"], set(found["filler"])) in (("running", {"x"}), ("finished", {"y"}))
        assert ended.answer in (None, found["state"])
        assert write(path) == RunFolder(path).state() == "finished"

    assert at_each_operation(fault, write, folder.path, check) >= 1


ROWS = [{"step": step, "train/loss": step / 7, "name": "x" * 30 * step} for step in range(1, 7)]


@pytest.mark.parametrize("fault", FAULTS)
def test_only_the_last_line_of_the_history_can_be_torn_and_the_next_start_cuts_it(fault: str, tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()

    def start(path: Path) -> Journal:
        journal = Journal(RunFolder(path))
        journal.start(Plan(RunFolder(path), steps=6, steps_per_epoch=6, epochs=1))
        return journal

    def write(path: Path) -> None:
        journal = start(path)
        for n in range(0, 6, 2):
            journal.rows(ROWS[n : n + 2])
            journal.saved()
        journal.finish(Outcome("finished", "done"))

    def check(path: Path, ended: Ended) -> None:
        *lines, torn = (path / "metrics.jsonl").read_text().split("\n") if (path / "metrics.jsonl").exists() else [""]
        assert [json.loads(line) for line in lines] == ROWS[: len(lines)]
        assert bool(torn) == (fault == TORN)
        assert not torn or json.dumps(ROWS[len(lines)]).startswith(torn)
        if fault in (SHORT, FULL_ONCE, BROKEN_ONCE):
            assert (len(lines), torn) == (6, "")
        journal = start(path)
        journal.rows(ROWS[len(lines) :])
        assert [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()] == ROWS

    assert at_each_operation(fault, write, tmp_path / "before", check) >= 3


# ------------------------------------------------------------------------------------------------ a whole training


def train(path: Path) -> int:
    """A training of 8 updates and 4 saves, or what is left of it; returns its exit code."""
    folder = RunFolder(path)
    options: dict[str, Any] = {"epochs": 2, "checkpoint_every": "3steps", "checkpoints": Checkpoints(keep=1)}
    trackers = [Recorder(), Journal(folder), Status(folder)]
    try:
        return make_trainer(folder=folder, trackers=trackers, resume="auto", **options).fit().exit_code
    except TrainerError as error:
        return error.exit_code


def result(path: Path) -> Any:
    """All that must be equal, to the last bit."""
    weights, state = newest(path)
    del state["journal"]  # a length in bytes, some of which are the time of day
    status = json.loads((path / "status.json").read_text())
    facts = timeless({key: value for key, value in status["result"].items() if key != "seconds"})
    rows = [timeless(json.loads(line)) for line in (path / "metrics.jsonl").read_text().splitlines()]
    checkpoints = kept(path / "checkpoints")
    assert left(path / "checkpoints") == set(checkpoints.names()), "something was left behind"
    return weights, state, rows, status["state"], facts, checkpoints.best_name(), checkpoints.last_path().name


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    if unavailable():
        return None
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder) == 0
    return result(folder)


@pytest.fixture
def nothing(tmp_path: Path) -> Path:
    (tmp_path / "before").mkdir()
    return tmp_path / "before"


def test_a_training_killed_at_any_operation_ends_with_the_same_bits_and_rows(whole: Any, nothing: Path) -> None:
    def check(path: Path, _: Ended) -> None:
        assert train(path) == 0
        assert result(path) == whole

    assert at_each_operation(BEFORE, train, nothing, check, every=3) >= 20


def test_a_training_after_a_power_cut_ends_with_the_same_bits_and_rows(whole: Any, nothing: Path) -> None:
    def check(path: Path) -> None:
        assert train(path) == 0
        assert result(path) == whole

    after_each_power_cut(train, nothing, check, every=2)


@pytest.mark.parametrize("fault", [FULL, BROKEN_ONCE])
def test_a_training_that_cannot_write_trains_all_the_same_or_says_that_it_cannot_start(
    fault: str, whole: Any, nothing: Path
) -> None:
    def check(path: Path, ended: Ended) -> None:
        assert ended.answer in (0, 2, 6)
        assert train(path) == 0
        assert result(path) == whole

    at_each_operation(fault, train, nothing, check, every=6)
