"""Runs side by side: the keys in which they differ, and each one's best row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer import config
from trainer.errors import ConfigError
from trainer.folder import RunFolder

COMMON = ("wandb", "runs", "name", "resume", "resume_changes", "hooks")  # where a run lies, not what it is


@dataclass
class Entry:
    """What a comparison needs of one run."""

    folder: RunFolder
    status: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> dict[str, Any]:
        return (self.status.get("result") or {}).get("best") or {}


def find(paths: Iterable[str]) -> list[Entry]:
    """Every run in the given folders: each may be a run, a sweep, or a folder that holds several of both.

    Raises:
        ConfigError: a path does not exist, or there is no run in any.
    """
    entries = []
    for path in map(Path, paths):
        if not path.is_dir():
            raise ConfigError(f"{path}: there is no such folder; give run folders, sweeps, or the folder above them")
        for found in sorted({*path.glob("status.json"), *path.glob("*/status.json"), *path.glob("*/*/status.json")}):
            folder = RunFolder(found.parent)
            entries.append(Entry(folder, folder.read_status(), _read_config(folder)))
    if not entries:
        raise ConfigError(f"{', '.join(paths)}: holds no run")
    return entries


def _read_config(folder: RunFolder) -> dict[str, Any]:
    if not folder.config.is_file():
        return {}
    return config.flat(config.plain(config.read(folder.config)))


def rows(entries: Sequence[Entry]) -> tuple[list[str], list[list[str]]]:
    """The head and the lines of the table, the best run first."""
    keys = sorted({key for entry in entries for key in entry.config if key.split(".")[0] not in COMMON})
    known = [entry.config for entry in entries if entry.config]
    varying = [key for key in keys if len({str(values.get(key)) for values in known}) > 1]
    measured = dict.fromkeys(key for entry in entries for key in entry.best if key.startswith("val/"))
    metrics = [key for key in measured if "iou/" not in key]
    monitor = next((e.status["monitor"] for e in entries if e.status.get("monitor")), "")
    metrics.sort(key=lambda name: name != monitor)
    sign = -1 if any(e.status.get("mode") == "max" for e in entries) else 1
    ordered = sorted(entries, key=lambda e: sign * e.best[monitor] if monitor in e.best else float("inf"))
    head = ["run", "state", "epoch", *metrics, *(key.removesuffix("._target_") for key in varying)]
    lines = [
        [
            entry.folder.path.name,
            entry.folder.state(),
            str(entry.best.get("epoch", "")),
            *(f"{entry.best[name]:.4f}" if name in entry.best else "" for name in metrics),
            *(_cell(key, entry.config.get(key, "")) for key in varying),
        ]
        for entry in ordered
    ]
    return head, lines


def _cell(key: str, value: Any) -> str:
    return str(value).rpartition(".")[2] if key.endswith("_target_") else str(value)


def as_text(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Aligned columns."""
    widths = [max(len(line[n]) for line in (head, *lines)) for n in range(len(head))]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in (head, *lines))
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def as_csv(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *lines])
    return text.getvalue()
