"""The parameters of a model, with their names and the modules that they belong to."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from torch import Tensor, nn

from trainer.errors import ConfigError

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]


class Trainable(list[tuple[str, nn.Parameter]]):
    """The named parameters of a model that require a gradient, each once.

    Args:
        model: the model. only: the names of those to take; all without.

    Attributes:
        owners: the module that each parameter belongs to, by the parameter's name: what a weight is for.
    """

    def __init__(self, model: nn.Module, only: Collection[str] | None = None) -> None:
        found = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        super().__init__((name, p) for name, p in found if only is None or name in only)
        self.owners = {name: model.get_submodule(name.rpartition(".")[0]) for name, _ in self}


def trainable(model: nn.Module) -> Trainable:
    """The named parameters that require a gradient, each once; names go into the optimizer's state.

    Raises:
        ConfigError: there are none.
    """
    found = Trainable(model)
    if not found:
        raise ConfigError(f"model: {type(model).__name__} has no parameter that requires a gradient")
    return found


def named(params: Iterable[Tensor] | Iterable[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """Parameters with their names; those that have none are called by their place."""
    return [entry if isinstance(entry, tuple) else (str(n), entry) for n, entry in enumerate(params)]


def grouped(params: Params) -> list[dict[str, Any]]:
    """What an optimizer is given, as parameter groups."""
    given: Any = params if isinstance(params, list) else list(params)
    return given if given and isinstance(given[0], dict) else [{"params": given}]
