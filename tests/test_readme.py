"""What the README shows is run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_script_without_hydra_trains_and_is_done_the_second_time(tmp_path: Path) -> None:
    (script,) = [block for block in BLOCKS if "Trainer(" in block]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled"}
    shown = []
    for _ in range(2):
        made = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, env=env, check=True, capture_output=True, text=True
        )
        shown.append(made.stdout.splitlines()[-1])
    assert shown[0] == shown[1]
    assert "'val/accuracy'" in shown[0]
    assert (tmp_path / "runs/mine/status.json").is_file()


def test_every_command_that_is_named_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\btrainer-[a-z]+", text)) - {"trainer-check"}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f"{name} = " in project for name in named if name not in ("wandb-trainer",)), named
