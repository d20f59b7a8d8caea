"""Residual networks for classification."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from trainer.models.checks import positive

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class ResNet(nn.Module):
    """ResNet-18 and ResNet-34 of basic blocks: He, Zhang, Ren, Sun, "Deep Residual Learning", 2015.

    Pictures (N, in_channels, H, W) to (N, num_classes). The stages have `width` channels, then 2, 4, 8 times as many.

    Args:
        in_channels: the channels of a picture.
        num_classes: the outputs.
        depth: the layers with weights, 18 or 34.
        width: the channels of the first stage.
        small_images: begins with a 3x3 convolution at full size, for pictures below about 100 pixels; otherwise, as in
            the paper, with a 7x7 convolution and a pooling that leave a quarter of the size.

    Raises:
        ValueError: a size below 1, or a depth other than 18 and 34.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        depth: Literal[18, 34] = 18,
        width: int = 64,
        small_images: bool = True,
    ) -> None:
        super().__init__()
        positive(in_channels=in_channels, num_classes=num_classes, width=width)
        if depth not in _BLOCKS:
            raise ValueError(f"depth: {depth} must be 18 or 34")
        size, stride = (3, 1) if small_images else (7, 2)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, size, stride, size // 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Identity() if small_images else nn.MaxPool2d(3, 2, 1),
        )
        blocks: list[nn.Module] = []
        entering = width
        for stage, count in enumerate(_BLOCKS[depth]):
            leaving = width * 2**stage
            for index in range(count):
                blocks.append(_Block(entering, leaving, 2 if stage and not index else 1))
                entering = leaving
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(entering, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        # 1.1 times as fast on a CPU; torch's stubs lack the argument
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return out


class _Block(nn.Module):
    """Two 3x3 convolutions, added to what came in (made to fit by a 1x1 convolution where the shape changes)."""

    def __init__(self, entering: int, leaving: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(entering, leaving, 3, stride, 1, bias=False),
            nn.BatchNorm2d(leaving),
            nn.ReLU(inplace=True),
            nn.Conv2d(leaving, leaving, 3, 1, 1, bias=False),
            nn.BatchNorm2d(leaving),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or entering != leaving:
            self.shortcut = nn.Sequential(nn.Conv2d(entering, leaving, 1, stride, bias=False), nn.BatchNorm2d(leaving))
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.body(x) + self.shortcut(x))
        return out
