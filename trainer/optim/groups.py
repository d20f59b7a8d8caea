"""Parameter groups: no weight decay for biases and norms, a rate for each layer, a rate or a freeze by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from trainer.durations import Duration
from trainer.errors import ConfigError, did_you_mean
from trainer.optim.parameters import NORMS, Trainable, trainable

REST = "rest"
"""The name of the group of all weights that no rule matches."""

_KEYS = ("match", "lr", "lr_factor", "weight_decay", "freeze")


@dataclass(frozen=True)
class Rule:
    """What holds for the weights that a pattern names. `match` and the others are as typed; None is not set."""

    name: str
    match: tuple[str, ...]
    lr: float | None = None
    lr_factor: float = 1.0
    weight_decay: float | None = None
    freeze: bool | str = False


class Groups:
    """Makes an optimizer whose parameter groups differ in weight decay, learning rate and when they begin to train.

    Args:
        no_decay: whether biases, other vectors and the weights of norms are left out of weight decay; `auto` where it
            is decoupled from the gradient, as in the recipes of BERT, timm and nanoGPT.
        layer_decay: the learning rate of a layer is multiplied by it for each layer further away from the output (Clark
            et al. 2020, arXiv:2003.10555). A layer is a parameter's name up to its first number (`blocks.3`), or its
            first part; layers stand in the order of `named_parameters()`.
        rules: name -> mapping of `match` (a pattern of parameters' names, or several; without it the rule's name is
            that of a module), `lr` or `lr_factor`, `weight_decay`, `freeze` (a duration, or true for the whole run).
            The first that matches a weight counts; one inside another (`encoder.blocks`) goes before it.

    Raises:
        ConfigError: all that is wrong with the rules.
    """

    def __init__(
        self,
        no_decay: bool | Literal["auto"] = "auto",
        layer_decay: float = 1.0,
        rules: Mapping[str, Any] | None = None,
    ) -> None:
        self.no_decay, self.layer_decay = no_decay, layer_decay
        self.rules: list[Rule] = []
        wrong = [] if 0 < layer_decay <= 1 else [f"layer_decay: {layer_decay} must be more than 0 and at most 1"]
        for name, values in _unfolded(rules or {}):
            rule, problems = _read(name, values)
            self.rules.append(rule)
            wrong += problems
        if wrong:
            raise ConfigError(wrong)

    @property
    def by_name(self) -> bool:
        """Whether the weights differ by name, and not only by what they are for."""
        return bool(self.rules) or self.layer_decay != 1

    def make(self, model: nn.Module, optimizer: Callable[[Any], Optimizer]) -> Optimizer:
        """The optimizer of a model's weights, by groups; with one group only it is given plain parameters.

        Args:
            model: whose weights are trained. optimizer: makes it of parameters or groups.

        Raises:
            ConfigError: a rule matches nothing, or cannot be had with this optimizer; all are told.
        """
        params = trainable(model)
        if not self.by_name and not self.no_decay:
            return optimizer(params)
        alone = optimizer([nn.Parameter(torch.zeros(2, 2))])  # tells its values
        rules, wrong = self._matched(model, params)
        wrong += self._refused(alone)
        if wrong:
            raise ConfigError(wrong)
        groups = self._groups(model, params, rules, alone)
        plain = len(groups) == 1 and groups[0].keys() == {"params", "name"} and groups[0]["name"] == REST
        return optimizer(params if plain else groups)

    def _matched(self, model: nn.Module, params: Trainable) -> tuple[dict[str, int], list[str]]:
        """The place of the rule of each weight that has one, and what is wrong with the patterns."""
        names, taken = [name for name, _ in params], dict[str, int]()
        parts = [name.split(".") for name in names]
        known = list(dict.fromkeys(".".join(part[:n]) for n in range(1, max(map(len, parts)) + 1) for part in parts))
        wrong = []
        for n, rule in enumerate(self.rules):
            key = f"rules.{rule.name}"
            for pattern in rule.match:
                if not any(_matches(name, pattern) for name in names):
                    where = f"{key}: " + ("" if rule.match == (rule.name,) else f"match {pattern!r} ")
                    fixed = any(_matches(name, pattern) for name, _ in model.named_parameters())
                    why = "only what the model itself has frozen" if fixed else "no weight"
                    wrong.append(f"{where}matches {why}; {did_you_mean(pattern.rstrip('.*'), known)}")
            matched = [name for name in names if any(_matches(name, pattern) for pattern in rule.match)]
            mine = [name for name in matched if name not in taken]
            if matched and not mine:
                before = dict.fromkeys(f"rules.{self.rules[taken[name]].name}" for name in matched)
                wrong.append(f"{key}: all that it matches is taken by {', '.join(before)} before it; put it first")
            taken |= dict.fromkeys(mine, n)
        return taken, wrong

    def _refused(self, alone: Optimizer) -> list[str]:
        """What this optimizer cannot have."""
        name, group = type(alone).__name__, alone.param_groups[0]
        wrong = []
        if "weight_decay" not in group:
            asks = [rule for rule in self.rules if rule.weight_decay is not None]
            wrong += [f"rules.{rule.name}.weight_decay: {name} has no weight decay" for rule in asks]
        inner = _inner(alone)
        if getattr(inner, "one_rate", False):
            why = f"{type(inner).__name__} takes one step with all weights; use another optimizer"
            keys = {rule.name: [k for k in _KEYS if getattr(rule, k) != getattr(_NONE, k)] for rule in self.rules}
            asked = [(rule, key) for rule in keys for key in keys[rule] if key in ("lr", "lr_factor", "freeze")]
            wrong += [f"rules.{rule}.{key}: {why}" for rule, key in asked]
            wrong += [f"layer_decay: {why}"] if self.layer_decay != 1 else []
        return wrong

    def _groups(
        self, model: nn.Module, params: Trainable, rules: Mapping[str, int], alone: Optimizer
    ) -> list[dict[str, Any]]:
        """Torch's parameter groups: first what no rule matches, and of that first what is nearest to the output."""
        base = alone.param_groups[0]
        exempt = self._exempt(model, params) if self.no_decay is True or (self.no_decay and decoupled(alone)) else set()
        far = _distances(model) if self.layer_decay != 1 else {}
        members: dict[tuple[int, int, bool], set[str]] = {}
        for name, _ in params:
            n = rules.get(name, -1)
            rule = self.rules[n] if n >= 0 else _NONE
            distance = far.get(_layer(name), 0) if rule.lr is None else 0
            decays = name not in exempt or rule.weight_decay is not None or not base.get("weight_decay")
            members.setdefault((n, distance, not decays), set()).add(name)
        layers = {distance: layer for layer, distance in far.items()}
        made = []
        for (n, distance, spared), names in sorted(members.items()):
            rule = self.rules[n] if n >= 0 else _NONE
            layer = layers.get(distance, "") if rule.lr is None else ""
            called = "/".join(filter(None, (rule.name, layer))) or REST
            group: dict[str, Any] = {"params": Trainable(model, names), "name": called}
            lr = float(base["lr"]) * rule.lr_factor * self.layer_decay**distance if rule.lr is None else rule.lr
            decay = 0.0 if spared else rule.weight_decay
            group |= {"lr": float(lr)} if lr != base["lr"] else {}
            group |= {"weight_decay": float(decay)} if decay is not None else {}
            if "final_lr" in base and base["lr"]:  # the rate that AdaBound closes in on
                group |= {"final_lr": base["final_lr"] * lr / base["lr"]} if lr != base["lr"] else {}
            made.append(group | ({"freeze": rule.freeze} if rule.freeze else {}))
        return made

    def _exempt(self, model: nn.Module, params: Trainable) -> set[str]:
        """Vectors and numbers, the weights of norms, and what the model itself names, as those of timm do."""
        told: Any = getattr(model, "no_weight_decay", None)
        named = set(told()) if callable(told) else set()
        vectors = {name for name, p in params if p.ndim <= 1 or isinstance(params.owners[name], NORMS)}
        return vectors | named


