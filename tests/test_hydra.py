"""Where configs are found, how they are composed, and how objects are made of them."""

from __future__ import annotations

import functools
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from trainer import _hydra
from trainer.errors import ConfigError, DataError
from trainer.space import expand

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _fresh_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test makes importable is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))


def module(name: str, text: str) -> None:
    """A module in the working folder."""
    Path(f"{name}.py").write_text(text)
    importlib.invalidate_caches()


# ------------------------------------------------------------------------------------------------- where configs lie


@pytest.mark.parametrize("home", ["trainer/conf", "conf"])
def test_the_configs_are_found_in_a_wheel_and_in_a_checkout(tmp_path: Path, home: str) -> None:
    (tmp_path / "trainer").mkdir()
    for name in ("__init__", "_hydra", "durations", "errors", "plugins", "targets"):
        shutil.copy(ROOT / "trainer" / f"{name}.py", tmp_path / "trainer")
    (tmp_path / home).mkdir()
    (tmp_path / home / "config.yaml").write_text("")
    code = "from trainer._hydra import conf_dir; print(conf_dir())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / home)


def test_a_file_of_the_users_own_conf_folder_wins_over_ours_and_new_files_are_found() -> None:
    Path("conf/optimizer").mkdir(parents=True)
    Path("conf/optimizer/sgd.yaml").write_text("_target_: torch.optim.SGD\nlr: 7\n")
    Path("conf/optimizer/mine.yaml").write_text("_target_: torch.optim.SGD\nlr: 8\n")
    assert _hydra.compose(["experiment=digits", "optimizer=sgd"]).optimizer._target_ == "torch.optim.SGD"
    assert "momentum" not in _hydra.compose(["optimizer=sgd"]).optimizer
    assert _hydra.compose(["optimizer=mine", "optimizer.lr=8"]).optimizer.lr == 8
    assert {"mine", "sgd", "adam"} <= set(_hydra.options("optimizer"))


def test_trainer_conf_names_another_folder_than_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "elsewhere"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "mine.yaml").write_text("_target_: my_model.Net\n")
    monkeypatch.setenv("TRAINER_CONF", str(folder))
    assert _hydra.compose(["model=mine"]).model._target_ == "my_model.Net"


def test_a_users_own_group_is_listed_after_ours() -> None:
    Path("conf/variant").mkdir(parents=True)
    Path("conf/variant/a.yaml").write_text("x: 1\n")
    assert _hydra.groups()[0] == "data"
    assert _hydra.groups()[-1] == "variant"


# --------------------------------------------------------------------------------------------------------- composing


def test_what_is_typed_wins_over_the_experiment_and_the_experiment_over_the_defaults() -> None:
    assert _hydra.compose(["experiment=digits"]).epochs == 20
    assert _hydra.compose(["experiment=digits", "epochs=3"]).epochs == 3


def test_composing_inside_a_running_hydra_application_leaves_it_as_it_was() -> None:
    from hydra.core.global_hydra import GlobalHydra

    with _hydra.session():
        outer = GlobalHydra.instance().hydra
        _hydra.compose(["epochs=3"])
        assert type(GlobalHydra.instance().hydra) is type(outer)
        assert GlobalHydra.instance().is_initialized()
    assert not GlobalHydra.instance().is_initialized()


def test_a_sweep_is_expanded_as_hydra_does_it() -> None:
    assert expand(["seed=1,2", "optimizer=sgd,adam", "epochs=3"]) == [
        ["seed=1", "optimizer=sgd", "epochs=3"],
        ["seed=1", "optimizer=adam", "epochs=3"],
        ["seed=2", "optimizer=sgd", "epochs=3"],
        ["seed=2", "optimizer=adam", "epochs=3"],
    ]
    assert expand(["seed=range(2)"]) == [["seed=0"], ["seed=1"]]
    assert ["clip=norm"] in expand(["clip=glob(*)"])


def test_the_parameters_of_the_sweeper_are_part_of_the_sweep() -> None:
    Path("conf/experiment").mkdir(parents=True)
    text = "# @package _global_\nhydra:\n  sweeper:\n    params:\n      seed: 1,2\n"
    Path("conf/experiment/seeds.yaml").write_text(text)
    jobs = expand(["experiment=seeds", "epochs=3"])
    assert [job[0] for job in jobs] == ["seed=1", "seed=2"]


