"""`trainer-compare`: runs side by side in the terminal, as files, and while they are trained."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trainer.durations import count
from trainer.errors import ConfigError
from trainer.folder import shown
from trainer.report import formats, table
from trainer.report.entries import Entry, find
from trainer.report.formats import PLUS_MINUS, printable
from trainer.report.ranking import Section, sections
from trainer.report.verdict import verdict

MANY = 20  # runs without a result that are shown; --runs shows all
REASONS = 5  # why runs failed, that are told in full
NAMED = 8  # keys that are named below the table


def program(words: Sequence[str]) -> int:
    """What `trainer-compare` does with the words after it."""
    given = _parser().parse_args(_spelled(words))
    if given.watch is not None:
        from trainer.report.watch import watch

        return watch(given.paths, given.watch)
    entries = find(given.paths)
    found = sections(entries, every=given.all_keys, single=given.runs)
    table.check_sort(found, given.sort)
    files = {"csv": given.csv, "markdown": given.markdown, "latex": given.latex}
    told = [_write(kind, target, found, given.sort) for kind, target in files.items() if target]
    if given.html:
        from trainer.report.page import write

        told.append(write(entries, Path(given.html)))
    if "-" not in files.values():  # what is printed for another program stands alone
        show(found, given.sort, MANY if not given.runs else len(entries), told)
    elif told := list(filter(None, told)):
        print("\n".join(told), file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    about = "Runs side by side: settings over their seeds, the best first, and whether that is more than luck."
    parser = argparse.ArgumentParser("trainer-compare", description=about)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="run folders, sweeps, or folders that hold them")
    parser.add_argument("--runs", action="store_true", help="each run by itself instead of settings over their seeds")
    parser.add_argument("--all-keys", action="store_true", help="also the keys that follow from others")
    parser.add_argument("--sort", metavar="KEY", default="", help="order by this column instead of the result")
    for kind in ("csv", "markdown", "latex"):
        text = f"writes the tables there as {kind.upper() if kind == 'csv' else kind.capitalize()}; without FILE prints"
        parser.add_argument(f"--{kind}", metavar="FILE", nargs="?", const="-", help=text)
    parser.add_argument("--html", metavar="FILE", help="writes a page with curves that needs no network")
    parser.add_argument("--watch", metavar="SECONDS", nargs="?", type=float, const=2.0,
                        help="shows how far running jobs are until none runs (every %(const)g s)")  # fmt: skip
    return parser


_ALONE = {"--csv": "-", "--markdown": "-", "--latex": "-", "--watch": "2"}


def _spelled(words: Sequence[str]) -> list[str]:
    """The words with a folder that stands after an option without its value taken for what it is."""
    after = [*words[1:], "-"]
    meant = [Path(word).is_dir() or (option == "--watch" and not re.fullmatch(r"[-+.0-9e]+|-.*|nan|inf", word))
             for option, word in zip(words, after, strict=True)]  # fmt: skip
    return [f"{word}={_ALONE[word]}" if word in _ALONE and folder else word
            for word, folder in zip(words, meant, strict=True)]  # fmt: skip


def _write(kind: str, target: str, found: Sequence[Section], sort: str) -> str:
    """Writes the tables in one form, or prints them; a sentence on what was written."""
    forms = {"markdown": formats.as_markdown, "latex": formats.as_latex}
    if kind == "csv":
        text = formats.as_csv([record for section in found for record in table.records(section, sort)])
    else:
        text = "\n".join(forms[kind](table.ranked(section, sort)) for section in found if section.ranked)
    if target == "-":
        print(printable(text, sys.stdout.encoding), end="")
        return ""
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--{kind}: {target} cannot be written ({error.strerror}); give a file's name") from error
    return f"written: {shown(Path(target).absolute())}"


# ------------------------------------------------------------------------------------------------------ for a terminal


def width() -> int | None:
    """Characters in a line of the terminal; None where nobody's terminal is written to."""
    wide = sys.stdout.isatty() or "COLUMNS" in os.environ
    return max(40, shutil.get_terminal_size().columns) if wide else None


def show(found: Sequence[Section], sort: str, most: int, told: Sequence[str]) -> None:
    """Prints every section, and the sentences in `told`."""
    several = len(found) > 1
    lines = [line for section in found for line in [*_shown(section, sort, most, several), ""]]
    print(printable("\n".join([*lines, *told]).rstrip(), sys.stdout.encoding))


def _shown(section: Section, sort: str, most: int, several: bool) -> list[str]:
    wide = width()
    lines = _folded(_heading(section, several), wide)
    dropped: list[str] = []
    if section.ranked:
        text, dropped = formats.as_text(table.ranked(section, sort), wide)
        lines += ["", *text]
    if section.rest:
        part = replace(section, rest=section.rest[:most])
        text, more = formats.as_text(table.unfinished(part), wide)
        dropped += [head for head in more if head not in dropped]
        lines += ["", f"without a result: {_states(section.rest)}", *text]
        lines += [line for reason in _reasons(section.rest, text) for line in _folded(reason, wide)]
        if len(section.rest) > most:
            lines.append(f"... and {len(section.rest) - most} more; --runs shows all")
    notes = [*_hidden(section), *([_no_room(dropped)] if dropped else [])]
    told = [line for sentence in (*notes, *verdict(section)) for line in _folded(sentence, wide)]
    return [*lines, "", *told] if told else lines


def _reasons(entries: Sequence[Entry], shown: Sequence[str]) -> list[str]:
    """Why runs ended, where the table had no room for it."""
    found = Counter(filter(None, map(table.why, entries)))
    cut = [(reason, n) for reason, n in found.most_common(REASONS) if not any(reason in line for line in shown)]
    return [f"{count(n, 'run')}: {reason}" for reason, n in cut]


def _heading(section: Section, several: bool) -> str:
    better = "more is better" if section.maximised else "less is better"
    parts = [f"{section.monitor or 'no monitor'} ({better}) at the best evaluation of each run"]
    if section.seeds:
        parts.append(f"mean {PLUS_MINUS} 95 % interval over n seeds")
    if several:
        config = next((entry.config for entry in section.entries if entry.config), {})
        names = {group: str(config.get(f"{group}._target_", "")).rpartition(".")[2] for group in ("data", "task")}
        parts += [f"{group} {name}" for group, name in names.items() if name]
    return "; ".join(parts)


def _states(entries: Sequence[Entry]) -> str:
    states = [entry.state for entry in entries]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def _hidden(section: Section) -> list[str]:
    """What the table leaves out of the keys that differ."""
    keys, lines = section.keys, []
    for group, names in keys.follows.items():
        inner = [name.removeprefix(f"{group}.") for name in names]
        more = f", ... ({len(inner)} in all)" if len(inner) > NAMED else ""
        lines.append(f"follows from {group}: {', '.join(inner[:NAMED])}{more}")
    lines += [f"the same as {other}: {key}" for key, other in keys.same.items()]
    return [f"not shown, --all-keys shows it: {'; '.join(lines)}"] if lines else []


def _no_room(dropped: Sequence[str]) -> str:
    return f"no room for: {', '.join(dropped)}; a wider terminal, --csv or --markdown shows them"


def _folded(text: str, wide: int | None) -> list[str]:
    """A sentence in lines that fit."""
    return textwrap.wrap(text, wide or 120, break_on_hyphens=False, subsequent_indent="  ") or [""]

