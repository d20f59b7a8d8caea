"""Optimizers that torch has not, or not for every model: SGDW, AdamW without bias correction, L-BFGS, Muon."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.errors import ConfigError
from trainer.optim.parameters import NORMS, Params, Trainable, grouped, named


class SGDW(torch.optim.SGD):
    """Gradient descent whose weight decay does not pass through the momentum (Loshchilov and Hutter 2017).

    At each update the weights shrink by the factor 1 - lr * weight_decay.

    Args:
        params, lr, momentum, dampening, nesterov: as those of `torch.optim.SGD`.
        weight_decay: the share of a weight that is lost in an update, in units of the learning rate.
    """

    decoupled_weight_decay = True

    def __init__(
        self,
        params: Params,
        lr: float = 0.1,
        momentum: float = 0.9,
        dampening: float = 0.0,
        weight_decay: float = 5e-4,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, lr, momentum, dampening, weight_decay, nesterov)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = _evaluate(closure)
        decays = [group["weight_decay"] for group in self.param_groups]
        try:
            for group in self.param_groups:
                _decay([p for p in group["params"] if p.grad is not None], group)
                group["weight_decay"] = 0.0
            super().step()
        finally:
            for group, decay in zip(self.param_groups, decays, strict=True):
                group["weight_decay"] = decay
        return loss


class LBFGS(torch.optim.LBFGS):
    """torch's L-BFGS for weights in any memory format, such as channels_last, whose gradients it cannot flatten."""

    one_rate = True

    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        def evaluate() -> Any:
            loss = closure()
            for p in self.param_groups[0]["params"]:
                p.grad = None if p.grad is None else p.grad.contiguous()
            return loss

        return super().step(evaluate)  # type: ignore[no-untyped-call]


class AdamWUncorrected(Optimizer):
    """AdamW without bias correction, as BERT was trained: transformers' former `AdamW(correct_bias=False)`.

    Both averages start at zero and are taken as they are, and the weights decay after the update, not before it.

    Args:
        params, lr, betas, eps, weight_decay: as those of `torch.optim.AdamW`; the defaults are those of transformers.
    """

    decoupled_weight_decay = True

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        _check(lr=lr, eps=eps, weight_decay=weight_decay)
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas: {list(betas)} must be at least 0 and less than 1")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = _evaluate(closure)
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            for p in parameters:
                if not self.state[p]:
                    self.state[p] = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            gradients = [p.grad for p in parameters]
            averages = [self.state[p]["exp_avg"] for p in parameters]
            squares = [self.state[p]["exp_avg_sq"] for p in parameters]
            first, second = group["betas"]
            torch._foreach_mul_(averages, first)
            torch._foreach_add_(averages, gradients, alpha=1 - first)
            torch._foreach_mul_(squares, second)
            torch._foreach_addcmul_(squares, gradients, gradients, value=1 - second)
            bounds = torch._foreach_sqrt(squares)
            torch._foreach_add_(bounds, group["eps"])
            torch._foreach_addcdiv_(parameters, averages, bounds, value=-group["lr"])
            _decay(parameters, group)
        return loss


class MuonWithAdamW(Optimizer):
    """Muon for the hidden matrices of a model, AdamW for the rest: vectors, convolutions, embeddings (Jordan 2024).

    Muon's steps are scaled to the size of AdamW's (Liu et al. 2025, arXiv:2502.16982), so that one learning rate and
    one weight decay serve both. The two parameter groups are called `muon` and `adamw`; of groups with names of their
    own each is divided in two of its name.

    Args:
        params: best `trainable(model)`, which knows the embeddings, or groups of such.
        lr, weight_decay: of both groups.
        momentum, nesterov, ns_steps: of Muon; the last is the steps of Newton and Schulz that make a matrix orthogonal.
        betas, eps: of AdamW.
        adamw_names: patterns such as `head.*` of matrices that AdamW trains too: the last layer, say.

    Raises:
        ConfigError: no matrix is left for Muon, a pattern matches no name, or torch is older than 2.9.
    """

    decoupled_weight_decay = True

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        adamw_names: Sequence[str] = (),
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise ConfigError(f"optimizer: Muon comes with torch 2.9, and this is torch {torch.__version__}")
        groups = grouped(params)
        _check_patterns(groups, adamw_names)
        shared: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
        moves: dict[str, Any] = {"momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps}
        apart = len({group.get("name") for group in groups}) > 1
        self._inner: list[Optimizer] = []
        for group in groups:
            matrices, rest = _split(group["params"], adamw_names)
            first, second = [group["name"]] * 2 if apart and "name" in group else ("muon", "adamw")
            if matrices:
                muon = {**group, "params": matrices, "name": first, "adjust_lr_fn": "match_rms_adamw"}
                self._inner.append(torch.optim.Muon([muon], **shared, **moves))
            if rest:
                adamw = {**group, "params": rest, "name": second}
                self._inner.append(torch.optim.AdamW([adamw], betas=betas, eps=eps, **shared))
        if not any(isinstance(inner, torch.optim.Muon) for inner in self._inner):
            raise ConfigError(
                "optimizer: Muon trains the matrices of hidden layers, and this model has none; use optimizer=adamw"
            )
        super().__init__([group for inner in self._inner for group in inner.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = _evaluate(closure)
        for inner, group in zip(self._inner, self.param_groups, strict=True):
            inner.param_groups, inner.state = [group], self.state  # new objects after load_state_dict
            inner.step()
        return loss


def _check_patterns(groups: Sequence[dict[str, Any]], patterns: Sequence[str]) -> None:
    names = [name for group in groups if isinstance(group["params"], Trainable) for name, _ in group["params"]]
    for pattern in patterns if names else ():
        if not any(fnmatch(name, pattern) for name in names):
            raise ConfigError(f"adamw_names: {pattern!r} matches no weight; they are called {names[0]}, ...")


def _split(params: Iterable[Any], patterns: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """The named matrices that Muon trains, and everything else."""
    owners = params.owners if isinstance(params, Trainable) else {}
    entries = named(params)

    def for_muon(name: str, parameter: Tensor) -> bool:
        other = isinstance(owners.get(name), (nn.Embedding, nn.EmbeddingBag, *NORMS))
        return parameter.ndim == 2 and not other and not any(fnmatch(name, pattern) for pattern in patterns)

    return [entry for entry in entries if for_muon(*entry)], [entry for entry in entries if not for_muon(*entry)]


def _decay(parameters: list[Tensor], group: dict[str, Any]) -> None:
    if parameters and group["weight_decay"]:
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])


def _evaluate(closure: Callable[[], Any] | None) -> Any:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def _check(**values: float) -> None:
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name}: {value} must be at least 0")
