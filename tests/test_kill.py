"""A run that is killed with SIGKILL, and typed again each time, ends with the bits of the one that never was."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
CODE = "import sys; from trainer.cli import train; sys.exit(train())"
WORDS = ["experiment=digits", "epochs=5", "model.dropout=0.2", "warmup=linear", "ema=ema", "accumulate=2",
         "checkpoint_every=7steps", "log_every=3steps", "wandb.mode=disabled", "world.threads=1",
         "resume=auto"]  # fmt: skip


def start(cwd: Path, *words: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-c", CODE, *WORDS, *words], cwd=cwd, env=env, text=True, **quiet)


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "time"} for line in lines]


def state(folder: Path) -> dict[str, Any]:
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    found = torch.load(newest / "state.pt", weights_only=True)
    found["weights"] = torch.load(newest / "weights.pt", weights_only=True)
    return {name: part for name, part in found.items() if name not in ("clock", "journal", "best", "meters")}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def test_a_run_killed_at_random_moments_ends_with_the_same_bits_and_rows(tmp_path: Path) -> None:
    assert start(tmp_path, "name=whole").wait() == 0
    folder, kills = tmp_path / "runs/cut", 0
    moments = random.Random(0)
    while True:
        written = len(rows(folder)) if (folder / "metrics.jsonl").exists() else 0
        limit = written + moments.randint(1, 9)
        with start(tmp_path, "name=cut") as process:
            while process.poll() is None and kills < 4:
                metrics = folder / "metrics.jsonl"
                if metrics.exists() and metrics.read_bytes().count(b"\n") >= limit:
                    process.kill()
                    kills += 1
                    break
        if process.returncode == 0:
            break
    assert kills >= 2
    assert rows(folder) == rows(tmp_path / "runs/whole")
    assert same(state(folder), state(tmp_path / "runs/whole"))
