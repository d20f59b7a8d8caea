"""What the README shows is run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

from tests.commands import Command

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_script_without_hydra_trains_and_is_done_the_second_time(tmp_path: Path) -> None:
    (script,) = [block for block in BLOCKS if "Trainer(" in block]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled"}
    words = [sys.executable, "-c", script]
    first = subprocess.run(words, cwd=tmp_path, env=env, check=True, capture_output=True, text=True).stdout
    again = Command(partial(exec, script, {"__name__": "__main__"}), cwd=tmp_path, env=env).wait()
    assert again.code == 0, again.told
    assert first.splitlines()[-1] == again.out.splitlines()[-1]
    assert "'val/accuracy'" in first.splitlines()[-1]
    assert (tmp_path / "runs/mine/status.json").is_file()


def test_every_command_that_is_named_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\btrainer-[a-z]+", text)) - {"trainer-check"}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f"{name} = " in project for name in named if name not in ("wandb-trainer",)), named
