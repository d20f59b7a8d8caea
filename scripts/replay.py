"""Runs a step again that failed: the command `trainer-replay`, from a checkout without installing it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trainer.cli import replay

if __name__ == "__main__":
    sys.exit(replay())
