"""The tables of trainer-compare, on run folders written by hand."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Ended, command
from tests.folders import CONFIG, SGD, run_folder, sweep
from trainer import cli
from trainer import config as configs
from trainer.report import compare, formats, table
from trainer.report.entries import find, short
from trainer.report.formats import Column, Table, duration, numbers
from trainer.report.keys import keys_of
from trainer.report.ranking import Section, sections
from trainer.report.verdict import verdict

CLOSE = {"0.01": [0.90, 0.92, 0.91], "0.1": [0.89, 0.93, 0.90]}
APART = {"0.01": [0.90, 0.92, 0.91, 0.93], "0.1": [0.50, 0.53, 0.50, 0.54]}


Compared = Callable[..., Ended]


@pytest.fixture
def compared(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Compared:
    """Types `trainer-compare PATH ...` on a terminal of so many columns."""

    def typed(path: Path, *words: str, width: int = 100) -> Ended:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.chdir(path.parent)
        code = cli.compare([str(path), *words])
        return Ended(code, *capsys.readouterr())

    return typed


def only(path: Path, **options: Any) -> Section:
    (section,) = sections(find([str(path)]), **options)
    return section


def said(path: Path, **options: Any) -> str:
    return "\n".join(verdict(only(path, **options)))


def column(shown: Table, head: str) -> list[str]:
    return next(each.cells for each in shown.columns if each.head == head)


# --------------------------------------------------------------------------------------------------------- the table


def test_settings_are_ranked_by_their_mean_over_the_seeds(compared: Compared, tmp_path: Path) -> None:
    told = compared(sweep(tmp_path / "s", APART)).told
    head, first, second = told.splitlines()[2:5]
    assert head.split()[:5] == ["lr", "n", "val/accuracy", "vs", "best"]
    assert first.split()[:6] == ["0.01", "4", "0.9150", "±", "0.0205", "best"]
    assert second.split()[:5] == ["0.1", "4", "0.5175", "±", "0.0328"]
    assert "-0.3975 (p <0.001)" in second
    assert "1 min 41 s" in first
    assert "best: lr 0.01; better than the other by more than luck" in told
    assert "iou" not in told  # of each class


def test_where_less_is_better_the_least_comes_first(tmp_path: Path) -> None:
    section = only(sweep(tmp_path / "s", APART, mode="min"))
    assert column(table.ranked(section), "lr") == ["0.1", "0.01"]
    assert column(table.ranked(section), "vs best")[1].startswith("+0.3975")


def test_runs_by_themselves_are_told_how_far_apart_luck_brings_them(compared: Compared, tmp_path: Path) -> None:
    told = compared(sweep(tmp_path / "s", CLOSE), "--runs").told
    assert told.splitlines()[2].split()[:3] == ["lr", "seed", "val/accuracy"]
    assert [line.split()[1] for line in told.splitlines()[3:9]] == ["1", "1", "2", "0", "2", "0"]
    assert "differences below 0.0641 cannot be told from luck" in told  # 2.776 * sqrt(2 * (0.01**2 + 0.0208**2) / 2)


def test_what_lies_inside_a_run_is_no_run(tmp_path: Path) -> None:
    """The model that is sent to wandb is a run folder, in a hidden folder of the run."""
    run = run_folder(tmp_path / "s/a", 0.5)
    run_folder(run / ".shipper/model", 0.5)
    for path in (run, tmp_path / "s", tmp_path):
        assert [entry.folder.path for entry in find([str(path)])] == [run]


def test_a_seed_that_was_run_twice_is_no_second_seed(tmp_path: Path) -> None:
    sweep(tmp_path / "s", CLOSE)
    run_folder(tmp_path / "s/again", 0.94, config={"optimizer": {**CONFIG["optimizer"], "lr": 0.01}})  # type: ignore[dict-item]
    section = only(tmp_path / "s")
    assert [(len(one.scores), len(one.finished)) for one in section.ranked] == [(3, 4), (3, 3)]
    assert section.ranked[0].scores["0"] == pytest.approx(0.92)


def test_a_key_that_is_the_seed_by_another_name_splits_no_setting(tmp_path: Path) -> None:
    for seed in range(3):
        data = {**CONFIG["data"], "split": "${seed}"}  # type: ignore[dict-item]
        run_folder(tmp_path / f"s/{seed}", 0.9 + seed / 100, config={"seed": seed, "data": data})
    assert [len(one.scores) for one in only(tmp_path / "s").ranked] == [3]


@pytest.mark.parametrize("sort", ["lr", "optimizer.lr", "val/accuracy"])
def test_another_column_may_give_the_order(tmp_path: Path, sort: str) -> None:
    shown = table.ranked(only(sweep(tmp_path / "s", {**APART, "1e-05": [0.7, 0.7, 0.7]})), sort)
    assert column(shown, "lr") == (["0.1", "1e-05", "0.01"] if sort == "val/accuracy" else ["1e-05", "0.01", "0.1"])
    assert shown.bold is not None
    assert column(shown, "vs best")[shown.bold[0]] == "best"


def test_a_column_that_is_not_there_is_named_with_the_nearest(compared: Compared, tmp_path: Path) -> None:
    ended = compared(sweep(tmp_path / "s", CLOSE), "--sort", "val/acuracy")
    assert (ended.code, "did you mean val/accuracy?" in ended.told) == (2, True)


# ------------------------------------------------------------------------------------------------------ which columns


def test_what_follows_from_a_chosen_file_is_not_shown_but_told(compared: Compared, tmp_path: Path) -> None:
    run_folder(tmp_path / "s/a", 0.9)
    run_folder(tmp_path / "s/b", 0.8, config={"optimizer": SGD})
    run_folder(tmp_path / "s/c", 0.7, config={"optimizer": SGD, "scheduler": {"_target_": "trainer.schedules.onecycle",
                                                                             "max_lr": "${optimizer.lr}"}})  # fmt: skip
    keys = only(tmp_path / "s").keys
    assert [keys.names[key] for key in keys.shown] == ["optimizer", "scheduler", "lr"]
    assert keys.follows == {"optimizer": ["optimizer.betas", "optimizer.momentum"], "scheduler": ["scheduler.max_lr"]}
    told = compared(tmp_path / "s").told
    assert "not shown, --all-keys shows it: follows from optimizer: betas, momentum" in told
    assert "momentum" in compared(tmp_path / "s", "--all-keys").told.splitlines()[2]


def test_a_value_that_only_follows_another_is_not_shown_twice(tmp_path: Path) -> None:
    for n, lr in enumerate((0.1, 0.2, 0.3)):
        scheduler = {"_target_": "trainer.schedules.onecycle", "max_lr": "${optimizer.lr}"}
        run_folder(tmp_path / f"s/{n}", 0.9, config={"optimizer": {**SGD, "lr": lr}, "scheduler": scheduler})
    keys = only(tmp_path / "s").keys
    assert (keys.shown, keys.same) == (["optimizer.lr"], {"scheduler.max_lr": "optimizer.lr"})


def test_a_momentum_that_was_chosen_is_shown(tmp_path: Path) -> None:
    for n, momentum in enumerate((0.0, 0.9)):
        run_folder(tmp_path / f"s/{n}", 0.9, config={"optimizer": {**SGD, "momentum": momentum}})
    run_folder(tmp_path / "s/adam", 0.9)
    assert "optimizer.momentum" in only(tmp_path / "s").keys.shown


def test_zero_is_zero_however_it_was_typed(tmp_path: Path) -> None:
    for seed, dropout in enumerate((0, 0.0)):
        model = {"_target_": "a.Net", "dropout": dropout, "name": "two\nlines"}
        run_folder(tmp_path / f"s/{seed}", 0.9, config={"model": model, "seed": seed})
    section = only(tmp_path / "s")
    assert (section.keys.shown, len(section.ranked)) == ([], 1)


def test_what_would_break_a_line_is_shown_as_a_blank() -> None:
    lines, _ = formats.as_text(Table([Column("a", ["two\nlines\x1b[31m"])]))
    assert lines == ["a", "two lines [31m"]


def test_names_are_as_long_as_they_must_be(tmp_path: Path) -> None:
    for n in range(2):
        model = {"_target_": f"{'ab'[n]}.Net", "dropout": n / 2, "head": {"dropout": n / 4, "lr": n}}
        run_folder(tmp_path / f"s/{n}", 0.9, config={"model": model, "optimizer": {**SGD, "lr": n + 1}})
    keys = keys_of(find([str(tmp_path / "s")]), every=True)
    assert set(keys.names.values()) == {"model", "model.dropout", "head.dropout", "head.lr", "optimizer.lr"}
    assert column(table.ranked(only(tmp_path / "s")), "model") == ["a.Net", "b.Net"]


def test_quickly_read_values_are_those_that_omegaconf_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "very-secret-word")
    text = ("a: 1e-3\nb: '1e-3'\nc: on\nd: 2024-01-01\ne: .inf\nf: [1, {x: 2}]\ng: {}\nh: null\n"
            "api_key: abcdefgh\ni: ${oc.env:NOT_SET,5}\nj: ${oc.env:MY_SECRET}\n")  # fmt: skip
    for more in ("", "k: ${a}\n"):
        (tmp_path / "config.yaml").write_text(text + more)
        slow = configs.flat(configs.plain(configs.read(tmp_path / "config.yaml")))
        assert repr(configs.values(tmp_path / "config.yaml")) == repr(slow)
        assert (slow["a"], slow["j"]) == (0.001, configs.HIDDEN)
    (tmp_path / "config.yaml").write_text("a: ${oc.env:NOT_SET}\nb: ${nowhere}\n")
    assert configs.values(tmp_path / "config.yaml") == {"a": "${oc.env:NOT_SET}", "b": "${nowhere}"}


# -------------------------------------------------------------------------------------------------- what went wrong


def test_runs_without_a_result_are_shown_at_the_end_and_are_in_no_mean(compared: Compared, tmp_path: Path) -> None:
    root = sweep(tmp_path / "s", CLOSE)
    rows = [{"step": 10, "epoch": 1, "time": 5.0, "val/accuracy": 0.4}, {"step": 13, "epoch": 1, "time": 6.0}]
    run_folder(root / "dead", None, rows, {"seed": 7}, state="running", result=None)
    run_folder(root / "bad", None, rows, {"seed": 8}, state="failed", error="train/loss became nan\nmore", result=None)
    with open(root / "dead" / "metrics.jsonl", "a") as file:
        file.write('{"step": 14, "val/accu')
    told = compared(root, width=120).told
    assert "without a result: 1 failed, 1 killed" in told
    failed, killed = (next(line for line in told.splitlines() if line.startswith(s)) for s in ("failed", "killed"))
    assert "13 of 30" in killed
    assert killed.split()[1:3] == ["0.001", "7"]
    assert "0.4000" in killed
    assert "6.0 s" in killed
    assert failed.endswith("train/loss became nan")
    assert "2 runs that failed or were killed are in no mean" in " ".join(told.split())


def test_the_best_so_far_of_a_run_that_was_stopped_is_no_result(compared: Compared, tmp_path: Path) -> None:
    root = sweep(tmp_path / "s", CLOSE)
    run_folder(root / "stopped", 0.99, config={"seed": 8}, state="interrupted")
    assert "interrupted  0.001     8" in compared(root).told
    assert [len(one.scores) for one in only(root).ranked] == [3, 3]


def test_broken_files_leave_the_other_runs_readable(compared: Compared, tmp_path: Path) -> None:
    root = sweep(tmp_path / "s", CLOSE)
    for name in ("no_config", "bad_config", "bad_status", "odd_status"):
        run_folder(root / name, 0.5)
    (root / "no_config/config.yaml").unlink()
    (root / "bad_config/config.yaml").write_text("a: [")
    (root / "bad_status/status.json").write_text('{"state": "fini')
    (root / "odd_status/status.json").write_text("[1]")
    told = compared(root).told
    assert "without a result: 2 unreadable" in told
    assert [len(one.scores) for one in only(root).ranked] == [3, 3, 1, 1]  # of a script, each is its own


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
def test_a_result_that_is_not_finite_comes_last(compared: Compared, tmp_path: Path, bad: float | None) -> None:
    root = sweep(tmp_path / "s", {"0.01": [0.8, 0.82, 0.81], "0.1": [bad, 0.9, 0.9], "0.2": [0.7, 0.7, 0.71]})  # type: ignore[list-item]
    shown = table.ranked(only(root))
    assert column(shown, "lr") == ["0.01", "0.2", "0.1"]
    assert column(shown, "vs best")[2] == "not finite"
    assert compared(root).code == 0


def test_tasks_and_monitors_that_cannot_be_compared_are_apart(compared: Compared, tmp_path: Path) -> None:
    sweep(tmp_path / "s", CLOSE)
    for n in range(2):
        run_folder(tmp_path / f"s/loss{n}", 0.1, config={"seed": n}, monitor="val/loss", mode="min")
        run_folder(tmp_path / f"s/coast{n}", 0.1, config={"data": {"_target_": "trainer.data.coast.Coast"}, "seed": n})
    told = compared(tmp_path / "s", width=160).told
    heads = [line for line in told.splitlines() if "at the best evaluation" in line]
    assert [head.split()[0] for head in heads] == ["val/accuracy", "val/loss", "val/accuracy"]
    assert heads[0].endswith("data Coast; task Classification")
    assert "less is better" in heads[1]


# ----------------------------------------------------------------------------------------------------------- in words


def test_what_the_seeds_tell_is_said_in_words(tmp_path: Path) -> None:
    assert "too few seeds to tell" in said(sweep(tmp_path / "two", {"0.01": [0.9, 0.8], "0.1": [0.5, 0.4]}))
    assert "may be luck: no other setting is told from it" in said(sweep(tmp_path / "close", CLOSE))
    assert "seeds would tell it from lr 0.1, if" in said(sweep(tmp_path / "odd", {"0.1": [5, 6, 9], "1": [6, 9, 11]}))
    three = {**APART, "0.2": [0.89, 0.93, 0.90, 0.92]}
    assert "better than 1 of the 2 others by more than luck" in said(sweep(tmp_path / "three", three))
    assert "one seed each: the best of 2 is also the luckiest" in said(sweep(tmp_path / "one", {"1": [1], "2": [2]}))
    assert "over 3 seeds; there is nothing to compare" in said(sweep(tmp_path / "alone", {"1": [0.1, 0.2, 0.3]}))


def test_too_few_common_seeds_are_no_test(tmp_path: Path) -> None:
    root = sweep(tmp_path / "s", {"0.01": [0.9, 0.91, 0.92], "0.1": [0.5, 0.6]})
    assert column(table.ranked(only(root)), "vs best") == ["best", "too few seeds to tell (2)"]


@pytest.mark.parametrize(("mode", "sign"), [("max", 1), ("min", -1)])
def test_the_best_by_other_seeds_is_not_better_on_the_common_ones(tmp_path: Path, mode: str, sign: int) -> None:
    first = [sign * value for value in (0.50, 0.51, 0.52, 0.53, 3.0)]  # one lucky seed that the other has not
    root = sweep(tmp_path / "s", {"0.1": first, "0.2": [value + sign * 0.1 for value in first[:2]]}, mode=mode)
    for seed, more in ((2, 0.101), (3, 0.099)):
        config = {"optimizer": {**CONFIG["optimizer"], "lr": 0.2}, "seed": seed}  # type: ignore[dict-item]
        run_folder(root / f"{seed}", first[seed] + sign * more, config=config, mode=mode)
    assert column(table.ranked(only(root)), "vs best") == ["best", "ahead on common seeds (p <0.001)"]
    assert "better than" not in said(root)
    assert "lr 0.2 is ahead on the seeds that both have; run the missing seeds" in said(root)


# -------------------------------------------------------------------------------------------------------------- forms


def test_a_narrow_terminal_gets_fewer_columns_and_is_told_which(compared: Compared, tmp_path: Path) -> None:
    root = sweep(tmp_path / "s", CLOSE)
    run_folder(root / "bad", None, config={"seed": 8}, state="failed", error="x" * 200, result=None)
    for width in (40, 60, 80, 140):
        told = compared(root, width=width).told
        assert max(map(len, told.splitlines())) <= width
        assert ("no room for:" in told) == (width < 140)
        assert "0.9100 ±" in told
        assert told.replace("\n  ", "").count("x" * 200) == 1  # below the table where it was cut


def test_a_terminal_that_has_no_plus_minus_gets_plain_letters(compared: Compared, tmp_path: Path) -> None:
    sweep(tmp_path / "s", CLOSE)
    ended = command("compare", "s", cwd=tmp_path, env={"PYTHONIOENCODING": "ascii"})
    assert ended.code == 0
    assert "0.9100 +- 0.0248" in ended.told


def test_the_csv_holds_numbers_in_full(compared: Compared, tmp_path: Path) -> None:
    root = sweep(tmp_path / "s", CLOSE)
    run_folder(root / "bad", None, config={"seed": 8}, state="failed", error="why", result=None)
    assert "written: " in compared(root, "--csv", "t.csv").told
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert [(row["optimizer.lr"], row["n"], row["state"]) for row in rows[:2]] == [
        ("0.01", "3", "3 finished"),
        ("0.1", "3", "3 finished"),
    ]
    assert float(rows[0]["val/accuracy"]) == pytest.approx(0.91, abs=1e-9)
    assert float(rows[1]["vs best"]) == pytest.approx(-0.01 / 3)
    assert (rows[2]["run"], rows[2]["why"]) == ("bad", "why")


def test_what_is_printed_for_another_program_stands_alone(compared: Compared, tmp_path: Path) -> None:
    root = sweep(tmp_path / "my_sweep", CLOSE)
    lines = compared(root, "--markdown").out.splitlines()
    assert lines[1].startswith("| --- | ---: |")
    assert "| **0.9100 ± 0.0248** |" in lines[2]
    assert len(lines) == 4
    latex = compared(root, "--latex").out
    assert r"\textbf{0.9100 $\pm$ 0.0248}" in latex
    assert latex.splitlines()[-1] == r"\end{tabular}"


def test_a_folder_after_an_option_without_its_file_is_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(tmp_path / "s", CLOSE)
    assert compare.program(["--markdown", str(tmp_path / "s")]) == 0
    assert capsys.readouterr().out.startswith("| lr | n |")


def test_latex_letters_are_escaped() -> None:
    shown = Table([Column("a_b", ["50%", "x & y #1 {~^\\}$"]), Column("d", ["-0.1 (p <0.001)", ""])])
    assert formats.as_latex(shown).splitlines()[3:7] == [
        r"a\_b & d \\",
        r"\midrule",
        r"50\% & $-$0.1 (p $<$0.001) \\",
        r"x \& y \#1 \{\textasciitilde{}\textasciicircum{}\textbackslash{}\}\$ &  \\",
    ]


def test_a_file_that_cannot_be_written_is_said(compared: Compared, tmp_path: Path) -> None:
    ended = compared(sweep(tmp_path / "s", CLOSE), "--csv", "nowhere/t.csv")
    assert (ended.code, "--csv: nowhere/t.csv cannot be written" in ended.told) == (2, True)


def test_numbers_and_times_are_for_people() -> None:
    assert numbers([0.5, None, 12.3456]) == ["0.500", "", "12.346"]
    assert numbers([1e-5, float("nan")]) == ["1.000e-05", "nan"]
    assert numbers([0.5, 3e8, 0.0001]) == ["0.5000", "3.000e+08", "0.0001"]
    assert [short("lr", value) for value in (1e9, 0.1, 0.0, 1 / 3, 5, True, None)] == [
        "1e+09", "0.1", "0", str(1 / 3), "5", "True", ""]  # fmt: skip
    assert [duration(s) for s in (None, 3.14, 59.96, 101, 7500, 97200, 60)] == [
        "", "3.1 s", "1 min", "1 min 41 s", "2 h 5 min", "1 d 3 h", "1 min"]  # fmt: skip


def test_no_such_folder_is_an_error_of_the_user(compared: Compared, tmp_path: Path) -> None:
    ended = compared(tmp_path / "nowhere")
    assert (ended.code, "there is no such folder" in ended.told) == (2, True)
