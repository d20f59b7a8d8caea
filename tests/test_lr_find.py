"""The range test: exact rates, a suggestion that trains, an end where it diverges, and nothing that is kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.utils.data import TensorDataset

import trainer as public
from tests.commands import command
from tests.small import Regression, make_trainer, newest, points, recorder_of, timeless, weights_of
from trainer import cli
from trainer.errors import ConfigError
from trainer.lr_find import LEAST, LrRange, lr_range, taken_out
from trainer.preview import range_report
from trainer.schedules import cosine, onecycle
from trainer.state import snapshot

OPTIMIZERS = {
    "momentum": lambda parameters: SGD(parameters, lr=0.1, momentum=0.9),
    "adamw": lambda parameters: AdamW(parameters, lr=1e-3),
}


def groups(parameters: Any) -> SGD:
    first, *rest = parameters
    return SGD([{"params": [first], "lr": 0.002}, {"params": rest, "lr": 0.02}])


def quadratic(scale: float, **changes: Any) -> tuple[Any, float]:
    """Linear regression in full batches, and the largest rate at which gradient descent is stable: 2 / curvature."""
    inputs = points(64).tensors[0] * scale
    torch.manual_seed(0)
    curvature = float(torch.linalg.eigvalsh(2 * inputs.T @ inputs / 64).max())
    data = TensorDataset(inputs, inputs.sum(1, keepdim=True) / scale)
    made = make_trainer(
        model=nn.Linear(3, 1, bias=False), optimizer=lambda parameters: SGD(parameters, lr=0.01),
        data=(data, None), batch_size=64, **changes,
    )  # fmt: skip
    return made, 2 / curvature


# ------------------------------------------------------------------------------------------------------- the training


@pytest.mark.parametrize("schedule", [None, cosine, onecycle], ids=["constant", "cosine", "onecycle"])
def test_the_rates_are_even_steps_of_their_logarithm_whatever_the_runs_own_schedule(schedule: Any) -> None:
    made = make_trainer(schedule=schedule and (lambda optimizer: schedule(optimizer, 12).warm_up(3, 0.1)))
    found = lr_range(made, 40, 1e-6, 1e-2)
    assert found.lrs == pytest.approx([1e-6 * 1e4 ** (n / 39) for n in range(40)], rel=1e-12)
    assert len(found.losses) == len(found.smoothed) == 40


def test_an_update_is_made_with_the_rate_that_is_reported_in_every_parameter_group() -> None:
    made = make_trainer(optimizer=groups)
    seen: list[list[float]] = []
    made.update.optimizer.register_step_pre_hook(lambda o, *_: seen.append([g["lr"] for g in o.param_groups]))
    found = lr_range(made, 30, 1e-6, 1e-3)
    assert [first for first, _ in seen] == found.lrs
    assert [second / first for first, second in seen] == pytest.approx([10] * 30)


def test_the_smoothed_loss_is_a_running_mean_without_a_bias_to_zero() -> None:
    found = lr_range(make_trainer(), 200, 1e-6, 1e-3)
    mean = 0.0
    for n, loss in enumerate(found.losses):
        mean = 0.9 * mean + 0.1 * loss
        assert found.smoothed[n] == pytest.approx(mean / (1 - 0.9 ** (n + 1)))


def test_at_rates_that_change_nothing_the_losses_are_those_of_the_first_weights_and_the_data_goes_round() -> None:
    made = make_trainer(model=nn.Linear(3, 1), accumulate=2)  # 11 samples: groups of 6 and 5, 15 epochs
    found = lr_range(made, 30, 1e-12, 1e-11)
    inputs, targets = points().tensors
    whole = float(nn.functional.mse_loss(made.model(inputs), targets).detach())
    for a, b in zip(found.losses[::2], found.losses[1::2], strict=True):
        assert (6 * a + 5 * b) / 11 == pytest.approx(whole, rel=1e-5)
    assert len(set(found.losses)) > 15, "another order each epoch"


def test_it_stops_where_the_loss_is_more_than_4_times_its_lowest_or_not_finite() -> None:
    made, stable = quadratic(1.0)
    found = lr_range(made, 100)
    assert "more than 4 times its lowest" in found.ended
    assert len(found.lrs) < 100
    assert stable < found.lrs[-1]
    assert found.smoothed[-1] > 4 * min(found.smoothed)
    bounds = [max(4 * min(found.smoothed[: n + 1]), *found.losses[:20]) for n in range(len(found.losses))]
    assert [loss > bound for loss, bound in zip(found.smoothed, bounds, strict=True)].index(True) == len(bounds) - 1

    class Breaks(Regression):
        calls = 0

        def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
            self.calls += model.training
            return super().loss(model, batch) * (math.nan if self.calls > 20 else 1.0)

    ends = set()
    for changes in ({}, {"skip_nonfinite": 3}):
        found = lr_range(make_trainer(task=Breaks(), **changes), 60)
        assert "not finite" in found.ended
        assert len(found.lrs) == 20
        assert all(map(math.isfinite, found.losses))
        ends.add(found.ended)
    assert len(ends) == 1, "none is left out first"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_same_twice_and_the_run_after_it_ends_with_the_same_bits_as_without_it(
    optimizer: str, accumulate: int, tmp_path: Path
) -> None:
    def made(name: str) -> Any:
        return make_trainer(
            optimizer=OPTIMIZERS[optimizer], accumulate=accumulate, folder=tmp_path / name,
            schedule=lambda optimizer: cosine(optimizer, 12).warm_up(2, 0.1),
        )  # fmt: skip

    tested, plain = made("tested"), made("plain")
    before = timeless(snapshot(tested.parts))
    found = lr_range(tested, 50)
    assert timeless(snapshot(tested.parts)) == before
    assert lr_range(tested, 50) == found
    assert lr_range(made("third"), 50) == found
    assert recorder_of(tested).calls == []
    assert not (tmp_path / "tested").exists()
    tested.fit()
    plain.fit()
    assert weights_of(tested.model) == weights_of(plain.model)
    assert timeless(recorder_of(tested).got) == timeless(recorder_of(plain).got)
    assert newest(tmp_path / "tested") == newest(tmp_path / "plain")


def test_what_does_not_fit_is_told_and_too_few_steps_are_refused() -> None:
    with pytest.raises(ConfigError, match="do not fit the data"):
        lr_range(make_trainer(model=nn.Linear(4, 1)))
    with pytest.raises(ConfigError, match=r"29 steps are too few to tell anything; type lr_find=30steps or more"):
        lr_range(make_trainer(), LEAST - 1)
    with pytest.raises(ConfigError, match="a rate cannot rise from 1 to 0.1"):
        lr_range(make_trainer(), 50, 1.0, 0.1)
    with pytest.raises(ConfigError, match=r"optimizer\.lr: 0 cannot be made larger"):
        lr_range(make_trainer(optimizer=lambda parameters: SGD(parameters, lr=0.0)))


# ------------------------------------------------------------------------------------------------------ the judgement


@pytest.mark.parametrize("scale", [0.3, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("steps", [50, 100, 300])
def test_on_a_quadratic_every_suggestion_is_stable_and_at_most_two_decades_too_small(scale: float, steps: int) -> None:
    made, stable = quadratic(scale)
    found = lr_range(made, steps, 1e-8, 1e3)
    assert found.suggestion is not None
    assert stable / 100 < found.suggestion < stable
    assert max(found.suggestions.values()) < stable


def test_without_a_fall_nothing_is_suggested_and_it_says_why() -> None:
    found = lr_range(make_trainer(), 50, 1e-12, 1e-11)
    assert found.suggestion is None
    assert found.why_not.startswith("at no rate did the loss fall by more than it varies by itself (")
    assert "no rate can be suggested: at no rate" in "\n".join(range_report(found, "optimizer.lr"))
    made, stable = quadratic(1.0)
    found = lr_range(made, 50, 100 * stable, 1000 * stable)
    assert found.suggestion is None
    assert found.why_not.startswith("it ended after ")
    assert found.why_not.endswith("too few to tell anything")


@pytest.mark.parametrize("begin", [1e-3, 0.03, 0.1, 0.3, 0.9, 1.5, 3, 10])
@pytest.mark.parametrize("steps", [30, 60])
def test_a_range_that_begins_too_high_is_judged_or_told(begin: float, steps: int) -> None:
    made, stable = quadratic(1.0)
    found = lr_range(made, steps, begin * stable, 100 * begin * stable)
    assert bool(found.suggestion) != bool(found.why_not)
    assert found.suggestion is None or found.suggestion < stable


def test_a_loss_below_zero_may_fall_without_ending_the_test() -> None:
    class Shifted(Regression):
        def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
            return super().loss(model, batch) - 1.5

    made, stable = quadratic(1.0, task=Shifted())
    found = lr_range(made, 100)
    assert min(found.smoothed) < -1
    assert found.suggestion is not None
    assert stable / 100 < found.suggestion < stable


# --------------------------------------------------------------------------------------------------- what is printed


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_drawing_has_an_axis_of_powers_of_ten_and_the_words_to_type(encoding: str) -> None:
    curve = [2.0] * 40 + [2 - 0.05 * n for n in range(1, 31)] + [0.5] * 20 + [1.0, 4.0, 50.0]
    lrs = [1e-7 * 1e8 ** (n / 92) for n in range(93)]
    found = LrRange(lrs, curve, curve, "it was enough at 10", {"a tenth": 0.0123456, "other": 0.5})
    lines = range_report(found, "optimizer.lr", encoding)
    "\n".join(lines).encode(encoding)
    assert max(map(len, lines)) <= 100
    (axis,) = [line for line in lines if line.startswith("    rate")]
    assert axis.split()[1:] == ["1e-07", "1e-06", "1e-05", "0.0001", "0.001", "0.01", "0.1", "1", "10"]
    assert axis.index("1e-07") == 10
    assert axis.index(" 10") + 1 == 89
    (mark,) = [line.index("^") for line in lines if line.strip() == "^"]
    assert axis.index(" 0.01") < mark < axis.index(" 0.1")
    assert lines[-1] == "type      optimizer.lr=0.012"
    assert lines[0] == "lr_find   93 updates while the learning rate rose from 1e-07 to 10; then it was enough at 10"


def test_a_test_that_ended_at_once_is_told_without_a_drawing() -> None:
    lines = range_report(LrRange([], [], [], "the loss was not finite", why_not="too few"), "optimizer.lr", "ascii")
    assert lines == ["lr_find   0 updates; then the loss was not finite", "", "no rate can be suggested: too few"]


@pytest.mark.parametrize(
    ("words", "steps", "told"),
    [
        (["a=1", "lr_find=true"], 100, 0), (["lr_find=200steps", "a=1"], 200, 0), (["a=1", "lr_find=false"], 0, 0),
        (["a=1"], 0, 0), (["a=1", "lr_find"], 0, 1), (["a=1", "lr_find=200"], 0, 1), (["a=1", "+lr_find=5steps"], 0, 1),
    ],
)  # fmt: skip
def test_the_word_is_taken_out_of_a_command_line(words: list[str], steps: int, told: int) -> None:
    rest, found, wrong = taken_out(words)
    assert (rest, found, len(wrong)) == (["a=1"], steps, told)


# ------------------------------------------------------------------------------------------------------- the command


@pytest.mark.parametrize("words", [["optimizer=momentum"], ["optimizer=adamw", "accumulate=2", "scheduler=onecycle"]])
def test_the_command_suggests_a_rate_and_leaves_nothing(words: list[str], tmp_path: Path, capsys: Any) -> None:
    words = ["experiment=digits", "world.threads=1", "epochs=3", *words, "lr_find=60steps"]
    said = []
    for _ in range(2):
        assert cli.check(words) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    (line,) = [line for line in said[0].splitlines() if line.startswith("type")]
    key, _, value = line.split()[1].partition("=")
    assert key == "optimizer.lr"
    assert 1e-4 < float(value) < 1
    assert list(tmp_path.iterdir()) == []


def test_the_command_tests_each_job_of_a_sweep_with_m(tmp_path: Path) -> None:
    words = ["-m", "experiment=digits", "world.threads=1", "optimizer=sgd,adamw", "lr_find=30steps"]
    made = command("check", *words, cwd=tmp_path, env={"PYTHONIOENCODING": "ascii"})
    assert made.code == 0, made.err
    assert [line.split()[-1] for line in made.out.splitlines() if line.startswith("job")] == [
        "optimizer=sgd", "optimizer=adamw",
    ]  # fmt: skip
    assert made.out.count("lr_find   ") == 2


def test_mistakes_are_told_with_that_of_the_word_itself(capsys: Any) -> None:
    assert cli.check(["lr_find=5steps", "epochs=0"]) == 2
    told = capsys.readouterr().err
    assert "lr_find: 5 steps are too few" in told
    assert "epochs: 0 must be at least 1" in told


@pytest.mark.parametrize("words", [["lr_find=true"], ["lr_find"], ["+lr_find=true"], ["-m", "++lr_find=1", "seed=1,2"]])
def test_a_run_refuses_the_word_and_says_where_it_belongs(words: list[str], capsys: Any) -> None:
    assert cli.train(words) == 2
    assert capsys.readouterr().err.strip().startswith("lr_find: belongs to trainer-check")


def test_it_is_offered_to_scripts() -> None:
    assert public.lr_range is lr_range
    assert public.LrRange is LrRange
