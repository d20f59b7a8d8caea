"""The programs: `trainer`, and `trainer-check`, `-compare`, `-dashboard`, `-diff`, `-evaluate`, `-replay`, `-sync`."""

from __future__ import annotations

import inspect
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import ConfigError, TrainerError, did_you_mean
from trainer.folder import shown

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from trainer.records import Outcome
    from trainer.run import Place

# Idle threads of an operation sleep instead of spinning: on a machine with other work that is worth a factor of ten.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def train(argv: Sequence[str] | None = None) -> int:
    """`trainer [GROUP=FILE] [KEY=VALUE] ...`: one run; with `-m` a sweep; with `resume=FOLDER` that run goes on."""
    words = list(sys.argv[1:] if argv is None else argv)
    return _guarded(lambda: _train(words))


def _train(words: list[str]) -> int:
    from trainer._hydra import implied
    from trainer.dotenv import load_env

    load_env()
    if words and words[0] in ("--help", "-h", "help"):
        from trainer.help import help_text

        print(help_text())
        return 0
    words = implied(words)
    flags = [word for word in words if word.startswith("-")]
    overrides = [word for word in words if not word.startswith("-")]
    if any(flag.partition("=")[0] in _QUESTIONS for flag in flags):
        return _hydra_only(words)
    unknown = [flag for flag in flags if flag not in ("-m", "--multirun")]
    if unknown:
        raise ConfigError([_no_option(flag) for flag in unknown])
    if flags:
        return _sweep(overrides)
    cfg, at = _single(overrides)
    from trainer.run import run

    return _report(run(cfg, at), at)


def _no_option(flag: str) -> str:
    from trainer.config import SCALARS

    name = flag.lstrip("-").partition("=")[0]
    hint = f"type {name}=VALUE" if name in SCALARS or "." in name else did_you_mean(flag, ("-m", *_QUESTIONS))
    agent = "; a sweep file of wandb's says ${args_no_hyphens}" if os.environ.get("WANDB_SWEEP_ID") else ""
    return f"{flag}: is no option; {hint}{agent}"


_QUESTIONS = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--version", "--shell-completion", "-sc",
              "--resolve", "-p")  # fmt: skip
"""Options that Hydra answers; nothing is trained."""


def _hydra_only(words: list[str]) -> int:
    """`--cfg job`, `--info`, TAB completion and the like: Hydra answers, and nothing is trained."""
    from trainer import _hydra

    if several := sorted({"-m", "--multirun"} & set(words)):
        raise ConfigError(f"{several[0]}: these options show one config; leave it out, and give each key one value")
    sys.argv[1:] = words
    _hydra.main(lambda cfg: None)()
    return 0


def _single(overrides: list[str]) -> tuple[DictConfig, Place]:
    """The config of one run and where it goes."""
    from trainer import run
    from trainer.agent import announced
    from trainer.overrides import check_with_choices
    from trainer.sweep import job_place

    if folder := _one_run(overrides):
        return _resumed(folder, [word for word in overrides if not word.startswith("resume=")])
    cfg, choices = check_with_choices(overrides)
    if agent := announced():  # as a job of a sweep, so that all runs of the agents lie in one folder
        return cfg, replace(job_place(cfg, overrides, choices), agent=agent)
    return cfg, run.place(cfg, choices)


def _one_run(overrides: list[str]) -> str:
    """The folder or the model after `resume=`; empty if it is one of the words, or not there."""
    from trainer.records import RESUME_WORDS

    typed = next((word.partition("=")[2] for word in reversed(overrides) if word.startswith("resume=")), "")
    return "" if (typed := typed.strip("'\"")) in (*RESUME_WORDS, "null") else typed


def _resumed(path: str, overrides: list[str]) -> tuple[DictConfig, Place]:
    """The config that a run folder, or a model of wandb's, holds, with the words that are typed beside `resume=`."""
    from trainer import config, run
    from trainer.fetch import run_folder, undone
    from trainer.overrides import apply

    folder = run_folder(path, overrides)
    if not folder.config.is_file():
        raise ConfigError(
            f"resume: {path!r} is no run folder (it holds no config.yaml); type resume=FOLDER, or never, auto or must"
        )
    with undone(path, folder):
        cfg = apply(folder.config, overrides)
        if found := config.problems(cfg):
            raise ConfigError(found)
    return cfg, run.Place(folder, "auto", _sweep_of(folder.path), None)


