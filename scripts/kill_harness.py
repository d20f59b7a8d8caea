"""Kills trainings with SIGKILL, again and again, and compares each with one that was never killed: the table.

32 combinations of schedule, loader workers, accumulation and averaged weights; two of them are killed 20 times, the
others 3 times each. Everything is real: processes, signals, files. Ends with 0 if all are identical, bit for bit.
"""

from __future__ import annotations

import argparse
import fnmatch
import itertools
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.killing import MOMENTS, SCHEDULES, Account, Combination, torment

OFFLINE = ("cosine-w2-a1-ema", "cyclic-w0-a3-raw")  # recorded by wandb, in a process of its own
DEMANDING, QUICK = (
    ("plateau-w2-a3-ema", "onecycle-w2-a3-ema"),
    ("cosine-w0-a3-ema", "plateau-w2-a3-ema", "onecycle-w2-a1-raw", "cyclic-w0-a1-ema"),
)


def combinations() -> list[Combination]:
    made = [Combination(*chosen) for chosen in itertools.product(SCHEDULES, (0, 2), (1, 3), ("none", "ema"))]
    return [
        Combination(c.schedule, c.workers, c.accumulate, c.ema, "offline") if c.name in OFFLINE else c for c in made
    ]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="four combinations, 3 kills each")
    parser.add_argument(
        "--only", default="*", metavar="PATTERN", help="combinations whose names match, e.g. 'plateau-w2*'"
    )
    parser.add_argument("--kills", type=int, metavar="N", help="of each combination, instead of 20 or 3")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills (0)")
    parser.add_argument("--jobs", type=int, default=2, help="combinations at a time (2)")
    parser.add_argument(
        "--keep", action="store_true", help="keep the folders of all runs, not of those that differ only"
    )
    return parser.parse_args()


def line(account: Account) -> str:
    fell = "".join(f"{account.fell[moment]:>11}" for moment in MOMENTS)
    same = "no" if account.differs else "litter" if account.faults else "yes"
    name = account.combination.name + ("*" if account.combination.wandb == "offline" else "")
    numbers = f"{account.fell.total():>5}{fell}{len(account.lives) - 1:>7}{account.steps:>7}"
    return f"{name:<20}{numbers}  {same:<9}  {account.ended}"


def main() -> int:
    given = options()
    chosen = [c for c in combinations() if fnmatch.fnmatch(c.name, given.only) and (not given.quick or c.name in QUICK)]
    if not chosen:
        print(f"--only: no combination matches {given.only!r}; one is called {combinations()[0].name}", file=sys.stderr)
        return 2
    work, begin = Path(tempfile.mkdtemp(prefix="kills-")), time.monotonic()
    print(f"torch {version('torch')}, 1 thread, seed {given.seed}")
    print("w: loader workers, a: accumulate, raw: ema=none, *: wandb.mode=offline\n")
    heads = "".join(f"{moment:>11}" for moment in MOMENTS)
    columns = f"{'combination':<20}{'kills':>5}{heads}{'lives':>7}{'steps':>7}"
    print(f"{columns}  identical  the run that was not killed", flush=True)

    def account(combination: Combination) -> Account:
        kills = given.kills or (20 if combination.name in DEMANDING and not given.quick else 3)
        return torment(combination, work / combination.name, kills, given.seed)

    accounts = []
    with ThreadPoolExecutor(given.jobs) as pool:
        for found in pool.map(account, chosen):
            accounts.append(found)
            print(line(found), *found.faults, sep="\n    ", flush=True)
            if not given.keep and not found.faults:
                shutil.rmtree(work / found.combination.name, ignore_errors=True)
    good, kills = sum(not one.differs for one in accounts), sum(one.fell.total() for one in accounts)
    litter = sum(bool(one.faults) for one in accounts if not one.differs)
    fell = ", ".join(f"{sum(one.fell[moment] for one in accounts)} {moment}" for moment in MOMENTS)
    print(f"\n{good} of {len(accounts)} identical after {kills} kills ({fell}), {time.monotonic() - begin:.0f} s")
    if litter:
        print(f"{litter} of these left something behind that nobody needs")
    if given.keep or litter or good < len(accounts):
        print(f"the runs are in {work}")
    else:
        shutil.rmtree(work, ignore_errors=True)
    return 1 if litter or good < len(accounts) else 0


if __name__ == "__main__":
    sys.exit(main())
