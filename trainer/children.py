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

SAVE = signal.SIGUSR1
"""At which a run saves and ends; unlike SIGHUP it does so below `nohup`, too."""

PRELOADED = ("trainer.run", "trainer.build", "trainer.tracking.shipper", "torch._dynamo", "PIL.PngImagePlugin")
LOST = -int(SAVE)
"""The exit code of a child that was told to save since the process that forks is gone."""

Task = tuple[Callable[..., Any], Sequence[Any], Mapping[str, str], Path | None]


class Children:
    """Runs functions in processes of their own, several at once.

    A child is in a process group of its own, so that a Ctrl-C in the terminal reaches it by `end` alone. If this
    process is gone, however, each child gets SIGUSR1, at which a run saves and ends.
    """

    def __init__(self) -> None:
        self._pids: dict[str, int] = {}  # 0 while it is being forked
        self._pipe: Connection | None = None
        self._nursery = 0
        self._number = 0  # the signal that ended all

    def close(self) -> None:
        """Ends the process that forks; children that are running save and end, which is waited for."""
        if self._pipe is None:
            return
        if not self._pids:  # it may be importing still
            os.kill(self._nursery, signal.SIGKILL)
        self._pipe.close()
        self._pipe = None
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._nursery, 0)

    def prepare(self) -> None:
        """Starts the process that forks; it imports while this one goes on. To be called before a GPU is touched."""
        if self._pipe is not None:
            return
        self._pipe, theirs = multiprocessing.Pipe()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or each child would write it, too
        self._nursery = os.fork()
        if self._nursery == 0:
            try:
                self._pipe.close()
                _Nursery(theirs).serve()
            finally:
                os._exit(0)
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
        with contextlib.suppress(OSError):  # the process that forks is gone, which `wait` tells
            self._pipe.send((key, (target, args, dict(env or {}), output)))

    def wait(self, seconds: float | None = None) -> dict[str, int]:
        """The exit codes of those that have ended since, -n of one that signal n has killed; waits for the first.

        All are `LOST` if the process that forks was killed; they may be saving still.

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
                    if self._number:  # that came while it was being forked
                        _send(number, self._number)
                else:
                    self._pids.pop(key, None)
                    ended[key] = number
        except (EOFError, ConnectionError):
            ended |= dict.fromkeys(self._pids, LOST)
            self._pids.clear()
            self.close()
        return ended

    def end(self, number: int) -> None:
        """Sends a signal to every child, also to one that is being forked."""
        self._number = number
        for pid in filter(None, list(self._pids.values())):
            _send(pid, number)


class _Nursery:
    """The process that forks: it serves requests until the one that sends them is gone."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.children: dict[int, tuple[str, multiprocessing.process.BaseProcess]] = {}  # by sentinel
        # Here they wait for ever; in a child from before its first line until it may be ended by them.
        signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)
        for number in NUMBERS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and background jobs stay deaf
                signal.signal(number, signal.SIG_DFL)

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
            _send(child.pid or 0, SAVE)
        for _, child in self.children.values():
            child.join()

    def _live(self, target: Callable[..., Any], args: Sequence[Any], env: Mapping[str, str], out: Path | None) -> None:
        """What a child does first, and then the task."""
        nursery = os.getppid()
        self.pipe.close()
        os.setpgid(0, 0)
        _end_with(nursery)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, NUMBERS)
        with contextlib.suppress(OSError):  # where memory runs out, a job is killed rather than the sweep
            Path("/proc/self/oom_score_adj").write_text("500")
        if out is not None:
            file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            for number in {1, 2, sys.stdout.fileno(), sys.stderr.fileno()}:
                os.dup2(file, number)
            os.close(file)
        os.environ.update(env)
        target(*args)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _end_with(parent: int) -> None:
    """Has Linux send `SAVE` to this process when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, SAVE)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os.kill(os.getpid(), SAVE)
