"""Parameters as an optimizer takes them."""

from __future__ import annotations

import torch
from torch import nn

from trainer.errors import ConfigError


def trainable(model: nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    """The named parameters that require a gradient, each once; names go into the optimizer's state.

    Raises:
        ConfigError: there are none.
    """
    found = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not found:
        raise ConfigError(f"model: {type(model).__name__} has no parameter that requires a gradient")
    return found
