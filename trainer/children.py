"""The jobs of a sweep, each in a process of its own, forked off one that has imported torch and done nothing else.

So the imports are paid for once; a job that crashes, leaves with `sys.exit` or takes all memory takes no other with it;
and what it held of a GPU is free after it. The process that forks never touches a GPU, which a fork could not share.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from trainer.signals import NUMBERS

PRELOADED = ("trainer.run", "trainer.build", "trainer.tracking.shipper", "torch._dynamo", "PIL.PngImagePlugin")
KILLED = -int(signal.SIGKILL)

Task = tuple[Callable[..., Any], Sequence[Any], Mapping[str, str], Path | None]


class Children:
    """Runs functions in processes of their own, several at once.

    A child is in a process group of its own, so that a Ctrl-C in the terminal reaches it by `end` alone. If this
    process is gone, however, each child gets SIGHUP, at which a run saves and ends.
    """

    def __init__(self) -> None:
        self._pids: dict[str, int] = {}
        self._pipe: Connection | None = None

    def close(self) -> None:
        """Ends the process that forks; children that are running get SIGHUP."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def prepare(self) -> None:
        """Starts the process that forks; it imports while this one goes on. To be called before a GPU is touched."""
        if self._pipe is not None:
            return
        self._pipe, theirs = multiprocessing.Pipe()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or each child would write it, too
        if os.fork() == 0:
            code = 1
            try:
                self._pipe.close()
                _Nursery(theirs).serve()
                code = 0
            finally:
                os._exit(code)
        theirs.close()

    def start(self, key: str, target: Callable[..., Any], *args: Any,
              env: Mapping[str, str] | None = None, output: Path | None = None) -> None:  # fmt: skip
        """Calls the function in a child.

        Args:
            key: what `wait` calls it. env: changes of the environment.
            output: a file for what it writes to the terminal, added to its end; None leaves it the terminal.
        """
        self.prepare()
        assert self._pipe is not None
        self._pids[key] = 0
        self._pipe.send((key, (target, args, dict(env or {}), output)))

    def wait(self, seconds: float | None = None) -> dict[str, int]:
        """The exit codes of those that have ended since, -n of one that signal n has killed; waits for the first.

        Args:
            seconds: how long at most; None has no limit.
        """
        if self._pipe is None or not self._pids:
            return {}
        ended: dict[str, int] = {}
        try:
            while self._pids and (self._pipe.poll(0 if ended else seconds)):
                key, kind, number = self._pipe.recv()
                if kind == "started":
                    self._pids[key] = number
                else:
                    self._pids.pop(key, None)
                    ended[key] = number
        except (EOFError, ConnectionError):  # the process that forks was killed, and each child got SIGHUP
            ended |= dict.fromkeys(self._pids, KILLED)
            self._pids.clear()
            self.close()
        return ended

    def end(self, number: int) -> None:
        """Sends a signal to every child."""
        for pid in filter(None, self._pids.values()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


class _Nursery:
    """The process that forks: it serves requests until the one that sends them is gone."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.children: dict[int, tuple[str, multiprocessing.process.BaseProcess]] = {}  # by sentinel
        # A child gets signals from the sweep alone; those that were ignored before stay so in it.
        self.before = {number: signal.signal(number, signal.SIG_IGN) for number in NUMBERS}

    def serve(self) -> None:
        for module in PRELOADED:
            importlib.import_module(module)
        while True:
            for ready in wait([self.pipe, *self.children]):
                if isinstance(ready, int):
                    key, child = self.children.pop(ready)
                    child.join()
                    self._tell(key, "ended", child.exitcode or 0)
                    continue
                try:
                    key, task = self.pipe.recv()
                except (EOFError, ConnectionError):
                    return self._leave()
                self._fork(key, task)

    def _fork(self, key: str, task: Task) -> None:
        child = multiprocessing.get_context("fork").Process(target=self._live, args=task)
        child.start()
        self.children[child.sentinel] = (key, child)
        self._tell(key, "started", child.pid or 0)

    def _tell(self, *message: str | int) -> None:
        with contextlib.suppress(OSError):
            self.pipe.send(message)

    def _leave(self) -> None:
        """The sweep is gone: its jobs save and end."""
        for _, child in self.children.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid or 0, signal.SIGHUP)
        for _, child in self.children.values():
            child.join()

    def _live(self, target: Callable[..., Any], args: Sequence[Any], env: Mapping[str, str], out: Path | None) -> None:
        """What a child does first, and then the task."""
        nursery = os.getppid()
        self.pipe.close()
        os.setpgid(0, 0)
        for number, handler in self.before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        _end_with(nursery)
        with contextlib.suppress(OSError):  # where memory runs out, a job is killed rather than the sweep
            Path("/proc/self/oom_score_adj").write_text("500")
        if out is not None:
            file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            for stream in (sys.stdout, sys.stderr):
                os.dup2(file, stream.fileno())
            os.close(file)
        os.environ.update(env)
        target(*args)


def _end_with(parent: int) -> None:
    """Has Linux send SIGHUP to this process when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGHUP)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGHUP)
