"""What is searched, as it is typed; and a study that goes on where it was stopped."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.commands import command
from trainer._hydra import implied
from trainer.errors import ConfigError
from trainer.overrides import check_sweep
from trainer.plugins import SAMPLERS
from trainer.space import Space, expand
from trainer.study import Study

MOMENTUM = ("optimizer=sgd,adamw", "optimizer.momentum=0.5,0.9",
            "hydra.sweeper.only={optimizer.momentum:{optimizer:sgd}}")  # fmt: skip
TPE = {**SAMPLERS["tpe"], "n_startup_trials": 2}
SPACE = ("optimizer=sgd,adamw", "optimizer.lr=tag(log,interval(1e-4,1e-1))", "seed=range(1,9,2)",
         "epochs=int(interval(1,5))")  # fmt: skip


def words(*typed: str) -> list[str]:
    return [" ".join(job) for job in expand(typed)]


def told(*typed: str) -> str:
    with pytest.raises(ConfigError) as error:
        check_sweep(typed)
    return "\n".join(error.value.problems)


def test_a_grid_is_every_combination_and_the_last_list_changes_first() -> None:
    assert words("seed=1,2", "epochs=range(2,4)", "~ema") == [
        f"seed={seed} epochs={epochs} ~ema" for seed in (1, 2) for epochs in (2, 3)
    ]
    assert words("seed=shuffle(range(9))") == words("hydra/sweeper=grid", "seed=shuffle(range(9))")


def test_lists_that_go_together() -> None:
    typed = ("optimizer=sgd,adamw", "optimizer.lr=0.1,0.001", "seed=1,2", "hydra.sweeper.zip=[optimizer,optimizer.lr]")
    pairs = ("optimizer=sgd optimizer.lr=0.1", "optimizer=adamw optimizer.lr=0.001")
    assert words(*typed) == [f"{pair} seed={seed}" for pair in pairs for seed in (1, 2)]
    assert set(words(*typed, "hydra/sweeper=random")) == set(words(*typed))


def test_a_list_that_depends_on_another() -> None:
    expected = ["optimizer=sgd optimizer.momentum=0.5", "optimizer=sgd optimizer.momentum=0.9", "optimizer=adamw"]
    assert words(*MOMENTUM) == expected
    assert set(words(*MOMENTUM, "hydra/sweeper=random")) == set(expected)
    assert set(words(*MOMENTUM, "hydra/sweeper=optuna")) == set(expected)
    assert len(check_sweep(["experiment=digits", *MOMENTUM])) == 3
    fixed = (MOMENTUM[0], "optimizer.momentum=0.5", MOMENTUM[2])
    assert words(*fixed) == ["optimizer=sgd optimizer.momentum=0.5", "optimizer=adamw"]


def test_random_draws_are_the_same_again_and_the_first_ones_of_more() -> None:
    few, more = ([*SPACE, "hydra/sweeper=random", f"hydra.sweeper.n_trials={n}"] for n in (4, 9))
    assert words(*few) == words(*few) == words(*more)[:4]
    assert len(set(words(*more))) == 9
    assert words(*few) != words(*few, "hydra.sweeper.seed=1")
    assert len(words("hydra/sweeper=random", "seed=1,2,3")) == 3  # there are no more


def test_every_mistake_in_what_is_searched_is_told() -> None:
    lists = ("optimizer=sgd,adamw", "optimizer.lr=0.1,0.01,0.001")
    assert "optimizer has 2, optimizer.lr has 3" in told(*lists, "hydra.sweeper.zip=[optimizer,optimizer.lr]")
    assert "did you mean optimizer.lr?" in told(*lists, "hydra.sweeper.zip=[optimizer,optimzer.lr]")
    assert "type hydra.sweeper.zip=[optimizer,optimizer.lr]" in told(*lists, "hydra.sweeper.zip=optimizer")
    both = told(*lists, "hydra.sweeper.only={optimizer.lrr:{optimizer:sdg}}")
    assert "did you mean optimizer.lr?" in both
    assert "optimizer is never sdg; it is adamw, sgd" in both
    circle = "hydra.sweeper.only={optimizer:{optimizer.lr:0.1},optimizer.lr:{optimizer:sgd}}"
    assert "depends on itself" in told(*lists, circle)
    assert "type '" in told(*lists, "hydra.sweeper.only=[optimizer]")
    assert "an interval has no end of values" in told("optimizer.lr=interval(0,1)")
    assert "begins above 0" in told("hydra/sweeper=random", "optimizer.lr=tag(log,interval(0,1))")
    assert "must be a whole number" in told("hydra/sweeper=random", "seed=1,2", "hydra.sweeper.n_trials=0")
    assert "type hydra/sweeper/sampler=tpe" in told("hydra/sweeper=optuna", "seed=1,2", "hydra.sweeper.sampler=tpe")
    assert "did you mean hydra.sweeper.n_trials?" in told("hydra/sweeper=random", "hydra.sweeper.n_trails=3")
    assert "did you mean median?" in told("hydra/sweeper=optuna", "hydra/sweeper/pruner=medain", "seed=1,2")
    assert "nothing to choose" in told("hydra/sweeper=optuna", "seed=1")
    assert "optimizer.lr: -1" in told("hydra/sweeper=optuna", "experiment=digits", "optimizer.lr=interval(-1,1)")


PAGE = (Path(__file__).resolve().parents[1] / "docs" / "sweeps.md").read_text(encoding="utf-8")


TYPED = re.findall(r"^trainer (-m .*?hydra.*?)(?: &)?(?: +#.*)?$", PAGE.replace(" \\\n   ", ""), re.MULTILINE)


@pytest.mark.parametrize("line", TYPED)
def test_what_the_page_tells_to_type_has_no_mistake_in_it(line: str) -> None:
    typed = [word for word in implied(shlex.split(line)) if word != "-m"]
    assert check_sweep(typed)


def asked(path: Path, kill: int | None = None) -> list[list[str]]:
    """The words of six trials, of which the `kill`-th was left with nothing chosen, or its first value only."""
    space, found = Space(SPACE), []
    for number in range(6):
        study = Study(f"sqlite:///{path}", "s", [True], TPE, 0)  # as a new process has it
        if number == kill:
            study._study.ask()
        if number == kill == 4:
            with pytest.raises(KeyboardInterrupt):
                _ask_once(study, space, number)
        found.append(study.ask(space, number))
        study.complete(number, [float(len(found[-1][1]))])
    return found


def _ask_once(study: Study, space: Space, number: int) -> None:
    class Half:
        spelt = space.spelt

        @staticmethod
        def words(pick: object) -> list[str]:
            pick(space.dimensions[0])  # type: ignore[operator]
            raise KeyboardInterrupt

    study.ask(Half(), number)  # type: ignore[arg-type]


def test_what_is_drawn_does_not_depend_on_when_a_kill_came(tmp_path: Path) -> None:
    whole = asked(tmp_path / "a.db")
    assert len({tuple(words) for words in whole}) > 3
    for kill in (1, 3, 4):
        assert asked(tmp_path / f"{kill}.db", kill) == whole


# -------------------------------------------------------------------------------------------------------- the command

DIGITS = ("experiment=digits", "wandb=none", "debug=quick", "epochs=2", "early_stopping=none")
OPTUNA = ("-m", *DIGITS, "early_stopping.monitor=val/accuracy", "hydra/sweeper=optuna", "hydra/sweeper/pruner=median",
          "hydra.sweeper.pruner.n_startup_trials=1", "optimizer.lr=tag(log,interval(1e-4,1e-1))")  # fmt: skip

KILLER = """
import os, signal
from pathlib import Path
from trainer import Hook

