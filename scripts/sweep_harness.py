"""Kills a sweep of 24 jobs again and again, types it again, and compares it with the sweep that was never killed.

With SIGKILL fall the command itself, a job, the process that forks the jobs (or submitit's), or all of them at once.
Under each launcher; everything is real. Ends with 0 if every job is finished once and all is identical, bit for bit.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.commands import Command
from tests.sweeps import KINDS, LAUNCHERS, Account, torment, words


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="4 jobs and 2 kills")
    parser.add_argument("--only", choices=list(LAUNCHERS), action="append", help="this launcher (all)")
    parser.add_argument("--kills", type=int, default=10, help="of each sweep (10)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills (0)")
    parser.add_argument("--keep", action="store_true", help="keep the folders also where nothing differs")
    return parser.parse_args()


def line(account: Account, seconds: float) -> str:
    fell = "".join(f"{account.fell[kind]:>9}" for kind in KINDS)
    kills, lives = f"{account.fell.total():>7}{fell}", f"{account.calls:>7}{account.attempts:>10}{account.twice:>7}"
    same = "no" if account.faults else "yes"
    return f"{account.launcher:<16}{account.jobs:>5}{kills}{lives}{account.last:>8.1f} s{seconds:>8.0f} s   {same}"


def main() -> int:
    given = options()
    seeds, epochs, kills = (1, 6, min(2, given.kills)) if given.quick else (6, 6, given.kills)
    work = Path(tempfile.mkdtemp(prefix="sweeps-"))
    begin = time.monotonic()
    (work / "whole").mkdir()
    ended = Command("train", *words(seeds, epochs, "basic"), cwd=work / "whole").wait(600)
    if ended.code:
        print(f"the sweep that was not killed ended with {ended.code}\n{ended.out}{ended.err}", file=sys.stderr)
        return 1
    print(f"the sweep that was not killed: {4 * seeds} jobs of {45 * epochs} steps, {time.monotonic() - begin:.0f} s\n")
    heads = "".join(f"{kind:>9}" for kind in KINDS)
    print(f"{'launcher':<16}{'jobs':>5}{'kills':>7}{heads}{'calls':>7}{'attempts':>10}{'twice':>7}{'last':>10}{'time':>10}"
          "   identical", flush=True)  # fmt: skip
    good = True
    for launcher in given.only or LAUNCHERS:
        begin = time.monotonic()
        account = torment(launcher, work / launcher, work / "whole", kills, seeds, epochs, given.seed)
        print(line(account, time.monotonic() - begin), *account.faults[:20], sep="\n    ", flush=True)
        good = good and not account.faults
    if good and not given.keep:
        shutil.rmtree(work, ignore_errors=True)
    else:
        print(f"the runs are in {work}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
