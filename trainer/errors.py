"""What can go wrong, as a tree; each error knows the exit code of the program that it ends.

    TrainerError            1   the run failed
    |-- ConfigError         2   the config or the command line is wrong; nothing was started
    |   `-- BusyError       2   another process trains in that folder
    |-- DataError           2   the data is wrong; nothing was started
    |-- WorkerError         1   a loader process died
    |-- OutOfMemoryError    1   the memory was not enough
    |-- DivergedError       4   a loss or a gradient is not finite
    |-- CheckpointError     5   no checkpoint can be read, or it does not fit this run
    `-- SaveError           6   the last checkpoint could not be written

A message says where (key or file), what is there, what may be there, and what to type.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class TrainerError(Exception):
    """The base of every error that is meant for the user: shown as its text, without a traceback."""

    exit_code = 1


class ConfigError(TrainerError):
    """One or more mistakes in a config, all told at once."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class BusyError(ConfigError):
    """A living process trains in the folder."""


class DataError(TrainerError):
    """One or more mistakes in the data: a missing pair, an unreadable file, a label out of range."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class WorkerError(TrainerError):
    """A loader process died: out of memory, or killed."""


class DivergedError(TrainerError):
    """The loss or the gradient norm became NaN or infinite.

    Args:
        text: what became what. steps: the first and the last update that it may have been, where that is not the
            update in the making.
    """

    exit_code = 4

    def __init__(self, text: str, steps: tuple[int, int] | None = None) -> None:
        super().__init__(text)
        self.steps = steps

    def locate(self, step: int, epoch: int, checkpoint: object | None, folder: object | None) -> None:
        """Adds where it happened, what is still good, and what to type.

        Args:
            step, epoch: the update in the making. checkpoint: the newest one. folder: of the run.
        """
        first, last = self.steps or (step, step)
        where = f"at step {first} (epoch {epoch})" if first == last else f"between steps {first} and {last}"
        good = f"the last good checkpoint is {checkpoint}" if checkpoint else "no checkpoint was saved before"
        lines = [f"{self} {where}; {good}."]
        if folder:
            lines.append(f"trainer-replay {folder} shows where in the model it came from.")
        lines.append(
            "Lower optimizer.lr, set clip=norm, look at the data, or leave such updates out with skip_nonfinite=5."
        )
        self.args = ("\n".join(lines),)


class OutOfMemoryError(TrainerError):
    """The memory of the device, or of the machine, was not enough.

    Args:
        why: what was said of it. batch_size, accumulate: of the run. micro_batch: the samples that were computed at
            once; all of a batch without. least: the fewest that the model can be trained on.

    Attributes:
        half: a micro-batch that needs half of the memory; None where there is none.
    """

    def __init__(
        self, why: str, batch_size: int, accumulate: int | str, micro_batch: int | None = None, least: int = 1
    ) -> None:
        self.micro_batch, half = micro_batch or batch_size, -(-(micro_batch or batch_size) // 2)
        self.half = half if least <= half < self.micro_batch else None
        twice = 2 * accumulate if isinstance(accumulate, int) else accumulate
        at_once = "" if self.micro_batch == batch_size else f" with micro-batches of {self.micro_batch}"
        lines = [f"out of memory{at_once} ({why})." if why else f"out of memory{at_once}."]
        if self.micro_batch == batch_size > 1:
            lines.append(
                f"batch_size={batch_size // 2} accumulate={twice} is about the same effective batch in half of the "
                "memory (going on: resume_changes=allow)."
            )
            if self.half:
                lines.append("auto_accumulate=true does that by itself, also in a run that goes on.")
        lines.append("Or use a smaller model, smaller pictures, or precision=bfloat16.")
        super().__init__("\n".join(lines))


class CheckpointError(TrainerError):
    """A checkpoint is missing, damaged, or belongs to another run."""

    exit_code = 5


class SaveError(TrainerError):
    """The last checkpoint of a run could not be written (disk full, folder gone)."""

    exit_code = 6


def brief(error: BaseException) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def closest(word: str, options: Iterable[str]) -> str | None:
    """The option most like `word`, or None where nothing is near."""
    names = list(options)
    lower = {name.lower(): name for name in reversed(names)}
    found = difflib.get_close_matches(word.lower(), list(lower), n=1, cutoff=0.6)
    return lower[found[0]] if found else None


def did_you_mean(word: str, options: Iterable[str], most: int = 12) -> str:
    """The end of an error message: the word that was probably meant, else what is allowed."""
    names = list(options)
    near = closest(word, names)
    if near is not None:
        return f"did you mean {near}?"
    shown = ", ".join(names[:most]) + (", ..." if len(names) > most else "")
    return f"known: {shown}" if names else "nothing is known here"
