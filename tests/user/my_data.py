"""A user's pictures: made of noise, and changed at random by all three generators when a sample is asked for."""

import os
import random

import numpy as np
import torch
from torch.utils.data import Dataset, TensorDataset

from trainer import Data

DRAWN = os.open("drawn", os.O_WRONLY | os.O_APPEND | os.O_CREAT)  # what came out of the augmentation


class Pictures(Dataset):
    def __init__(self, images, labels, augment):
        self.images, self.labels, self.augment = images, labels, augment

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.images[index]
        if self.augment:
            image = image.flip(-1) if random.random() < 0.5 else image
            image = (np.random.uniform(0.7, 1.3) * image + 0.3 * torch.randn(image.shape)).float()
            os.write(DRAWN, f"{index} {image.sum().item()!r}\n".encode())
        return image, self.labels[index]


def pictures(training, augment, num_workers):
    draw = torch.Generator().manual_seed(0)
    shapes = torch.randn(4, 1, 8, 8, generator=draw)
    true = torch.randint(4, (training + 150,), generator=draw)
    images = 0.3 * shapes[true] + torch.randn(len(true), 1, 8, 8, generator=draw)
    wrong = torch.rand(len(true), generator=draw) < 0.2  # what is learnt by heart makes the validation loss rise
    labels = torch.where(wrong, torch.randint(4, true.shape, generator=draw), true)
    parts = [(images[part], labels[part]) for part in (slice(training), slice(training, None))]
    if augment:
        train, val = Pictures(*parts[0], True), Pictures(*parts[1], False)
    else:
        train, val = TensorDataset(*parts[0]), TensorDataset(*parts[1])
    return Data(train, val, facts={"in_features": 64, "num_classes": 4}, num_workers=num_workers)
