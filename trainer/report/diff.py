"""`trainer-diff A B`: in what two runs differ, from which step on, and the likely cause, in words for a person."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer import config
from trainer.durations import count
from trainer.errors import ConfigError
from trainer.report import entries, parting
from trainer.report.entries import Entry, short
from trainer.report.parting import Parting, Tensors

PLACE = ("wandb", "runs", "name", "resume", "resume_changes")  # where a run lies, not what it is
NO_CAUSE = ("log_every", "skip_nonfinite")  # of other bits, beside what is no identity
ORDER = ("seed", "batch_size", "accumulate", "curriculum", "data", "limit")  # what the order depends on
MOST = 12  # lines of a section

Table = dict[str, tuple[Any, Any]]


def program(words: Sequence[str]) -> int:
    """What `trainer-diff` does with the words after it: 0 the runs have the same bits, 1 they have not."""
    about = "In what two runs differ, from which step on, and why. Exit code 0: the same bits, 1: not, 2: bad input."
    parser = argparse.ArgumentParser("trainer-diff", description=about)
    parser.add_argument("a", metavar="A", help="a run folder")
    parser.add_argument("b", metavar="B", help="another one")
    given = parser.parse_args(words)
    comparison = compare(_run(given.a), _run(given.b))
    print(comparison.text())
    return 0 if comparison.same else 1


def _run(path: str) -> Entry:
    found = entries.find([path])
    if len(found) > 1 or found[0].folder.path != Path(path).absolute():
        names = ", ".join(str(entry.folder) for entry in found[:3])
        raise ConfigError(f"{path}: is no run folder; it holds {count(len(found), 'run')}, give one: {names}")
    return found[0]


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        tables: by title (`config`, `code`, `packages`, `machine`, `data`), what differs: the value of each.
        history, alone: see `parting.history`. receipt, later: its parting, and what differs in the line after it.
        pictures: how many differ, of how many, the step of the first.
    """

    a: Entry
    b: Entry
    tables: dict[str, Table]
    history: Parting
    alone: tuple[list[str], list[str]]
    receipt: Parting
    later: set[str]
    tensors: Tensors
    pictures: tuple[int, int, int]

    @property
    def ends(self) -> tuple[int, int]:
        """The last step that each run has told of."""
        return max(self.history.ends[0], self.receipt.ends[0]), max(self.history.ends[1], self.receipt.ends[1])

    @property
    def first(self) -> int | None:
        """The first step at which anything is known to differ."""
        found = [part.step for part in (self.history, self.receipt) if part.step is not None]
        return min([*found, *([self.tensors.step] if self.tensors.step >= 0 else [])], default=None)

    @property
    def compared(self) -> list[int]:
        """The steps at which something could be compared."""
        return sorted({*self.history.steps, *self.receipt.steps})

    @property
    def same(self) -> bool:
        known = bool(self.history.steps or self.receipt.steps)
        return known and self.first is None and self.ends[0] == self.ends[1] and not self.pictures[0]

    def text(self) -> str:
        """The report for a terminal: a section for whatever differs, and the verdict."""
        heads = [(f"{which}  {e.folder}", e.state, f"{max(end, 0)} steps") for which, e, end in self._both()]
        parts = [_aligned(heads)]
        for title, table in self.tables.items():
            if table:
                parts.append(_section(title, [(k, _cell(k, a), _cell(k, b)) for k, (a, b) in table.items()]))
        parts += self._records()
        return "\n\n".join([*parts, self.verdict()])

    def _both(self) -> Iterable[tuple[str, Entry, int]]:
        return zip("AB", (self.a, self.b), self.ends, strict=True)

    def _records(self) -> list[str]:
        parts = []
        if self.history.step is not None:
            lines = [(key, *map(_number, pair), _gap(*pair)) for key, pair in self.history.values.items()]
            parts.append(_section(f"history, at step {self.history.step}", lines))
        if any(self.alone):
            lines = [(which, ", ".join(keys[:MOST])) for which, keys in zip("AB", self.alone, strict=True) if keys]
            parts.append(_section("history, known to one alone", lines))
        if self.receipt.step is not None:
            lines = [(key, *pair) for key, pair in self.receipt.values.items()]
            parts.append(_section(f"receipt, at step {self.receipt.step}", lines))
        if self.tensors.step >= 0:
            parts.append(_section(f"checkpoint of step {self.tensors.step}", _tensor_lines(self.tensors)))
        differ, of, first = self.pictures
        if differ:
            parts.append(_section("pictures", [(f"{differ} of {of} differ", f"first at step {first}")]))
        if self.first is not None and (lines := _final(self.a, self.b)):
            parts.append(_section("the last row", lines))
        return parts

    # ------------------------------------------------------------------------------------------------- the verdict

    def verdict(self) -> str:
        """One sentence or two: up to which step they are the same, from which on they differ, and the likely cause."""
        first, ends = self.first, self.ends
        if not self.compared:
            return "nothing can be compared: they have no step in common"
        if first is None:
            return self._equal(min(ends), ends)
        if self.tensors.step == first and self.receipt.step is None and self.history.step is None:
            told = f"tensor {self.tensors.name} differs" if self.tensors.name else "one cannot be read"
            words = f"equal in history and receipt; the checkpoint of step {first} is not: {told}"
            return "; ".join([words, *self.tensors.notes])
        before = max((step for step in self.compared if step < first), default=None)
        since = "different before the first step" if first == 0 else f"different at step {first}"
        if before is not None:
            until = f"until step {before}" if before else "at the start"
            since = f"equal {until}; from step {first} on they differ"
        return f"{since}: {self.cause()}"

    def _equal(self, step: int, ends: tuple[int, int]) -> str:
        proven = max([-1, self.tensors.equal, *self.receipt.steps])
        if proven >= step:
            words = f"the same to the last bit up to step {step}"
        else:
            nothing = " (there is nothing to tell the weights by)"
            known = f", and in weights up to step {proven}" if proven >= 0 else nothing
            words = f"the same in history up to step {step}{known}"
        if ends[0] != ends[1]:
            short, long = ("A", "B") if ends[0] < ends[1] else ("B", "A")
            return f"{words}, the end of {short}; {long} goes on to step {max(ends)}"
        but = ", but not their pictures: what is drawn has changed" if self.pictures[0] else ""
        return f"{words}, the end of both{but}"

    def cause(self) -> str:
        """Why they differ, from what differs first, as far as that can be known."""
        step, differs = self.receipt.step, self.receipt.values
        if step is None:
            if any(s >= (self.history.step or 0) for s in self.receipt.steps):
                return "the training is the same, and what is measured or logged is not (validation data, metric, hook)"
            words = "no later line of both receipts tells why" if self.receipt.steps else "no receipts tell why"
            return words + self._because("")
        if step == 0:
            words = "the first weights are not the same" if "weights" in differs else "they do not begin alike"
            later = ", nor is the order of the data later" if "batches" in self.later else ""
            return words + later + self._because("weights that were not drawn from the seed")
        if "batches" in differs:
            words = "the batches were of other samples, or in another order"
            return words + self._because("code, or a dataset of another length", ("data",), ORDER)
        if "generators" in differs:
            words = "the same samples in the same order, but other random numbers were drawn in the update"
            return words + self._because(
                "model, loss or a transform draws more of them, or fewer", ("config", "code", "packages")
            )
        words = "the same samples in the same order and the same random numbers, but other weights"
        return words + self._because(
            "nothing that is recorded differs; so a kernel that is not deterministic, or code or data not recorded"
        )

    def _because(self, otherwise: str, titles: Sequence[str] = (), keys: Sequence[str] = ()) -> str:
        """The end of a sentence: which recorded differences may be the cause.

        Args:
            otherwise: what it may be if there are none. titles: the tables to look at, all by default; keys: those of
                the config to look at besides.
        """
        found = [
            f"{'' if title == 'config' else title + ' '}{key} ({_cell(key, a)} | {_cell(key, b)})"
            for title, table in self.tables.items()
            for key, (a, b) in table.items()
            if (title in (titles or self.tables) or (title == "config" and _in(key, keys)))
            and not (title == "config" and (_in(key, NO_CAUSE) or not config.is_identity(key)))
            and (title, key) != ("machine", "host")
        ]
        more = f" and {len(found) - 3} more above" if len(found) > 3 else ""
        cause = ", ".join(found[:3]) + more or otherwise
        return f"; likely cause: {cause}" if cause else ""


