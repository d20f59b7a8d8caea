"""What a composed config says: every mistake in it at once, its identity, its values without secrets, its changes."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainer import _hydra
from trainer.durations import Duration
from trainer.errors import ConfigError, closest, did_you_mean
from trainer.records import FACTS, MODEL, RESUME_WORDS
from trainer.signatures import BROKEN, misfits, mismatch
from trainer.targets import is_missing, must_be_given

OFFERED: dict[str, tuple[str, ...]] = {
    "data": ("seed",),
    "model": FACTS,
    "task": (*FACTS, "criterion"),
    "loss": FACTS,
    "optimizer": ("params",),
    "scheduler": ("optimizer", "total_steps", "steps_per_epoch", "warmup_steps", "epochs", "mode"),
}
"""What `build` offers to the target of each group."""

SCALARS = {
    "seed": "whole", "epochs": "count", "batch_size": "count", "accumulate": "count or full", "auto_accumulate": "flag",
    "evaluate_every": "duration", "log_every": "duration", "checkpoint_every": "duration", "skip_nonfinite": "whole",
    "resume": "resume", "resume_changes": "refuse or allow", "strict_code": "flag", "name": "word or null",
    "runs": "word",
}  # fmt: skip
"""The top-level keys that are no group, and what kind of value each takes. A flag that is missing, as in the config of
an older run, is off."""

LONGEST = 255
"""Bytes of a folder's name that file systems take."""

CHECK_ONLY = "lr_find"
FOR_CHECK = "lr_find: belongs to trainer-check, and a run is not changed by it; type trainer-check ... lr_find=true"
"""A word of `trainer-check` that is no key, and what a run says to it."""

SETTINGS = {"debug": {"batches": "count or null"}}
"""Groups that hold plain values and make no object."""

CHEAP = ("early_stopping", "clip", "grad_noise", "ema", "precision", "checkpoint", "warmup", "curriculum", "world",
         "wandb", "param_groups")  # fmt: skip
"""Groups whose objects cost nothing to make: their constructors check the ranges."""

NOT_IDENTITY = ("wandb", "runs", "name", "resume", "resume_changes", "auto_accumulate", "strict_code", "checkpoint",
                "checkpoint_every", "data.num_workers", "data.cache", "data.cache_dir")  # fmt: skip
"""What does not change the result of a run, and so not the folder of a sweep's job."""


# ---------------------------------------------------------------------------------------------------------- mistakes


def problems(cfg: DictConfig) -> list[str]:
    """Every mistake in a composed config, each as `key: what is wrong, and the word that was probably meant`.

    Imports the targets, and so torch. Nothing is made but small objects; no data is read.
    """
    from trainer import consistency

    found: list[str] = []
    plain = _resolve(cfg, "", found)
    found += _unknown_keys(cfg)
    for name in (*SCALARS, *OFFERED, *CHEAP, *SETTINGS, "hooks"):
        if name not in plain and SCALARS.get(name) != "flag":
            none = f"; type {name}=none" if "none" in _hydra.options(name) else ""
            found.append(f"{name}: is missing, and a run needs it{none}")
        elif name in SCALARS and plain.get(name, False) is not BROKEN:
            found += _scalar(name, SCALARS[name], plain.get(name, False))
    for group in _hydra.groups():
        if group in plain and group != "experiment":
            found += _group(group, plain[group])
    for rule in (_make_cheap, *consistency.RULES):
        found += rule(plain, {re.split(r"[.:\[]", problem)[0] for problem in found})
    return list(dict.fromkeys(found))


def _resolve(node: Any, key: str, found: list[str]) -> Any:
    """The config as plain values; what cannot be resolved, or must be given, is reported and BROKEN."""
    if isinstance(node, DictConfig) and not node._is_none():
        names = [str(name) for name in node]
        return {name: _entry(node, name, f"{key}.{name}" if key else name, found) for name in names}
    if OmegaConf.is_list(node) and not node._is_none():
        return [_entry(node, n, f"{key}[{n}]", found) for n in range(len(node))]
    return node


def _entry(node: Any, name: Any, key: str, found: list[str]) -> Any:
    try:
        value = "???" if OmegaConf.is_missing(node, name) else node[name]
    except OmegaConfBaseException as error:
        found.append(f"{key}: {_hydra.resolution(error)}")
        return BROKEN
    if is_missing(value):
        text = OmegaConf.to_container(node, resolve=False)[name]  # type: ignore[index]
        variable = re.search(r"\$\{oc\.env:(\w+)", str(text))
        found.append(f"{key}: {must_be_given(key, value)}" + (f", or set {variable[1]}" if variable else ""))
        return BROKEN
    return _resolve(value, key, found)


