"""Metrics against numbers worked out by hand, and that they add up however the samples are split."""

from __future__ import annotations

import math

import pytest
import torch

from trainer.errors import ConfigError, DataError
from trainer.metrics import (
    MAE,
    R2,
    RMSE,
    Accuracy,
    BitsPerCharacter,
    Confusion,
    LabelAccuracy,
    Metric,
    Scores,
    as_metric,
    predicted,
)

N, C = 23, 4


def example() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    output = torch.randn(N, C, 6, 5, generator=generator)
    target = torch.randint(C, (N, 6, 5), generator=generator)
    target[torch.rand(N, 6, 5, generator=generator) < 0.2] = 255
    return output, target


def logits_for(guesses: list[int], channels: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor([guesses]), channels).movedim(-1, 1).float()


@pytest.mark.parametrize("size", [1, 4, 10, 22])
@pytest.mark.parametrize(
    "metric",
    [
        Accuracy(ignore_index=255),
        Accuracy(2, 255),
        Confusion(C, ignore_index=255),
        BitsPerCharacter(255),
        Scores(ignore_index=255),
        Scores(per_class=True, classes="abcd", ignore_index=255),
    ],
    ids=["top1", "top2", "confusion", "bpc", "scores", "each"],
)
def test_batches_of_any_size_give_the_numbers_of_the_whole_ragged_last_one_too(metric: Metric, size: int) -> None:
    output, target = example()
    whole = metric.sums(output, target)
    parts = [metric.sums(o, t) for o, t in zip(output.split(size), target.split(size), strict=True)]
    total = torch.stack(parts).sum(0)
    assert total.dtype == whole.dtype and total.dtype in (torch.int64, torch.float64)
    if total.dtype == torch.int64:
        assert torch.equal(total, whole) and metric.values(total) == metric.values(whole)
    assert metric.values(total) == pytest.approx(metric.values(whole), rel=1e-12)
    assert set(metric.values(whole)) == set(metric.measures)


def test_accuracy_is_the_share_of_right_answers() -> None:
    output = torch.tensor([[0.1, 0.9, 0.0], [0.8, 0.1, 0.2], [0.3, 0.2, 0.1], [0.5, 0.4, 0.3]])
    target = torch.tensor([1, 2, 0, 2])
    assert Accuracy().values(Accuracy().sums(output, target)) == {"accuracy": 0.5}
    assert Accuracy(2).values(Accuracy(2).sums(output, target)) == {"top2": 0.75}
    assert Accuracy(3).values(Accuracy(3).sums(output, target)) == {"top3": 1.0}
    assert Accuracy(ignore_index=2).sums(output, target).tolist() == [2, 2]
    assert Accuracy(ignore_index=0).sums(output, target).tolist() == [1, 3]


def test_more_than_the_classes_there_are_is_an_error_of_k() -> None:
    with pytest.raises(ValueError, match=r"^k: 4 .*\(4, 3\)"):
        Accuracy(4).sums(torch.zeros(4, 3), torch.zeros(4))
    with pytest.raises(ValueError, match="^k: 2 "):
        Accuracy(2).sums(torch.zeros(4), torch.zeros(4))
    with pytest.raises(ValueError, match="^k: 0 "):
        Accuracy(0)


def test_one_channel_predicts_the_second_class_above_zero() -> None:
    output, target = torch.tensor([[-1.0, 0.0, 0.5]]), torch.tensor([[0, 1, 1]])
    assert predicted(output, target).tolist() == [[0, 0, 1]]
    assert predicted(output.unsqueeze(1), target).tolist() == [[0, 0, 1]]
    confusion = Confusion(1, ["ship"])
    assert confusion.sums(output, target.float()).tolist() == [[1, 0], [1, 1]]
    assert confusion.classes == ("background", "ship")
    assert Confusion(2).sums(output, target).tolist() == [[1, 0], [1, 1]]


def test_confusion_gives_the_measures_worked_out_by_hand() -> None:
    confusion = Confusion(3, ["sea", "land", "lake"])
    total = confusion.sums(logits_for([0, 0, 1, 1, 1, 2], 3), torch.tensor([[0, 0, 0, 1, 1, 1]]))
    assert total.tolist() == [[2, 1, 0], [0, 2, 1], [0, 0, 0]]
    assert confusion.values(total) == pytest.approx(
        {
            "iou/sea": 2 / 3, "iou/land": 2 / 4, "iou/lake": 0.0, "miou": (2 / 3 + 1 / 2) / 3,
            "dice": (4 / 5 + 4 / 6) / 3, "accuracy": 4 / 6,
        }
    )  # fmt: skip


