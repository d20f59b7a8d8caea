"""Tasks: the loss and the sums of a batch, the metrics of an evaluation, and what is shown of it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainer.data.images import Preprocess
from trainer.errors import ConfigError, DataError
from trainer.losses import Dice, DiceCE, Focal
from trainer.metrics import Accuracy
from trainer.models import CNN, MLP, Transformer, UNet
from trainer.tasks import Classification, LanguageModel, Segmentation, Supervised, Task
from trainer.tasks.pictures import picture

CE, BCE = nn.CrossEntropyLoss, nn.BCEWithLogitsLoss


class Says(nn.Module):
    """A model that gives the same whatever it sees."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> Any:
        return self.output


def logits(classes: list[Any], count: int) -> Tensor:
    """(N, C, ...) that says these classes (N, ...)."""
    return nn.functional.one_hot(torch.tensor(classes), count).movedim(-1, 1) * 9.0


def evaluate(task: Task, model: nn.Module, batches: list[Any]) -> dict[str, float]:
    totals: dict[str, Tensor] = {}
    with torch.no_grad():
        for batch in batches:
            for name, value in task.judge(model.eval(), batch).items():
                totals[name] = totals[name] + value if name in totals else value
    return task.summarise(totals)


def split(batch: tuple[Tensor, Tensor], size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(batch[0].split(size), batch[1].split(size), strict=True))


