"""From a scheduler's node to a schedule: what is offered to it, its own length, and the warm-up in front of it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from trainer._hydra import instantiate, locate, plain_node
from trainer.durations import Duration
from trainer.errors import ConfigError
from trainer.monitor import Mode
from trainer.schedules import Curves, Schedule, simulate
from trainer.targets import parameters

if TYPE_CHECKING:
    from omegaconf import DictConfig


def build_schedule(cfg: DictConfig, optimizer: Optimizer, per_epoch: int, mode: Mode) -> Schedule:
    """The schedule of a config for an optimizer, the warm-up in front of it.

    Raises:
        ConfigError: it does not fit the length of the run, or a torch scheduler is given without its unit.
    """
    total = cfg.epochs * per_epoch
    warmup = instantiate(cfg.warmup, "warmup")
    before = warmup.steps(per_epoch, total)
    node = plain_node(cfg.scheduler, "scheduler")
    length = {"total_steps": total - before, "steps_per_epoch": per_epoch, "epochs": cfg.epochs}
    made = make_scheduler(node, mode, optimizer=optimizer, warmup_steps=before, **length)
    if isinstance(made, Schedule):
        schedule = made
    elif isinstance(made, LRScheduler) and node.get("unit") in ("step", "epoch", "value"):
        schedule = Schedule(made, node["unit"])
    else:
        raise ConfigError(
            f"scheduler.unit: {node['_target_']} does not say when it moves; type +scheduler.unit=step (after each "
            "update), epoch (after each epoch) or value (after each evaluation, with the monitored metric)"
        )
    return schedule.warm_up(before, warmup.start_factor)


def curves_of(cfg: DictConfig, optimizer: Optimizer, per_epoch: int, mode: Mode) -> Curves:
    """The curves of the whole run; the optimizer is not touched.

    Raises:
        ConfigError: as `build_schedule`, or the schedule cannot go on to the end of the run.
    """
    steps = cfg.epochs * per_epoch
    make = functools.partial(build_schedule, cfg, per_epoch=per_epoch, mode=mode)
    try:
        return simulate(make, optimizer, steps, per_epoch)
    except ConfigError as error:
        length = cfg.scheduler.get("total_steps")
        if not isinstance(length, str):
            raise
        raise ConfigError(too_short(length, f"{steps} steps", cfg.epochs)) from error


def make_scheduler(node: Mapping[str, Any], mode: str, **offered: Any) -> Any:
    """`instantiate` for the scheduler; its `unit` is not the target's, and is left out.

    The direction of the metric is offered only to what means that by its `mode`; torch's CyclicLR means another thing.
    A length that the node sets itself (`total_steps: 10epochs`) is counted in steps. Nodes nested in it (the parts of a
    `sequential`) are made as partials: what is offered is given to them later.
    """
    node = arguments(node)
    if (length := typed_length(node)) is not None:
        del node["total_steps"]
        offered["total_steps"] = length.steps(offered["steps_per_epoch"], offered["total_steps"])
    argument = parameters(locate(node["_target_"], "scheduler")).get("mode") if "_target_" in node else None
    if argument is not None and argument.default in ("min", "max"):
        offered["mode"] = mode
    return instantiate(node, "scheduler", **offered)


def arguments(node: Mapping[str, Any]) -> dict[str, Any]:
    """What a scheduler's node holds for its target: all but its `unit`, the nodes in it marked as partials."""
    return {name: _later(value) for name, value in node.items() if name != "unit"}


def _later(node: Any) -> Any:
    if isinstance(node, list):
        return [_later(item) for item in node]
    if isinstance(node, dict):
        partial = {"_partial_": True} if "_target_" in node else {}
        return {name: _later(value) for name, value in node.items()} | partial
    return node


def typed_length(node: Mapping[str, Any]) -> Duration | None:
    """The length of its curve that a scheduler's node sets, if any; None for a number of steps, as torch's take it.

    Raises:
        ConfigError: a bare number for one of ours, or no duration.
    """
    value, ours = node.get("total_steps"), str(node.get("_target_")).startswith("trainer.")
    if isinstance(value, int | float) and ours:
        key = "+scheduler.total_steps"
        raise ConfigError(
            f"scheduler.total_steps: {value} has no unit; type {key}={value}steps or {key}={value}epochs, or leave it "
            "out: the curve is then as long as the run"
        )
    return Duration.parse(value, "scheduler.total_steps") if isinstance(value, str) else None


def too_short(length: object, run: str, epochs: int) -> str:
    """The mistake of a length of its own after which a schedule cannot go on, and the run does."""
    return (
        f"scheduler.total_steps: {length} are less than the run ({run}), and it cannot go on after its end; leave it "
        f"out, or type +scheduler.total_steps={epochs}epochs"
    )
