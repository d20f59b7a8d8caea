"""A layer between a child process and its disk: it counts file operations, and kills the process or fails one of them.

Each system call that changes files traps into the layer (a seccomp filter, so Linux on x86-64 only): what C++ writes
counts like what Python writes. The layer makes the same call with a mark that the filter lets pass.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
import pickle
import platform
import signal
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from errno import EIO, ENOSPC
from pathlib import Path
from typing import Any

# The kind of each call and where its paths are: (argument that is a folder's descriptor, argument that is a name). With
# no folder the name is relative to the working directory; with no name the descriptor is the file itself.
_CALLS: dict[int, tuple[Any, ...]] = {
    1: ("write", (0, None)), 18: ("write", (0, None)), 20: ("write", (0, None)), 40: ("write", (0, None)),
    296: ("write", (0, None)), 328: ("write", (0, None)), 285: ("allocate", (0, None)),
    2: ("open", (None, 0)), 85: ("open", (None, 0)), 257: ("open", (0, 1)),
    74: ("fsync", (0, None)), 75: ("fsync", (0, None)),
    76: ("truncate", (None, 0)), 77: ("truncate", (0, None)),
    82: ("rename", (None, 0), (None, 1)), 264: ("rename", (0, 1), (2, 3)), 316: ("rename", (0, 1), (2, 3)),
    86: ("link", (None, 0), (None, 1)), 265: ("link", (0, 1), (2, 3)),
    88: ("symlink", (None, 1)), 266: ("symlink", (1, 2)),
    83: ("mkdir", (None, 0)), 258: ("mkdir", (0, 1)),
    84: ("rmdir", (None, 0)), 87: ("unlink", (None, 0)), 263: ("unlink", (0, 1)),
}  # fmt: skip
_LENGTHS = {1: 2, 18: 2, 20: 2, 40: 3, 296: 2, 328: 2}  # of a write: the argument that says how much
_ROOM = ("write", "open", "fsync", "mkdir", "rename", "link", "symlink", "allocate")  # may find the disk full
_MARK, _ARCH, _AT_REMOVEDIR = 0x5EEDF11E, 0xC000003E, 0x200
_ARGUMENTS, _RESULT, _REGISTERS = (8, 9, 12, 2, 0, 1), 13, 40  # in the frame of a signal: numbers, and the offset

BEFORE, AFTER, TORN = "killed before", "killed after", "killed in the middle of a write"
SHORT, FULL_ONCE, FULL = "half of a write", "ENOSPC once", "ENOSPC from then on"
BROKEN_ONCE, BROKEN = "EIO once", "EIO from then on"
KILLS, ERRORS = (BEFORE, AFTER, TORN), (SHORT, FULL_ONCE, FULL, BROKEN_ONCE, BROKEN)

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype, _syscall.argtypes = ctypes.c_long, [ctypes.c_long] * 7
_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


@dataclass(frozen=True)
class Operation:
    """What was done to which paths (below the root); `detail`: flags of an open, new size, content that was synced."""

    kind: str
    paths: tuple[str, ...]
    detail: Any
    done: bool


@dataclass(frozen=True)
class Job:
    """Something to do, while operations below `root` are counted from 1 on and the fault strikes at one of them."""

    action: Callable[[], Any]
    root: Path
    fault: str | None = None
    at: int = 0


@dataclass(frozen=True)
class Ended:
    """How a job ended: 1 if it raised, -9 if it was killed; else 0, its answer, and what it did to files."""

    code: int
    answer: Any = None
    operations: tuple[Operation, ...] = ()


def in_child(*jobs: Job, limit: int = 120) -> list[Ended]:
    """Forks, and does the jobs there, one after the other, until one is killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(limit)  # a child that hangs is a failure, not a test that never ends
            layer = _Layer()
            layer.install()
            told = pickle.dumps([layer.do(job) for job in jobs])
            with open(writer, "wb") as stream:
                stream.write(told)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader, "rb") as stream:
        told = stream.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return list(pickle.loads(told)) if code == 0 else [Ended(code)]


