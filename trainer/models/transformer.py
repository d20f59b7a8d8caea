"""A causal transformer for language."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.checks import positive, share


class Transformer(nn.Module):
    """A decoder that predicts the next symbol: the GPT-2 of Radford et al., 2019.

    Symbols int64 (N, T), T up to `context`, to logits (N, T, vocab_size); an output sees its own and earlier symbols
    only. Pre-norm, GELU, learned positions; initialised as in the paper.

    Args:
        vocab_size: the number of symbols.
        context: the longest input.
        width: the numbers that stand for a symbol.
        depth: the blocks of attention and perceptron.
        heads: attention heads; must divide `width`.
        dropout: the share of values set to zero in training.
        tied: whether the last layer uses the weights of the symbols' embedding.

    Raises:
        ValueError: a size below 1, a dropout outside 0..1, heads that do not divide the width; in `forward`, an input
            longer than the context.
    """

    def __init__(
        self,
        vocab_size: int,
        context: int,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.0,
        tied: bool = True,
    ) -> None:
        super().__init__()
        positive(vocab_size=vocab_size, context=context, width=width, depth=depth, heads=heads)
        share(dropout=dropout)
        if width % heads:
            raise ValueError(f"heads: {heads} does not divide width {width}")
        self.context = context
        self.symbols = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(_Block(width, heads, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        # Tied weights are used through the embedding, so that the state holds them once.
        self.head = None if tied else nn.Linear(width, vocab_size, bias=False)
        self._initialise(depth)

    def _initialise(self, depth: int) -> None:
        for name, module in self.named_modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                # What is added to the residual stream is scaled, so that its variance does not grow with the depth.
                scale = 1 / math.sqrt(2 * depth) if name.endswith("leave") else 1.0
                nn.init.normal_(module.weight, std=0.02 * scale)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        if length > self.context:
            raise ValueError(f"context: an input of {length} symbols is longer than the context of {self.context}")
        places = self.positions.weight[:length]
        x = self.norm(self.blocks(self.dropout(self.symbols(x) + places)))
        return F.linear(x, self.symbols.weight if self.head is None else self.head.weight)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.before_attention, self.before_perceptron = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = _Attention(width, heads, dropout)
        self.perceptron = _Perceptron(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.before_attention(x)))
        out: Tensor = x + self.dropout(self.perceptron(self.before_perceptron(x)))
        return out


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.enter, self.leave = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.enter(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        share = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(query, key, value, dropout_p=share, is_causal=True)
        out: Tensor = self.leave(x.transpose(1, 2).flatten(2))
        return out


class _Perceptron(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.leave(F.gelu(self.enter(x)))
        return out
