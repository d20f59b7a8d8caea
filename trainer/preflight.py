"""Before the first job of a sweep: what will be done, what cannot go well, and what it will cost."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import config
from trainer.children import Children
from trainer.errors import ConfigError, DataError, OutOfMemoryError, TrainerError
from trainer.folder import shown
from trainer.gpus import Gpus
from trainer.launchers import Local
from trainer.out_of_memory import free
from trainer.run import Place, changed_code, cut_short
from trainer.tracking.console import duration

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from trainer.measure import Cost
    from trainer.sweep import Sweep

LISTED = 30  # jobs
BUDGET = 60.0  # seconds for trying kinds of jobs
FORMULAS = ("optimizer", "scheduler", "warmup", "early_stopping", "clip", "grad_noise", "ema", "param_groups", "loss")
"""Groups whose numbers change neither what fits together nor what it costs."""


@dataclass
class Kind:
    """Jobs that differ in numbers only, so that a few updates of one speak for all.

    Attributes:
        label: what is common to its jobs and not to all. keys: its jobs that are new.
        cost: what one costs. refused: mistakes. fails: why it will fail in its turn. None of them: not tried.
    """

    label: str
    keys: list[str]
    cost: Cost | None = None
    refused: Sequence[str] = ()
    fails: str = ""


# ------------------------------------------------------------------------------------------------- what will be done


def plan(sweep: Sweep) -> list[str]:
    """What will be done with each job: answered, gone on with, tried again, or begun."""
    known = {key: _prospect(at) for key, at in sweep.places.items()}
    counts: dict[str, int] = {}
    for word, _ in known.values():
        counts[word] = counts.get(word, 0) + 1
    roots = dict.fromkeys(shown(at.folder.path.parent) for at in sweep.places.values())
    told = ", ".join(f"{n} {word}" for word, n in counts.items())
    jobs = f"{len(known)} job{'s' if len(known) != 1 else ''}"
    lines = [f"{jobs} in {', '.join(roots)}: {told}"]
    if len(known) <= LISTED and set(counts) != {"new"}:
        width = max(len(f"{word}{where}") for word, where in known.values())
        lines += [f"  {word + where:<{width}}  {Path(key).name}" for key, (word, where) in known.items()]
    lines += _other_code([key for key, (word, _) in known.items() if word == "finished"], sweep)
    return lines + _changed([key for key, (word, _) in known.items() if word == "new"], sweep)


def _prospect(at: Place) -> tuple[str, str]:
    """What will be done with a job, in words, and where it stands."""
    folder, state = at.folder, at.folder.state()
    if state == "finished" and not cut_short(folder.read_status(), at):
        return "finished", ""
    if folder.held:
        return "trained by another process", ""
    steps = sorted(path.name for path in folder.checkpoints.glob("step-*"))
    where = f" at step {int(steps[-1].removeprefix('step-'))}" if steps else ""
    if state == "failed":
        return "failed before", where
    return ("to go on with", where) if steps else ("new", "")


def _other_code(finished: Iterable[str], sweep: Sweep) -> list[str]:
    """Of finished jobs, where `strict_code` asks for it: those whose result other code has made."""
    cfgs = {key: sweep.jobs[key].cfg for key in finished}
    found = [changed_code(cfg, sweep.places[key].folder) for key, cfg in cfgs.items() if cfg.get("strict_code")]
    told = {text: found.count(text) for text in found if text}
    return [f"  {n} of the finished were made by other code: {text} since then" for text, n in told.items()]


def _changed(new: Iterable[str], sweep: Sweep) -> list[str]:
    """Of new jobs whose words were used before: what has changed in the files since."""
    lines: dict[str, list[str]] = {}
    for key in new:
        path = Path(key)
        words = path.name[:-11]  # without the digest
        for older in sorted(path.parent.glob(f"{_plain(words)}-" + 10 * "[0-9a-f]")):
            if not (older / "config.yaml").is_file():
                continue
            before, now = config.read(older / "config.yaml"), sweep.jobs[key].cfg
            differ = config.difference(config.unresolved(before), config.unresolved(now))
            ours = [(name, *pair) for name, pair in differ.items() if config.is_identity(name)]
            ours.sort(key=lambda one: None in one)  # values that are on one side only come last
            told = ", ".join(f"{name} was {old!r} and is {value!r}" for name, old, value in ours[:3])
            more = f" and {len(ours) - 3} more" if len(ours) > 3 else ""
            if told:
                lines.setdefault(f"{told}{more}", []).append(words)
    earlier = {what: f"{len(jobs)} earlier job{'s' if len(jobs) > 1 else ''}" for what, jobs in lines.items()}
    return [f"  {jobs} of the same name differ: {what}; these are trained anew" for what, jobs in earlier.items()]


def _plain(text: str) -> str:
    return re.sub(r"([\[\]*?])", r"[\1]", text)


# -------------------------------------------------------------------------------------------------- what it will cost


def kinds(sweep: Sweep, keys: Sequence[str]) -> list[Kind]:
    """The jobs in groups that differ in numbers only."""
    found: dict[str, list[str]] = {}
    for key in keys:
        found.setdefault(_kind(sweep.jobs[key].cfg), []).append(key)
    words = {key: set(sweep.jobs[key].words) for key in keys}
    everywhere = set.intersection(*words.values()) if keys else set()
    named = []
    for group in found.values():
        common = set.intersection(*(words[key] for key in group)) - everywhere
        label = ",".join(word for word in sweep.jobs[group[0]].words if word in common)
        named.append(Kind(label or "all" if len(found) == 1 else label or Path(group[0]).name, group))
    return named


def _kind(cfg: DictConfig) -> str:
    values = {
        key: value
        for key, value in config.flat(config.unresolved(cfg)).items()
        if config.is_identity(key) and key != "seed"
        and not (key.split(".")[0] in FORMULAS and isinstance(value, (int, float)))
    }  # fmt: skip
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def try_all(found: Sequence[Kind], sweep: Sweep, children: Children, env: Mapping[str, str]) -> None:
    """Makes a few updates of one job of each kind, in processes of their own; fills in what came of it.

    Args:
        env: what a job's process gets.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for n, kind in enumerate(found):
            if n and time.monotonic() - began > BUDGET:
                return
            answer = Path(folder) / f"{n}.json"
            cfg, output = sweep.jobs[kind.keys[0]].cfg, Path(folder) / f"{n}.txt"
            children.start("try", _try, cfg, answer, env=env, output=output)
            code = children.wait().get("try", 1)
            if answer.exists():
                _fill(kind, json.loads(answer.read_text(encoding="utf-8")))
            elif code < 0:
                kind.fails = f"killed by {signal.Signals(-code).name}"
            else:
                last = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                kind.fails = f"exit code {code}" + (f": {last[-1]}" if last else "")


