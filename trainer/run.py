"""One run, from a composed config to its outcome: its folder, its records, its trackers, its training."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import config
from trainer._hydra import instantiate
from trainer.agent import Announced, kept
from trainer.code_version import changes, code_version
from trainer.errors import CheckpointError, ConfigError, TrainerError
from trainer.folder import RunFolder, claim, write_whole
from trainer.out_of_memory import halving
from trainer.pruning import Trial, is_pruned
from trainer.records import RESUME_WORDS, Outcome, Resume
from trainer.sync import Job, send
from trainer.tracking.console import HeldBack
from trainer.tracking.defaults import trackers, wandb_id
from trainer.tracking.mailbox import Mailbox
from trainer.tracking.resend import SECONDS
from trainer.tracking.shipper import Shipper

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger("trainer")

FREE = ("epochs", "evaluate_every", "log_every", "checkpoint_every", "skip_nonfinite", "resume", "resume_changes",
        "auto_accumulate", "strict_code", "name", "runs", "wandb", "checkpoint", "hooks", "early_stopping.patience",
        "early_stopping.min_delta", "data.num_workers", "data.root")  # fmt: skip
"""Keys that may differ when a run goes on: they change neither the model nor the order of the data."""


@dataclass(frozen=True)
class Place:
    """Where a run lies, and what it is a part of.

    Attributes:
        folder: the run folder. resume: what to do with a run that is there already.
        sweep: the folder of the sweep that it is a job of, or None.
        choices: the file chosen in each config group.
        agent: what an agent of wandb's announced, where one started this run.
        trial: which trial of a search it is, if it is one.
    """

    folder: RunFolder
    resume: Resume = "never"
    sweep: Path | None = None
    choices: Mapping[str, Any] | None = None
    agent: Announced | None = None
    trial: Trial | None = None


def place(cfg: DictConfig, choices: Mapping[str, Any]) -> Place:
    """The place of a single run: a new folder, or with `resume=auto` or `must` that of the same config.

    Raises:
        ConfigError: nothing can be written there. CheckpointError: `must`, and there is no such run.
    """
    (root, name), resume = named(cfg), resume_word(cfg.resume, "never")
    if resume == "never":
        if name and (root / name / "config.yaml").exists():
            raise ConfigError(f"name: {root / name} holds a run; type resume=auto to go on with it, or another name=")
        made_up = f"{experiment_of(choices)}-{time.strftime('%Y%m%d-%H%M%S')}"
        return Place(RunFolder(root / name) if name else claim(root, made_up), "never", None, choices)
    digest = config.digest(cfg)
    found = RunFolder(root / name) if name else find(root, digest)
    if found is None or not found.config.exists():
        if resume == "must":
            raise CheckpointError(f"resume: there is no run of this config in {root}; type resume=auto to start one")
        fresh = RunFolder(root / name) if name else claim(root, f"{experiment_of(choices)}-{digest}")
        return Place(fresh, "auto", None, choices)
    return Place(found, resume, None, choices)


def named(cfg: DictConfig) -> tuple[Path, str]:
    """The folder of the runs, and the name that is given or empty; either may be typed as a number, as in `name=3`."""
    return Path(str(cfg.runs)), "" if cfg.name is None else str(cfg.name)


def resume_word(word: Any, default: Resume) -> Resume:
    """`never`, `auto` or `must`, as a config without problems says it.

    Raises:
        ConfigError: it is a run, whose own config would have to be read instead of this one.
    """
    if word is None:
        return default
    if word not in RESUME_WORDS:
        raise ConfigError(f"resume: {word} is one run; it is gone on with by trainer resume={word}, not by a config")
    return word  # type: ignore[no-any-return]


def find(root: Path, digest: str) -> RunFolder | None:
    """The newest run folder below `root` of the config with that digest."""
    found = [RunFolder(path.parent) for path in root.glob("*/status.json")]
    same = [folder for folder in found if folder.read_status().get("config_hash") == digest]
    return max(same, key=lambda folder: folder.read_status().get("started") or 0, default=None)


def experiment_of(choices: Mapping[str, Any]) -> str:
    chosen = str(choices.get("experiment") or "none")
    return "run" if chosen in ("none", "None") else chosen


def run(cfg: DictConfig, at: Place) -> Outcome:
    """Trains what the config describes, goes on with it, or answers with the stored result of a finished run.

    Raises:
        TrainerError: the run could not start, or failed; a folder made for a run that could not start is gone again.
    """
    outcome = _run(cfg, at)
    if at.agent is not None and at.agent.id != at.folder.read_status().get("wandb_id"):
        _hand_over(cfg, at)
    return outcome


def _run(cfg: DictConfig, at: Place) -> Outcome:
    folder = at.folder
    with folder.hold():
        fresh = {path.name for path in folder.path.iterdir()} <= {".lock"}  # made for this run, so it may go again
        try:
            refuse_changes(cfg, folder)
            status = folder.read_status()
            if at.resume == "never" and folder.used:
                raise ConfigError(f"resume: {folder} holds a run already; type resume=auto to go on with it")
            whole = _answers(status) and not cut_short(status, at)
            if at.resume != "never" and whole and not _extended(cfg, folder, status):
                return stored_outcome(status, changed_code(cfg, folder) if cfg.get("strict_code") else "")
            refuse_other_code(cfg, folder)
            return _train(cfg, at)
        except TrainerError as error:
            if fresh and error.exit_code == 2 and not folder.metrics.exists():
                shutil.rmtree(folder.path, ignore_errors=True)
                with contextlib.suppress(OSError):
                    folder.path.parent.rmdir()
            if error.__cause__ is not None:
                _log_traceback(folder)
            raise
        except Exception:
            _log_traceback(folder)
            raise


def _log_traceback(folder: RunFolder) -> None:
    with contextlib.suppress(OSError), open(folder.log, "a", encoding="utf-8") as file:
        file.write(traceback.format_exc())


def _train(cfg: DictConfig, at: Place) -> Outcome:
    changed = changed_code(cfg, at.folder)
    _note_code(cfg, at.folder, changed)
    write_whole(at.folder.config, config.unresolved_yaml(config.from_anywhere(cfg)))
    warned = f"code: {changed} since this run was started; the bits may differ from here on; strict_code=true refuses"

    def attempt(micro_batch: int | None, words: str) -> Outcome:
        if words:
            return _attempt(cfg, replace(at, resume="auto"), micro_batch, words)
        return _attempt(cfg, at, micro_batch, warned if changed else "")

    return halving(cfg, at.folder, attempt)


def _attempt(cfg: DictConfig, at: Place, micro_batch: int | None, told: str) -> Outcome:
    """Trains from the last checkpoint, or the start, to the end; `told` is what its log says first, if anything."""
    folder, shipper = at.folder, _shipper(cfg, at)
    shipper.launch()  # wandb is imported there while torch is imported here
    try:
        from trainer.build import build

        with HeldBack() as early:
            if told:
                log.warning("%s", told)
            views = trackers(folder, shipper, early)
            pruning = at.trial.pruning(folder) if at.trial else None
            return build(
                cfg, folder, resume=at.resume, trackers=views, micro_batch=micro_batch, pruning=pruning
            ).fit()
    finally:
        shipper.abandon()


def _shipper(cfg: DictConfig, at: Place) -> Shipper:
    """What sends the run to wandb; its id there, and by whom it was announced, are kept with the run."""
    folder, settings = at.folder, instantiate(cfg.wandb, "wandb")
    agent, status, before = at.agent or kept(at.folder), folder.read_status(), Mailbox(folder).last_spec()
    choices = at.choices or (before.config.get("choices") if before else None) or {}
    values = {**config.plain(cfg), "choices": dict(choices), "code": status.get("code_version")}
    if at.trial is not None:
        values["trial"] = at.trial.number
    known: dict[str, Any] = {"wandb_id": wandb_id(folder)}
    if agent is not None:
        known = {"wandb_id": agent.id, "agent": asdict(agent)}
        values = agent.config(values)
        place = {"project": agent.project or settings.project, "entity": agent.entity or settings.entity}
        settings = replace(settings, **place)
        if status.get("wandb_id") not in (None, agent.id):
            print(
                f"{folder}: was {status['wandb_id']} on wandb; all of it is sent as {agent.id} of sweep {agent.sweep}"
            )
    folder.write_status(config_hash=status.get("config_hash") or config.digest(cfg), **known)
    return Shipper(
        folder,
        settings,
        id=known["wandb_id"],
        name=folder.path.name,
        group=at.sweep.name if at.sweep else None,
        dir=at.sweep,
        config=values,
        sweep=agent.sweep if agent else None,
    )


def _hand_over(cfg: DictConfig, at: Place) -> None:
    """Sends a finished run whole as the one that an agent announced, which awaits its result."""
    with at.folder.hold():  # nobody may be training here while it is called otherwise
        renamed = _shipper(cfg, at).rename()
    if renamed:
        job = Job(at.folder)
        send(job, SECONDS)
        print(f"{at.folder}: {job.line}", flush=True)


def refuse_changes(cfg: DictConfig, folder: RunFolder) -> None:
    """Compares the config with the one that the folder's run was started with.

    Raises:
        ConfigError: keys differ that change the model or the order of the data; all are told.
    """
    if not folder.config.exists() or cfg.get("resume_changes") == "allow":
        return
    changed = config.difference(config.plain(config.read(folder.config)), config.plain(cfg))
    told = [
        f"{key}: was {old!r} when this run was started and is {new!r} now"
        for key, (old, new) in changed.items()
        if not any(key == free or key.startswith(free + ".") for free in FREE)
    ]
    if told:
        end = f"type resume_changes=allow to go on with {folder} all the same, or resume=never for a new run"
        raise ConfigError([*told, end])


def refuse_other_code(cfg: DictConfig, folder: RunFolder) -> None:
    """Compares the code with that which the folder's run was started with, where `strict_code` asks for it.

    Raises:
        ConfigError: it differs; the files are told.
    """
    if cfg.get("strict_code") and (changed := changed_code(cfg, folder)):
        end = f"type strict_code=false to go on with {folder} all the same, or resume=never for a new run"
        raise ConfigError([f"code: {changed} since this run was started", end])


def changed_code(cfg: DictConfig, folder: RunFolder) -> str:
    """How the code differs from that which made the run's checkpoints, in words; empty also where there are none."""
    begun = any(folder.checkpoints.glob("step-*"))
    before = folder.read_status().get("code_version") if begun else None
    return changes(before, code_version(config.unresolved(cfg))) if before else ""


