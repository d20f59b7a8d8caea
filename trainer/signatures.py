"""Whether the plain values of a `_target_` node fit the signature of its target, and if not, why."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

from trainer import _hydra
from trainer.errors import ConfigError, closest, did_you_mean
from trainer.targets import SPECIAL, needs, parameters, required, takes_any

BROKEN: Any = object()
"""Stands for a value that is missing or cannot be resolved, which was reported where it was found; fits everything."""


def misfits(key: str, node: dict[str, Any], offered: Sequence[str] = ()) -> list[str]:
    """The mistakes of a node with `_target_`, and of those nested in it."""
    given = {name: value for name, value in node.items() if name not in SPECIAL}
    found = [text for name, value in given.items() for text in _nested(f"{key}.{name}", value)]
    args = node.get("_args_", [])
    found += _nested(f"{key}._args_", args)
    if node["_target_"] is BROKEN:
        return found
    try:
        target = _hydra.locate(node["_target_"], key)
    except ConfigError as error:
        return error.problems + found
    taken, hints, name_of = parameters(target), _hints(target), node["_target_"]
    for name, value in given.items():
        if name in taken:
            wrong = mismatch(value, hints.get(name, Any), taken[name].default)
            found += [f"{key}.{name}: {wrong}"] if wrong else []
        elif not takes_any(taken) or re.fullmatch(r"_\w+_", name):
            names = [*(n for n in taken if n not in offered), *(SPECIAL if name.startswith("_") else ())]
            found.append(f"{key}.{name}: {name_of} takes no such argument; {did_you_mean(name, names)}")
    if not node.get("_partial_", False):
        missing = [name for name in required(taken, len(args)) if name not in given and name not in offered]
        found += [f"{key}.{name}: {needs(name_of, name, offered)}" for name in missing]
    return found


def _nested(key: str, value: Any) -> list[str]:
    if isinstance(value, dict):
        if "_target_" in value:
            return misfits(key, value)
        return [text for name, entry in value.items() for text in _nested(f"{key}.{name}", entry)]
    if isinstance(value, list):
        return [text for n, entry in enumerate(value) for text in _nested(f"{key}[{n}]", entry)]
    return []


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a target's arguments; those of a class's parents where it passes `**kwargs` on."""
    makers = (
        [vars(c)["__init__"] for c in target.__mro__ if "__init__" in vars(c)] if isinstance(target, type) else [target]
    )
    hints: dict[str, Any] = {}
    for maker in reversed(makers):
        try:
            hints |= typing.get_type_hints(maker)
        except Exception:  # an annotation may name what exists for type checkers only
            hints = {name: hint for name, hint in hints.items() if name not in getattr(maker, "__annotations__", {})}
    return hints


# ----------------------------------------------------------------------------------------------------------- types


def mismatch(value: Any, hint: Any, default: Any = ...) -> str | None:
    """What is wrong with a value for an annotation, or None. Without an annotation the default's type counts."""
    if value is BROKEN or (isinstance(value, dict) and "_target_" in value) or (value is None and default is None):
        return None
    if hint is Any and type(default) in (int, float):
        return _number(value) if isinstance(value, str) else None
    if hint is Any and isinstance(default, bool):
        return mismatch(value, bool)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return mismatch(value, inner[0], default)
    if origin is Literal:
        words = [str(word) for word in inner]
        return None if value in inner else f"{value!r} is not one of {', '.join(words)}" + _near(value, words)
    if origin in (Union, types.UnionType):
        return _union(value, inner)
    if origin in (list, tuple, set, Sequence) or hint in (list, tuple, set):
        return _items(value, origin or hint, inner, default)
    if origin in (dict, Mapping) or hint is dict:
        return None if isinstance(value, dict) else f"{value!r} is not a mapping (name: value)"
    if _is_tensor(hint):
        return f"{value!r} is not a tensor; write {{_target_: torch.tensor, data: {value}}}"
    check = _SIMPLE.get(hint)
    return check(value) if check else None


def _is_tensor(hint: Any) -> bool:
    return getattr(hint, "__name__", "") == "Tensor"  # by name: torch takes long to import


def _near(value: Any, words: Sequence[str]) -> str:
    near = closest(str(value), words)
    return f"; did you mean {near}?" if near else ""


def _union(value: Any, inner: tuple[Any, ...]) -> str | None:
    if {str, float, bool} <= {*inner}:  # nearly anything: the constructor knows the words that it takes
        return None
    wrong = {hint: mismatch(value, hint) for hint in inner}
    if None in wrong.values():
        return None
    wrong.pop(type(None), None)
    told = [text for hint, text in wrong.items() if text and not _is_tensor(hint)]
    return ", and ".join(dict.fromkeys(told or filter(None, wrong.values())))


def _like(default: Any) -> str:
    """The default as what to type, where it is plain."""
    return f", such as [{', '.join(map(str, default))}]" if isinstance(default, tuple | list) else ""


def _items(value: Any, kind: type, inner: tuple[Any, ...], default: Any = ...) -> str | None:
    if not isinstance(value, list):
        fits = not isinstance(value, dict) and mismatch(value, inner[0] if inner else Any) is None
        return f"{value!r} is not a list" + (f"; write [{value}]" if fits else "")
    fixed = kind is tuple and inner and inner[-1] is not Ellipsis
    if fixed and len(inner) != len(value):
        return f"{value!r} must have {len(inner)} entries{_like(default)}"
    hints = inner if fixed else (inner[:1] or (Any,)) * len(value)
    wrong = [mismatch(item, hint) for item, hint in zip(value, hints, strict=True)]
    return next((text for text in wrong if text), None)


def _number(value: Any) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return f"{value!r} is not a number"
        return f"{value!r} is text that looks like a number; leave out the quotes"
    return f"{_shown(value)} is not a number"


def _whole(value: Any) -> str | None:
    wrong = _number(value)
    return wrong or (None if isinstance(value, int) else f"{value} is not a whole number")


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) else f"{_shown(value)} is not text; put it into quotes: \"'{_shown(value)}'\""


def _truth(value: Any) -> str | None:
    return None if isinstance(value, bool) else f"{_shown(value)} is neither true nor false"


def _null(value: Any) -> str | None:
    return None if value is None else f"{_shown(value)} is not null"


def _shown(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)


_SIMPLE: dict[Any, Callable[[Any], str | None]] = {
    int: _whole,
    float: _number,
    str: _text,
    bool: _truth,
    type(None): _null,
    Path: _text,
}
