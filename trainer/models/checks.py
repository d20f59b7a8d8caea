"""The checks that the models make of their arguments."""

from __future__ import annotations

from collections.abc import Sequence


def positive(**arguments: int | Sequence[int]) -> None:
    """Raises a ValueError that starts with the name of an argument that is, or holds, a number below 1, or is empty."""
    for name, value in arguments.items():
        numbers = value if isinstance(value, Sequence) else [value]
        if not numbers:
            raise ValueError(f"{name}: it is empty; give at least one number")
        if min(numbers) < 1:
            shown = ", ".join(map(str, numbers))
            raise ValueError(f"{name}: {shown} must be at least 1{' each' if len(numbers) > 1 else ''}")


def share(**arguments: float) -> None:
    """Raises a ValueError that starts with the name of an argument that is not from 0 up to, but less than, 1."""
    for name, value in arguments.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name}: {value} must be from 0 up to, but less than, 1")
