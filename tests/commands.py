"""The commands in real processes, each forked off one that has imported torch already: a tenth of the time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FORKS: Any = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["__main__", "trainer.cli", "trainer.overrides", "trainer.run", "trainer.build",
                               "torch._dynamo", "hydra.main", "PIL.PngImagePlugin"])  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (-n: by signal n), and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> str:
        """Everything on the terminal; never the inside of the program."""
        assert "Traceback" not in self.out + self.err, self.out + self.err
        return self.out + self.err


class Command:
    """A function of `trainer.cli`, or another one, with those words in a process and a process group of its own.

    Args:
        cwd: the working folder. env: changes of the environment. first: what happens before all.
    """

    def __init__(
        self,
        program: str | Callable[[], Any],
        *words: str,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        first: Callable[[], Any] | None = None,
    ) -> None:
        self.cwd = cwd
        start = multiprocessing.get_start_method()  # of loader workers; a forked process would inherit "forkserver"
        full = {**os.environ, **(env or {})}
        self.process = _FORKS.Process(target=_run, args=(program, words, cwd, full, first, start))
        self.process.start()

    def wait(self, seconds: float = 60) -> Ended:
        """How it ended, which it must within that time."""
        self.process.join(seconds)
        code = self.process.exitcode
        if code is None:
            self.kill_group()
            self.process.join()
        files = [self.cwd / f".{self.process.pid}.{name}" for name in ("out", "err")]
        out, err = (file.read_text() if file.exists() else "" for file in files)
        for file in files:
            file.unlink(missing_ok=True)
        assert code is not None, f"it did not end: {out}{err}"
        return Ended(code, out, err)

    def kill_group(self) -> None:
        """Kills it and all that it has started; it alone where it has not come to making its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()  # does nothing to a process that has ended


def _run(
    program: str | Callable[[], Any],
    words: tuple[str, ...],
    cwd: Path,
    env: dict[str, str],
    first: Callable[[], Any] | None,
    start: str,
) -> None:
    multiprocessing.set_start_method(start, force=True)
    os.setpgid(0, 0)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["-c", *words]
    for stream, end in ((sys.stdout, "out"), (sys.stderr, "err")):
        os.dup2(os.open(f".{os.getpid()}.{end}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream.fileno())
        stream.reconfigure(encoding=env.get("PYTHONIOENCODING", "utf-8"))  # type: ignore[union-attr]
    if first is not None:
        first()
    from trainer import cli

    sys.exit((getattr(cli, program) if isinstance(program, str) else program)())


def command(name: str, *words: str, cwd: Path, env: Mapping[str, str] | None = None) -> Ended:
    """Types a command of the program, and waits for its end."""
    return Command(name, *words, cwd=cwd, env=env).wait()
