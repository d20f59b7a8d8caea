"""Breaks the code in the ways that resuming is broken by, one at a time in a copy, and shows that a test notices.

    python scripts/mutants.py [NAME ...]

Prints a row for each mutant with the first test that fails; the exit code is 1 if one is not noticed.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Mutant:
    """One way to break the code: in `file` the text `old`, which is there once, becomes `new`; `tests` must notice."""

    name: str
    file: str
    old: str
    new: str
    tests: str


LOOP, SINGLE = "tests/test_loop.py", "tests/test_loop.py -k stopped_after_each"
CHECKPOINT, CRASH, STATE = "tests/test_checkpoint.py", "tests/test_crash_points.py", "tests/test_state.py"

ON_EPOCH = "        self.schedule.on_epoch()\n"
SETTLE = "        self.settle(epoch_ended=True)\n"
COUNT = "        self.progress.finish_epoch()\n"
DECIDE = "        self.decide()\n        if evaluation is not None:\n"
SEED = """\
        seed_generators(mix(self.seed, STEP, self.progress.step, self.world.rank), cuda=self.device.type == "cuda")
"""
COPY = "        self.made.append(old)\n        self.due.append((old, value))\n"
WAIT = "        self.wait()\n        return snapshot("
SYNC = "            stream.flush()\n            os.fsync(stream.fileno())\n        files[file]"
TEMPORARY = 'temporary = parent / f".tmp-{name}-{os.getpid()}"'
CHECK = 'if _checksum(path / name) != facts["sha256"]:'
POSITION = "self.loader.groups(self.progress.epoch, self.progress.batch)"
SHUFFLE = "torch.randperm(self.samples, generator=generator)"
SAMPLE = "        seed_generators(mix(self.seed, SAMPLE, epoch, index))\n"
AVERAGE = "            self.average[name].copy_(value)\n"
WARMED = 'self.step, self._peaks = state["step"], '
CUT = "                os.truncate(self.folder.metrics, self._offset)\n"
HANDLER = "            signal.signal(number, handler if handler is not None else signal.SIG_DFL)\n"


def part(name: str, value: str) -> str:
    return f'"{name}": {value},'


MUTANTS = [
    Mutant("save before the schedule of the epoch", "loop.py", ON_EPOCH + SETTLE, SETTLE + ON_EPOCH, SINGLE),
    Mutant("counters moved after the boundary", "loop.py", COUNT + ON_EPOCH + SETTLE, ON_EPOCH + SETTLE + COUNT, LOOP),
    Mutant("save before the hooks and the best", "loop.py", DECIDE, f"        self.save()\n{DECIDE}", LOOP),
    Mutant("patience not saved", "loop.py", part("patience", "self.patience"), "", LOOP),
    Mutant("best not saved", "loop.py", part("best", "self.best"), "", LOOP),
    Mutant("means of the logged losses not saved", "loop.py", part("meters", "self.history"), "", LOOP),
    Mutant("generators not saved", "loop.py", part("rng", "Rng()"), "", LOOP),
    Mutant("steps not seeded", "loop.py", SEED, "", LOOP),
    Mutant("position in the epoch forgotten", "loop.py", POSITION, "self.loader.groups(self.progress.epoch)", SINGLE),
    Mutant("snapshot without a copy", "state.py", COPY, "        old = value\n        self.made.append(old)\n", STATE),
    Mutant("state handed over without a copy", "state.py", "copy.deepcopy(state[name])", "state[name]", STATE),
    Mutant("snapshot into memory being written", "checkpoint.py", WAIT, "        return snapshot(", CHECKPOINT),
    Mutant("files not flushed to the disk", "checkpoint.py", SYNC, "        files[file]", CRASH),
    Mutant("written in place", "checkpoint.py", TEMPORARY, "temporary = parent / name", CRASH),
    Mutant("checksums not compared", "checkpoint.py", CHECK, "if False:", CHECKPOINT),
    Mutant("order from the main generator", "data/loader.py", SHUFFLE, "torch.randperm(self.samples)", SINGLE),
    Mutant("samples not seeded", "data/workers.py", SAMPLE, "", "tests/test_loader.py"),
    Mutant("averaged weights not put back", "ema.py", AVERAGE, "            pass\n", SINGLE),
    Mutant("warm-up begun anew", "schedules/base.py", WARMED, "self._peaks = ", SINGLE),
    Mutant("history not cut back", "tracking/journal.py", CUT, "                pass\n", "tests/test_journal.py"),
    Mutant("handlers not put back", "signals.py", HANDLER, "            pass\n", "tests/test_signals.py"),
]


def copied(home: Path) -> None:
    for folder in ("trainer", "tests", "conf", "scripts", "benchmarks"):
        shutil.copytree(ROOT / folder, home / folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", home)


def failing(tests: str, home: Path) -> str | None:
    """The first of the tests that fails there; None if all pass."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *shlex.split(tests)]
    environment = {**os.environ, "PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    made = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)
    if made.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) \S+?::(\S+)", made.stdout, re.MULTILINE)
    if found is None:  # no test ran: that shows nothing
        raise SystemExit(f"{tests} could not be run\n{made.stdout[-2000:]}{made.stderr[-2000:]}")
    return found.group(1)


def broken(mutant: Mutant, home: Path) -> None:
    path = home / "trainer" / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise SystemExit(
            f"{mutant.name}: its text is {text.count(mutant.old)} times in trainer/{mutant.file}, not once"
        )
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of the names of the mutants to try; all by default")
    names = parser.parse_args().names
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a job in the background ignores it, and so would the tests
    chosen = [mutant for mutant in MUTANTS if not names or any(name in mutant.name for name in names)]
    missed = 0
    for tests in sorted({mutant.tests for mutant in chosen}):
        with tempfile.TemporaryDirectory() as home:
            copied(Path(home))
            if failed := failing(tests, Path(home)):
                raise SystemExit(f"{tests}: {failed} fails in the unbroken code, so that it shows nothing")
    for mutant in chosen:
        begin = time.monotonic()
        with tempfile.TemporaryDirectory() as home:
            copied(Path(home))
            broken(mutant, Path(home))
            noticed = failing(mutant.tests, Path(home))
        missed += noticed is None
        seconds = time.monotonic() - begin
        print(f"{mutant.name:<40} {noticed or 'NOT NOTICED':<90} {seconds:4.0f} s", flush=True)
    print(f"{len(chosen)} mutants, {len(chosen) - missed} noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
