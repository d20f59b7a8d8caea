"""Settings of a machine from a file `.env`: what is known before any config is read."""

from __future__ import annotations

import os
import re
from pathlib import Path


def load_env(path: str | os.PathLike[str] = ".env") -> None:
    """Reads `KEY=VALUE` lines into the environment, if the file is there; what is set already stays as it is."""
    file = Path(path)
    if not file.is_file():
        return
    for line in file.read_text(encoding="utf-8-sig").splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if not equals or name.startswith("#"):
            continue
        value = value.strip()
        quoted = re.match(r"(['\"])(.*?)\1", value)
        value = quoted[2] if quoted else re.split(r"\s+#", value)[0]
        os.environ.setdefault(name.strip(), value)