def compare(a: Entry, b: Entry) -> Comparison:
    """Reads what there is of both runs, also while they train."""
    history, alone = parting.history(a, b)
    receipt = parting.receipts(a.folder, b.folder)
    later = parting.receipt_at(a.folder, b.folder, receipt.step) if receipt.step is not None else set()
    tensors, pictures = parting.checkpoints(a.folder, b.folder), parting.pictures(a.folder, b.folder)
    return Comparison(a, b, tables(a, b), history, alone, receipt, later, tensors, pictures)


def tables(a: Entry, b: Entry) -> dict[str, Table]:
    """What is recorded of both runs and differs, by title. What one run has not recorded is left out."""
    one, other = ({k: v for k, v in e.config.items() if k.split(".")[0] not in PLACE} for e in (a, b))
    known = [_recorded(entry) for entry in (a, b)]
    both = {title: _differing(known[0][title], known[1][title], whole=title == "files") for title in known[0]}
    code = both["code"] | both.pop("files")
    first = {"config": _differing(one, other, whole=True), "code": code}
    return {**first, **{title: table for title, table in both.items() if title != "code"}}


def _recorded(entry: Entry) -> dict[str, dict[str, Any]]:
    status, manifest = entry.status, _manifest(entry)
    version, facts = dict(status.get("code_version") or {}), status.get("facts") or {}
    files = version.pop("files", None) or {}
    torch = {"torch": manifest["torch"]} if "torch" in manifest else {}
    packages = {**torch, **(status.get("packages") or {}), "python": status.get("python")}
    packages.pop("trainer", None)  # told with the code
    machine = {**{key: manifest.get(key) for key in ("device", "threads")}, "host": status.get("host")}
    data = {"digest": facts.get("data"), "samples": facts.get("samples"), "validation": facts.get("val_samples")}
    return {"code": version, "files": files, "packages": packages, "machine": machine, "data": data}


