"""Runs the jobs of a sweep through submitit: on a Slurm cluster, or as processes of this machine that behave alike."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError
from trainer.folder import write_whole
from trainer.launchers import BUSY, Item, Watcher, at_once, check_n_jobs, next_of, processors

POLL = 0.5  # seconds between two looks at the jobs
SHARED = ("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node")
"""What submitit calls alike for every cluster."""


class Preempted(BaseException):
    """SIGUSR2 came before the training or after it: nothing is to be saved."""


class Task:
    """What submitit calls in the process of a job; it is queued again as it is.

    submitit waits for SIGUSR2, which Slurm sends before the time limit, and queues the job again. A run that is
    training takes the signal first and saves; then submitit gets it.
    """

    def __call__(self, target: Callable[..., Any], args: Sequence[Any]) -> int:
        queue_again = signal.signal(signal.SIGUSR2, _preempted)
        if os.environ.get("SUBMITIT_EXECUTOR") == "local":  # by a Ctrl-C; Slurm's has no effect between two saves
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        code = 0
        try:
            target(*args)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except Preempted:
            code = 128 + signal.SIGUSR2
        if code == 128 + signal.SIGUSR2:
            signal.signal(signal.SIGUSR2, queue_again)
            os.kill(os.getpid(), signal.SIGUSR2)
        elif code > 128:
            os._exit(code)  # and no result: Slurm itself may queue it again
        return code

    def checkpoint(self, *args: Any) -> Any:
        """What is queued in place of a job that must leave."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *args)


def _preempted(*_: object) -> None:
    raise Preempted


