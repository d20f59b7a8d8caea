"""A model of wandb's as a run folder again: what the process that owns wandb does for `resume=wandb:...`."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.errors import CheckpointError, ConfigError, TrainerError, brief
from trainer.folder import MANIFEST, RunFolder, shown
from trainer.tracking.arrival import init_timeout
from trainer.tracking.mailbox import Mailbox, Sent
from trainer.tracking.resend import unanswered

INNER, ANSWER = "run", "answer.json"  # in the folder that is worked in
_CHECKPOINT = re.compile(rf"checkpoints/step-(\d{{9}})/{re.escape(MANIFEST)}")


def download(name: str, runs: Path, folder: str, work: Path, load: Callable[[], Any]) -> int:
    """Brings a model into `work`/run, and writes what is known of it into `work`/answer.json. Returns the exit code.

    Args:
        name: `[ENTITY/]PROJECT/NAME:ALIAS`. runs, folder: where it shall go in the end; an empty name is the run's own.
        work: everything is written into it. load: gives the module wandb.
    """
    for kind in ("data", "cache", "artifact"):
        os.environ[f"WANDB_{kind.upper()}_DIR"] = str(work / kind)
    try:
        answer = _download(name, runs, folder, RunFolder(work / INNER), load())
    except TrainerError as error:
        answer = {"problem": str(error), "exit_code": error.exit_code}
    (work / ANSWER).write_text(json.dumps(answer), encoding="utf-8")
    return int(answer.get("exit_code", 0))


def _download(name: str, runs: Path, folder: str, to: RunFolder, wandb: Any) -> dict[str, Any]:
    """Brings it, and says where it belongs.

    Raises:
        ConfigError: it cannot be had, or is no model of a run. CheckpointError: it holds no checkpoint.
    """
    if problem := unanswered(wandb):
        raise ConfigError(problem[0])
    try:
        model = wandb.Api(timeout=math.ceil(init_timeout())).artifact(name)
    except Exception as error:  # also of the account, the address, the answer
        full = "its page shows its full name, ENTITY/PROJECT/NAME:ALIAS"
        raise ConfigError(f"wandb has no artifact {name} for you ({brief(error)}); {full}") from error
    if model.type != "model":
        raise ConfigError(f"{name} is an artifact of type {model.type}, and one of type model is needed")
    steps = [int(found[1]) for entry in model.manifest.entries if (found := _CHECKPOINT.fullmatch(entry))]
    if not steps:
        raise CheckpointError(f"{name} holds no checkpoint that this trainer has made")
    if to.config.name not in model.manifest.entries:
        raise ConfigError(f"{name} holds no {to.config.name}: a script made it, and can go on with it alone")
    folder = folder or Path(str(model.metadata.get("run") or model.name.partition(":")[0])).name
    if (runs / folder).exists():
        path = shown(runs / folder)
        raise ConfigError(f"{path} is there already; type resume={path} to go on with it, or add name=NAME")
    try:
        model.download(root=str(to.path), skip_cache=True)
        model.verify(str(to.path))  # the download alone does not look at what it got
        id = str(to.read_status()["wandb_id"])
    except Exception as error:
        raise ConfigError(f"{name} did not arrive whole ({brief(error)}); the same command tries again") from error
    box = Mailbox(to)
    box.clear()
    box.write(Sent(id=id, mode="online", step=max(steps), base=max(steps)))  # the website has the run, up to there
    place = {"entity": model.source_entity, "project": model.source_project, "group": model.metadata.get("group")}
    return {"folder": folder, "step": max(steps), **place}
