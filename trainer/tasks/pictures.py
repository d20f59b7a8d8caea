"""What a person sees of a model's input: bytes, whatever numbers and channels the model is given."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class Restores(Protocol):
    """What the panels need of a preprocessing: from what the model sees, (C, H, W), back to a uint8 picture."""

    def restore(self, x: Tensor, /) -> np.ndarray: ...


def are_pictures(inputs: Any) -> bool:
    """Whether a batch's inputs are pictures: one tensor (N, C, H, W)."""
    return isinstance(inputs, Tensor) and inputs.ndim == 4


def picture(pixels: Tensor, preprocess: Restores | None = None) -> np.ndarray:
    """(C, H, W) to uint8, (H, W) or (H, W, 3): of two channels the first is shown, of more than three the first three.

    Without a preprocessing to undo, bytes and numbers from 0 to 1 are shown as they are; other numbers are stretched
    over the range, the least to black and the greatest to white. What is not finite is black.
    """
    if preprocess is not None:
        return preprocess.restore(pixels)
    pixels = pixels[:3] if len(pixels) > 2 else pixels[:1]
    if pixels.dtype != torch.uint8:
        pixels = _bytes(pixels.detach().to("cpu", torch.float32))
    array: np.ndarray = pixels.cpu().movedim(0, -1).numpy()
    return np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array)


def _bytes(pixels: Tensor) -> Tensor:
    finite = pixels[pixels.isfinite()]
    low, high = (finite.min().item(), finite.max().item()) if len(finite) else (0.0, 1.0)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    pixels = (pixels - low) / max(high - low, 1e-12) * 255
    return pixels.nan_to_num(0, 0, 0).round().clamp(0, 255).to(torch.uint8)
