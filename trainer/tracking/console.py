"""What a person reads while a run trains: the terminal with its progress bar, and train.log."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from tqdm import tqdm

from trainer.durations import count
from trainer.records import Outcome, Row
from trainer.tracking.base import Plan, Tracker

WIDTH = 122  # an evaluation's line is at most this long
_REFRESH = 0.25  # seconds between two changes of the bar, at least

log = logging.getLogger("trainer")


def _width() -> int:
    """How long a line may be: as the terminal is wide, where there is one."""
    return min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns) if sys.stdout.isatty() else WIDTH


class HeldBack(logging.Handler):
    """Keeps what is logged from when it is entered until a `Console` stands, or until it is left."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def __enter__(self) -> HeldBack:
        log.addHandler(self)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.stop()
        self.tell()

    def stop(self) -> None:
        """Keeps nothing more of what is logged."""
        log.removeHandler(self)

    def tell(self) -> None:
        """Logs what was kept again, for whoever listens now."""
        records, self.records = self.records, []
        for record in records:
            log.handle(record)


class Console(Tracker):
    """A line for each evaluation and for what `logging.getLogger("trainer")` is told, to the terminal and train.log.

    On a terminal a bar shows the steps of the whole run. A terminal that goes away is let go; training goes on.

    Args:
        stream: where to write; standard output without.
        quiet: nothing but warnings is shown; train.log gets everything all the same.
        early: what was logged before the start, to be shown after the plan.
    """

    def __init__(self, stream: TextIO | None = None, quiet: bool = False, early: HeldBack | None = None) -> None:
        self.quiet, self.early = quiet, early or HeldBack()
        self._screen = _Screen(stream)
        self._handlers: list[logging.Handler] = []
        self._before = (True, logging.NOTSET)
        self._line = _Line()
        self._where, self._monitor = "", ""

    def start(self, plan: Plan) -> None:
        self.early.stop()
        self._attach(plan)
        self._line = _Line(plan)
        self._where, self._monitor = str(plan.folder or ""), plan.monitor
        wide = max(map(len, plan.lines), default=0)
        for label, text in plan.lines.items():
            log.info("%s", f"{label:<{wide}}  {text}")
        self.early.tell()
        log.info("")
        if not self.quiet:
            self._screen.open_bar(plan.steps, plan.start)

    def rows(self, rows: Sequence[Row]) -> None:
        if rows:
            self._screen.move_bar(rows[-1])

    def evaluated(self, row: Row, improved: bool) -> None:
        log.info("%s", self._line.text(row, improved))

    def finish(self, outcome: Outcome) -> None:
        self._screen.close_bar()
        reason = (outcome.reason.splitlines() or [""])[0]  # the program shows all of an error
        lines: dict[str, str] = {outcome.state: reason.removeprefix("interrupted ")}
        if outcome.best:
            names = _metrics(outcome.best, self._monitor)
            found = "  ".join(f"{name} {number(outcome.best[name])}" for name in names)
            lines["best"] = f"{found}  at epoch {outcome.best.get('epoch')}, step {outcome.best.get('step')}"
        lines["time"] = (
            f"{duration(outcome.seconds)} for {count(outcome.step, 'step')}, {count(outcome.epoch, 'epoch')}"
        )
        lines |= {"folder": self._where} if self._where else {}
        log.info("")
        for label, text in lines.items():
            log.info("%s", f"{label:<{max(map(len, lines))}}  {text}")
        self._detach()

    def _attach(self, plan: Plan) -> None:
        shown = _ScreenHandler(self._screen)
        shown.setLevel(logging.WARNING if self.quiet else logging.INFO)
        self._handlers = [shown]
        if plan.folder is not None:
            try:
                kept = _FileHandler(plan.folder.log, encoding="utf-8")
            except OSError as error:
                self._screen.write(f"warning: {plan.folder.log}: {error.strerror}; there will be no log file")
            else:
                kept.setFormatter(logging.Formatter("%(asctime)s  %(levelname)-7s  %(message)s", "%Y-%m-%d %H:%M:%S"))
                kept.addFilter(lambda record: bool(record.getMessage()))
                self._handlers.append(kept)
        self._before = (log.propagate, log.level)
        log.setLevel(logging.INFO)
        log.propagate = False  # what the application does with its root logger must not show every line twice
        for handler in self._handlers:
            log.addHandler(handler)

    def _detach(self) -> None:
        for handler in self._handlers:
            log.removeHandler(handler)
            handler.close()
        if self._handlers:
            log.propagate, level = self._before
            log.setLevel(level)
        self._handlers = []


