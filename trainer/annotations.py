"""Whether a plain value fits the annotation of an argument, and if not, why, in words for the user."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

from trainer.errors import closest

BROKEN: Any = object()
"""Stands for a value that is missing or cannot be resolved, which was reported where it was found; fits everything."""


def mismatch(value: Any, hint: Any, default: Any = ...) -> str | None:
    """What is wrong with a config's value for an annotation, or None. Without an annotation the default's type counts."""
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
        return _items(value, origin or hint, inner)
    if origin in (dict, Mapping) or hint is dict:
        return None if isinstance(value, dict) else f"{value!r} is not a mapping (name: value)"
    check = _SIMPLE.get(hint)
    return check(value) if check else None


def _near(value: Any, words: Sequence[str]) -> str:
    near = closest(str(value), words)
    return f"; did you mean {near}?" if near else ""


def _union(value: Any, inner: tuple[Any, ...]) -> str | None:
    wrong = [mismatch(value, hint) for hint in inner]
    if None in wrong:
        return None
    if all(hint in _SIMPLE or typing.get_origin(hint) is not None for hint in inner):
        told = [text for hint, text in zip(inner, wrong, strict=True) if text and hint is not type(None)]
        return ", and ".join(dict.fromkeys(told))
    return None


def _items(value: Any, kind: type, inner: tuple[Any, ...]) -> str | None:
    if not isinstance(value, list):
        return f"{value!r} is not a list; write [{value}]" if not isinstance(value, dict) else f"{value!r} is not a list"
    fixed = kind is tuple and inner and inner[-1] is not Ellipsis
    if fixed and len(inner) != len(value):
        return f"{value!r} must have {len(inner)} entries"
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
    int: _whole, float: _number, str: _text, bool: _truth, type(None): _null, Path: _text,
}
