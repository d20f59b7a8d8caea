"""Learning-rate curves: their shape, the warm-up before each, and going on in their middle."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD, Optimizer, lr_scheduler

from tests.small import make_trainer, network, recorder_of
from trainer import schedules
from trainer.errors import ConfigError
from trainer.schedules import Schedule, Warmup, simulate
from trainer.state import restore, snapshot

STEPS, PER_EPOCH, LR = 12, 4, 0.05
Make = Callable[[Optimizer, int], Schedule]

MAKERS: dict[str, Make] = {
    "constant": lambda o, total: schedules.constant(o),
    "cosine": lambda o, total: schedules.cosine(o, total, min_lr=0.001),
    "linear": lambda o, total: schedules.linear(o, total, end_factor=0.1),
    "polynomial": lambda o, total: schedules.polynomial(o, total, power=0.9),
    "exponential": lambda o, total: schedules.exponential(o, factor=0.5),
    "step": lambda o, total: schedules.step(o, PER_EPOCH, total, every="1epoch", factor=0.5),
    "onecycle": schedules.onecycle,
    "cyclic": lambda o, total: schedules.cyclic(o, PER_EPOCH, total, half_cycle="4steps"),
    "plateau": lambda o, total: schedules.plateau(o, factor=0.5, patience=0),
}


def optimizer_of(*lrs: float) -> Optimizer:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in lrs or (LR,)]
    return SGD(groups, lr=1.0, momentum=0.9)


def walk(schedule: Schedule, first: int = 0, last: int = STEPS, values: Any = None) -> list[float]:
    """The rate of each update from `first` to `last`, as the loop moves the schedule; the metric never improves."""
    rates = []
    for done in range(first, last):
        rates.append(schedule.lrs[0])
        schedule.scheduler.optimizer.step()
        schedule.on_step()
        if (done + 1) % PER_EPOCH == 0:
            schedule.on_epoch()
            schedule.on_value(1.0 if values is None else values[(done + 1) // PER_EPOCH - 1])
    return rates


def warmed(name: str, steps: int = 5, factor: float = 0.1) -> Schedule:
    optimizer = optimizer_of()
    return MAKERS[name](optimizer, STEPS - steps).warm_up(steps, factor)


# ------------------------------------------------------------------------------------------------------- the curves

FORMULAS: dict[str, Callable[[int], float]] = {
    "constant": lambda n: LR,
    "cosine": lambda n: 0.001 + (LR - 0.001) * 0.5 * (1 + math.cos(math.pi * n / STEPS)),
    "linear": lambda n: LR * (1 - 0.9 * n / STEPS),
    "polynomial": lambda n: LR * (1 - n / STEPS) ** 0.9,
    "exponential": lambda n: LR * 0.5 ** (n // PER_EPOCH),
    "step": lambda n: LR * 0.5 ** (n // PER_EPOCH),
    "cyclic": lambda n: LR * (0.1 + 0.9 * (1 - abs(n % 8 - 4) / 4)),
    # values 1, 1, 1: the first sets the mark, and with a patience of 0 each later one cuts
    "plateau": lambda n: LR * 0.5 ** max(0, n // PER_EPOCH - 1),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_curve_is_its_formula(name: str) -> None:
    rates = walk(MAKERS[name](optimizer_of(), STEPS))
    assert rates == pytest.approx([FORMULAS[name](n) for n in range(STEPS)], rel=1e-12)


@pytest.mark.parametrize("name", FORMULAS)
def test_every_group_has_the_curve_of_its_own_rate(name: str) -> None:
    optimizer = optimizer_of(LR, LR / 10)
    schedule = MAKERS[name](optimizer, STEPS)
    for step in range(STEPS):
        high, low = schedule.lrs
        expected = FORMULAS[name](step) / 10 if name != "cosine" else None
        if expected is None:  # the floor is the same for both
            expected = 0.001 + (LR / 10 - 0.001) * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        assert high == pytest.approx(FORMULAS[name](step))
        assert low == pytest.approx(expected)
        walk(schedule, step, step + 1)


def test_cosine_ends_at_its_floor_and_stays_there() -> None:
    schedule = schedules.cosine(optimizer_of(), STEPS, min_lr=0.001)
    walk(schedule)
    assert schedule.lrs[0] == pytest.approx(0.001, rel=1e-12)
    walk(schedule)
    assert schedule.lrs[0] == pytest.approx(0.001, rel=1e-12)


@pytest.mark.parametrize("name", ["linear", "polynomial"])
def test_a_curve_ends_where_it_says_and_stays_there(name: str) -> None:
    schedule = MAKERS[name](optimizer_of(), STEPS)
    walk(schedule)
    end = LR * {"linear": 0.1, "polynomial": 0.0}[name]
    assert schedule.lrs[0] == pytest.approx(end, abs=1e-15)
    walk(schedule)
    assert schedule.lrs[0] == pytest.approx(end, abs=1e-15)


def test_onecycle_is_torchs_own_and_does_not_raise_at_the_end() -> None:
    mine = schedules.onecycle(optimizer_of(), STEPS, max_lr=0.3, pct_start=0.25)
    theirs_optimizer = optimizer_of()
    theirs = lr_scheduler.OneCycleLR(theirs_optimizer, max_lr=0.3, total_steps=STEPS + 1, pct_start=0.25)
    rates = []
    for _ in range(STEPS):
        rates.append(theirs_optimizer.param_groups[0]["lr"])
        theirs_optimizer.step()
        theirs.step()
    assert walk(mine) == rates
    assert max(rates) <= 0.3
    assert rates[0] == pytest.approx(0.3 / 25)
    assert mine.lrs[0] == pytest.approx(0.3 / 25 / 1e4)


def test_onecycle_rises_to_the_rate_of_the_optimizer_unless_told_otherwise() -> None:
    schedule = schedules.onecycle(optimizer_of(0.2, 0.1), 100, pct_start=0.5)
    peaks = [max(pair) for pair in zip(*[(walk(schedule, n, n + 1), schedule.lrs)[1] for n in range(100)], strict=True)]
    assert peaks == pytest.approx([0.2, 0.1], rel=1e-2)


def test_step_counts_its_share_of_the_run() -> None:
    schedule = schedules.step(optimizer_of(), steps_per_epoch=4, total_steps=10, every="30%", factor=0.1)
    assert walk(schedule, 0, 10) == pytest.approx([LR] * 3 + [LR / 10] * 3 + [LR / 100] * 3 + [LR / 1000])


def test_milestones_are_counted_from_the_start_of_the_run_warm_up_or_not() -> None:
    for warm in (0, 3):
        made = schedules.multistep(optimizer_of(), PER_EPOCH, STEPS - warm, warm, ("1epoch", "75%"), 0.5)
        assert walk(made.warm_up(warm, 1.0)) == pytest.approx([LR] * 4 + [LR / 2] * 5 + [LR / 4] * 3)
    with pytest.raises(ValueError, match="^milestones: 9steps, 2epochs must rise"):
        schedules.multistep(optimizer_of(), PER_EPOCH, STEPS, 0, ("9steps", "2epochs"))


@pytest.mark.parametrize("growth", [1, 2])
def test_restarts_of_a_given_length_are_torchs_own(growth: int) -> None:
    theirs_optimizer = optimizer_of()
    theirs = lr_scheduler.CosineAnnealingWarmRestarts(theirs_optimizer, T_0=3, T_mult=growth, eta_min=0.01)
    rates = []
    for _ in range(STEPS):
        rates.append(theirs_optimizer.param_groups[0]["lr"])
        theirs_optimizer.step()
        theirs.step()
    mine = schedules.cosine_restarts(optimizer_of(), PER_EPOCH, STEPS, growth=growth, first="3steps", min_lr=0.01)
    assert walk(mine) == pytest.approx(rates)
    assert mine.horizon == {1: 12, 2: 21}[growth]


def test_as_many_restarts_as_told_fill_the_run() -> None:
    rates = walk(schedules.cosine_restarts(optimizer_of(), PER_EPOCH, 70, cycles=3, growth=2), last=70)
    assert [n for n, rate in enumerate(rates) if rate == LR] == [0, 10, 30]


def test_the_parts_of_a_sequence_each_begin_at_the_full_rate_and_count_what_they_count() -> None:
    parts = [
        {"length": "1epoch", "schedule": functools.partial(schedules.linear, end_factor=0.0)},
        {"schedule": functools.partial(schedules.exponential, factor=0.5)},
    ]
    rates = walk(schedules.sequential(optimizer_of(), PER_EPOCH, STEPS, parts=parts))
    assert rates == pytest.approx([LR * share for share in (1, 0.75, 0.5, 0.25, 0.5, 0.5, 0.5, 0.5, *[0.25] * 4)])


def test_schedules_that_are_chained_multiply() -> None:
    parts = [{"schedule": schedules.linear}, {"schedule": functools.partial(schedules.exponential, factor=0.5)}]
    rates = walk(schedules.chained(optimizer_of(), PER_EPOCH, STEPS, parts=parts))
    assert rates == pytest.approx([LR * (1 - n / STEPS) * 0.5 ** (n // PER_EPOCH) for n in range(STEPS)])


def test_a_part_may_follow_the_metric_and_another_may_move_the_momentum() -> None:
    optimizer = optimizer_of()
    parts = [
        {"length": "50%", "schedule": functools.partial(schedules.plateau, factor=0.5, patience=0)},
        {"schedule": schedules.onecycle},
    ]
    curves = simulate(lambda o: schedules.sequential(o, PER_EPOCH, STEPS, parts=parts), optimizer, STEPS, PER_EPOCH)
    assert curves.follows_metric
    schedule = schedules.sequential(optimizer, PER_EPOCH, STEPS, parts=parts)
    schedule.on_value(1.0)
    schedule.on_value(2.0)
    assert schedule.rates == {"lr": LR / 2, "momentum": 0.9}
    walk(schedule, last=6)
    assert schedule.rates == {"lr": pytest.approx(LR / 25), "momentum": 0.95}
    assert optimizer.param_groups[0]["momentum"] == 0.95


def test_a_function_of_ones_own_gets_what_it_asks_for_by_name() -> None:
    def curve(done: int, total_steps: int) -> float:
        return 1 - done / total_steps

    per_step = schedules.lambda_(optimizer_of(), PER_EPOCH, STEPS, curve)
    assert walk(per_step) == pytest.approx([LR * (1 - n / STEPS) for n in range(STEPS)])
    factors = schedules.multiplicative(optimizer_of(), PER_EPOCH, STEPS, lambda epoch: epoch / 2)
    assert walk(factors) == pytest.approx([LR] * 4 + [LR / 2] * 8)


@pytest.mark.parametrize("make", [schedules.onecycle, lambda o, n: schedules.cyclic(o, PER_EPOCH, n)])
def test_the_momentum_is_highest_where_the_rate_is_lowest_and_can_be_left_alone(make: Make) -> None:
    for optimizer in (optimizer_of(), torch.optim.AdamW([torch.zeros(1)], lr=LR)):
        curves = simulate(lambda o: make(o, 100), optimizer, 100, PER_EPOCH)
        lrs, momenta = curves.lrs[0], curves.momenta[0]
        assert momenta[lrs.index(max(lrs))] == pytest.approx(min(momenta), abs=1e-3)
        assert max(momenta) > min(momenta) + 0.09
    assert "momentum" not in make(SGD([torch.zeros(1)], lr=LR), 100).rates, "there is none to move"
    still = schedules.onecycle(optimizer_of(), 100, cycle_momentum=False)
    assert still.rates == {"lr": pytest.approx(LR / 25)}
    assert optimizer_of().param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize("mode", ["min", "max"])
def test_plateau_takes_nan_as_no_better(mode: Any) -> None:
    schedule = schedules.plateau(optimizer_of(), mode=mode, factor=0.5, patience=1)
    for value, rate in [(1.0, LR), (math.nan, LR), (math.nan, LR / 2), (math.nan, LR / 2), (1.0, LR / 4)]:
        schedule.on_value(value)
        assert schedule.lrs[0] == pytest.approx(rate)


def test_plateau_follows_its_direction_and_its_floor() -> None:
    rising, falling = (
        schedules.plateau(optimizer_of(), "max", patience=0),
        schedules.plateau(optimizer_of(), "min", patience=0),
    )
    for value in (1.0, 2.0, 3.0):
        rising.on_value(value)
        falling.on_value(value)
    assert rising.lrs == [LR]
    assert falling.lrs == pytest.approx([LR / 100])
    floored = schedules.plateau(optimizer_of(), patience=0, min_lr=0.02)
    for _ in range(3):
        floored.on_value(1.0)
    assert floored.lrs == [0.02]


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "plateau"])
def test_only_a_schedule_that_follows_a_metric_hears_of_it(name: str) -> None:
    a, b = MAKERS[name](optimizer_of(), STEPS), MAKERS[name](optimizer_of(), STEPS)
    assert walk(a, values=[1.0, 2.0, 3.0]) == walk(b, values=[3.0, 2.0, 1.0])


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda o: schedules.cosine(o, 10, min_lr=-1), "min_lr"),
        (lambda o: schedules.linear(o, 10, end_factor=-0.1), "end_factor"),
        (lambda o: schedules.polynomial(o, 10, power=0), "power"),
        (lambda o: schedules.exponential(o, factor=0), "factor"),
        (lambda o: schedules.step(o, 4, 10, factor=-1), "factor"),
        (lambda o: Warmup("1min"), "length"),
        (lambda o: Warmup("5%", start_factor=1.1), "start_factor"),
        (lambda o: Warmup("5%", start_factor=-0.1), "start_factor"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_its_name(make: Callable[[Optimizer], Any], word: str) -> None:
    with pytest.raises(ValueError, match=f"^{word}: "):
        make(optimizer_of())


@pytest.mark.parametrize("every", ["5", "soon"])
def test_a_step_without_a_unit_is_refused_by_its_key(every: str) -> None:
    with pytest.raises(ConfigError, match=r"^every: "):
        schedules.step(optimizer_of(), 4, 10, every=every)


# ------------------------------------------------------------------------------------------------------- the warm-up


@pytest.mark.parametrize("name", MAKERS)
def test_a_warm_up_is_a_line_up_to_the_schedule_and_the_schedule_goes_on_from_there(name: str) -> None:
    """One that counts steps starts after it; one that counts epochs or values keeps counting below it."""
    warm, total = 5, STEPS - 5
    bare = MAKERS[name](optimizer_of(), total)
    unit = bare.unit
    plain = walk(bare) if unit != "step" else walk(MAKERS[name](optimizer_of(), total), last=total)
    rates = walk(warmed(name, warm))
    factors = [0.1 + 0.9 * n / warm for n in range(warm)]
    if unit == "step":
        assert rates[:warm] == pytest.approx([plain[0] * factor for factor in factors])
        assert rates[warm:] == pytest.approx(plain)
    else:
        assert rates[:warm] == pytest.approx([rate * factor for rate, factor in zip(plain, factors, strict=False)])
        assert rates[warm:] == pytest.approx(plain[warm:])


@pytest.mark.parametrize("name", ["exponential", "plateau"])
def test_a_warm_up_over_several_epochs_meets_the_schedule_where_it_would_be(name: str) -> None:
    assert walk(warmed(name, 10))[10:] == pytest.approx(walk(MAKERS[name](optimizer_of(), STEPS))[10:])


def test_a_warm_up_from_zero_starts_at_zero_and_one_from_one_changes_nothing() -> None:
    assert walk(warmed("constant", 4, 0.0))[:5] == pytest.approx([0, LR / 4, LR / 2, LR * 3 / 4, LR])
    assert walk(warmed("constant", 4, 1.0)) == [LR] * STEPS


def test_no_warm_up_changes_nothing() -> None:
    for name, make in MAKERS.items():
        assert walk(warmed(name, 0)) == walk(make(optimizer_of(), STEPS))


@pytest.mark.parametrize(
    ("length", "steps"), [("5steps", 5), ("1epoch", 4), ("25%", 3), ("never", 0), ("1%", 1), ("100%", 11)]
)
def test_the_length_of_a_warm_up_is_counted_in_steps(length: str, steps: int) -> None:
    assert Warmup(length).steps(PER_EPOCH, STEPS) == steps


@pytest.mark.parametrize("length", ["12steps", "3epochs", "20steps"])
def test_a_warm_up_as_long_as_the_run_is_refused(length: str) -> None:
    with pytest.raises(ConfigError, match=r"^warmup\.length: .* steps and the whole run has 12"):
        Warmup(length).steps(PER_EPOCH, STEPS)


# ---------------------------------------------------------------------------------------- before and in a training


@pytest.mark.parametrize("warm", [0, 5])
@pytest.mark.parametrize("name", MAKERS)
def test_the_simulated_curve_is_what_a_training_logs_at_every_step(name: str, warm: int) -> None:
    def make(optimizer: Optimizer) -> Schedule:
        made = MAKERS[name](optimizer, STEPS - warm) if name != "plateau" else schedules.plateau(optimizer, patience=99)
        return made.warm_up(warm, 0.1)

    trainer = make_trainer(schedule=make)
    assert (trainer.steps, trainer.steps_per_epoch) == (STEPS, PER_EPOCH)
    trainer.fit()
    logged = [row["lr"] for row in recorder_of(trainer).got]
    assert logged == simulate(make, optimizer_of(), STEPS, PER_EPOCH).lrs[0]


def test_each_group_is_simulated_and_logged_by_its_name() -> None:
    def groups(parameters: Any) -> Optimizer:
        first, *rest = parameters
        return SGD([{"params": [first], "lr": 0.01, "name": "first"}, {"params": rest}], lr=LR, momentum=0.9)

    def make(optimizer: Optimizer) -> Schedule:
        return schedules.cosine(optimizer, STEPS)

    trainer = make_trainer(optimizer=groups, schedule=make)
    trainer.fit()
    curves = simulate(make, optimizer_of(0.01, LR), STEPS, PER_EPOCH).lrs
    assert [row["lr/first"] for row in recorder_of(trainer).got] == curves[0]
    assert [row["lr/1"] for row in recorder_of(trainer).got] == curves[1]


def test_the_rate_that_is_logged_is_the_one_that_the_update_used() -> None:
    model = network(norm=False, dropout=0.0)
    trainer = make_trainer(
        model=model, optimizer=lambda p: SGD(p, lr=LR), schedule=lambda o: schedules.linear(o, STEPS), epochs=1
    )
    before = model[0].weight.detach().clone()
    group = next(trainer.loader.groups(0))
    (gradient,) = torch.autograd.grad(trainer.task.loss(model, group[0]), [model[0].weight])
    trainer.fit()
    first = recorder_of(trainer).got[0]
    assert first["lr"] == LR
    again = make_trainer(model=network(norm=False, dropout=0.0), optimizer=lambda p: SGD(p, lr=LR))
    again.train_group(group)
    assert torch.allclose(again.model[0].weight, before - LR * gradient)


# ------------------------------------------------------------------------------------------------------ going on


@pytest.mark.parametrize("name", MAKERS)
def test_a_curve_goes_on_from_any_step_as_if_nothing_had_happened(name: str) -> None:
    """The rate itself is in the optimizer's state, which replaces its groups when it is restored."""
    uninterrupted = walk(warmed(name))
    for stop in range(1, STEPS):
        first, second = warmed(name), warmed(name)
        start = walk(first, 0, stop)
        taken = snapshot({"optimizer": first.scheduler.optimizer, "schedule": first})
        restore({"optimizer": second.scheduler.optimizer, "schedule": second}, taken)
        rest = []
        for step in range(stop, STEPS):
            rest.append(second.scheduler.optimizer.param_groups[0]["lr"])
            assert second.lrs == [rest[-1]], "what is shown is what the optimizer uses"
            walk(second, step, step + 1)
        assert start + rest == uninterrupted, f"stopped after {stop}"


