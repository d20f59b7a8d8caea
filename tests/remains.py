"""What a run has left in its folder without what wall time decides, and what of it differs from another run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.small import newest, timeless

LITTER = "left behind"


def rows(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without their times."""
    return [timeless(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


def result(run: Path) -> dict[str, Any]:
    """How a run ended, as status.json says it, without times."""
    status = json.loads((run / "status.json").read_text())
    found = {**timeless(status.get("result") or {}), "state": status["state"]}
    return {name: value for name, value in found.items() if name != "seconds"}


def remains(run: Path) -> dict[str, dict[str, Any]]:
    """All that a run has left, by file, without what wall time decides."""
    weights, state = newest(run)
    state["journal"]["offset"] -= (run / "metrics.jsonl").stat().st_size  # its rows hold times
    kept = {path.parent.name: "" for path in run.glob("checkpoints/step-*/manifest.json")}
    found = rows(run)
    history = {f"row {n} {key}": value for n, row in enumerate(found, 1) for key, value in row.items()}
    history = {"number of rows": len(found), **history}
    media = {"/".join(path.parts[-2:]): path.read_bytes() for path in run.glob("media/step-*/*")}
    kept["best"] = (run / "checkpoints/best").read_text()
    files = {"weights.pt": weights, "state.pt": state, "checkpoints": kept, "metrics.jsonl": history}
    receipt = dict(enumerate((run / "receipt.jsonl").read_bytes().splitlines(keepends=True), 1))
    return {**files, "status.json": result(run), "receipt.jsonl": receipt, "media": media, LITTER: litter(run)}


def litter(run: Path) -> dict[str, Any]:
    """What nobody needs: files half written, checkpoints half removed."""
    hidden = [path for path in (*run.glob(".*"), *run.glob("[!.w]*/.*")) if path.name not in (".lock", ".shipper")]
    halves = [path for path in run.glob("checkpoints/step-*") if not (path / "manifest.json").exists()]
    return {str(path.relative_to(run)): "" for path in (*hidden, *halves)}


def differences(whole: Path, cut: Path, most: int = 8) -> list[str]:
    """What of a run is not, bit for bit, what it is in another: a line for each file that differs."""
    told, one, other = [], remains(whole), remains(cut)
    for file, (a, b) in {name: (one[name], other[name]) for name in one}.items():
        # compared as text, by which NaN equals itself and 0.0 is not -0.0
        keys = [key for key in dict.fromkeys([*a, *b]) if repr(a.get(key, ...)) != repr(b.get(key, ...))]
        more = [f"and {len(keys) - most} more"] if len(keys) > most else []
        told += [f"{file}: {', '.join([*keys[:most], *more])}"] if keys else []
    return told


def unsent(run: Path) -> list[str]:
    """What of a run that wandb recorded offline is not complete."""
    sent = json.loads((run / ".shipper/sent.json").read_text())
    recorded = len(list(run.glob("wandb/offline-run-*/*.wandb")))
    good = sent["closed"] and sent["step"] == rows(run)[-1]["step"] and recorded == 1
    return [] if good else [f"wandb: {recorded} recorded runs, {sent}"]
