"""Learning-rate schedules: each knows its unit (step, epoch or value), and a warm-up composes with every one.

The functions `cosine`, `step`, `plateau`, ... are what `conf/scheduler/` names. They get the optimizer and the horizon
that is left after the warm-up, and return a `Schedule`.
"""

from __future__ import annotations

from trainer.schedules.base import Schedule, Unit, Warmup, as_schedule
from trainer.schedules.curves import (
    constant,
    cosine,
    cosine_hard_restarts,
    cosine_min_lr,
    cosine_restarts,
    exponential,
    inverse_sqrt,
    linear,
    multistep,
    polynomial,
    step,
    wsd,
)
from trainer.schedules.cycles import cyclic, onecycle
from trainer.schedules.functions import lambda_, multiplicative, one_minus_sqrt, times_095
from trainer.schedules.several import chained, sequential
from trainer.schedules.simulation import Curves, simulate
from trainer.schedules.values import Greedy, greedy, plateau

__all__ = [
    "Curves",
    "Greedy",
    "Schedule",
    "Unit",
    "Warmup",
    "as_schedule",
    "chained",
    "constant",
    "cosine",
    "cosine_hard_restarts",
    "cosine_min_lr",
    "cosine_restarts",
    "cyclic",
    "exponential",
    "greedy",
    "inverse_sqrt",
    "lambda_",
    "linear",
    "multiplicative",
    "multistep",
    "one_minus_sqrt",
    "onecycle",
    "plateau",
    "polynomial",
    "sequential",
    "simulate",
    "step",
    "times_095",
    "wsd",
]
