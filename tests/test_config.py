"""Every mistake of a config is told at once, by key, with the word that was meant; what a config is identified by."""

from __future__ import annotations

import copy
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from trainer import _hydra, config
from trainer.dotenv import load_env
from trainer.errors import ConfigError
from trainer.overrides import apply, check, check_sweep, compose_or_explain
from trainer.records import FACTS
from trainer.signatures import mismatch


def told(*words: str) -> list[str]:
    """Everything that is said about a command line."""
    try:
        check(words)
    except ConfigError as error:
        return error.problems
    return []


# Words of a command line that Hydra, or what stands in a file, refuses; and what the message must hold.
REFUSED = [
    ("optimzer=sgd", "optimzer: there is no such key; did you mean optimizer?"),
    ("optimizer=sdg", "optimizer: there is no 'sdg'; did you mean sgd? known: adabelief, adabound, adadelta"),
    ("model=transfromer", "model: there is no 'transfromer'; did you mean transformer?"),
    ("experiment=coats", "experiment: there is no 'coats'; did you mean coast?"),
    ("epoch=3", "epoch: there is no such key; did you mean epochs?"),
    ("optimizer.lrr=1", "optimizer.lrr: torch.optim.AdamW takes no such argument; did you mean lr?"),
    ("optimzer.lr=1", "optimzer.lr: there is no such key; did you mean optimizer.lr?"),
    ("model.width=3", "model.width: trainer.models.UNet takes no such argument; did you mean widths?"),
    ("optimizer.maximize=true", "optimizer.maximize: is not in the file of optimizer; type +optimizer.maximize=true"),
    ("epochs.x=3", "epochs.x: epochs is a value and has nothing below it"),
    ("+epochs=3", "epochs: is there already; type epochs=3 without +"),
    ("epochs", "epochs: a value is given with =; type epochs=VALUE"),
    ("epocs", "epocs: is not an override; write key=value; did you mean epochs=VALUE?"),
    ("seed=1,2", "seed: 1,2 are several values; add -m for a sweep, or write seed=[1,2] for a list"),
    ("optimizer.betas=[0.9,0.99", "optimizer.betas: '[0.9,0.99' does not parse: is a bracket or a quote open?"),
    ("hydra.sweep.dri=x", "hydra.sweep.dri=x: "),
    ("warmup=5", "warmup: 5 has no unit; type warmup=5steps or warmup=5epochs"),
    ("optimizer=5", "optimizer: there is no '5'; known: "),
    ("data=image_folder", "must be given; type data.root=FOLDER (holding a folder for each class), or set DATA_DIR"),
    ("data=image_mask_folder", "must be given; type data.root=FOLDER (holding imgs/ and masks/), or set DATA_DIR"),
    ("++epoch=3", "epoch: there is no such key; did you mean epochs?"),
    ("task.metrics={a: {_target_: trainer.metrics.Accuracy}}", "adds to what is there; type ++task.metrics={a: "),
]  # fmt: skip