def cases() -> dict[str, tuple[Task, nn.Module, tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    pictures, labels = torch.randn(11, 1, 8, 8), torch.randint(3, (11,))
    masks, texts = torch.randint(3, (11, 8, 8)), torch.randint(10, (11, 7))
    return {
        "classification": (Classification(CE()), CNN(1, 3, (4, 8)), (pictures, labels)),
        "binary classification": (Classification(BCE()), CNN(1, 1, (4, 8)), (pictures, labels.clamp_max(1))),
        "segmentation": (Segmentation(DiceCE(), 3), UNet(1, 3, (4, 8)), (pictures, masks)),
        "binary segmentation": (Segmentation(BCE(), 2), UNet(1, 1, (4, 8)), (pictures, masks.clamp_max(1))),
        "language": (LanguageModel(CE()), Transformer(10, 7, 8, 1, 2), (texts, texts.roll(-1, 1))),
        "regression": (Supervised(nn.MSELoss()), MLP(64, 2), (pictures, torch.randn(11, 2))),
    }


@pytest.mark.parametrize("name", cases())
def test_an_evaluation_gives_the_same_however_the_samples_fall_into_batches(name: str) -> None:
    task, model, batch = cases()[name]
    whole = evaluate(task, model, [batch])
    assert set(whole) == set(task.measures)
    with torch.no_grad():
        assert whole["loss"] == pytest.approx(task.loss(model.eval(), batch).item(), rel=1e-6)
    for size in (1, 3, 4, 10):
        assert evaluate(task, model, split(batch, size)) == pytest.approx(whole, rel=1e-5)
        counted = {key: v for key, v in evaluate(task, model, split(batch, size)).items() if key not in ("loss", "bpc")}
        assert counted == {key: v for key, v in whole.items() if key in counted}


@pytest.mark.parametrize("name", cases())
def test_the_loss_is_one_number_with_slopes_and_the_sums_are_float64_or_int64_without(name: str) -> None:
    task, model, batch = cases()[name]
    loss = task.loss(model, batch)
    assert loss.ndim == 0
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    for value in task.judge(model, batch).values():
        assert value.dtype in (torch.float64, torch.int64) and not value.requires_grad


def test_a_task_of_ones_own_needs_only_a_loss() -> None:
    class Own(Task):
        def loss(self, model: nn.Module, batch: Any) -> Tensor:
            return (model(batch["x"]) - batch["y"]).abs().mean()

    model = Says(torch.tensor([0.0]))
    batches = [{"x": torch.zeros(n, 1), "y": torch.full((n, 1), y)} for n, y in ((3, 1.0), (1, 5.0))]
    assert evaluate(Own(), model, batches) == {"loss": 2.0}
    assert Own().panels(model, batches[0], ["a"]) == []
    assert Own.measures == {"loss": "min"}
    with pytest.raises(NotImplementedError, match="Task has no loss"):
        Task().loss(model, batches[0])


def test_the_default_summary_is_the_mean_of_every_pair_and_leaves_out_what_was_never_counted() -> None:
    totals = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([0, 0]), "c": torch.ones(3)}
    assert Task().summarise(totals) == {"a": 0.75}


def test_classification_measures_accuracy_and_its_opposite() -> None:
    task = Classification(CE(), metrics={"second": Accuracy(2)})
    model = Says(torch.tensor([[2.0, 1, 0], [2, 1, 0], [0, 1, 2], [2, 0, 1]]))
    found = evaluate(task, model, [(torch.zeros(4, 5), torch.tensor([0, 1, 2, 0]))])
    assert found["accuracy"] == 0.75 and found["error"] == 0.25 and found["top2"] == 1
    assert task.measures == {"loss": "min", "accuracy": "max", "error": "min", "top2": "max"}


def test_segmentation_measures_overlap_and_each_class_by_name() -> None:
    task = Segmentation(CE(), 3, ["sea", "land", "lake"])
    found = evaluate(task, Says(logits([[[0, 0, 1, 1]]], 3)), [(torch.zeros(1), torch.tensor([[[0, 1, 1, 1]]]))])
    assert {key: found[key] for key in found if key != "loss"} == pytest.approx(
        {"iou/sea": 1 / 2, "iou/land": 2 / 3, "miou": 7 / 12, "dice": (2 / 3 + 4 / 5) / 2, "accuracy": 3 / 4}
    )
    assert task.measures == {
        "loss": "min", "miou": "max", "dice": "max", "accuracy": "max",
        "iou/sea": "max", "iou/land": "max", "iou/lake": "max",
    }  # fmt: skip


def test_language_measures_bits_per_character_and_accuracy() -> None:
    task, output = LanguageModel(CE(ignore_index=9), ignore_index=9), torch.zeros(2, 3, 8)
    output[:, :, 0] += 1e-6
    found = evaluate(task, Says(output), [(torch.zeros(2, 3), torch.tensor([[0, 1, 9], [2, 0, 9]]))])
    assert found == pytest.approx({"loss": np.log(8), "bpc": 3.0, "accuracy": 0.5}, rel=1e-5)
    assert task.measures == {"loss": "min", "bpc": "min", "accuracy": "max"}
    assert task.panels(Says(output), (torch.zeros(2, 3), torch.zeros(2, 3)), ["a", "b"]) == []


@pytest.mark.parametrize("criterion", [BCE(), Dice(), DiceCE(), Focal(alpha=0.25)], ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("kind", [torch.uint8, torch.int64, torch.float32])
def test_one_channel_means_two_classes_told_apart_at_zero(criterion: nn.Module, kind: torch.dtype) -> None:
    task = Segmentation(criterion, 2, ["other", "ship"])
    output = torch.tensor([[[[4.0, -4.0], [4.0, -4.0]]]], requires_grad=True)
    batch = torch.zeros(1, 1, 2, 2), torch.tensor([[[1, 0], [0, 0]]]).to(kind)
    found = evaluate(task, Says(output), [batch])
    assert found["iou/ship"] == 1 / 2 and found["iou/other"] == 2 / 3
    loss = task.loss(Says(output), batch)
    torch.testing.assert_close(loss, criterion(output[:, 0], batch[1].float()))


@pytest.mark.parametrize("wrap", [lambda x: (x, 1), lambda x: [x], lambda x: {"out": x, "aux": 0}])
def test_a_model_may_return_a_tuple_or_a_dictionary_with_out(wrap: Any) -> None:
    batch = torch.zeros(2, 4), torch.tensor([0, 1])
    output = torch.randn(2, 3)
    torch.testing.assert_close(Classification(CE()).loss(Says(wrap(output)), batch), CE()(output, batch[1]))


@pytest.mark.parametrize(("output", "told"), [({"logits": 1}, "a dictionary of 'logits'"), (None, "NoneType")])
def test_what_is_no_tensor_is_told(output: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=f"^model: it returns {told}"):
        Classification(CE()).loss(Says(output), (torch.zeros(2, 4), torch.tensor([0, 1])))


@pytest.mark.parametrize(
    ("task", "output", "target"),
    [
        (Classification(CE()), (4, 3), (5,)),
        (Classification(CE()), (4, 3), (4, 1)),
        (Classification(CE()), (4,), (4,)),
        (Segmentation(CE(), 3), (4, 3, 8, 8), (4, 8, 9)),
        (Segmentation(CE(), 3), (4, 3, 8, 8), (4, 1, 8, 8)),
        (Segmentation(BCE(), 2), (4, 1, 8, 8), (4, 1, 8, 8)),
        (LanguageModel(CE()), (4, 8, 10), (4, 9)),
        (LanguageModel(CE()), (4, 10), (4,)),
    ],
)
def test_an_output_that_does_not_fit_the_target_is_told_with_both_shapes(
    task: Task, output: tuple[int, ...], target: tuple[int, ...]
) -> None:
    batch = torch.zeros(4, 2), torch.zeros(target, dtype=torch.int64)
    for act in (task.loss, task.judge):
        with pytest.raises(ConfigError, match=f"^model: .*{re.escape(str(output))}.*{re.escape(str(target))}"):
            act(Says(torch.zeros(output)), batch)


@pytest.mark.parametrize("task", [Segmentation(CE(), 3), Segmentation(DiceCE(), 3), Segmentation(Focal(), 3)])
@pytest.mark.parametrize("wrong", [3, 255])
def test_a_label_that_is_no_class_is_told_with_its_value(task: Task, wrong: int) -> None:
    batch = torch.zeros(1, 1, 2, 2), torch.tensor([[[0, wrong], [1, 2]]])
    for act in (task.loss, task.judge):
        with pytest.raises(DataError, match=f"^data: targets hold {wrong}, but there are 3 classes, 0 to 2"):
            act(Says(torch.zeros(1, 3, 2, 2)), batch)


def test_a_mask_of_0_and_255_is_told_by_the_evaluation_of_a_binary_model() -> None:
    batch = torch.zeros(1, 1, 1, 2), torch.tensor([[[0, 255]]], dtype=torch.uint8)
    with pytest.raises(DataError, match="targets hold 255, but there are 2 classes"):
        Segmentation(BCE(), 2).judge(Says(torch.zeros(1, 1, 1, 2)), batch)


@pytest.mark.parametrize(
    "task",
    [Classification(nn.BCEWithLogitsLoss(), classes=("a", "b", "c")), Segmentation(nn.BCEWithLogitsLoss(), 3)],
)
def test_a_model_of_one_channel_is_refused_where_the_data_has_more_than_two_classes(task: Task) -> None:
    with pytest.raises(ConfigError, match="it gives one channel.*the data has 3; give it 3 channels"):
        task.loss(nn.Identity(), (torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4)))


def test_a_fault_of_the_criterion_itself_is_not_blamed_on_the_labels() -> None:
    with pytest.raises(RuntimeError, match="weight tensor should be defined"):
        Classification(CE(weight=torch.ones(7))).loss(Says(torch.zeros(1, 3)), (torch.zeros(1), torch.tensor([0])))


@pytest.mark.parametrize(
    ("criterion", "channels", "told"),
    [
        (
            CE(),
            1,
            "loss: CrossEntropyLoss needs .* two or more channels.* gives .*1.* use loss=bce, or type .model.num_cl",
        ),
        (
            BCE(),
            3,
            "loss: BCEWithLogitsLoss needs .* one channel.* gives .*3.* use loss=cross_entropy, or type .model.num_cl",
        ),
        (CE(reduction="none"), 3, r"loss: .*shape \(2,\).* reduction: mean"),
    ],
)
def test_a_loss_that_does_not_go_with_the_model_is_told(criterion: nn.Module, channels: int, told: str) -> None:
    with pytest.raises(ConfigError, match=f"^{told}"):
        Classification(criterion).loss(Says(torch.zeros(2, channels)), (torch.zeros(2), torch.tensor([0, 1])))


@pytest.mark.parametrize("kind", [torch.uint8, torch.int32])
@pytest.mark.parametrize("name", ["classification", "segmentation", "language"])
def test_class_indices_may_be_integers_of_any_size(name: str, kind: torch.dtype) -> None:
    task, model, (inputs, target) = cases()[name]
    assert evaluate(task, model, [(inputs, target.to(kind))]) == evaluate(task, model, [(inputs, target)])
    torch.testing.assert_close(task.loss(model, (inputs, target.to(kind))), task.loss(model, (inputs, target)))


def test_class_indices_must_be_integers() -> None:
    with pytest.raises(DataError, match=r"^data: targets are torch.float32"):
        Classification(CE()).loss(Says(torch.zeros(2, 3)), (torch.zeros(2), torch.tensor([0.0, 1.0])))


def test_ignored_pixels_count_neither_in_the_loss_nor_in_the_metrics() -> None:
    task = Segmentation(CE(ignore_index=255), 2, ignore_index=255)
    target = torch.tensor([[[0, 1, 255, 255]]])
    found = [
        evaluate(task, Says(logits([[[0, 1, a, b]]], 2)), [(torch.zeros(1), target)]) for a in (0, 1) for b in (0, 1)
    ]
    assert all(f == found[0] for f in found) and found[0]["miou"] == 1


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Segmentation(CE(), 3, ignore_index=255), "ignore_index: 255, but .* -100; set loss.ignore_index=255"),
        (lambda: Segmentation(BCE(), 2, ignore_index=255), "ignore_index: 255, but .* loss=focal"),
        (lambda: Segmentation(CE(), 3, ["a", "b"]), "classes: 2 names"),
        (lambda: Segmentation(CE(), 3, colors=[(0, 0, 0)]), "colors: 1 colors for num_classes=3"),
        (lambda: Segmentation(CE(), 3, metrics={"own": Accuracy()}), "metrics: own gives accuracy"),
        (lambda: Classification(CE(), metrics={"loss": Accuracy(2)}), "metrics: loss gives loss"),
        (lambda: Classification(CE(), metrics={"a": Accuracy(2), "b": Accuracy(2)}), "metrics: b gives top2"),
    ],
)
def test_what_does_not_fit_together_is_told_when_the_task_is_made(make: Any, told: str) -> None:
    with pytest.raises(ValueError, match=f"^{told}"):
        make()


