"""How long a checkpoint keeps the loop waiting, against torch.save with fsync of the same state, in one process.

    python benchmarks/save.py [--rounds 7] [--megabytes 300]

The state is that of a model and its Adam. Ours copies it into memory that is used again, and a thread writes it, with
checksums, while training goes on; the wait for a save that is still being written is not part of the figure. Rounds are
interleaved; the figure is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

from trainer import Trainer
from trainer.tasks import Supervised
from trainer.world import World


def build(megabytes: int, folder: Path) -> Trainer:
    """A stack of linear layers whose weights and two Adam moments have that size together."""
    width, layers = 1024, max(1, round(megabytes * 1e6 / 3 / 4 / 1024**2))
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(width, width, bias=False) for _ in range(layers)])
    data = TensorDataset(torch.randn(4, width), torch.randn(4, width))
    trainer = Trainer(
        model, Supervised(nn.MSELoss()), (data, None), torch.optim.Adam(model.parameters(), lr=1e-4),
        epochs=1000, batch_size=4, folder=folder, trackers=(), world=World("cpu"),
    )  # fmt: skip
    trainer.train_group(next(iter(trainer.loader.groups(0))))  # so that Adam has its moments
    return trainer


def synchronous(trainer: Trainer, path: Path) -> float:
    begin = time.perf_counter()
    path.unlink(missing_ok=True)  # a new file each time, as a checkpoint is
    with open(path, "wb") as file:
        torch.save({name: part.state_dict() for name, part in trainer.parts.items()}, file)
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - begin


def ours(trainer: Trainer) -> tuple[float, float]:
    """Seconds until the loop goes on, and until the checkpoint is whole on the disk."""
    trainer.progress.step += 1
    begin = time.perf_counter()
    trainer.save()
    blocked = time.perf_counter() - begin
    trainer.checkpoints.wait()
    return blocked, time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=300)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as root:  # where runs lie, and not in memory as /tmp may be
        trainer = build(given.megabytes, Path(root) / "run")
        first = ours(trainer)
        rounds = [(synchronous(trainer, Path(root) / "plain.pt"), *ours(trainer)) for _ in range(given.rounds)]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, state of {given.megabytes} MB")
    print(f"first save, into new memory: {first[0]:.3f} s blocked, whole after {first[1]:.3f} s")
    print("torch.save + fsync   blocked   whole   blocked / torch.save")
    for plain, blocked, whole in rounds:
        print(f"{plain:16.3f} s {blocked:7.3f} s {whole:6.3f} s {blocked / plain:12.3f}")
    print(f"median {statistics.median(blocked / plain for plain, blocked, _ in rounds):.3f}")


if __name__ == "__main__":
    main()
