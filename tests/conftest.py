"""What every test starts from: one thread, no wandb settings, a home and a working folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

# Before anything imports torch, so that it holds for the programs that tests start, too. The number changes the bits.
os.environ["OMP_NUM_THREADS"] = "1"
for _name in list(os.environ):
    if _name.startswith(("WANDB_", "HYDRA_", "SLURM_")) or _name in ("RUNS_DIR", "DATA_DIR", "NETRC"):
        del os.environ[_name]

# What a shell starts in the background, or nohup, ignores these, and so would the programs that tests start.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

# Saves are flushed to the disk, which is waited for; in memory, where there is plenty, they cost nothing.
_MEMORY = Path("/dev/shm")
if sys.platform == "linux" and _MEMORY.is_dir() and not os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC:
    if shutil.disk_usage(_MEMORY).free > 4 << 30 and os.access(_MEMORY, os.W_OK):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A person's login, settings and caches are neither read nor written."""
    home = tmp_path_factory.mktemp("home")
    os.environ["HOME"] = str(home)
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test writes to a relative path lands in its own `tmp_path`, never in the checkout."""
    monkeypatch.chdir(tmp_path)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also the tests that take long, which scripts/ cover likewise")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="takes long: make test ARGS=--slow"))
