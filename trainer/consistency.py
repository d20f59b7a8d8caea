"""Whether the values of a config go together: what can be told without the data, by making small objects of them."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch.optim import Optimizer

from trainer import _hydra
from trainer.durations import Duration
from trainer.errors import ConfigError, TrainerError, closest
from trainer.hooks import Hook
from trainer.schedules import Schedule, simulate
from trainer.schedules.base import StandIn
from trainer.scheduling import arguments, make_scheduler, too_short, typed_length
from trainer.signatures import BROKEN, mismatch


def scheduler_node(node: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """What is wrong with what a scheduler's node holds for us and not for its target; and the rest of the node."""
    wrong = mismatch(node["unit"], Literal["step", "epoch", "value"]) if "unit" in node else None
    told = [f"scheduler.unit: {wrong}"] if wrong else []
    rest = arguments(node)
    if "total_steps" in rest and BROKEN not in (rest["total_steps"], rest.get("_target_")):
        try:
            ours = typed_length(rest) is not None
        except ConfigError as error:
            told, ours = told + error.problems, True
        if ours:
            del rest["total_steps"]
    return told, rest


def _optimizer_and_schedule(plain: dict[str, Any], spoilt: set[str]) -> list[str]:
    """An optimizer of one small weight matrix, and the schedule on it, show wrong ranges and combinations."""
    if spoilt & {"optimizer", "scheduler"} or not {"optimizer", "scheduler"} <= plain.keys():
        return []
    lr, node = plain["optimizer"].get("lr"), plain["scheduler"]
    if isinstance(lr, int | float) and lr < 0:
        return [f"optimizer.lr: {lr} must be 0 or more; trainer-check lr_find=true suggests a rate"]
    horizon = {"total_steps": 1000, "steps_per_epoch": 100, "epochs": 10, "warmup_steps": 0}
    try:
        optimizer = _hydra.instantiate(plain["optimizer"], "optimizer", params=[torch.nn.Parameter(torch.zeros(2, 2))])
        made = make_scheduler(node, "min", optimizer=StandIn(optimizer), **horizon)
    except ConfigError as error:
        return error.problems
    if isinstance(made, Schedule) or "unit" in node:
        return _ends_too_soon(plain, spoilt, optimizer)
    return [
        f"scheduler.unit: when does {node['_target_']} move? type +scheduler.unit=step (after each update), "
        "epoch, or value (after each evaluation, with the monitored metric)"
    ]


def _ends_too_soon(plain: dict[str, Any], spoilt: set[str], optimizer: Optimizer) -> list[str]:
    """A length of its own, in epochs or as a share, after which the schedule cannot go on: known without the data."""
    node = plain["scheduler"]
    length = typed_length(node)
    if length is None or length.unit == "steps" or spoilt & {"epochs"}:
        return []
    epochs = plain["epochs"]
    run = {"total_steps": epochs * 10, "steps_per_epoch": 10, "epochs": epochs, "warmup_steps": 0}

    def make(stand_in: Optimizer) -> Any:
        return make_scheduler(node, "min", optimizer=stand_in, **run)

    try:
        simulate(make, optimizer, run["total_steps"], 10)
    except ConfigError:
        return [too_short(length, f"epochs={epochs}", epochs)]
    return []


def _warmup_fits(plain: dict[str, Any], spoilt: set[str]) -> list[str]:
    length = plain["warmup"].get("length") if isinstance(plain.get("warmup"), dict) else None
    if spoilt & {"warmup", "epochs"} or length is None:
        return []
    duration = Duration.parse(length, "warmup.length")
    end = {"epochs": plain["epochs"], "%": 100}.get(duration.unit)
    if end is None or duration.amount < end:
        return []
    run = f"epochs={plain['epochs']}" if duration.unit == "epochs" else "100%"
    return [f"warmup.length: {length} must be shorter than the whole run ({run}); type warmup=5%"]


def _monitor_exists(plain: dict[str, Any], spoilt: set[str]) -> list[str]:
    """The monitored metric is one that the task measures; `val/iou/<class>` is known only with the data."""
    monitor = _monitor(plain)
    if "early_stopping" in spoilt or not isinstance(monitor, str):
        return []
    known = [f"val/{name}" for name in (measures(plain) if "task" not in spoilt else {})]
    if monitor in known:
        return []
    if monitor.startswith("val/") and (not known or monitor.count("/") > 1):
        return []
    known = known or ["val/loss"]
    near = closest(monitor.split("/")[-1], [name[4:] for name in known])
    hint = f"did you mean val/{near}?" if near else f"the task measures {', '.join(known)}"
    return [f"early_stopping.monitor: nothing measures {monitor!r}; {hint}"]


def _hooks_are_hooks(plain: dict[str, Any], spoilt: set[str]) -> list[str]:
    """A class is looked at and not made, which may be costly; what a function gives is seen when the run starts."""
    nodes = {} if "hooks" in spoilt else plain.get("hooks") or {}
    found = {name: _hydra.locate(node["_target_"], f"hooks.{name}") for name, node in nodes.items()}
    return [
        f"hooks.{name}: {target.__name__} is no Hook; type hooks.{name}._target_=MODULE.CLASS of a class that inherits "
        "from trainer.Hook"
        for name, target in found.items()
        if isinstance(target, type) and not issubclass(target, Hook)
    ]


RULES = (_optimizer_and_schedule, _warmup_fits, _monitor_exists, _hooks_are_hooks)
"""Each takes the plain config and the top-level keys that are known to be wrong, and gives mistakes."""


def doubts(plain: dict[str, Any]) -> list[str]:
    """What is allowed but hardly meant, in a config without mistakes."""
    return [*_modes(plain), *_optimizer_alone(plain)]


def _optimizer_alone(plain: dict[str, Any]) -> list[str]:
    """What an optimizer does not go well with."""
    name, schedule = (str(plain[key].get("_target_")).rpartition(".")[2] for key in ("optimizer", "scheduler"))
    told = []
    if name.startswith("ScheduleFree") and schedule != "constant":
        told.append(f"scheduler: {schedule}, but {name} needs none: it averages its weights; type scheduler=none")
    if name in ("LBFGS", "Rprop") and plain["accumulate"] != "full":
        told.append(f"accumulate: {plain['accumulate']}, but {name} wants the gradient of all samples; type full")
    return told


def _modes(plain: dict[str, Any]) -> list[str]:
    monitor = _monitor(plain)
    better = measures(plain).get(str(monitor).removeprefix("val/"))
    if better is None:
        return []
    is_better = f"but {monitor} is better when it is {'smaller' if better == 'min' else 'larger'}"
    ends = {"early_stopping": "leave it at auto", "scheduler": "leave it out"}
    modes = {group: plain[group].get("mode") for group in ends}
    return [
        f"{group}.mode: {modes[group]}, {is_better}; {end}"
        for group, end in ends.items()
        if modes[group] in ("min", "max") and modes[group] != better
    ]


def _monitor(plain: dict[str, Any]) -> Any:
    node = plain.get("early_stopping")
    return node.get("monitor") if isinstance(node, dict) else None


def measures(plain: dict[str, Any]) -> dict[str, str]:
    """The task's metrics and their better direction, by making one for two classes; empty where that fails."""
    facts = {"criterion": torch.nn.Identity(), "num_classes": 2, "classes": ("0", "1")}
    try:
        task = _hydra.instantiate(plain["task"], "task", **facts)
    except (TrainerError, KeyError):
        return {}
    return {name: better for name, better in getattr(task, "measures", {}).items() if "/" not in name}