def decoupled(optimizer: Optimizer) -> bool:
    """Whether weight decay shrinks the weights themselves, and is no penalty in the gradient."""
    inner = _inner(optimizer)
    group = inner.param_groups[0]
    for key in ("decoupled_weight_decay", "weight_decouple"):  # torch's word and that of pytorch_optimizer
        if key in group:
            return bool(group[key])
    ours = bool(getattr(inner, "decoupled_weight_decay", False))
    return ours or isinstance(inner, (torch.optim.AdamW, torch.optim.Adafactor, getattr(torch.optim, "Muon", ())))


def _inner(optimizer: Optimizer) -> Any:
    """The optimizer that another one goes around, or itself."""
    return getattr(optimizer, "optimizer", getattr(optimizer, "base_optimizer", optimizer))


def _layer(name: str) -> str:
    """A parameter's name up to its first number, or its first part: `blocks.3` of `blocks.3.norm.weight`."""
    parts = name.split(".")
    number = next((n for n, part in enumerate(parts) if part.isdigit()), 0)
    return ".".join(parts[: number + 1])


def _distances(model: nn.Module) -> dict[str, int]:
    layers = list(dict.fromkeys(_layer(name) for name, _ in model.named_parameters()))
    return {layer: n for n, layer in enumerate(reversed(layers))}


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


