"""`trainer-dashboard`: a saved view on wandb that compares the runs of a sweep or of a project."""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import importlib.util
import itertools
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer import config
from trainer.errors import ConfigError, TrainerError, brief
from trainer.folder import RunFolder, shown
from trainer.report import board as boards
from trainer.report.board import Board, Shown
from trainer.report.entries import Entry
from trainer.report.entries import find as find_runs
from trainer.tracking.attempts import sync_command
from trainer.tracking.journal import by_step
from trainer.tracking.mailbox import Mailbox, Sent, Tail
from trainer.tracking.resend import unanswered

NEWEST = 500  # runs of a project that are looked at for the keys in which they differ
INSTALL = "trainer-dashboard needs wandb-workspaces; type pip install 'wandb-trainer[dashboard]'"


@dataclass(frozen=True)
class Target:
    """Where the view is to be, and what it is called there."""

    project: str
    entity: str | None
    name: str

    def address(self, entity: str) -> str:
        """What the website calls the view: it follows from its name, so that another call finds it from anywhere."""
        digest = hashlib.sha256(f"{entity}/{self.project}/{self.name}".encode()).digest()
        return "".join("0123456789abcdefghijklmnopqrstuvwxyz"[byte % 36] for byte in digest[:11])


def program(words: Sequence[str]) -> int:
    """What `trainer-dashboard` does with the words after it."""
    about = "Makes a view on wandb that compares the runs of a sweep or a project; again: brings that view up to date."
    parser = argparse.ArgumentParser("trainer-dashboard", description=about)
    parser.add_argument("source", metavar="PROJECT|PATH", help="[ENTITY/]PROJECT, or the folder of a sweep or a run")
    parser.add_argument("--name", help="of the view; the folder's name, or the project's")
    given = parser.parse_args(words)
    from trainer.dotenv import load_env

    load_env()
    path = Path(given.source)
    if path.is_dir():
        target, board, left = of_folder(path, given.name)
    else:
        target, board, left = _of_project(given.source, given.name), None, ""
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise ConfigError(INSTALL)
    url, new = _saved(target, board, path)
    print(f"{'made' if new else 'brought up to date'}  {url}")
    if left:
        print(left)
    return 0


def _of_project(source: str, name: str | None) -> Target:
    if not re.fullmatch(r"([\w.-]+/)?[^/\\#?%:]{1,128}", source):
        raise ConfigError(
            f"{source}: is neither a folder nor a project; type ENTITY/PROJECT, PROJECT or the folder of a sweep"
        )
    entity, _, project = source.rpartition("/")
    return Target(project, entity or os.environ.get("WANDB_ENTITY") or None, _named(name, project))


def _named(given: str | None, otherwise: str) -> str:
    """The name of a view; the website takes no symbols."""
    symbols = {each for each in given or otherwise if unicodedata.category(each)[0] in "SC"}
    if given is not None and (symbols or not given.strip()):
        raise ConfigError(f"--name: {given!r} {'holds ' + sorted(symbols)[0] if symbols else 'is empty'}; use letters")
    return given or "".join("-" if each in symbols else each for each in otherwise)


# ---------------------------------------------------------------------------------------------------------- of a folder


def of_folder(path: Path, name: str | None = None) -> tuple[Target, Board, str]:
    """What is to be shown of a sweep's or a run's folder, or one above several; and a word on what wandb lacks of it.

    A job of a sweep stands for the sweep.

    Raises:
        ConfigError: there is no run, or there are several projects.
    """
    path = path.absolute()
    spec = Mailbox(RunFolder(path)).last_spec()
    if spec is not None and spec.group == path.parent.name:
        path = path.parent
    entries = find_runs([str(path)])
    meant = [entry for entry in entries if Mailbox(entry.folder).last_spec()] or entries  # others are not on wandb
    places = [_place(entry) for entry in meant]
    projects = {project for project, _, _ in places if project}
    entities = {entity for _, entity, _ in places if entity}
    if len(projects) > 1 or len(entities) > 1:
        told = ", ".join(sorted({f"{entity or '...'}/{project}" for project, entity, _ in places}))
        raise ConfigError(f"{shown(path)}: holds runs of several projects ({told}); give the folder of a sweep")
    if not projects:
        raise ConfigError(f"{shown(path)}: says no project; its runs hold no config.yaml")
    groups = dict.fromkeys(group for _, _, group in places if group)
    ids = [_id(entry) for entry, (_, _, group) in zip(meant, places, strict=True) if not group]
    status = next((entry.status for entry in entries if entry.status.get("monitor")), {})
    shows = [_shown(entry) for entry in meant]
    board = Board(shows, status.get("monitor", "val/loss"), status.get("mode", "min"), list(groups), ids)
    waiting = sum(sync_command(entry.folder) is not None for entry in meant)
    left = f"{waiting} of its runs are not there yet: trainer-sync {shown(path)}" if waiting else ""
    if not any(entry.folder.shipper.is_dir() for entry in meant):
        raise ConfigError(f"{shown(path)}: its runs were trained with wandb.mode=disabled, so wandb has none of them")
    return Target(projects.pop(), entities.pop() if entities else None, _named(name, path.name)), board, left


