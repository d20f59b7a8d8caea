"""What hooks and user code log stands in the right row once, also after a resume, and cannot be mistaken for ours."""

from __future__ import annotations

import itertools
import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.small import Regression, StopAt, make_trainer, network, points, recorder_of, sgd, timeless, weights_of
from trainer.errors import ConfigError
from trainer.folder import RunFolder
from trainer.hooks import Hook
from trainer.loop import Trainer
from trainer.observers.histograms import histogram
from trainer.records import Evaluation, Histogram, Outcome, Panel, Row
from trainer.tracking.journal import Journal
from trainer.tracking.panels import read_panels
from trainer.world import World


def picture(value: int) -> Panel:
    image = np.full((4, 6, 3), value, np.uint8)
    return Panel("", str(value), image, {"pred": image[..., 0] // 128}, ("a", "b"), legends={"pred": {"x": (1, 2, 3)}})


class Mine(Hook):
    """Logs from wherever a hook can."""

    def on_fit_start(self, trainer: Trainer) -> None:
        if not trainer.progress.step:
            trainer.log({"mine/start": True})

    def on_log(self, trainer: Trainer, row: Row) -> None:
        trainer.log({"mine/double": 2 * row["train/loss"], "mine/step": row["step"]})

    def on_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        trainer.log({"val/root": torch.tensor(evaluation.metrics["val/loss"]).sqrt(), "mine/nothing": float("nan")})
        trainer.log({"mine/shown": picture(trainer.progress.step), "mine/over": trainer.state != "running"})


class Own(Trainer):
    """A training that logs in each of its steps."""

    def train_group(self, group: Any) -> None:
        super().train_group(group)
        step = self.progress.step
        self.log({"own/step": np.int64(step), f"own/at_{step}": torch.tensor([step])})
        if step % 4 == 1:
            self.log(
                {
                    "own/weights": Histogram(np.array([step, 1]), np.linspace(0, 1, 3)),
                    "own/shown": [picture(step), picture(2)],
                }
            )


def own(folder: Path, task: Regression) -> Own:
    torch.manual_seed(0)
    model = network()
    folders = RunFolder(folder)
    options: dict[str, Any] = {"epochs": 3, "batch_size": 3, "log_every": "3steps", "resume": "auto"}
    return Own(
        model, task, (points(), points(5, seed=2)), sgd(model.parameters()),
        folder=folders, trackers=[Journal(folders)], hooks=[Mine()], world=World("cpu", 1), **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Own:
    trainer = own(tmp_path_factory.mktemp("whole"), Regression())
    trainer.fit()
    return trainer


def rows_of(trainer: Trainer) -> list[Row]:
    assert trainer.folder is not None
    return [json.loads(line) for line in trainer.folder.metrics.read_text().splitlines()]


def test_a_value_goes_with_the_row_that_a_hook_is_told_of_and_else_with_the_next_one(whole: Own) -> None:
    rows = rows_of(whole)
    assert [row["step"] for row in rows] == [3, 4, 6, 8, 9, 12], "a row of its own, or a second one of the same step"
    assert [row["mine/step"] for row in rows] == [row["own/step"] for row in rows] == [3, 4, 6, 8, 9, 12]
    assert all(row["mine/double"] == 2 * row["train/loss"] for row in rows)
    assert [sorted(int(key[7:]) for key in row if key.startswith("own/at_")) for row in rows] == [
        [1, 2, 3], [4], [5, 6], [7, 8], [9], [10, 11, 12],
    ]  # fmt: skip
    assert [row["step"] for row in rows if row.get("mine/start")] == [3]
    evaluated = {row["step"]: row for row in rows if "val/loss" in row}
    assert [evaluated[step]["val/root"] ** 2 for step in (4, 8, 12)] == pytest.approx(
        [evaluated[step]["val/loss"] for step in (4, 8, 12)]
    )
    assert [row["mine/over"] for row in evaluated.values()] == [False, False, True]
    assert [row.get("mine/nothing", 0) for row in rows] == [0, None, 0, None, 0, None]
    assert "val/root" in whole.best.row


def test_pictures_and_histograms_lie_at_the_step_of_the_row_that_they_go_with(whole: Own) -> None:
    assert whole.folder is not None
    lines = [json.loads(line) for line in whole.folder.histograms.read_text().splitlines()]
    at = {3: 1, 6: 5, 9: 9}  # row, and the step in which they were logged
    assert lines == [{"step": row, "own/weights": {"counts": [n, 1], "edges": [0, 0.5, 1]}} for row, n in at.items()]
    shown = {path.name: read_panels(path) for path in sorted(whole.folder.media.iterdir())}
    found = {int(name[5:]): [(panel.name, panel.sample) for panel in panels] for name, panels in shown.items()}
    both = {row: [("own/shown", str(n)), ("own/shown", "2")] for row, n in at.items()}
    assert found == both | {step: [("mine/shown", str(step))] for step in (4, 8, 12)}


@pytest.mark.parametrize("stop", [5, 10])
def test_a_run_that_is_cut_between_a_value_and_its_row_ends_with_the_same_files(
    stop: int, whole: Own, tmp_path: Path
) -> None:
    first = own(tmp_path, StopAt(stop))
    assert first.fit().state == "interrupted"
    assert first.history.logged.late(), "nothing waits for its row"
    with open(tmp_path / "histograms.jsonl", "a") as file:
        file.write('{"step": 99, "own/weights": {}}\n{"ste')  # of a life that was killed after its last save
    again = own(tmp_path, Regression())
    assert again.fit().state == "finished"
    assert timeless(rows_of(again)) == timeless(rows_of(whole))
    assert weights_of(again.model) == weights_of(whole.model)
    a, b = again.folder, whole.folder
    assert a is not None
    assert b is not None
    assert a.histograms.read_text() == b.histograms.read_text()
    files = sorted(path.relative_to(b.media) for path in b.media.rglob("*.*"))
    assert files == sorted(path.relative_to(a.media) for path in a.media.rglob("*.*"))
    assert all((a.media / file).read_bytes() == (b.media / file).read_bytes() for file in files)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("train/loss", 1.0, r"train/loss is a name of the framework's own; take another one, such as mine/loss"),
        ("step", 1, "step is a name of the framework's own"),
        ("lr/encoder", 0.1, "lr/encoder is a name"),
        ("_runtime", 0.1, "_runtime is a name of the framework's own; take another one, such as mine/runtime"),
        ("", 0.1, "'' is not a name"),
        ("mine/x", "text", r"mine/x is a str; a number, a Panel or a list of them, or a Histogram is needed"),
        (
            "mine/x",
            Panel("n", "s", np.zeros((8, 8))),
            r"mine/x: the picture of s is float64 .*; uint8 of shape \(H, W\) or",
        ),
        ("mine/x", torch.zeros(3), r"mine/x is a Tensor of shape \(3,\); .* \(Histogram.of\(values\) makes one"),
    ],
)
def test_what_cannot_be_logged_is_refused_with_what_can(name: str, value: Any, told: str) -> None:
    trainer = make_trainer()
    with pytest.raises(ConfigError, match=told):
        trainer.log({name: value})
    with pytest.raises(ConfigError, match="a list is no dict of names and values"):
        trainer.log([value])  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["on_fit_start", "on_evaluation"])