@pytest.mark.parametrize(
    ("word", "swept"),
    [("seed=1,2", True), ("seed=range(3)", True), ("seed=1", False), ("x=[1,2]", False), ("x=[1", False)],
)
def test_a_swept_override_is_told_from_others(word: str, swept: bool) -> None:
    assert _hydra.is_swept(word) == swept


def test_hydra_writes_nothing_for_a_run(tmp_path: Path) -> None:
    Path("app.py").write_text("from trainer._hydra import main\nmain(lambda cfg: print('ran', cfg.seed))()\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-B", "app.py", "seed=1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ran 1" in done.stdout
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()] == ["app.py"]


# ---------------------------------------------------------------------------------------------------- making objects


TARGETS = """
import functools
class Net:
    def __init__(self, in_channels, width=4, head=None):
        self.got = (in_channels, width, head)
class Open(Net):
    def __init__(self, extra=1, **kwargs):
        super().__init__(**kwargs)
class Sub(Net):
    def __init__(self, in_channels):
        super().__init__(in_channels)
class OpenSub(Sub):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
def many(*args, **kwargs):
    return args, kwargs
class Picky:
    def __init__(self, lr, size=1):
        if lr < 0:
            raise ValueError(f"lr: {lr} must be more than 0")
        raise RuntimeError("no memory")
"""


def make(key: str = "model", *, offered: dict[str, Any] | None = None, **node: Any) -> Any:
    module("things", TARGETS)
    return _hydra.instantiate(OmegaConf.create(node), key, **(offered or {}))


def test_of_what_is_offered_a_target_gets_what_it_names_and_the_config_does_not_set() -> None:
    net = make(_target_="things.Net", width=8, offered={"in_channels": 3, "width": 5, "classes": ("a",)})
    assert net.got == (3, 8, None)


def test_an_offered_object_arrives_as_it_is() -> None:
    channels = [torch.zeros(2)]
    assert make(_target_="things.Net", offered={"in_channels": channels}).got[0] is channels


def test_a_class_that_passes_keywords_on_is_offered_what_its_parent_names() -> None:
    assert make(_target_="things.Open", offered={"in_channels": 3, "classes": ()}).got == (3, 4, None)


def test_what_only_a_grandparent_takes_is_not_offered_past_a_parent_that_does_not_pass_it_on() -> None:
    assert make(_target_="things.OpenSub", offered={"in_channels": 3, "width": 7}).got == (3, 4, None)


def test_a_function_that_takes_any_keyword_is_offered_nothing() -> None:
    assert make(_target_="things.many", x=1, offered={"in_channels": 3}) == ((), {"x": 1})


def test_containers_are_plain_at_every_depth() -> None:
    _, got = make(_target_="things.many", a=[1, [2]], b={"c": {"d": 1}}, e={"_target_": "things.many", "f": [1]})
    assert type(got["a"]) is list
    assert type(got["a"][1]) is list
    assert type(got["b"]["c"]) is dict
    assert type(got["e"][1]["f"]) is list


def test_nested_targets_are_made_first_and_offered_nothing() -> None:
    node = {"_target_": "things.Net", "in_channels": 1, "head": [{"_target_": "things.Net", "in_channels": 2}]}
    net = make(**node, offered={"width": 9})
    assert net.got[1] == 9
    assert net.got[2][0].got == (2, 4, None)


def test_each_node_of_a_mapping_is_made_and_offered_everything() -> None:
    made = make(
        "hooks", a={"_target_": "things.Net"}, b={"_target_": "things.Net", "width": 1}, offered={"in_channels": 3}
    )
    assert {name: hook.got for name, hook in made.items()} == {"a": (3, 4, None), "b": (3, 1, None)}


def test_a_partial_is_a_plain_one_and_holds_what_was_offered() -> None:
    made = make(_target_="things.Net", _partial_=True, width=2, offered={"in_channels": 3, "classes": 1})
    assert type(made) is functools.partial
    assert made.keywords == {"width": 2, "in_channels": 3}


def test_positional_arguments_and_unmade_nodes_work_as_in_hydra() -> None:
    assert make(_target_="things.Net", _args_=[1, 2]).got == (1, 2, None)
    net = make(_target_="things.Net", _recursive_=False, in_channels=1, head={"_target_": "x.y"})
    assert net.got[2] == {"_target_": "x.y"}