def _place(entry: Entry) -> tuple[str | None, str | None, str | None]:
    """The project, the entity and the group of a run."""
    spec = Mailbox(entry.folder).last_spec()
    if spec is not None:
        return spec.project, spec.entity, spec.group
    project, entity, group = (entry.config.get(f"wandb.{key}") for key in ("project", "entity", "group"))
    return project, entity, group or entry.folder.path.parent.name


def _id(entry: Entry) -> str:
    sent = Mailbox(entry.folder).read(Sent) or Sent()
    return sent.id or str(entry.status.get("wandb_id") or entry.folder.path.name)


def _shown(entry: Entry) -> Shown:
    folder, result, spec = entry.folder, entry.status.get("result") or {}, Mailbox(entry.folder).last_spec()
    rows = [result.get("best") or {}, result.get("last") or {}]
    for line in Tail(folder.metrics).lines()[-200:] if not rows[0] else ():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    rows += by_step(Tail(folder.speed).lines()).values()
    logged = {key for row in rows for key in row}
    pictures = set()
    for file in sorted(folder.media.glob("step-*/panels.json"))[-1:]:
        with contextlib.suppress(OSError, ValueError):
            pictures = {str(panel["name"]) for panel in json.loads(file.read_text(encoding="utf-8"))}
    if spec is not None and spec.config:
        return Shown(spec.config, logged, pictures)
    return Shown(config.plain(config.read(folder.config)) if entry.config else {}, logged, pictures)


# ------------------------------------------------------------------------------------------------------------ on wandb


def _saved(target: Target, board: Board | None, path: Path) -> tuple[str, bool]:
    """Makes or changes the view. Returns its address, and whether it is new.

    Raises:
        ConfigError: no login, or no such project. TrainerError: the server cannot be asked, or does not do it.
    """
    os.environ |= {"WANDB_SILENT": "true", "WANDB_MODE": "online"}
    import wandb

    if told := unanswered(wandb):
        raise (ConfigError if told[1] == 2 else TrainerError)(told[0])
    server = str(wandb.setup().settings.base_url)
    try:
        api = wandb.Api()
        entity = target.entity or str(api.default_entity)
        board = board or _of_runs(api.runs(f"{entity}/{target.project}", order="-created_at", per_page=100, lazy=False))
        view = _view(target, entity)
        new = not view._internal_id
        keys = boards.axes([run.config for run in board.runs])
        own = boards.sections(board, keys)
        view.sections = own + [section for section in view.sections if section.name not in boards.OWN]
        for name, value in boards.runset(board, keys).items():
            setattr(view.runset_settings, name, value)
        view.save()
        return f"{api.project(target.project, entity).url}?nw={target.address(entity)}", new
    except ConfigError:
        raise
    except Exception as error:
        if "project" in str(error).lower() and "not f" in str(error):
            hint = f"type trainer-sync {shown(path)} first" if path.is_dir() else "is it spelt so?"
            raise ConfigError(f"{entity}/{target.project}: there is no such project on {server}; {hint}") from error
        why = "it does not answer" if "in time" in str(error) else brief(error)
        raise TrainerError(f"{server}: {why}; nothing was made") from error


def _of_runs(runs: Iterable[Any]) -> Board:
    """What is to be shown of the runs of a project."""
    shows, monitors = [], collections.Counter[tuple[str, str]]()
    for run in itertools.islice(runs, NEWEST):
        summary = dict(run.summary_metrics)
        shows.append(Shown(run.config, summary, [name for name, value in summary.items() if _is_picture(value)]))
        facts, stopping = run.config.get("run"), run.config.get("early_stopping")
        told = facts if isinstance(facts, dict) and "monitor" in facts else stopping
        if isinstance(told, dict) and told.get("monitor"):
            monitors[str(told["monitor"]), str(told.get("mode"))] += 1
    if not shows:
        raise ConfigError("the project has no run yet")
    (monitor, mode), _ = (monitors.most_common(1) or [(("val/loss", "min"), 0)])[0]
    return Board(shows, monitor, mode if mode in ("min", "max") else "min")


def _is_picture(value: Any) -> bool:
    return isinstance(value, dict) and "image" in str(value.get("_type"))


def _view(target: Target, entity: str) -> Any:
    """The view as it is there, or a new one."""
    import wandb_workspaces.workspaces as ws

    address = target.address(entity)
    try:
        return ws.Workspace.from_url(f"https://wandb.ai/{entity}/{target.project}?nw={address}")
    except ValueError as error:
        if not str(error).startswith("Workspace"):
            raise
    view = ws.Workspace(entity=entity, project=target.project, name=target.name)
    view.settings.max_runs = 100
    view._internal_name = f"nw-{address}-v"
    return view
