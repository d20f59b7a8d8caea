"""`resume=wandb:...`: a model of wandb's becomes a run folder, with which a run goes on as with any other."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer import config
from trainer.errors import CheckpointError, ConfigError
from trainer.folder import RunFolder, shown, write_whole
from trainer.records import MODEL
from trainer.sync import child
from trainer.tracking.download import ANSWER, INNER
from trainer.tracking.shipper import Wandb

SILENCE = 120.0  # seconds in which nothing may arrive


def run_folder(word: str, overrides: Sequence[str]) -> RunFolder:
    """What `resume=` names: a run folder, which need not be there, or a model, which becomes one."""
    return fetched(word, overrides) if word.startswith(MODEL) else RunFolder(word)


def fetched(word: str, overrides: Sequence[str]) -> RunFolder:
    """The new run folder of the model that `word` names.

    Args:
        word: `wandb:[[ENTITY/]PROJECT/]NAME[:ALIAS]`. overrides: what is typed beside it; `runs`, `name`,
            `wandb.project` and `wandb.entity` count here.

    Raises:
        ConfigError: it cannot be had, or its folder is there already. CheckpointError: it holds no checkpoint.
    """
    typed = {key.lstrip("+"): value.strip("'\"") for key, _, value in (word.partition("=") for word in overrides)}
    name = full_name(word, typed)
    runs = Path(typed.get("runs") or os.environ.get("RUNS_DIR") or "runs")
    if typed.get("name") and (runs / typed["name"]).exists():
        raise ConfigError(f"name: {shown(runs / typed['name'])} is there already; take another, or resume= that folder")
    with _workplace(runs) as work:
        print(f"download   {name}", flush=True)
        found = _download(name, runs, typed.get("name", ""), work)
        _settle_in(RunFolder(work / INNER), runs, found)
        folder = runs / found["folder"]
        try:
            (work / INNER).rename(folder)  # whole or not at all
        except OSError as error:
            raise ConfigError(f"resume: {shown(folder)} could not be made ({error.strerror})") from error
    return RunFolder(folder)


@contextlib.contextmanager
def undone(word: str, folder: RunFolder) -> Iterator[None]:
    """A model that was downloaded for words that are wrong is removed again: the corrected ones download it anew."""
    try:
        yield
    except ConfigError:
        if word.startswith(MODEL):
            shutil.rmtree(folder.path, ignore_errors=True)
        raise


def full_name(word: str, typed: dict[str, str]) -> str:
    """`[ENTITY/]PROJECT/NAME:ALIAS` of what was typed; what is missing is that of a run that would be started here."""
    parts = word.removeprefix(MODEL).split("/")
    if not 1 <= len(parts) <= 3 or not all(parts) or not re.fullmatch(r"[^:]+(:[^:]+)?", parts[-1]):
        raise ConfigError(f"resume: {word!r} names no model; type resume=wandb:ENTITY/PROJECT/NAME:ALIAS")
    if len(parts) == 1:
        project = typed.get("wandb.project") or os.environ.get("WANDB_PROJECT") or Wandb().project
        parts = [project, *parts]
    entity = typed.get("wandb.entity") or os.environ.get("WANDB_ENTITY")
    parts = [entity, *parts] if entity and len(parts) == 2 else parts
    return "/".join(parts) + ("" if ":" in parts[-1] else ":latest")


@contextlib.contextmanager
def _workplace(runs: Path) -> Iterator[Path]:
    """A folder beside the runs that is gone afterwards; where nothing came of it, `runs` too, if it was not there."""
    place, there = runs.absolute() / ".download", runs.exists()
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place) as work:
            yield Path(work)
    except OSError as error:
        raise ConfigError(f"runs: cannot write to {runs} ({error.strerror}); use runs=FOLDER") from error
    finally:
        with contextlib.suppress(OSError):
            place.rmdir()
            if not there:
                runs.rmdir()


def _download(name: str, runs: Path, folder: str, work: Path) -> dict[str, Any]:
    heard, size = time.monotonic(), 0
    with child("--download", name, str(runs.absolute()), folder, str(work), log=work / "child.log") as process:
        while process.poll() is None:
            now = _bytes(work)
            heard, size = (time.monotonic(), now) if now != size else (heard, size)
            if time.monotonic() - heard > SILENCE:
                raise ConfigError(f"resume: nothing of {name} arrived for {SILENCE:g} s; is there a network?")
            time.sleep(0.05)
    try:
        answer: dict[str, Any] = json.loads((work / ANSWER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        lines = (work / "child.log").read_text(errors="replace").strip().splitlines()
        raise ConfigError(f"resume: {name} could not be downloaded ({lines[-1] if lines else error})") from error
    if problem := answer.get("problem"):
        raise (CheckpointError if answer["exit_code"] == 5 else ConfigError)(f"resume: {problem}")
    return answer


def _bytes(work: Path) -> int:
    """How much is there at this moment; files come and go."""
    total = 0
    for place, _, names in os.walk(work):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(place) / name).stat().st_size
    return total


def _settle_in(folder: RunFolder, runs: Path, found: dict[str, Any]) -> None:
    """Makes the config that of a run which lies here, and is the same run on the website."""
    cfg = config.read(folder.config)
    cfg.runs = str(runs)
    for key in ("project", "entity", "group"):
        if found[key] is not None:
            cfg.wandb[key] = found[key]
    write_whole(folder.config, config.unresolved_yaml(cfg))
