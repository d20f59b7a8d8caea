"""The rows of a run in the making: means over the steps between two rows, read from the device many rows at once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import torch

from trainer.logged import Logged
from trainer.progress import Progress
from trainer.records import Row
from trainer.state import State
from trainer.update import finite

ROWS_AT_ONCE, SECONDS_AT_MOST = 50, 1.0

Number = torch.Tensor | float


class History:
    """Collects losses and gradient norms, and makes rows of them without waiting for the device.

    Attributes:
        last: the newest row that was handed on.
        logged: what hooks and user code add to the rows.
    """

    def __init__(self) -> None:
        self.last: Row = {}
        self.logged = Logged()
        self._losses: list[Number] = []
        self._samples: list[int] = []
        self._norms: list[Number] = []
        self._clipped: list[Number] = []
        self._rows: list[Row] = []
        self._since = time.perf_counter()

    def add(
        self, losses: list[torch.Tensor], samples: list[int], norm: torch.Tensor, clipped: torch.Tensor | None = None
    ) -> None:
        """One update: the loss of each micro-batch, which counts by its samples; the norm before and after clipping."""
        self._losses += losses
        self._samples += samples
        self._norms.append(norm)
        if clipped is not None:
            self._clipped.append(clipped)

    def row(self, progress: Progress, seconds: float, more: Mapping[str, float]) -> Row:
        """The row of this step, the same one if asked again; its means are over the steps since the row before.

        `more` is added as it is: the learning rates, counts.
        """
        if not self._rows or self._rows[-1]["step"] != progress.step:
            self._rows.append({"step": progress.step, "epoch": progress.epoch, "time": round(seconds, 3)})
        row = self._rows[-1]
        row["epoch"] = progress.epoch
        self.logged.belong_to(progress.step)
        if self._norms:
            row["train/loss"] = _mean(self._losses, self._samples)
            row["train/grad_norm"] = _mean(self._norms, [1] * len(self._norms))
            if self._clipped:
                row["train/grad_norm_clipped"] = _mean(self._clipped, [1] * len(self._clipped))
            self._losses, self._samples, self._norms, self._clipped = [], [], [], []
        row.update(more)
        return row

    def due(self, step: int) -> bool:
        """Whether it is time to hand the rows on, before the row of a new step is made."""
        if not self._rows or self._rows[-1]["step"] == step:
            return False
        return len(self._rows) >= ROWS_AT_ONCE or time.perf_counter() - self._since > SECONDS_AT_MOST

    def read(self) -> None:
        """Makes numbers of what is still on the device: one wait for it, however many rows there are."""
        rows = [*self._rows, *self.logged.by_step.values()]
        waiting = [(row, key) for row in rows for key, value in row.items() if isinstance(value, torch.Tensor)]
        if waiting:
            device = waiting[0][0][waiting[0][1]].device  # a user's value may be on another one
            read = torch.stack([row[key].float().to(device) for row, key in waiting]).tolist()
            for (row, key), value in zip(waiting, read, strict=True):
                row[key] = value

    def check(self, norms: bool = True) -> None:
        """Reads the rows that wait, and raises DivergedError where one of them is not finite."""
        self.read()
        check(self._rows, norms, self.last.get("step", 0))

    def take(self) -> list[Row]:
        """The rows to hand on, numbers only."""
        self.read()
        rows, self._rows, self._since = self._rows, [], time.perf_counter()
        self.last = rows[-1] if rows else self.last
        return rows

    def state_dict(self) -> State:
        return {
            "losses": [float(value) for value in self._losses],
            "samples": list(self._samples),
            "norms": [float(value) for value in self._norms],
            "clipped": [float(value) for value in self._clipped],
            "last": dict(self.last),
            "logged": self.logged.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        self._losses, self._samples, self._norms = state["losses"], state["samples"], state["norms"]
        self._clipped = state["clipped"]
        self.logged.load_state_dict(state.get("logged", {}))
        self._rows, self.last = [], state["last"]


def check(rows: Iterable[Row], norms: bool = True, since: int = 0) -> None:
    """Looks at the losses and gradient norms of rows; `since` is the step of the row before them.

    Raises:
        DivergedError: one is not finite; it says between which steps it became so.
    """
    for row in rows:
        for key in ("train/loss", "train/grad_norm") if norms else ("train/loss",):
            finite(key, row.get(key, 0.0), (since + 1, row["step"]))
        since = row["step"]


def check_window(state: State, step: int, norms: bool = True) -> None:
    """The same for the steps since the last row, up to `step`, which a History's state holds."""
    since = state["last"].get("step", 0)
    for kind, name in {"losses": "train/loss", **({"norms": "train/grad_norm"} if norms else {})}.items():
        for value in state[kind]:
            finite(name, value, (since + 1, step))


def _mean(values: list[Number], weights: list[int]) -> Number:
    if len(values) == 1:
        only = values[0]
        return float(only) if isinstance(only, float) or only.device.type == "cpu" else only
    device = next((value.device for value in values if isinstance(value, torch.Tensor)), torch.device("cpu"))
    if device.type == "cpu":  # reading is free here, and Python sums in float64
        return sum(float(v) * w for v, w in zip(values, weights, strict=True)) / sum(weights)
    stacked = torch.stack([torch.as_tensor(value, dtype=torch.float32, device=device) for value in values])
    return torch.dot(stacked, torch.tensor(weights, dtype=torch.float32, device=device)) / sum(weights)