MORE: dict[str, Make] = {
    **MAKERS,
    "torch cosine": lambda o, total: Schedule(lr_scheduler.CosineAnnealingLR(o, total), "step"),
    "torch polynomial": lambda o, total: Schedule(lr_scheduler.PolynomialLR(o, total), "step"),
    "torch linear": lambda o, total: Schedule(lr_scheduler.LinearLR(o, total_iters=total), "step"),
    "torch cosine per epoch": lambda o, total: Schedule(lr_scheduler.CosineAnnealingLR(o, total // PER_EPOCH), "epoch"),
}


@pytest.mark.parametrize("warm", [0.0, 0.2], ids=["at once", "warmed up"])
@pytest.mark.parametrize("name", [name for name in MORE if name != "plateau"])
def test_a_run_that_is_made_longer_goes_on_with_the_rates_of_the_longer_run(
    name: str, warm: float, tmp_path: Path
) -> None:
    """Many of torch's schedulers make the next rate of the present one: from the end of a cosine it would stay zero."""

    def trained(epochs: int, folder: Path | None = None, resume: Any = "never") -> list[float]:
        total = epochs * PER_EPOCH
        before = int(warm * total)
        trainer = make_trainer(
            schedule=lambda o: MORE[name](o, total - before).warm_up(before, 0.1),
            folder=folder,
            epochs=epochs,
            resume=resume,
        )
        trainer.fit()
        return [row["lr"] for row in recorder_of(trainer).got]

    trained(3, tmp_path)
    assert trained(6, tmp_path, "must") == pytest.approx(trained(6)[3 * PER_EPOCH :], rel=1e-9)
