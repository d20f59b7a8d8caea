"""What each fault of a wandb server, a network or a process does to a real training: a table.

A training of about 10 s logs every step online, to the server of tests/wandb_server.py. What was not sent is sent by
`trainer-sync` when all is well again. Ends with 0 if every training ended as it should, nothing was lost, and none
waited for wandb longer than 10 s at its end.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.remains import rows
from tests.wandb_server import WandbServer

WORDS = ["experiment=digits", "early_stopping=none", "epochs=60", "evaluate_every=10epochs", "log_every=1step",
         "checkpoint_every=10epochs", "world.threads=1", "name=r", "resume=auto"]  # fmt: skip
STEPS, MIDDLE, LATE = 2700, 900, 2300
MOST = 10.0  # seconds that a training may wait for wandb
PATIENCE = 200.0  # seconds that a training may take


class Live:
    """A training against a server of its own; the processes that serve it are known by a variable that they inherit."""

    def __init__(self, server: WandbServer, path: Path, **env: str) -> None:
        self.server, self.path = server, path
        self.env = server.env(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", FAULTS=str(path), **env)
        self.journal = path / "runs/r/metrics.jsonl"

    @property
    def steps(self) -> int:
        with contextlib.suppress(OSError):
            return self.journal.read_bytes().count(b"\n")
        return 0

    def command(self, script: str, *words: str) -> subprocess.Popen[bytes]:
        with open(self.path / "out", "ab") as out:
            line = [sys.executable, str(ROOT / "scripts" / script), *words]
            return subprocess.Popen(line, cwd=self.path, env=self.env, stdout=out, stderr=out)

    def processes(self, word: str) -> list[int]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                line, environment = ((entry / name).read_bytes() for name in ("cmdline", "environ"))
                if word.encode() in line and f"FAULTS={self.path}".encode() in environment.split(b"\0"):
                    found.append(int(entry.name))
        return found

    def kill(self, *words: str) -> None:
        for pid in [pid for word in words for pid in self.processes(word)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def well(self) -> None:
        self.server.heal()
        self.server.up()


SHIPPER, CORE, TRAINING = "tracking.shipper", "wandb-core", "train.py"


@dataclass(frozen=True)
class Fault:
    """What goes wrong before the training, a third through it, and when most of it is over.

    Attributes:
        heals: all is well again that many seconds after the middle; 0 for never. ended: the expected exit code.
        words, env: beside those of every training.
    """

    name: str
    before: Callable[[Live], object] = lambda live: None
    middle: Callable[[Live], object] = lambda live: None
    late: Callable[[Live], object] = lambda live: None
    heals: float = 0.0
    ended: int = 0
    words: tuple[str, ...] = ()
    mode: str = "online"


def slow(live: Live) -> None:
    live.server.delay("graphql", 2)
    live.server.delay("filestream", 2)


FAULTS = [
    Fault("none"),
    Fault("no network at the start", before=lambda live: live.server.down()),
    Fault("the server hangs at the start", before=lambda live: live.server.hang()),
    Fault("401 at the start", before=lambda live: live.server.fail("graphql", 401)),
    Fault("403 for the run at the start", before=lambda live: live.server.fail("graphql:UpsertBucket", 403)),
    Fault("500 for the run at the start", before=lambda live: live.server.fail("graphql:UpsertBucket", 500)),
    Fault("rows: 500, three times", middle=lambda live: live.server.fail("filestream", 500, 3)),
    Fault("rows: 500 for 15 s", middle=lambda live: live.server.fail("filestream", 500), heals=15),
    Fault("rows: 500 to the end", middle=lambda live: live.server.fail("filestream", 500)),
    Fault("rows: 403", middle=lambda live: live.server.fail("filestream", 403)),
    Fault("rows: 404", middle=lambda live: live.server.fail("filestream", 404)),
    Fault("no network for 8 s", middle=lambda live: live.server.down(), heals=8),
    Fault("no network from the middle on", middle=lambda live: live.server.down()),
    Fault("no network at the end", late=lambda live: live.server.down()),
    Fault("the server hangs at the end", late=lambda live: live.server.hang()),
    Fault("pictures: 500", before=lambda live: live.server.fail("storage", 500)),
    Fault("pictures: 403", before=lambda live: live.server.fail("storage", 403)),
    Fault("2 s an answer", before=slow),
    Fault("Stop pressed on the website", middle=lambda live: live.server.stop_run(live.server.runs[0].id), ended=143,
          words=("epochs=600",)),
    Fault("wandb-core killed", middle=lambda live: live.kill(CORE)),
    Fault("the shipper killed", middle=lambda live: live.kill(SHIPPER)),
    Fault("both killed", middle=lambda live: live.kill(SHIPPER, CORE)),
    Fault("the training killed", middle=lambda live: live.kill(TRAINING), ended=-9),
    Fault("all three killed", middle=lambda live: live.kill(TRAINING, SHIPPER, CORE), ended=-9),
    Fault("all three killed, offline", middle=lambda live: live.kill(TRAINING, SHIPPER, CORE), ended=-9,
          mode="offline"),
]  # fmt: skip


def train(live: Live, fault: Fault) -> tuple[int, float, float]:
    """Trains while the fault happens; returns the exit code, and the seconds to the last row and from it to the end."""
    begin = last = time.monotonic()
    process = live.command(TRAINING, *WORDS, f"wandb.mode={fault.mode}", *fault.words)
    events, healing, size = [(MIDDLE, fault.middle), (LATE, fault.late)], 0.0, 0
    while process.poll() is None and time.monotonic() - begin < PATIENCE:
        if (now := live.steps) != size:
            last, size = time.monotonic(), now
        if events and now >= events[0][0]:
            events.pop(0)[1](live)
            healing = healing or (fault.heals and time.monotonic() + fault.heals)
        if healing and time.monotonic() >= healing:
            healing = float("inf")
            live.well()
        time.sleep(0.02)
    code = process.poll()
    live.kill(TRAINING)
    return 124 if code is None else code, last - begin, time.monotonic() - last


def arrived(live: Live) -> tuple[int, str]:
    """How many rows the server has, and in what they differ from the journal; empty if they are the same, each once."""
    runs = [run for run in live.server.runs if run.history]
    if len(runs) != 1:
        return 0, f"{len(runs)} runs"
    wanted = rows(live.journal.parent)
    there = [[row["trainer/step"], row["train/loss"]] for row in runs[0].history]
    wrong = "" if there == [[row["step"], row["train/loss"]] for row in wanted] else "other rows"
    pictures = [name for name in runs[0].files if name.startswith("media/")]
    wrong = wrong or ("" if pictures else "no pictures")
    return len(there), wrong or (f"{runs[0].overwritten} rows overwritten" if runs[0].overwritten else "")


def recorded(live: Live) -> int:
    """How many rows wandb's own file of an offline run holds."""
    said = subprocess.run(
        [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(live.journal.parent / "wandb")],
        env=live.env, capture_output=True, text=True, check=False)  # fmt: skip
    return sum(json.loads(line)["type"] == "history" for line in said.stdout.splitlines() if line.startswith("{"))


