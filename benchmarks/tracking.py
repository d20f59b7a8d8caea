"""What tracking costs the training process, beside plain `wandb.log` in that process.

    python benchmarks/tracking.py [--rounds 9]

Ours notes a row and hands it on, as the loop does; wandb works offline in a process of its own meanwhile. Plain is what
people write: `wandb.init(mode="offline")`, then `wandb.log` of the same numbers and pictures. Both runs are open at the
same time, rounds are interleaved, and between two steps the process sleeps as long as a short step takes. Figures are
medians over rounds; a round's figure is the mean over its steps, so that rows handed on several at once count in full.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from trainer import Task, Trainer
from trainer.accounts import outcome, plan
from trainer.folder import RunFolder
from trainer.records import Evaluation, Panel
from trainer.tracking.console import Console
from trainer.tracking.journal import Journal
from trainer.tracking.shipper import Shipper, Wandb
from trainer.tracking.status import Status

ROOT = Path(__file__).resolve().parents[1]
STEPS, SLEEP = 150, 0.002
PLAIN = (
    "import time; t = time.time(); import wandb; run = wandb.init(mode='offline', settings=wandb.Settings(silent=True))"
)


class Tracked:
    """A trainer whose trackers have started, and that is told by hand how far it is."""

    def __init__(self, path: Path) -> None:
        model, folder = nn.Linear(4, 1), RunFolder(path)
        ship = Shipper(folder, Wandb(mode="offline"), id="r", name="r")
        trackers = [Journal(folder, ship.apart), Status(folder), ship, Console(quiet=True)]
        data = TensorDataset(torch.zeros(64, 4), torch.zeros(64, 1))
        self.trainer = Trainer(
            model, Task(), (data, None), torch.optim.SGD(model.parameters(), lr=0.1), folder=folder, trackers=trackers
        )
        folder.create()
        self.trainer.trackers.start(plan(self.trainer))
        while not list(folder.wandb.glob("offline-run-*/*.wandb")):
            time.sleep(0.1)

    def log(self, more: dict[str, float]) -> None:
        self.trainer.progress.advance(1, 32)
        self.trainer.history.add([torch.tensor(0.5)], [32], torch.tensor(0.1))
        begin = time.perf_counter()
        if more:
            self.trainer.log(more)
        self.trainer.note()
        self.blocked = time.perf_counter() - begin

    def evaluated(self, panels: list[Panel]) -> None:
        self.trainer.progress.advance(1, 32)
        begin = time.perf_counter()
        self.trainer.note()
        self.trainer.hand_on(Evaluation({}, panels))
        self.blocked = time.perf_counter() - begin


class Plain:
    """wandb in this process."""

    def __init__(self, path: Path) -> None:
        import wandb

        self.wandb, self.step = wandb, 0
        self.run = wandb.init(mode="offline", dir=str(path), settings=wandb.Settings(silent=True, console="off"))

    def log(self, values: dict[str, object]) -> None:
        self.step += 1
        begin = time.perf_counter()
        self.run.log({"train/loss": 0.5, "train/grad_norm": 0.1, "lr": 0.1, **values}, step=self.step)
        self.blocked = time.perf_counter() - begin

    def evaluated(self, panels: list[Panel]) -> None:
        begin = time.perf_counter()
        shown = [
            self.wandb.Image(
                panel.image,
                caption=panel.caption,
                masks={
                    name: {"mask_data": mask, "class_labels": {0: "a", 1: "b"}} for name, mask in panel.masks.items()
                },
            )
            for panel in panels
        ]
        made = time.perf_counter() - begin
        self.log({"val/examples": shown})
        self.blocked += made


def pictures(size: int) -> list[Panel]:
    y, x = np.mgrid[0:size, 0:size]
    draw = np.random.default_rng(time.perf_counter_ns())  # wandb keeps equal pictures once
    found = []
    for n in range(8):
        wave = [128 + 60 * np.sin(x / 17 + n + c) + 40 * np.cos(y / 23) + draw.normal(0, 6, x.shape) for c in range(3)]
        true = ((x - size / 2) ** 2 + (y - size / 2) ** 2 < (size / 3 + n) ** 2).astype(np.uint8)
        image, masks = np.stack(wave, 2).clip(0, 255).astype(np.uint8), {"true": true, "pred": np.roll(true, 5 + n)}
        found.append(
            Panel("val/examples", str(n), image, masks, ("a", "b"), ((0, 0, 0), (255, 200, 0)), f"{n}  IoU 0.5")
        )
    return found


def mean(steps: int, sleep: float, side: Tracked | Plain, act: Callable[[], None]) -> float:
    taken = 0.0
    for _ in range(steps):
        time.sleep(sleep)
        act()
        taken += side.blocked
    return taken / steps


def whole(*words: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begin


def run(mode: str) -> float:
    with tempfile.TemporaryDirectory() as runs:
        words = ["experiment=digits", "model=mlp", "epochs=2", f"runs={runs}", f"wandb.mode={mode}"]
        return whole(str(ROOT / "scripts/train.py"), *words)


def bare(wandb: bool) -> float:
    with tempfile.TemporaryDirectory() as here:
        os.environ["WANDB_DIR"] = here
        return whole("-c", f"import torch\n{PLAIN}; run.finish()" if wandb else "import torch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as path:
        ours, plain = Tracked(Path(path) / "ours"), Plain(Path(path))
        more = {f"mine/{n}": n / 7 for n in range(17)}
        for _ in range(rounds):
            for name, values in {"3": {}, "20": more}.items():
                for side in (ours, plain):
                    taken = mean(STEPS, SLEEP, side, lambda side=side, values=values: side.log(values))
                    found.setdefault(f"{type(side).__name__} {name}", []).append(taken)
            for size in (128, 512):
                panels = pictures(size)
                for side in (ours, plain):
                    taken = mean(1, 0.5, side, lambda side=side, panels=panels: side.evaluated(panels))
                    found.setdefault(f"{type(side).__name__} {size}", []).append(taken)
        for side, finish in (
            (plain, plain.run.finish),
            (ours, lambda: ours.trainer.trackers.finish(outcome(ours.trainer))),
        ):
            time.sleep(5)  # what was sent before is through; the last row is an evaluation, as at the end of any run
            side.evaluated(pictures(128))
            begin = time.perf_counter()
            finish()
            found[f"{type(side).__name__} end"] = [time.perf_counter() - begin]
    for _ in range(rounds):
        for mode in ("offline", "disabled"):
            found.setdefault(mode, []).append(run(mode))
        for wandb in (True, False):
            found.setdefault(f"bare {wandb}", []).append(bare(wandb))
    show({name: statistics.median(values) for name, values in found.items()}, rounds)


def show(middle: dict[str, float], rounds: int) -> None:
    print(f"\nload {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores at the end, {rounds} rounds\n")
    print("| the training process waits for | ours | plain wandb in that process | of it |\n|---|---:|---:|---:|")
    for name, text, unit in (
        ("3", "a logged step, 3 scalars", 1e6),
        ("20", "a logged step, 20 scalars", 1e6),
        ("128", "an evaluation, 8 pictures of 128 x 128 with 2 masks each", 1e3),
        ("512", "the same, 512 x 512", 1e3),
    ):
        a, b, word = middle[f"Tracked {name}"], middle[f"Plain {name}"], "us" if unit == 1e6 else "ms"
        print(f"| {text} | {a * unit:.3g} {word} | {b * unit:.3g} {word} | {a / b:.3f} |")
    a, b = middle["Tracked end"], middle["Plain end"]
    print(f"| the end of a run, after an evaluation of 8 pictures of 128 x 128 | {a:.2f} s | {b:.2f} s | {a / b:.2f} |")
    a, b = middle["offline"] - middle["disabled"], middle["bare True"] - middle["bare False"]
    print(
        f"| a run of a second, from start to end: offline against without wandb | {a:.2f} s | {b:.2f} s | {a / b:.2f} |"
    )


if __name__ == "__main__":
    main()
