"""The page of a comparison: whole in one file, harmless whatever a run is called, and honest where it leaves out."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.runs import history as rows_of
from tests.runs import panels, run_folder, sweep
from trainer.errors import ConfigError
from trainer.report.entries import find
from trainer.report.page import HERE, LIBRARY, gathered, write
from trainer.report.page.facts import labels, telling
from trainer.report.page.history import Curve, History, means, read, thin
from trainer.report.page.importance import importance, share
from trainer.tracking.panels import write_panels

EVIL = "</script><script>alert(1)"  # no `/` but that one may stand in a file's name


def page_of(tmp_path: Path, *folders: Path) -> tuple[str, dict[str, Any]]:
    """The page of those folders, and the facts that it holds."""
    write(find(map(str, folders)), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return text, json.loads(found[1])


def without_library(text: str) -> str:
    return text.replace((HERE / LIBRARY).read_text(encoding="utf-8"), "")


def numbers(facts: dict[str, Any], index: int, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(facts["arrays"][index]), dtype=f"<{kind}")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """The page of eight runs with pictures."""
    folder = tmp_path_factory.mktemp("small")
    return page_of(folder, sweep(folder / "lr", [1e-3, 1e-2], seeds=2, steps=40, pictures=True))


# ------------------------------------------------------------------------------------------------------ the file


def test_the_page_holds_everything_and_asks_no_network(small: tuple[str, dict[str, Any]]) -> None:
    text, facts = small
    own = without_library(text)
    assert len(own) < len(text) - 1_000_000
    assert not re.findall(r"<[a-z][^>]*\s(?:src|href|srcset|action)\s*=|<(?:link|iframe|object|embed)", own)
    assert re.findall(r"\.src = (\S+);", own) == ["media.urls[index]"]
    assert not re.findall(r"url\(|@import|https?:", own)
    assert "default-src 'none'" in own
    assert [run["state"] for run in facts["runs"]] == ["finished"] * 8
    assert [key["label"] for key in facts["keys"]] == ["optimizer", "lr", "seed"]
    assert [len(group) for group in facts["groups"]] == [2, 2, 2, 2]
    assert facts["metrics"][:4] == ["val/dice", "train/loss", "val/loss", "lr"]


def test_no_name_or_value_of_a_run_can_end_a_tag(tmp_path: Path) -> None:
    name, key = EVIL.replace("/", "∕"), "optimizer.<b>"
    config = {"optimizer": {"_target_": "torch.optim.SGD", "<b>": EVIL}, "seed": 0}
    folder = run_folder(tmp_path / "<i>" / name, [{**rows_of(8, 0.1, 0)[-1], f"val/{EVIL}": 1.0}], config)
    run_folder(tmp_path / "<i>" / "b", rows_of(8, 0.1, 0), {"optimizer": {"_target_": "x.{{script}}"}, "seed": 0})
    run_folder(tmp_path / "<i>" / "c", [], {"optimizer": {"_target_": "torch.optim.SGD", "<b>": 1}, "seed": 0})
    panel = panels(1.0)[0]
    write_panels(folder / "media" / "step-000000008", [replace(panel, sample=EVIL)])
    text, facts = page_of(tmp_path, tmp_path / "<i>")
    assert re.findall(r"</?script[^>]*>", without_library(text)) == [
        '<script type="application/json" id="data">', "</script>", *["<script>", "</script>"] * 2]  # fmt: skip
    assert "<title>&lt;i></title>" in text
    assert facts["runs"][0]["name"] == name
    assert key in {one["key"] for one in facts["keys"]}
    assert f"val/{EVIL}" in facts["metrics"]
    assert facts["media"]["samples"] == [f"val/examples  {EVIL}"]


def test_our_scripts_make_no_markup_of_text() -> None:
    makers = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\("
    for path in (HERE / "js").glob("*.js"):
        assert not re.findall(makers, path.read_text(encoding="utf-8")), path


def test_the_library_is_the_published_file_with_its_licence() -> None:
    library = HERE / LIBRARY
    digest = hashlib.sha256(library.read_bytes()).hexdigest()
    assert digest == "b66b25aeb4df84e33199dc21694014d336d222cbd9deb0e5a7c14bd6aa0d0fd0"  # echarts 6.1.0 of npm
    assert b'version="6.1.0"' in library.read_bytes()
    assert "Apache License" in (library.parent / "LICENSE").read_text()
    assert "Apache ECharts" in (library.parent / "NOTICE").read_text()


def test_a_file_that_cannot_be_written_is_a_mistake_with_its_name(tmp_path: Path) -> None:
    run_folder(tmp_path / "a", rows_of(8, 0.1, 0), {"seed": 0})
    (tmp_path / "taken").mkdir()
    with pytest.raises(ConfigError, match="--html: .*taken cannot be written"):
        write(find([str(tmp_path / "a")]), tmp_path / "taken")


# ---------------------------------------------------------------------------------------------- runs of all kinds


def test_runs_without_rows_metrics_or_a_config_are_on_the_page_too(tmp_path: Path) -> None:
    run_folder(tmp_path / "sweep" / "empty", state="failed", config={"seed": 0})
    run_folder(tmp_path / "sweep" / "killed", rows_of(16, 0.1, 0), {"seed": 1}, state="running")
    nothing = [{"step": 1, "epoch": 0, "time": 0.1, "train/loss": None, "note": "text"}]
    run_folder(tmp_path / "sweep" / "diverged", nothing, None, state="failed")
    run_folder(tmp_path / "sweep" / "other", rows_of(16, 0.1, 0), {"seed": 2, "task": "x"}, monitor="val/loss")
    (tmp_path / "sweep" / "bare").mkdir()
    (tmp_path / "sweep" / "bare" / "status.json").write_text("{")
    _, facts = page_of(tmp_path, tmp_path / "sweep")
    by_name = {run["name"]: run for run in facts["runs"]}
    assert {name: run["state"] for name, run in by_name.items()} == {
        "bare": "unreadable", "diverged": "failed", "empty": "failed", "killed": "killed", "other": "finished",
    }  # fmt: skip
    assert by_name["diverged"]["best"] == {}
    assert by_name["killed"]["best"]["val/dice"] == pytest.approx(by_name["killed"]["last"]["val/dice"], abs=0.1)
    assert (by_name["killed"]["best_step"], by_name["other"]["best_step"]) == (16, 2)  # each by what it monitors
    assert facts["monitor"] == "val/dice"
    assert "note" not in facts["metrics"]
    loss = next(told for told in facts["curves"]["train/loss"] if told[0] == list(by_name).index("diverged"))
    assert np.isnan(numbers(facts, loss[3], "f4")).all()


def test_a_running_job_is_judged_by_its_history_as_long_as_it_has_no_result(tmp_path: Path) -> None:
    rows = rows_of(16, 0.1, 0)
    folder = run_folder(tmp_path / "a", rows, {"seed": 0})
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps({**status, "result": None}))
    (run,) = gathered(find([str(folder)]))["runs"]
    best = max((row for row in rows if "val/dice" in row), key=lambda row: row["val/dice"])
    assert run["best_step"] == best["step"]
    assert run["best"]["val/loss"] == pytest.approx(best["val/loss"], rel=1e-6)


def test_a_run_whose_history_was_not_kept_is_judged_by_its_result(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", rows_of(16, 0.1, 0), {"seed": 0})
    best = find([str(folder)])[0].best
    (folder / "metrics.jsonl").unlink()
    (run,) = gathered(find([str(folder)]))["runs"]
    assert run["best"]["val/dice"] == best["val/dice"]
    assert "step" not in run["best"]


def test_keys_that_only_follow_from_a_class_beside_them_are_left_out(tmp_path: Path) -> None:
    adamw = {"_target_": "torch.optim.AdamW", "betas": [0.9, 0.999]}
    for n, (optimizer, decay) in enumerate([(adamw, 0.1), (adamw, 0.2), ({"_target_": "torch.optim.SGD"}, 0.1)]):
        run_folder(tmp_path / str(n), rows_of(8, 0.1, n), {"optimizer": {**optimizer, "weight_decay": decay}})
    keys = list(telling(find([str(tmp_path)])))
    assert labels(keys) == {"optimizer._target_": "optimizer", "optimizer.weight_decay": "weight_decay"}
    assert labels(["a.lr", "b.lr", "seed"]) == {"a.lr": "a.lr", "b.lr": "b.lr", "seed": "seed"}


def test_of_many_keys_that_part_the_runs_alike_one_stands_for_all(tmp_path: Path) -> None:
    for n in range(6):
        other = {f"k{k}": n // 2 for k in range(6)} | {"data": {"_target_": f"my.Data{n // 2}"}}
        run_folder(tmp_path / str(n), rows_of(8, 0.1, n), {**other, "lr": n / 7, "decay": n / 9, "seed": n % 2})
    found = telling(find([str(tmp_path)]))
    assert found == {"data._target_": [f"k{k}" for k in range(6)], "decay": [], "lr": [], "seed": []}


def test_the_time_of_a_run_is_split_by_what_it_recorded(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", [{"step": step, "time": 2.0 * step} for step in (1, 2, 3)], {"seed": 0})
    (folder / ".shipper").mkdir()
    lines = [{"step": 1, "speed/data": 0.5, "speed/evaluation": 0.25}, {"step": 2, "speed/data": 0.1}]
    (folder / ".shipper" / "speed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run,) = gathered(find([str(folder)]))["runs"]
    assert run["spent"] == {"data": 1.2, "evaluation": 0.5, "save": 0.0, "training": 2.3, "unknown": 2.0}
    (folder / ".shipper" / "speed.jsonl").unlink()
    (run,) = gathered(find([str(folder)]))["runs"]
    assert run["spent"] == {"unknown": 6.0}


# ------------------------------------------------------------------------------------------------------- curves


def test_a_thinned_curve_keeps_its_ends_its_extremes_and_its_gaps() -> None:
    values = np.sin(np.arange(10_000) / 700).astype(np.float32)
    values[[1234, 7777]] = 50, -50
    values[4321] = np.nan
    kept = thin(values, 500)
    assert len(kept) <= 501
    assert {0, 1234, 4321, 7777, 9999} <= set(kept.tolist())
    assert (np.diff(kept) > 0).all()
    np.testing.assert_array_equal(thin(values[:500], 500), np.arange(500))
    assert thin(np.full(2000, np.nan, np.float32), 100).tolist()[-1] == 1999


def test_the_means_of_a_thinned_curve_are_of_all_rows() -> None:
    values = np.arange(1000, dtype=np.float32)
    values[:10] = np.nan
    mean = means(Curve(np.arange(1000, dtype=np.uint32), values), 100)
    assert len(mean.values) == 100
    assert np.isnan(mean.values[0])
    np.testing.assert_allclose(mean.values[1:], 10 * np.arange(1, 100) + 4.5)
    np.testing.assert_allclose(mean.steps, 10 * np.arange(100) + 4.5, atol=0.51)


def test_a_long_history_becomes_a_small_page_that_says_what_it_shows(tmp_path: Path) -> None:
    run_folder(tmp_path / "long", rows_of(6000, 0.1, 0), {"seed": 0})
    text, facts = page_of(tmp_path, tmp_path / "long")
    (told,) = facts["curves"]["train/loss"]
    assert told[1] == 6000
    shown = numbers(facts, told[3], "f4")
    assert 800 <= len(shown) <= 1100
    logged = read(find([str(tmp_path / "long")])[0]).curves["train/loss"].values
    assert (shown.min(), shown.max()) == (logged.min(), logged.max())
    assert len(without_library(text)) < 250_000


def test_epochs_lie_on_a_line_between_their_ends(tmp_path: Path) -> None:
    rows = [{"step": step, "epoch": step // 10, "time": 0.1 * step, "train/loss": 1.0} for step in range(4, 45, 4)]
    judged = [{"step": step, "epoch": step // 10, "time": 0.1 * step, "val/dice": 0.5} for step in (20, 40)]
    every = sorted([*rows, *judged], key=lambda row: row["step"])
    epoch = read(find([str(run_folder(tmp_path / "judged", every, {"seed": 0}))])[0]).epoch
    np.testing.assert_allclose(np.interp([5, 10, 25, 44], epoch.steps, epoch.values), [0.5, 1, 2.5, 4.4])
    epoch = read(find([str(run_folder(tmp_path / "never", rows, {"seed": 0}))])[0]).epoch
    assert np.interp(24, epoch.steps, epoch.values) == pytest.approx(2.4, abs=0.5)
    assert len(History().epoch.steps) == 0


# -------------------------------------------------------------------------------------------------- importance


def test_the_key_that_decides_is_the_most_important_one() -> None:
    draw = np.random.default_rng(0)
    lr = [1e-3, 1e-2, 1e-1] * 20
    kind = ["a"] * 30 + ["b"] * 30
    decay = draw.uniform(0, 1, 60).tolist()
    noises = draw.normal(size=60).tolist()
    metric = [{1e-3: 0.1, 1e-2: 0.9, 1e-1: 0.4}[one] + 0.01 * noise for one, noise in zip(lr, noises, strict=True)]
    found = importance({"kind": kind, "lr": lr, "decay": decay}, metric)
    assert (found["runs"], found["keys"][0]["key"], found["keys"][0]["how"]) == (60, "lr", "groups")
    assert found["keys"][0]["share"] > 0.8
    assert max(one["share"] for one in found["keys"][1:]) < 0.1


def test_a_scale_is_measured_along_its_values_whatever_their_spacing() -> None:
    lr = [10.0**-n for n in range(12)]
    found = share(lr, [n**3 for n in range(12)])
    assert found == {"share": 1.0, "how": "scale", "correlation": -1.0}


def test_what_chance_explains_is_no_importance() -> None:
    found = share(list("abcdefghij") * 4, np.random.default_rng(0).normal(size=40).tolist())
    assert found is not None and found["share"] < 0.1


def test_one_diverged_run_does_not_decide() -> None:
    metric = [0.9, 0.91, 0.92, 0.93, 0.5, 0.51, 0.52, -1e9]
    found = share(["a"] * 4 + ["b"] * 4, metric)
    assert found is not None and found["share"] > 0.7


def test_a_key_that_says_nothing_more_than_which_run_it_is_has_no_importance() -> None:
    assert share(["a", "b", "c"], [1, 2, 3]) is None
    assert share([1, 2], [1, 2]) is None
    assert share([1, 1, 1], [1, 2, 3]) is None
    assert share([1, 2, 2], [5, 5, 5]) == {"share": 0.0, "how": "groups"}
    assert importance({"lr": [1, 2]}, [None, None]) == {"runs": 0, "keys": []}


# ----------------------------------------------------------------------------------------------------- pictures


def test_pictures_that_are_the_same_in_many_runs_are_embedded_once(small: tuple[str, dict[str, Any]]) -> None:
    media = small[1]["media"]
    assert media["samples"] == ["val/examples  a", "val/examples  b"]
    assert media["classes"] == {"none": "#090909", "disc": "#c8500a"}
    assert [len(told) for told in media["runs"]] == [4] * 8
    assert len(media["urls"]) == 1 + 4  # the picture, and the predictions of four evaluations; the last is the truth
    assert all(url.startswith("data:image/png;base64,") for url in media["urls"])
    assert media["stored"] == [4] * 8


def test_of_many_evaluations_the_first_the_best_and_the_last_are_embedded(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", rows_of(40, 0.1, 0, every=1), {"seed": 0})
    for step in range(1, 41):
        write_panels(folder / "media" / f"step-{step:09d}", panels(step / 40, side=16))
    facts = gathered(find([str(folder)]))
    steps = [step for step, _ in facts["media"]["runs"][0]]
    assert len(steps) == 12
    assert {1, facts["runs"][0]["best_step"], 40} <= set(steps)
    assert steps == sorted(steps)
    assert facts["media"]["stored"] == [40]


def test_a_large_picture_is_made_smaller_and_a_damaged_one_left_out(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", rows_of(8, 0.1, 0), {"seed": 0})
    write_panels(folder / "media" / "step-000000004", panels(0.5, side=400))
    write_panels(folder / "media" / "step-000000008", panels(1.0, side=400))
    (folder / "media" / "step-000000004" / "00-pred.png").write_bytes(b"no picture")
    media = gathered(find([str(folder)]))["media"]
    assert [step for step, _ in media["runs"][0]] == [8]
    assert {url.partition(";")[0] for url in media["urls"]} == {"data:image/webp", "data:image/png"}
    shown = [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in media["urls"]]
    assert {picture.size for picture in shown} == {(256, 256)}
