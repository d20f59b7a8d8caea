"""Lengths of training with their unit in the word: `500steps`, `2epochs`, `5%`, `10min`, `never`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from trainer.errors import ConfigError

Unit = Literal["steps", "epochs", "%", "seconds", "never"]
Length = str | float
"""A duration as it is typed: a text. A bare number is taken in only to be refused with both of its readings."""

_PATTERN = re.compile(r"(\d+(?:\.\d+)?(?:e\d+)?)\s*([a-zA-Z%]+)")
_UNITS: dict[str, tuple[Unit, float]] = {
    "step": ("steps", 1), "steps": ("steps", 1), "st": ("steps", 1),
    "epoch": ("epochs", 1), "epochs": ("epochs", 1), "ep": ("epochs", 1),
    "%": ("%", 1),
    "s": ("seconds", 1), "sec": ("seconds", 1), "seconds": ("seconds", 1),
    "min": ("seconds", 60), "minutes": ("seconds", 60), "h": ("seconds", 3600), "hours": ("seconds", 3600),
}  # fmt: skip


def count(number: int, unit: str) -> str:
    """`1 epoch`, `2 epochs`: for texts."""
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


@dataclass(frozen=True)
class Duration:
    """An amount and its unit. `5%` is a share of the whole run, `never` is endless."""

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: Length | Duration, key: str = "duration") -> Duration:
        """Reads `500steps`, `2epochs`, `5%`, `30s`, `10min`, `1h` or `never`.

        Raises:
            ConfigError: no unit is given (both readings are spelled out), or the text is not a duration.
        """
        if isinstance(text, Duration):
            return text
        word = str(text).strip()
        if word == "never":
            return cls(math.inf, "never")
        if re.fullmatch(r"[-+]?\d+(\.\d+)?", word):
            raise ConfigError(f"{key}: {word} has no unit; write {key}={word}steps or {key}={word}epochs")
        found = _PATTERN.fullmatch(word)
        unit = _UNITS.get(found.group(2).lower()) if found else None
        if found is None or unit is None:
            raise ConfigError(f"{key}: {word!r} is not a duration; write 500steps, 2epochs, 5%, 10min or never")
        amount = float(found.group(1)) * unit[1]
        if amount <= 0:
            raise ConfigError(f"{key}: {word!r} must be more than zero; use never to switch it off")
        return cls(amount, unit[0])

    def steps(self, steps_per_epoch: int, total_steps: int) -> int:
        """The same length counted in optimizer updates, at least one.

        Raises:
            ConfigError: a length of time cannot be counted in steps.
        """
        if self.unit == "seconds":
            raise ConfigError(f"{self} is a time, and a number of steps is needed; use steps, epochs or %")
        if self.unit == "never":
            return total_steps + 1
        scale = {"steps": 1.0, "epochs": steps_per_epoch, "%": total_steps / 100}[self.unit]
        return max(1, round(self.amount * scale))

    def __str__(self) -> str:
        if self.unit == "never":
            return "never"
        if self.unit == "seconds" and self.amount % 60 == 0:
            return f"{self.amount / 60:.15g}min"
        word: str = "s" if self.unit == "seconds" else self.unit
        return f"{self.amount:.15g}{word[:-1] if self.amount == 1 and word in ('steps', 'epochs') else word}"


class Every:
    """Whether something is due: every so many steps, epochs or seconds. `never` is due at no time but the end.

    Args:
        duration: how often. Whole epochs are due at the end of an epoch; other lengths are counted in steps.
        steps_per_epoch, total_steps: the length of the run, for `0.5epochs` and `5%`.
    """

    def __init__(self, duration: Duration, steps_per_epoch: int, total_steps: int) -> None:
        self.duration = duration
        self.epochs = int(duration.amount) if duration.unit == "epochs" and duration.amount % 1 == 0 else 0
        timed = duration.unit in ("seconds", "never") or self.epochs
        self.steps = 0 if timed else duration.steps(steps_per_epoch, total_steps)
        self.last = 0.0

    def due(self, step: int, epoch: int, epoch_ended: bool, seconds: float = 0.0) -> bool:
        """Asked once after each update; `seconds` is the running time of the run, which never goes back."""
        if self.steps:
            return step % self.steps == 0
        if self.epochs:
            return epoch_ended and epoch % self.epochs == 0
        if self.duration.unit == "seconds" and seconds - self.last >= self.duration.amount:
            self.last = seconds
            return True
        return False
