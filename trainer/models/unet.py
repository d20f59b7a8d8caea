"""The U-Net, a convolutional network for segmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from trainer.models.checks import positive, share

Norm = Literal["batch", "group"]


class UNet(nn.Module):
    """A contracting path, an expanding path, and skips between them: Ronneberger, Fischer, Brox, "U-Net", 2015.

    Pictures (N, in_channels, H, W) of any size to logits (N, num_classes, H, W). Other than in the paper, convolutions
    are padded (the output is as large as the input) and normalised.

    Args:
        in_channels: the channels of a picture.
        num_classes: the channels of the output; 1 for two classes told apart by the sign of one logit.
        widths: the channels of each level, from full size down; each level has half the size of the one before.
        dropout: the share of channels set to zero in training, within each level.
        norm: `batch`, or `group` (of up to 8 groups) where a batch holds few samples.

    Raises:
        ValueError: a size below 1, no widths, a dropout outside 0..1, or an unknown norm.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        widths: Sequence[int] = (16, 32, 64, 128),
        dropout: float = 0.0,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        positive(in_channels=in_channels, num_classes=num_classes, widths=widths)
        share(dropout=dropout)
        if norm not in ("batch", "group"):
            raise ValueError(f"norm: {norm!r} must be batch or group")
        self.down = nn.ModuleList(_level(a, b, dropout, norm) for a, b in pairwise((in_channels, *widths)))
        # Rounded up: at odd sizes the way back gives a row or a column too many, which is cut off, none too few.
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        upwards = list(pairwise(reversed(widths)))
        self.widen = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in upwards)
        self.up = nn.ModuleList(_level(2 * b, b, dropout, norm) for _, b in upwards)
        self.head = nn.Conv2d(widths[0], num_classes, 1)
        # 1.2 to 1.5 times as fast on a CPU; torch's stubs lack the argument
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for level in self.down:
            x = level(self.pool(x) if skips else x)
            skips.append(x)
        for widen, level, skip in zip(self.widen, self.up, reversed(skips[:-1]), strict=True):
            x = widen(x)[..., : skip.shape[-2], : skip.shape[-1]]
            x = level(torch.cat((skip, x), 1))
        out: Tensor = self.head(x)
        return out


def _level(entering: int, leaving: int, dropout: float, norm: Norm) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(entering, leaving, 3, padding=1, bias=False),
        _normalise(leaving, norm),
        nn.ReLU(inplace=True),
        nn.Dropout2d(dropout),
        nn.Conv2d(leaving, leaving, 3, padding=1, bias=False),
        _normalise(leaving, norm),
        nn.ReLU(inplace=True),
    )


def _normalise(channels: int, norm: Norm) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(math.gcd(8, channels), channels)
