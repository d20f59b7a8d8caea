"""Time per step of the everyday configuration against a hand-written loop, on a tiny MLP, in one process.

    python benchmarks/step.py [--rounds 7] [--epochs 6]

Raw is what people write: a DataLoader over tensors, zero_grad, backward, clip, step, schedule; no logging at all. Ours
does the same training and besides logs loss, gradient norm and lr of every step to the journal, ships them to offline
wandb, evaluates each epoch, keeps the best checkpoint and watches for early stopping. Both train on the same batches
and must end with the same weights. Rounds are interleaved; the figure is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from trainer import Trainer
from trainer.data.loader import Loader
from trainer.folder import RunFolder
from trainer.gradients import Clip
from trainer.hooks import Hook
from trainer.monitor import Patience
from trainer.schedules import cosine
from trainer.tasks import Classification
from trainer.tracking.base import Tracker
from trainer.tracking.console import Console
from trainer.tracking.journal import Journal
from trainer.tracking.shipper import Shipper, Wandb
from trainer.tracking.status import Status
from trainer.world import World

SAMPLES, BATCH = 32 * 500, 32


class Watch(Hook):
    """When training began and ended, without what comes before and after it."""

    def on_fit_start(self, trainer: Trainer) -> None:
        self.begin = time.perf_counter(), time.thread_time()

    def on_fit_end(self, trainer: Trainer, outcome: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self.begin[0], time.thread_time() - self.begin[1]


def data() -> tuple[TensorDataset, TensorDataset]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES + 1000, 64, generator=generator)
    y = (x @ torch.randn(64, 10, generator=generator)).argmax(1)
    return TensorDataset(x[:SAMPLES], y[:SAMPLES]), TensorDataset(x[SAMPLES:], y[SAMPLES:])


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


class SameOrder(torch.utils.data.Sampler[list[int]]):
    """The batches that our loader makes, so that both loops train on the same ones."""

    def __init__(self, loader: Loader) -> None:
        self.loader, self.epoch = loader, 0

    def __iter__(self):
        order = self.loader._order(self.epoch).tolist()
        self.epoch += 1
        return (order[i : i + BATCH] for i in range(0, SAMPLES, BATCH))

    def __len__(self) -> int:
        return SAMPLES // BATCH


def raw(epochs: int) -> tuple[float, float, torch.Tensor]:
    train, _ = data()
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    total = epochs * (SAMPLES // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine(optimizer, total).scheduler.lr_lambdas)
    for group in optimizer.param_groups:
        group["lr"] = 0.05
    criterion = nn.CrossEntropyLoss()
    loader = DataLoader(train, batch_sampler=SameOrder(Loader(train, BATCH)))
    step = 0
    wall, cpu = time.perf_counter(), time.thread_time()
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
    wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
    return wall / step, cpu / step, torch.cat([p.detach().flatten() for p in model.parameters()])


def ours(epochs: int, everyday: bool, root: Path) -> tuple[float, float, torch.Tensor]:
    model, watch = net(), Watch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    total = epochs * (SAMPLES // BATCH)
    trackers: list[Tracker] = []
    folder = None
    train, val = data()
    if everyday:
        folder = RunFolder(tempfile.mkdtemp(dir=root))
        shipper = Shipper(folder, Wandb(mode="offline"), id=folder.path.name, name="step", config={})
        shipper.launch()
        trackers = [Journal(folder), Status(folder), Console(), shipper]
    trainer = Trainer(
        model, Classification(nn.CrossEntropyLoss()), (train, val if everyday else None), optimizer,
        schedule=cosine(optimizer, total), epochs=epochs, batch_size=BATCH, clip=Clip(norm=1.0),
        patience=Patience("val/accuracy", patience=1000 if everyday else None),
        log_every="1step" if everyday else "never", evaluate_every="1epoch" if everyday else "never",
        folder=folder, trackers=trackers,
        hooks={"watch": watch}, world=World("cpu", 1),
    )  # fmt: skip
    trainer.fit()
    return watch.wall / total, watch.cpu / total, torch.cat([p.detach().flatten() for p in model.parameters()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=6)
    given = parser.parse_args()
    torch.set_num_threads(1)
    kinds = ("raw", "bare", "everyday")
    wall: dict[str, list[float]] = {kind: [] for kind in kinds}
    cpu: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as root:
        for n in range(given.rounds + 1):
            weights = {}
            for kind in kinds:
                made = raw(given.epochs) if kind == "raw" else ours(given.epochs, kind == "everyday", Path(root))
                weights[kind] = made[2]
                if n:  # the first round warms up
                    wall[kind].append(made[0])
                    cpu[kind].append(made[1])
            same = all(torch.equal(weights["raw"], weights[kind]) for kind in kinds)
            times = ", ".join(f"{kind} {1e6 * wall[kind][-1]:.0f} us" for kind in kinds if wall[kind])
            print(f"round {n}: {times or 'warm-up'}; same weights: {same}")
    print(f"\nraw bare loop: {1e6 * statistics.median(wall['raw']):.0f} us a step")
    for kind in ("bare", "everyday"):
        ratios = [statistics.median(a / b for a, b in zip(t[kind], t["raw"], strict=True)) for t in (wall, cpu)]
        print(f"{kind:<9} {ratios[0]:.2f} of it (training thread's CPU time: {ratios[1]:.2f})")


if __name__ == "__main__":
    main()