def _fill(kind: Kind, answer: dict[str, Any]) -> None:
    from trainer.measure import Cost

    kind.refused, kind.fails = answer.get("refused", ()), answer.get("fails", "")
    kind.cost = Cost(**answer["cost"]) if "cost" in answer else None


def _measured(cfg: DictConfig) -> Cost:
    """With `auto_accumulate` as the run would: with half of the micro-batch, as long as the memory is too small."""
    from trainer.build import build
    from trainer.measure import measure

    micro_batch: int | None = None
    while True:
        try:
            return measure(build(cfg, micro_batch=micro_batch))
        except OutOfMemoryError as error:
            if not cfg.get("auto_accumulate") or error.half is None:
                raise
            micro_batch = error.half
        free()


def _try(cfg: DictConfig, answer: Path) -> None:
    found: dict[str, Any]
    try:
        found = {"cost": asdict(_measured(cfg))}
    except TrainerError as error:
        # What a model or a dataset of the user's raises is its own failure, which no other job needs to wait for.
        ours = isinstance(error, (ConfigError, DataError)) and error.__cause__ is None
        found = {"refused": error.problems} if ours else {"fails": str(error).splitlines()[0]}  # type: ignore[attr-defined]
    except Exception as error:
        found = {"fails": f"{type(error).__name__}: {error}"}
    answer.write_text(json.dumps(found), encoding="utf-8")


