"""Several jobs from one command line, as Hydra reads it: their words, their configs, the launcher that runs them."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from trainer import _hydra
from trainer.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


def settings(overrides: Sequence[str]) -> DictConfig:
    """The `hydra` node of a `-m` command line: its sweeper and its launcher.

    Raises:
        ConfigError: an override of it does not fit.
    """
    from hydra.types import RunMode

    words = [word for word in overrides if not re.match(r"[+~]*(?!hydra\.)\w+\.", word)]  # what may fit some jobs only
    with _hydra.session() as loader:
        found: DictConfig = loader.load_configuration(_hydra.CONFIG_NAME, words, RunMode.MULTIRUN).hydra
        return found


def parsed(words: Sequence[str]) -> list[Override]:
    """The words of a command line, with what is known of the config groups (`clip=glob(*)`)."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    with _hydra.session() as loader:
        return OverridesParser.create(config_loader=loader).parse_overrides(list(words))


class Composer:
    """Composes many jobs. Those that choose the same files share the reading of them, which is most of the work."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, ...], tuple[DictConfig, dict[str, str]]] = {}
        self._groups = set(_hydra.groups())

    def __call__(self, words: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
        """As `_hydra.compose_with_choices`.

        Raises:
            ConfigError: an override does not fit.
        """
        values = [word for word in words if self._is_value(word)]
        chosen = tuple(word for word in words if word not in values)
        try:
            if chosen not in self._made:
                self._made[chosen] = _hydra.compose_with_choices(chosen)
            made, choices = self._made[chosen]
            cfg = copy.deepcopy(made)
            ConfigLoaderImpl._apply_overrides_to_config([_hydra.parse(word) for word in values], cfg)
        except (ConfigError, HydraException, OmegaConfBaseException):
            return _hydra.compose_with_choices(words)  # which says what is wrong as it does for one run
        return cfg, dict(choices)

    def _is_value(self, word: str) -> bool:
        """Whether the word sets a value and chooses no file: of a dotted key, or of a top-level one, no group."""
        key = re.match(r"[+~]*([\w.]+)=", word)
        return key is not None and not key[1].startswith("hydra.") and key[1] not in self._groups


# ------------------------------------------------------------------------------------------------ launchers of Hydra's


class _Frozen(ConfigLoaderImpl):
    """What a launcher asks for the config of a job: the one that was composed when the sweep began.

    It travels as the only word of the job, so that a file that is edited while jobs wait changes none of them.
    """

    def __init__(self) -> None:
        pass

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        job = json.loads(sweep_overrides[0])
        cfg: DictConfig = OmegaConf.create(job["config"])
        cfg.hydra = copy.deepcopy(master_config.hydra)
        with open_dict(cfg):
            cfg.hydra.overrides.task = job["words"]
            cfg.hydra.runtime.choices = job["choices"]
        return cfg


def launch(
    node: DictConfig, runs: str, jobs: Iterable[tuple[Sequence[str], DictConfig, dict[str, Any]]],
    task: Callable[[DictConfig], Any],
) -> None:  # fmt: skip
    """Has a launcher that is a plugin of Hydra's run the jobs, and waits for them.

    Args:
        node: the `hydra` node of the command line. runs: the folder for what the launcher writes.
        jobs: of each its words, its config and its choices. task: a picklable callable; its errors are its own.
    """
    from hydra._internal.callbacks import Callbacks
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext

    _hydra.prepare()
    node = copy.deepcopy(node)
    with open_dict(node):
        node.sweep.dir = runs
    master = OmegaConf.create({"hydra": node})
    callbacks = Callbacks(master)
    context = HydraContext(config_loader=_Frozen(), callbacks=callbacks)
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=master)
    callbacks.on_multirun_start(config=master, config_name=_hydra.CONFIG_NAME)
    words = [
        [json.dumps({"words": list(job), "config": OmegaConf.to_container(cfg), "choices": choices})]
        for job, cfg, choices in jobs
    ]
    launcher.launch(words, initial_job_idx=0)
    callbacks.on_multirun_end(config=master, config_name=_hydra.CONFIG_NAME)