class _Line:
    """An evaluation in one line; its columns are settled by the first one, so that the lines stand in line."""

    def __init__(self, plan: Plan | None = None) -> None:
        self.plan = plan
        self._names: list[str] = []

    def text(self, row: Row, improved: bool) -> str:
        epochs, steps = (self.plan.epochs, self.plan.steps) if self.plan else (row["epoch"], row["step"])
        head = f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  step {row['step']:>{len(str(steps))}}"
        tail = f"  {duration(row.get('time', math.nan)):>8}"
        if not self._names:
            room = _width() - len(head) - len(tail) - len("  * best") - len(self._rate(row))
            for name in self._columns(row):
                room -= len(name) + 9
                self._names += [name] if room >= 0 or not self._names else []
        middle = "".join(f"  {name} {number(row.get(name)):<6}" for name in self._names)
        return f"{head}{middle}{self._rate(row)}{tail}{'  * best' if improved else ''}"

    def _columns(self, row: Row) -> list[str]:
        monitor = self.plan.monitor if self.plan else ""
        first = [monitor] if monitor in row else []
        return list(dict.fromkeys([*(["train/loss"] if "train/loss" in row else []), *first, *_metrics(row, monitor)]))

    @staticmethod
    def _rate(row: Row) -> str:
        rate = next((value for name, value in row.items() if name == "lr" or name.startswith("lr/")), None)
        return "" if rate is None else f"  lr {rate:.1e}"


def _metrics(row: Row, monitor: str) -> list[str]:
    """The monitored metric and the other main ones of the validation: not those of single classes."""
    main = [name for name in row if name.startswith("val/") and name.count("/") == 1]
    return ([monitor] if monitor in row else []) + [name for name in main if name != monitor]


def number(value: Any) -> str:
    """A number in at most 7 characters: four digits, or a power of ten."""
    if value is None or not math.isfinite(value):
        return "-" if value is None else str(float(value))
    if value == 0 or 1e-3 <= abs(value) < 9999.5:
        return f"{value:.4g}" if isinstance(value, int) else f"{value:.{max(0, 4 - _digits(value))}f}"
    return f"{value:.1e}"


def _digits(value: float) -> int:
    return max(0, math.floor(math.log10(abs(value))) + 1) if value else 0


def duration(seconds: float) -> str:
    """`12.3 s`, `12:34` or `1:02:03`."""
    if not seconds >= 100:
        return "-" if math.isnan(seconds) else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


class _Screen:
    """A stream and the bar at its bottom. Once the stream is gone, what it should show is dropped in silence."""

    def __init__(self, stream: TextIO | None) -> None:
        self._given = stream
        self._bar: _Bar | None = None
        self._lost = False

    @property
    def stream(self) -> TextIO | None:
        """Asked for at each use, since a notebook or a test may exchange it."""
        return None if self._lost else self._given or sys.stdout

    def write(self, text: str) -> None:
        if (stream := self.stream) is None:
            return
        with self._guarded(stream):
            if self._bar is None:
                stream.write(text + "\n")
                stream.flush()
            else:
                self._bar.write(text, file=stream)

    def open_bar(self, steps: int, start: int) -> None:
        if (stream := self.stream) is None:
            return
        with self._guarded(stream):
            if stream.isatty():
                self._bar = _Bar(total=steps, initial=start, file=stream, leave=False, dynamic_ncols=True)
                self._bar.mininterval = _REFRESH

    def move_bar(self, row: Row) -> None:
        stream, bar = self.stream, self._bar
        if stream is None or bar is None:
            return
        with self._guarded(stream):
            shown = {"loss": row.get("train/loss"), "lr": row.get("lr")}
            bar.set_postfix_str("  ".join(f"{k} {number(v)}" for k, v in shown.items() if v is not None), refresh=False)
            bar.update(row["step"] - bar.n)

    def close_bar(self) -> None:
        stream, bar, self._bar = self.stream, self._bar, None
        if stream is not None and bar is not None:
            with self._guarded(stream):
                bar.close()

    @contextlib.contextmanager
    def _guarded(self, stream: TextIO) -> Iterator[None]:
        """The reader of a pipe may be gone, the terminal closed: then training goes on without it."""
        try:
            yield
        except UnicodeError:
            raise  # one character that the terminal does not know is no reason to fall silent
        except (OSError, ValueError):
            self._lost = True
            if self._bar is not None:
                self._bar.disable = True
            if stream is sys.stdout:
                with contextlib.suppress(OSError, ValueError):  # else Python's own flush at exit fails: exit code 120
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Bar(tqdm):  # type: ignore[type-arg]
    monitor_interval = 0  # no thread of its own


class _ScreenHandler(logging.Handler):
    def __init__(self, screen: _Screen) -> None:
        super().__init__()
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        label = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        self._screen.write(label + text)


class _FileHandler(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A full disk must not fill the terminal with tracebacks."""

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what still waited to be written
            super().close()
