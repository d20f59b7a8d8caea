"""Run folders written by hand: what a comparison reads of a run, without a training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

CONFIG = {
    "data": {"_target_": "trainer.data.digits.digits"},
    "task": {"_target_": "trainer.tasks.Classification"},
    "model": {"_target_": "trainer.models.MLP", "dropout": 0.0},
    "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.001, "betas": [0.9, 0.999]},
    "scheduler": {"_target_": "trainer.schedules.constant"},
    "wandb": {"project": "${oc.env:WANDB_PROJECT,none}"},
    "seed": 0,
}
SGD = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}


def run_folder(
    path: Path,
    score: float | None = None,
    rows: Sequence[Mapping[str, Any]] = (),
    config: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A run that finished with that best `val/accuracy`; `config` changes keys of CONFIG, None in it drops one.

    Args:
        path: where it is made. rows: its history. changes: of status.json.
    """
    path.mkdir(parents=True)
    values = {key: value for key, value in {**CONFIG, **(config or {})}.items() if value is not None}
    (path / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    best = {"step": 20, "epoch": 2, "val/accuracy": score, "val/loss": 1.0, "val/iou/cat": 0.5}
    result = {"best": best, "last": best, "step": 30, "epoch": 3, "seconds": 101.0, "reason": "3 epochs done"}
    status = {"state": "finished", "monitor": "val/accuracy", "mode": "max", "steps": 30, "result": result}
    (path / "status.json").write_text(json.dumps({**status, **changes}))
    (path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def sweep(root: Path, scores: Mapping[str, Sequence[float]], **changes: Any) -> Path:
    """AdamW with learning rates that are the keys of `scores`, and for each a run a seed."""
    for lr, values in scores.items():
        for seed, score in enumerate(values):
            optimizer = {**CONFIG["optimizer"], "lr": float(lr)}  # type: ignore[dict-item]
            run_folder(root / f"lr={lr},seed={seed}", score, config={"optimizer": optimizer, "seed": seed}, **changes)
    return root
