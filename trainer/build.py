"""From a composed config to a Trainer, in one visible order; and from a run folder back to its model."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from trainer import config
from trainer._hydra import instantiate
from trainer.buffers import Buffers
from trainer.checkpoint import Checkpoint, Checkpoints
from trainer.data.base import as_data
from trainer.data.loader import Loader
from trainer.errors import CheckpointError, ConfigError, TrainerError, did_you_mean
from trainer.folder import RunFolder
from trainer.hooks import Hook
from trainer.loop import Trainer
from trainer.monitor import Mode, direction
from trainer.optim import Groups
from trainer.preview import draw, in_words, lived
from trainer.pruning import Pruning
from trainer.records import Resume
from trainer.schedules import Curves
from trainer.scheduling import build_schedule, curves_of
from trainer.state import START, Rng, mix, seed_generators
from trainer.tracking.base import Tracker

if TYPE_CHECKING:
    from collections.abc import Iterable

    from omegaconf import DictConfig


def build(
    cfg: DictConfig,
    folder: RunFolder | None = None,
    *,
    resume: Resume = "never",
    trackers: Iterable[Tracker] = (),
    micro_batch: int | None = None,
    pruning: Pruning | None = None,
) -> Trainer:
    """Makes everything that a config describes: world, data, loss, task, model, optimizer, schedule; then the Trainer.

    Args:
        cfg: a config without problems (`config.problems`). folder: where the run lies; None keeps nothing.
        resume, micro_batch, pruning: as `Trainer` takes them. trackers: who is told.

    Raises:
        ConfigError, DataError: something cannot be made; the key is named.
    """
    world = instantiate(cfg.world, "world")
    world.apply()
    data = as_data(instantiate(cfg.data, "data", seed=cfg.seed))
    criterion = instantiate(cfg.loss, "loss", **data.facts)
    task = instantiate(cfg.task, "task", criterion=criterion, **data.facts)
    model = build_model(cfg, data.facts)
    model.to(world.device)
    optimizer = build_optimizer(cfg, model)
    patience = instantiate(cfg.early_stopping, "early_stopping")
    patience.mode = direction(patience.monitor, patience.mode, task.measures)
    limit = cfg.debug.batches
    per_epoch = Loader(data.train, cfg.batch_size, accumulate=cfg.accumulate, limit=limit).steps_per_epoch
    lr = float(optimizer.param_groups[0]["lr"])
    curves = curves_of(cfg, optimizer, per_epoch, patience.mode)
    trainer = Trainer(
        model,
        task,
        data,
        optimizer,
        schedule=build_schedule(cfg, optimizer, per_epoch, patience.mode),
        epochs=cfg.epochs,
        batch_size=cfg.batch_size,
        accumulate=cfg.accumulate,
        micro_batch=micro_batch,
        curriculum=instantiate(cfg.curriculum, "curriculum"),
        clip=instantiate(cfg.clip, "clip"),
        noise=instantiate(cfg.grad_noise, "grad_noise"),
        precision=instantiate(cfg.precision, "precision"),
        ema=instantiate(cfg.ema, "ema"),
        patience=patience,
        pruning=pruning,
        checkpoints=instantiate(cfg.checkpoint, "checkpoint"),
        evaluate_every=cfg.evaluate_every,
        log_every=cfg.log_every,
        checkpoint_every=cfg.checkpoint_every,
        skip_nonfinite=cfg.skip_nonfinite,
        seed=cfg.seed,
        folder=folder,
        resume=resume,
        trackers=trackers,
        hooks=build_hooks(cfg),
        world=world,
        limit=limit,
        config=config.plain(cfg),
        lines={"optimizer": f"{type(optimizer).__name__}, lr {lr:g}", "schedule": schedule_words(cfg, curves)},
    )
    if folder is not None:
        lrs = lived(curves.lrs, folder.metrics, trainer.progress.step)
        draw(folder.preview, lrs, per_epoch, curves.momenta, curves.names)
    return trainer


def build_model(cfg: DictConfig, facts: dict[str, Any]) -> nn.Module:
    """The model of a config with its first weights, which depend on the seed and on nothing drawn before."""
    seed_generators(mix(cfg.seed, START))
    model = instantiate(cfg.model, "model", **facts)
    if not isinstance(model, nn.Module):
        made = type(model).__name__
        raise ConfigError(f"model: {cfg.model._target_} gives a {made}, and a torch.nn.Module is needed")
    Buffers([model])  # gives expanded ones memory of their own, so that weights can be loaded
    return model


def build_hooks(cfg: DictConfig) -> dict[str, Hook]:
    """The hooks of a config by name.

    Raises:
        ConfigError: something else was made; all are told.
    """
    hooks: dict[str, Hook] = instantiate(cfg.hooks, "hooks")
    wrong = [
        f"hooks.{name}: {cfg.hooks[name]._target_} gives a {type(hook).__name__}, and a trainer.Hook is needed"
        for name, hook in hooks.items()
        if not isinstance(hook, Hook)
    ]
    if wrong:
        raise ConfigError(wrong)
    return hooks


def build_optimizer(cfg: DictConfig, model: nn.Module) -> Optimizer:
    """The optimizer of a config for a model's weights, in the groups that `param_groups` makes of them.

    Raises:
        ConfigError: a rule matches no weight, or the optimizer does not take it; all are told.
    """
    groups: Groups = instantiate(cfg.param_groups, "param_groups")
    try:
        return groups.make(model, lambda params: instantiate(cfg.optimizer, "optimizer", params=params))
    except ConfigError as error:
        ours = ("rules.", "layer_decay:")
        raise ConfigError([f"param_groups.{t}" if t.startswith(ours) else t for t in error.problems]) from error


def schedule_words(cfg: DictConfig, curves: Curves) -> str:
    """The schedule in a line: its name, when it moves, where the learning rate goes."""
    name = str(cfg.scheduler._target_).rpartition(".")[2].rstrip("_")
    if cfg.warmup.length != "never":
        name += f" after a warm-up of {cfg.warmup.length}"
    return f"{name}, {in_words(curves)}"


def foresee(cfg: DictConfig) -> tuple[Curves, bool]:
    """The curves of a run that is not begun, and whether an epoch has as many steps as its data makes.

    Data that comes with a package is read, which is quick, and the model is made where its weights differ by name.
    Other data is not: an epoch is taken to have 100 steps, and all weights to be in one group.

    Raises:
        ConfigError: the schedule does not fit the run, or a rule of `param_groups` the model.
    """
    optimizer = instantiate(cfg.optimizer, "optimizer", params=[nn.Parameter(torch.zeros(2, 2))])
    per_epoch, known = 100, False
    groups: Groups = instantiate(cfg.param_groups, "param_groups")
    if str(cfg.data._target_).startswith("trainer.") and "root" not in cfg.data:
        with contextlib.suppress(TrainerError):
            data = as_data(instantiate(cfg.data, "data", seed=cfg.seed))
            loader = Loader(data.train, cfg.batch_size, accumulate=cfg.accumulate, limit=cfg.debug.batches)
            per_epoch, known = loader.steps_per_epoch, True
        if known and groups.by_name:
            optimizer = build_optimizer(cfg, build_model(cfg, data.facts))
    mode: Mode = "max" if cfg.early_stopping.mode == "max" else "min"
    return curves_of(cfg, optimizer, per_epoch, mode), known


# --------------------------------------------------------------------------------------------- back from a run folder


def load(run: str | os.PathLike[str], which: Literal["best", "last"] = "best") -> nn.Module:
    """The model of a run with its weights, in evaluation mode on the CPU, ready for inference.

    `model.preprocess`, where the data has one, makes its input of a picture:
    `model(model.preprocess(Image.open("x.png")))`. `model.classes` are the names of what it tells apart.

    Args:
        run: a run folder. which: the `best` checkpoint (the last one where none is best) or the `last`.

    Raises:
        CheckpointError: it is no run folder, or no checkpoint can be read.
        ConfigError: the model cannot be built, e.g. because your module is not importable from here.
    """
    found = read_checkpoint(run, which)
    facts = dict(found.manifest["facts"])
    if facts.get("preprocess") is not None:
        facts["preprocess"] = instantiate(facts["preprocess"], "data.preprocess")
    drawn = Rng().state_dict()
    model = build_model(read_config(run), facts)
    Rng().load_state_dict(drawn)  # loading a model does not change what the caller draws next
    model.load_state_dict(found.weights)
    for name, value in {"preprocess": facts.get("preprocess"), "classes": tuple(facts.get("classes") or ())}.items():
        object.__setattr__(model, name, value)  # beside the module's state: the state_dict stays as it was stored
    return model.eval()


def read_config(run: str | os.PathLike[str]) -> DictConfig:
    """The config that a run folder was made with.

    Raises:
        CheckpointError: there is none.
    """
    path = RunFolder(run).config
    if not path.is_file():
        raise CheckpointError(
            f"{run}: is no run of the command `trainer`: it holds no {path.name}. For a run that a script made, build "
            "the model as the script does, and load checkpoints/step-.../weights.pt with torch.load"
        )
    return config.read(path)


def read_checkpoint(run: str | os.PathLike[str], which: Literal["best", "last"]) -> Checkpoint:
    """The best or the last checkpoint of a run.

    Raises:
        CheckpointError: there is none that can be read.
    """
    if not Path(run).is_dir():
        near = did_you_mean(Path(run).name, [path.name for path in Path(run).parent.glob("*")])
        raise CheckpointError(f"{run}: there is no such folder; {near}")
    checkpoints = Checkpoints()
    checkpoints.folder = Path(run) / "checkpoints"
    if which == "best" and checkpoints.best_name() is not None:
        return checkpoints.best()
    found = checkpoints.newest()
    if found is None:
        raise CheckpointError(f"{run}: holds no checkpoint")
    return found
