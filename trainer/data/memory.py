"""Pictures in memory, made into batches at once: the fast path for data that fits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from trainer.data.augment import Augment, uniforms
from trainer.data.images import Preprocess


class Memory(Dataset[tuple[Tensor, Tensor]]):
    """A `BatchSource` of pictures with labels or masks.

    Args:
        images: uint8 (N, C, H, W).
        targets: labels int64 (N,), or masks of class indices uint8 (N, H, W). They come out as int64.
        names: what each sample is called.
        preprocess: makes float input from pixels.
        augment: random changes of `batch_of`; `dataset[i]` never has any.
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        names: Sequence[str],
        preprocess: Preprocess,
        augment: Augment | None = None,
    ) -> None:
        if not len(images) == len(targets) == len(names):
            raise ValueError(f"images: {len(images)}, targets: {len(targets)}, names: {len(names)} must be as many")
        self.images, self.targets, self.names = images.contiguous(), targets.contiguous(), list(names)
        self.preprocess = preprocess
        self.augment = augment or None

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        return self.images, self.targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Input float32 (C, H, W) and target int64, () or (H, W), without augmentation."""
        return self.preprocess.normalise(self.images[index][None])[0], self.targets[index].long()

    def batch_of(self, indices: Tensor, epoch_seed: int) -> tuple[Tensor, Tensor]:
        """Inputs float32 (N, C, H, W) and targets int64, (N,) or (N, H, W), of int64 indices (N,)."""
        images, targets = self.images.index_select(0, indices), self.targets.index_select(0, indices)
        if self.augment is not None:
            u = uniforms(epoch_seed, indices)
            if targets.ndim == 1:
                images, _ = self.augment(images, None, u)
            else:
                images, masks = self.augment(images, targets, u)
                targets = targets if masks is None else masks
        return self.preprocess.normalise(images), targets.to(torch.int64)
