"""Losses against numbers worked out by hand, their slopes, and what is left out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from trainer.losses import BCE, CrossEntropy, Dice, DiceCE, DIoU, Focal, GIoU, Hinge, Jaccard, Tversky

LOSSES = [Dice(), Dice(batch=True), DiceCE(), Focal(), Focal(gamma=0.5), Jaccard(), Tversky()]


def logits_of(*chances: float) -> torch.Tensor:
    """Logits whose softmax is these probabilities, as (1, C)."""
    return torch.tensor([chances]).log()


def example(channels: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(3, channels, 4, 5, generator=generator, dtype=dtype)
    return output, torch.randint(max(channels, 2), (3, 4, 5), generator=generator)


def test_dice_is_what_the_formula_gives_by_hand() -> None:
    # Two pixels, two classes: p(class 0) = 0.8 and 0.4, targets 0 and 1.
    output = torch.stack((logits_of(0.8, 0.2), logits_of(0.4, 0.6)), -1)
    target = torch.tensor([[0, 1]])
    zero = (2 * 0.8 + 1) / (0.8 + 0.4 + 1 + 1)
    one = (2 * 0.6 + 1) / (0.2 + 0.6 + 1 + 1)
    assert Dice()(output, target).item() == pytest.approx(1 - (zero + one) / 2)
    sharp = ((2 * 0.8 + 0.1) / (2.2 + 0.1) + (2 * 0.6 + 0.1) / (1.8 + 0.1)) / 2
    assert Dice(smooth=0.1)(output, target).item() == pytest.approx(1 - sharp)


def test_dice_of_one_channel_is_that_of_the_second_class_alone() -> None:
    output = torch.logit(torch.tensor([[[0.9, 0.3, 0.2]]]))
    expected = 1 - (2 * (0.9 + 0.2) + 1) / (1.4 + 2 + 1)
    assert Dice()(output, torch.tensor([[1, 0, 1]])).item() == pytest.approx(expected)
    assert Dice()(output[:, 0], torch.tensor([[1.0, 0.0, 1.0]])).item() == pytest.approx(expected)


def test_dice_is_the_mean_over_samples_unless_the_batch_is_one_sample() -> None:
    output, target = example(3)
    each = torch.stack([Dice()(output[i : i + 1], target[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(Dice()(output, target), each.mean())
    joined, flat = output.movedim(1, 0).reshape(1, 3, -1), target.reshape(1, -1)
    torch.testing.assert_close(Dice(batch=True)(output, target), Dice()(joined, flat))
    assert Dice(batch=True)(output, target) != Dice()(output, target)


def test_dice_of_a_perfect_answer_is_zero_even_where_classes_are_absent() -> None:
    target = torch.zeros(1, 4, 4, dtype=torch.int64)
    output = F.one_hot(target, 5).movedim(-1, 1) * 100.0
    assert Dice()(output, target).item() == pytest.approx(0, abs=1e-6)


def test_dice_ce_is_the_weighed_sum_of_dice_and_torchs_cross_entropy() -> None:
    output, target = example(3)
    expected = 0.5 * Dice(smooth=2)(output, target) + 3 * F.cross_entropy(output, target)
    torch.testing.assert_close(DiceCE(0.5, 3, smooth=2)(output, target), expected)
    output, target = example(1)
    binary = F.binary_cross_entropy_with_logits(output[:, 0], target.double())
    torch.testing.assert_close(DiceCE()(output, target), Dice()(output, target) + binary)
    torch.testing.assert_close(DiceCE(batch=True)(output, target), Dice(batch=True)(output, target) + binary)


def test_focal_is_what_the_formula_gives_by_hand() -> None:
    output, target = torch.cat((logits_of(0.7, 0.2, 0.1), logits_of(0.3, 0.3, 0.4))), torch.tensor([0, 2])
    easy, hard = 0.3**2 * -math.log(0.7), 0.6**2 * -math.log(0.4)
    assert Focal()(output, target).item() == pytest.approx((easy + hard) / 2)
    assert Focal(alpha=[0.5, 1, 2])(output, target).item() == pytest.approx((0.5 * easy + 2 * hard) / 2)
    assert Focal(gamma=1)(output, target).item() == pytest.approx((0.3 * -math.log(0.7) + 0.6 * -math.log(0.4)) / 2)


def test_focal_of_one_channel_weighs_class_one_by_alpha_and_class_zero_by_the_rest() -> None:
    output, target = torch.logit(torch.tensor([[0.7], [0.4]])), torch.tensor([1, 0])
    expected = (0.25 * 0.3**2 * -math.log(0.7) + 0.75 * 0.4**2 * -math.log(0.6)) / 2
    assert Focal(alpha=0.25)(output, target).item() == pytest.approx(expected)


def test_focal_without_gamma_is_cross_entropy() -> None:
    output, target = example(4)
    torch.testing.assert_close(Focal(gamma=0)(output, target), F.cross_entropy(output, target))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_slopes_are_those_of_small_differences(loss: torch.nn.Module, channels: int) -> None:
    output, target = example(channels)
    target[0, 0] = 255
    loss.ignore_index = 255
    try:
        assert torch.autograd.gradcheck(lambda x: loss(x, target), output.requires_grad_())
    finally:
        loss.ignore_index = None


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("make", [Dice, DiceCE, Focal, Jaccard, Tversky])
def test_what_is_ignored_changes_neither_the_loss_nor_the_slopes(make: type[torch.nn.Module], channels: int) -> None:
    output, target = example(channels)
    target[:, :, 4] = 255
    output.requires_grad_()
    loss = make(ignore_index=255)(output, target)
    loss.backward()
    torch.testing.assert_close(loss, make()(output[..., :4], target[..., :4]))
    assert output.grad is not None
    assert not output.grad[..., 4].any() and output.grad[..., :4].all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("make", [Dice, DiceCE, Focal, Jaccard, Tversky])
def test_a_batch_in_which_all_is_ignored_costs_nothing(make: type[torch.nn.Module], channels: int) -> None:
    output, target = example(channels)
    output.requires_grad_()
    loss = make(ignore_index=9)(output, torch.full_like(target, 9))
    loss.backward()
    assert loss.item() == 0 and output.grad is not None and not output.grad.any()


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_logits_give_finite_losses_and_slopes(loss: torch.nn.Module, size: float) -> None:
    for channels in (1, 3):
        output, target = example(channels, torch.float32)
        output = (output.sign() * size).requires_grad_()
        value = loss(output, target)
        value.backward()
        assert value.isfinite() and output.grad is not None and output.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_half_precision_is_computed_in_float32(loss: torch.nn.Module) -> None:
    output, target = example(3, torch.float32)
    half = output.bfloat16()
    assert loss(half, target).dtype == torch.float32
    torch.testing.assert_close(loss(half, target), loss(half.float(), target))


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_masks_may_be_uint8_and_classification_has_no_pixels(loss: torch.nn.Module) -> None:
    output, target = example(3)
    torch.testing.assert_close(loss(output, target.byte()), loss(output, target))
    assert loss(output[:, :, 0, 0], target[:, 0, 0]).ndim == 0


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_outputs_and_targets_that_do_not_fit_are_told_with_both_shapes(loss: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\).*\(2, 5, 4\)"):
        loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 4))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Dice(smooth=0), "smooth: 0"),
        (lambda: DiceCE(smooth=-1), "smooth: -1"),
        (lambda: DiceCE(dice_weight=-1), "dice_weight: -1"),
        (lambda: DiceCE(0, 0), "dice_weight: "),
        (lambda: Focal(gamma=-1), "gamma: -1"),
        (lambda: Focal(alpha=1.5), "alpha: 1.5"),
        (lambda: Focal(alpha=[1, -1]), "alpha: "),
        (lambda: Focal(alpha=[1, 1])(torch.zeros(1, 3), torch.zeros(1)), "alpha: 2 factors .* 3 channels"),
    ],
)
def test_bad_arguments_are_told_by_name(make, told: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=f"^{told}"):
        make()


def test_focal_moves_its_factors_and_saves_no_state_of_others() -> None:
    assert Focal(alpha=0.25).to(torch.float64).alpha is not None
    assert Focal().state_dict() == {}


def test_tversky_and_jaccard_are_what_the_formulas_give_by_hand_and_tversky_is_both_of_the_others() -> None:
    output = torch.stack((logits_of(0.8, 0.2), logits_of(0.4, 0.6)), -1)
    target = torch.tensor([[0, 1]])
    zero, one = 1.8 / (0.8 + 0.3 * 0.4 + 0.7 * 0.2 + 1), 1.6 / (0.6 + 0.3 * 0.2 + 0.7 * 0.4 + 1)
    assert Tversky()(output, target).item() == pytest.approx(1 - (zero + one) / 2)
    zero, one = 1.8 / (1.2 + 1 - 0.8 + 1), 1.6 / (0.8 + 1 - 0.6 + 1)
    assert Jaccard()(output, target).item() == pytest.approx(1 - (zero + one) / 2)
    output, target = example(3)
    torch.testing.assert_close(Tversky(0.5, 0.5, smooth=0.5)(output, target), Dice()(output, target))
    torch.testing.assert_close(Tversky(1, 1)(output, target), Jaccard()(output, target))


@pytest.mark.parametrize("labels", [[1, 0, 1, 0], [1, -1, 1, -1], [1.0, 0.0, 1.0, 0.0]])
def test_hinge_is_what_the_formula_gives_by_hand_for_labels_of_both_kinds(labels: list[float]) -> None:
    output, target = torch.tensor([2.0, -0.5, -1.0, 0.25]), torch.tensor(labels)
    assert Hinge()(output, target).item() == (0 + 0.5 + 2 + 1.25) / 4
    assert Hinge()(output[:, None], target).item() == Hinge()(output, target).item()
    assert Hinge(squared=True, margin=0.5)(output, target).item() == (0 + 0 + 1.5**2 + 0.75**2) / 4
    assert Hinge(ignore_index=1)(output, target).item() == (0.5 + 1.25) / 2
    assert torch.autograd.gradcheck(lambda x: Hinge()(x, target), output.double().requires_grad_())


# Those that torchvision's tests hold for its own two losses.
@pytest.mark.parametrize(
    ("output", "target", "giou", "diou"),
    [
        ([-1, -1, 1, 1], [-1, -1, 1, 1], 0.0, 0.0),
        ([-1, -1, 1, 1], [0, 0, 1, 1], 0.75, 0.8125),
        ([0, 0, 1, 1], [0, 1, 1, 2], 1.0, 1.2),
        ([0, 0, 1, 1], [1, 1, 2, 2], 1.5, 1.25),
        ([-1, -1, 1, 1], [0, 1, 1, 2], 1 + 1 / 6, 1 + 2.5 / 13),
    ],
)
def test_box_losses_have_the_published_values(output: list[int], target: list[int], giou: float, diou: float) -> None:
    boxes = torch.tensor([output], dtype=torch.float64), torch.tensor([target], dtype=torch.float64)
    assert GIoU()(*boxes).item() == pytest.approx(giou, abs=1e-6)
    assert DIoU()(*boxes).item() == pytest.approx(diou, abs=1e-6)
    assert GIoU()(*reversed(boxes)).item() == pytest.approx(giou, abs=1e-6)


@pytest.mark.parametrize("loss", [GIoU(), DIoU()], ids=lambda loss: type(loss).__name__)
def test_box_losses_have_the_slopes_of_small_differences_and_none_is_nan(loss: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    corner, size = torch.rand(2, 7, 2, generator=generator, dtype=torch.float64).unbind()
    boxes, other = torch.cat((corner, corner + size + 0.1), 1), torch.cat((size, size + corner + 0.1), 1)
    assert torch.autograd.gradcheck(lambda x: loss(x, other), boxes.requires_grad_())
    empty = torch.zeros(2, 4, requires_grad=True)
    loss(empty, torch.zeros(2, 4)).backward()
    assert empty.grad is not None and empty.grad.isfinite().all()
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 4\)"):
        loss(torch.zeros(2, 3), torch.zeros(2, 4))


def test_balanced_weights_let_every_class_weigh_the_same_in_the_whole() -> None:
    counts = (6, 3, 1)
    made = CrossEntropy("balanced", class_counts=counts).weight
    assert made is not None and made.tolist() == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    assert BCE("balanced", class_counts=(6, 3)).pos_weight.tolist() == [2.0]  # type: ignore[union-attr]
    output, target = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 255])
    torch.testing.assert_close(
        CrossEntropy([1, 2, 3], 0.1, ignore_index=255, num_classes=3)(output, target),
        F.cross_entropy(output, target, torch.tensor([1.0, 2, 3]), ignore_index=255, label_smoothing=0.1),
    )
    torch.testing.assert_close(CrossEntropy()(output[:4], target[:4]), F.cross_entropy(output[:4], target[:4]))
    assert CrossEntropy().state_dict() == {} and BCE(3).pos_weight.tolist() == [3.0]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: CrossEntropy("balanced"), r"weight: this data does not tell .*loss.weight=\[1,2"),
        (lambda: CrossEntropy("balanced", class_counts=(3, 0)), "weight: there is no sample of class 1"),
        (lambda: CrossEntropy([1, 2], num_classes=3), "weight: 2 factors, and the data has 3 classes"),
        (lambda: CrossEntropy([1, -2]), "weight: "),
        (lambda: CrossEntropy(label_smoothing=2), "label_smoothing: 2"),
        (lambda: BCE("balanced", class_counts=(1, 2, 3)), "pos_weight: balanced needs two classes, .* 3"),
        (lambda: BCE(-1), "pos_weight: "),
        (lambda: Hinge(0), "margin: 0"),
        (lambda: Tversky(-1), "alpha: -1"),
        (lambda: GIoU(0), "eps: 0"),
    ],
)
def test_bad_weights_and_margins_are_told_by_name(make, told: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=f"^{told}"):
        make()