@functools.cache
def unavailable() -> str:
    """Why there can be no layer here; empty if there can."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or sys.maxsize < 1 << 32:
        return "file operations are trapped on Linux on x86-64 only"
    with tempfile.TemporaryDirectory() as folder:
        [tried] = in_child(Job(lambda: Path(folder, "tried").write_bytes(b"x"), Path(folder)))
    seen = [operation.kind for operation in tried.operations]
    return "" if seen == ["open", "write"] else f"this system does not let file operations be trapped ({tried})"


class _Layer:
    """Once installed it stays for the life of this process."""

    def __init__(self) -> None:
        self.root, self.fault, self.at = "", None, 0  # no root: nothing counts
        self.operations: list[Operation] = []
        self._numbers = itertools.count(1)
        self._handler = _Handler(self._trapped)  # must live as long as the process

    def do(self, job: Job) -> Ended:
        self.operations, self._numbers = [], itertools.count(1)
        self.root, self.fault, self.at = os.path.realpath(job.root), job.fault, job.at
        try:
            return Ended(0, job.action(), tuple(self.operations))
        except Exception:
            traceback.print_exc()
            return Ended(1)
        finally:
            self.root = ""

    def install(self) -> None:
        action = struct.pack("QQ120xIxxxxQ", ctypes.cast(self._handler, ctypes.c_void_p).value, 0, 0x40000004, 0)
        steps = ctypes.create_string_buffer(program := _program(), len(program))
        filter = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(steps)))
        _libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
        if (
            _libc.sigaction(signal.SIGSYS, action, None)  # SA_SIGINFO, SA_NODEFER
            or _libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
            or _libc.prctl(22, 2, ctypes.addressof(filter), 0, 0)  # PR_SET_SECCOMP
        ):
            raise OSError(ctypes.get_errno(), "no layer")

    def _trapped(self, _: int, __: int, frame: int) -> None:
        """Answers one trapped call; the thread that made it stands still meanwhile."""
        try:
            registers = (ctypes.c_int64 * 17).from_address(frame + _REGISTERS)
            number = registers[_RESULT]
            registers[_RESULT] = self._answer(number, [registers[index] for index in _ARGUMENTS])
        except BaseException:
            traceback.print_exc()
            os._exit(99)

    def _answer(self, call: int, arguments: list[int]) -> int:
        kind, *places = _CALLS[call]
        paths = tuple(_path(arguments, *place) for place in places)
        flags = arguments[places[0][1] + 1] if kind == "open" and call != 85 else os.O_CREAT
        ours = self.root and any(path == self.root or path.startswith(self.root + "/") for path in paths)
        if not ours or (kind == "open" and not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)):
            return _make(call, arguments)
        if call == 263 and arguments[2] & _AT_REMOVEDIR:
            kind = "rmdir"
        if (result := self._strike(kind, call, arguments, next(self._numbers))) is not None:
            return result
        result = _make(call, arguments)
        detail = _content(paths[0]) if kind == "fsync" else {"open": flags, "truncate": arguments[1]}.get(kind)
        names = tuple(os.path.relpath(path, self.root) for path in paths)
        self.operations.append(Operation(kind, names, detail, result >= 0))
        return result

    def _strike(self, kind: str, call: int, arguments: list[int], number: int) -> int | None:
        """What the n-th operation answers if it does not simply happen."""
        if self.fault in KILLS and number == self.at:
            if self.fault == TORN:
                _make(call, _half(call, arguments))
            elif self.fault == AFTER:
                _make(call, arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault in ERRORS and (number == self.at or (number > self.at and self.fault in (FULL, BROKEN))):
            if self.fault in (BROKEN_ONCE, BROKEN):
                return -EIO
            if self.fault == SHORT or (number == self.at and self.fault == FULL and kind == "write"):
                return _make(call, _half(call, arguments))  # and the caller is told how much
            return -ENOSPC if kind in _ROOM else None
        return None


def _program() -> bytes:
    """The filter: (code, jump if true, jump if not, value). Marked calls pass, and those that change no file."""
    calls = list(_CALLS)
    steps = [(0x20, 0, 0, 4), (0x15, 0, len(calls) + 3, _ARCH), (0x20, 0, 0, 56), (0x15, len(calls) + 1, 0, _MARK)]
    steps += [(0x20, 0, 0, 0), *((0x15, len(calls) - n, 0, call) for n, call in enumerate(calls))]
    steps += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00030000)]  # allow, trap
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def _make(call: int, arguments: list[int]) -> int:
    result = _syscall(call, *arguments[:5], _MARK)
    return int(result) if result != -1 else -ctypes.get_errno()


def _half(call: int, arguments: list[int]) -> list[int]:
    index = _LENGTHS.get(call, 5)
    return [(value + 1) // 2 if n == index else value for n, value in enumerate(arguments)]


def _path(arguments: list[int], folder: int | None, name: int | None) -> str:
    descriptor = ctypes.c_int(arguments[folder]).value if folder is not None else -100
    try:
        base = Path(f"/proc/self/fd/{descriptor}").readlink() if descriptor >= 0 else Path.cwd()
    except OSError:
        return ""
    return os.path.normpath(base if name is None else base / os.fsdecode(ctypes.string_at(arguments[name])))


def _content(path: str) -> bytes | None:
    with contextlib.suppress(OSError):
        return Path(path).read_bytes()
    return None


# ---------------------------------------------------------------------------------------------------- a power cut

Tree = dict[str, "bytes | None"]  # what lies below a folder: the content of each file, None for a folder


@dataclass(eq=False)
class _Node:
    """A file or a folder: its content or its names as they are `now`, and as the last fsync left them."""

    kept: Any
    now: Any = None


def after_power_cuts(folder: Path, operations: Sequence[Operation]) -> Iterator[tuple[int, Tree]]:
    """What may lie in a folder, as it was before these operations, if the power fails after the n-th of them.

    A file has the content of its last fsync. A folder has the names of its last fsync, or (each folder by itself, all
    combinations are tried) those of the end: a disk may well keep what nobody asked it to keep.
    """
    top, seen = _load(folder), set()
    for number, operation in enumerate(operations, 1):
        if operation.done:
            _do(top, operation)
        unsure = [node for node in _folders(top) if node.now != node.kept]
        for chosen in itertools.product((False, True), repeat=len(unsure)):
            tree = dict(_left(top, "", set(itertools.compress(unsure, chosen))))
            if (key := frozenset(tree.items())) not in seen:
                seen.add(key)
                yield number, tree


def at_last(folder: Path, operations: Sequence[Operation]) -> Tree:
    """What is there for sure after all these operations."""
    top = _load(folder)
    for operation in operations:
        if operation.done:
            _do(top, operation)
    return dict(_left(top, "", set()))


def lay(tree: Tree, folder: Path) -> None:
    """Makes a folder that holds what the tree says."""
    folder.mkdir()
    for name, content in tree.items():  # a folder comes before what it holds
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)


def _load(path: Path) -> _Node:
    if path.is_file():
        return _Node(path.read_bytes())
    names = {inner.name: _load(inner) for inner in path.iterdir()}
    return _Node(names, dict(names))


def _do(top: _Node, operation: Operation) -> None:
    (place, name), *others = [_find(top, path) for path in operation.paths]
    found, kind = place.now.get(name), operation.kind
    if kind == "open" and found is None:
        place.now[name] = _Node(b"")
    elif kind == "mkdir":
        place.now[name] = _Node({}, {})
    elif kind == "fsync":
        node = found or top
        node.kept = operation.detail if node.now is None else dict(node.now)
    elif kind == "truncate" or (kind == "open" and operation.detail & os.O_TRUNC):
        found.kept = found.kept[: operation.detail if kind == "truncate" else 0]
    elif kind == "rename":
        folder, other = others[0]
        folder.now[other] = place.now.pop(name)
    elif kind in ("unlink", "rmdir"):
        del place.now[name]
    elif kind not in ("open", "write"):
        raise ValueError(f"what a power cut leaves of {kind} is not known here")


def _find(top: _Node, path: str) -> tuple[_Node, str]:
    *outer, name = path.split("/")
    return functools.reduce(lambda folder, part: folder.now[part], outer, top), name


def _folders(node: _Node) -> Iterator[_Node]:
    """The folders that can be reached by the names of now or by those that were kept."""
    if node.now is not None:
        yield node
        for inner in {**{id(n): n for n in node.kept.values()}, **{id(n): n for n in node.now.values()}}.values():
            yield from _folders(inner)


def _left(node: _Node, path: str, lucky: set[_Node]) -> Iterator[tuple[str, bytes | None]]:
    for name, inner in (node.now if node in lucky else node.kept).items():
        yield path + name, inner.kept if inner.now is None else None
        if inner.now is not None:
            yield from _left(inner, f"{path}{name}/", lucky)
