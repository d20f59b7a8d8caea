"""The architecture of docs/design.md, section 3, held by reading every import of the package."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "trainer"

# A package's name stands for all its modules. Nothing may import what stands on a higher floor.
FLOORS = {
    "errors": 0, "world": 0, "state": 0, "progress": 0, "durations": 0, "records": 0, "folder": 0,
    "signals": 0, "dotenv": 0, "targets": 0, "colors": 0, "code_version": 0,
    "data": 1, "tasks": 1, "losses": 1, "metrics": 1, "models": 1, "optim": 1, "schedules": 1,
    "gradients": 1, "update": 1, "ema": 1, "monitor": 1, "checkpoint": 1, "clock": 1, "buffers": 1,
    "evaluation": 1, "history": 1, "logged": 1, "pruning": 1,
    "tracking": 2, "hooks": 2, "observers": 2, "receipt": 2,
    "loop": 3, "rehearsal": 3, "accounts": 3, "capsule": 3, "replay": 3, "resuming": 3, "lr_find": 3,
    "measure": 3,
    "_hydra": 4, "_multirun": 4, "signatures": 4, "scheduling": 4, "consistency": 4, "config": 4, "overrides": 4,
    "preview": 4, "build": 4, "space": 4, "plugins": 4,
    "cli": 5, "run": 5, "help": 5, "sweep": 5, "report": 5, "sync": 5, "fetch": 5, "agent": 5, "dashboard": 5,
    "children": 5, "preflight": 5, "gpus": 5, "launchers": 5, "cluster": 5, "out_of_memory": 5,
    "search": 5, "study": 5,
    "__init__": 5,
}  # fmt: skip

# Who may import what comes from outside; everything else may be imported by all.
ALLOWED = {
    "wandb": {"tracking.shipper", "dashboard"},
    "optuna": {"study"},
    "wandb_workspaces": {"report.board", "dashboard"},
    "hydra": {"_hydra", "_multirun", "config", "overrides", "build"},
    "omegaconf": {"_hydra", "_multirun", "config", "overrides", "build"},
    **dict.fromkeys(("torchvision", "timm", "monai", "transformers"), set[str]()),
}

# Imported by the child process that talks to wandb, which has to start at once.
WITHOUT_TORCH = ("trainer", "trainer.cli", "trainer.errors", "trainer.durations", "trainer.records", "trainer.folder",
                 "trainer.colors", "trainer.tracking.base", "trainer.tracking.journal", "trainer.tracking.console",
                 "trainer.tracking.shipper", "trainer.dashboard")  # fmt: skip


def module_name(path: Path) -> str:
    """`data.base` for trainer/data/base.py, `data` for trainer/data/__init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def floor(module: str) -> int:
    return FLOORS[module.partition(".")[0]]


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but those of `if TYPE_CHECKING:`, where a name is needed and not its module."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from walk(child)


def imports(module: str, tree: ast.AST) -> Iterator[str]:
    """Full names of what is imported anywhere in a module, also inside functions and through `import_module("...")`."""
    for node in walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"trainer.{module}: a relative import; write the full name"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                is_module = full.removeprefix("trainer.") in MODULES and full.startswith("trainer.")
                yield full if is_module else str(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str))


IMPORTS = {
    module: sorted(set(imports(module, ast.parse(path.read_text(encoding="utf-8"), str(path)))))
    for module, path in MODULES.items()
}
OWN = {
    module: {name.removeprefix("trainer.") for name in names if name.startswith("trainer.")}
    for module, names in IMPORTS.items()
}


def test_every_module_stands_on_a_floor() -> None:
    homeless = sorted(module for module in MODULES if module.partition(".")[0] not in FLOORS)
    assert not homeless, f"give these a floor in FLOORS and in docs/design.md, section 3: {homeless}"


def test_every_floor_holds_only_modules_that_exist() -> None:
    assert not sorted(set(FLOORS) - {module.partition(".")[0] for module in MODULES})


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_no_higher_floor(module: str) -> None:
    above = {name: floor(name) for name in OWN[module] if floor(name) > floor(module)}
    assert not above, f"trainer.{module} stands on floor {floor(module)} and imports from above: {above}"


def test_modules_import_each_other_in_one_direction() -> None:
    list(graphlib.TopologicalSorter(OWN).static_order())


@pytest.mark.parametrize("module", MODULES)
def test_only_its_own_module_imports_a_heavy_package(module: str) -> None:
    packages = {name.partition(".")[0] for name in IMPORTS[module]}
    surplus = {package for package in packages & set(ALLOWED) if module not in ALLOWED[package]}
    assert not surplus, f"trainer.{module} imports {surplus}; allowed: {[ALLOWED[name] for name in surplus]}"


def test_what_must_start_at_once_brings_neither_torch_nor_wandb() -> None:
    """Imported one after the other in a fresh process; the first that brings them is told."""
    code = "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
    code += "    if brought := {'torch', 'wandb'} & set(sys.modules): sys.exit(f'{name} brings {brought}')"
    words = [sys.executable, "-c", code, *WITHOUT_TORCH]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_package_offers_what_it_names() -> None:
    import trainer

    assert [name for name in trainer.__all__ if not hasattr(trainer, name)] == []
    assert "Hook" in dir(trainer)


def test_a_name_that_the_package_has_not_is_an_ordinary_error() -> None:
    import trainer

    with pytest.raises(AttributeError, match="module 'trainer' has no attribute 'Trainr'"):
        _ = trainer.Trainr
