"""What the page says of each run, and by which keys runs are told apart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from trainer.report.entries import SEED, Entry, short, varying
from trainer.report.page.history import History
from trainer.tracking.journal import by_step

BESIDE = 6  # keys that fit beside each other on parallel axes, in a table, in the name of a setting
PURPOSES = ("data", "evaluation", "save")  # whose shares a run keeps; the rest of its time are the steps


def telling(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """The keys that differ, without those that only follow from the class beside them: `optimizer.betas` is there with
    AdamW and not with SGD, which `optimizer._target_` says already.

    Where more than `BESIDE` are left, of keys that part the runs in the same way (data, task and loss of two
    experiments) the first class stands for all; its value are the others.
    """
    keys = varying(entries)
    classes = [key for key in keys if key.endswith("._target_")]
    keys = [key for key in keys if not any(_follows(entries, key, one) for one in classes)]
    if len(keys) <= BESIDE:
        return {key: [] for key in keys}
    known = [entry.config for entry in entries if entry.config]
    parts: dict[tuple[int, ...], list[str]] = {}
    for key in sorted(keys, key=lambda key: (not key.endswith("._target_"), key)):
        values = [str(config.get(key)) for config in known]
        part = tuple(values.index(value) for value in values)
        alone = key == SEED or len(set(part)) == len(known)  # a value for each run: equal in no sense
        parts.setdefault((len(parts), -1) if alone else part, []).append(key)
    kept = {first: rest for first, *rest in parts.values()}
    return {key: kept[key] for key in keys if key in kept}


def _follows(entries: Sequence[Entry], key: str, target: str) -> bool:
    if key == target or not key.startswith(target.removesuffix("_target_")):
        return False
    known = [entry.config for entry in entries if entry.config]
    pairs = {(str(config.get(target)), str(config.get(key))) for config in known}
    return len(pairs) == len({one for one, _ in pairs})


def labels(keys: Sequence[str]) -> dict[str, str]:
    """Each key as briefly as it is still the only one of its name: `optimizer`, `lr`."""
    told = {key: key.removesuffix("._target_") for key in keys}
    brief = {key: name.rpartition(".")[2] for key, name in told.items()}
    return {key: brief[key] if list(brief.values()).count(brief[key]) == 1 else told[key] for key in keys}


def value(key: str, found: Any) -> Any:
    """A value as the page gets it: numbers stay numbers, None stands for a key that the run has not."""
    if found is None or (type(found) in (int, float) and math.isfinite(found)):
        return found
    return short(key, found)


def aim(entries: Sequence[Entry]) -> tuple[str, bool]:
    """The metric that most runs monitor, and whether more of it is better."""
    monitors = Counter(entry.monitor for entry in entries if entry.monitor)
    if not monitors:
        return "", False
    monitor = monitors.most_common(1)[0][0]
    return monitor, any(entry.maximised for entry in entries if entry.monitor == monitor)


def run_facts(entry: Entry, history: History, keys: Sequence[str], monitor: str) -> dict[str, Any]:
    """One run: where, when, how far; its metrics at its best evaluation and at the last of each."""
    step = history.best_step(entry.monitor or monitor, entry.maximised)
    told = {name: curve.at(step) if step is not None else None for name, curve in history.curves.items()}
    best = {name: number for name, number in told.items() if number is not None}
    if not history.rows:  # the history was not kept with it
        best = {name: number for name, number in entry.best.items() if "/" in name and type(number) in (int, float)}
    last = {name: _last(curve.values) for name, curve in history.curves.items()}
    seconds = entry.result.get("seconds") or (float(history.time.values[-1]) if len(history.time.values) else None)
    return {
        "name": entry.name,
        "folder": str(entry.folder),
        "state": entry.state,
        "reason": str(entry.status.get("error") or entry.result.get("reason") or ""),
        "host": entry.status.get("host"),
        "started": entry.status.get("started"),
        "updated": entry.status.get("updated"),
        "monitor": entry.monitor,
        "seed": entry.config.get(SEED),
        "keys": {key: value(key, entry.config.get(key)) for key in keys},
        "best": best,
        "best_step": step,
        "last": {name: number for name, number in last.items() if number is not None},
        "step": max(history.last_step, int(entry.result.get("step") or 0)),
        "steps": entry.status.get("steps"),
        "epoch": round(float(history.epoch.values[-1]), 2) if len(history.epoch.values) else None,
        "seconds": seconds,
        "rows": history.rows,
        "spent": spent(entry, history, seconds or 0.0),
    }


def _last(values: Any) -> float | None:
    return float(values[-1]) if len(values) and math.isfinite(values[-1]) else None


def spent(entry: Entry, history: History, seconds: float) -> dict[str, float]:
    """Seconds by purpose: `data`, `training`, `evaluation`, `save`, and `unknown`, of which nothing was recorded."""
    try:
        lines = entry.folder.speed.read_bytes().splitlines()
    except OSError:
        return {"unknown": round(seconds, 3)} if seconds else {}
    found, before = dict.fromkeys((*PURPOSES, "training"), 0.0), 0.0
    for step, told in sorted(by_step(lines).items()):
        now = history.time.at(step)
        if now is None or now <= before:
            continue
        shares = {name: float(told.get(f"speed/{name}") or 0.0) for name in PURPOSES}
        for name, share in shares.items():
            found[name] += share * (now - before)
        found["training"] += max(0.0, 1 - sum(shares.values())) * (now - before)
        before = now
    found["unknown"] = max(0.0, seconds - before)
    return {name: round(number, 3) for name, number in found.items()}
