"""What failed in a run: the step that its capsule holds, run again; without one, the step is looked for first."""

from __future__ import annotations

from pathlib import Path

from trainer.build import build, read_checkpoint, read_config
from trainer.capsule import read
from trainer.errors import CheckpointError, DivergedError
from trainer.folder import RunFolder, shown
from trainer.loop import Trainer
from trainer.replay import replay
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
    files = sorted(folder.capsule.glob("step-*.pt")) if path.is_dir() else [path]
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such run folder or capsule")
    if files and not folder.config.is_file():
        raise CheckpointError(
            f"{folder}: a script made this run, and only it can build the trainer again; write there:\n"
            "  from trainer.capsule import read\n  from trainer.replay import replay\n"
            f"  print(replay(trainer, read({str(files[-1])!r})))"
        )
    cfg = read_config(folder.path)
    if files:
        capsule = read(files[-1])
        where = shown(files[-1].absolute())
    else:
        trainer = build(cfg)
        capsule, where = _looked_for(trainer, folder), "found by training again from the last checkpoint"
    found = replay(build(cfg), capsule)
    batches = "1 micro-batch" if len(capsule["group"]) == 1 else f"{len(capsule['group'])} micro-batches"
    told = {
        "step": f"{capsule['step']} in epoch {capsule['epoch']}, of {batches}, {where}",
        "then": capsule["error"].splitlines()[0],
        "now": found.error or "the step went well; is this another device, or another version of torch?",
        **found.facts,
    }
    return told, bool(found.error)


def _looked_for(trainer: Trainer, folder: RunFolder) -> State:
    """Trains from the last checkpoint with a look at every update, as a GPU is not made to wait for while training."""
    status = folder.read_status()
    if (status.get("result") or {}).get("exit_code") != DivergedError.exit_code:
        raise CheckpointError(f"{folder}: holds no capsule: no step of this run failed")
    checkpoint = read_checkpoint(folder.path, "last")
    trainer.put_back(checkpoint)
    trainer.update.looks = not trainer.update.scaled
    trainer.epochs = checkpoint.manifest["epoch"] + 1
    print(f"training again from {shown(checkpoint.path.absolute())} to find the step ...", flush=True)
    try:
        trainer.fit()
    except DivergedError:
        if trainer.watch.caught is not None:
            return trainer.watch.caught
    raise CheckpointError(f"{folder}: every step of the epoch that failed went well this time")
