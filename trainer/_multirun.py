"""Several jobs from one command line, as Hydra reads it: their words and their configs."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import HydraException
from omegaconf import DictConfig
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
