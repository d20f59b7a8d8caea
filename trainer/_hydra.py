"""All that depends on Hydra's ways: where configs lie, composing them, and making objects of them."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import ConfigError, TrainerError
from trainer.plugins import STORED
from trainer.targets import SPECIAL, cause, find, is_missing, must_be_given, needs, parameters, required

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

CONFIG_NAME = "config"
VERSION_BASE = "1.3"


# ------------------------------------------------------------------------------------------------- where configs lie


def conf_dir() -> Path:
    """The folder of the shipped YAML files: `trainer/conf` in a wheel, `conf` beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / f"{CONFIG_NAME}.yaml").is_file():
            return folder
    raise ConfigError(f"{package}: the shipped configs are missing; install the package anew")


def conf_dirs() -> list[Path]:
    """The folders that configs are looked up in; the first that holds a file wins.

    The user's own comes first: what TRAINER_CONF names, else `conf` in the working directory.
    """
    ours, own = conf_dir(), Path(os.environ.get("TRAINER_CONF", "conf")).resolve()
    return [own, ours] if own.is_dir() and own != ours else [ours]


def options(group: str) -> list[str]:
    """The files of a config group, from every folder, sorted."""
    files = {file.stem for folder in conf_dirs() for file in (folder / group).glob("*.yaml")}
    return sorted(files | set(STORED.get(group, ())))


def groups() -> list[str]:
    """The config groups in the order of config.yaml, then those that only the user has."""
    lines = (conf_dir() / f"{CONFIG_NAME}.yaml").read_text(encoding="utf-8").splitlines()
    named = [line.strip(" -").split(":")[0] for line in lines if line.startswith("  - ") and ":" in line]
    found = {path.name for folder in conf_dirs() for path in folder.iterdir() if any(path.glob("*.yaml"))}
    return [name for name in named if name in found] + sorted(found - {*named, "hydra"})


def implied(words: Sequence[str]) -> list[str]:
    """The words of a command line with what they imply: `data=digits` alone means `experiment=digits`.

    `warmup=500steps` means `warmup=linear warmup.length=500steps`. A key below `param_groups.rules` needs no `+`.

    The data decides which model and task make sense; where an experiment has the name of the data and none is typed,
    that one is meant. Data of one's own means `experiment=none`: nothing of the default experiment suits it.
    """
    words = [part for word in words for part in _spelt_out(word)]
    named = [word.partition("=")[2] for word in words if word.startswith("data=")]
    if not named or any(word.startswith(("experiment=", "resume=/", "resume=.")) for word in words):
        return list(words)
    if named[-1] in options("experiment"):
        return [*words, f"experiment={named[-1]}"]
    own = set(options("data")) - set(options("experiment"))
    return [*words, *(["experiment=none"] if own.issuperset(named[-1].split(",")) else [])]


def _spelt_out(word: str) -> list[str]:
    if re.match(r"\+?param_groups\.rules\.", word):  # new to the config, or there already: both are meant
        return ["++" + word.lstrip("+")]
    lengths = re.fullmatch(r"warmup=(\d[\d.]*\s*[a-zA-Z%]+(?:,\d[\d.]*\s*[a-zA-Z%]+)*)", word)
    return ["warmup=linear", f"warmup.length={lengths[1]}"] if lengths else [word]


# --------------------------------------------------------------------------------------------------------- composing


@functools.cache
def prepare() -> None:
    """Tells Hydra where configs lie, and makes modules in the working directory importable, in child processes too."""
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class TrainerSearchPath(SearchPathPlugin):
        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            for folder in conf_dirs():
                search_path.append("trainer", f"file://{folder}")

    Plugins.instance().register(TrainerSearchPath)
    for group, nodes in STORED.items():  # in the place of plugins of those names, which have registered theirs by now
        for name, node in nodes.items():
            ConfigStore.instance().store(name, node, group=group, provider="trainer")
    import_from_here()


def import_from_here() -> None:
    """Makes modules in the working directory importable, in child processes too."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if here not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, paths)])


def main(task: Callable[[DictConfig], Any]) -> Callable[[], Any]:
    """The task as a Hydra application that reads `sys.argv`."""
    import hydra

    prepare()
    application: Callable[[], Any] = hydra.main(version_base=VERSION_BASE, config_path=None, config_name=CONFIG_NAME)(
        task
    )
    return application


@contextlib.contextmanager
def session() -> Iterator[ConfigLoader]:
    """Hydra's config loader, also where another Hydra application is running.

    Raises:
        ConfigError: what Hydra refuses inside, in its words; `overrides.compose_or_explain` says it in ours.
    """
    from hydra import initialize
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    prepare()
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize(version_base=VERSION_BASE, config_path=None, job_name="trainer"):
            yield GlobalHydra.instance().config_loader()
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: a group's file is a number
        raise ConfigError(str(error)) from error
    finally:
        GlobalHydra.instance().hydra = outer


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """The config of a run, without the `hydra` node.

    Raises:
        ConfigError: an override does not fit.
    """
    return compose_with_choices(overrides)[0]


def compose_with_choices(overrides: Sequence[str] = ()) -> tuple[DictConfig, dict[str, str]]:
    """As `compose`, and the file that is chosen in each config group."""
    import hydra
    from omegaconf import open_dict

    with session() as loader:
        cfg = hydra.compose(CONFIG_NAME, overrides=list(overrides), return_hydra_config=True)
        chosen = _choices(cfg.hydra)
        if "hooks" not in chosen:
            _refuse_twins(loader, overrides)
        with open_dict(cfg):
            del cfg["hydra"]
        return cfg, chosen


def _refuse_twins(loader: Any, overrides: Sequence[str]) -> None:
    """Of several files of hooks, none may define what another does: Hydra would keep the last one alone."""
    from hydra.types import RunMode

    holders: dict[str, str] = {}
    for entry in loader.compute_defaults_list(CONFIG_NAME, list(overrides), RunMode.RUN).defaults:
        if entry.package != "hooks" or str(entry.parent).startswith("hooks/"):  # a file may change what it builds on
            continue
        file = entry.config_path.partition("/")[2]
        for name, node in loader.repository.load_config(entry.config_path).config.items():
            if "_target_" in (node or ()) and (first := holders.setdefault(str(name), file)) != file:
                raise ConfigError(f"hooks: {first} and {file} both define {name}; rename one")


def _choices(settings: Any) -> dict[str, str]:
    followed = ("hydra/", "data/tuned")  # not chosen by anybody
    chosen = {str(group): str(file) for group, file in settings.runtime.choices.items()}
    return {group: file for group, file in chosen.items() if not group.startswith(followed)}


def parse(override: str) -> Override:
    """One word of the command line.

    Raises:
        ConfigError: it breaks Hydra's grammar.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_overrides([override])[0]
    except HydraException as error:
        raise ConfigError(str(error)) from error


