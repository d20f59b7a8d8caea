"""The targets of a config: finding what a dotted path names, what it takes, and why that failed."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from trainer.errors import ConfigError, closest

SPECIAL = ("_target_", "_args_", "_partial_", "_convert_", "_recursive_")
"""Keys of a node that are no arguments."""


def is_missing(value: Any) -> bool:
    """Whether a value must be given by the user: `???`, perhaps followed by what to give (`??? FOLDER`)."""
    return isinstance(value, str) and value.startswith("???")


def must_be_given(key: str, value: str = "???") -> str:
    """The message for such a value: `must be given; type data.root=FOLDER (holding imgs/ and masks/)`."""
    return f"must be given; type {key}={value[3:].strip() or 'VALUE'}"


def find(target: Any, key: str) -> Callable[..., Any]:
    """What a dotted path names: a class or a function.

    Raises:
        ConfigError: it cannot be imported (the innermost cause is told), is not there (with the nearest name), or
            cannot be called.
    """
    if not isinstance(target, str) or not all(target.split(".")):
        raise ConfigError(f"{key}: {target!r} is not a path like torch.optim.SGD")
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
        raise ConfigError(f"{key}: {target} is a {type(found).__name__}, and a class or function is needed")
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


def cause(error: BaseException) -> str:
    """What went wrong at the innermost, and where: `No module named 'einops' (my_model.py:3)`."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.msg} ({Path(error.filename).name}:{error.lineno})"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    where = (
        f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames and frames[-1].filename != __file__ else ""
    )
    words = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
    return f"{words}{where}"


# ---------------------------------------------------------------------------------------------------- what it takes


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
                inherited = dict(list(inspect.signature(vars(parent)["__init__"]).parameters.items())[1:])
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