def costs(found: Sequence[Kind], at_once: int, runs: Path) -> list[str]:
    """The kinds as a table, and what all of it takes of time and disk.

    Args:
        at_once: how many jobs run at the same time. runs: a folder on the disk in question.
    """
    tried = [kind for kind in found if kind.cost is not None]
    if not tried:
        return []
    rows = [("", "jobs", "step", "evaluation", "memory", "checkpoint", "a job")]
    for kind in tried:
        cost = kind.cost
        assert cost is not None
        step, evaluation = (f"{s * 1000:.0f} ms" if s < 0.1 else duration(s) for s in (cost.step, cost.evaluation))
        sizes = _size(cost.memory), _size(cost.checkpoint)
        rows.append((kind.label, str(len(kind.keys)), step, evaluation, *sizes, duration(cost.seconds)))
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = [
        "  ".join(["", row[0].ljust(widths[0]), *(map(str.rjust, row[1:], widths[1:]))])
        for row in rows
    ]
    each = [kind.cost.seconds for kind in tried if kind.cost]
    seconds = max(sum(s * len(kind.keys) for s, kind in zip(each, tried, strict=True)) / at_once, *each)
    needed, room = disk(found), shutil.disk_usage(_there(runs)).free
    begun = f"about {duration(seconds)} for what is new" + (f", {at_once} at once" if at_once > 1 else "")
    lines.append(f"  {begun}; its checkpoints take up to {_size(needed)} of the {_size(room)} that are free")
    if needed > room:
        lines.append("  warning: the disk will be full before the end; make room, or choose another runs=FOLDER")
    return lines


def disk(found: Sequence[Kind], kept: int = 3) -> int:
    """Bytes that the checkpoints of all jobs take: each keeps the best and the newest two."""
    return sum(kept * kind.cost.checkpoint * len(kind.keys) for kind in found if kind.cost)


def _there(path: Path) -> Path:
    return next((folder for folder in (path, *path.absolute().parents) if folder.exists()), Path("/"))


def _size(count: float) -> str:
    for unit in ("B", "kiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


# ------------------------------------------------------------------------------------------------------- altogether


def preflight(sweep: Sweep, *, strict: bool = False) -> None:
    """Prints what a sweep will do and cost.

    Args:
        strict: also what will fail in its own turn is a mistake.

    Raises:
        ConfigError: mistakes in jobs, each told once; nothing has been started.
    """
    print("\n".join(plan(sweep)), flush=True)
    new = [key for key, at in sweep.places.items() if _prospect(at)[0] == "new"]
    local = sweep.launcher if isinstance(sweep.launcher, Local) else None
    if not new or (local is None and not strict):  # where the jobs run elsewhere, trying one here says little
        return
    found = kinds(sweep, new)
    if not _tried(found, sweep, local):
        print("  all GPUs are taken: no job is tried before it begins", flush=True)
        return
    failing = [kind for kind in found if kind.fails]
    told = [f"{text}{_whose(kind)}" for kind in found for text in kind.refused]
    if strict:
        told += [f"{kind.fails}{_whose(kind)}" for kind in failing]
    if told:
        raise ConfigError(list(dict.fromkeys(told)))
    for kind in failing:
        print(f"warning: will fail: {kind.fails}{_whose(kind)}", file=sys.stderr)
    for line in costs(found, sweep.launcher.at_once, next(iter(sweep.places.values())).folder.path):
        print(line, flush=True)


def _tried(found: Sequence[Kind], sweep: Sweep, local: Local | None) -> bool:
    """Tries the kinds, on a GPU that no job of another sweep has; whether there was one, where they are shared."""
    children = local.children if local is not None else Children()
    gpus = local.gpus() if local is not None else Gpus([])
    held = gpus.take() if gpus.gpus else None
    if gpus.gpus and held is None:
        return False
    try:
        try_all(found, sweep, children, local.env(held) if local is not None else {})
    except BaseException:
        children.end(signal.SIGKILL)  # a Ctrl-C: there is nothing to save
        raise
    finally:
        if held is not None:
            held.close()
        if local is None:
            children.close()
    return True


def _whose(kind: Kind) -> str:
    name = Path(kind.keys[0]).name
    return f"  ({name}{f' and {len(kind.keys) - 1} more' if len(kind.keys) > 1 else ''})"