def _unknown_keys(cfg: DictConfig) -> Iterator[str]:
    """Top-level keys that mean nothing; one that an interpolation refers to is the user's own variable."""
    known = [*(group for group in _hydra.groups() if group != "experiment"), *SCALARS]
    text = OmegaConf.to_yaml(cfg)
    for name in map(str, cfg):
        if name not in known and not re.search(r"\$\{" + re.escape(name) + r"\b", text):
            unknown = f"{name}: there is no such key; {did_you_mean(name, known, most=40)}"
            yield FOR_CHECK if name == CHECK_ONLY else unknown


def _scalar(name: str, kind: str, value: Any) -> list[str]:
    if value is None and kind.endswith(" or null"):
        return []
    if value == "full" and kind.endswith(" or full"):
        return []
    if kind.startswith(("whole", "count")):
        least = 1 if kind.startswith("count") else 0
        wrong = mismatch(value, int) or (f"{value} must be at least {least}" if value < least else None)
        full = "; a number of batches from 1 on, or full (all of an epoch)" if kind.endswith(" or full") else ""
        return [f"{name}: {wrong}{full}"] if wrong else []
    if kind == "duration":
        try:
            Duration.parse(str(value), name)
        except ConfigError as error:
            return error.problems
        return []
    if kind == "resume":
        if value is None or value in RESUME_WORDS or (isinstance(value, str) and value and Path(value).is_dir()):
            return []
        if str(value).startswith(MODEL):
            return []
        near = closest(str(value), RESUME_WORDS)
        hint = f"; did you mean {near}?" if near else ""
        return [f"{name}: {value!r} is neither a run's folder nor one of {', '.join(RESUME_WORDS)}{hint}"]
    if kind in ("flag", "refuse or allow"):
        wrong = mismatch(value, bool if kind == "flag" else Literal["refuse", "allow"])
        return [f"{name}: {wrong}"] if wrong else []
    if name == "name" and ("/" in str(value) or str(value) in (".", "..")):
        return [f"{name}: {value!r} is not the name of one folder; runs=FOLDER says where it lies"]
    if isinstance(value, bool | float):  # a whole number is text as it was typed; 1.10 would be 1.1
        return [f"{name}: {mismatch(value, str)}"]
    if any(len(os.fsencode(part)) > LONGEST for part in Path(str(value)).parts):
        return [f"{name}: {str(value)[:20]!r}... is too long for a folder; type at most {LONGEST} bytes"]
    return [] if isinstance(value, str | int) and str(value).strip() else [f"{name}: {value!r} is not a name"]


# ------------------------------------------------------------------------------------------------------ target nodes


def _settings(group: str, node: Any) -> Iterator[str]:
    known = SETTINGS[group]
    for name, value in node.items() if isinstance(node, dict) else ():
        if name not in known:
            yield f"{group}.{name}: there is no such key; {did_you_mean(name, known)}"
        elif value is not BROKEN:
            yield from _scalar(f"{group}.{name}", known[name], value)


def _group(group: str, node: Any) -> list[str]:
    if node is BROKEN:
        return []
    told: list[str] = []
    if group == "scheduler" and isinstance(node, dict):
        from trainer.consistency import scheduler_node

        told, node = scheduler_node(node)
    if group in SETTINGS:
        return list(_settings(group, node))
    if group == "hooks" and isinstance(node, dict) and "_target_" in node:
        return [f"hooks: a hook has a name; write mine: {{_target_: {node['_target_']}, ...}} in its file"]
    nodes = node if group == "hooks" and isinstance(node, dict) else {"": node}
    found = told
    for name, entry in nodes.items():
        key = f"{group}.{name}" if name else group
        if isinstance(entry, dict) and "_target_" in entry:
            found += misfits(key, entry, OFFERED.get(group, ()))
        elif group in OFFERED or group in CHEAP or group == "hooks":
            found.append(f"{key}: has no _target_, the class or function that it is made by, like torch.optim.SGD")
    return found


def _make_cheap(plain: dict[str, Any], spoilt: set[str]) -> list[str]:
    return [text for group in CHEAP if group in plain and group not in spoilt for text in _tried(plain[group], group)]


def _tried(node: Any, key: str) -> list[str]:
    try:
        _hydra.instantiate(node, key)
    except ConfigError as error:
        return error.problems
    return []


def warnings(cfg: DictConfig) -> list[str]:
    """What is allowed but hardly meant; for a config without `problems`."""
    from trainer import consistency

    return consistency.doubts(_resolve(cfg, "", []))


# ------------------------------------------------------------------------------------------------ values and identity

_SECRET_KEY = re.compile(
    r"(api_?key|passwo?r?d|secret(_key)?|access_key|credentials?|(access|auth|api)_token|^token)$", re.I
)
_SECRET_VARIABLE = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD)$", re.I)
HIDDEN = "<secret>"  # in what is shown
_TO_GIVE = "??? VALUE (a secret, which is not written down)"  # in config.yaml: asked for when the run is resumed