def account(fault: Fault, path: Path) -> dict[str, Any]:
    """What one fault did. A training that was killed is typed again before the rest is sent."""
    path.mkdir()
    with WandbServer() as server:
        live = Live(server, path)
        fault.before(live)
        code, training, end = train(live, fault)
        limit = time.monotonic() + 30
        while code == -signal.SIGKILL and live.processes(SHIPPER) and time.monotonic() < limit:
            time.sleep(0.1)
        steps, (there, _) = live.steps, arrived(live)
        there = recorded(live) if fault.mode == "offline" else there
        told = re.findall(r"^(?:warning: )?wandb: (?!http)(.*)$", (path / "out").read_text(), re.M)
        live.kill(SHIPPER, CORE)
        live.well()
        if code != 0:
            train(live, Fault("typed again", mode=fault.mode))
        sync = live.command("sync.py", "runs/r").wait()
        wrong = arrived(live)[1] or ("unknown requests" if server.unknown else "")
        good = code == fault.ended and end <= MOST and not wrong and sync == 0 and live.steps >= STEPS
        found = {"fault": fault.name, "exit": code, "training": training, "end": end, "steps": steps, "there": there}
        return {**found, "after": wrong or "all", "told": told, "good": good}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="*", metavar="PATTERN", help="faults whose names match, e.g. 'rows*'")
    parser.add_argument("--json", metavar="FILE", type=Path, help="where to put the figures, too")
    given = parser.parse_args()
    work, accounts = Path(tempfile.mkdtemp(prefix="faults-")), []
    heads = "fault", "exit code", "training, s", "then, s", "rows kept", "arrived", "after `trainer-sync`", "told"
    print("|", " | ".join(heads), "|\n|---|---:|---:|---:|---:|---:|---|---|")
    for n, fault in enumerate(each for each in FAULTS if fnmatch.fnmatch(each.name, given.only)):
        found = account(fault, work / str(n))
        accounts.append(found)
        values = [found["fault"], found["exit"], f"{found['training']:.1f}", f"{found['end']:.1f}", found["steps"]]
        values += [found["there"], found["after"], "<br>".join(found["told"]) or "nothing"]
        print("|", " | ".join(map(str, values)), "|" if found["good"] else "| **bad**", flush=True)
    if given.json:
        given.json.write_text(json.dumps(accounts, indent=1) + "\n")
    bad = sum(not found["good"] for found in accounts)
    print(f"\n{len(accounts) - bad} of {len(accounts)} as they should be")
    if bad:
        print(f"the runs are in {work}")
    else:
        shutil.rmtree(work, ignore_errors=True)
    return 1 if bad or not accounts else 0


if __name__ == "__main__":
    sys.exit(main())
