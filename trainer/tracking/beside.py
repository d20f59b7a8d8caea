"""What goes to wandb beside rows and pictures: histograms, pictures side by side, the code of the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainer.errors import brief
from trainer.folder import RunFolder
from trainer.records import Panel
from trainer.tracking.artifacts import allowed
from trainer.tracking.journal import by_step
from trainer.tracking.mailbox import Mailbox, Tail
from trainer.tracking.panels import side_by_side


def send_code(folder: RunFolder, run: Any) -> None:
    """The code that the hook `code` has kept, as an artifact of that kind; the same code is the same version."""
    try:
        run.log_code(str(folder.code), allowed(f"source-{run.project}"), include_fn=lambda path: True)
    except Exception as error:  # the rows are worth more
        Mailbox(folder).tell("warning", f"the code of the run was not sent ({brief(error)})")


class Beside:
    """Makes wandb's objects of what lies in a run folder.

    Args:
        wandb: the module. side_by_side: each picture with masks is also sent plain, for those who do not see masks.
    """

    def __init__(self, wandb: Any, folder: RunFolder, side_by_side: bool) -> None:
        self._wandb, self._folder, self._side_by_side = wandb, folder, side_by_side
        self._tail = Tail(folder.histograms)
        self._histograms: dict[int, dict[str, Any]] = {}  # by the step of the row that they go with
        self._coded = False

    def look(self, run: Any, after: int) -> None:
        """Reads what is new and comes after that step; asked after the journal was read, it has all of its rows."""
        self._histograms |= {step: found for step, found in by_step(self._tail.lines()).items() if step > after}
        if not self._coded and self._folder.code.is_dir():
            self._coded = True
            send_code(self._folder, run)

    def histograms(self, step: int) -> dict[str, Any]:
        found = self._histograms.pop(step, {})
        return {name: self._wandb.Histogram(np_histogram=(one["counts"], one["edges"])) for name, one in found.items()}

    def plain(self, panels: Sequence[Panel]) -> dict[str, list[Any]]:
        """Picture and masks of each panel as one picture without wandb's masks, under `<name>/plain`."""
        pictures: dict[str, list[Any]] = {}
        for panel in panels if self._side_by_side else ():
            if panel.masks:
                one = self._wandb.Image(side_by_side(panel), caption=panel.caption or panel.sample)
                pictures.setdefault(f"{panel.name}/plain", []).append(one)
        return pictures
