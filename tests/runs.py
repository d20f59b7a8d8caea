"""Run folders as a training leaves them, without one: for what reads many of them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.records import Panel
from trainer.tracking.panels import write_panels


def run_folder(
    path: Path,
    rows: Iterable[Mapping[str, Any]] = (),
    config: Mapping[str, Any] | None = None,
    state: str = "finished",
    monitor: str = "val/dice",
    mode: str = "max",
) -> Path:
    """A run folder with that history and (nested) config, which may be neither whole nor valid."""
    path.mkdir(parents=True)
    rows = list(rows)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (path / "metrics.jsonl").write_text(text, encoding="utf-8")
    if config is not None:
        (path / "config.yaml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    known = [row for row in rows if row.get(monitor) is not None]
    best = (max if mode == "max" else min)(known, key=lambda row: row[monitor], default={})
    result = {"best": best, "last": rows[-1], "step": rows[-1]["step"], "seconds": rows[-1]["time"]} if rows else None
    status = {"state": state, "monitor": monitor, "mode": mode, "host": "here", "started": 1.7e9, "updated": 1.7e9 + 60}
    (path / "status.json").write_text(json.dumps({**status, "result": result}), encoding="utf-8")
    return path


def history(steps: int, lr: float, seed: int, every: int = 0, most: float = 0.9) -> list[dict[str, Any]]:
    """A plausible history: a noisy loss, a learning rate that falls, and `every` so many steps a dice that rises."""
    noise, rows, every = random.Random(f"{lr} {most} {seed}"), [], every or max(1, steps // 8)
    for step in range(1, steps + 1):
        part = step / steps
        row = {
            "step": step,
            "epoch": step // every,
            "time": round(0.05 * step, 3),
            "train/loss": 0.2 + 1.5 * math.exp(-4 * part) + noise.gauss(0, 0.1),
            "train/grad_norm": abs(noise.gauss(1, 0.4)),
            "lr": lr * 0.5 * (1 + math.cos(math.pi * part)),
        }
        if step % every == 0:
            row["val/dice"] = most * (1 - math.exp(-4 * part)) + noise.gauss(0, 0.01)
            row["val/loss"] = 1 - row["val/dice"]
        rows.append(row)
    return rows


def sweep(root: Path, lrs: Sequence[float], seeds: int, steps: int, pictures: bool = False) -> Path:
    """Runs of two optimizers, those learning rates and so many seeds, in one folder."""
    for optimizer, best in (("torch.optim.SGD", 0.7), ("torch.optim.AdamW", 0.9)):
        for lr in lrs:
            for seed in range(seeds):
                config = {"optimizer": {"_target_": optimizer, "lr": lr}, "seed": seed, "epochs": 8}
                name = f"{optimizer.rpartition('.')[2]},{lr:g},{seed}"
                path = run_folder(root / name, history(steps, lr, seed, most=best), config)
                for step in range(steps // 4, steps + 1, steps // 4) if pictures else ():
                    write_panels(path / "media" / f"step-{step:09d}", panels(step / steps))
    return root


def panels(part: float, side: int = 48) -> list[Panel]:
    """Two samples of a disc; the prediction grows with `part` to the truth."""
    y, x = np.mgrid[:side, :side]
    distance = np.hypot(y - side / 2, x - side / 2)
    image = np.clip(255 - 4 * distance, 0, 255).astype(np.uint8)
    found = []
    for sample in ("a", "b"):
        masks = {"true": (distance < side / 3).astype(np.uint8), "pred": (distance < part * side / 3).astype(np.uint8)}
        found.append(Panel("val/examples", sample, image, masks, ("none", "disc"), ((9, 9, 9), (200, 80, 10)), sample))
    return found
