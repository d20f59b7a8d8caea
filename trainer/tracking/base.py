"""What a tracker is told. Trackers see plain numbers and panels, never a tensor, and cannot steer the training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer.folder import RunFolder
from trainer.records import Histogram, Outcome, Panel, Row


@dataclass(frozen=True)
class Plan:
    """What is known before the first step.

    Attributes:
        folder: where the run lies, or None for a run that keeps nothing.
        lines: what is shown before training, label to text (`data`, `model`, `device`, ...).
        steps: the optimizer updates of the whole run; steps_per_epoch: of one epoch.
        start: the step that training starts from: 0, or where it is resumed.
        monitor: the metric that decides what is best; mode: `min` or `max`.
        config: the composed config as plain nested values, without secrets.
    """

    folder: RunFolder | None
    steps: int
    steps_per_epoch: int
    epochs: int
    start: int = 0
    monitor: str = ""
    mode: str = "min"
    lines: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


class Tracker:
    """The base of every tracker; each method does nothing until it is overridden."""

    stopped = False
    """Whether somebody asked through this tracker that the run ends: the Stop button of a website."""

    def start(self, plan: Plan) -> None:
        """Training is about to begin (or to go on from `plan.start`)."""

    def panels(self, step: int, panels: Sequence[Panel]) -> None:
        """All pictures of a step: what an evaluation shows, and hooks; comes before the row of the same step."""

    def histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        """What hooks have logged of that kind, by name; comes before the row of the same step."""

    def rows(self, rows: Sequence[Row]) -> None:
        """Rows in the order of their steps, numbers only; several come at once, so that the loop seldom waits."""

    def speed(self, step: int, values: Mapping[str, float]) -> None:
        """How fast the steps up to this one were, and what they waited for; comes before the row of the step.

        It is no part of the history, which is the same however fast a run was.
        """

    def evaluated(self, row: Row, improved: bool) -> None:
        """An evaluation is complete; `row` is also among the rows handed over before."""

    def saved(self) -> None:
        """A checkpoint is about to be written: what was handed over must be on disk."""

    def finish(self, outcome: Outcome) -> None:
        """The run is over, however it ended. Called once."""


class Trackers(Tracker):
    """Several trackers told in turn."""

    def __init__(self, trackers: Iterable[Tracker] = ()) -> None:
        self.trackers = list(trackers)

    @property
    def stopped(self) -> bool:  # type: ignore[override]
        return any([tracker.stopped for tracker in self.trackers])  # a list: asked after each update, and twice as fast

    def parts(self) -> dict[str, Any]:
        """The trackers that have a state of their own, by name (`journal`)."""
        return {type(t).__name__.lower(): t for t in self.trackers if hasattr(t, "load_state_dict")}

    def start(self, plan: Plan) -> None:
        for tracker in self.trackers:
            tracker.start(plan)

    def panels(self, step: int, panels: Sequence[Panel]) -> None:
        for tracker in self.trackers:
            tracker.panels(step, panels)

    def histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        for tracker in self.trackers:
            tracker.histograms(step, histograms)

    def rows(self, rows: Sequence[Row]) -> None:
        for tracker in self.trackers:
            tracker.rows(rows)

    def speed(self, step: int, values: Mapping[str, float]) -> None:
        for tracker in self.trackers:
            tracker.speed(step, values)

    def evaluated(self, row: Row, improved: bool) -> None:
        for tracker in self.trackers:
            tracker.evaluated(row, improved)

    def saved(self) -> None:
        for tracker in self.trackers:
            tracker.saved()

    def finish(self, outcome: Outcome) -> None:
        """Tells every tracker, whatever one of them raises; the first error is raised after that."""
        errors = []
        for tracker in self.trackers:
            try:
                tracker.finish(outcome)
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
