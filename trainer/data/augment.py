"""Random changes to a batch of pictures and their masks, a pure function of uniform numbers given from outside."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from trainer.state import mix

DRAWS = 7  # uniform numbers of a sample, whatever is switched on: flip, turn, zoom, left, top, brightness, contrast

_GOLDEN = 0x9E3779B97F4A7C15


def uniforms(epoch_seed: int, indices: Tensor, draws: int = DRAWS) -> Tensor:
    """float32 (N, draws) in [0, 1): number k of sample i is a pure function of (epoch_seed, i, k).

    Counter-based (splitmix64, Steele et al. 2014): a sample gets the same numbers in any batch and after a restart.

    Args:
        indices: int64 (N,), the samples' indices in their dataset.
        draws: at most 64.
    """
    counter = indices.numpy()[:, None] * 64 + np.arange(1, draws + 1)
    h: npt.NDArray[np.uint64] = counter.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(mix(epoch_seed))
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    h ^= h >> np.uint64(31)
    return torch.from_numpy((h >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24))


class Augment:
    """Flips, turns, crops and jitter of a whole batch; a mask gets the geometry of its picture.

    Args:
        flip: mirror left and right, half of the time.
        rotate: turn by 0, 90, 180 or 270 degrees (0 or 180 where pictures are not square).
            With `flip` a square takes all its eight orientations.
        crop: zoom in: the part of each side that may be cut away, 0 (off) to less than 1; 0.2 keeps 80 to 100 %.
        jitter: change brightness and contrast by factors from 1 - jitter to 1 + jitter, 0 (off) to 1.
    """

    def __init__(self, flip: bool = False, rotate: bool = False, crop: float = 0.0, jitter: float = 0.0) -> None:
        if not 0 <= crop < 1:
            raise ValueError(f"crop: {crop} must be at least 0 and less than 1")
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter: {jitter} must be from 0 to 1")
        self.flip, self.rotate, self.crop, self.jitter = flip, rotate, crop, jitter

    def __bool__(self) -> bool:
        """Whether anything is switched on."""
        return bool(self.flip or self.rotate or self.crop or self.jitter)

    def __str__(self) -> str:
        words = [name for name in ("flip", "rotate") if getattr(self, name)]
        words += [f"{name} {value:g}" for name in ("crop", "jitter") if (value := getattr(self, name))]
        return ", ".join(words) or "none"

    def __call__(self, images: Tensor, masks: Tensor | None, u: Tensor) -> tuple[Tensor, Tensor | None]:
        """Changes every sample by its own row of `u` alone, partly in place.

        Args:
            images: uint8 (N, C, H, W). The result is uint8, or float32 in 0..255 where `crop` or `jitter` is on.
            masks: class indices (N, H, W) or None.
            u: (N, 7) uniform numbers in [0, 1).
        """
        if self.flip or self.rotate:
            self._orient(images, masks, u.numpy())
        brightness = images.sum(dim=(1, 2, 3)) if self.jitter else None  # uint8 adds up exactly, in any batch
        if self.crop:
            images, masks = self._zoom(images, masks, u[:, 2:5])
        if brightness is not None:
            images = self._shade(images, brightness, u[:, 5:7])
        return images, masks

    def _orient(self, images: Tensor, masks: Tensor | None, u: npt.NDArray[np.float32]) -> None:
        square = images.shape[-1] == images.shape[-2]
        quarters = (u[:, 1] * 4).astype(int) if square else (u[:, 1] * 2).astype(int) * 2
        quarters *= self.rotate
        mirrored = (u[:, 0] < 0.5) & self.flip
        # numpy writes to chosen samples three times as fast as torch; the arrays share the tensors' memory.
        for x in (images.numpy(),) if masks is None else (images.numpy(), masks.numpy()):
            # A quarter turn is a transposition and one mirroring, a half turn two mirrorings.
            if (chosen := np.flatnonzero(quarters % 2)).size:
                x[chosen] = x[chosen].swapaxes(-1, -2)
            if (chosen := np.flatnonzero((quarters == 1) | (quarters == 2))).size:
                x[chosen] = x[chosen][..., ::-1, :]
            if (chosen := np.flatnonzero((quarters >= 2) ^ mirrored)).size:
                x[chosen] = x[chosen][..., ::-1]

    def _zoom(self, images: Tensor, masks: Tensor | None, u: Tensor) -> tuple[Tensor, Tensor | None]:
        height, width = images.shape[-2:]
        scale = 1 - self.crop * u[:, 0:1]
        x = self._window(width, scale, u[:, 1:2])
        y = self._window(height, scale, u[:, 2:3])
        n = len(images)
        grid = torch.stack((x[:, None, :].expand(n, height, width), y[:, :, None].expand(n, height, width)), dim=-1)
        zoomed = functional.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
        if masks is None:
            return zoomed, None
        rows = ((y + 1) * (height / 2)).long().clamp_(0, height - 1)
        columns = ((x + 1) * (width / 2)).long().clamp_(0, width - 1)
        return zoomed, masks[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]

    @staticmethod
    def _window(length: int, scale: Tensor, u: Tensor) -> Tensor:
        """(N, length) places in -1..1 where a window of that scale, at a random place, samples one side."""
        centres: Tensor = (torch.arange(length) * 2 + 1) / length - 1
        return centres * scale + (1 - scale) * (u * 2 - 1)

    def _shade(self, images: Tensor, brightness: Tensor, u: Tensor) -> Tensor:
        light, contrast = ((1 + self.jitter * (2 * u - 1)).T)[..., None, None, None]
        mean = (brightness.double() / images[0].numel()).float()[:, None, None, None]
        shaded: Tensor = ((images.float() - mean) * contrast + mean) * light
        return shaded.clamp_(0, 255)
