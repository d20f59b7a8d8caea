"""The runs that a comparison is about: found in folders, what each became, and which differ by their seed only."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainer import config
from trainer.errors import ConfigError
from trainer.folder import JOBS, SWEEP, RunFolder

COMMON = ("wandb", "runs", "name", "resume", "resume_changes", "hooks")  # where a run lies, not what it is
SEED = "seed"


@dataclass
class Entry:
    """What a comparison needs of one run, as it was when it was read.

    Attributes:
        folder: the run folder. status: what status.json holds. config: resolved values by dotted key; empty without.
        state: `running`, `finished`, `interrupted`, `failed`, `killed`, `not started`; `unreadable` by its status.json.
    """

    folder: RunFolder
    status: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    state: str = "not started"

    @property
    def name(self) -> str:
        return self.folder.path.name

    @property
    def result(self) -> dict[str, Any]:
        return _row(self.status.get("result"))

    @property
    def best(self) -> dict[str, Any]:
        """The best row: every metric at that one evaluation; empty without one."""
        return _row(self.result.get("best"))

    @property
    def last(self) -> dict[str, Any]:
        return _row(self.result.get("last"))

    @property
    def monitor(self) -> str:
        return str(self.status.get("monitor") or "")

    @property
    def maximised(self) -> bool:
        return self.status.get("mode") == "max"

    def rows(self) -> Iterator[dict[str, Any]]:
        """The history, a row at a time; a line that is still being written, or is damaged, is left out."""
        try:
            with open(self.folder.metrics, encoding="utf-8", errors="replace") as file:
                for line in file:
                    with contextlib.suppress(ValueError):
                        yield json.loads(line)
        except OSError:
            return


    def latest(self) -> dict[str, Any]:
        """The newest row of the history over that of the newest evaluation in its last megabyte; empty without rows."""
        try:
            with open(self.folder.metrics, "rb") as file:
                file.seek(max(0, file.seek(0, 2) - (1 << 20)))
                lines = file.read().split(b"\n")[:-1]  # what follows the last end of a line is still being written
        except OSError:
            return {}
        wanted = json.dumps(self.monitor).encode() + b":"
        measured = next((line for line in reversed(lines) if wanted in line), b"{}")
        found: dict[str, Any] = {}
        for line in (measured, *lines[-1:]):
            with contextlib.suppress(ValueError):
                found |= _row(json.loads(line))
        return found


def _row(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Group:
    """Runs that differ by their seed only: `values` are those keys of theirs in which groups differ."""

    values: dict[str, Any]
    entries: list[Entry]


def find(paths: Iterable[str]) -> list[Entry]:
    """Every run in the given folders: each may be a run, a sweep, or a folder that holds several of both.

    Raises:
        ConfigError: a path does not exist, or there is no run in any.
    """
    return [replace(read(folder), config=_read_config(folder)) for folder in folders(paths)]


def folders(paths: Iterable[str], coming: bool = False) -> list[RunFolder]:
    """The folders of the runs that `find` reads; `coming`: also of the jobs that a sweep has still to begin.

    Raises:
        ConfigError: a path does not exist, or there is no run in any.
    """
    paths = list(paths)
    runs: dict[Path, RunFolder] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise ConfigError(f"{path}: there is no such folder; give run folders, sweeps, or the folder above them")
        found = [path] if (path / "status.json").is_file() else [*path.glob("[!.]*"), *path.glob("[!.]*/[!.]*")]
        for folder in sorted(found):
            if (folder / "status.json").is_file():  # a run may be named twice, by itself and by its sweep
                runs.setdefault(folder.absolute(), RunFolder(folder))
        for jobs in sorted([*path.glob(f"{SWEEP}/{JOBS}"), *path.glob(f"*/{SWEEP}/{JOBS}")]) if coming else ():
            with contextlib.suppress(OSError, ValueError):  # it is being written, or is no longer there
                for name in json.loads(jobs.read_text(encoding="utf-8")):
                    folder = jobs.parents[1] / name
                    runs.setdefault(folder.absolute(), RunFolder(folder))
    if not runs:
        raise ConfigError(f"{', '.join(paths)}: holds no run")
    return list(runs.values())


def read(folder: RunFolder) -> Entry:
    """A run as it is now, without its config, which takes far longer to read and does not change."""
    status = folder.read_status()
    begun = bool(status) or not folder.status.exists()
    state = str(status.get("state", "not started" if begun else "unreadable"))
    return Entry(folder, status, state="killed" if state == "running" and not folder.held else state)


def _read_config(folder: RunFolder) -> dict[str, Any]:
    try:
        return config.values(folder.config)
    except ConfigError:  # a run of a script has none, and one bad file is no reason to show nothing
        return {}


def varying(entries: Sequence[Entry]) -> list[str]:
    """The keys, sorted, whose values are not the same in all runs whose config is known."""
    known = [entry.config for entry in entries if entry.config]
    every = {key for values in known for key in values if key.split(".")[0] not in COMMON}
    keys = sorted(filter(config.is_identity, every))  # what decides no result parts no settings
    return [key for key in keys if len({told(values.get(key)) for values in known}) > 1]


def told(value: Any) -> str:
    """A value as text that is the same for what is the same: 0 and 0.0, as one types them."""
    return str(float(value)) if isinstance(value, int) and not isinstance(value, bool) else str(value)


def grouped(entries: Sequence[Entry], keys: Sequence[str]) -> list[Group]:
    """The runs in groups that are equal in all of `keys` (from `varying`) but the seed, in the order of their first.

    A run whose config is not known is a group of its own.
    """
    names = [key for key in keys if key != SEED]
    groups: dict[tuple[str, ...], Group] = {}
    for entry in entries:
        values = {key: entry.config.get(key) for key in names}
        same = tuple(map(told, values.values())) if entry.config else (str(entry.folder.path), "unknown")
        groups.setdefault(same, Group(values, [])).entries.append(entry)
    return list(groups.values())


def short(key: str, value: Any) -> str:
    """A value as a table shows it: of a `_target_` the name of the class alone, a number without zeros at its end."""
    if key.endswith("_target_"):
        return str(value).rpartition(".")[2]
    if isinstance(value, float) and value == float(f"{value:g}"):
        return f"{value:g}"
    return "" if value is None else str(value)
