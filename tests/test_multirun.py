"""Many jobs composed together are what each is when it is composed alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from trainer import _hydra
from trainer._multirun import Composer
from trainer.errors import ConfigError
from trainer.space import expand

MATRIX = [
    [],
    ["optimizer=sgd", "optimizer.lr=0.1"],
    ["optimizer.lr=0.1", "optimizer=sgd"],
    ["experiment=topics", "epochs=3"],
    ["data=digits", "experiment=digits", "model=mlp", "batch_size=7"],
    ["clip=norm", "clip.norm=0.5", "+optimizer.maximize=true"],
    ["++optimizer.maximize=true", "ema=ema", "ema.decay=0.5"],
    ["optimizer=sgd", "~optimizer.momentum", "seed=1"],
    ["+optimizer.maximize=true", "~optimizer.maximize"],
    ["warmup=linear", "warmup.length=10%", "scheduler=onecycle", "name=x"],
    ["hooks=[code]", "seed=2"],
    ["optimizer.lr=${seed}", "name='a=b,c'", "optimizer.betas=[0.5,0.9]", "seed=1", "seed=2"],
    ["resume=auto", "runs=elsewhere", "hydra.job.name=x"],
]


def test_jobs_composed_together_are_as_composed_alone() -> None:
    compose, each = Composer(), [_hydra.compose_with_choices(words) for words in MATRIX]
    for words, (alone, chosen) in [*zip(MATRIX, each, strict=True)] * 2:  # what becomes of a config touches no other
        cfg, choices = compose(words)
        assert OmegaConf.to_yaml(cfg) == OmegaConf.to_yaml(alone), words
        assert choices == chosen
        assert OmegaConf.is_struct(cfg) == OmegaConf.is_struct(alone)
        cfg.seed = 99


@pytest.mark.parametrize("words", [["optimizer.lrr=1"], ["optimzer=sgd"], ["optimizer=sdg"], ["seed=[1"], ["seed"]])
def test_what_cannot_be_composed_is_refused_in_the_same_words(words: list[str]) -> None:
    with pytest.raises(ConfigError) as alone:
        _hydra.compose_with_choices(words)
    with pytest.raises(ConfigError) as together:
        Composer()(words)
    assert str(together.value) == str(alone.value)


def test_a_users_own_group_chooses_a_file(tmp_path: Path) -> None:
    (tmp_path / "conf/mine").mkdir(parents=True)
    (tmp_path / "conf/mine/a.yaml").write_text("# @package _global_\nseed: 5\n")
    words = ["+mine=a", "epochs=2"]
    assert Composer()(words)[0] == _hydra.compose(words)
    assert Composer()(words)[0].seed == 5


def test_a_command_line_becomes_jobs_in_hydras_order() -> None:
    assert expand(["seed=0,1", "optimizer=sgd,adamw", "epochs=2"]) == [
        ["seed=0", "optimizer=sgd", "epochs=2"],
        ["seed=0", "optimizer=adamw", "epochs=2"],
        ["seed=1", "optimizer=sgd", "epochs=2"],
        ["seed=1", "optimizer=adamw", "epochs=2"],
    ]
