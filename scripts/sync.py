"""Sends runs to wandb, and checks what arrived: the command `trainer-sync`, from a checkout without installing it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trainer.cli import sync

if __name__ == "__main__":
    sys.exit(sync())
