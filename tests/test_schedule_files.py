"""Each file of conf/scheduler: its preview is what a training does, its state is plain, its curve is the known one."""

from __future__ import annotations

import functools
import io
import math
import re
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch.optim import SGD, Optimizer

from tests.catalogue_schedules import FILES, FOLLOW, LR, PAGE, PER_EPOCH, adamw, config, maker
from tests.small import make_trainer, recorder_of
from trainer import schedules
from trainer.build import build_schedule, schedule_words
from trainer.errors import ConfigError
from trainer.preview import plots
from trainer.schedules import simulate
from trainer.schedules.several import Several


def patient(name: str) -> dict[str, Any]:
    return {"patience": 99} if name in FOLLOW else {}


@pytest.mark.parametrize("warmup", ["never", "5steps"])
@pytest.mark.parametrize("name", FILES)
def test_the_rates_of_a_training_are_those_of_the_preview_at_every_step(name: str, warmup: str) -> None:
    make = maker(name, 3, warmup, **patient(name))
    trainer = make_trainer(optimizer=adamw, schedule=make)
    curves = simulate(make, adamw(trainer.model.parameters()), 12, PER_EPOCH)
    trainer.fit()
    rows = recorder_of(trainer).got
    assert [row["lr/first"] for row in rows] == curves.lrs[0]
    assert [row["lr/1"] for row in rows] == curves.lrs[1]
    moved = [row["momentum/1"] for row in rows if "momentum/1" in row]
    assert moved == (curves.momenta[1] if curves.momenta else [])
    assert len(curves.lrs[0]) == len(rows) == 12


@pytest.mark.parametrize("name", FILES)
def test_the_state_of_a_schedule_is_plain_data_and_fits_a_longer_run(name: str) -> None:
    first = maker(name, 2)(SGD([torch.zeros(1)], lr=LR, momentum=0.9))
    first.on_step()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    longer = maker(name, 4)(SGD([torch.zeros(1)], lr=LR, momentum=0.9))
    beginning = longer.beginning()
    longer.load_state_dict(torch.load(file, weights_only=True))
    longer.walk(beginning, 1, PER_EPOCH)
    for _ in range(14):
        longer.on_step()
    assert 0 <= longer.lrs[0] <= LR


@pytest.mark.parametrize("name", FILES)
def test_each_schedule_says_its_unit_and_can_be_drawn(name: str) -> None:
    curves = simulate(maker(name, 3, "25%"), SGD([torch.zeros(1)], lr=LR, momentum=0.9), 12, PER_EPOCH)
    words = schedule_words(config(name, 3, "25%"), curves)
    assert f"per {'evaluation' if name in FOLLOW else curves.unit}: " in words
    assert "after a warm-up of 25%" in words
    for encoding in ("utf-8", "ascii"):
        lines = plots(curves, encoding)
        assert max(map(len, lines)) <= 100
        "\n".join(lines).encode(encoding)
        assert any("momentum" in line for line in lines) == bool(curves.momenta)


# ------------------------------------------------------------------------- the names of transformers' get_scheduler

# The curves of get_scheduler(name, optimizer, num_warmup_steps=4, num_training_steps=12) for a learning rate of 0.1,
# computed by hand from the formulas in transformers 5 (src/transformers/optimization.py), one rate for each update.
# Keywords there: cosine_with_restarts num_cycles=2; polynomial power=2, lr_end=1e-3; cosine_with_min_lr and
# cosine_warmup_with_min_lr min_lr_rate=0.2; warmup_stable_decay num_decay_steps=3, min_lr_ratio=0.1, decay "linear".
RECORDED = {
    "linear": [0, 0.025, 0.05, 0.075, 0.1, 0.0875, 0.075, 0.0625, 0.05, 0.0375, 0.025, 0.0125],
    "cosine": [0, 0.025, 0.05, 0.075, 0.1, 0.0961939766, 0.0853553391, 0.0691341716, 0.05, 0.0308658284, 0.0146446609,
               0.00380602337],
    "cosine_with_restarts": [0, 0.025, 0.05, 0.075, 0.1, 0.0853553391, 0.05, 0.0146446609, 0.1, 0.0853553391, 0.05,
                             0.0146446609],
    "polynomial": [0, 0.025, 0.05, 0.075, 0.1, 0.076796875, 0.0566875, 0.039671875, 0.02575, 0.014921875, 0.0071875,
                   0.002546875],
    "constant": [0.1] * 12,
    "constant_with_warmup": [0, 0.025, 0.05, 0.075, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1],
    "inverse_sqrt": [0, 0.025, 0.05, 0.075, 0.1, 0.0894427191, 0.0816496581, 0.0755928946, 0.0707106781, 0.0666666667,
                     0.0632455532, 0.0603022689],
    "cosine_with_min_lr": [0, 0.025, 0.05, 0.075, 0.1, 0.0969551813, 0.0882842712, 0.0753073373, 0.06, 0.0446926627,
                           0.0317157288, 0.0230448187],
    "cosine_warmup_with_min_lr": [0.025, 0.05, 0.075, 0.1, 0.0969551813, 0.0882842712, 0.0753073373, 0.06,
                                  0.0446926627, 0.0317157288, 0.0230448187, 0.02],
    "warmup_stable_decay": [0.01, 0.0325, 0.055, 0.0775, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.07, 0.04],
}  # fmt: skip

