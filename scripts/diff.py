"""In what two runs differ: the command `trainer-diff`, from a checkout without installing it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trainer.cli import diff

if __name__ == "__main__":
    sys.exit(diff())
