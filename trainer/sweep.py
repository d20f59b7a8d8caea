"""A sweep: jobs whose folders follow from their content, so that the same command again does what is missing."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import _hydra, config
from trainer.errors import BusyError, TrainerError
from trainer.folder import RunFolder
from trainer.records import STOPPED
from trainer.run import Place, experiment_of, named, resume_word, run

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger("trainer")


def job_place(cfg: DictConfig, overrides: Sequence[str], choices: Mapping[str, Any]) -> Place:
    """The place of one job: `<runs>/<name or experiment>-sweep/<readable overrides>-<digest of its config>`.

    The digest alone decides: a folder of the same digest is used even if its readable part differs.
    """
    runs, name = named(cfg)
    root = runs / (name or f"{experiment_of(choices)}-sweep")
    digest = config.digest(cfg)
    ignored = ("name=", "runs=", "resume=", "wandb.", "hydra", "experiment=")
    words = [word for word in overrides if not word.lstrip("+~").startswith(ignored)]
    readable = re.sub(r"[^A-Za-z0-9_.=,+-]+", "_", ",".join(words))[:80].strip("_,.") or "job"
    same = sorted(root.glob(f"*-{digest}"))
    folder = RunFolder(same[0] if same else root / f"{readable}-{digest}")
    return Place(folder, resume_word(cfg.resume, "auto"), root, choices)


class Job:
    """What Hydra calls for each job. One job's failure, its `sys.exit` or a press of Stop on the website never ends the
    sweep; a signal does."""

    exit_code = 130  # of a sweep that a signal has ended

    def __init__(self) -> None:
        self.refused: dict[Path, str] = {}  # why a job did not start

    def __call__(self, cfg: DictConfig) -> float | None:
        """Runs one job and gives its best monitored value, which sweepers that search ask for."""
        at = job_place(cfg, *_hydra.job())
        print(f"\n{at.folder}", flush=True)
        try:
            outcome = run(cfg, at)
        except BusyError as error:
            print(f"{at.folder.path.name}: {error}", flush=True)
            return None
        except TrainerError as error:
            print(f"{at.folder.path.name}: {error}", flush=True)
            self._failed(at.folder, str(error))
            return None
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            self._failed(at.folder, f"{type(error).__name__}: {error}")
            return None
        if outcome.state == "interrupted" and outcome.reason != STOPPED:
            self.exit_code = outcome.exit_code
            raise KeyboardInterrupt
        if outcome.reason.startswith("already finished"):
            print(outcome.reason, flush=True)
        return outcome.best.get(str(cfg.early_stopping.monitor))

    def _failed(self, folder: RunFolder, why: str) -> None:
        if folder.path.is_dir():
            folder.write_status(state="failed", error=why)
        else:
            self.refused[folder.path] = why


def table(places: Sequence[Place], refused: Mapping[Path, str]) -> tuple[str, bool]:
    """How every job of a sweep ended, a line each, and whether all are finished."""
    lines, states = [], []
    for at in places:
        status = at.folder.read_status()
        why = refused.get(at.folder.path, status.get("error") or "")
        state = "refused" if at.folder.path in refused else at.folder.state()
        states.append(state)
        result, monitor = status.get("result") or {}, status.get("monitor", "")
        best = (result.get("best") or {}).get(monitor)
        shown = f"{monitor} {best:.4f} at epoch {result['best']['epoch']}" if best is not None else ""
        error = why.splitlines()[:1] if state in ("failed", "refused") else []
        lines.append(f"  {state:<12} {at.folder.path.name}  {shown}{''.join(error)}".rstrip())
    finished = states.count("finished")
    root = places[0].sweep if places else None
    head = f"\n{root}: {finished} of {len(places)} jobs finished"
    return "\n".join([head, *lines]), finished == len(places)
