"""The view of a dashboard on wandb: which keys the runs differ in, and the panels in their sections."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer.config import flat
from trainer.report.entries import COMMON

ASIDE = (*COMMON, "run", "code", "world")  # of a run on wandb: where, when and on what it ran
AXES = 10  # of the parallel coordinates; more cannot be read
OWN = ("Results", "Curves", "Classes", "Learning rate and gradient", "Samples", "Speed")
"""The sections that are made anew each time; those that somebody added on the website stay."""


@dataclass(frozen=True)
class Shown:
    """One run as far as a dashboard is concerned: its nested config as on wandb, the names of what it logged, and of
    those the pictures."""

    config: Mapping[str, Any]
    logged: Iterable[str] = ()
    pictures: Iterable[str] = ()


@dataclass(frozen=True)
class Board:
    """What a dashboard shows.

    Attributes:
        monitor, mode: the metric that decides, and whether `min` or `max` is better.
        groups, ids: of the runs that are shown; neither: all of the project.
    """

    runs: Sequence[Shown]
    monitor: str = "val/loss"
    mode: str = "min"
    groups: Sequence[str] = ()
    ids: Sequence[str] = field(default=())

    @property
    def best(self) -> str:
        return f"best/{self.monitor}"

    def logged(self, *prefixes: str) -> list[str]:
        """Names of what the runs logged, the monitored metric first."""
        names = sorted({name for run in self.runs for name in run.logged if name.startswith(prefixes)})
        return sorted(names, key=lambda name: name != self.monitor)


@dataclass(frozen=True)
class Axis:
    """A key of the config that differs. `path`: as the website calls it; a dotted key of its own is no nested one."""

    name: str
    path: str
    log: bool = False

    @property
    def nested(self) -> bool:
        return self.path == _path(self.name)


def _path(name: str) -> str:
    top, *rest = name.split(".")
    return ".".join([top, "value", *rest])


def axes(configs: Sequence[Mapping[str, Any]]) -> list[Axis]:
    """The keys in which runs differ: the files that were chosen, then values that do not follow from those."""
    values = [
        {key: value for key, value in flat(each).items() if key.removeprefix("choices.").split(".")[0] not in ASIDE}
        for each in configs
    ]
    groups: dict[str, str] = {}  # those of which runs have different files, and the key that tells which
    for key in sorted(_keys(values), key=lambda key: key.endswith("._target_")):  # where nobody noted the files
        group = key.removeprefix("choices.").removesuffix("._target_")
        if group != key and group not in groups and "." not in group and _varies(values, key):
            groups[group] = key
    free = []
    for key in _keys(values):
        group = key.split(".")[0]
        same_file: dict[Any, list[Any]] = {}
        for each in values:
            same_file.setdefault(each.get(groups.get(group, "")), []).append(each)
        if group != "choices" and key not in groups and any(_varies(some, key) for some in same_file.values()):
            free.append(key)
    groups.pop("experiment", None)
    found = [*groups.values(), *sorted(free, key=lambda key: key == "seed")]
    dotted = {key for each in configs for key in each if "." in key}
    nested = {key for each in configs for key in flat({k: v for k, v in each.items() if "." not in k})}
    return [
        Axis(key, f"{key}.value" if key in dotted - nested else _path(key), _wide(each.get(key) for each in values))
        for key in found
    ]


def _keys(values: Iterable[Mapping[str, Any]]) -> list[str]:
    plain = {key: None for each in values for key, value in each.items() if isinstance(value, str | float | int)}
    return list(plain)


def _varies(values: Sequence[Mapping[str, Any]], key: str) -> bool:
    return len({str(each[key]) for each in values if key in each}) > 1


def _wide(values: Iterable[Any]) -> bool:
    """Whether numbers are spread so far that a logarithm shows them better."""
    numbers = [value for value in values if isinstance(value, float | int) and not isinstance(value, bool)]
    return bool(numbers) and min(numbers) > 0 and max(numbers) / min(numbers) >= 20


# ------------------------------------------------------------------------------------------------- in wandb's own terms


def runset(board: Board, keys: Sequence[Axis]) -> dict[str, Any]:
    """Which runs, the best first, and the columns beside their names; over seeds they are averaged."""
    from wandb_workspaces import expr

    wanted = [
        *([expr.Metric("Group").isin(list(board.groups))] if board.groups else []),
        *([expr.Metric("ID").isin(list(board.ids))] if board.ids else []),
    ]
    others = [key for key in keys if key.name != "seed"]
    same = {tuple(str(flat(run.config).get(key.name)) for key in others) for run in board.runs}
    seeds = 0 < len(others) < len(keys) and 2 * len(same) <= len(board.runs)
    columns = [f"summary:{board.best}", "summary:best/epoch", *(f"config:{key.path}" for key in keys[:AXES])]
    return {
        "filters": expr.Or(*wanted) if len(wanted) > 1 else wanted,
        "order": [expr.Ordering(expr.Summary(board.best), ascending=board.mode == "min")],
        "pinned_columns": ["run:displayName", "run:state", *columns],
        "groupby": [expr.Config(key.path) for key in others] if seeds else [],
    }


def sections(board: Board, keys: Sequence[Axis]) -> list[Any]:
    """The sections of the view, from the result to what it cost."""
    from wandb_workspaces.reports.v2 import interface as wr

    curves = [name for name in board.logged("val/", "train/loss") if name.count("/") == 1]
    rates = board.logged("lr") or ["lr"]
    norms = board.logged("train/grad_norm") or ["train/grad_norm"]
    found = dict.fromkeys(name for run in board.runs for name in run.pictures if name != "schedule")
    pictures = sorted({*found, "val/examples"}, key=lambda name: ("examples" not in name, name))
    classes = [name for name in board.logged("val/") if name.count("/") > 1]
    inside = {
        "Results": _results(board, keys),
        "Curves": [wr.LinePlot(title=name, y=[name]) for name in dict.fromkeys(["train/loss", *curves])],
        "Classes": [wr.LinePlot(title=name, y=[name]) for name in classes],
        "Learning rate and gradient": [
            *(wr.LinePlot(title=name, y=[name]) for name in rates),
            *(wr.LinePlot(title=name, y=[name], log_y=True) for name in norms),
        ],
        "Samples": [wr.MediaBrowser(title=name, media_keys=[name], num_columns=4) for name in pictures],
        "Speed": [wr.LinePlot(title=name.partition("/")[2], y=[name]) for name in board.logged("speed/")],
    }
    return [_section(name, inside[name]) for name in OWN if inside[name]]


def _results(board: Board, keys: Sequence[Axis]) -> list[Any]:
    from wandb_workspaces.reports.v2 import interface as wr

    best, title = board.best, f"Best {board.monitor}"
    across = []
    if keys:
        columns = [_column(key) for key in keys[:AXES]]
        last = wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(best), display_name=best)
        across = [
            wr.ParallelCoordinatesPlot(title=f"What leads to the best {board.monitor}", columns=[*columns, last]),
            wr.ParameterImportancePlot(with_respect_to=best),
        ]
    return [
        *across,
        wr.BarPlot(title=f"{title} of each run", metrics=[best], max_bars_to_show=50),
        wr.ScalarChart(title=f"{title} of all", metric=best, groupby_aggfunc="max" if board.mode == "max" else "min"),
        wr.RunComparer(diff_only="split"),
    ]


def _column(key: Axis) -> Any:
    from wandb_workspaces.reports.v2 import interface as wr

    class Dotted(wr.ParallelCoordinatesPlotColumn):  # the library takes each dot for nesting
        def _to_model(self) -> Any:
            found = super()._to_model()  # type: ignore[no-untyped-call]
            found.accessor = f"config:{key.path}"
            return found

    kind = wr.ParallelCoordinatesPlotColumn if key.nested else Dotted
    shown = key.name.removeprefix("choices.").removesuffix("._target_")
    return kind(metric=wr.Config(key.name), display_name=shown, log=key.log or None)


def _section(name: str, panels: list[Any]) -> Any:
    import wandb_workspaces.workspaces as ws

    columns = {"Results": 2, "Samples": 1}.get(name, 3)
    layout = ws.SectionLayoutSettings(columns=columns, rows=min(3, math.ceil(len(panels) / columns)))
    return ws.Section(name=name, panels=panels, is_open=name != "Classes", layout_settings=layout)
