"""Every shipped YAML file composes, has no problems, and says what its target would do without it."""

from __future__ import annotations

import inspect
import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from trainer import _hydra, config, space
from trainer.help import MEANINGS, help_text
from trainer.overrides import check
from trainer.targets import parameters

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
FILES = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.glob("*/*.yaml"))
EXPERIMENTS = [name for name in _hydra.options("experiment") if name != "none"]
NEEDS_ROOT = ("image_folder", "image_mask_folder")

# Files that are there to differ from the defaults of their target.
VARIANTS = ("model/unet_small", "clip/norm", "clip/value", "clip/adaptive", "grad_noise/annealed", "ema/ema",
            "early_stopping/none", "precision/bfloat16", "precision/float16", "warmup/none", "wandb/none",
            "debug/quick", "optimizer/amsbound", "optimizer/lars", "optimizer/lbfgs", "optimizer/lookahead",
            "optimizer/shampoo", "curriculum/none", "param_groups/none",
            "scheduler/sequential", "scheduler/chained")  # fmt: skip

# Arguments of optimizers that say how to compute, not what; and AdamW by another name, which is a file of its own.
TECHNICAL = {"foreach", "fused", "capturable", "differentiable", "maximize"}
ELSEWHERE = {"torch.optim.Adam": {"decoupled_weight_decay"}}


def words(group: str, name: str) -> list[str]:
    return [f"{group}={name}", *(["data.root=."] if name in NEEDS_ROOT else [])]


def node_of(file: str) -> dict[str, Any]:
    """What a file says, together with the files that its defaults list names."""
    cfg: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{file}.yaml"))
    group, _, name = file.partition("/")
    if "defaults" in (cfg or {}) and group != "experiment":
        cfg = OmegaConf.to_container(_hydra.compose([f"{group}={name}", "experiment=digits"])[group])
    return dict(next(iter(cfg.values())) if group == "hooks" and cfg else cfg or {})


TARGETS = [file for file in FILES if "_target_" in node_of(file)]


@pytest.mark.parametrize("file", FILES)
def test_every_file_begins_with_one_line_that_says_what_it_is(file: str) -> None:
    lines = (CONF / f"{file}.yaml").read_text(encoding="utf-8").splitlines()
    said = lines[1] if lines[0] == "# @package _global_" else lines[0]
    assert said.startswith("# ")
    assert said.endswith((".", ")", "FOLDER", "..."))
    assert max(map(len, lines)) <= 120


def rows_of_files() -> dict[str, list[str]]:
    """Files that are composed together, one of each group; alone those of groups that others have to fit."""
    alone = ("experiment", "task", "scheduler")
    groups = [_hydra.options(group) for group in alone]
    rows = [[f"{group}/{name}"] for group, names in zip(alone, groups, strict=True) for name in names]
    rest = [[file for file in FILES if file.startswith(f"{group}/")] for group in _hydra.groups() if group not in alone]
    rows += [[file for file in row if file] for row in itertools.zip_longest(*rest)]
    return {" ".join(row): row for row in rows}


ROWS = rows_of_files()


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_every_file_composes_and_has_no_problems(row: list[str]) -> None:
    chosen = [word for file in row for word in words(*file.split("/"))]
    extra = ["data=digits", "model=cnn", "task=classification"] if row == ["experiment/none"] else []
    measured = ["early_stopping.monitor=val/loss"] if row[0].startswith("task/") else []
    check([*chosen, *extra, *measured])


def test_every_file_is_in_one_row() -> None:
    assert sorted(file for row in ROWS.values() for file in row) == FILES


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_takes_every_file_of_each_group(experiment: str) -> None:
    changed = OmegaConf.load(CONF / f"experiment/{experiment}.yaml")
    groups = {name: _hydra.options(name) for name in ("model", *_hydra.groups()) if name in changed or name == "model"}
    for n in range(max(map(len, groups.values()))):
        chosen = {group: names[n % len(names)] for group, names in groups.items()}
        cfg = _hydra.compose([*words("experiment", experiment), *(f"{group}={name}" for group, name in chosen.items())])
        for group, name in chosen.items():
            node = config.unresolved(cfg)[group]
            surplus = set(node) - {*parameters(_hydra.locate(node["_target_"], group)), "_target_"}
            assert not surplus, f"experiment={experiment} sets {surplus} in {group}, which {name} does not take"


