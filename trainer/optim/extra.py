"""The optimizers of pytorch_optimizer (the extra `optim`) that are known to resume exactly, some of them mended."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch.optim import Optimizer

from trainer.errors import ConfigError
from trainer.update import needs_closure

try:
    import pytorch_optimizer as theirs
except ModuleNotFoundError:
    raise ImportError("pytorch_optimizer is not installed; pip install 'wandb-trainer[optim]'") from None


def _strict(made: Any) -> Any:
    """The same optimizer; its signature names all that it reads, while pytorch_optimizer takes any word in silence."""
    signature = inspect.signature(made)
    read = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    own = {"__module__": __name__, "__signature__": signature.replace(parameters=read)}
    return type(made.__name__, (made,), {**own, "validate_learning_rate": staticmethod(_check_rate)})


def _check_rate(lr: float) -> None:
    """In place of theirs, whose error is of a kind of its own."""
    if not lr >= 0:
        raise ValueError(f"lr: {lr} must be at least 0")


AdaBelief = _strict(theirs.AdaBelief)
AdaBound = _strict(theirs.AdaBound)
Adan = _strict(theirs.Adan)
Lamb = _strict(theirs.Lamb)
LARS = _strict(theirs.LARS)
Lion = _strict(theirs.Lion)
MADGRAD = _strict(theirs.MADGRAD)
NovoGrad = _strict(theirs.NovoGrad)
Prodigy = _strict(theirs.Prodigy)
Shampoo = _strict(theirs.Shampoo)
ScheduleFreeAdamW = _strict(theirs.ScheduleFreeAdamW)
SOAP = _strict(theirs.SOAP)
Yogi = _strict(theirs.Yogi)

Prodigy.one_rate = True  # it takes the learning rate of its first group for all
SOAP.decoupled_weight_decay = True


class SWATS(_strict(theirs.SWATS)):  # type: ignore[misc]
    """Adam that switches to SGD when SGD's learning rate has become clear (Keskar and Socher 2017, arXiv:1712.07628).

    pytorch_optimizer writes that rate to `group["lr"]`, where the next move of any schedule, a constant one too,
    overwrites it. Here it is kept as a ratio to the scheduled rate. And its loop over single weights refuses those of
    convolutions in the memory format channels_last, which its computation over lists takes.
    """

    def __init__(self, params: Iterable[Any], **settings: Any) -> None:
        super().__init__(params, **{"foreach": True, **settings})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        scheduled = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["lr"] *= group.setdefault("sgd_ratio", 1.0)
        before = [group["phase"] for group in self.param_groups]
        loss = super().step(closure)
        for group, lr, phase in zip(self.param_groups, scheduled, before, strict=True):
            if group["phase"] != phase:
                group["sgd_ratio"] = group["lr"] / lr
            group["lr"] = lr
        return loss


class SAM(theirs.SAM):
    """Another optimizer with the gradients of the worst weights nearby (Foret et al. 2021, arXiv:2010.01412).

    Args:
        params: what is optimized. base: makes the other optimizer of `params` and `lr`.
        rho: how far away the worst weights may be. adaptive: in units of the weights (Kwon et al. 2021).
    """

    needs_closure = True

    def __init__(
        self,
        params: Iterable[Any],
        base: Callable[..., Optimizer],
        lr: float,
        rho: float = 0.05,
        adaptive: bool = False,
    ) -> None:
        super().__init__(params, base, rho=rho, adaptive=adaptive, lr=lr)  # type: ignore[arg-type]
        _check_inner(self.base_optimizer, "SAM")


def lookahead(
    params: Iterable[Any],
    base: Callable[..., Optimizer],
    lr: float,
    k: int = 5,
    alpha: float = 0.5,
    pullback_momentum: str = "none",
) -> Optimizer:
    """Another optimizer, pulled back towards where it was k updates ago (Zhang et al. 2019, arXiv:1907.08610).

    Args:
        params: what is optimized. base: makes the other optimizer of `params` and `lr`.
        k: updates between two pulls. alpha: how far to go from the old weights to the new.
        pullback_momentum: what a pull does to the momentum: `none`, `reset` or `pullback`.
    """
    inner = base(params, lr=lr)
    _check_inner(inner, "Lookahead")
    made: Optimizer = theirs.Lookahead(inner, k=k, alpha=alpha, pullback_momentum=pullback_momentum)
    return made


def _check_inner(inner: Optimizer, outer: str) -> None:
    """Refuses what cannot work inside another: nobody would give it its closure, or ask for its averaged weights."""
    name = type(inner).__name__
    if needs_closure(inner):
        raise ConfigError(f"base: {name} evaluates the loss by itself, which {outer} does not let it; use another base")
    if hasattr(inner, "train") and hasattr(inner, "eval"):
        raise ConfigError(f"base: {name} averages its weights, which {outer} would never evaluate; use another base")
