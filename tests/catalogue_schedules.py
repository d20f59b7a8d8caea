"""Each file of conf/scheduler put to the test: `python -m tests.catalogue_schedules` writes docs/schedules.md."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch.optim import AdamW, Optimizer

from tests.catalogue import COLUMNS, ROOT, Found, always_new, between, cells
from tests.small import StopAt, make_trainer, newest, recorder_of, timeless
from trainer.build import build_schedule
from trainer.loop import Trainer
from trainer.schedules import Schedule

FOLDER, PAGE = ROOT / "conf" / "scheduler", ROOT / "docs" / "schedules.md"
FILES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
FOLLOW = ("plateau", "greedy")  # a metric: what they do is not known before
PER_EPOCH, LR = 4, 0.05


def config(name: str, epochs: int, warmup: str = "never", start: float = 0.1, **changes: Any) -> Any:
    node: Any = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    before = {"_target_": "trainer.schedules.Warmup", "length": warmup, "start_factor": start}
    return OmegaConf.create({"epochs": epochs, "scheduler": {**node, **changes}, "warmup": before})


def maker(
    name: str, epochs: int, warmup: str = "never", per_epoch: int = PER_EPOCH, **changes: Any
) -> functools.partial[Schedule]:
    """Makes the schedule of a file for an optimizer."""
    return functools.partial(build_schedule, config(name, epochs, warmup, **changes), per_epoch=per_epoch, mode="min")


def adamw(parameters: Any) -> Optimizer:
    first, *rest = parameters
    return AdamW([{"params": [first], "lr": LR / 10, "name": "first"}, {"params": rest}], lr=LR)


def build(name: str, *, together: bool = False, stop: int = 0, **options: Any) -> Trainer:
    """A training of 8 updates with that schedule, which hears of a metric after each; a signal comes in the
    micro-batch `stop`. Together: with a warm-up, clip, accumulation and averaged weights."""
    changes = {"patience": 1} if name in FOLLOW else {}
    if together:
        schedule = maker(name, 4, "3steps", per_epoch=2, **changes)
        options |= {"epochs": 4, "accumulate": 2, **always_new()}
    else:
        schedule = maker(name, 2, **changes)
        options |= {"epochs": 2}
    return make_trainer(task=StopAt(stop), optimizer=adamw, schedule=schedule, evaluate_every="1step", **options)


def put_to_the_test(name: str, folder: Path) -> dict[str, bool]:
    """What holds of a file, by column."""
    whole = build(name, folder=folder / "whole")
    before, start = whole.evaluate().metrics["val/loss"], [p.detach().clone() for p in whole.model.parameters()]
    whole.fit()
    after = [row["val/loss"] for row, _ in recorder_of(whole).evaluations]
    moved = [not torch.equal(p, old) for p, old in zip(whole.model.parameters(), start, strict=True)]
    held = {"constructs": True, "trains": all(moved) and min(after) < before}
    rows = timeless(recorder_of(whole).got)
    held["resumes bit for bit"] = cut(name, folder / "cut") == (newest(folder / "whole"), rows)
    states = [torch.load(path, weights_only=True) for path in folder.glob("cut/checkpoints/step-*/state.pt")]
    held["loads with weights_only"] = bool(states) and all(state["schedule"] for state in states)
    full = build(name, folder=folder / "all", together=True)
    full.fit()
    rows = timeless(recorder_of(full).got)
    all_at_once = cut(name, folder / "all-cut", together=True) == (newest(folder / "all"), rows)
    return held | dict.fromkeys(COLUMNS[4:], all_at_once)


def cut(name: str, folder: Path, together: bool = False) -> tuple[Any, list[Any]]:
    """The result and the logged rows of the same run, stopped in the middle of its second epoch and gone on with.

    Together it is stopped in each group of micro-batches, and so before, at and after the end of the warm-up.
    """
    stops = [1] * 7 + [0] if together else [6, 0]
    rows: list[Any] = []
    for stop in stops:
        trainer = build(name, folder=folder, together=together, stop=stop, resume="auto")
        assert trainer.fit().exit_code == (143 if stop else 0)
        rows += timeless(recorder_of(trainer).got)
    return newest(folder), rows


def page(rows: dict[str, Found]) -> str:
    """docs/schedules.md with its table of what was found."""
    table = [f"| {' | '.join(['`scheduler=`', *COLUMNS])} |", "|---|" + ":-:|" * len(COLUMNS)]
    table += [f"| {' | '.join([name, *cells(row)])} |" for name, row in rows.items()]
    return between(PAGE.read_text(encoding="utf-8"), "found", "tests.catalogue_schedules", table)


def expected() -> dict[str, Found]:
    """What `test_catalogue` demands of every file, so that the page need not be found anew."""
    return {name: dict.fromkeys(COLUMNS, True) for name in FILES}


def main() -> None:
    rows: dict[str, Found] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            rows[name] = put_to_the_test(name, Path(folder) / name)
            print(name, rows[name])
    PAGE.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