def test_a_class_neither_there_nor_predicted_is_left_out_of_the_means() -> None:
    confusion = Confusion(4)
    values = confusion.values(confusion.sums(logits_for([0, 0, 1], 4), torch.tensor([[0, 1, 1]])))
    assert values == pytest.approx({"iou/0": 0.5, "iou/1": 0.5, "miou": 0.5, "dice": 2 / 3, "accuracy": 2 / 3})
    assert set(values) < set(confusion.measures)


def test_what_is_ignored_is_counted_nowhere_whatever_its_label() -> None:
    for label in (255, -100, -1, 1):
        confusion = Confusion(3, ignore_index=label)
        target = torch.tensor([[0, label, 2, label]])
        for guess in range(3):
            total = confusion.sums(logits_for([0, guess, 2, guess], 3), target)
            assert total.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_an_evaluation_that_holds_nothing_has_no_values_rather_than_nan() -> None:
    output, target = torch.zeros(1, 3, 4), torch.full((1, 4), 255)
    for metric in (Accuracy(ignore_index=255), Confusion(3, ignore_index=255), BitsPerCharacter(255)):
        assert metric.values(metric.sums(output, target)) == {}


@pytest.mark.parametrize("wrong", [3, 7, -2])
@pytest.mark.parametrize("guess", [0, 1, 2])
def test_a_target_that_is_no_class_is_told_with_its_value(wrong: int, guess: int) -> None:
    with pytest.raises(DataError, match=f"targets hold {wrong}, but there are 3 classes, 0 to 2 .*255 is left out"):
        Confusion(3, ignore_index=255).sums(logits_for([0, guess], 3), torch.tensor([[255, wrong]]))


def test_uint8_targets_do_not_overflow() -> None:
    confusion = Confusion(100)
    total = confusion.sums(logits_for([98, 99], 100), torch.tensor([[99, 99]], dtype=torch.uint8))
    assert total[99, 98] == total[99, 99] == 1


def test_an_output_of_more_channels_than_classes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^model: it gives 4 channels .*num_classes=3"):
        Confusion(3).sums(torch.zeros(1, 4, 2), torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("classes", "told"), [(["a"], "classes: 1 name"), (["a", "b", "a"], "classes: a name comes twice")]
)
def test_class_names_must_be_as_many_as_classes_and_different(classes: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=f"^{told}"):
        Confusion(3, classes)
    with pytest.raises(ValueError, match="^num_classes: 0"):
        Confusion(0)


def test_bits_per_character_is_the_mean_negative_log2_of_the_true_symbols_probability() -> None:
    output = torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]]).log()
    metric = BitsPerCharacter()
    assert metric.values(metric.sums(output, torch.tensor([0, 2]))) == pytest.approx({"bpc": (1 + 3) / 2})
    uniform = metric.sums(torch.zeros(5, 103).bfloat16(), torch.arange(5))
    assert metric.values(uniform) == pytest.approx({"bpc": math.log2(103)})


@pytest.mark.parametrize("size", [1, 4, 10, 22])
@pytest.mark.parametrize("metric", [MAE(), RMSE(), R2(), LabelAccuracy()], ids=lambda m: type(m).__name__)
def test_numbers_too_measure_the_same_however_they_are_split(metric: Metric, size: int) -> None:
    generator = torch.Generator().manual_seed(2)
    output, target = torch.randn(2, N, 3, generator=generator) + 5
    target = (target > 5).float() if isinstance(metric, LabelAccuracy) else target
    whole = metric.values(metric.sums(output, target))
    parts = [metric.sums(o, t) for o, t in zip(output.split(size), target.split(size), strict=True)]
    assert metric.values(torch.stack(parts).sum(0)) == pytest.approx(whole, rel=1e-12)
    assert set(whole) == set(metric.measures)