class Kill(Hook):
    def on_evaluation(self, trainer, evaluation):
        times = len(list(Path().glob("killed-*")))
        if times < 2:
            Path(f"killed-{times}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""


def rows(root: Path) -> dict[str, list[int]]:
    files = sorted(root.glob("runs/*/*/metrics.jsonl"))
    return {file.parent.name: [json.loads(line)["step"] for line in file.read_text().splitlines()] for file in files}


def states(root: Path) -> list[str]:
    import optuna

    study = optuna.load_study(study_name=None, storage=f"sqlite:///{next(root.glob('runs/*/.sweep/study.db'))}")
    return [trial.state.name for trial in study.trials]


def test_a_study_goes_on_with_the_trial_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "killer.py").write_text(KILLER)
    (tmp_path / "conf" / "hooks").mkdir(parents=True)
    (tmp_path / "conf" / "hooks" / "kill.yaml").write_text("kill:\n  _target_: killer.Kill\n")
    typed = (*OPTUNA, "hooks=kill", "hydra.sweeper.n_trials=3")
    killed = command("train", *typed, cwd=tmp_path)
    assert (killed.code, states(tmp_path).count("RUNNING")) == (1, 1), killed.told
    assert "killed by SIGKILL" in killed.told
    assert "the same command again goes on" in killed.told
    before = rows(tmp_path)
    ended = command("train", *typed, cwd=tmp_path)
    assert ended.code == 0, ended.told
    assert ended.told.count("\ntrial ") == 1  # the others are answered
    assert {**rows(tmp_path), **{k: v for k, v in before.items() if v}} == rows(tmp_path)
    assert sorted(states(tmp_path))[0] == "COMPLETE"
    more = command("train", *typed[:-1], "hydra.sweeper.n_trials=4", cwd=tmp_path)
    assert "\ntrial 3 " in more.told
    assert more.told.count("\ntrial ") == 1
    assert "again  trainer experiment=digits" in more.told
    assert len(states(tmp_path)) == 4


