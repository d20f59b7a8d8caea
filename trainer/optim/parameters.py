"""The parameters of a model, with their names and the modules that they belong to."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn


class Trainable(list[tuple[str, nn.Parameter]]):
    """The named parameters of a model that require a gradient, each once.

    Attributes:
        owners: the module that each parameter belongs to, by the parameter's name: what a weight is for.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__((name, p) for name, p in model.named_parameters() if p.requires_grad)
        self.owners = {name: model.get_submodule(name.rpartition(".")[0]) for name, _ in self}


def named(params: Iterable[Tensor] | Iterable[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """Parameters with their names; those that have none are called by their place."""
    return [entry if isinstance(entry, tuple) else (str(n), entry) for n, entry in enumerate(params)]
