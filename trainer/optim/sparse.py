"""Adam for embeddings with sparse gradients; any other model is refused before it trains."""

from __future__ import annotations

import torch

from trainer.errors import ConfigError
from trainer.optim.parameters import Params, Trainable, grouped


class SparseAdam(torch.optim.SparseAdam):
    """Adam that updates only the rows of an embedding that a batch has used.

    Args:
        params: of a model all of whose parameters are of `nn.Embedding(sparse=True)` or `nn.EmbeddingBag(sparse=True)`.
        lr, betas, eps: as those of Adam.

    Raises:
        ConfigError: a parameter's gradient is dense; known only where `trainable(model)` is given.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        groups = grouped(params)
        known = [given for group in groups if isinstance(given := group["params"], Trainable)]
        dense = [name for given in known for name, _ in given if not getattr(given.owners[name], "sparse", False)]
        if dense:
            total = sum(map(len, known))
            raise ConfigError(
                f"optimizer: SparseAdam takes only sparse gradients, and those of {len(dense)} of {total} "
                f"weights are dense ({dense[0]}, ...); use optimizer=adam, or embeddings with sparse=True alone"
            )
        super().__init__(groups, lr, betas, eps)
