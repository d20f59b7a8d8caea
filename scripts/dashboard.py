"""Makes a dashboard on wandb: the command `trainer-dashboard`, from a checkout without installing it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trainer.cli import dashboard

if __name__ == "__main__":
    sys.exit(dashboard())