def test_a_name_that_the_evaluation_has_is_refused_whenever_it_is_logged(where: str) -> None:
    hook = type("Bad", (Hook,), {where: lambda self, trainer, *_: trainer.log({"val/loss": 0.0})})()
    with pytest.raises(ConfigError, match="val/loss is a name of the framework's own"):
        make_trainer(hooks=[hook], log_every="4steps").fit()


def test_what_comes_after_the_last_row_is_told(caplog: pytest.LogCaptureFixture) -> None:
    class Late(Hook):
        def on_fit_end(self, trainer: Trainer, outcome: Outcome) -> None:
            trainer.log({"test/loss": 0.5})

    with caplog.at_level(logging.WARNING, logger="trainer"):
        make_trainer(hooks=[Late()], epochs=1).fit()
    assert "test/loss came after the last row and is not kept; log in on_evaluation" in caplog.text


def test_the_hook_that_the_page_shows_logs_what_it_says() -> None:
    page = (Path(__file__).parents[1] / "docs/tracking.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert "_target_: my_hooks.Logits" in page
    plain, shown = make_trainer(epochs=1), make_trainer(epochs=1, hooks=[names["Logits"]()])
    plain.fit()
    shown.fit()
    assert weights_of(shown.model) == weights_of(plain.model)
    assert set(recorder_of(shown).got[-1]) - set(recorder_of(plain).got[-1]) == {"mine/largest"}


def test_a_histogram_is_of_finite_values_and_has_counts_between_edges() -> None:
    found = Histogram.of(torch.tensor([[0.0, 1.0], [1.0, float("nan")]]), bins=2)
    assert (found.counts, found.edges) == ([1, 2], [0.0, 0.5, 1.0])
    with pytest.raises(ValueError, match="2 counts and 2 edges"):
        Histogram([1, 2], [0.0, 1.0])
    with pytest.raises(ValueError, match="an edge is not finite"):
        Histogram([1], [0.0, float("inf")])
    for wrong in (float("nan"), -1):
        with pytest.raises(ValueError, match="a count is not finite, or less than 0"):
            Histogram([wrong], [0.0, 1.0])  # type: ignore[list-item]


@pytest.mark.parametrize("values", [[1e30, 1e30], [-1e18], [1.0, 1.0 + 2.3e-16], [0.0]])
def test_values_between_which_no_bins_fit_make_a_histogram_all_the_same(values: list[float]) -> None:
    rounded = torch.tensor(values)
    for found, value in ((Histogram.of(values, 64), values[0]), (histogram(rounded, 64), rounded[0].item())):
        assert sum(found.counts) == len(values)
        assert all(a < b for a, b in itertools.pairwise(found.edges))
        assert found.edges[0] < value < found.edges[-1]


def test_what_is_logged_while_a_checkpoint_is_saved_is_in_it(tmp_path: Path) -> None:
    class Saves(Hook):
        count = 0

        def on_save(self, trainer: Trainer, folder: Path) -> None:
            self.count += 1
            trainer.log({"mine/saved": trainer.progress.step})

        def state_dict(self) -> dict[str, int]:
            return {"count": self.count}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.count = state["count"]

    def trained(name: str, epochs: int) -> tuple[list[Row], int]:
        folder, hook = RunFolder(tmp_path / name), Saves()
        options: dict[str, Any] = {"log_every": "3steps", "resume": "auto", "epochs": epochs}
        make_trainer(folder=folder, trackers=[Journal(folder)], hooks=[hook], **options).fit()
        return timeless([json.loads(line) for line in folder.metrics.read_text().splitlines()]), hook.count

    trained("cut", 1)
    assert trained("cut", 2) == trained("whole", 2)