def test_interpolations_are_resolved_from_the_whole_config() -> None:
    module("things", TARGETS)
    cfg = OmegaConf.create({"width": 7, "model": {"_target_": "things.Net", "in_channels": "${width}"}})
    assert _hydra.instantiate(cfg.model, "model").got[0] == 7


def test_a_missing_argument_is_named_with_what_is_known() -> None:
    with pytest.raises(ConfigError, match=r"^model\.in_channels: things\.Net needs it.*known by itself here: classes"):
        make(_target_="things.Net", offered={"classes": ()})


def test_a_constructors_complaint_gets_the_key_of_its_argument() -> None:
    with pytest.raises(ConfigError, match=r"^optimizer\.lr: -1 must be more than 0$"):
        make("optimizer", _target_="things.Picky", lr=-1)


def test_torchs_complaint_gets_the_key_of_the_argument_with_that_value() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(ConfigError, match=r"^optimizer\.weight_decay: Invalid weight_decay value: -0\.5$"):
        make("optimizer", _target_="torch.optim.SGD", lr=0.5, weight_decay=-0.5, offered={"params": [weight]})


def test_any_other_error_is_told_with_its_key_and_place_and_kept_as_the_cause() -> None:
    with pytest.raises(
        ConfigError, match=r"^model\.head: things\.Picky cannot be made: RuntimeError: no memory"
    ) as told:
        make(_target_="things.Net", in_channels=1, head={"_target_": "things.Picky", "lr": 1})
    assert isinstance(told.value.__cause__, RuntimeError)
    assert "(things.py:21)" in str(told.value)


def test_errors_that_are_meant_for_the_user_pass_as_they_are() -> None:
    module("refuses", "from trainer.errors import DataError\ndef f():\n    raise DataError('imgs/: nothing there')\n")
    with pytest.raises(DataError, match="^imgs/: nothing there$"):
        _hydra.instantiate({"_target_": "refuses.f"}, "data")


def test_a_value_that_must_be_given_is_not_passed_on() -> None:
    with pytest.raises(ConfigError, match=r"^model\.in_channels: must be given; type model\.in_channels=FOLDER$"):
        make(_target_="things.Net", in_channels="??? FOLDER")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("torch.optim.AdamWW", "AdamWW is not there: torch.optim has no AdamWW; did you mean torch.optim.AdamW?"),
        ("torhc.optim.SGD", "model: torhc.optim.SGD cannot be imported: there is no module torhc; did you mean torch?"),
        ("thingz.Net", "there is no module thingz; did you mean things?"),
        ("things.Nett", "things has no Nett; did you mean things.Net?"),
        ("things.Net.widht", "things.Net has no widht"),
        ("needs_einops.Net", "needs_einops.Net cannot be imported: No module named 'einops_x' (needs_einops.py:3)"),
        ("broken.Net", "model: broken.Net cannot be imported: NameError: name 'nope' is not defined (broken.py:2)"),
        ("wraps.Net", "model: wraps.Net cannot be imported: No module named 'einops_x' (wraps.py:2)"),
        ("syntax.Net", "model: syntax.Net cannot be imported: invalid syntax (syntax.py:2)"),
        ("exits.Net", "model: exits.Net cannot be imported: SystemExit: 3 (exits.py:1)"),
        ("math.pi", "model: math.pi is a float, and a class or function is needed"),
        ("os.system", "model._target_: Hydra refuses os.system"),
        ("", "model: '' is not a path like torch.optim.SGD"),
    ],
)  # fmt: skip
def test_a_target_that_cannot_be_found_is_told_with_the_innermost_cause(target: str, message: str) -> None:
    module("things", TARGETS)
    module("needs_einops", "import torch\n\nimport einops_x\n")
    module("broken", "\nnope\n")
    module("wraps", "try:\n    import einops_x\nexcept ImportError as e:\n    raise RuntimeError('sorry') from e\n")
    module("syntax", "\nclass Net(:\n")
    module("exits", "raise SystemExit(3)\n")
    with pytest.raises(ConfigError) as told:
        _hydra.locate(target, "model")
    assert message in str(told.value)


def test_a_module_in_the_working_folder_is_found_here_and_by_child_processes() -> None:
    module("only_here", "class Net:\n    pass\n")
    assert _hydra.locate("only_here.Net", "model").__name__ == "Net"
    assert os.environ["PYTHONPATH"].split(os.pathsep)[0] == str(Path.cwd())
