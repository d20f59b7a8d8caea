"""Trains one run, or a sweep with `-m`: the command `trainer`, from a checkout without installing it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trainer.cli import train

if __name__ == "__main__":
    sys.exit(train())
