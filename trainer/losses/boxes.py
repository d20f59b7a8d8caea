"""Losses for boxes: one minus an intersection over union that tells also how far boxes without overlap are apart.

Boxes are (N, ..., 4): left, top, right, bottom, with left <= right and top <= bottom.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GIoU(nn.Module):
    """Generalised IoU: Rezatofighi et al., "Generalized Intersection over Union", 2019.

    With U the area of the union, and C that of the smallest box around both, the mean over boxes of

        loss = 1 - (IoU - (C - U) / C)

    Args:
        eps: added to what is divided by, so that empty boxes give no NaN.
    """

    def __init__(self, eps: float = 1e-7) -> None:
        super().__init__()
        if not eps > 0:
            raise ValueError(f"eps: {eps} must be more than 0")
        self.eps = eps

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        iou, union, around = _measured(output, target, self.eps)
        area = around[..., 0] * around[..., 1]
        return (1 - iou + (area - union) / (area + self.eps)).mean()


class DIoU(GIoU):
    """Distance IoU: Zheng et al., "Distance-IoU Loss", 2020. Converges faster than GIoU where boxes do not overlap.

    With d the distance of the centres, and c the diagonal of the smallest box around both, the mean over boxes of

        loss = 1 - IoU + d^2 / c^2
    """

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        iou, _, around = _measured(output, target, self.eps)
        apart = (output[..., :2] + output[..., 2:] - target[..., :2] - target[..., 2:]) / 2
        return (1 - iou + apart.square().sum(-1) / (around.square().sum(-1) + self.eps)).mean()


def _measured(output: Tensor, target: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """IoU (N, ...), area of the union (N, ...), and width and height of the smallest box around both (N, ..., 2)."""
    if output.shape != target.shape or output.shape[-1:] != (4,):
        raise ValueError(
            f"an output of shape {tuple(output.shape)} and a target of {tuple(target.shape)} are no boxes; "
            "both must be (N, 4): left, top, right, bottom"
        )
    inner = torch.minimum(output[..., 2:], target[..., 2:]) - torch.maximum(output[..., :2], target[..., :2])
    common = inner.clamp_min(0).prod(-1)
    union = _area(output) + _area(target) - common
    around = torch.maximum(output[..., 2:], target[..., 2:]) - torch.minimum(output[..., :2], target[..., :2])
    return common / (union + eps), union, around


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