def _note_code(cfg: DictConfig, folder: RunFolder, changed: str) -> None:
    """Keeps the code version of a run that is begun, and beside it that of an attempt which goes on by other code."""
    status, now = folder.read_status(), code_version(config.unresolved(cfg))
    if changed:
        attempt = str(status.get("attempt", 0) + 1)
        folder.write_status(code_versions={**status.get("code_versions", {}), attempt: now})
    elif not any(folder.checkpoints.glob("step-*")) or "code_version" not in status:
        folder.write_status(code_version=now)


def _answers(status: Mapping[str, Any]) -> bool:
    """Whether the run is finished and its result is known."""
    return status.get("state") == "finished" and isinstance(status.get("result"), dict)


def cut_short(status: Mapping[str, Any], at: Place) -> bool:
    """Whether a search has ended the run before its end, and it is asked for by somebody who does not prune."""
    return is_pruned(status) and (at.trial is None or at.trial.rule is None)


def _extended(cfg: DictConfig, folder: RunFolder, status: Mapping[str, Any]) -> bool:
    """Whether a finished run has more to do: its epochs were done and now there are more, or it stopped early and now
    there is more patience."""
    result = status.get("result") or {}
    if result.get("reason", "").endswith(" done"):
        return bool(cfg.epochs > result.get("epoch", 0))
    before, now = config.read(folder.config).early_stopping.patience, cfg.early_stopping.patience
    return before is not None and (now is None or now > before) and cfg.epochs > result.get("epoch", 0)


def stored_outcome(status: Mapping[str, Any], changed: str = "") -> Outcome:
    """The outcome of a finished run from its status.json; `changed` says how the code differs from what made it."""
    result = dict(status["result"])
    reason = f"already finished: {result['reason']}" + (f" (by other code: {changed} since then)" if changed else "")
    return Outcome(state="finished", **{**result, "reason": reason, "exit_code": 0})
