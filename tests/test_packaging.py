"""The wheel that users install: built once, opened, and used from an empty folder."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("wandb_trainer-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked, as an installation would lay it out."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def run(installed: Path, *arguments: str, entry: str = "train") -> subprocess.CompletedProcess[str]:
    """Calls an entry point of the unpacked wheel in the working folder, as its console command does."""
    code = f"import sys; from trainer.cli import {entry}; sys.exit({entry}())"
    # -P as for a console command: the working folder is not on the path unless the program puts it there.
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_holds_the_package_and_every_config_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    configs = {f"trainer/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "trainer").rglob("*.py")}
    assert configs >= {"trainer/conf/config.yaml", "trainer/conf/optimizer/sgd.yaml"}
    files = [path for path in (ROOT / "trainer/report/page").rglob("*.*") if "__pycache__" not in path.parts]
    page = {path.relative_to(ROOT).as_posix() for path in files}
    assert page >= {"trainer/report/page/page.html", "trainer/report/page/vendor/echarts-6.1.0.min.js"}
    assert configs | modules | page | {"trainer/py.typed"} <= names
    assert {name.partition("/")[0] for name in names} == {"trainer"}
    assert not [name for name in names if "test" in name or "__pycache__" in name]


def test_the_wheel_has_the_commands(wheel: Path, installed: Path) -> None:
    parser = configparser.ConfigParser()
    parser.read(next(installed.glob("*.dist-info/entry_points.txt")))
    assert dict(parser["console_scripts"]) == {
        "trainer": "trainer.cli:train",
        "trainer-check": "trainer.cli:check",
        "trainer-compare": "trainer.cli:compare",
        "trainer-dashboard": "trainer.cli:dashboard",
        "trainer-diff": "trainer.cli:diff",
        "trainer-evaluate": "trainer.cli:evaluate",
        "trainer-replay": "trainer.cli:replay",
        "trainer-sync": "trainer.cli:sync",
    }


def test_the_wheel_has_the_version_and_the_license_of_the_project(installed: Path) -> None:
    import trainer

    (metadata,) = installed.glob("wandb_trainer-*.dist-info/METADATA")
    assert f"\nVersion: {trainer.__version__}\n" in metadata.read_text(encoding="utf-8")
    assert (metadata.parent / "licenses" / "LICENSE").is_file()


@pytest.mark.parametrize("entry", ["train", "check", "compare", "dashboard", "diff", "evaluate", "sync"])
def test_each_command_can_be_imported_from_the_wheel(installed: Path, entry: str) -> None:
    code = f"import trainer.cli; print(trainer.__file__, callable(trainer.cli.{entry}))"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [str(installed / "trainer" / "__init__.py"), "True"], done.stderr


def test_a_model_and_one_yaml_in_an_empty_folder_are_found_by_the_installed_command(
    installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "my_model.py").write_text("import torch\n\nclass Net(torch.nn.Linear):\n    pass\n")
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("_target_: my_model.Net\n")
    done = run(installed, "model=mine", "optimizer=sgd", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "_target_: my_model.Net" in done.stdout
    assert "_target_: torch.optim.SGD" in done.stdout


def test_the_constraints_pin_everything_that_make_installs_to_what_the_project_allows(installed: Path) -> None:
    (metadata,) = installed.glob("wandb_trainer-*.dist-info/METADATA")
    needs = map(Requirement, message_from_string(metadata.read_text(encoding="utf-8")).get_all("Requires-Dist", []))
    made = [n for n in needs if not n.marker or any(n.marker.evaluate({"extra": e}) for e in ("demo", "dev"))]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {canonicalize_name(pin.name): str(pin.specifier) for pin in map(Requirement, filter(_is_pin, lines))}
    assert not [pin for pin in pins.items() if not re.fullmatch(r"==[0-9][0-9a-z.]*", pin[1])]
    others = [need for need in made if need.name != "wandb-trainer"]
    assert {"torch", "scikit-learn", "pytest"} <= {need.name for need in others}
    wrong = [str(need) for need in others if pins.get(canonicalize_name(need.name), "==0")[2:] not in need.specifier]
    assert not wrong, f"constraints.txt does not satisfy {wrong}"


def _is_pin(line: str) -> bool:
    return bool(line) and not line.startswith("#")
