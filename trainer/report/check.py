"""What `trainer-check` shows of a config without mistakes: the learning rate of the whole run, or a range test."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainer.build import build, foresee, schedule_words
from trainer.lr_find import lr_range
from trainer.overrides import Job, sweep_settings
from trainer.preflight import preflight
from trainer.preview import plots, range_report
from trainer.rehearsal import rehearse
from trainer.search import Optuna
from trainer.space import sweeper_of
from trainer.sweep import Sweep

if TYPE_CHECKING:
    from omegaconf import DictConfig


def show_sweep(overrides: Sequence[str], jobs: Sequence[Job]) -> None:
    """Prints what a sweep would do, and what that would cost.

    Raises:
        ConfigError: a job would fail; all are told.
    """
    node = sweep_settings(overrides)
    sweep = Sweep(node)
    try:
        if isinstance(sweeper := sweeper_of(node), Optuna):
            print(f"a search of {sweeper.n_trials} trials; the extremes of what it may choose:")
        sweep.add(jobs)
        preflight(sweep, strict=True)
    finally:
        sweep.close()
    print()


def show_range_test(cfg: DictConfig, steps: int, job: str) -> None:
    """Prints the range test of the run as it would be built; `job` names it among several, empty for one alone."""
    key = "optimizer.lr" if "lr" in cfg.optimizer else "+optimizer.lr"
    lines = range_report(lr_range(build(cfg), steps), key, sys.stdout.encoding)
    print("\n".join([*([f"job       {job}"] if job else []), *lines, ""]))


def show_schedule(cfg: DictConfig) -> None:
    """Prints the learning rate of the whole run, as the run itself would have it."""
    curves, known = foresee(cfg)
    if known:  # the data is at hand: whether loss, model and optimizer fit it, too
        rehearse(build(cfg))
    if curves.warning:
        print(f"warning: scheduler: {curves.warning}")
    print(f"schedule  {schedule_words(cfg, curves)}\n")
    print("\n".join(plots(curves, sys.stdout.encoding)))
    if not known:
        print(f"{'':10}drawn for {curves.steps_per_epoch} steps an epoch; the data, which tells how many, is not read")
    print()
