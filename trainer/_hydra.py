"""The only module that touches Hydra's machinery: where configs are found, composing them, and making objects of them."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trainer.errors import ConfigError, TrainerError, closest

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

CONFIG_NAME = "config"
VERSION_BASE = "1.3"
SPECIAL = ("_target_", "_args_", "_partial_", "_convert_", "_recursive_")  # keys of a node that are no arguments


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
    return sorted({file.stem for folder in conf_dirs() for file in (folder / group).glob("*.yaml")})


def groups() -> list[str]:
    """The config groups in the order of config.yaml, then those that only the user has."""
    lines = (conf_dir() / f"{CONFIG_NAME}.yaml").read_text(encoding="utf-8").splitlines()
    named = [line.strip(" -").split(":")[0] for line in lines if line.startswith("  - ") and ":" in line]
    found = {path.name for folder in conf_dirs() for path in folder.iterdir() if any(path.glob("*.yaml"))}
    return [name for name in named if name in found] + sorted(found - {*named, "hydra"})


# --------------------------------------------------------------------------------------------------------- composing


@functools.cache
def prepare() -> None:
    """Tells Hydra where configs lie, and makes modules in the working directory importable, in child processes too."""
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class TrainerSearchPath(SearchPathPlugin):
        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            for folder in conf_dirs():
                search_path.append("trainer", f"file://{folder}")

    Plugins.instance().register(TrainerSearchPath)
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
    application: Callable[[], Any] = hydra.main(version_base=VERSION_BASE, config_path=None, config_name=CONFIG_NAME)(task)
    return application


@contextlib.contextmanager
def session() -> Iterator[ConfigLoader]:
    """Hydra's config loader, also where another Hydra application is running."""
    from hydra import initialize
    from hydra.core.global_hydra import GlobalHydra

    prepare()
    with initialize(version_base=VERSION_BASE, config_path=None, job_name="trainer"):
        yield GlobalHydra.instance().config_loader()


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """The config of a run, without the `hydra` node.

    Raises:
        HydraException: an override does not fit; `config.compose` says why in our words.
    """
    import hydra

    with session():
        return hydra.compose(CONFIG_NAME, overrides=list(overrides))


def parse(override: str) -> Override:
    """One word of the command line.

    Raises:
        OverrideParseException: it breaks Hydra's grammar.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_overrides([override])[0]


def is_swept(override: str) -> bool:
    """Whether the word gives several values, as in `seed=1,2` or `seed=range(3)`."""
    from hydra.errors import HydraException

    try:
        return parse(override).is_sweep_override()
    except HydraException:
        return False


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job of a `-m` command line, `hydra.sweeper.params` included, in Hydra's own order.

    Raises:
        HydraException: an override does not fit.
        ConfigError: another sweeper than Hydra's basic one decides the jobs only while it runs.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.types import RunMode

    with session() as loader:
        settings = loader.load_configuration(CONFIG_NAME, list(overrides), RunMode.MULTIRUN).hydra
        if not str(settings.sweeper._target_).endswith(".BasicSweeper"):
            raise ConfigError(f"hydra/sweeper: {settings.sweeper._target_} chooses its jobs while it runs; they are not known now")
        words = [f"{key}={value}" for key, value in (settings.sweeper.params or {}).items()]
        parsed = OverridesParser.create(config_loader=loader).parse_overrides([*words, *overrides])
        return [job for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]


# ---------------------------------------------------------------------------------------------------- making objects


def instantiate(node: Any, key: str, **offered: Any) -> Any:
    """The object that a `_target_` node describes; all containers in it are plain.

    Of what is offered the target gets the arguments that its signature names and the node does not set. Nodes nested in
    a target's arguments are made first and are offered nothing. In a mapping of nodes (`hooks`) each is offered all.
    `_args_`, `_partial_: true` (gives a plain `functools.partial`) and `_recursive_: false` mean what they mean in Hydra.

    Raises:
        ConfigError: the full key, then what is wrong: the target cannot be imported or called, an argument is missing.
    """
    return _make(plain_node(node, key), key, offered)


def is_missing(value: Any) -> bool:
    """Whether a value must be given by the user: `???`, perhaps followed by what to give (`??? FOLDER`)."""
    return isinstance(value, str) and value.startswith("???")


def must_be_given(key: str, value: str = "???") -> str:
    """The message for such a value: `must be given; type data.root=FOLDER (holding imgs/ and masks/)`."""
    return f"must be given; type {key}={value[3:].strip() or 'VALUE'}"


def plain_node(node: Any, key: str) -> Any:
    """The node as plain nested values, interpolations resolved."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not OmegaConf.is_config(node):
        return node
    try:
        return OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or key}: {str(error).splitlines()[0]}") from error


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
    if head in parameters(target):
        return f"{key}.{text}".replace(f" {head}=", f" {key}.{head}=")
    holders = [name for name, value in given.items() if tail in map(str, value if isinstance(value, list) else [value])]
    return f"{key}.{holders[0]}: {text}" if len(holders) == 1 else None