def _manifest(entry: Entry) -> dict[str, Any]:
    for path in sorted(entry.folder.checkpoints.glob("step-*/manifest.json"), reverse=True):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # being removed, or damaged
            continue
        return found if isinstance(found, dict) else {}
    return {}


def _differing(a: Mapping[str, Any], b: Mapping[str, Any], whole: bool = False) -> Table:
    """By key; with `whole` also what one of them has and the other has not, unless one has nothing at all."""
    keys = [key for key in dict.fromkeys([*a, *b]) if (whole and a and b) or None not in (a.get(key), b.get(key))]
    return {key: (a.get(key), b.get(key)) for key in keys if a.get(key) != b.get(key)}


def _in(key: str, names: Iterable[str]) -> bool:
    return any(key == name or key.startswith(name + ".") for name in names)


# ------------------------------------------------------------------------------------------------------------- words


def _tensor_lines(found: Tensors) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    if found.name:
        most = "of another shape or type" if found.most is None else f"largest difference {found.most:.3g}"
        lines = [(f"{found.differ} of {count(found.count, 'tensor')} differ", f"first {found.name}", most)]
    return [*lines, *((note,) for note in found.notes)]


def _final(a: Entry, b: Entry) -> list[tuple[str, ...]]:
    one, other = (entry.last or _last(entry) for entry in (a, b))
    keys = [key for key in one if key in other and key != "time" and one[key] != other[key]]
    return [(key, _number(one[key]), _number(other[key]), _gap(one[key], other[key])) for key in keys]


def _last(entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for row in entry.rows():  # noqa: B007
        pass
    return row


def _number(value: Any) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _gap(a: Any, b: Any) -> str:
    return f"{b - a:+.3g}" if isinstance(a, (int, float)) and isinstance(b, (int, float)) else ""


def _cell(key: str, value: Any) -> str:
    text = "-" if value is None else short(key, value)
    return text if len(text) <= 44 else f"{text[:41]}..."


def _section(title: str, lines: Sequence[Sequence[str]]) -> str:
    more = [f"  and {len(lines) - MOST} more"] if len(lines) > MOST else []
    return "\n".join([title, _aligned([("  " + line[0], *line[1:]) for line in lines[:MOST]]), *more])


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    wide = [max(len(line[n]) for line in lines if n < len(line)) for n in range(max(map(len, lines)))]
    return "\n".join("  ".join(cell.ljust(wide[n]) for n, cell in enumerate(line)).rstrip() for line in lines)
