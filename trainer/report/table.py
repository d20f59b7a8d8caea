"""Runs side by side: the keys in which they differ, and each one's best row."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from trainer.report.entries import Entry, short, varying


def rows(entries: Sequence[Entry]) -> tuple[list[str], list[list[str]]]:
    """The head and the lines of the table, the best run first."""
    keys = varying(entries)
    measured = dict.fromkeys(key for entry in entries for key in entry.best if key.startswith("val/"))
    metrics = [key for key in measured if "iou/" not in key]
    monitor = next((e.status["monitor"] for e in entries if e.status.get("monitor")), "")
    metrics.sort(key=lambda name: name != monitor)
    sign = -1 if any(e.status.get("mode") == "max" for e in entries) else 1
    ordered = sorted(entries, key=lambda e: sign * e.best[monitor] if monitor in e.best else float("inf"))
    head = ["run", "state", "epoch", *metrics, *(key.removesuffix("._target_") for key in keys)]
    lines = [
        [
            entry.name,
            entry.state,
            str(entry.best.get("epoch", "")),
            *(f"{entry.best[name]:.4f}" if name in entry.best else "" for name in metrics),
            *(short(key, entry.config.get(key, "")) for key in keys),
        ]
        for entry in ordered
    ]
    return head, lines


def as_text(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Aligned columns."""
    widths = [max(len(line[n]) for line in (head, *lines)) for n in range(len(head))]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in (head, *lines))
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def as_csv(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *lines])
    return text.getvalue()
