"""Which code a run is made by: the trainer's version, the commit, and a digest of each of the user's own files."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import trainer

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_PACKAGE = Path(trainer.__file__).parent
_INSTALLED = ("site-packages", "dist-packages")


def code_version(values: Mapping[str, Any]) -> dict[str, Any]:
    """The code of a run, as plain values: `trainer`, in a git checkout `commit` and `dirty`, and `files`.

    These are the modules that the config names and what they import, each as `path below an entry of sys.path: digest`;
    nothing that is installed. In a checkout of the trainer itself `trainer/` stands for all of it.

    What was read once counts for as long as the process lives, as an imported module does.

    Args:
        values: the config as plain nested values.
    """
    files = {f"{_PACKAGE.name}/": _own()} if not set(_INSTALLED) & set(_PACKAGE.parts) else {}
    return {"trainer": trainer.__version__, **_commit(Path.cwd()), "files": {**files, **_files(_named(values))}}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How two code versions differ, in words; empty if they do not, or if the first knows no files."""
    found = []
    if before.get("trainer") not in (None, now["trainer"]):
        found.append(f"the trainer was {before['trainer']} and is {now['trainer']}")
    old, new = before.get("files"), now["files"]
    if isinstance(old, dict):
        changed = [name for name in new if old.get(name, new[name]) != new[name]]
        added, lost = [name for name in new if name not in old], [name for name in old if name not in new]
        found += [f"{_listed(changed)} changed"] if changed else []
        found += [f"{_listed(names)} {'is' if len(names) == 1 else 'are'} {how}" for names, how in
                  ((added, "new"), (lost, "gone")) if names]  # fmt: skip
    return _listed(found)


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def git(*words: str, cwd: Path | None = None) -> str:
    """What git answers.

    Raises:
        OSError, subprocess.SubprocessError: there is no git, no checkout, or no answer.
    """
    done = subprocess.run(["git", *words], cwd=cwd, capture_output=True, check=True, timeout=10)
    return os.fsdecode(done.stdout)


@functools.cache
def _commit(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        found["commit"] = git("rev-parse", "HEAD", cwd=folder).strip()
        found["dirty"] = bool(git("status", "--porcelain", "--untracked-files=no", cwd=folder).strip())
    return found


@functools.cache
def _own() -> str:
    """One digest of the trainer."""
    whole = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        whole.update(str(path.relative_to(_PACKAGE)).encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()[:10]


def _named(value: Any) -> Iterator[str]:
    """Every dotted name among the values: targets, and functions such as `curriculum.score`."""
    if isinstance(value, Mapping):
        for entry in value.values():
            yield from _named(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _named(entry)
    elif isinstance(value, str) and _DOTTED.fullmatch(value):
        yield value


def _files(names: Iterable[str]) -> dict[str, str]:
    """The digests of the files that these names are found in, and of those that they import."""
    roots, found = _roots(tuple(sys.path), Path.cwd()), dict[str, str]()
    waiting, seen = list(names), set[str]()
    while waiting:
        if (name := waiting.pop()) in seen:
            continue
        seen.add(name)
        for root, path in _modules(name, roots):
            key = path.relative_to(root).as_posix()
            if key not in found:
                found[key], imported = _read(path, path.relative_to(root).with_suffix("").parts)
                waiting += imported
    return dict(sorted(found.items()))


@functools.cache
def _roots(entries: tuple[str, ...], here: Path) -> tuple[Path, ...]:
    """The entries of sys.path that hold the user's own code: neither Python's nor installed."""
    python = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]
    paths = [(here / entry).resolve() for entry in entries if not entry.endswith(".zip")]
    own = [p for p in paths if not set(_INSTALLED) & set(p.parts) and not any(p.is_relative_to(s) for s in python)]
    return tuple(dict.fromkeys(own))


def _modules(name: str, roots: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Root and path of the modules that Python imports for a name: its packages', and the module's own."""
    parts = name.split(".")
    if parts[0] == _PACKAGE.name:
        return []
    for root in roots:
        found, folder = [], root
        for part in parts:
            if (file := folder / f"{part}.py").is_file() and not (folder / part / "__init__.py").is_file():
                found.append((root, file))
                break
            folder = folder / part
            if not folder.is_dir():
                break
            if (package := folder / "__init__.py").is_file():
                found.append((root, package))
        if found:
            return found
    return []


@functools.cache
def _read(path: Path, module: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The digest of a file, and the names that it imports, at its top or inside of functions."""
    source, names = path.read_bytes(), []
    with contextlib.suppress(SyntaxError, ValueError):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                parts = [*(module[: -node.level] if node.level else ()), *(node.module or "").split(".")]
                names += [".".join(filter(None, [*parts, alias.name])) for alias in node.names]
    return hashlib.sha256(source).hexdigest()[:10], tuple(names)