def read(path: Path) -> DictConfig:
    """The config that a run's folder holds.

    Raises:
        ConfigError: the file is missing, or holds no config.
    """
    try:
        cfg = OmegaConf.load(path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as a config ({str(error).splitlines()[0]})") from error
    if not isinstance(cfg, DictConfig) or not cfg:
        raise ConfigError(f"{path}: holds no config")
    return cfg


def from_anywhere(cfg: DictConfig) -> DictConfig:
    """The same config with `data.root` as a full path, so that the run can go on from another working directory."""
    root = OmegaConf.select(cfg, "data.root", default=None)
    if not isinstance(root, str) or root.startswith("???"):
        return cfg
    cfg = cfg.copy()
    OmegaConf.update(cfg, "data.root", os.path.abspath(os.path.expanduser(root)))  # noqa: PTH100, PTH111
    return cfg


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain nested values for wandb, interpolations resolved and secrets hidden.

    Raises:
        ConfigError: an interpolation cannot be resolved.
    """
    values: dict[str, Any] = _hydra.plain_node(cfg, "config")
    hidden: dict[str, Any] = _hide(values, _secrets(), HIDDEN)
    return hidden


def values(path: Path) -> dict[str, Any]:
    """What `flat(plain(read(path)))` gives, ten times as fast where only the environment is referred to.

    An interpolation that cannot be resolved here stays as it is written: a run may come from another machine.

    Raises:
        ConfigError: the file is missing, or holds no config.
    """
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), Loader=_loader())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as a config ({str(error).splitlines()[0]})") from error
    if not isinstance(found, dict) or not found:
        raise ConfigError(f"{path}: holds no config")
    leaves, secrets = flat(found), _secrets()
    for key in [key for key, value in leaves.items() if "${" in str(value)]:
        alone = _ENVIRONMENT.fullmatch(str(leaves[key]))
        try:
            if not alone:  # it refers to other values, so all are needed
                return flat(plain(read(path)))
            leaves[key] = _from_environment(str(leaves[key]), os.environ.get(alone[1]))
        except ConfigError:
            continue
    return {key: _hide(value, secrets, HIDDEN, key.rpartition(".")[2]) for key, value in leaves.items()}


_ENVIRONMENT = re.compile(r"\$\{oc\.env:(\w+)[^${}]*\}")


@functools.cache
def _from_environment(text: str, _value: str | None) -> Any:
    """What an interpolation stands for while its variable has that value; a thousand configs hold the same."""
    return _hydra.plain_node(OmegaConf.create({"it": text}), "it")["it"]


@functools.cache
def _loader() -> Any:
    """The quick reader of YAML, which takes for a number what omegaconf does, such as 1e-3."""
    from omegaconf._utils import get_yaml_loader

    numbers = get_yaml_loader().yaml_implicit_resolvers
    return type("Loader", (getattr(yaml, "CSafeLoader", yaml.SafeLoader),), {"yaml_implicit_resolvers": numbers})


def unresolved_yaml(cfg: DictConfig) -> str:
    """The text of a run's config.yaml: interpolations stay, but for `runs`; a secret must be given again."""
    values = {**unresolved(cfg), "runs": str(cfg.runs)}
    return OmegaConf.to_yaml(OmegaConf.create(_hide(values, _secrets(), _TO_GIVE)))


def unresolved(cfg: DictConfig) -> dict[str, Any]:
    """The config as nested values whose interpolations are still text, without the `hydra` node."""
    values = OmegaConf.to_container(cfg, resolve=False)
    return {str(key): value for key, value in values.items() if key != "hydra"}  # type: ignore[union-attr]


def _secrets() -> list[str]:
    """The values of environment variables that look secret by their names."""
    return [value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name) and len(value) > 7]


def _hide(value: Any, secrets: list[str], instead: str, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _hide(entry, secrets, instead, str(name)) for name, entry in value.items()}
    if isinstance(value, list):
        return [_hide(entry, secrets, instead, key) for entry in value]
    literal = isinstance(value, str) and not value.startswith("${")
    if literal and value and (_SECRET_KEY.search(key) or any(secret in value for secret in secrets)):
        return instead
    return value


def digest(cfg: DictConfig) -> str:
    """Ten hexadecimal digits that name what is trained: equal for configs that must give the same result.

    Interpolations count as their text, so that neither the time nor a secret is in it; NOT_IDENTITY is left out.
    """
    values = {key: value for key, value in flat(unresolved(cfg)).items() if is_identity(key)}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:10]


def is_identity(key: str) -> bool:
    """Whether a value, by its dotted key, decides what the result of a run is."""
    return not any(key == other or key.startswith(f"{other}.") for other in NOT_IDENTITY)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted keys; lists and empty mappings are values."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else {f"{prefix}{name}": value}
    return found


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs between two plain configs, by dotted key; None stands for a value that is not there."""
    a, b = flat(old), flat(new)
    return {key: (a.get(key), b.get(key)) for key in [*a, *(k for k in b if k not in a)] if a.get(key) != b.get(key)}