# ------------------------------------------------------------------------------------------------- reading the rules


def _unfolded(rules: Mapping[Any, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Rules by full name: on a command line `rules.encoder.blocks.freeze` is one inside another."""
    for word, values in rules.items():
        name = f"{before}{word}"
        if not isinstance(values, Mapping):
            yield name, values
            continue
        inner = {key: value for key, value in values.items() if key not in _KEYS and isinstance(value, Mapping)}
        yield from _unfolded(inner, f"{name}.")
        if len(inner) < len(values) or not inner:
            yield name, {key: value for key, value in values.items() if key not in inner}


def _read(name: str, values: Any) -> tuple[Rule, list[str]]:
    """A rule, and what is wrong with it."""
    key = f"rules.{name}"
    if not isinstance(values, Mapping):
        return _NONE, [f"{key}: {values!r} is a value; a rule has {', '.join(_KEYS)} below it"]
    wrong = [f"{key}.{word}: there is no such key; {did_you_mean(word, _KEYS)}" for word in values if word not in _KEYS]
    wrong += [f"{key}: {REST} is the name of what no rule matches; use another and match: ..."] if name == REST else []
    match = values.get("match", name)
    patterns = tuple(match) if isinstance(match, (list, tuple)) else (match,)
    if not patterns or not all(isinstance(pattern, str) and pattern for pattern in patterns):
        wrong.append(f"{key}.match: {match!r} is no pattern of names such as 'encoder.*', nor a list of them")
    if values.get("lr") is not None and values.get("lr_factor") is not None:
        wrong.append(f"{key}.lr_factor: lr is set too; only one of them can hold")
    numbers: dict[str, Any] = {}
    for word in ("lr", "lr_factor", "weight_decay"):
        if (value := values.get(word)) is not None:
            numbers[word] = value
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                wrong.append(f"{key}.{word}: {value!r} must be a number of at least 0")
    freeze = values.get("freeze")
    if freeze is not None and not isinstance(freeze, bool):
        try:
            duration = Duration.parse(freeze, f"{key}.freeze")
        except ConfigError as error:
            wrong += error.problems
        else:
            wrong += [f"{key}.freeze: {freeze} is a time; use steps, epochs or %"] if duration.unit == "seconds" else []
            freeze = duration.unit != "never" and str(freeze)
    return Rule(name, patterns, freeze=freeze or False, **numbers), wrong


_NONE = Rule("", ())
