"""Tells every mistake of a config: the command `trainer-check`, from a checkout without installing it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trainer.cli import check

if __name__ == "__main__":
    sys.exit(check())