# Values that Hydra takes: put into a composed config, which is a hundred times faster than composing it anew.
WRONG = [
    ("+optimizer.lrr=1", "optimizer.lrr: torch.optim.AdamW takes no such argument; did you mean lr?"),
    ("+model.head={_target_: torch.nn.Linaer}", "model.head: torch.nn.Linaer is not there"),
    ("+loss.weight={_target_: torch.tensor, daat: [1]}", None),  # a builtin does not tell what it takes
    ("++task.metrics={a: {_target_: trainer.metrics.BitsPerCharacter, k: 3}}", "metrics.a.k: trainer.metrics.Bits"),
    ("optimizer._target_=torch.optim.AdamWW", "did you mean torch.optim.AdamW?"),
    ("model._target_=lacks_einops.Net", "lacks_einops.Net cannot be imported: No module named 'einops_x' ("),
    ("model._target_=nowhere.Net", "model: nowhere.Net cannot be imported: there is no module nowhere"),
    ("epochs=", "epochs: '' is not a number"),
    ("epochs=0", "epochs: 0 must be at least 1"),
    ("epochs=1.5", "epochs: 1.5 is not a whole number"),
    ("epochs=true", "epochs: true is not a number"),
    ("batch_size=0", "batch_size: 0 must be at least 1"),
    ("accumulate=0", "accumulate: 0 must be at least 1; a number of batches from 1 on, or full (all of an epoch)"),
    ("accumulate=-1", "accumulate: -1 must be at least 1; a number of batches from 1 on, or full (all of an epoch)"),
    ("accumulate=1.5", "accumulate: 1.5 is not a whole number; a number of batches from 1 on, or full (all of"),
    ("accumulate=ful", "accumulate: 'ful' is not a number; a number of batches from 1 on, or full (all of an epoch)"),
    ("batch_size=full", "batch_size: 'full' is not a number"),
    ("curriculum.start=0.2", "curriculum.start: 0.2 has no unit; write curriculum.start=20%"),
    ("curriculum.length=10", "curriculum.length: 10 has no unit; write curriculum.length=10steps or curriculum."),
    ("curriculum.p=0", "curriculum.p: 0 must be more than 0"),
    ("curriculum.score=bondary", "curriculum.score: 'bondary' is not one of auto, boundary, contrast, length; did you"),
    ("curriculum.score=nowhere.hard", "curriculum.score: nowhere.hard cannot be imported: there is no module nowhere"),
    ("curriculum.strict=yess", "curriculum.strict: "),
    ("seed=-1", "seed: -1 must be at least 0"),
    ("log_every=10", "log_every: 10 has no unit; write log_every=10steps or log_every=10epochs"),
    ("evaluate_every=2epoks", "evaluate_every: '2epoks' is not a duration"),
    ("checkpoint_every=0steps", "checkpoint_every: '0steps' must be more than zero"),
    ("resume=atuo", "resume: 'atuo' is neither a run's folder nor one of never, auto, must; did you mean auto?"),
    ("resume_changes=alow", "resume_changes: 'alow' is not one of refuse, allow; did you mean allow?"),
    ("name=''", "name: '' is not a name"),
    ("name=true", """name: true is not text; put it into quotes: "'true'\""""),
    ("name=1.10", """name: 1.1 is not text; put it into quotes: "'1.1'\""""),
    ("runs=false", """runs: false is not text; put it into quotes: "'false'\""""),
    (f"name={'x' * 300}", f"name: '{'x' * 20}'... is too long for a folder; type at most 255 bytes"),
    (f"runs=a/{'x' * 300}/b", "is too long for a folder; type at most 255 bytes"),
    ("optimizer.lr=1e-3x", "optimizer.lr: '1e-3x' is not a number"),
    ("optimizer.lr='0.1'", "optimizer.lr: '0.1' is text that looks like a number; leave out the quotes"),
    ("optimizer.lr=-1", "optimizer.lr: -1 must be 0 or more; trainer-check lr_find=true suggests a rate"),
    ("optimizer.betas=[0.9]", "optimizer.betas: [0.9] must have 2 entries, such as [0.9, 0.999]"),
    ("optimizer.betas=0.9", "optimizer.betas: 0.9 is not a list; write [0.9]"),
    ("optimizer.betas=[0.9,1.5]", "optimizer.betas: Invalid beta parameter at index 1: 1.5"),
    ("++loss={_target_: torch.nn.NLLLoss, weight: [1,2]}",
     "loss.weight: [1, 2] is not a tensor; write {_target_: torch.tensor, data: [1, 2]}"),
    ("loss.weight=balancd", "loss.weight: "),
    ("scheduler.min_lr=-1", "scheduler.min_lr: -1 must not be negative"),
    ("++scheduler={_target_: torch.optim.lr_scheduler.StepLR}", "scheduler.step_size: torch.optim.lr_scheduler.StepLR"),
    ("+debug.batch=3", "debug.batch: there is no such key; did you mean batches?"),
    ("+scheduler.unit=steps", "scheduler.unit: 'steps' is not one of step, epoch, value; did you mean step?"),
    ("early_stopping.patience=-1", "early_stopping.patience: -1 must be at least 1"),
    ("early_stopping.patience=many", "early_stopping.patience: 'many' is not a number"),
    ("early_stopping.min_delta=-1", "early_stopping.min_delta: -1 must be 0 or more"),
    ("early_stopping.mode=maximum", "early_stopping.mode: 'maximum' is not one of auto, min, max"),
    ("early_stopping.monitor=val/mio", "early_stopping.monitor: nothing measures 'val/mio'; did you mean val/miou?"),
    ("early_stopping.monitor=miou", "early_stopping.monitor: nothing measures 'miou'; did you mean val/miou?"),
    ("early_stopping.monitor=foo", "the task measures val/loss, val/miou, val/dice, val/accuracy"),
    ("clip.norm=0", "clip.norm: 0 must be more than 0; clip=none switches clipping off"),
    ("clip.value=-1", "clip.value: -1 must be more than 0"),
    ("ema.decay=1", "ema.decay: 1 must be at least 0 (off) and less than 1"),
    ("checkpoint.keep=0", "checkpoint.keep: 0 must be at least 1"),
    ("precision.dtype=bflot16", "'bflot16' is not one of float32, bfloat16, float16; did you mean bfloat16?"),
    ("world.device=cudda", "world.device: 'cudda' cannot be used here"),
    ("world.threads=0", "world.threads: 0 is not a number of threads"),
    ("warmup.length=100%", "warmup.length: 100% must be shorter than the whole run (100%); type warmup=5%"),
    ("warmup.length=10epochs", "warmup.length: 10epochs must be shorter than the whole run (epochs=10)"),
    ("warmup.length='10'", "warmup.length: 10 has no unit; write warmup.length=10steps"),
    ("warmup.length=10", "warmup.length: 10 has no unit; write warmup.length=10steps or warmup.length=10epochs"),
    ("+scheduler.total_steps=10", "scheduler.total_steps: 10 has no unit; type +scheduler.total_steps=10steps or"),
    ("+scheduler.total_steps=10x", "scheduler.total_steps: '10x' is not a duration"),
    ("warmup.start_factor=2", "warmup.start_factor: 2 must lie between 0 and 1"),
    ("optimizer.lr=???", "optimizer.lr: must be given; type optimizer.lr=VALUE"),
    ("optimizer.lr=${oc.env:NOT_SET_ANYWHERE}", "optimizer.lr: Environment variable 'NOT_SET_ANYWHERE' not found"),
    ("wandb.mode=onlin", "wandb.mode: 'onlin' is not one of auto, online, offline, disabled; did you mean online?"),
    ("wandb.tags=a", "wandb.tags: 'a' is not a list; write [a]"),
    ("wandb.group=1", "wandb.group: 1 is not text; put it into quotes"),
    ("wandb.artifact=null", "wandb.artifact: None must be end, off, or a time such as 30min"),
    ("wandb.artifact=[end]", "wandb.artifact: ['end'] must be end, off, or a time such as 30min"),
    ("debug.batches=0", "debug.batches: 0 must be at least 1"),
    ("+hooks.mine={_target_: trainer.hooks.Hok}", "hooks.mine: trainer.hooks.Hok is not there"),
    ("+hooks.mine={x: 1}", "hooks.mine: has no _target_"),
    ("+hooks.mine={_target_: collections.OrderedDict}",
     "hooks.mine: OrderedDict is no Hook; type hooks.mine._target_=MODULE.CLASS of a class that inherits from "
     "trainer.Hook"),
    ("++hooks._target_=trainer.observers.Device", "hooks: a hook has a name; write mine: {_target_: trainer"),
]  # fmt: skip