# ------------------------------------------------------------------------------------------------------------- panels


def test_segmentation_shows_the_picture_as_it_was_with_both_masks() -> None:
    pixels = torch.randint(256, (2, 3, 4, 5), dtype=torch.uint8)
    preprocess = Preprocess((4, 5), [0.4, 0.5, 0.6], [0.2, 0.2, 0.3])
    colors = [[0, 0, 255], [0, 255, 0], [9, 9, 9]]
    task = Segmentation(CE(), 3, ["sea", "land", "lake"], colors, preprocess)
    guess = torch.randint(3, (2, 4, 5))
    true = guess.clone()
    true[1, 0, 0] = (true[1, 0, 0] + 1) % 3
    panels = task.panels(Says(logits(guess.tolist(), 3)), (preprocess.normalise(pixels), true), ["a.png", "b.png"])
    for i, (panel, sample) in enumerate(zip(panels, ["a.png", "b.png"], strict=True)):
        assert (panel.name, panel.sample) == ("val/examples", sample)
        assert panel.image.dtype == np.uint8 and (panel.image == pixels[i].permute(1, 2, 0).numpy()).all()
        assert list(panel.masks) == ["true", "pred", "error"]
        assert (panel.masks["error"] == (true[i] != guess[i]).numpy()).all()
        assert list(panel.legends["error"]) == ["right", "wrong"]
        assert panel.masks["true"].dtype == panel.masks["pred"].dtype == np.uint8
        assert (panel.masks["true"] == true[i].numpy()).all() and (panel.masks["pred"] == guess[i].numpy()).all()
        assert panel.classes == ("sea", "land", "lake")
        assert panel.colors == ((0, 0, 255), (0, 255, 0), (9, 9, 9))
    assert panels[0].caption == "a.png  IoU 1.00, 0.0% wrong"
    assert re.fullmatch(r"b\.png  IoU 0\.[89]\d, 5\.0% wrong", panels[1].caption)


