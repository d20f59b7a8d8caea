"""trainer-dashboard, with the real client: what the view shows, that there is one, and what is told without one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import test_sync
from tests.wandb_server import WandbServer
from trainer.cli import dashboard
from trainer.folder import RunFolder
from trainer.report.board import axes
from trainer.tracking.mailbox import Mailbox

ROOT = Path(__file__).resolve().parents[1]
CALLS = "import sys; from trainer.cli import dashboard; print([dashboard([word]) for word in sys.argv[1:]])"


def config(optimizer: str, lr: float, seed: int) -> dict[str, Any]:
    own = {"adamw": {"_target_": "torch.optim.AdamW", "amsgrad": False}, "sgd": {"_target_": "torch.optim.SGD"}}
    stop = {"monitor": "val/accuracy"}
    return {
        "optimizer": {**own[optimizer], "lr": lr},
        "choices": {"optimizer": optimizer, "model": "cnn"},
        "seed": seed,
        "early_stopping": stop,
        "run": {"monitor": "val/accuracy", "mode": "max", "device": f"machine {lr}"},
    }


def job(path: Path, optimizer: str, lr: float, seed: int) -> RunFolder:
    """A job of a sweep as it lies there when it is over."""
    last = {"step": 5, "epoch": 1, "lr": 0.1, "train/loss": 0.3, "val/loss": 0.4, "val/accuracy": 0.9, "val/iou/sea": 1}
    folder = test_sync.made(path, monitor="val/accuracy", mode="max", result={"best": last, "last": last})
    box = Mailbox(folder)
    spec = box.last_spec()
    assert spec is not None
    box.write(replace(spec, group=path.parent.name, config=config(optimizer, lr, seed)))
    return folder


def call(server: WandbServer, *sources: object) -> tuple[list[int], str, str]:
    """The exit codes of several calls, and what they said."""
    line = [sys.executable, "-c", CALLS, *map(str, sources)]
    env = server.env(PYTHONPATH=str(ROOT))
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=90, check=False)
    *said, codes = done.stdout.splitlines()
    return json.loads(codes), "\n".join(said), done.stderr


class Views:
    """A sweep of two optimizers and two seeds, and its project; then one more rate, and the same call again."""

    def __init__(self, server: WandbServer, path: Path) -> None:
        self.server, self.path = server, path / "grid"
        jobs = [("sgd", 0.1, 0), ("sgd", 0.1, 1), ("adamw", 0.001, 0), ("adamw", 0.001, 1)]
        for n, values in enumerate(jobs):
            job(self.path / f"job{n}", *values)
        sweep = {**config("sgd", 0.1, 0), "optimizer": "sgd", "optimizer.lr": 0.1}
        summary = {"val/accuracy": 0.9, "val/worst": {"_type": "images/separated"}}
        server.seed_run("other", project="p", config=sweep, history=[], summary=summary)
        server.seed_run("more", project="p", config={**sweep, "optimizer.lr": 0.01}, history=[], summary=summary)
        self.first = call(server, self.path, "p", "q")
        self.views = [json.loads(view["spec"]) for view in server.backend.views.values()]
        (own, _) = server.backend.views.values()
        changed = json.loads(own["spec"])
        changed["section"]["panelBankConfig"]["sections"].append(
            {**changed["section"]["panelBankConfig"]["sections"][0], "name": "Mine"}
        )
        own["spec"] = json.dumps(changed)
        job(self.path / "job4", "adamw", 0.01, 0)
        server.fail("graphql:UpsertView2", 403, times=1)
        self.second = call(server, self.path / "job0", self.path / "job0")
        self.again = json.loads(next(iter(server.backend.views.values()))["spec"])


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Views]:
    with WandbServer() as server:
        yield Views(server, tmp_path_factory.mktemp("views"))
        assert server.unknown == [], "the client asked for something that this server does not know"


def panels(spec: dict[str, Any], section: str, kind: str) -> list[dict[str, Any]]:
    (found,) = (each for each in spec["section"]["panelBankConfig"]["sections"] if each["name"] == section)
    return [panel["config"] for panel in found["panels"] if panel["viewType"] == kind]


def columns(spec: dict[str, Any]) -> list[str]:
    (plot,) = panels(spec, "Results", "Parallel Coordinates Plot")
    return [column["accessor"] for column in plot["columns"]]


def test_the_view_of_a_sweep_shows_its_group_and_what_its_runs_differ_in(views: Views) -> None:
    spec, (_, said, _) = views.views[0], views.first
    (runs,) = spec["section"]["runSets"]
    (wanted,) = runs["filters"]["filters"]
    assert (wanted["key"]["name"], wanted["op"], wanted["value"]) == ("group", "IN", ["grid"])
    assert columns(spec) == ["config:choices.value.optimizer", "config:seed.value", "summary:best/val/accuracy"]
    assert runs["grouping"] == [{"section": "config", "name": "choices.value.optimizer"}], "the mean over seeds"
    assert runs["sort"]["keys"] == [{"key": {"section": "summary", "name": "best/val/accuracy"}, "ascending": False}]
    assert list(runs["runFeed"]["columnPinned"])[2:4] == ["summary:best/val/accuracy", "summary:best/epoch"]
    assert [plot["targetKey"] for plot in panels(spec, "Results", "Parameter Importance")] == ["best/val/accuracy"]
    assert f"made  {views.server.url}/local/p/workspace?nw=" in said
    assert f"5 of its runs are not there yet: trainer-sync {views.path}" in views.second[1]


def test_the_view_has_the_curves_the_pictures_and_a_comparison_of_runs(views: Views) -> None:
    lines = {name: panels(views.views[0], name, "Run History Line Plot") for name in ("Curves", "Classes")}
    assert [plot["metrics"] for plot in lines["Curves"]] == [["train/loss"], ["val/accuracy"], ["val/loss"]]
    assert [plot["metrics"] for plot in lines["Classes"]] == [["val/iou/sea"]]
    rates = panels(views.views[0], "Learning rate and gradient", "Run History Line Plot")
    assert [plot["metrics"] for plot in rates] == [["lr"], ["train/grad_norm"]]
    assert [media["mediaKeys"] for media in panels(views.views[0], "Samples", "Media Browser")] == [["val/examples"]]
    assert len(panels(views.views[0], "Results", "Run Comparer")) == 1


def test_the_view_of_a_project_is_made_from_its_runs_on_the_server(views: Views) -> None:
    spec = views.views[1]
    assert spec["section"]["runSets"][0]["filters"]["filters"] == []
    assert columns(spec) == ["config:optimizer.lr.value", "summary:best/val/accuracy"], "a key of a W&B sweep"
    found = [media["mediaKeys"] for media in panels(spec, "Samples", "Media Browser")]
    assert found == [["val/examples"], ["val/worst"]]


def test_the_same_call_again_changes_the_same_view_and_leaves_what_others_added(views: Views) -> None:
    codes, said, _ = views.second
    assert codes[1] == 0
    assert len(views.server.backend.views) == 2
    names = [each["name"] for each in views.again["section"]["panelBankConfig"]["sections"]]
    assert (names[0], names[-1], len(names)) == ("Results", "Mine", len(set(names)))
    assert "config:optimizer.value.lr" in columns(views.again)
    made = next(line.split()[1] for line in views.first[1].splitlines() if line.startswith("made"))
    assert f"brought up to date  {made}" in said


def test_no_such_project_and_a_server_that_refuses_are_told_in_one_line(views: Views) -> None:
    assert (views.first[0], views.second[0]) == ([0, 0, 2], [1, 0])
    (wrong,), (refused,) = (err.strip().splitlines() for _, _, err in (views.first, views.second))
    assert wrong.strip() == f"local/q: there is no such project on {views.server.url}; is it spelt so?"
    assert refused.strip() == f"{views.server.url}: injected 403; nothing was made"


def test_wrong_words_and_a_missing_package_are_told_without_asking_anybody(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    for words, text in (
        (["a/b/c"], "a/b/c: is neither a folder nor a project"),
        ([str(tmp_path)], "holds no run"),
        (["p", "--name", "a=b"], "--name: 'a=b' holds =;"),
        (["p"], "type pip install 'wandb-trainer[dashboard]'"),
    ):
        assert dashboard(words) == 2
        assert text in capsys.readouterr().err


def test_a_value_that_follows_from_a_chosen_file_is_no_axis_of_its_own() -> None:
    follows = [config("sgd", 0.1, 0), config("adamw", 0.001, 0)]
    assert [axis.name for axis in axes(follows)] == ["choices.optimizer"]
    untold = [{key: value for key, value in each.items() if key != "choices"} for each in follows]
    assert [(axis.name, axis.path) for axis in axes(untold)] == [("optimizer._target_", "optimizer.value._target_")]
    free = [*follows, config("adamw", 0.1, 0)]
    assert [(axis.name, axis.log) for axis in axes(free)] == [("choices.optimizer", False), ("optimizer.lr", True)]
