"""A multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from trainer.models.checks import positive, share


class MLP(nn.Module):
    """Fully connected layers with ReLU between them: inputs (N, ...) of `in_features` numbers to (N, num_classes).

    Args:
        in_features: the numbers in one input, of whatever shape.
        num_classes: the outputs.
        hidden: the widths of the layers between; none is a linear model.
        dropout: the share of hidden values set to zero in training.

    Raises:
        ValueError: a size below 1, or a dropout outside 0..1.
    """

    def __init__(
        self, in_features: int, num_classes: int, hidden: Sequence[int] = (64, 64), dropout: float = 0.0
    ) -> None:
        super().__init__()
        positive(in_features=in_features, num_classes=num_classes, **({"hidden": hidden} if hidden else {}))
        share(dropout=dropout)
        layers: list[nn.Module] = [nn.Flatten()]
        for entering, leaving in pairwise((in_features, *hidden)):
            layers += [nn.Linear(entering, leaving), nn.ReLU(inplace=True), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear((in_features, *hidden)[-1], num_classes))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out