def _sweep_of(folder: Path) -> Path | None:
    """The sweep that a run folder is a job of: the folder above, where that holds the jobs' common wandb folder."""
    own = (folder / "wandb").is_dir()
    return folder.parent if not own and (folder.parent / "wandb").is_dir() else None


def _sweep(overrides: list[str]) -> int:
    from trainer.overrides import check_sweep, sweep_settings
    from trainer.preflight import preflight
    from trainer.search import Optuna, search
    from trainer.space import sweeper_of
    from trainer.sweep import Sweep, table
    from trainer.tracking.attempts import sync_command

    if folder := _one_run(overrides):
        raise ConfigError(f"resume: {folder!r} is one run, and -m starts a sweep; leave out -m, or type resume=auto")
    node = sweep_settings(overrides)
    sweeper, sweep = sweeper_of(node), Sweep(node)
    try:
        if isinstance(sweeper, Optuna):
            text, all_finished = search(sweeper, overrides, sweep)
        else:
            sweep.add(check_sweep(overrides))
            preflight(sweep)
            sweep.run()
            text, all_finished = table(list(sweep.places.values()))
            if not all_finished:
                text += "\n\nthe same command again does what is missing; "
                text += "a job that failed fails again unless its cause is gone"
    finally:
        sweep.close()
    print(text)
    places = list(sweep.places.values())
    if any(sync_command(at.folder) for at in places):
        print(f"\nsend  {_typed(f'trainer-sync {shlex.quote(shown(places[0].folder.path.parent))}')}")
    return 128 + sweep.signal if sweep.signal else int(not all_finished)


def _report(outcome: Outcome, at: Place) -> int:
    """The last lines of a run: the commands that one would type next."""
    from trainer.tracking.attempts import sync_command

    if outcome.reason.startswith("already finished"):
        best = ", ".join(f"{k} {v:.4g}" for k, v in outcome.best.items() if k.startswith("val/") and "iou/" not in k)
        print(f"{at.folder}: {outcome.reason}; best: {best}")
    folder, wandb = shlex.quote(str(at.folder)), at.folder.wandb if at.sweep is None else at.sweep / "wandb"
    lines = {"look": f"wandb leet {shlex.quote(shown(wandb))}"} if wandb.is_dir() else {}
    if outcome.state == "interrupted":
        lines["resume"] = f"trainer resume={folder}"
    else:
        lines["compare"] = f"trainer-compare {shlex.quote(shown(at.folder.path.parent))}"
        if outcome.reason.endswith(" done"):
            lines["longer"] = f"trainer resume={folder} epochs={2 * outcome.epoch}"
    if command := sync_command(at.folder):
        lines["send"] = command
    print("\nnext")
    for label, command in lines.items():
        print(f"  {label:<8}  {_typed(command)}")
    return outcome.exit_code


def _typed(command: str) -> str:
    """The command as it works when it is pasted: with the path of its program where the shell would not find it."""
    program, _, rest = command.partition(" ")
    beside = Path(sys.executable).parent / program
    if shutil.which(program) or not beside.exists():
        return command
    return f"{shown(beside)} {rest}"


def evaluate(argv: Sequence[str] | None = None) -> int:
    """`trainer-evaluate RUN_FOLDER [--which best|last]`: measures a kept checkpoint on the run's validation data."""
    words = list(sys.argv[1:] if argv is None else argv)
    return _guarded(lambda: _evaluate(words))


def _evaluate(words: list[str]) -> int:
    import argparse
    import json

    parser = argparse.ArgumentParser("trainer-evaluate", description=evaluate.__doc__)
    parser.add_argument("run", help="a run folder")
    parser.add_argument("--which", choices=("best", "last"), default="best", help="which checkpoint (best)")
    given = parser.parse_args(words)
    from trainer.dotenv import load_env

    load_env()
    from trainer.build import build, read_checkpoint, read_config

    checkpoint = read_checkpoint(given.run, given.which)
    trainer = build(read_config(given.run))
    trainer.data.load_state_dict(checkpoint.state["data"])
    trainer.model.load_state_dict(checkpoint.weights)
    metrics = trainer.evaluator(trainer.model).metrics
    print(json.dumps({"checkpoint": checkpoint.path.name, "epoch": checkpoint.manifest["epoch"], **metrics}, indent=1))
    return 0


