"""The confusion matrix as a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from trainer.data.base import Data
from trainer.data.loader import Loader
from trainer.evaluation import Evaluator
from trainer.models import MLP
from trainer.records import Panel
from trainer.tasks import Classification, Segmentation, Supervised, matrix
from trainer.tasks.matrix import confusion_picture
from trainer.tracking.panels import sheet, smaller
from trainer.update import Precision
from trainer.world import World


def counts_drawn(task: Supervised, model: nn.Module, batch: Any, size: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What an evaluation over batches of that size draws: the counts, the names, and the panel."""
    drawn: list[Any] = []

    def watch(counts: np.ndarray, classes: Any) -> np.ndarray:
        drawn.append((counts.tolist(), list(classes)))
        return confusion_picture(counts, classes)

    monkeypatch.setattr(matrix, "confusion_picture", watch)
    dataset = torch.utils.data.TensorDataset(*batch)
    loader = Loader(dataset, size, shuffle=False)
    found = Evaluator(task, Data(dataset, dataset), loader, Precision(), World("cpu", 1))(model)
    panels = [panel for panel in found.panels if panel.name == "val/confusion"]
    return (*drawn[0], panels[0]) if drawn else panels


@pytest.mark.parametrize("size", [3, 16, 50])
def test_the_matrix_counts_every_sample_however_they_fall_into_batches(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, x, y = MLP(6, 4), torch.randn(50, 6), torch.randint(4, (50,))
    y[:5] = 255
    task = Classification(nn.CrossEntropyLoss(ignore_index=255), ["a", "b", "c", "d"], ignore_index=255)
    counts, names, panel = counts_drawn(task, model, (x, y), size, monkeypatch)
    expected = np.zeros((4, 4), int)
    for true, guess in zip(y[5:].tolist(), model.eval()(x).argmax(1)[5:].tolist(), strict=True):
        expected[true, guess] += 1
    assert (counts, names) == (expected.tolist(), ["a", "b", "c", "d"])
    assert panel.caption == f"{expected.trace()} of 45 right; percent of each true class"


def test_two_classes_of_one_channel_have_a_matrix_and_so_have_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    class Same(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    binary = torch.tensor([[3.0], [3.0], [-3.0]]), torch.tensor([1, 0, 0])
    counts, names, _ = counts_drawn(Classification(nn.BCEWithLogitsLoss()), Same(), binary, 2, monkeypatch)
    assert (counts, names) == ([[1, 1], [0, 1]], ["0", "1"])
    pixels = torch.tensor([[[[3.0, -3.0]]]] * 3), torch.tensor([[[1, 1]]] * 3)
    task = Segmentation(nn.BCEWithLogitsLoss(), 2, ["sea", "land"])
    counts, names, _ = counts_drawn(task, Same(), pixels, 2, monkeypatch)
    assert (counts, names) == ([[0, 0], [3, 3]], ["sea", "land"])


@pytest.mark.parametrize(("classes", "shown"), [(30, True), (31, False)])
def test_more_classes_than_can_be_read_have_no_matrix(
    classes: int, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = torch.zeros(4, 6), torch.tensor([0, 1, 2, 3])
    task = Classification(nn.CrossEntropyLoss())
    assert bool(counts_drawn(task, MLP(6, classes), batch, 4, monkeypatch)) == shown
    assert ("confusion matrix" in task.judge(MLP(6, classes), batch)) == shown
    pixels = Segmentation(nn.CrossEntropyLoss(), classes)
    assert bool(pixels.charts({"confusion": torch.eye(classes, dtype=torch.int64)})) == shown
    assert pixels.charts({"confusion": torch.zeros(classes, classes, dtype=torch.int64)}) == []


def blueness(picture: np.ndarray) -> np.ndarray:
    tint: np.ndarray = np.subtract(picture[..., 2], picture[..., 0], dtype=int)
    return tint


def test_right_answers_are_blue_and_wrong_ones_orange_the_deeper_the_more() -> None:
    def colors(right: int, wrong: int) -> tuple[int, int]:
        tint = blueness(confusion_picture(np.array([[right, wrong], [0, 0]]), "ab"))
        return tint.max(), -tint.min()

    assert colors(10, 0) > (100, 0) and colors(10, 0)[1] <= 5
    assert colors(9, 1)[0] > colors(5, 5)[0] > colors(1, 9)[0]
    assert colors(9, 1)[1] < colors(5, 5)[1] < colors(1, 9)[1]
    assert colors(9_999, 1)[1] > 0


@pytest.mark.parametrize("classes", [2, 5, 10, 17, 30])
@pytest.mark.parametrize("name", ["c", "a name that is longer than anybody would like it to be", "Ärger größer ñ"])
def test_a_matrix_of_any_size_and_names_of_any_length_fits_on_a_screen(classes: int, name: str) -> None:
    counts = np.diag(np.full(classes, 10**9))
    picture = confusion_picture(counts, [f"{name}{n}" for n in range(classes)])
    assert picture.dtype == np.uint8 and max(picture.shape) < 1250
    edge = np.concatenate([picture[:3].ravel(), picture[-3:].ravel(), picture[:, :3].ravel(), picture[:, -3:].ravel()])
    assert (edge == 255).all(), "something runs over the edge"


def test_letters_are_not_made_smaller() -> None:
    panel = Panel("val/confusion", "all", confusion_picture(np.eye(30, dtype=int), ["x"] * 30), drawn=True)
    assert smaller(panel).image.shape == panel.image.shape and sheet([panel]).height > len(panel.image)


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0"), (9999, "9999"), (12_345, "12.3k"), (99_960, "100k"), (999_600, "1.0M"), (4_500_000, "4.5M")],
)
def test_large_counts_are_said_shortly(count: int, said: str) -> None:
    assert matrix._short(count) == said


def test_all_and_nothing_are_said_of_all_and_nothing_alone() -> None:
    assert [matrix._percent(share) for share in (1, 0.9999, 0.5, 0.0001)] == ["100%", "99%", "50%", "<1%"]
