"""A table as text that fits a terminal, as CSV, Markdown and LaTeX; numbers and times as a person reads them."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

PLUS_MINUS = "±"
HUGE = 1e5  # from here on a number has an exponent
MODEST, NARROWEST = 40, 8  # what words are cut to before a column is left out, and where none can be


@dataclass(frozen=True)
class Column:
    """One column. `weight`: how soon it is left out where room is short, 0 never. `right`: of numbers."""

    head: str
    cells: list[str]
    weight: int = 0
    right: bool = False


@dataclass(frozen=True)
class Table:
    """Columns of the same length; `bold` is the row and the column of the cell that stands out, if one does."""

    columns: list[Column] = field(default_factory=list)
    bold: tuple[int, int] | None = None

    @property
    def rows(self) -> list[tuple[str, ...]]:
        return list(zip(*(column.cells for column in self.columns), strict=True))


# ------------------------------------------------------------------------------------------------------ for a terminal


def as_text(table: Table, width: int | None = None) -> tuple[list[str], list[str]]:
    """Aligned lines of at most `width` characters, and the heads of the columns that were left out for that."""
    filled = [replace(c, cells=list(map(_one_line, c.cells))) for c in table.columns if any(c.cells)]
    columns, dropped = _cut(filled, width, MODEST), []
    while width and _wide(columns) > width and (least := max(columns, key=lambda column: column.weight)).weight:
        columns = [column for column in columns if column is not least]
        dropped.append(least.head)
    columns = _cut(columns, width, NARROWEST)
    widths = [_widest(column) for column in columns]
    lines = [[column.head for column in columns], *map(list, zip(*(column.cells for column in columns), strict=True))]
    pads = [str.rjust if column.right else str.ljust for column in columns]
    padded = ("  ".join(pad(c, w) for pad, c, w in zip(pads, line, widths, strict=True)).rstrip() for line in lines)
    return [line[:width] for line in padded], dropped


def _one_line(text: str) -> str:
    return text if text.isprintable() else "".join(letter if letter.isprintable() else " " for letter in text)


def _cut(columns: list[Column], width: int | None, least: int) -> list[Column]:
    """The columns with the longest words cut, down to `least` characters, until the line fits."""
    widths = list(map(_widest, columns))
    words = [n for n, column in enumerate(columns) if not column.right]
    over = _wide(columns) - width if width else 0
    while over > 0 and words and widths[longest := max(words, key=widths.__getitem__)] > least:
        widths[longest] -= 1
        over -= 1
    cut = zip(columns, widths, strict=True)
    return [replace(c, head=short(c.head, w), cells=[short(cell, w) for cell in c.cells]) for c, w in cut]


def _widest(column: Column) -> int:
    return max(map(len, (column.head, *column.cells)))


def _wide(columns: Sequence[Column]) -> int:
    return sum(map(_widest, columns)) + 2 * (len(columns) - 1)


def short(text: str, width: int) -> str:
    """The text, or its beginning and `~`."""
    return text if len(text) <= width else f"{text[: width - 1]}~"


def printable(text: str, encoding: str | None) -> str:
    """The text as a terminal of that encoding can show it."""
    encoding = encoding or "ascii"
    try:
        text.encode(encoding)
        return text
    except (UnicodeEncodeError, LookupError):
        return text.replace(PLUS_MINUS, "+-").encode("ascii", "replace").decode()


# ------------------------------------------------------------------------------------------------- for other programs


def as_csv(records: Iterable[Mapping[str, Any]]) -> str:
    """A line for each record, below the names that any record has; numbers in full."""
    records = list(records)
    head = list(dict.fromkeys(name for record in records for name in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, head, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def as_markdown(table: Table) -> str:
    """A table of GitHub's, the best in bold."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in _bold(table, "**{}**")]
    heads = [column.head.replace("|", "\\|") for column in table.columns]
    rule = ["---:" if column.right else "---" for column in table.columns]
    return "".join(f"| {' | '.join(line)} |\n" for line in (heads, rule, *rows))


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$",
          PLUS_MINUS: r"$\pm$", **{mark: f"\\{mark}" for mark in "_%&#${}"}}  # fmt: skip


def as_latex(table: Table) -> str:
    """A tabular of booktabs, the best in bold."""
    escaped = [replace(c, head=_escaped(c.head), cells=list(map(_escaped, c.cells))) for c in table.columns]
    rows = _bold(replace(table, columns=escaped), r"\textbf{{{}}}")
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{tabular}{" + "".join("r" if column.right else "l" for column in escaped) + "}",
        r"\toprule",
        " & ".join(column.head for column in escaped) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    marked = "".join(_LATEX.get(letter, letter) for letter in text)
    return re.sub(r"^-(?=\d)", "$-$", marked)


def _bold(table: Table, form: str) -> list[list[str]]:
    rows = [list(row) for row in table.rows]
    if table.bold:
        row, column = table.bold
        rows[row][column] = form.format(rows[row][column])
    return rows


# ------------------------------------------------------------------------------------------------------------ numbers


def numbers(values: Sequence[float | None]) -> list[str]:
    """Values of one column with the same decimals, about five figures; empty for None.

    One that is far larger than a metric should be, as before a run diverges, does not take the decimals of the others.
    """
    most = max((abs(value) for value in values if value is not None and abs(value) < HUGE), default=0.0)
    form = ".3e" if 0 < most < 1e-3 else f".{max(0, 4 - max(0, _magnitude(most)))}f"
    return ["" if value is None else f"{value:{'.3e' if abs(value) >= HUGE else form}}" for value in values]


def _magnitude(value: float) -> int:
    return math.floor(math.log10(value)) if value else 0


def p_value(p: float) -> str:
    return "p <0.001" if p < 0.001 else f"p {p:.2g}"


def duration(seconds: float | None, decimals: int = 1) -> str:
    """`12.3 s`, `1 min 41 s`, `2 h 5 min`, `1 d 3 h`; empty for none."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    if round(seconds, decimals) < 60:
        return f"{seconds:.{decimals}f} s"
    whole = round(seconds)
    for size, unit, part, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{whole} s"
