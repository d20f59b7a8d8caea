"""One HTML file that compares runs: everything is in it, so that it opens without a network and can be sent."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trainer
from trainer.errors import ConfigError
from trainer.folder import shown, write_whole
from trainer.report.entries import COMMON, SEED, Entry, grouped
from trainer.report.page import history, media
from trainer.report.page.facts import aim, labels, run_facts, telling
from trainer.report.page.importance import importance

HERE = Path(__file__).parent
LIBRARY = "vendor/echarts-6.1.0.min.js"  # Apache ECharts as its makers publish it: dist/echarts.min.js of npm's package
SCRIPTS = ("data", "shared", "bar", "table", "lines", "curves", "panel", "parallel", "scatter", "media", "spent",
           "diff", "main")  # fmt: skip


def write(entries: Sequence[Entry], path: Path) -> str:
    """Writes the page.

    Returns:
        what was written, in a sentence.

    Raises:
        ConfigError: the file cannot be written.
    """
    facts = gathered(entries)
    text = assembled(facts)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        why = error.strerror or str(error)
        raise ConfigError(f"--html: {path} cannot be written ({why}); name a file that you may write") from error
    pictures = len(facts["media"]["urls"])
    size = f"{len(text.encode()) / 1e6:.1f} MB"
    runs = f"{len(entries)} run{'s' if len(entries) > 1 else ''}"
    return f"{shown(path)}: {runs}, {pictures} pictures, {size}; open it in a browser"


def gathered(entries: Sequence[Entry]) -> dict[str, Any]:
    """Everything that the page shows, as plain data for JSON."""
    alike, (monitor, maximised) = telling(entries), aim(entries)
    keys = list(alike)
    named = labels(keys)
    histories = [history.read(entry) for entry in entries]
    runs = [run_facts(entry, told, keys, monitor) for entry, told in zip(entries, histories, strict=True)]
    groups = grouped(entries, keys)
    places = {id(entry): n for n, entry in enumerate(entries)}
    arrays = history.Arrays()
    packed = history.pack(histories, arrays)
    sign = -1 if maximised else 1
    order = sorted(range(len(runs)), key=lambda n: sign * runs[n]["best"].get(monitor, sign * float("inf")))
    values = {key: [run["keys"][key] for run in runs] for key in keys}
    measured = _ordered(packed["curves"], monitor)
    return {
        "title": _title(entries),
        "made": time.time(),
        "version": trainer.__version__,
        "monitor": monitor,
        "maximised": maximised,
        "keys": [{"key": key, "label": name, "seed": key == SEED, "alike": alike[key]} for key, name in named.items()],
        "groups": [[places[id(entry)] for entry in group.entries] for group in groups],
        "runs": runs,
        "metrics": measured,
        "importance": {
            metric: importance(values, [run["best"].get(metric) for run in runs])
            for metric in measured
            if any(metric in run["best"] for run in runs)
        },
        "media": media.pack(entries, order, [run["best_step"] for run in runs]),
        "configs": _configs(entries),
        **packed,
        "arrays": arrays.texts,
    }


def assembled(facts: dict[str, Any]) -> str:
    """The page around those facts; nothing that they hold can end a tag or begin one."""
    data = json.dumps(_finite(facts), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    text = (HERE / "page.html").read_text(encoding="utf-8")
    parts = {
        "title": facts["title"].replace("&", "&amp;").replace("<", "&lt;"),
        "style": (HERE / "page.css").read_text(encoding="utf-8"),
        "data": data,
        "library": (HERE / LIBRARY).read_text(encoding="utf-8"),
        "script": "\n".join((HERE / "js" / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS),
    }
    made, rest = [], text
    for name, part in parts.items():  # in the order of the page, so that no part is searched for the mark of another
        before, _, rest = rest.partition(f"{{{{{name}}}}}")
        made += [before, part]
    return "".join([*made, rest])


def _title(entries: Sequence[Entry]) -> str:
    if len(entries) == 1:
        return entries[0].name
    parents = Counter(entry.folder.path.parent.name for entry in entries)
    names = [name for name, _ in parents.most_common(3)]
    return " + ".join(names) + (" + ..." if len(parents) > 3 else "")


def _ordered(metrics: Sequence[str] | dict[str, Any], monitor: str) -> list[str]:
    """The monitored one first, then what a reader asks for next; metrics of single classes last."""
    first = [monitor, "train/loss", "val/loss", "lr"]
    known = [name for name in first if name in metrics]
    known += [name for name in sorted(metrics) if name.startswith("lr/") and name not in known]
    rest = sorted(set(metrics) - set(known), key=lambda name: (name.count("/") > 1, not name.startswith("val/"), name))
    return known + rest


def _configs(entries: Sequence[Entry]) -> dict[str, Any]:
    """Configs without what all share: `common`, and what is `own` to each; values as their text."""
    every = [
        {key: str(found) for key, found in entry.config.items() if key.split(".")[0] not in COMMON} for entry in entries
    ]
    keys = sorted({key for config in every for key in config})
    common = {key: every[0][key] for key in keys if all(config.get(key) == every[0].get(key) for config in every)}
    own = [{key: found for key, found in config.items() if key not in common} for config in every]
    return {"common": common, "own": own}


def _finite(value: Any) -> Any:
    """The same with None for what is not finite, which JSON has no word for."""
    if isinstance(value, dict):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