# The same by our words, as docs/schedules.md has them: the file, its values, the warm-up and where it starts.
WORDS: dict[str, tuple[str, dict[str, Any], str, float]] = {
    "linear": ("linear", {}, "4steps", 0.0),
    "cosine": ("cosine", {}, "4steps", 0.0),
    "cosine_with_restarts": ("cosine_hard_restarts", {"cycles": 2}, "4steps", 0.0),
    "polynomial": ("polynomial", {"power": 2, "min_lr": 1e-3}, "4steps", 0.0),
    "constant": ("constant", {}, "never", 0.0),
    "constant_with_warmup": ("constant", {}, "4steps", 0.0),
    "inverse_sqrt": ("inverse_sqrt", {}, "4steps", 0.0),
    "cosine_with_min_lr": ("cosine_min_lr", {"share": 0.2, "at_last": False}, "4steps", 0.0),
    "cosine_warmup_with_min_lr": ("cosine_min_lr", {"share": 0.2}, "3steps", 0.25),
    "warmup_stable_decay": ("wsd", {"decay": "3steps", "shape": "linear", "min_share": 0.1}, "4steps", 0.1),
}

# Those that follow a metric, for the values given (better is less); reduce_lr_on_plateau with patience=1, and greedy
# with factor=0.5, patience=1, cooldown=1, warmup=1, and its default bounds, which for a rate of 0.1 are ours.
FOLLOWED = {
    "reduce_lr_on_plateau": (
        "plateau", {"patience": 1},
        [1.0, 0.9, 0.95, 0.97, 0.96, 0.5, 0.6, 0.6, 0.6, 0.6, 0.4, 0.3],
        [0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001],
    ),
    "greedy": (
        "greedy", {"factor": 0.5, "patience": 1, "cooldown": 1, "settle": 1},
        [1.0, 0.9, 0.8, 0.7, 0.65, 0.66, 0.67, 0.68, 0.69, 0.7, 0.5, 0.4],
        [0.1, 0.1, 0.2, 0.2, 0.2, 0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.2],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDED)
def test_a_schedule_of_transformers_has_the_same_curve_here(name: str) -> None:
    file, changes, warmup, start = WORDS[name]
    make = maker(file, 3, warmup, start=start, **changes)
    curve = simulate(make, SGD([torch.zeros(1)], lr=0.1), 12, PER_EPOCH).lrs[0]
    assert curve == pytest.approx(RECORDED[name], rel=1e-8)


@pytest.mark.parametrize("name", FOLLOWED)
def test_a_schedule_of_transformers_that_follows_a_metric_does_the_same_here(name: str) -> None:
    file, changes, values, expected = FOLLOWED[name]
    schedule = maker(file, 3, **changes)(SGD([torch.zeros(1)], lr=0.1))
    rates = []
    for value in values:
        rates += schedule.lrs
        schedule.on_value(value)
    assert rates == pytest.approx(expected)


def test_the_docs_name_every_schedule_of_transformers() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in (*RECORDED, *FOLLOWED):
        assert f"| `{name}` |" in text


@pytest.mark.parametrize("name", [name for name in FILES if name != "none"])
def test_the_docs_say_when_each_schedule_moves(name: str) -> None:
    schedule = maker(name, 3)(SGD([torch.zeros(1)], lr=LR, momentum=0.9))
    moves = {"value": "evaluation"}.get(schedule.unit, schedule.unit)
    if isinstance(schedule, Several):
        moves = "each part its own"
    assert re.search(rf"^\| `{name}` \| {moves}( or \w+)? \| ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


# --------------------------------------------------------------------------------------------- a length of its own


def test_a_curve_that_is_longer_than_the_run_is_drawn_as_it_is_and_told() -> None:
    curves = simulate(maker("cosine", 2, total_steps="4epochs"), SGD([torch.zeros(1)], lr=LR), 8, PER_EPOCH)
    assert curves.end == 16
    assert curves.lrs[0][-1] > LR / 2
    assert "does not finish: its end would be at step 16, and the run has 8" in (curves.warning or "")
    shorter = simulate(maker("cosine", 2, total_steps="1epoch"), SGD([torch.zeros(1)], lr=LR), 8, PER_EPOCH)
    assert shorter.warning is None
    assert shorter.lrs[0][4:] == [0.0] * 4


def test_a_torch_scheduler_with_a_longer_horizon_is_told_too() -> None:
    node = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "T_max": 10, "unit": "epoch"}
    cfg = OmegaConf.create({**config("none", 2), "scheduler": node})
    make = functools.partial(build_schedule, cfg, per_epoch=PER_EPOCH, mode="min")
    curves = simulate(make, SGD([torch.zeros(1)], lr=LR), 8, PER_EPOCH)
    assert curves.end == 40
    assert curves.warning


def test_a_schedule_that_cannot_go_on_to_the_end_is_refused() -> None:
    make = maker("onecycle", 2, total_steps="5steps")
    with pytest.raises(ConfigError, match="scheduler: ends before the run, after 6 of its 8 steps"):
        simulate(make, SGD([torch.zeros(1)], lr=LR, momentum=0.9), 8, PER_EPOCH)


@pytest.mark.parametrize(("rate", "told"), [(-1.0, "-0.1"), (math.nan, "nan"), (math.inf, "inf")])
def test_a_learning_rate_that_would_climb_the_loss_or_destroy_the_weights_is_refused(rate: float, told: str) -> None:
    def make(optimizer: Optimizer) -> schedules.Schedule:
        return schedules.lambda_(optimizer, 4, 8, lambda step: 1.0 if step < 3 else rate)

    with pytest.raises(ConfigError, match=f"the learning rate becomes {told} at step 4 of 8"):
        simulate(make, SGD([torch.zeros(1)], lr=0.1), 8, PER_EPOCH)