def is_swept(override: str) -> bool:
    """Whether the word gives several values, as in `seed=1,2` or `seed=range(3)`."""
    try:
        return parse(override).is_sweep_override()
    except ConfigError:
        return False


# ---------------------------------------------------------------------------------------------------- making objects


def instantiate(node: Any, key: str, **offered: Any) -> Any:
    """The object that a `_target_` node describes; all containers in it are plain.

    Of what is offered the target gets the arguments that its signature names and the node does not set. Nodes nested in
    a target's arguments are made first and are offered nothing. In a mapping of nodes (`hooks`) each is offered all.
    `_args_`, `_partial_: true` (a plain `functools.partial`) and `_recursive_: false` mean what they do in Hydra.

    Raises:
        ConfigError: the full key, then what is wrong: the target cannot be imported or called, an argument is missing.
    """
    return _make(plain_node(node, key), key, offered)


def plain_node(node: Any, key: str) -> Any:
    """The node as plain nested values, interpolations resolved."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not OmegaConf.is_config(node):
        return node
    try:
        return OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or key}: {resolution(error)}") from error


def resolution(error: Exception) -> str:
    """Why an interpolation cannot be resolved, without omegaconf's frame around it."""
    line = str(error).splitlines()[0]
    return re.sub(r'^\w+ raised while resolving interpolation: "?(.*?)"?$', r"\1", line)


def _make(node: Any, key: str, offered: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_make(item, f"{key}[{n}]", offered) for n, item in enumerate(node)]
    if not isinstance(node, dict):
        if is_missing(node):
            raise ConfigError(f"{key}: {must_be_given(key, node)}")
        return node
    if "_target_" not in node:
        return {name: _make(value, f"{key}.{name}", offered) for name, value in node.items()}
    target = locate(node["_target_"], key)
    given = {name: value for name, value in node.items() if name not in SPECIAL or name == "_args_"}
    if node.get("_recursive_", True):
        given = {name: _make(value, f"{key}.{name}", {}) for name, value in given.items()}
    args = given.pop("_args_", [])
    taken = parameters(target)
    given |= {name: value for name, value in offered.items() if name in list(taken)[len(args) :] and name not in given}
    if node.get("_partial_", False):
        return functools.partial(target, *args, **given)
    missing = [name for name in required(taken, len(args)) if name not in given]
    if missing:
        raise ConfigError([f"{key}.{name}: {needs(node['_target_'], name, offered)}" for name in missing])
    return _call(target, args, given, key, node["_target_"])


def _call(target: Callable[..., Any], args: list[Any], given: dict[str, Any], key: str, name: str) -> Any:
    try:
        return target(*args, **given)
    except ConfigError as error:
        raise ConfigError([_with_key(text, key, target, {}) or text for text in error.problems]) from error
    except TrainerError:
        raise
    except ValueError as error:
        raise ConfigError(_with_key(str(error), key, target, given) or f"{key}: {error}") from error
    except Exception as error:
        raise ConfigError(f"{key}: {name} cannot be made: {cause(error)}") from error


def _with_key(text: str, key: str, target: Callable[..., Any], given: Mapping[str, Any]) -> str | None:
    """A constructor's complaint with the full key of the argument that it is about; None where that is unknown.

    Ours begin with the argument's name (`lr: -1 must ...`); torch's end with its value (`Invalid learning rate: -1`).
    """
    head, _, tail = (part.strip() for part in text.partition(":"))
    if re.split(r"[.\[]", head)[0] in parameters(target):
        return f"{key}.{text}".replace(f" {head}=", f" {key}.{head}=")
    holders = [name for name, value in given.items() if tail in map(str, value if isinstance(value, list) else [value])]
    return f"{key}.{holders[0]}: {text}" if len(holders) == 1 else None


def locate(target: Any, key: str) -> Callable[..., Any]:
    """What a dotted path names: a class or a function.

    Raises:
        ConfigError: as `targets.find`, or Hydra refuses it (`os.system`, `builtins.eval`, ...).
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate as hydra_instantiate

    import_from_here()
    found = find(target, key)
    try:
        hydra_instantiate({"_target_": target, "_partial_": True})
    except InstantiationException as error:
        raise ConfigError(f"{key}._target_: Hydra refuses {target}: {' '.join(str(error).split())}") from error
    return found