def needs(target: str, name: str, offered: Mapping[str, Any] | Sequence[str]) -> str:
    """The message for an argument that has no default, is not set, and is not offered."""
    known = f"; known by itself here: {', '.join(offered)}" if offered else ""
    return f"{target} needs it, and nothing gives it; add it to the config{known}"


def parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The arguments that a target names; where a class passes `**kwargs` on, its parents' arguments too.

    Its last entry is the `**kwargs` parameter where unnamed arguments are taken as well.
    """
    try:
        own = dict(inspect.signature(target).parameters)
    except (TypeError, ValueError):  # a builtin that does not tell
        return {"kwargs": inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)}
    if isinstance(target, type) and takes_any(own):
        for parent in target.__mro__[1:-1]:
            if "__init__" in vars(parent):
                inherited = dict(list(inspect.signature(parent.__init__).parameters.items())[1:])
                named = {name: p for name, p in own.items() if p.kind is not p.VAR_KEYWORD}
                own = {**named, **{name: p for name, p in inherited.items() if name not in named}}
                if not takes_any(inherited):
                    break
    return own


def takes_any(taken: Mapping[str, inspect.Parameter]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in taken.values())


def required(taken: Mapping[str, inspect.Parameter], positional: int = 0) -> list[str]:
    """The arguments without a default, less those that are given by position."""
    names = [(name, p) for name, p in taken.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return [name for name, p in names[positional:] if p.default is p.empty]


# -------------------------------------------------------------------------------------------------- finding a target


def locate(target: Any, key: str) -> Callable[..., Any]:
    """What a dotted path names: a class or a function.

    Raises:
        ConfigError: it cannot be imported (the innermost cause is told), is not there (with the nearest name), cannot
            be called, or is refused by Hydra (`os.system`, `builtins.eval`, ...).
    """
    import_from_here()
    if not isinstance(target, str) or not all(target.split(".")):
        raise ConfigError(f"{key}._target_: {target!r} is not a path like torch.optim.SGD")
    found: Any = None
    parts = target.split(".")
    for n, part in enumerate(parts):
        if n and hasattr(found, part):
            found = getattr(found, part)
            continue
        path = ".".join(parts[: n + 1])
        if n and not isinstance(found, ModuleType):
            raise ConfigError(_absent(target, key, parts[:n], part, found))
        try:
            found = importlib.import_module(path)
        except (Exception, SystemExit) as error:
            if isinstance(error, ModuleNotFoundError) and error.name == path:
                raise ConfigError(_absent(target, key, parts[:n], part, found)) from None
            raise ConfigError(f"{key}: {target} cannot be imported: {cause(error)}") from error
    if not callable(found):
        raise ConfigError(f"{key}._target_: {target} is a {type(found).__name__}, and a class or function is needed")
    _refuse_blocked(target, key)
    result: Callable[..., Any] = found
    return result


def _absent(target: str, key: str, before: list[str], part: str, holder: Any) -> str:
    if not before:
        near = closest(part, [*(file.stem for file in Path.cwd().glob("*.py")), "torch", "trainer"])
        hint = f"did you mean {near}?" if near else f"put {part}.py into {Path.cwd()}, or install it"
        return f"{key}: {target} cannot be imported: there is no module {part}; {hint}"
    path = ".".join(before)
    names = [name for name in dir(holder) if not name.startswith("_") and callable(getattr(holder, name, None))]
    near = closest(part, names)
    hint = f"did you mean {path}.{near}?" if near else f"it has {', '.join(names[:8]) or 'nothing that can be called'}"
    return f"{key}: {target} is not there: {path} has no {part}; {hint}"


def _refuse_blocked(target: str, key: str) -> None:
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate as hydra_instantiate

    try:
        hydra_instantiate({"_target_": target, "_partial_": True})
    except InstantiationException as error:
        raise ConfigError(f"{key}._target_: Hydra refuses {target}: {str(error).splitlines()[0]}") from error


def cause(error: BaseException) -> str:
    """What went wrong at the innermost, and where: `No module named 'einops' (my_model.py:3)`."""
    while (inner := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        error = inner
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.msg} ({Path(error.filename).name}:{error.lineno})"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames and frames[-1].filename != __file__ else ""
    words = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
    return f"{words}{where}"
