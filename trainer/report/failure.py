"""What failed in a run: the step that its capsule holds, run again; without one, the step is looked for first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.build import build, read_config
from trainer.capsule import read
from trainer.errors import CheckpointError, DivergedError
from trainer.folder import RunFolder, shown, step_name
from trainer.loop import Trainer
from trainer.out_of_memory import in_use
from trainer.replay import replay
from trainer.resuming import put_back
from trainer.state import State


def replayed(path: Path) -> tuple[dict[str, str], bool]:
    """Runs the step again that a run failed at.

    Args:
        path: a run folder, or a capsule in one.

    Returns:
        What was found, label and text, and whether the step went wrong again.

    Raises:
        CheckpointError: there is no such folder or capsule, or the run did not fail in a step.
    """
    folder = RunFolder(path if path.is_dir() else path.parent.parent)
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such run folder or capsule")
    result = folder.read_status().get("result") or {}
    # that of the newest failure, and not of an older one
    newest = folder.capsule / f"{step_name(result.get('step', 0) + 1)}.pt"
    files = [path] if path.is_file() else [newest] if newest.exists() else []
    capsule = read(files[0]) if files else {}
    if files and not folder.config.is_file():
        raise CheckpointError(
            f"{folder}: a script made this run, and only it can build the trainer again; write there:\n"
            "  from trainer.capsule import read\n  from trainer.replay import replay\n"
            f"  print(replay(trainer, read({str(files[0])!r})))"
        )
    cfg = read_config(folder.path)
    where = shown(files[0].absolute()) if files else "found by training again from the last checkpoint"
    capsule = capsule or _looked_for(build(cfg, micro_batch=in_use(cfg, folder)), folder, result)
    found = replay(build(cfg), capsule)
    batches = "1 micro-batch" if len(capsule["group"]) == 1 else f"{len(capsule['group'])} micro-batches"
    told = {
        "step": f"{capsule['step']} in epoch {capsule['epoch']}, of {batches}, {where}",
        "then": capsule["error"].splitlines()[0],
        "now": found.error or "the step went well; is this another device, or another version of torch?",
        **found.facts,
    }
    return told, bool(found.error)


def _looked_for(trainer: Trainer, folder: RunFolder, result: Mapping[str, Any]) -> State:
    """Trains from the last checkpoint with a look at every update, as a GPU is not made to wait for while training."""
    if result.get("exit_code") != DivergedError.exit_code:
        raise CheckpointError(f"{folder}: holds no capsule: its last attempt did not fail in a step")
    trainer.checkpoints.attach(folder.checkpoints)
    found = trainer.checkpoints.newest()
    trainer.checkpoints.attach(None)
    if found is not None:
        put_back(trainer, found)
    trainer.update.looks = True
    trainer.epochs = result["epoch"] + 1
    start = shown(found.path.absolute()) if found else "the start"
    print(f"training again from {start} to find the step ...", flush=True)
    try:
        trainer.fit()
    except DivergedError:
        if trainer.watch.caught is not None:
            return trainer.watch.caught
    raise CheckpointError(f"{folder}: every step of the epoch that failed went well this time")
