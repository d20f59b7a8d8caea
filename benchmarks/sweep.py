"""What a sweep costs beside its trainings: `python benchmarks/sweep.py [--jobs 1000]`.

CPU time for each job that is launched, of the sweep and the process that forks, with a job that does nothing; and the
time in which a sweep whose jobs are all finished answers.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trainer import cli, sweep
from trainer.overrides import check_sweep, sweep_settings

WORDS = ["experiment=digits", "model=mlp", "debug=quick", "epochs=1", "wandb.mode=disabled"]


def nothing(_: Any, at: Any) -> None:
    """A job that is finished at once."""
    with at.folder.hold():
        at.folder.write_status(state="finished")


def cpu() -> float:
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)


def swept(jobs: int) -> tuple[float, float]:
    """Seconds of CPU for composing so many jobs, and for all else of a sweep of them."""
    words = [*WORDS, f"seed=range({jobs})", "name=nothing"]
    begin = cpu()
    made = check_sweep(words)
    composed = cpu() - begin
    engine = sweep.Sweep(sweep_settings(words))
    engine.add(made)
    engine.run()
    engine.close()
    return composed, cpu() - begin - composed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=1000, help="of the sweep that is finished (1000)")
    given = parser.parse_args()
    os.chdir(tempfile.mkdtemp())
    sweep.live = nothing
    with contextlib.redirect_stdout(io.StringIO()):
        few, many = swept(10), swept(110)  # the 10 are answered the second time
    launched = (many[1] - few[1]) / 90
    print(f"composing a job            {1000 * (many[0] - few[0]) / 100:6.1f} ms of CPU")
    print(f"a job beside its training  {1000 * launched:6.1f} ms of CPU")
    words = [*WORDS, f"seed=range({given.jobs})", "name=finished"]
    engine = sweep.Sweep(sweep_settings(words))
    engine.add(check_sweep(words))
    engine.close()
    result = {"best": {"epoch": 1, "val/accuracy": 0.5}, "reason": "1 epoch done", "epoch": 1}
    for at in engine.places.values():
        at.folder.path.mkdir(parents=True)
        status = {"state": "finished", "monitor": "val/accuracy", "result": result, "updated": time.time()}
        at.folder.status.write_text(json.dumps(status))
    begin, used = time.monotonic(), cpu()
    with contextlib.redirect_stdout(said := io.StringIO()):
        code = cli.train(["-m", *words])
    assert code == 0, said.getvalue()
    seconds = time.monotonic() - begin
    print(f"{given.jobs} finished jobs are answered in {seconds:.1f} s ({cpu() - used:.1f} s of CPU)")


if __name__ == "__main__":
    main()