@pytest.mark.parametrize(("word", "message"), REFUSED, ids=[word for word, _ in REFUSED])
def test_a_refused_word_is_told_by_key_with_the_word_that_was_meant(word: str, message: str) -> None:
    (found,) = told(word)
    assert message in found


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    return _hydra.compose(["loss=cross_entropy", "epochs=10"])


@pytest.mark.parametrize(("word", "message"), WRONG, ids=[word for word, _ in WRONG])
def test_a_wrong_value_is_told_by_key_with_the_word_that_was_meant(
    composed: DictConfig, word: str, message: str | None
) -> None:
    Path("lacks_einops.py").write_text("import einops_x\n")
    parsed = _hydra.parse(word)
    cfg = copy.deepcopy(composed)
    OmegaConf.update(cfg, parsed.key_or_group, parsed.value(), force_add=True)
    found = config.problems(cfg)
    assert len(found) <= 2, "one mistake, one message, or one more of what follows from it"
    assert message is None or any(message in problem for problem in found), found


def test_all_mistakes_are_told_at_once_those_of_hydra_and_ours() -> None:
    words = [
        "optimzer=sgd",
        "model=unte",
        "optimizer.lrr=1",
        "epochs=0",
        "clip.norm=-1",
        "log_every=5",
        "++batchsize=3",
    ]
    keys = {problem.split(":")[0] for problem in told(*words)}
    assert keys >= {"optimzer", "model", "optimizer.lrr", "epochs", "clip.norm", "log_every", "batchsize"}


