"""What exact resuming costs on the default experiment, against the same training without all that is for it alone.

    python benchmarks/exactness.py [--rounds 11] [--epochs 2]

Taken away are the seeding of each step, the copies of the buffers before it, and the checkpoints. Rounds are
interleaved in one process, and the median of their ratios is the figure.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from trainer import loop
from trainer.buffers import Buffers
from trainer.build import build
from trainer.folder import RunFolder
from trainer.hooks import Hook
from trainer.overrides import check


class Watch(Hook):
    def on_fit_start(self, trainer: loop.Trainer) -> None:
        self.begin = time.perf_counter()

    def on_fit_end(self, trainer: loop.Trainer, outcome: object) -> None:
        self.seconds = time.perf_counter() - self.begin


@contextlib.contextmanager
def inexact() -> Iterator[None]:
    """Nothing that serves a resume alone."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(loop, "seed_generators", lambda *_, **__: None))
        stack.enter_context(mock.patch.object(Buffers, "keep", lambda _: None))
        stack.enter_context(mock.patch.object(loop.Trainer, "save", lambda _, best=False: None))
        yield


def seconds(epochs: int, root: Path) -> float:
    watch = Watch()
    trainer = build(check([f"epochs={epochs}"]), RunFolder(tempfile.mkdtemp(dir=root)))
    trainer.hooks.hooks["watch"] = watch
    trainer.fit()
    return watch.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--epochs", type=int, default=2)
    given = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as root:
        seconds(1, Path(root))
        for n in range(given.rounds):
            order = (False, True) if n % 2 else (True, False)
            times = {}
            for exact in order:
                with contextlib.nullcontext() if exact else inexact():
                    times[exact] = seconds(given.epochs, Path(root))
            ratios.append(times[True] / times[False])
            print(f"exact {times[True]:.2f} s   without {times[False]:.2f} s   {ratios[-1]:.3f}", flush=True)
    print(f"median {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