def test_ignored_pixels_are_shown_as_a_class_of_their_own() -> None:
    task = Segmentation(Focal(ignore_index=255), 2, ["a", "b"], [(1, 1, 1), (2, 2, 2)], ignore_index=255)
    batch = torch.zeros(2, 1, 1, 2), torch.tensor([[[1, 255]], [[255, 255]]])
    first, second = task.panels(Says(torch.tensor([[[[3.0, 3.0]]]] * 2)), batch, ["x", "y"])
    assert first.masks["true"].tolist() == [[1, 2]] and first.masks["pred"].tolist() == [[1, 1]]
    assert first.classes == ("a", "b", "ignore") and first.colors == ((1, 1, 1), (2, 2, 2), (127, 127, 127))
    assert first.masks["error"].tolist() == [[0, 2]] and list(first.legends["error"]) == ["right", "wrong", "ignore"]
    assert first.legends["error"]["ignore"] == first.colors[2]
    assert first.caption == "x  IoU 1.00, 0.0% wrong" and second.caption == "y"


def test_a_class_has_the_same_color_whatever_else_is_shown() -> None:
    def colors(count: int, **more: Any) -> tuple[Any, ...]:
        task = Segmentation(Focal(ignore_index=more.get("ignore_index")), count, **more)
        batch = torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64)
        return task.panels(Says(torch.zeros(1, count, 2, 2)), batch, ["a"])[0].colors

    few, many = colors(3), colors(12)
    assert few == many[:3] and len(set(many)) == 12
    assert colors(3, ignore_index=255) == (*few, (127, 127, 127))
    assert colors(2, colors=[(1, 2, 3), (4, 5, 6)]) == ((1, 2, 3), (4, 5, 6))