def test_after_a_misspelt_choice_the_rest_is_read_as_it_was_meant() -> None:
    assert told("optimizer=sdg", "optimizer.momentum=0.5") == told("optimizer=sdg")
    assert len(told("optimizer=sdg")) == 1


def test_a_value_typed_without_its_equals_sign_is_put_right() -> None:
    assert told("epochs", "5") == ["epochs: a value is given with =; type epochs=5"]


def test_with_no_experiment_every_choice_that_must_be_made_is_named_beside_the_other_mistakes() -> None:
    found = told("experiment=none", "optimzer=sgd")
    assert {problem.split(":")[0] for problem in found} == {"data", "model", "task", "optimzer"}
    assert any(p.startswith("task: must be chosen; type task=classification (known: ") for p in found)


def test_a_file_named_in_an_experiment_that_is_not_there_is_told() -> None:
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_text("# @package _global_\ndefaults:\n  - override /optimizer: adamm\n")
    (found,) = told("experiment=mine")
    assert found.startswith("experiment=mine: ")
    assert found.endswith("'optimizer/adamm'; did you mean adam?")


def test_a_key_misspelt_in_an_experiment_is_told() -> None:
    Path("conf/experiment").mkdir(parents=True)
    text = "# @package _global_\ndefaults: [coast]\noptimzer: {lr: 1}\noptimizer: {lrr: 1}\nepoch: 3\n"
    Path("conf/experiment/mine.yaml").write_text(text)
    assert {problem.split(":")[0] for problem in told("experiment=mine")} == {"optimzer", "optimizer.lrr", "epoch"}


def test_a_top_level_key_of_ones_own_is_fine_where_an_interpolation_uses_it() -> None:
    assert told("+rate=0.5", "optimizer.lr=${rate}") == []
    assert told("+rate=0.5") != []


def test_a_torch_scheduler_needs_its_unit_and_is_fine_with_it() -> None:
    words = ["scheduler=none", "scheduler._target_=torch.optim.lr_scheduler.ExponentialLR", "+scheduler.gamma=0.9"]
    assert told(*words)[0].startswith("scheduler.unit: when does torch.optim.lr_scheduler.ExponentialLR move?")
    assert told(*words, "+scheduler.unit=epoch") == []


def test_the_direction_of_the_metric_is_not_offered_to_a_mode_of_another_kind() -> None:
    cyclic = ["scheduler=none", "scheduler._target_=torch.optim.lr_scheduler.CyclicLR", "+scheduler.unit=step"]
    assert told(*cyclic, "+scheduler.base_lr=0.01", "+scheduler.max_lr=0.1", "+scheduler.cycle_momentum=false") == []


# Every experiment that needs no folder; what is told does not depend on the data. Those of a line are typed together.
ANYWHERE = [
    [(["scheduler=onecycle", "scheduler.total_steps=10"], "scheduler.total_steps: is the length of the run unless")],
    [(["warmup=5"], "warmup: 5 has no unit; type warmup=5steps or warmup=5epochs"),
     (["optimizer=lbfg"], "optimizer: there is no 'lbfg'; "),
     (["scheduler=cosin"], "scheduler: there is no 'cosin'; did you mean cosine? known: ")],
    [(["warmup=200%"], "warmup.length: 200% must be shorter than the whole run (100%); type warmup=5%"),
     (["optimizer.lr=-1"], "optimizer.lr: -1 must be 0 or more; trainer-check lr_find=true suggests a rate"),
     (["clip.norm=0"], "clip.norm: 0 must be more than 0; clip=none switches clipping off"),
     (["accumulate=0"], "accumulate: 0 must be at least 1"),
     (["early_stopping.patience=-1"],
      "early_stopping.patience: -1 must be at least 1; early_stopping=none never stops early")],
    [(["optimizer=adam", "optimizer.betas=[0.9]"], "optimizer.betas: [0.9] must have 2 entries, such as [0.9, 0.999]"),
     (["optimizer.lr=abc"], "optimizer.lr: 'abc' is not a number")],
    [(["scheduler=step", "scheduler.every=30"],
      "scheduler.every: 30 has no unit; write scheduler.every=30steps or scheduler.every=30epochs")],
    [(["scheduler=multistep", "scheduler.milestones=[80%,20%]"],
      "scheduler.milestones: 80%, 20% must rise; type scheduler.milestones=[20%,80%]")],
    [(["scheduler=wsd", "scheduler.decay=5"], "scheduler.decay: 5 has no unit; write scheduler.decay=5steps or")],
]  # fmt: skip


