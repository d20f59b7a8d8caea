"""The curve of a run before it is trained: the real schedule steps the stand-in of its optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch.optim import Optimizer

from trainer.errors import ConfigError
from trainer.optim.freezing import distinct, thaws
from trainer.schedules.base import Schedule, StandIn, Unit


@dataclass
class Curves:
    """What a whole run will do, for each name of a parameter group and each update.

    Attributes:
        lrs: the learning rates, 0 where a group is frozen.
        momenta: the momenta where the schedule moves them, else empty.
        unit: when it moves. end: the step after which the schedule has come to its end; None if it has none.
        steps_per_epoch: of the run. names: of the groups, where there are several.
        follows_metric: whether what the evaluations find will change it.
    """

    lrs: list[list[float]]
    momenta: list[list[float]] = field(default_factory=list)
    unit: Unit = "step"
    end: int | None = None
    steps_per_epoch: int = 1
    names: list[str] = field(default_factory=list)
    follows_metric: bool = False

    @property
    def steps(self) -> int:
        return len(self.lrs[0])

    @property
    def warning(self) -> str | None:
        """What is allowed and hardly meant: the run is over before its schedule."""
        if self.end is None or self.end <= self.steps:
            return None
        return (
            f"does not finish: its end would be at step {self.end}, and the run has {self.steps} "
            f"(the last learning rate is {self.lrs[0][-1]:.2g})"
        )


def simulate(make: Callable[[Optimizer], Schedule], optimizer: Optimizer, steps: int, steps_per_epoch: int) -> Curves:
    """The learning rates and momenta of a whole run; the optimizer itself is not touched.

    What a metric would bring is not known: a schedule that follows one is shown as if it never acted.

    Args:
        make: builds the schedule for an optimizer. optimizer: that of the run, before it has a schedule.
        steps, steps_per_epoch: the length of the run.

    Raises:
        ConfigError: the schedule cannot go on to the end of the run.
    """
    stand_in = StandIn(optimizer)
    schedule = make(stand_in)
    schedule.thaws = thaws(stand_in, steps_per_epoch, steps)
    names = distinct(stand_in.param_groups)
    lrs: list[list[float]] = [[] for _ in names]
    momenta: list[list[float]] = [[] for _ in names if schedule.moves_momentum]
    for done in range(steps):
        if wrong := [rate for rate in schedule.acting_lrs if not 0 <= rate < math.inf]:
            raise ConfigError(
                f"scheduler: the learning rate becomes {wrong[0]:.3g} at step {done + 1} of {steps}; "
                "it must stay a number of 0 or more"
            )
        for lines, values in ((lrs, schedule.acting_lrs), (momenta, schedule.momenta)):
            for line, n in zip(lines, names.values(), strict=False):
                line.append(values[n])
        try:
            schedule.on_step()
            if (done + 1) % steps_per_epoch == 0:
                schedule.on_epoch()
        except Exception as error:
            raise ConfigError(
                f"scheduler: ends before the run, after {done} of its {steps} steps, and cannot go on ({error}); leave "
                "its length out, which makes it as long as the run, or type one that is"
            ) from error
    each = {"step": 1, "epoch": steps_per_epoch, "value": 0}[schedule.unit]
    before = schedule.warmup_steps if schedule.unit == "step" else 0
    end = before + schedule.horizon * each if schedule.horizon and each else None
    shown = list(names) if len(names) > 1 else []
    return Curves(lrs, momenta, schedule.unit, end, steps_per_epoch, shown, schedule.follows_metric)
