"""Augmentation is a function of (epoch seed, index) alone, and moves a mask with its picture."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from trainer.data.augment import DRAWS, Augment, uniforms
from trainer.data.base import BatchSource
from trainer.data.images import Preprocess
from trainer.data.memory import Memory

ALL = Augment(flip=True, rotate=True, crop=0.4, jitter=0.3)


def memory(augment: Augment | None, count: int = 40, side: int = 16, bands: int = 3) -> Memory:
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, bands, side, side), dtype=torch.uint8, generator=g)
    masks = torch.randint(0, 5, (count, side, side), dtype=torch.uint8, generator=g)
    return Memory(
        images, masks, [str(i) for i in range(count)], Preprocess((side, side), [0.5] * bands, [0.2] * bands), augment
    )


def test_uniforms_are_even_and_unrelated() -> None:
    u = torch.cat([uniforms(seed, torch.arange(2000)) for seed in range(5)]).double()
    assert u.shape == (10000, DRAWS) and u.min() >= 0 and u.max() < 1
    assert (u.mean(0) - 0.5).abs().max() < 0.01 and (u.std(0) - 12**-0.5).abs().max() < 0.01
    assert (torch.corrcoef(u.T) - torch.eye(DRAWS)).abs().max() < 0.04
    shifted = torch.corrcoef(torch.stack([u[:-1, 0], u[1:, 0]]))[0, 1]
    assert shifted.abs() < 0.04 and len(u.unique()) > 0.99 * u.numel()


def test_uniforms_of_a_sample_do_not_depend_on_its_batch() -> None:
    whole = uniforms(3, torch.arange(50))
    assert torch.equal(uniforms(3, torch.tensor([41, 7])), whole[[41, 7]])
    assert not torch.equal(uniforms(4, torch.arange(50)), whole)


@pytest.mark.parametrize("bands", [1, 3])
def test_a_sample_comes_out_bit_for_bit_the_same_in_any_batch(bands: int) -> None:
    data = memory(ALL, bands=bands)
    assert isinstance(data, BatchSource)
    whole = data.batch_of(torch.arange(40), 9)
    for indices in (torch.tensor([5]), torch.tensor([31, 5, 2]), torch.randperm(40)):
        images, masks = data.batch_of(indices, 9)
        assert torch.equal(images, whole[0][indices]) and torch.equal(masks, whole[1][indices])
    assert not torch.equal(data.batch_of(torch.arange(40), 10)[0], whole[0])


def test_batches_leave_the_stored_pixels_alone() -> None:
    data = memory(ALL)
    before = data.images.clone(), data.targets.clone()
    data.batch_of(torch.arange(40), 1)
    assert torch.equal(data.images, before[0]) and torch.equal(data.targets, before[1])


@pytest.mark.parametrize(("flip", "rotate", "kinds"), [(True, False, 2), (False, True, 4), (True, True, 8)])
def test_picture_and_mask_take_the_same_orientation_and_all_of_them_occur(flip: bool, rotate: bool, kinds: int) -> None:
    plan = torch.arange(9, dtype=torch.uint8).view(3, 3)
    images, masks = plan.expand(400, 1, 3, 3).clone(), plan.expand(400, 3, 3).clone()
    turned, moved = Augment(flip, rotate)(images, masks, uniforms(0, torch.arange(400)))
    assert moved is not None and torch.equal(turned[:, 0], moved)
    square = plan.numpy()
    orientations = {np.rot90(m, k).tobytes() for m, k in itertools.product((square, square[:, ::-1]), range(4))}
    found = [m.tobytes() for m in moved.numpy()]
    assert set(found) <= orientations and len(set(found)) == kinds
    assert min(found.count(kind) for kind in set(found)) > 400 / kinds / 2


def test_pictures_that_are_not_square_keep_their_shape() -> None:
    images = torch.arange(6, dtype=torch.uint8).view(1, 1, 2, 3).expand(200, 1, 2, 3).clone()
    turned, _ = Augment(rotate=True)(images, None, uniforms(0, torch.arange(200)))
    assert turned.shape == (200, 1, 2, 3)
    assert {tuple(x.flatten().tolist()) for x in turned} == {(0, 1, 2, 3, 4, 5), (5, 4, 3, 2, 1, 0)}


def test_a_crop_shows_the_same_part_of_picture_and_mask() -> None:
    blocks = torch.zeros(64, 64, dtype=torch.uint8)
    blocks[10:40, 20:50] = 1
    images, masks = (blocks * 200).expand(100, 1, 64, 64).clone(), blocks.expand(100, 64, 64).clone()
    zoomed, moved = Augment(crop=0.5)(images, masks, uniforms(1, torch.arange(100)))
    assert moved is not None and moved.dtype == torch.uint8 and moved.max() == 1
    same = (zoomed[:, 0] > 100) == (moved == 1)
    assert same.float().mean() > 0.995
    areas = moved.float().sum(dim=(1, 2))
    assert areas.max() > 1.5 * blocks.sum() and zoomed.min() >= 0 and zoomed.max() < 200.01


def test_a_crop_of_nothing_changes_nothing() -> None:
    images = torch.randint(0, 256, (4, 3, 8, 6), dtype=torch.uint8)
    u = torch.full((4, DRAWS), 0.3)
    u[:, 2] = 0
    zoomed, _ = Augment(crop=0.5)(images, None, u)
    assert (zoomed - images).abs().max() < 1e-3


def test_jitter_changes_brightness_and_contrast_within_its_range() -> None:
    images = torch.full((300, 1, 4, 4), 100, dtype=torch.uint8)
    shaded, _ = Augment(jitter=0.2)(images, None, uniforms(0, torch.arange(300)))
    assert 79.9 < shaded.min() < 84 and 116 < shaded.max() < 120.1
    images[:, :, :2], images[:, :, 2:] = 80, 120
    u = torch.full((300, DRAWS), 0.5)
    u[:, 6] = 1.0
    shaded, _ = Augment(jitter=0.5)(images, None, u)
    assert shaded[0, 0, :, 0].tolist() == pytest.approx([70, 70, 130, 130])


def test_reading_one_sample_never_augments() -> None:
    augmented, plain = memory(ALL), memory(None)
    x, y = augmented[3]
    assert torch.equal(x, plain[3][0]) and torch.equal(y, plain[3][1]) and y.dtype == torch.int64
    images, masks = plain.batch_of(torch.tensor([3]), 5)
    assert torch.equal(images[0], x) and torch.equal(masks[0], y)


def test_labels_stay_with_their_pictures() -> None:
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 1, 4, 4)
    data = Memory(images, torch.arange(10), list("abcdefghij"), Preprocess((4, 4), [0.0], [1.0]), Augment(flip=True))
    x, y = data.batch_of(torch.tensor([7, 2]), 0)
    assert y.tolist() == [7, 2] and (x[:, 0, 0, 0] * 255).round().tolist() == [7, 2]


def test_a_new_normalisation_is_used_at_once() -> None:
    data = memory(None)
    before = data.batch_of(torch.tensor([0]), 0)[0]
    data.preprocess.load_state_dict({"size": [16, 16], "mean": [0.0] * 3, "std": [1.0] * 3})
    assert torch.allclose(data.batch_of(torch.tensor([0]), 0)[0], before * 0.2 + 0.5, atol=1e-6)


def test_arguments_out_of_range_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="crop: 1 must be at least 0 and less than 1"):
        Augment(crop=1)
    with pytest.raises(ValueError, match="jitter: -1 must be from 0 to 1"):
        Augment(jitter=-1)
    with pytest.raises(ValueError, match="names: 2 must be as many"):
        Memory(torch.zeros(3, 1, 2, 2), torch.zeros(3), ["a", "b"], Preprocess((2, 2), [0.0], [1.0]))


def test_what_is_switched_on_is_told() -> None:
    assert str(Augment()) == "none" and not Augment()
    assert str(Augment(flip=True, crop=0.2)) == "flip, crop 0.2" and Augment(jitter=0.1)