@pytest.mark.slow
def test_what_a_search_has_pruned_a_plain_sweep_finishes(tmp_path: Path) -> None:
    rates = "optimizer.lr=choice(0.00001,0.01)"
    typed = [word for word in OPTUNA if not word.startswith("optimizer.lr=")]
    sampler = ("hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=3", "hydra.sweeper.seed=1")
    ended = command("train", *typed, rates, *sampler, cwd=tmp_path)
    assert ended.code == 0, ended.told
    assert "pruned at epoch 1: val/accuracy 0." in ended.told
    assert len(rows(tmp_path)) == 2  # equal draws are one job
    assert set(states(tmp_path)) == {"COMPLETE", "PRUNED"}
    plain = command("train", "-m", *DIGITS, "early_stopping.monitor=val/accuracy", rates, cwd=tmp_path)
    assert plain.code == 0, plain.told
    assert "pruned" not in plain.told.partition("jobs finished")[2]
    assert plain.told.count("\njob ") == 1  # the other one is finished
    assert {steps[-1] for steps in rows(tmp_path).values()} == {6}


def test_several_metrics_give_the_trials_that_none_beats(tmp_path: Path) -> None:
    typed = [word for word in OPTUNA if "prune" not in word]
    search = ("hydra.sweeper.metrics=[val/accuracy,val/loss]", "hydra/sweeper/sampler=nsgaii")
    beside = ("hydra.sweeper.n_trials=2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    ended = command("train", *typed, *search, *beside, cwd=tmp_path)
    assert ended.code == 0, ended.told
    assert "best   trial " in ended.told
    assert ", val/loss " in ended.told
    assert states(tmp_path) == ["COMPLETE", "COMPLETE"]


@pytest.mark.slow
def test_a_trial_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    typed = [word for word in OPTUNA if not word.startswith("optimizer.lr=")]
    typed += ["optimizer=sgd", "optimizer.lr=choice(1e30,0.01)", "hydra/sweeper/sampler=random"]
    typed += ["hydra.sweeper.n_trials=3", "hydra.sweeper.seed=1"]
    ended = command("train", *typed, cwd=tmp_path)
    assert (ended.code, set(states(tmp_path))) == (1, {"FAIL", "COMPLETE"})
    assert "best   trial " in ended.told
    again = command("train", *typed, cwd=tmp_path)
    assert (again.code, "\ntrial " in again.told) == (1, False)  # what failed stays so


def test_a_search_that_cannot_be_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    foreign = command("train", "-m", "hydra/sweeper=ax", "seed=1,2", cwd=tmp_path)
    assert (foreign.code, "hydra/sweeper/ax" in foreign.told) == (2, True)
    wrong = command("train", *OPTUNA, "hydra.sweeper.metrics=[val/accuracy,val/los]", cwd=tmp_path)
    assert (wrong.code, "val/los is better" in wrong.told) == (2, True)
    assert not list(tmp_path.glob("runs/*/*/metrics.jsonl"))