class Submitit:
    """Each job one of a cluster's queue.

    What is sent there is not sent again by the same command while it is in the queue or runs, and the jobs go on where
    the command that sent them is ended.

    Args:
        cluster: `slurm`, or `local` for processes of this machine. timeout_min: how long a job may run before it is
            queued again to go on. max_num_timeout: how often that may be.
        n_jobs: how many processes at once on this machine; -1 is one for every two processors.
        others: Slurm's settings, under the names that submitit has for them.

    Raises:
        ConfigError: a number is out of range.
    """

    several = True

    def __init__(
        self, cluster: str, timeout_min: int, max_num_timeout: int = 50, n_jobs: int = -1, **others: Any
    ) -> None:  # fmt: skip
        check_n_jobs(n_jobs)
        delay = others.get("signal_delay_s", 0)
        if 60 * timeout_min <= delay:
            raise ConfigError(f"timeout_min: {timeout_min!r} must be longer than signal_delay_s={delay} seconds")
        self.cluster, self.max_num_timeout, self.n_jobs = cluster, max_num_timeout, n_jobs
        self.settings = {"timeout_min": timeout_min, **others}
        self.ended = False  # by a signal: no job is begun any more
        self._running: dict[str, Any] = {}  # submitit's jobs

    @property
    def at_once(self) -> int:
        """As `Launcher.at_once`."""
        return at_once(self.n_jobs) if self.cluster == "local" else int(self.settings.get("array_parallelism") or 1)

    def prepare(self) -> None:
        """As `Launcher.prepare`."""
        try:
            import submitit  # noqa: F401
        except ModuleNotFoundError as error:
            raise ConfigError(
                "hydra/launcher: submitit is not installed; type pip install 'wandb-trainer[slurm]'"
            ) from error
        if self.cluster == "slurm" and shutil.which("srun") is None:
            raise ConfigError(
                "hydra/launcher: there is no Slurm here (no srun in PATH); type this on a node of the cluster, or "
                "hydra/launcher=joblib for several jobs on this machine"
            )

    def run(self, items: Mapping[str, Item], watcher: Watcher) -> None:
        """As `Launcher.run`; jobs on a cluster are not waited for when a signal comes."""
        folder = next(iter(items.values())).output.parent / self.cluster
        executor, waiting = self._executor(folder), deque(items)
        most = len(items) if self.cluster == "slurm" else at_once(self.n_jobs)
        while (self._running or waiting) and not (self.ended and (self.cluster == "slurm" or not self._running)):
            chosen: list[str] = []
            while not self.ended and len(self._running) + len(chosen) < most:
                if (key := next_of(waiting, watcher)) is None:
                    break
                watcher.begun(key)
                if (known := self._queued(folder, key)) is not None:
                    self._running[key] = known
                else:
                    chosen.append(key)
            self._submit(executor, folder, {key: items[key] for key in chosen}, most)
            if not self._running:
                return  # others have what is left
            time.sleep(POLL)
            for key in [key for key, job in self._running.items() if job.done()]:
                watcher.done(key, *self._ended(self._running.pop(key)))
        if self.ended and self._running:
            numbers = sorted({str(job.job_id).partition("_")[0] for job in self._running.values()})
            print(f"\nthe jobs stay on the cluster; end them by  scancel {' '.join(numbers)}", flush=True)

    def signalled(self, again: bool) -> None:
        """As `Launcher.signalled`; jobs on a cluster go on."""
        self.ended = True
        for job in list(self._running.values()) if self.cluster == "local" else []:
            job._process.send_signal(signal.SIGTERM)  # handed on to the job, which dies of the second one

    def close(self) -> None:
        pass

    # -------------------------------------------------------------------------------------------------------- submitit

    def _executor(self, folder: Path) -> Any:
        import submitit

        names = {name: name if name in SHARED else f"{self.cluster}_{name}" for name in self.settings}
        given = {names[name]: value for name, value in self.settings.items() if value is not None}
        limit = {f"{self.cluster}_max_num_timeout": self.max_num_timeout}
        try:
            executor = submitit.AutoExecutor(folder=folder / "%j", cluster=self.cluster, **limit)
            executor.update_parameters(**given)
        except (ValueError, NameError, TypeError, RuntimeError) as error:
            raise ConfigError(f"hydra.launcher: {' '.join(str(error).split())[:300]}") from error
        return executor

    def _submit(self, executor: Any, folder: Path, items: Mapping[str, Item], most: int) -> None:
        if not items:
            return
        share = str(max(1, processors() // most))
        with _inherited({"TRAINER_PROCESSORS": share} if self.cluster == "local" else {}):
            sent = executor.map_array(Task(), [i.target for i in items.values()], [i.args for i in items.values()])
        for key, job in zip(items, sent, strict=True):
            self._running[key] = job
        if self.cluster == "slurm":
            for key, job in zip(items, sent, strict=True):
                write_whole(_note(folder, key), json.dumps(str(job.job_id)))
            numbers = sorted({str(job.job_id).partition("_")[0] for job in sent})
            print(f"{len(sent)} jobs are in the queue as {', '.join(numbers)}", flush=True)

    def _queued(self, folder: Path, key: str) -> Any:
        """The job that an earlier command has sent to the cluster, if it is there still."""
        note = _note(folder, key)
        if self.cluster != "slurm" or not note.exists():
            return None
        from submitit import SlurmJob

        job: Any = SlurmJob(folder / "%j", json.loads(note.read_text(encoding="utf-8")))
        waits = ("PENDING", "RUNNING", "REQUEUED", "COMPLETING", "PREEMPTED", "SUSPENDED", "CONFIGURING")
        return job if not job.done() and job.state.split()[0] in waits else None

    def _ended(self, job: Any) -> tuple[str, bool]:
        """What killed the job, and whether it was not tried."""
        if job.paths.result_pickle.exists():
            with contextlib.suppress(Exception):  # the requeue was refused, which is told as an error
                return "", job.result() == BUSY
            return "", False
        return f"its process is gone ({str(job.state).lower()}): was the memory enough? see {job.paths.stderr}", False


def _note(folder: Path, key: str) -> Path:
    return folder / f"{Path(key).name}.json"


@contextlib.contextmanager
def _inherited(env: Mapping[str, str]) -> Iterator[None]:
    """What processes that are started inside inherit: a changed environment, and deafness for the terminal's Ctrl-C."""
    before, number = dict(os.environ), signal.getsignal(signal.SIGINT)
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, number)
        os.environ.clear()
        os.environ.update(before)