@pytest.mark.parametrize("experiment", ["coast", "digits", "topics"])
@pytest.mark.parametrize("line", ANYWHERE, ids=lambda line: " ".join(word for words, _ in line for word in words))
def test_a_mistake_is_told_by_key_with_what_to_type_in_every_experiment(
    experiment: str, line: list[tuple[list[str], str]]
) -> None:
    words = [word for words, _ in line for word in words]
    found = told(f"experiment={experiment}", *_hydra.implied(words))
    assert len(found) == len(line), found
    for _, message in line:
        assert [problem for problem in found if problem.startswith(message)], (message, found)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["scheduler=onecycle", "scheduler.total_steps=10"],
         "scheduler.total_steps: is the length of the run unless told otherwise; leave it out, or type "
         "+scheduler.total_steps=10epochs or +scheduler.total_steps=10steps"),
        (["scheduler=onecycle", "+scheduler.total_steps=10epochs"],
         "scheduler.total_steps: 10epochs are less than the run (epochs=50), and it cannot go on after its end; leave "
         "it out, or type +scheduler.total_steps=50epochs"),
        (["scheduler=cyclic", "scheduler.half_cycle=5"],
         "scheduler.half_cycle: 5 has no unit; write scheduler.half_cycle=5steps or scheduler.half_cycle=5epochs"),
        (["scheduler=multistep", "scheduler.milestones=[5,10]"],
         "scheduler.milestones[0]: 5 has no unit; write scheduler.milestones[0]=5steps or"),
        (["scheduler=lambda", "scheduler.function=nowhere.curve"],
         "scheduler.function: nowhere.curve cannot be imported: there is no module nowhere"),
        (["scheduler=lambda", "scheduler.function=math.coz"], "math has no coz; did you mean math.cos?"),
        (["scheduler=sequential", "scheduler.parts=[{schedule: {_target_: trainer.schedules.cosine, min_lrr: 1}}]"],
         "scheduler.parts[0].schedule.min_lrr: trainer.schedules.cosine takes no such argument; did you mean min_lr?"),
        (["scheduler=sequential", "scheduler.parts=[{schedule: {_target_: trainer.schedules.cosine, min_lr: -1}}]"],
         "scheduler.parts[0].schedule.min_lr: -1 must not be negative"),
        (["scheduler=sequential", "scheduler.parts=[{length: 5, schedule: {_target_: trainer.schedules.cosine}}]"],
         "scheduler.parts[0].length: 5 has no unit"),
        (["scheduler=chained", "scheduler.parts=[{length: 5%, schedule: {_target_: trainer.schedules.cosine}}]"],
         "scheduler.parts[0].length: there is no such key; known: schedule, unit"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_does_not_fit_a_schedule_is_told_by_its_key(words: list[str], message: str) -> None:
    (found,) = told(*words, "epochs=50")
    assert message in found


@pytest.mark.parametrize("length", ["10epochs", "80%", "100steps", "99epochs"])
def test_a_schedule_may_have_a_length_of_its_own(length: str) -> None:
    assert told("scheduler=cosine", f"+scheduler.total_steps={length}") == []


@pytest.mark.parametrize("words", ["warmup=5epochs", "warmup=5%", "warmup=100steps,2epochs"])
def test_a_warm_up_may_be_given_by_its_length_alone(words: str) -> None:
    assert _hydra.implied([words, "seed=1"]) == ["warmup=linear", f"warmup.length={words[7:]}", "seed=1"]
    assert _hydra.implied(["warmup=none"]) == ["warmup=none"]


def test_data_of_ones_own_is_not_trained_with_the_settings_of_the_default_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf/data").mkdir(parents=True)
    for name in ("own", "other"):
        (tmp_path / f"conf/data/{name}.yaml").write_text("_target_: my_data.sets\n")
    monkeypatch.chdir(tmp_path)
    assert _hydra.implied(["data=own"]) == ["data=own", "experiment=none"]
    assert _hydra.implied(["data=own,other"]) == ["data=own,other", "experiment=none"]
    assert _hydra.implied(["data=digits"]) == ["data=digits", "experiment=digits"]
    for words in (["data=own", "experiment=coast"], ["data=own,coast"], ["data=misspelt"], ["seed=1"]):
        assert _hydra.implied(words) == words


def test_what_is_taken_away_is_told() -> None:
    assert told("~epochs", "~clip", "hooks=[]") == [
        "epochs: is missing, and a run needs it",
        "clip: is missing, and a run needs it; type clip=none",
        "hooks: is missing, and a run needs it; type hooks=none",
    ]


def test_of_several_files_of_hooks_none_replaces_what_another_defines() -> None:
    Path("conf/hooks").mkdir(parents=True)
    device = "_target_: trainer.observers.Device"
    files = {"p": f"same: {{{device}}}", "q": f"same: {{{device}}}", "slow": "device: {seconds: 60}",
             "on": f"defaults: [device]\ndevice: {{{device}, seconds: 60}}"}  # fmt: skip
    for name, text in files.items():
        Path(f"conf/hooks/{name}.yaml").write_text(text)
    assert told("hooks=[p,q]", "epoch=3") == [
        "hooks: p and q both define same; rename one",
        "epoch: there is no such key; did you mean epochs?",
    ]
    assert told("hooks=[p,device,slow]") == told("hooks=[p,on]") == [], "settings of a hook are no second hook"


def test_nesterov_without_momentum_is_told_before_training() -> None:
    assert "optimizer: Nesterov momentum requires a momentum and zero dampening" in told(
        "optimizer=nag", "optimizer.momentum=0"
    )


def test_a_metric_of_one_class_is_left_to_the_data() -> None:
    assert told("early_stopping.monitor=val/iou/water") == []


def test_a_task_of_ones_own_says_what_it_measures() -> None:
    Path("my_task.py").write_text(
        "from trainer.tasks import Task\nclass Mine(Task):\n    measures = {'loss': 'min', 'score': 'max'}\n"
    )
    words = ["task._target_=my_task.Mine", *(f"~task.{name}" for name in ("metrics", "l1", "l2", "worst"))]
    assert told(*words, "early_stopping.monitor=val/score") == []
    (found,) = told(*words, "early_stopping.monitor=val/scor")
    assert found.endswith("did you mean val/score?")


def test_a_direction_against_the_tasks_is_a_warning_only() -> None:
    cfg = check(["early_stopping.mode=min"])
    assert config.warnings(cfg) == [
        "early_stopping.mode: min, but val/miou is better when it is larger; leave it at auto"
    ]
    cfg = check(["scheduler=plateau", "+scheduler.mode=min"])
    assert config.warnings(cfg) == ["scheduler.mode: min, but val/miou is better when it is larger; leave it out"]
    assert config.warnings(check([])) == []


def test_what_an_optimizer_does_not_go_well_with_is_pointed_out() -> None:
    assert config.warnings(check(["optimizer=schedulefree", "scheduler=none"])) == []
    (told,) = config.warnings(check(["optimizer=schedulefree"]))
    assert told.startswith("scheduler: cosine, but ScheduleFreeAdamW needs none: it averages its weights")
    assert told.endswith("type scheduler=none")
    assert config.warnings(check(["optimizer=lbfgs", "accumulate=full"])) == []
    (told,) = config.warnings(check(["optimizer=lbfgs"]))
    assert told == "accumulate: 1, but LBFGS wants the gradient of all samples; type full"


def test_what_is_offered_covers_every_fact_of_the_data() -> None:
    for group in ("model", "task", "loss"):
        assert set(FACTS) <= set(config.OFFERED[group]), group


# ------------------------------------------------------------------------------------------------------------- types


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (1, int), (1, float), (1.5, float), (math.inf, float), (True, bool), ("a", str), (None, int | None),
        ([1, 2], list[int]), ([1, 2], tuple[int, int]), ([1, 2, 3], tuple[int, ...]), ([0.5, 1], Sequence[float]),
        ({"a": 1}, dict[str, int]), ("min", Literal["min", "max"]), (0.5, float | torch.Tensor), ([], list),
        ({"_target_": "x.Y"}, int), ("x", torch.nn.Module), (1, Any),
    ],
)  # fmt: skip
def test_a_value_that_fits_its_annotation_is_fine(value: Any, hint: Any) -> None:
    assert mismatch(value, hint) is None


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (1.0, int, "1.0 is not a whole number"), (True, int, "true is not a number"), (None, int, "null is"),
        ("a", float, "'a' is not a number"), ("1", bool, "'1' is neither true nor false"), (1, bool, "1 is neither"),
        (3, str, "3 is not"), ("x", int | None, "'x' is not a number"), ([1, "a"], list[int], "'a' is not a number"),
        ([1], tuple[int, int], "[1] must have 2 entries"), (3, Sequence[int], "3 is not a list; write [3]"),
        ("abc", Sequence[str], "'abc' is not a list; write [abc]"),
        ([1], dict[str, int], "[1] is not a mapping"),
        ("mx", Literal["min", "max"], "'mx' is not one of min, max; did you mean max?"),
        ("a", float | torch.Tensor, "'a' is not a number"), (1, str | list[str], "1 is not text"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_told_in_words(value: Any, hint: Any, message: str) -> None:
    assert (mismatch(value, hint) or "").startswith(message)


def test_brackets_are_only_told_around_what_fits_inside() -> None:
    assert mismatch("balanced", Sequence[float]) == "'balanced' is not a list"


def test_without_an_annotation_the_default_tells_the_type() -> None:
    assert mismatch("1e-3x", Any, 0.1) == "'1e-3x' is not a number"
    assert mismatch("yes", Any, False) == "'yes' is neither true nor false"
    assert mismatch(0.5, Any, 1) is None
    assert mismatch("x", Any, None) is None


# ------------------------------------------------------------------------------------------------ values and identity


def some(**changes: Any) -> DictConfig:
    base = {
        "seed": 0,
        "runs": "${oc.env:RUNS_DIR,runs}",
        "optimizer": {"_target_": "x", "lr": 0.1},
        "wandb": {"mode": "auto"},
    }
    return OmegaConf.merge(base, changes)  # type: ignore[return-value]


def test_plain_values_hold_no_secret_wherever_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_TOKEN", "s3cret-s3cret")
    cfg = some(
        hooks={
            "a": {"api_key": "abc", "url": "https://u:${oc.env:HUB_TOKEN}@x", "list": ["${hooks.a.url}"]},
            "token": "t",
        }
    )
    text = str(config.plain(cfg))
    assert "s3cret" not in text
    assert "abc" not in text
    assert config.plain(cfg)["hooks"]["a"]["api_key"] == "<secret>"
    assert config.plain(some(num_tokens=3, pad_token="<pad>"))["pad_token"] == "<pad>"


def test_plain_values_are_resolved_and_plain() -> None:
    values = config.plain(some(rate="${optimizer.lr}", widths=[1, 2]))
    assert values["rate"] == 0.1
    assert type(values["widths"]) is list
    assert type(values["optimizer"]) is dict


def test_the_written_config_keeps_interpolations_but_for_runs_and_asks_again_for_a_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RUNS_DIR", "elsewhere")
    monkeypatch.setenv("HUB_TOKEN", "s3cret-s3cret")
    text = config.unresolved_yaml(
        some(hooks={"key": "${oc.env:HUB_TOKEN}", "password": "hunter22", "x": "s3cret-s3cret"})
    )
    back = OmegaConf.create(text)
    assert "s3cret" not in text
    assert "hunter22" not in text
    assert "${oc.env:HUB_TOKEN}" in text
    assert OmegaConf.to_container(back)["runs"] == "elsewhere"  # type: ignore[call-overload, index]
    with pytest.raises(ConfigError, match=r"hooks\.password: must be given; type hooks\.password=VALUE"):
        _hydra.instantiate(back.hooks, "hooks")


def test_the_digest_is_of_what_is_trained_and_of_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    same = config.digest(some())
    assert len(same) == 10
    for changes in (
        {"wandb": {"mode": "offline"}},
        {"runs": "x"},
        {"name": "n"},
        {"resume": "auto"},
        {"checkpoint_every": "1h"},
    ):
        assert config.digest(some(**changes)) == same
    for changes in ({"seed": 1}, {"optimizer": {"lr": 0.2}}, {"data": {"root": "there"}}, {"extra": {}}):
        assert config.digest(some(**changes)) != same
    monkeypatch.setenv("RUNS_DIR", "elsewhere")
    assert config.digest(some()) == same
    assert config.digest(some(data={"num_workers": 4, "root": "a"})) == config.digest(
        some(data={"num_workers": 0, "root": "a"})
    )
    assert config.digest(OmegaConf.create({"b": 1, "a": 2})) == config.digest(OmegaConf.create({"a": 2, "b": 1}))


def test_the_digest_stays_the_same_from_version_to_version() -> None:
    assert config.digest(OmegaConf.create({"seed": 0, "optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}})) == "89df2269a6"


def test_the_difference_of_two_configs_is_by_dotted_key() -> None:
    old = {"a": 1, "b": {"c": 2, "d": [1, 2]}, "gone": 3, "empty": {}}
    new = {"a": 1, "b": {"c": 5, "d": [1, 2, 3]}, "new": {"x": 1}, "empty": {}}
    assert config.difference(old, new) == {
        "b.c": (2, 5),
        "b.d": ([1, 2], [1, 2, 3]),
        "gone": (3, None),
        "new.x": (None, 1),
    }
    assert config.difference(old, old) == {}


def test_an_env_file_fills_in_what_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"SET": "stays"})
    Path(".env").write_text(
        "# comment\n\nSET=other\nA=1 # one\n"
        "export B = two\nC='x # y' # z\nD=\"q\"\nE=a=b\nF=\n  G=h#i\nnonsense\n#H=1\n"
    )
    load_env(".env")
    assert os.environ == {"SET": "stays", "A": "1", "B": "two", "C": "x # y", "D": "q", "E": "a=b", "F": "", "G": "h#i"}
    load_env("absent.env")


def test_a_sweep_is_checked_as_a_whole_and_each_mistake_is_told_once() -> None:
    with pytest.raises(ConfigError) as caught:
        check_sweep(["optimizer=sgd,admaw", "epocs=3,4", "epochs=0"])
    keys = [problem.split(":")[0] for problem in caught.value.problems]
    assert sorted(keys) == ["epochs", "epocs", "optimizer"]
    assert [job for job, *_ in check_sweep(["seed=0,1"])] == [["seed=0"], ["seed=1"]]


def test_a_sweep_that_cannot_be_expanded_is_told() -> None:
    for word, message in (
        ("seed=[1", "seed: '[1' does not parse"),
        ("seed=interval(0,1)", "an interval has no end of values"),
    ):
        with pytest.raises(ConfigError, match="(?i)" + re.escape(message)):
            check_sweep([word, "epochs=1,2"])


def test_a_written_config_takes_changes_of_its_values_only() -> None:
    Path("config.yaml").write_text(config.unresolved_yaml(compose_or_explain(["experiment=digits"])))
    cfg = apply(Path("config.yaml"), ["epochs=7", "optimizer.lr=0.5"])
    assert (cfg.epochs, cfg.optimizer.lr, cfg.batch_size) == (7, 0.5, 32)
    with pytest.raises(ConfigError) as caught:
        apply(Path("config.yaml"), ["epoch=7", "optimizer.lrr=1", "epochs", "optimizer=sgd"])
    keys = [problem.split(":")[0] for problem in caught.value.problems]
    assert keys == ["epoch", "optimizer.lrr", "epochs", "optimizer"]
    assert "did you mean epochs?" in caught.value.problems[0]
    assert "keeps the file that it was started with" in caught.value.problems[3]


def test_what_composes_is_given_back_as_it_is() -> None:
    assert compose_or_explain(["epochs=3"]).epochs == 3
