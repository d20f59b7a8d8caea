"""How hard a training sample is, by itself: the larger the number, the harder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Score = Callable[[Any], Any]


def boundary(sample: Any) -> float:
    """The share of a mask's pixels whose right or lower neighbour is of another class. A sample is (input, mask)."""
    mask = sample[1]
    if not isinstance(mask, torch.Tensor) or mask.ndim < 2:
        raise ValueError("boundary: there is no mask (..., H, W); choose another curriculum.score")
    right, down = mask[..., :, 1:] != mask[..., :, :-1], mask[..., 1:, :] != mask[..., :-1, :]
    return float(right.sum() + down.sum()) / mask.numel()


def contrast(sample: Any) -> float:
    """The fainter a picture, the harder: minus the standard deviation of the input. A sample is (input, ...)."""
    values = sample[0]
    if not isinstance(values, torch.Tensor) or not values.is_floating_point():
        raise ValueError("contrast: there is no picture of floating-point numbers; choose another curriculum.score")
    return -float(values.std(correction=0))


def length(sample: Any) -> int:
    """The longer the input, the harder. A sample is (input, ...)."""
    return len(sample[0])


def auto(sample: Any) -> float:
    """`boundary` where the target is a mask of classes, `contrast` where the input is a picture."""
    parts = list(sample) if isinstance(sample, (tuple, list)) else []
    large = [part if isinstance(part, torch.Tensor) and part.ndim >= 2 else None for part in (*parts, None, None)[:2]]
    if large[1] is not None and not large[1].is_floating_point():
        return boundary(sample)
    if large[0] is not None and large[0].is_floating_point():
        return contrast(sample)
    raise ValueError(
        "auto: it is neither (input, mask) nor (picture, ...); name a function of a sample, such as "
        "curriculum.score=length or my_module.my_score, or give the dataset a difficulty(index)"
    )


SCORES: dict[str, Score] = {"boundary": boundary, "contrast": contrast, "length": length}
