"""Slurm's commands as far as a sweep calls them, on this machine: `install` makes a folder of them for PATH.

Jobs run at once, as many of an array as it says. What was submitted, the state of each job and who asked to be queued
again are files in the folder.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = "FAKE_SLURM"


def install(folder: Path) -> dict[str, str]:
    """The environment in which there is a Slurm."""
    folder.mkdir()
    for name in ("sbatch", "srun", "scontrol", "sacct", "scancel"):
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).resolve()} {name} "$@"\n')
        (folder / name).chmod(0o755)
    return {HERE: str(folder), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def scripts(folder: Path) -> list[str]:
    """What was submitted so far."""
    return [path.read_text() for path in sorted(folder.glob("*.sbatch"))]


def sbatch(folder: Path, script: str) -> None:
    number = 100 + len(list(folder.glob("*.sbatch")))
    (folder / f"{number}.sbatch").write_text(text := Path(script).read_text())
    for name in _names(number, text):
        (folder / f"{name}.state").write_text("PENDING")
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.Popen([sys.executable, __file__, "daemon", str(number)], start_new_session=True, **quiet)  # type: ignore
    print(f"Submitted batch job {number}")


def _names(number: int, text: str) -> Iterator[str]:
    array = re.search(r"--array=0-(\d+)%", text)
    yield from (f"{number}_{n}" for n in range(int(array[1]) + 1)) if array else [str(number)]


def daemon(folder: Path, number: str) -> None:
    script = folder / f"{number}.sbatch"
    text = script.read_text()
    array = re.search(r"--array=0-\d+%(\d+)", text)
    with ThreadPoolExecutor(int(array[1]) if array else 1) as pool:
        list(pool.map(lambda name: _run(folder, name, script), _names(int(number), text)))


def _run(folder: Path, name: str, script: Path) -> None:
    number, _, index = name.partition("_")
    env = {**os.environ, "SLURM_JOB_ID": name, "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    if index:
        env |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": index}
    again = True
    while again:
        (folder / f"{name}.state").write_text("RUNNING")
        code = subprocess.run(["bash", str(script)], env=env, check=False).returncode
        again = (folder / f"{name}.requeue").exists()
        (folder / f"{name}.requeue").unlink(missing_ok=True)
    (folder / f"{name}.state").write_text("FAILED" if code else "COMPLETED")


def srun(_: Path, *words: str) -> None:
    files = dict(zip(words, words[1:], strict=False))
    ids = {"%A": os.environ.get("SLURM_ARRAY_JOB_ID", ""), "%a": os.environ.get("SLURM_ARRAY_TASK_ID", ""), "%t": "0",
           "%j": os.environ["SLURM_JOB_ID"]}  # fmt: skip
    for number, option in ((1, "--output"), (2, "--error")):
        path = files[option]
        for mark, value in ids.items():
            path = path.replace(mark, value)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    program = words[words.index("--error") + 2 :]
    os.execvp(program[0], program)


def scontrol(folder: Path, verb: str, name: str) -> None:
    assert verb == "requeue"
    (folder / f"{name}.requeue").touch()


def sacct(folder: Path, *_: str) -> None:
    print("JobID|State|NodeList")
    for path in folder.glob("*.state"):
        print(f"{path.stem}|{path.read_text()}|here")


def scancel(folder: Path, *_: str) -> None:
    raise NotImplementedError


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(os.environ[HERE]), *sys.argv[2:])
