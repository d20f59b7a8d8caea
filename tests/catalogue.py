"""Each file of conf/optimizer put to the test: `python -m tests.catalogue` does it and writes docs/optimizers.md."""

from __future__ import annotations

import copy
import functools
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn
from torch.optim import Optimizer

from tests.small import Regression, StopAt, make_trainer, newest, recorder_of
from trainer import _hydra
from trainer.checkpoint import Checkpoints
from trainer.ema import Ema
from trainer.errors import ConfigError
from trainer.gradients import Clip
from trainer.loop import Trainer
from trainer.optim import trainable
from trainer.schedules import cosine

ROOT = Path(__file__).resolve().parents[1]
FOLDER, PAGE = ROOT / "conf" / "optimizer", ROOT / "docs" / "optimizers.md"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))

COLUMNS = ("constructs", "trains", "resumes bit for bit", "loads with weights_only", "warm-up", "clip", "accumulation",
           "EMA")  # fmt: skip
Found = dict[str, bool] | str
"""What holds of a file, by column; or why it is refused."""

REFUSED = {"sparse_adam": "takes only sparse gradients"}
"""Files that a common model is refused for before it trains, and a part of the reason that is told."""

TOGETHER: dict[str, Any] = {"accumulate": 2, "schedule": lambda o: cosine(o, 3).warm_up(3, 0.1)}


def always_new() -> dict[str, Any]:
    """What is tried together and has a state of its own."""
    return {"ema": Ema(0.9), "clip": Clip(norm=0.5)}


def node_of(name: str) -> dict[str, Any]:
    """What a file says, together with the files that its defaults list names."""
    return copy.deepcopy(_node_of(name))


@functools.cache
def _node_of(name: str) -> dict[str, Any]:
    cfg = OmegaConf.load(FOLDER / f"{name}.yaml")
    if "defaults" in cfg:
        cfg = _hydra.compose(
            ["experiment=none", "data=digits", "model=mlp", "task=classification", f"optimizer={name}"]
        )
        cfg = cfg.optimizer
    node: dict[str, Any] = _hydra.plain_node(cfg, "optimizer")
    return node


def convolutional() -> nn.Module:
    """A small network of all kinds of weights, those of the convolution in another memory format, as on a GPU."""
    torch.manual_seed(0)
    layers = [nn.Linear(3, 12), nn.Unflatten(1, (3, 2, 2)), nn.Conv2d(3, 4, 2, padding=1), nn.BatchNorm2d(4), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Dropout(0.2), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(4, 1))
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def build(node: dict[str, Any], *, stop: int = 0, **options: Any) -> Trainer:
    """A small training with that optimizer; a signal comes in the micro-batch `stop`."""
    model = convolutional()

    def optimizer(_: Any) -> Optimizer:
        made: Optimizer = _hydra.instantiate(node, "optimizer", params=trainable(model))
        return made

    if "schedule" in options:  # with all that is tried together
        options |= always_new()
    return make_trainer(model=model, optimizer=optimizer, task=StopAt(stop) if stop else Regression(), **options)


def put_to_the_test(name: str, folder: Path) -> dict[str, bool]:
    """What holds of a file, by column.

    Raises:
        ConfigError: it is refused.
    """
    node = node_of(name)
    whole = build(node, folder=folder / "whole")
    before, start = whole.evaluate().metrics["val/loss"], [p.detach().clone() for p in whole.model.parameters()]
    whole.fit()
    after = [row["val/loss"] for row, _ in recorder_of(whole).evaluations]
    moved = [not torch.equal(p, old) for p, old in zip(whole.model.parameters(), start, strict=True) if p.ndim > 1]
    held = {"constructs": True, "trains": all(moved) and min(after) < before}
    held["resumes bit for bit"] = cut(node, folder / "cut") == newest(folder / "whole")
    held["loads with weights_only"] = loads(folder / "cut")
    build(node, folder=folder / "all", **TOGETHER).fit()
    all_at_once = cut(node, folder / "all-cut", **TOGETHER) == newest(folder / "all")
    return held | dict.fromkeys(COLUMNS[4:], all_at_once)


def cut(node: dict[str, Any], folder: Path, **options: Any) -> Any:
    """The result of the same run, interrupted in the middle of an epoch, and of a group, and gone on with."""
    assert build(node, folder=folder, stop=5, **options).fit().exit_code == 143
    build(node, folder=folder, resume="must", **options).fit()
    return newest(folder)


def loads(folder: Path) -> bool:
    """Whether torch reads the optimizer's state back as plain data."""
    checkpoints = Checkpoints()
    checkpoints.attach(folder / "checkpoints")
    states = [torch.load(path, weights_only=True) for path in (folder / "checkpoints").glob("step-*/state.pt")]
    return bool(states) and all(state["optimizer"] for state in states)


# ------------------------------------------------------------------------------------------------------------ the page


def comment(name: str) -> str:
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def home(name: str) -> str:
    target = str(OmegaConf.load(FOLDER / f"{name}.yaml")["_target_"])
    if target.startswith("trainer.optim.extra."):
        return "extra `optim`"
    return "torch" if target.startswith("torch.") else "own"


def cells(row: Found) -> list[str]:
    """The row of a table, without its first cells."""
    return ["refused"] * len(COLUMNS) if isinstance(row, str) else ["yes" if row[c] else "NO" for c in COLUMNS]


def between(text: str, mark: str, module: str, lines: list[str]) -> str:
    """The text of a page with these lines between two marks, the first of which says how they are made."""
    begin, end = f"<!-- {mark}: begin (python -m {module}) -->", f"<!-- {mark}: end -->"
    made, found = re.subn(f"{re.escape(begin)}.*?{end}", "\n".join([begin, *lines, end]), text, flags=re.DOTALL)
    assert found == 1, f"{begin} ... {end} is in the page {found} times"
    return made


def page(rows: dict[str, Found]) -> str:
    """docs/optimizers.md: its table from what was found, or from the reason of a refusal."""
    found = [f"| {' | '.join(['`optimizer=`', 'from', *COLUMNS])} |", "|---|---|" + ":-:|" * len(COLUMNS)]
    found += [f"| {' | '.join([name, home(name), *cells(row)])} |" for name, row in rows.items()]
    says = ["| `optimizer=` | what its file says |", "|---|---|", *(f"| {name} | {comment(name)} |" for name in rows)]
    text = between(PAGE.read_text(encoding="utf-8"), "found", "tests.catalogue", found)
    return between(text, "files", "tests.catalogue", says)


def expected() -> dict[str, Found]:
    """What `test_catalogue` demands of every file, so that the page need not be found anew."""
    return {name: REFUSED.get(name, dict.fromkeys(COLUMNS, True)) for name in NAMES}


def main() -> None:
    rows: dict[str, Found] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            try:
                rows[name] = put_to_the_test(name, Path(folder) / name)
            except ConfigError as error:
                rows[name] = str(error)
            print(name, rows[name])
    PAGE.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
