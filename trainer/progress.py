"""How far a run is. Every number counts what is completed; counters move before anything else at a boundary."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from trainer.state import State


@dataclass
class Progress:
    """The counters of a run.

    Attributes:
        epoch: epochs completed.
        batch: micro-batches completed in the epoch that is running.
        step: optimizer updates completed.
        samples: samples trained on, over all epochs.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    samples: int = 0

    def advance(self, batches: int, samples: int) -> None:
        """One optimizer update is completed, made from that many micro-batches and samples."""
        self.batch += batches
        self.step += 1
        self.samples += samples

    def finish_epoch(self) -> None:
        self.epoch += 1
        self.batch = 0

    def state_dict(self) -> State:
        return asdict(self)

    def load_state_dict(self, state: State) -> None:
        for field in fields(self):
            setattr(self, field.name, int(state[field.name]))