@pytest.mark.parametrize("file", TARGETS)
def test_a_file_lists_what_its_target_takes_so_that_no_value_needs_a_plus_sign(file: str) -> None:
    node, group = node_of(file), file.partition("/")[0]
    target = _hydra.locate(node["_target_"], group)
    taken = {name: p for name, p in parameters(target).items() if name not in config.OFFERED.get(group, ())}
    assert not set(node) - {*taken, "_target_"}
    if node["_target_"].startswith("trainer.") or group == "optimizer":
        left_out = TECHNICAL | ELSEWHERE.get(node["_target_"], set()) if group == "optimizer" else set()
        assert set(taken) - left_out == set(node) - {"_target_"}


@pytest.mark.parametrize("file", [file for file in TARGETS if file not in VARIANTS])
def test_the_values_of_a_file_are_the_defaults_of_its_target(file: str) -> None:
    node = node_of(file)
    if not node["_target_"].startswith("trainer."):
        return
    cfg = OmegaConf.to_container(OmegaConf.create(node), resolve=True)
    taken = parameters(_hydra.locate(node["_target_"], file))
    for name, value in cfg.items():  # type: ignore[union-attr]
        default = taken[str(name)].default if name != "_target_" else inspect.Parameter.empty
        if default is inspect.Parameter.empty:
            continue
        if str(default) == "<factory>":  # of a dataclass
            default = []
        default = list(default) if isinstance(default, tuple) else default
        assert value == default or (not value and not default), f"{file}: {name}"


def test_every_group_can_be_switched_off_where_off_makes_sense() -> None:
    for group in (
        "scheduler",
        "warmup",
        "curriculum",
        "clip",
        "early_stopping",
        "ema",
        "wandb",
        "hooks",
        "debug",
        "experiment",
    ):
        assert "none" in _hydra.options(group), group


def test_every_group_of_the_defaults_list_has_a_folder_and_every_folder_is_in_the_list() -> None:
    text = (CONF / "config.yaml").read_text(encoding="utf-8")
    listed = re.findall(r"^  - (\w+): ", text, re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in CONF.iterdir() if path.is_dir())


def test_the_values_of_the_config_are_known_to_the_check_and_to_the_help() -> None:
    cfg = _hydra.compose([])
    scalars = [str(key) for key in cfg if key not in _hydra.groups()]
    assert scalars == list(config.SCALARS) == list(MEANINGS)


def test_data_dir_runs_dir_and_the_wandb_variables_fill_in_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA_DIR", "RUNS_DIR", "WANDB_PROJECT", "WANDB_ENTITY"):
        monkeypatch.setenv(name, f"the {name}")
    cfg = _hydra.compose(["data=image_folder"])
    assert (cfg.data.root, cfg.runs) == ("the DATA_DIR", "the RUNS_DIR")
    assert (cfg.wandb.project, cfg.wandb.entity) == ("the WANDB_PROJECT", "the WANDB_ENTITY")


# -------------------------------------------------------------------------------------------------------------- help


def test_the_help_shows_every_group_option_and_value_and_fits_a_terminal() -> None:
    text = help_text()
    assert max(map(len, text.splitlines())) <= 100
    for group in _hydra.groups():
        (line,) = re.findall(rf"^  {group} +(.*(?:\n {{15,}}.*)*)", text, re.MULTILINE)
        assert line.replace("\n", " ").split() == ", ".join(_hydra.options(group)).split()
    for name in config.SCALARS:
        assert re.search(rf"^  {name}=\S+ +\S", text, re.MULTILINE)


def test_the_help_shows_the_users_own_files() -> None:
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/mine.yaml").write_text("_target_: my_model.Net\n")
    assert "mine, mlp" in help_text()


def test_the_examples_of_the_help_compose() -> None:
    lines = [line.split("   ")[0] for line in help_text().splitlines() if line.startswith("  trainer ")]
    assert len(lines) == 6
    Path("my_model.py").write_text("class Net:\n    def __init__(self, in_channels, num_classes):\n        pass\n")
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/mine.yaml").write_text("_target_: my_model.Net\n")
    for line in lines:
        given = [word for word in line.split()[1:] if word != "-m"]
        for job in space.expand(given)[:2]:
            check(job)


def test_the_help_imports_neither_hydra_nor_torch() -> None:
    code = (
        "import sys; from trainer.help import help_text; help_text(); "
        "print({'torch', 'wandb', 'hydra', 'omegaconf'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_composing_imports_neither_torch_nor_wandb() -> None:
    code = (
        "import sys; from trainer import _hydra, config, overrides; cfg = overrides.compose_or_explain(['epochs=3']); "
        "config.digest(cfg), config.plain(cfg), config.unresolved_yaml(cfg); "
        "print({'torch', 'wandb'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
