"""The hardest samples of an evaluation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset, TensorDataset

from trainer.data.base import Data
from trainer.data.loader import Loader
from trainer.evaluation import Evaluator, Worst
from trainer.records import Panel
from trainer.tasks import Classification, Segmentation, Task
from trainer.update import Precision
from trainer.world import World

CE = nn.CrossEntropyLoss


class Same(nn.Module):
    """Gives what it gets; counts the samples that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.saw = 0

    def forward(self, x: Tensor) -> Tensor:
        self.saw += len(x)
        return x


class Means(Same):
    """One logit for each channel of a picture."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean((2, 3))


def worst(task: Task, model: nn.Module, dataset: Any, size: int = 4) -> list[Panel]:
    loader = Loader(dataset, size, shuffle=False)
    found = Evaluator(task, Data(dataset, dataset), loader, Precision(), World("cpu", 1))(model)
    return [panel for panel in found.panels if panel.name == "val/worst"]


def classified(margins: list[float]) -> TensorDataset:
    """Pictures of class 0 whose logits stand so far above those of class 1; below 0 is wrong."""
    pictures = torch.tensor(margins).view(-1, 1, 1, 1) * torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(-1, -1, 3, 3)
    return TensorDataset(pictures, torch.zeros(len(margins), dtype=torch.int64))


MARGINS = [2.0, -1.0, 0.5, 3.0, -1.0, -4.0, 1.0, -1.0, 0.0, 5.0, -1.0]


@pytest.mark.parametrize("size", [1, 3, 4, 11])
def test_those_of_the_least_likely_truth_are_shown_hardest_first_and_of_equals_the_first(size: int) -> None:
    shown = worst(Classification(CE(), ["cat", "dog"]), Means(), classified(MARGINS), size)
    assert [panel.sample for panel in shown] == ["5", "1", "4", "7"]
    assert shown[0].caption == "5  true cat, pred dog 0.98" and shown[0].right is False
    assert [panel.sample for panel in worst(Classification(CE(), worst=2), Means(), classified(MARGINS), size)] == [
        "5",
        "1",
    ]


def test_an_own_dataset_names_them_and_of_few_samples_all_are_shown() -> None:
    dataset: Any = classified(MARGINS[:3])
    dataset.names = ["a.png", "b.png", "c.png"]
    assert [panel.sample for panel in worst(Classification(CE()), Means(), dataset)] == ["b.png", "c.png", "a.png"]


def test_those_of_the_largest_share_of_wrong_pixels_are_shown_with_all_their_masks() -> None:
    true = torch.zeros(9, 4, 4, dtype=torch.int64)
    guess = true.clone()
    for sample, wrong in enumerate([0, 3, 9, 1, 9, 12, 2, 0, 4]):
        guess[sample].view(-1)[:wrong] = 1
    true[5, 1:] = 255  # the whole sample but a row, which is wrong
    true[3, :] = 255
    dataset = TensorDataset(nn.functional.one_hot(guess, 2).movedim(-1, 1) * 9.0, true)
    task = Segmentation(CE(ignore_index=255), 2, ignore_index=255)
    shown = worst(task, Same(), dataset)
    assert [panel.sample for panel in shown] == ["5", "2", "4", "8"]
    assert shown[1].caption.endswith("56.2% wrong") and list(shown[1].masks) == ["true", "pred", "error"]
    for panel in shown:
        np.testing.assert_array_equal(panel.masks["pred"], guess[int(panel.sample)].numpy())


@pytest.mark.parametrize("criterion", [nn.BCEWithLogitsLoss(), nn.BCELoss()], ids=lambda c: type(c).__name__)
def test_two_classes_of_one_channel_have_worst_samples_too(criterion: nn.Module) -> None:
    chances = torch.tensor([0.9, 0.2, 0.6, 0.99, 0.01])
    outputs = chances if isinstance(criterion, nn.BCELoss) else chances.logit()
    dataset = TensorDataset(outputs.view(-1, 1, 1, 1).expand(-1, 1, 3, 3), torch.tensor([1, 1, 1, 0, 0]))
    assert [panel.sample for panel in worst(Classification(criterion, worst=3), Means(), dataset)] == ["3", "1", "2"]


def test_a_sample_that_is_left_out_is_not_among_them_and_one_without_a_number_is_the_first() -> None:
    dataset = classified(MARGINS)
    dataset.tensors[1][[5, 1]] = 255
    dataset.tensors[0][9] = math.nan
    task = Classification(CE(ignore_index=255), ignore_index=255)
    assert [panel.sample for panel in worst(task, Means(), dataset)] == ["9", "4", "7", "10"]
    dataset.tensors[1][:] = 255
    assert worst(task, Means(), dataset) == []


def test_none_are_shown_where_none_are_wanted_or_nothing_is_a_picture() -> None:
    assert worst(Classification(CE(), worst=0), Means(), classified(MARGINS)) == []
    assert (
        worst(Classification(CE()), Same(), TensorDataset(torch.zeros(5, 2), torch.zeros(5, dtype=torch.int64))) == []
    )
    with pytest.raises(ValueError, match="worst: -1 must be at least 0"):
        Classification(CE(), worst=-1)


def test_the_data_is_read_once_in_a_stream_too() -> None:
    class Once(IterableDataset[tuple[Tensor, Tensor]]):
        def __init__(self) -> None:
            self.inner, self.reads = classified(MARGINS), 0

        def __len__(self) -> int:
            return len(self.inner)

        def __iter__(self) -> Any:
            for n in range(len(self.inner)):
                self.reads += 1
                yield self.inner[n]

    dataset, model = Once(), Means()
    assert [panel.sample for panel in worst(Classification(CE()), model, dataset)] == ["5", "1", "4", "7"]
    assert dataset.reads <= 8 + len(MARGINS), "more than the fixed samples and one pass"
    assert model.saw == 8 + len(MARGINS) + 4


def test_no_more_than_the_worst_is_held_and_none_of_the_batches() -> None:
    found = Worst(2)
    for n in range(5):
        found.look(torch.tensor([n, 0.5, n + 0.5]), (torch.full((3, 4), n), torch.arange(3)))
    assert [indices for indices, _ in found.found] == [[14, 12]]
    assert [hardness for hardness, *_ in found._kept] == [4.5, 4.0]
    for *_, sample in found._kept:
        assert all(part.untyped_storage().nbytes() == part[0].nbytes for part in sample)


def test_samples_of_several_sizes_are_shown_too() -> None:
    found = Worst(3)
    for n in range(4):
        found.look(torch.tensor([float(n)]), (torch.zeros(1, 3, 4 + n, 4), torch.arange(1)))
    assert [(indices, tuple(batch[0].shape)) for indices, batch in found.found] == [
        ([3], (1, 3, 7, 4)), ([2], (1, 3, 6, 4)), ([1], (1, 3, 5, 4)),
    ]  # fmt: skip


def test_an_evaluation_leaves_nothing_of_it_on_the_task() -> None:
    task = Classification(CE())
    before = dict(vars(task))
    worst(task, Means(), classified(MARGINS))
    assert vars(task) == before


def test_a_task_of_ones_own_ranks_samples_by_setting_a_number_for_each() -> None:
    class Own(Task):
        worst = 1

        def loss(self, model: nn.Module, batch: Any) -> Tensor:
            self.hardness = batch[0].flatten(1).sum(1)
            return torch.zeros(())

        def panels(self, model: nn.Module, batch: Any, samples: list[str]) -> list[Panel]:
            return [Panel("val/examples", sample, np.zeros((2, 2), np.uint8)) for sample in samples]

    assert [panel.sample for panel in worst(Own(), Same(), classified(MARGINS))] == ["9"]
