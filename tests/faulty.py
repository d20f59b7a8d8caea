"""A training that real faults hit: small, with all that makes going on hard, in a process of its own."""

from __future__ import annotations

import ctypes
import hashlib
import json
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset, get_worker_info

from tests.commands import Command, Ended
from tests.small import newest
from trainer.data.base import Data
from trainer.data.loader import Loader

WORDS = ["experiment=none", "data=faulty", "model=faulty", "task=classification", "scheduler=cosine", "epochs=4",
         "batch_size=8", "early_stopping.monitor=val/accuracy", "log_every=1step", "checkpoint_every=4steps",
         "wandb.mode=disabled", "world.threads=1", "resume=auto"]  # fmt: skip
STEPS, PER_EPOCH = 24, 6
CONF = {"data": "_target_: tests.faulty.pictures\nnum_workers: 0\n", "model": "_target_: tests.faulty.Net\n"}

# ---------------------------------------------------------------------------------------- the user's data and model

ACTIONS: Mapping[int, Callable[[], Any]] = {}  # what happens in the n-th forward pass of a training, from 1 on
POISONED: set[int] = set()  # training samples that are NaN
DEADLY: set[int] = set()  # training samples that end the loader worker that asks for them, as the kernel does it


class Pictures(Dataset[tuple[Tensor, Tensor]]):
    """Noisy squares of 8x8 pixels; the class is the quarter that is bright."""

    def __init__(self, count: int, noise: float) -> None:
        self.count, self.noise = count, noise

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if self.noise and index in DEADLY and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        image, label = torch.zeros(1, 8, 8), index * 7 % 4
        image[0, label // 2 * 4 :, label % 2 * 4 :][:4, :4] = 1.0
        image += self.noise * torch.randn(image.shape)
        return image * (torch.nan if self.noise and index in POISONED else 1.0), torch.tensor(label)


def pictures(num_workers: int = 0) -> Data:
    facts = {"in_channels": 1, "image_size": (8, 8), "in_features": 64, "num_classes": 4}
    return Data(Pictures(48, 0.8), Pictures(16, 0.0), facts=facts, num_workers=num_workers)


class Net(nn.Sequential):
    """Buffers and random numbers, and what a test wants to happen in a certain step."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        inner = nn.Linear(in_features, 96), nn.BatchNorm1d(96), nn.ReLU(), nn.Dropout(0.2)
        super().__init__(nn.Flatten(), *inner, nn.Linear(96, num_classes))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        if self.training and self.calls in ACTIONS:
            ACTIONS[self.calls]()
        found: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return found


# ----------------------------------------------------------------------------------------------- what may go wrong


def together(*actions: Callable[[], Any]) -> None:
    for action in actions:
        action()


def kill(*numbers: int) -> None:
    """Signals to this process, one after the other."""
    for number in numbers:
        os.kill(os.getpid(), number)


def kill_group(number: int) -> None:
    """What Ctrl-C in a terminal does: all processes of the group get the signal."""
    os.killpg(0, number)


def kill_worker() -> None:
    """What the kernel does when memory is short, to the first worker of the training set."""
    os.kill(min(child.pid for child in multiprocessing.active_children() if child.pid), signal.SIGKILL)


def poison(*samples: int) -> None:
    POISONED.clear()
    POISONED.update(samples)


def make_deadly(*samples: int) -> None:
    DEADLY.update(samples)


def fill(folder: Path) -> None:
    """Fills the disk that the folder is on, to the last byte."""
    saved()
    with open(folder / "filler", "ab", buffering=0) as file:
        for size in (1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass


def empty(folder: Path) -> None:
    saved()
    (folder / "filler").unlink()


def allow(mode: int, *folders: Path) -> None:
    saved()
    for folder in folders:
        folder.chmod(mode)


def limit_files(size: int) -> None:
    """No file may grow beyond that; like a full disk or a quota, and it needs no rights."""
    saved()
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def limit_memory(more: int) -> None:
    """This process may get so many bytes more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, resource.RLIM_INFINITY))


def saved() -> None:
    """Waits for the save that is being written, so that a fault comes between two saves and never by chance."""
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.join()


def lose_privileges() -> None:
    """Root, too, may write only where the mode of a folder allows it."""
    if os.geteuid() == 0:
        header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        if ctypes.CDLL(None, use_errno=True).capset(header, nothing):
            raise OSError(ctypes.get_errno(), "capset")


def set_clock_back() -> None:
    """From now on the wall clock stands an hour earlier each time that somebody looks at it."""
    now, looks = time.time, iter(range(1, 10**9))
    time.time = lambda: now() - 3600 * next(looks)


def ask_for(size: int) -> None:
    torch.ones(size, dtype=torch.uint8)


def ask_python_for(size: int) -> None:
    bytearray(size)


def fail_on_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ...")


# ------------------------------------------------------------------------------------------------------ processes


class Training(Command):
    """`trainer WORDS` in a process, and a process group, of its own.

    Args:
        cwd: the working folder; gets what `data=faulty model=faulty` need.
        at: what happens in which forward pass of the training. first: what happens before all.
    """

    def __init__(
        self,
        cwd: Path,
        *words: str,
        at: Mapping[int, Callable[[], Any]] | None = None,
        first: Callable[[], Any] | None = None,
    ) -> None:
        for group, text in CONF.items():
            (cwd / "conf" / group).mkdir(parents=True, exist_ok=True)
            (cwd / "conf" / group / "faulty.yaml").write_text(text)
        super().__init__("train", *words, cwd=cwd, first=partial(_prepare, dict(at or {}), first))


def _prepare(at: Mapping[int, Any], first: Callable[[], Any] | None) -> None:
    globals()["ACTIONS"] = at
    if first is not None:
        first()


def train(cwd: Path, *words: str, **faults: Any) -> Ended:
    """The command of all these tests, with further words, to its end."""
    return Training(cwd, *WORDS, *words, **faults).wait()


def result(folder: Path) -> tuple[Any, ...]:
    """What a run ended with, to the last bit: weights, state, rows and the best; without what wall time decides."""
    weights, state = newest(folder)
    del state["journal"]
    best = folder / "checkpoints/best"
    return weights, state, rows(folder), best.read_text() if best.exists() else "none"


def rows(folder: Path, leave_out: str = "time") -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != leave_out} for line in lines]


def state(folder: Path) -> str:
    return str(json.loads((folder / "status.json").read_text())["state"])


def content(folder: Path) -> dict[str, str]:
    """Every file below a folder, by a digest of what it holds."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def step_with(sample: int, epoch: int) -> int:
    """In which update of a run that sample comes in that epoch, both counted from 0; the updates from 1."""
    numbers = Loader(TensorDataset(torch.arange(48)), 8, seed=0)
    return next(n for n, (batch,) in enumerate(numbers.batches(epoch), epoch * PER_EPOCH + 1) if sample in batch)


def sample_of(step: int) -> int:
    """A sample of that update."""
    return next(sample for sample in range(48) if step_with(sample, (step - 1) // PER_EPOCH) == step)
