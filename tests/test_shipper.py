"""wandb, with the real client: what reaches disk and server, and that nothing of it can touch the training."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from trainer.data.base import Data
from trainer.data.loader import Loader
from trainer.evaluation import Evaluator
from trainer.folder import RunFolder
from trainer.records import Evaluation, Outcome
from trainer.tasks import Classification, Segmentation, Task
from trainer.tracking import shipper as shipper_module
from trainer.tracking.attempts import sync_command
from trainer.tracking.base import Plan, Trackers
from trainer.tracking.journal import Journal
from trainer.tracking.mailbox import Mailbox, Sent, Spec, Tail
from trainer.tracking.sender import Best
from trainer.tracking.shipper import Shipper, Wandb
from trainer.update import Precision
from trainer.world import World

sys.path.insert(0, str(Path(__file__).parent))
from wandb_server import Run, WandbServer

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("val/examples", "val/worst", "val/confusion")

LIFE = """
import os, signal, sys
from dataclasses import replace
import numpy as np
from PIL import Image
from trainer.folder import RunFolder
from trainer.records import Histogram, Outcome, Panel
from trainer.tracking.base import Plan, Trackers
from trainer.tracking.console import Console
from trainer.tracking.journal import Journal
from trainer.tracking.shipper import Shipper, Wandb

path, first, last, end, settings = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], eval(sys.argv[5])
folder = RunFolder(path)
folder.create()
Image.fromarray(np.full((4, 6, 3), first, np.uint8)).save(folder.preview)
if settings.get("side_by_side"):
    folder.code.mkdir()
    (folder.code / "model.py").write_text("depth = 3")
ship = Shipper(folder, Wandb(**settings), id="r1", name="run one", group="g", config={"optimizer": {"lr": 0.1}})
ship.launch()
journal = Journal(folder, ship.apart)
if first > 1:
    kept = folder.metrics.read_bytes().splitlines(keepends=True)[: first - 1]
    journal.load_state_dict({"offset": sum(map(len, kept)), "waiting": ""})
