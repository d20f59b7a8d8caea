"""The GPUs of a machine, shared by the jobs of all sweeps on it: who holds one has locked a file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Held:
    """A right to use one GPU, kept until it is closed."""

    gpu: str
    _file: int

    def close(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)  # also where a forked process has it open, too
        os.close(self._file)


class Gpus:
    """Hands out GPUs, each to so many jobs at once.

    Args:
        gpus: what CUDA_VISIBLE_DEVICES calls them; none where the machine has none, and then no job needs a place.
        jobs: how many jobs may use one at once, in all sweeps of this machine that say the same.
        folder: where the locks lie; by default one for all users of the machine.
    """

    def __init__(self, gpus: list[str], jobs: int = 1, folder: Path | None = None) -> None:
        self.gpus, self.jobs = gpus, jobs
        self.folder = folder or Path(tempfile.gettempdir()) / "trainer-gpus"

    @property
    def places(self) -> int:
        return len(self.gpus) * self.jobs

    def take(self) -> Held | None:
        """A place on the GPU that has most of them free, as far as this process sees; None if all are taken."""
        self.folder.mkdir(exist_ok=True, parents=True)
        with contextlib.suppress(OSError):
            self.folder.chmod(0o1777)
        for n in range(self.jobs):  # first one job on each GPU, then a second
            for gpu in self.gpus:
                if (found := self._lock(gpu, n)) is not None:
                    return Held(gpu, found)
        return None

    def _lock(self, gpu: str, n: int) -> int | None:
        path = self.folder / f"{gpu.replace('/', '_')}.{n}"
        before = os.umask(0)
        try:
            # What another user made there Linux opens only for those who do not ask to make it.
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC | (0 if path.exists() else os.O_CREAT), 0o666)
        finally:
            os.umask(before)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return None
        return file


def visible() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; found without touching one."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    import torch

    # Asks the driver's library where that is there, so that no CUDA context is made in this process.
    return [str(n) for n in range(torch.cuda.device_count())]