def test_classification_shows_what_was_predicted_and_how_surely() -> None:
    batch = torch.zeros(2, 1, 4, 4), torch.tensor([0, 2])
    output = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1]]).log()
    first, second = Classification(CE()).panels(Says(output), batch, ["s1", "s2"])
    assert first.caption == "s1  true 0, pred 0 0.70" and second.caption == "s2  true 2, pred 1 0.60"
    assert first.right and second.right is False
    assert first.masks == {} and (first.name, first.sample) == ("val/examples", "s1")
    named = Classification(CE(), ["cat", "dog", "cow"]).panels(Says(output), batch, ["s1", "s2"])
    assert named[1].caption == "s2  true cow, pred dog 0.60"
    binary = Classification(BCE(), ["no", "yes"])
    one = binary.panels(Says(torch.logit(torch.tensor([[0.2], [0.9]]))), (batch[0], batch[1].clamp_max(1)), ["p", "q"])
    assert [panel.caption for panel in one] == ["p  true no, pred no 0.80", "q  true yes, pred yes 0.90"]


@pytest.mark.parametrize(("channels", "shape"), [(1, (2, 2)), (2, (2, 2)), (3, (2, 2, 3)), (4, (2, 2, 3))])
def test_without_a_preprocess_a_picture_is_stretched_over_the_range(channels: int, shape: tuple[int, ...]) -> None:
    pixels = torch.zeros(2, channels, 2, 2)
    pixels[0, 0] = torch.tensor([[-1.0, 0.0], [0.5, 1.0]])
    if channels > 1:
        pixels[0, 1:] = -1
    lively, flat = Classification(CE()).panels(Says(torch.zeros(2, 3)), (pixels, torch.tensor([0, 1])), ["a", "b"])
    assert lively.image.shape == flat.image.shape == shape and lively.image.dtype == np.uint8
    assert lively.image.reshape(4, -1)[:, 0].tolist() == [0, 128, 191, 255]
    assert not flat.image.any()


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_bytes_and_numbers_from_0_to_1_are_shown_as_they_are(channels: int) -> None:
    told = torch.randint(10, 240, (channels, 5, 6), dtype=torch.uint8)
    seen = told[0].numpy() if channels < 3 else told[:3].permute(1, 2, 0).numpy()
    shares = told.float() / 255
    for pixels in (told, shares, shares.double(), shares.half()):
        shown = picture(pixels)
        assert shown.dtype == np.uint8 and shown.flags.c_contiguous
        np.testing.assert_array_equal(shown, seen)
    assert abs(picture(shares.bfloat16()).astype(int) - seen).max() <= 1
    assert set(picture(told > 99).flat) == {0, 255}