def replay(argv: Sequence[str] | None = None) -> int:
    """`trainer-replay RUN_FOLDER|CAPSULE`: runs a step that failed again, and says where in the model it went wrong."""
    words = list(sys.argv[1:] if argv is None else argv)
    return _guarded(lambda: _replay(words))


def _replay(words: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser("trainer-replay", description=replay.__doc__)
    parser.add_argument("path", help="a run folder, or a capsule of one (capsule/step-....pt)")
    given = parser.parse_args(words)
    from trainer.dotenv import load_env

    load_env()
    from trainer.report.failure import replayed

    found, seen = replayed(Path(given.path))
    for label, text in found.items():
        print(f"{label:<9} {text}")
    return 0 if seen else 1


def check(argv: Sequence[str] | None = None) -> int:
    """`trainer-check [GROUP=FILE] [KEY=VALUE] ... [-m]`: every mistake of a config or a sweep, and the learning rate of
    the whole run; nothing is trained.

    With `-m` also what the sweep will do, and, from a few updates of each kind of job, what it will cost.
    With `lr_find=true` (or `lr_find=200steps`) it trains for 100 updates while the learning rate rises from 1e-7 to 10,
    draws the loss over it, and suggests a rate; nothing of that is kept. With `-m` it does so for each job.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return _guarded(lambda: _check(words))


def _check(words: list[str]) -> int:
    if words and words[0] in ("--help", "-h"):
        print(inspect.cleandoc(str(check.__doc__)))
        return 0
    from trainer import _hydra, config
    from trainer.dotenv import load_env
    from trainer.lr_find import taken_out
    from trainer.overrides import check_sweep, compose_job
    from trainer.report.check import show_range_test, show_schedule, show_sweep

    load_env()
    overrides, find, told = taken_out(_hydra.implied([word for word in words if not word.startswith("-")]))
    swept = {"-m", "--multirun"} & set(words)
    try:
        jobs = check_sweep(overrides) if swept else [compose_job(overrides)]
    except ConfigError as error:
        told += error.problems
    if told:
        raise ConfigError(told)
    for warning in dict.fromkeys(warning for job in jobs for warning in config.warnings(job.cfg)):
        print(f"warning: {warning}")
    for job in jobs if find else ():
        show_range_test(job.cfg, find, " ".join(job.words) if swept else "")
    if swept and not find:
        show_sweep(overrides, jobs)
    if len(jobs) == 1 and not find:
        show_schedule(jobs[0].cfg)
    print(f"{len(jobs)} config{'s' if len(jobs) > 1 else ''} checked: no mistake found")
    return 0


def compare(argv: Sequence[str] | None = None) -> int:
    """`trainer-compare PATH...`: runs side by side, over their seeds, the best first; with `--watch` while they run."""
    from trainer.report.compare import program

    return _guarded(lambda: program(list(sys.argv[1:] if argv is None else argv)))


def diff(argv: Sequence[str] | None = None) -> int:
    """`trainer-diff A B`: in what two runs differ, from which step on, and the likely cause."""
    from trainer.report.diff import program

    return _guarded(lambda: program(list(sys.argv[1:] if argv is None else argv)))


def sync(argv: Sequence[str] | None = None) -> int:
    """`trainer-sync FOLDER...`: sends to wandb what it does not have of the runs in a folder tree, and checks it."""
    from trainer.sync import program

    return _guarded(lambda: program(list(sys.argv[1:] if argv is None else argv)))


def dashboard(argv: Sequence[str] | None = None) -> int:
    """`trainer-dashboard PROJECT|PATH`: a view on wandb that compares the runs of a sweep or a project."""
    from trainer.dashboard import program

    return _guarded(lambda: program(list(sys.argv[1:] if argv is None else argv)))


def _guarded(program: Callable[[], Any]) -> int:
    """Runs a program; an error that is meant for the user is shown as its text, with its own exit code."""
    try:
        return int(program())
    except ConfigError as error:
        _say(error.problems)
        return error.exit_code
    except TrainerError as error:
        _say(str(error).splitlines())
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever reads this has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _say(lines: Sequence[str]) -> None:
    print("\n".join(["", *(f"  {line}" for line in lines), ""]), file=sys.stderr)


def main() -> None:
    """What `python -m trainer.cli` does."""
    sys.exit(train())


if __name__ == "__main__":
    main()
