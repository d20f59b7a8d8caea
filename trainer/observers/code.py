"""The code that a run was started with, kept in its folder; from there it goes to wandb."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.code_version import git
from trainer.folder import RunFolder
from trainer.hooks import Hook

if TYPE_CHECKING:
    from trainer.loop import Trainer

log = logging.getLogger("trainer")

SKIPPED = ("__pycache__", "node_modules", "site-packages", "venv", "env", "build", "dist", "runs", "wandb")
LOOKED_AT = 20_000  # files and folders, so that a start in the home folder does not take minutes


class Code(Hook):
    """Copies the source files below a folder into `code/` of the run folder.

    In a git checkout these are the files that git tracks or would track, elsewhere those outside of environments and of
    folders like `build` or `runs`. Nothing hidden, such as `.env`, and nothing of a run is ever copied.

    Args:
        root: the folder. endings: of the files. megabytes: where all are larger than that, none is copied.
    """

    def __init__(self, root: str = ".", endings: Sequence[str] = (".py",), megabytes: float = 20.0) -> None:
        if not Path(root).is_dir():
            raise ValueError(f"root: there is no folder {root!r}")
        if wrong := [ending for ending in endings if not ending.startswith(".")]:
            raise ValueError(f"endings: {wrong[0]!r} must begin with a dot, like .py")
        self.root, self.endings, self.megabytes = Path(root), tuple(endings), megabytes

    def on_fit_start(self, trainer: Trainer) -> None:
        if trainer.folder is None:
            return
        try:
            self._keep(trainer.folder.code)
        except OSError as error:
            log.warning("hooks.code: the code could not be kept (%s)", error)

    def _keep(self, kept: Path) -> None:
        """A reader, or a crash, finds all files or none."""
        files = list(self.files())
        size = sum((self.root / file).stat().st_size for file in files)
        if size > self.megabytes * 1e6:
            why = f"{len(files)} files below {self.root.resolve()} have {size / 1e6:.0f} MB"
            log.warning("hooks.code: %s; not kept; name a folder with less: hooks.code.root=FOLDER", why)
            return
        temporary = kept.with_name(f".{kept.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        for file in files:
            (temporary / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.root / file, temporary / file)
        shutil.rmtree(kept, ignore_errors=True)
        if files:
            temporary.replace(kept)

    def files(self) -> Iterator[Path]:
        """The files below the root, relative to it."""
        for file in self._tracked() or self._found():
            if file.suffix in self.endings and not any(part.startswith(".") for part in file.parts):
                of_run = any(_is_run(self.root / folder) for folder in file.parents)
                if not of_run and (self.root / file).is_file():
                    yield file

    def _tracked(self) -> list[Path]:
        """What git tracks, or would if asked to; empty outside of a checkout."""
        try:
            told = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", ".", cwd=self.root)
        except (OSError, subprocess.SubprocessError):
            return []
        return [Path(name) for name in sorted(set(told.split("\0"))) if name]

    def _found(self) -> Iterator[Path]:
        left = LOOKED_AT
        for folder, below, names in os.walk(self.root):
            here = Path(folder)
            left -= len(below) + len(names)
            if left < 0:
                log.warning("hooks.code: %s is large; only a part was looked at", self.root.resolve())
                return
            left_out = [name for name in below if name in SKIPPED or name[0] == "." or _is_run(here / name)]
            below[:] = [name for name in below if name not in left_out and not (here / name / "pyvenv.cfg").exists()]
            below.sort(key=lambda name: (name in ("data", "datasets"), name))  # what may be large comes last
            yield from (here.relative_to(self.root) / name for name in sorted(names))


def _is_run(folder: Path) -> bool:
    return RunFolder(folder).metrics.exists()
