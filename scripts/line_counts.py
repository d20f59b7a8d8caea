"""Counts the lines of code of each module: `python scripts/line_counts.py [--write]` (into docs/design.md)."""

from __future__ import annotations

import argparse
import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DESIGN = ROOT / "docs" / "design.md"
BEGIN, END = "<!-- lines: begin (scripts/line_counts.py --write) -->", "<!-- lines: end -->"
LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def code_lines(source: str) -> int:
    """Lines that hold code: blank lines, comments and docstrings are not counted."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {n for t in tokens if t.type not in LAYOUT for n in range(t.start[0], t.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def table() -> str:
    """A row for each module of trainer/ (a package's modules in one row), code and all lines, and their sum."""
    code: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for path in sorted((ROOT / "trainer").rglob("*.py")):
        first, *rest = path.relative_to(ROOT / "trainer").parts
        name = f"{first}/" if rest else path.stem
        source = path.read_text(encoding="utf-8")
        code[name] += code_lines(source)
        total[name] += len(source.splitlines())
    rows = [f"| `{name}` | {code[name]:,} | {total[name]:,} |" for name in sorted(code)]
    sums = f"| all | {sum(code.values()):,} | {sum(total.values()):,} |"
    return "\n".join(["| module | lines of code | with docstrings, comments, blanks |", "|---|---:|---:|", *rows, sums])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table between its marks in docs/design.md")
    if not parser.parse_args().write:
        print(table())
        return 0
    text = DESIGN.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        print(f"{DESIGN}: the marks are missing; add the lines\n{BEGIN}\n{END}", file=sys.stderr)
        return 2
    DESIGN.write_text(f"{head}{BEGIN}\n{table()}\n{END}{tail}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