def test_errors_of_numbers_are_what_the_formulas_give_by_hand() -> None:
    output, target = torch.tensor([[1.0, 0], [2, 0], [4, 1]]), torch.tensor([[1.0, 3], [3, 3], [2, 3]])
    found = {name: value for m in (MAE(), RMSE(), R2()) for name, value in m.values(m.sums(output, target)).items()}
    # The second number is always 3: it has no variance to explain. Of the first, the targets vary by 2 and 5 is wrong.
    assert found == pytest.approx({"mae": 11 / 6, "rmse": math.sqrt((5 + 9 + 9 + 4) / 6), "r2": 1 - 5 / 2})
    labels = LabelAccuracy()
    answers = labels.sums(torch.tensor([[1.0, -1], [1, 1]]), torch.tensor([[1, 0], [0, 1]]))
    assert labels.values(answers) == {"accuracy": 0.75, "exact": 0.5}
    for metric in (MAE(), RMSE(), R2(), labels):
        assert metric.values(torch.zeros_like(metric.sums(output, target))) == {}


def test_precision_recall_and_f1_are_worked_out_by_hand() -> None:
    output, target = logits_for([0, 0, 1, 1, 1, 2], 4), torch.tensor([[0, 0, 0, 1, 1, 1]])
    each = {0: (2 / 2, 2 / 3, 4 / 5), 1: (2 / 3, 2 / 3, 4 / 6), 2: (0, 0, 0)}  # the fourth is nowhere
    scores = Scores(per_class=True, classes=["sea", "land", "lake", "ice"])
    found = scores.values(scores.sums(output, target))
    for place, name in enumerate(("precision", "recall", "f1")):
        assert found[name] == pytest.approx(sum(numbers[place] for numbers in each.values()) / 3)
        assert [found[f"{name}/{c}"] for c in ("sea", "land", "lake")] == pytest.approx(
            [e[place] for e in each.values()]
        )
    assert "f1/ice" not in found
    one = Scores(positive=1)
    assert one.values(one.sums(output, target)) == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3})
    binary = Scores(positive=1)
    total = binary.sums(torch.tensor([1.0, -1, 1]), torch.tensor([1.0, 1, 0]))
    assert binary.values(total) == {"precision": 0.5, "recall": 0.5, "f1": 0.5}


@pytest.mark.parametrize("wrong", [3, 7, -2])
@pytest.mark.parametrize("left_out", [None, 255])
def test_precision_tells_a_target_that_is_no_class(wrong: int, left_out: int | None) -> None:
    with pytest.raises(DataError, match=f"targets hold {wrong}, but there are 3 classes"):
        Scores(ignore_index=left_out).sums(logits_for([0, 1], 3), torch.tensor([[0, wrong]]))


class Outsider:
    """A metric as torchmetrics has them."""

    def __init__(self, higher_is_better: bool | None, mapping: bool = False) -> None:
        self.higher_is_better, self.mapping = higher_is_better, mapping
        self.right = self.count = 0

    def update(self, output: torch.Tensor, target: torch.Tensor) -> None:
        self.right += int((output.argmax(1) == target).sum())
        self.count += len(target)

    def compute(self) -> object:
        share = torch.tensor(self.right / self.count)
        return {"share": share, "both": torch.stack((share, 1 - share))} if self.mapping else share

    def reset(self) -> None:
        self.right = self.count = 0


def test_a_metric_with_update_compute_and_reset_takes_the_place_of_one_of_ours() -> None:
    output, target = torch.eye(3), torch.tensor([0, 1, 0])
    for higher, better in ((True, "max"), (False, "min"), (None, "max")):
        metric = as_metric("own", Outsider(higher))
        assert metric.measures == {"own": better}
        for _ in range(2):  # nothing is left of the evaluation before
            total = sum(metric.sums(o, t) for o, t in zip(output.split(2), target.split(2), strict=True))
            assert metric.values(total) == {"own": pytest.approx(2 / 3)}  # type: ignore[arg-type]
            assert metric.metric.count == 0  # type: ignore[attr-defined]
    many = as_metric("own", Outsider(True, mapping=True))
    found = many.values(many.sums(output, target))
    assert found == pytest.approx({"own/share": 2 / 3, "own/both/0": 2 / 3, "own/both/1": 1 / 3})
    with pytest.raises(ConfigError, match="^metrics: own is a dict, and no metric: .*update, compute and reset"):
        as_metric("own", {})