def test_what_is_not_finite_is_black_and_leaves_the_rest_as_it_is() -> None:
    pixels = torch.tensor([[[float("nan"), float("inf"), -1.0, 1.0]]])
    assert picture(pixels).tolist() == [[0, 0, 0, 255]]
    assert not picture(torch.full((1, 2, 2), float("nan"))).any()


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_classified_picture_is_shown_as_it_was_before_the_preprocessing(kind: torch.dtype) -> None:
    pixels = torch.randint(256, (2, 3, 4, 5), dtype=torch.uint8)
    preprocess = Preprocess((4, 5), [0.4, 0.5, 0.6], [0.2, 0.2, 0.3])
    batch = preprocess.normalise(pixels).to(kind), torch.tensor([0, 1])
    panels = Classification(CE(), preprocess=preprocess).panels(Says(torch.zeros(2, 3, dtype=kind)), batch, ["a", "b"])
    for panel, was in zip(panels, pixels, strict=True):
        least = 0 if kind == torch.float32 else 2
        assert abs(panel.image.astype(int) - was.permute(1, 2, 0).numpy()).max() <= least


def test_a_sample_that_is_left_out_is_neither_right_nor_wrong() -> None:
    task = Classification(CE(ignore_index=-1), ignore_index=-1)
    panels = task.panels(Says(torch.zeros(2, 3)), (torch.zeros(2, 1, 4, 4), torch.tensor([-1, 0])), ["a", "b"])
    assert [panel.right for panel in panels] == [None, True]


@pytest.mark.parametrize("shape", [(2, 64), (2, 4, 4), (2, 1, 4, 4, 4)])
def test_what_is_no_picture_is_not_shown(shape: tuple[int, ...]) -> None:
    batch = torch.zeros(shape), torch.tensor([0, 1])
    assert Classification(CE()).panels(Says(torch.zeros(2, 3)), batch, ["a", "b"]) == []


def test_more_classes_than_a_byte_holds_are_not_shown() -> None:
    batch = torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64)
    assert Segmentation(CE(), 256).panels(Says(torch.zeros(1, 256, 2, 2)), batch, ["a"]) == []


def test_to_moves_the_criterion_the_metrics_and_tensors_and_gives_the_task_back() -> None:
    class Weighed(nn.Module):
        measures = {"own": "max"}  # noqa: RUF012

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.ones(3))

    own: Any = Weighed()
    task = Classification(CE(weight=torch.ones(3)), metrics={"own": own})
    task.shift = torch.ones(2)  # type: ignore[attr-defined]
    assert task.to(torch.device("meta")) is task
    assert task.criterion.weight.is_meta and own.weight.is_meta  # type: ignore[attr-defined]
    assert task.shift.is_meta and task.metrics["own"] is own  # type: ignore[attr-defined]