trackers = Trackers([journal, Console(), ship])
trackers.start(Plan(folder, 20, 5, 4, start=first - 1, monitor="val/miou", mode="max", config={"seed": 1}))
draw = np.random.default_rng(0)
for step in range(first, last + 1):
    row = {"step": step, "epoch": step // 5, "time": step / 10, "train/loss": 1 / step, "life": first}
    if step % 5 == 0:
        row |= {"val/miou": [0.1, 0.7, float("nan"), 0.4][step // 5 - 1], "val/loss": 0.5}
        image = draw.integers(50, 256, (24, 32, 3), dtype=np.uint8)
        mask = (image[..., 0] > 100).astype(np.uint8)
        masks = {"true": mask, "pred": 1 - mask}
        one = Panel("val/examples", "s0", image, masks, ("water", "land"), caption="s0  IoU 0.50")
        trackers.panels(step, [one, replace(one, sample="s1", image=image[..., 0], caption="")])
        trackers.histograms(step, {"gradients/fc": Histogram([step, first], [-1.0, 0.0, 2.0])})
    trackers.speed(step, {"speed/data": step / 100})
    trackers.rows([row])
    if step % 5 == 0:
        trackers.evaluated(row, True)
        trackers.saved()
if end == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if end == "waits":
    sys.stdin.read()
best = {"step": 10, "epoch": 2, "time": 1.0, "val/miou": 0.7, "val/loss": 0.5, "val/told": 1.0}
code = int(end) if end.isdigit() else 0
trackers.finish(Outcome("interrupted" if code > 128 else "finished", "20 steps done", best=best, exit_code=code))
print("torch" in sys.modules, "wandb" in sys.modules)
"""
ONLINE, OFFLINE = {"finish_timeout": 20.0}, {"mode": "offline", "finish_timeout": 20.0}


def began(
    path: Path, env: dict[str, str], settings: dict, first: int = 1, last: int = 20, end: str = "0"
) -> subprocess.Popen:
    words = [sys.executable, "-c", LIFE, str(path), str(first), str(last), end, repr(settings)]
    return subprocess.Popen(words, env={**env, "PYTHONPATH": str(ROOT)}, stdin=-1, stdout=-1, stderr=-1, text=True)


def life(path: Path, env: dict[str, str], settings: dict, first: int = 1, last: int = 20, end: str = "0") -> str:
    """One training in a process of its own; returns what it printed."""
    child = began(path, env, settings, first, last, end)
    out, err = child.communicate(timeout=60)
    assert child.returncode == (-9 if end == "killed" else 0), err
    return out + err


def settle(folder: RunFolder) -> Sent:
    """Waits until the child of a killed training has ended."""
    box, until = Mailbox(folder), time.monotonic() + 30
    while not ((sent := box.read(Sent)) and sent.closed):
        assert time.monotonic() < until, (folder.shipper / "child.log").read_text()
        time.sleep(0.05)
    with open(folder.shipper / "lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    return sent


def offline_env(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return {**kept, "HOME": str(home), "WANDB_ERROR_REPORTING": "false"}


def journal_of(folder: RunFolder) -> list[dict]:
    return [json.loads(line) for line in folder.metrics.read_text().splitlines()]


def plain(rows: list[dict]) -> list[dict]:
    """Rows as the journal has them: without what wandb and pictures add, NaN as null."""
    drop = ("_", "trainer/step", "val/examples", "schedule", "speed/", "gradients/")
    found = [{"step": row["_step"], **{k: v for k, v in row.items() if not k.startswith(drop)}} for row in rows]
    lost = (None, "NaN")
    return [
        {k: None if v in lost or (isinstance(v, float) and math.isnan(v)) else v for k, v in row.items()}
        for row in found
    ]


def inspect(path: Path) -> list[dict]:
    """The records of an offline run, read by wandb's own reader."""
    wandb = Path(sys.executable).with_name("wandb")
    done = subprocess.run([wandb, "leet", "inspect", "--json", path], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def history(records: list[dict]) -> list[dict]:
    return [record["history"]["item"] for record in records if record["type"] == "history"]


def summary(records: list[dict]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in records:
        if record["type"] == "summary":
            found |= record["summary"]["update"]
    return found


def best_of(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in summary.items() if name.startswith("best/")}


BEST = {"best/step": 10, "best/epoch": 2, "best/val/miou": 0.7, "best/val/loss": 0.5}
BEST |= {"best/train/loss": 0.1, "best/life": 1, "best/val/told": 1.0}  # the last is known to the outcome alone


@pytest.fixture(scope="module")
def server() -> Iterator[WandbServer]:
    with WandbServer() as server:
        yield server
        assert server.unknown == [], "the client asked for something that this server does not know"


@pytest.fixture(scope="module")
def unreachable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunFolder, subprocess.Popen]]:
    """A training whose server does not answer; wandb needs some seconds to give up, so it starts first of all."""
    with WandbServer() as server:
        env = server.env(WANDB_INIT_TIMEOUT="1")
        server.down()
        path = tmp_path_factory.mktemp("unreachable")
        child = began(path, env, ONLINE)
        yield RunFolder(path), child
        child.kill()
        child.communicate()


@pytest.fixture(scope="module")
def online(
    server: WandbServer, tmp_path_factory: pytest.TempPathFactory, unreachable: Any
) -> tuple[RunFolder, Run, str]:
    folder = RunFolder(tmp_path_factory.mktemp("online"))
    said = life(
        folder.path,
        server.env(WANDB_RUN_ID="other", WANDB_RESUME="allow", WANDB_JOB_TYPE="other"),
        {**ONLINE, "tags": ["t"], "side_by_side": True},
    )
    return folder, server.run("r1"), said


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Path, list[dict], str]:
    home, folder = tmp_path_factory.mktemp("home"), RunFolder(tmp_path_factory.mktemp("offline"))
    said = life(folder.path, offline_env(home), {"finish_timeout": 20.0})
    (path,) = folder.wandb.glob("offline-run-*")
    assert list(home.iterdir()) == [], "wandb wrote into the home folder"
    return folder, path, inspect(path), said


# ------------------------------------------------------------------------------------------------------------ online


def test_every_row_of_the_journal_is_on_the_server_at_its_step(online: tuple[RunFolder, Run, str]) -> None:
    folder, run, _ = online
    assert plain(run.history) == journal_of(folder)
    assert [row["_step"] for row in run.history] == [row["trainer/step"] for row in run.history] == list(range(1, 21))
    assert run.overwritten == 0


def test_the_speed_goes_with_the_row_of_its_step(online: tuple[RunFolder, Run, str]) -> None:
    _, run, _ = online
    assert [row["speed/data"] for row in run.history] == [step / 100 for step in range(1, 21)]


def test_the_config_is_nested_and_the_run_is_called_what_it_was_told(online: tuple[RunFolder, Run, str]) -> None:
    _, run, _ = online
    assert run.config == {"optimizer": {"lr": 0.1}, "seed": 1}
    assert (run.id, run.name, run.group, run.project, run.tags) == ("r1", "run one", "g", "wandb-trainer", ["t"])
    assert run.job_type == "", "a setting of the environment that was meant for another run"


def test_the_summary_holds_the_last_values_and_one_whole_best_row(online: tuple[RunFolder, Run, str]) -> None:
    _, run, _ = online
    assert run.summary["val/miou"] == 0.4
    assert best_of(run.summary) == BEST


def test_charts_have_the_step_as_their_axis(online: tuple[RunFolder, Run, str]) -> None:
    assert {"trainer/step"} <= {
        value for record in online[1].metrics for value in record.values() if isinstance(value, str)
    }


def test_pictures_arrive_as_they_were_with_their_masks_and_class_names(online: tuple[RunFolder, Run, str]) -> None:
    folder, run, _ = online
    shown = [row["val/examples"] for row in run.history if "val/examples" in row]
    assert len(shown) == 4
    assert shown[0]["captions"] == ["s0  IoU 0.50", "s1"]
    for number, name in enumerate(shown[0]["filenames"]):
        with Image.open(folder.media_at(5) / f"{number:02d}-image.png") as kept:
            np.testing.assert_array_equal(pixels(run.files[name]), np.asarray(kept))
        masks = shown[0]["all_masks"][number]
        with Image.open(folder.media_at(5) / f"{number:02d}-pred.png") as kept:
            np.testing.assert_array_equal(pixels(run.files[masks["pred"]["path"]]), np.asarray(kept))
    labels = run.raw_config["_wandb"]["value"]["mask/class_labels"]
    assert labels["val/examples_wandb_delimeter_true"]["value"] == {"0": "water", "1": "land"}


def test_histograms_and_plain_pictures_go_with_the_row_of_their_step_and_the_code_is_an_artifact(
    online: tuple[RunFolder, Run, str],
) -> None:
    folder, run, _ = online
    found = {row["_step"]: row["gradients/fc"] for row in run.history if "gradients/fc" in row}
    assert found == {n: {"_type": "histogram", "values": [n, 1], "bins": [-1, 0, 2]} for n in (5, 10, 15, 20)}
    shown = {row["_step"]: row["val/examples/plain"] for row in run.history if "val/examples/plain" in row}
    assert list(shown) == [5, 10, 15, 20]
    assert shown[5]["captions"] == ["s0  IoU 0.50", "s1"]
    for number, name in enumerate(shown[5]["filenames"]):
        with Image.open(folder.media_at(5) / f"{number:02d}-image.png") as kept:
            picture, size = pixels(run.files[name]), (kept.width, kept.height)
        times = 5  # as on the sheet, where small pictures are enlarged
        assert picture.shape[1] == 3 * times * size[0] + 2 * 8, "picture, true and pred beside each other"
    (artifact,) = [one for one in run.artifacts if one["type"] == "code"]
    assert (artifact["name"], artifact["files"]) == ("source-wandb-trainer", {"model.py": len("depth = 3")})


def shown_by(kind: str) -> Evaluation:
    """What a real evaluation of pictures shows: seven right and wrong answers of three classes, pixels left out."""
    generator = torch.Generator().manual_seed(1)
    pictures = torch.rand(7, 3, 24, 32, generator=generator)
    label, masks = torch.arange(7) % 3, torch.randint(3, (7, 24, 32), generator=generator)
    masks[:, 0] = 255
    names = ["water", "land", "ice"]
    task: Task = Segmentation(nn.CrossEntropyLoss(ignore_index=255), 3, names, ignore_index=255, worst=2)
    model = nn.Sequential(nn.AvgPool2d((24, 32)), nn.Flatten())
    if kind == "classification":
        task = Classification(nn.CrossEntropyLoss(), names, worst=2)
    data = Data(dataset := TensorDataset(pictures, label if kind == "classification" else masks), dataset)
    loader = Loader(dataset, 4, shuffle=False)
    model = model if kind == "classification" else nn.Sequential(nn.Identity())
    return Evaluator(task, data, loader, Precision(), World("cpu", 1))(model)


def test_what_a_real_evaluation_shows_arrives(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.env().items():
        monkeypatch.setenv(name, value)
    ships, shown = {}, {}
    for kind in ("classification", "segmentation"):  # both at once, since wandb takes its time to start
        folder = RunFolder(tmp_path / kind)
        folder.create()
        ships[kind] = Shipper(folder, Wandb(finish_timeout=20.0, project="shown"), id=kind, name=kind)
        ships[kind].launch()
        evaluation = shown_by(kind)
        trackers = Trackers([Journal(folder), ships[kind]])
        trackers.start(Plan(folder, 1, 1, 1))
        trackers.panels(1, evaluation.panels)
        trackers.rows([{"step": 1, **evaluation.metrics}])
        shown[kind] = trackers, {name: [p for p in evaluation.panels if p.name == name] for name in NAMES}
    for kind, (trackers, panels) in shown.items():
        trackers.finish(Outcome("finished", "done"))
        run = server.run(kind)
        (row,) = run.history
        for name in NAMES:
            assert row[name]["captions"] == [panel.caption for panel in panels[name]]
            for panel, file in zip(panels[name], row[name]["filenames"], strict=True):
                np.testing.assert_array_equal(pixels(run.files[file]), panel.image)
        assert [len(panels[name]) for name in NAMES] == [7, 2, 1]
    assert re.fullmatch(r"0  true water, pred \w+ 0\.\d\d", shown["classification"][1]["val/examples"][0].caption)
    labels = run.raw_config["_wandb"]["value"]["mask/class_labels"]
    classes = {"0": "water", "1": "land", "2": "ice", "3": "ignore"}
    for name in ("val/examples", "val/worst"):
        for mask in ("true", "pred", "error"):
            expected = {"0": "right", "1": "wrong", "2": "ignore"} if mask == "error" else classes
            assert labels[f"{name}_wandb_delimeter_{mask}"]["value"] == expected
        for panel, sent in zip(panels[name], row[name]["all_masks"], strict=True):
            assert set(sent) == set(panel.masks) == {"true", "pred", "error"}
            for mask, values in panel.masks.items():
                np.testing.assert_array_equal(pixels(run.files[sent[mask]["path"]]), values)


def test_the_drawn_schedule_arrives_with_the_first_row(online: tuple[RunFolder, Run, str]) -> None:
    folder, run, _ = online
    (row,) = (row for row in run.history if "schedule" in row)
    assert row["_step"] == 1
    with Image.open(folder.preview) as kept:
        np.testing.assert_array_equal(pixels(run.files[row["schedule"]["filenames"][0]]), np.asarray(kept))


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture)


def test_the_log_that_a_person_reads_is_the_log_of_the_run(online: tuple[RunFolder, Run, str]) -> None:
    folder, run, _ = online
    sent = "\n".join(run.console)
    assert all(line in sent for line in folder.log.read_text().splitlines())


def test_a_finished_run_is_finished_and_its_training_imported_neither_wandb_nor_torch(
    online: tuple[RunFolder, Run, str],
) -> None:
    folder, run, said = online
    assert (run.state, run.exit_code) == ("finished", 0)
    assert "False False" in said
    assert "Traceback" not in said
    assert sync_command(folder) is None


def test_a_killed_training_is_sent_and_failed_and_going_on_leaves_one_exact_history(
    server: WandbServer, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "r")
    settings = {**ONLINE, "project": "resumed"}
    life(folder.path, server.env(), settings, last=12, end="killed")
    settle(folder)
    (run,) = (run for run in server.runs if run.project == "resumed")
    assert (run.state, run.exit_code, len(run.history)) == ("failed", 1, 12)
    life(folder.path, server.env(), settings, first=9, end="143")
    assert plain(run.history) == journal_of(folder)
    assert [row["life"] for row in run.history] == [1] * 8 + [9] * 12
    assert (run.exit_code, run.overwritten) == (143, 0)
    assert best_of(run.summary) == {**BEST, "best/life": 9}
    assert len({row["_step"] for row in run.history}) == 20


def test_an_id_that_somebody_has_already_leaves_their_run_as_it_is(server: WandbServer, tmp_path: Path) -> None:
    theirs = server.seed_run("r1", project="taken", history=[{"a": 1}] * 3)
    folder = RunFolder(tmp_path / "r")
    life(folder.path, server.env(), {**ONLINE, "project": "taken"})
    (ours,) = (run for run in server.runs if run.project == "taken" and run is not theirs)
    assert len(theirs.history) == 3
    assert ours.id.startswith("r1-")
    assert plain(ours.history) == journal_of(folder)


# ----------------------------------------------------------------------------------------------------------- offline


def test_without_a_login_a_run_is_kept_offline_and_holds_all_of_the_journal(
    offline: tuple[RunFolder, Path, list[dict], str],
) -> None:
    folder, path, records, said = offline
    assert plain(history(records)) == journal_of(folder)
    assert best_of(summary(records)) == BEST
    (run,) = (record["run"] for record in records if record["type"] == "run")
    assert run["config"]["update"] == {**run["config"]["update"], "optimizer": {"lr": 0.1}, "seed": 1}
    assert records[-1]["exit"]["exit_code"] == 0  # and how long it took, if that was a second
    assert "Traceback" not in said
    assert sync_command(folder) == f"trainer-sync {folder.path}"


def test_an_offline_run_has_its_masks_and_their_class_names(offline: tuple[RunFolder, Path, list[dict], str]) -> None:
    _, path, records, _ = offline
    text = json.dumps(records)
    assert (
        '"val/examples_wandb_delimeter_pred", "type": "mask/class_labels", "value": {"0": "water", "1": "land"}' in text
    )
    assert len(list((path / "files/media/images/val").glob("*.png"))) == 8


def test_wandb_writes_nowhere_but_into_its_folder(offline: tuple[RunFolder, Path, list[dict], str]) -> None:
    folder = offline[0]
    assert {path.name for path in folder.path.iterdir()} == {
        ".shipper",
        "wandb",
        "metrics.jsonl",
        "histograms.jsonl",
        "media",
        "preview.png",
        "train.log",
    }


def test_a_server_that_is_down_costs_a_message_and_the_run_is_sent_later(
    unreachable: tuple[RunFolder, subprocess.Popen], server: WandbServer
) -> None:
    folder, child = unreachable
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert err.count("this run is kept offline") == 1
    (path,) = folder.wandb.glob("offline-run-*")
    assert plain(history(inspect(path))) == journal_of(folder)
    env = {**server.env(), "PYTHONPATH": str(ROOT)}
    code = (
        "import sys; from trainer.tracking.shipper import main; from pathlib import Path\n"
        f"p = Path({str(folder.path)!r}) / '.shipper/spec.json'\n"
        "p.write_text(p.read_text().replace('wandb-trainer', 'later'))\n"
        f"print(main([{str(folder.path)!r}]), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("0 False\n"), done.stderr
    (run,) = (run for run in server.runs if run.project == "later")
    assert plain(run.history) == journal_of(folder)
    assert (run.state, best_of(run.summary)) == ("finished", BEST)
    assert sync_command(folder) is None
    assert list(folder.wandb.glob("offline-run-*")) == [], "a wandb sync would send the run twice"


def test_going_on_offline_gives_one_exact_history_after_one_sync(server: WandbServer, tmp_path: Path) -> None:
    folder, settings = RunFolder(tmp_path / "r"), {**OFFLINE, "project": "synced"}
    life(folder.path, server.env(), settings, last=12, end="killed")
    settle(folder)
    life(folder.path, server.env(), settings, first=9)
    (path,) = folder.wandb.glob("offline-run-*")
    assert plain(history(inspect(path))) == journal_of(folder)
    wandb = Path(sys.executable).with_name("wandb")
    server.exec([str(wandb), "sync", "--yes", "--include-online", str(folder.wandb)], capture_output=True)
    (run,) = (run for run in server.runs if run.project == "synced")
    assert plain(run.history) == journal_of(folder)
    assert (run.state, run.overwritten) == ("finished", 0)


def test_going_on_offline_with_a_run_that_is_online_gives_one_exact_history_after_a_sync(
    server: WandbServer, tmp_path: Path
) -> None:
    folder, project = RunFolder(tmp_path / "r"), {"project": "mixed"}
    life(folder.path, server.env(), {**ONLINE, **project}, last=12, end="143")
    life(folder.path, server.env(), {**OFFLINE, **project}, first=9)
    wandb = Path(sys.executable).with_name("wandb")
    server.exec([str(wandb), "sync", "--yes", str(folder.wandb)], capture_output=True)
    (run,) = (run for run in server.runs if run.project == "mixed")
    assert plain(run.history) == journal_of(folder)
    assert [row["life"] for row in run.history] == [1] * 8 + [9] * 12
    assert sync_command(folder) is None


# ------------------------------------------------------------------------------------------------ what may go wrong


def test_a_child_that_is_killed_is_started_again_and_nothing_is_missing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "r")
    child = began(folder.path, offline_env(tmp_path), OFFLINE, end="waits")
    until = time.monotonic() + 20
    while not (folder.shipper / "lock").exists() or not (folder.shipper / "lock").read_text():
        assert time.monotonic() < until
        time.sleep(0.02)
    os.kill(int((folder.shipper / "lock").read_text()), signal.SIGKILL)
    out, err = child.communicate("", timeout=30)
    assert child.returncode == 0
    assert (out + err).count("killed by signal 9, and is started again") == 1
    (path,) = folder.wandb.glob("offline-run-*")
    assert plain(history(inspect(path))) == journal_of(folder)
    assert len(journal_of(folder)) == 20


def test_the_end_of_a_training_waits_for_a_busy_server_no_longer_than_it_was_told(tmp_path: Path) -> None:
    with WandbServer() as server:
        folder = RunFolder(tmp_path / "r")
        server.hang()
        begin = time.monotonic()
        said = life(folder.path, server.env(), {"finish_timeout": 0.5})
        assert time.monotonic() - begin < 8
        assert said.count("not all was sent in 0.5 s; the rest is sent in the background") == 1
        os.kill(int((folder.shipper / "lock").read_text()), signal.SIGKILL)


def test_inline_sends_the_same_from_the_training_process(
    offline: tuple[RunFolder, Path, list[dict], str], tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "r")
    said = life(folder.path, offline_env(tmp_path), {**OFFLINE, "process": "inline"})
    assert "False True" in said
    (path,) = folder.wandb.glob("offline-run-*")
    records = inspect(path)
    assert plain(history(records)) == plain(history(offline[2])) == journal_of(folder)
    assert best_of(summary(records)) == best_of(summary(offline[2]))


def test_inline_a_failure_of_wandb_is_told_once_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def refuse(*_: Any, **__: Any) -> None:
        raise wandb.errors.CommError("the service is gone")

    monkeypatch.setattr(wandb, "init", refuse)
    shipper = Shipper(RunFolder(tmp_path), Wandb(mode="offline", process="inline"), id="r1", name="r1")
    with caplog.at_level(logging.INFO, logger="trainer"):
        shipper.launch()
        shipper.start(Plan(RunFolder(tmp_path), 1, 1, 1))
        shipper.rows([{"step": 1}])
        shipper.finish(Outcome("finished", "done"))
    assert [message for message in caplog.messages if "the service is gone" in message] == caplog.messages
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("settings", [Wandb(mode="disabled"), Wandb()])
def test_disabled_starts_nothing_and_writes_nothing(
    settings: Wandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    shipper = Shipper(RunFolder(tmp_path / "r"), settings, id="r1", name="r1")
    shipper.launch()
    shipper.start(Plan(RunFolder(tmp_path / "r"), 1, 1, 1))
    shipper.rows([{"step": 1}])
    assert shipper.messages() == []
    shipper.finish(Outcome("finished", "done"))
    shipper.abandon()
    assert list(tmp_path.iterdir()) == []
    assert sync_command(RunFolder(tmp_path / "r")) is None


def test_a_process_that_cannot_be_started_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    shipper = Shipper(RunFolder(tmp_path), Wandb(mode="offline"), id="r1", name="r1")
    shipper.launch()
    shipper.finish(Outcome("finished", "done"))
    assert len(caplog.messages) == 1


def test_a_run_that_could_not_start_leaves_no_process(tmp_path: Path) -> None:
    shipper = Shipper(RunFolder(tmp_path), Wandb(mode="offline"), id="r1", name="r1")
    shipper.launch()
    assert shipper._child is not None
    shipper.abandon()
    shipper.abandon()
    assert shipper._child.wait(20) == 0
    assert not (tmp_path / "wandb").exists()


def test_an_attempt_that_wandb_never_saw_is_not_forgotten(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    starts = []
    for start, seen in ((0, True), (30, True), (20, False), (25, False), (40, True), (50, True)):
        shipper = Shipper(folder, Wandb(mode="offline"), id="r1", name="r1")
        shipper._child = subprocess.Popen(["true"])  # no child looks at it
        shipper._child.wait()
        shipper._prior = Mailbox(folder).read(Spec)
        folder.shipper.mkdir(exist_ok=True)
        shipper.start(Plan(folder, 100, 10, 10, start=start))
        spec = Mailbox(folder).read(Spec)
        assert spec is not None
        starts.append(spec.start)
        if seen:
            Mailbox(folder).write(Sent(attempt=spec.attempt))
    assert starts == [0, 30, 20, 20, 20, 50]


# ------------------------------------------------------------------------------------------------------- small parts


def test_messages_come_once_are_logged_and_stop_is_remembered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = RunFolder(tmp_path)
    folder.shipper.mkdir()
    shipper = Shipper(folder, Wandb(mode="offline"), id="r1", name="r1")
    assert shipper.messages() == []
    for kind in ("url", "warning", "stopped"):
        Mailbox(folder).tell(kind, f"a {kind}")
    with caplog.at_level(logging.INFO, logger="trainer"):
        assert [message.kind for message in shipper.messages()] == ["url", "warning", "stopped"]
        assert shipper.messages() == []
    assert caplog.messages == ["wandb: a url", "wandb: a warning", "wandb: a stopped"]
    assert shipper.stopped


@pytest.mark.parametrize(("kind", "waits"), [("server", False), ("offline", True)])
def test_the_end_of_a_training_waits_for_a_silent_server_only_so_long_and_for_the_disk_longer(
    kind: str, waits: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipper_module, "STILL", 0.1)
    folder = RunFolder(tmp_path)
    folder.shipper.mkdir()
    shipper = Shipper(folder, Wandb(mode="offline", finish_timeout=0.6), id="r1", name="r1")
    Mailbox(folder).tell("server", "")
    Mailbox(folder).tell(kind, "connection refused" if kind == "server" else "")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        shipper._child = child
        shipper.finish(Outcome("finished", "1 epoch done"))
        child.kill()
    (said,) = caplog.messages
    assert said.startswith("wandb: not all was sent in 0.6 s; " if waits else "wandb: connection refused; the rest is")


def test_only_whole_lines_are_read_and_each_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    tail = Tail(path)
    assert tail.lines() == []
    path.write_bytes(b"one\ntw")
    assert tail.lines() == [b"one"]
    assert tail.lines() == []
    path.write_bytes(b"one\ntwo\n")
    assert tail.lines() == [b"two"]


@pytest.mark.parametrize(("direction", "found"), [("max", [1, 4]), ("min", [1, 2])])
def test_the_best_row_is_the_first_of_the_best_finite_value(direction: str, found: list[int]) -> None:
    best = Best("m", direction)
    values = [None, 0.3, 0.1, None, 0.5, 0.5, math.nan, 0.1, math.inf]
    assert [step for step, value in enumerate(values) if best.update({"step": step, "m": value})] == found


def test_one_process_alone_sends_a_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.shipper.mkdir()
    with Mailbox(folder).hold(take_over=False), pytest.raises(BlockingIOError), Mailbox(folder).hold(take_over=False):
        pass
    code = (
        "import sys; from trainer.folder import RunFolder; from trainer.tracking.mailbox import Mailbox\n"
        f"with Mailbox(RunFolder({str(tmp_path)!r})).hold(False): print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=-1, stdout=-1, text=True)
    assert other.stdout and other.stdout.readline() == "held\n"
    with Mailbox(folder).hold(take_over=True, patience=0.1):
        assert other.wait(10) == -signal.SIGKILL
    with contextlib.suppress(BrokenPipeError):
        other.communicate()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mode": "on"}, "mode: 'on' must be auto, online, offline or disabled"),
        ({"process": "thread"}, "process: 'thread' must be child or inline"),
        ({"finish_timeout": 0.0}, "finish_timeout: 0.0 must be more than 0"),
        ({"project": "a/b"}, "project: 'a/b' holds '/'"),
        ({"project": ""}, "project: '' has a wrong length"),
        ({"project": "x" * 129}, "has a wrong length"),
        ({"tags": ["ok", ""]}, "tags: '' must have 1 to 64 characters"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", "\\(")):
        Wandb(**wrong)
