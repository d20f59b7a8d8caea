"""What is done to gradients between the backward pass and the optimizer: bounds, and noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class Clip:
    """Bounds gradients before the update: their common norm, those of each unit, or each value. Infinity is off.

    Args:
        norm: the most that the L2 norm of all gradients together may be (Pascanu et al. 2013, arXiv:1211.5063).
        value: the most that the absolute value of any gradient may be; applied last.
        adaptive: the most that the norm of a unit's gradient may be, as a share of the norm of its weights; a unit is
            what leads to one output, and a vector such as a bias is one (Brock et al. 2021, arXiv:2102.06171, who use
            0.01 and leave out the last layer).
    """

    def __init__(self, norm: float = math.inf, value: float = math.inf, adaptive: float = math.inf) -> None:
        for name, bound in (("norm", norm), ("value", value), ("adaptive", adaptive)):
            if not bound > 0:
                raise ValueError(f"{name}: {bound} must be more than 0; clip=none switches clipping off")
        self.norm, self.value, self.adaptive = norm, value, adaptive

    @property
    def on(self) -> bool:
        return min(self.norm, self.value, self.adaptive) < math.inf

    def __call__(self, parameters: Sequence[Tensor], norm: Tensor) -> Tensor:
        """Changes the gradients in place; returns their norm afterwards.

        Args:
            parameters: those that have a gradient. norm: that of all gradients as they are now, a scalar tensor.
        """
        # On the CPU the norm can be read for free, and gradients within the bound need no multiplication; on a GPU
        # reading it would wait for the device.
        within = self.norm == math.inf or (norm.device.type == "cpu" and norm.item() < 0.99 * self.norm)
        if within and self.adaptive == self.value == math.inf:
            return norm
        gradients = [values_of(p) for p in parameters]
        if not within:  # as torch.nn.utils.clip_grad_norm_ does it, to the last bit
            scale = (self.norm / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(gradients, scale)
            norm = norm * scale
        if self.adaptive < math.inf:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                gradient.mul_(self._shares(parameter, gradient))
        if self.value < math.inf:
            torch._foreach_clamp_min_(gradients, -self.value)
            torch._foreach_clamp_max_(gradients, self.value)
        return norm if self.adaptive == self.value == math.inf else norm_of(parameters)

    def _shares(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        """How much of each unit's gradient may stay; weights near zero count as 1e-3, as in the paper."""
        weights = parameter.detach()
        if parameter.grad is not None and parameter.grad.is_sparse:
            weights = weights[parameter.grad.indices()[0]]
        bounds = self.adaptive * _unit_norms(weights).clamp(min=1e-3)
        return (bounds / _unit_norms(gradient).clamp(min=1e-6)).clamp(max=1.0)


class Noise:
    """Adds normal noise to gradients, less and less of it (Neelakantan et al. 2015, arXiv:1511.06807).

    Its variance at update t, counted from 0, is eta / (1 + t) ** gamma.

    Args:
        eta: the variance at the first update; 0 is off. The paper tries 0.01, 0.3 and 1.
        gamma: how soon it fades.
    """

    def __init__(self, eta: float = 0.0, gamma: float = 0.55) -> None:
        for name, value in (("eta", eta), ("gamma", gamma)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}: {value} must be at least 0; grad_noise=none switches the noise off")
        self.eta, self.gamma = eta, gamma

    def __call__(self, parameters: Sequence[Tensor], step: int) -> None:
        """Changes the gradients in place. The draws are those of torch's generator, which the loop seeds at each step.

        Args:
            parameters: those that have a gradient. step: updates done before this one.
        """
        if not self.eta:
            return
        deviation = math.sqrt(self.eta / (1 + step) ** self.gamma)
        for gradient in map(values_of, parameters):
            gradient.add_(torch.randn_like(gradient), alpha=deviation)


def norm_of(parameters: Sequence[Tensor]) -> Tensor:
    """The L2 norm of all gradients together, a scalar tensor."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm([values_of(p) for p in parameters])))
    return norm


def values_of(parameter: Tensor) -> Tensor:
    """The numbers of a gradient, to be changed in place: of a sparse one, what the rows that were used have."""
    gradient = parameter.grad
    assert gradient is not None
    if not gradient.is_sparse:
        return gradient
    if not gradient.is_coalesced():
        parameter.grad = gradient = gradient.coalesce()
    return gradient._values()


def _unit_norms(values: Tensor) -> Tensor:
    """Of shape (units, 1, ...), or a scalar for a vector."""
    along = tuple(range(1, values.ndim)) or None
    norms: Tensor = torch.linalg.vector_norm(values, dim=along, keepdim=along is not None)
    return norms
