"""Every file of conf/loss: it is made, trains on a batch that fits, and is refused with its own words on all others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from trainer import _hydra
from trainer.errors import ConfigError
from trainer.losses.fit import FORMS, taken_by
from trainer.tasks import Classification, Embedding, MultiLabel, Regression, SequenceToSequence, Task
from trainer.tasks.base import Supervised

FILES = _hydra.options("loss")
N = 6


class Linear(nn.Module):
    """Outputs of a given shape, linear in the input (N, 5), after what the loss wants of them."""

    def __init__(self, *shape: int, last: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.shape, self.last = shape, last or nn.Identity()
        self.weight = nn.Parameter(torch.randn(5, torch.Size(shape).numel()))

    def forward(self, x: Tensor) -> Any:
        return self.last((x @ self.weight).reshape(len(x), *self.shape))


class Corners(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x[:, :2], x[:, :2] + x[:, 2:].exp()), 1)


def inputs(seed: int) -> Tensor:
    return torch.randn(N, 5, generator=torch.Generator().manual_seed(seed))


def criterion_of(file: str) -> nn.Module:
    facts = {"num_classes": 3, "class_counts": (3, 2, 1)}
    made: nn.Module = _hydra.instantiate(OmegaConf.load(_hydra.conf_dir() / f"loss/{file}.yaml"), "loss", **facts)
    return made


def fitting(file: str, form: str, criterion: nn.Module) -> tuple[Task, nn.Module, Any]:
    """A task, a model and a batch of this form."""
    x, y = inputs(1), inputs(2)
    last = nn.Sigmoid() if file == "bce_probability" else None
    if form in ("classes", "binary", "soft"):
        model = Linear(1 if form == "binary" else 3, last=last)
        labels = torch.arange(N) % (2 if form == "binary" else 3)
        return Classification(criterion), model, (x, inputs(3)[:, :3].softmax(1) if form == "soft" else labels)
    if form == "labels":
        return MultiLabel(criterion), Linear(3, last=last), (x, (y[:, :3] > 0).long())
    if form == "boxes":
        return Regression(criterion), Linear(4, last=Corners()), (x, Corners()(y[:, :4]))
    if form == "values":
        wide = 4 if file == "gaussian_nll" else 2
        return Regression(criterion), Linear(wide), (x, y[:, :2].abs().round() if file == "poisson_nll" else y[:, :2])
    if form == "pairs":
        target = torch.tensor([1, 0, 1, 0, 1, 0])
        return Embedding(criterion), Linear(1 if file == "margin_ranking" else 4), ((x, y), target)
    if form == "triplets":
        return Embedding(criterion), Linear(4), (x, y, inputs(3))
    target = torch.tensor([[1, 2, 0]] * 3 + [[2, 0, 0]] * 3)
    return SequenceToSequence(criterion), Linear(7, 3), (x, target)


def evaluate(task: Task, model: nn.Module, batches: list[Any]) -> dict[str, float]:
    totals: dict[str, Tensor] = {}
    with torch.no_grad():
        for batch in batches:
            for name, value in task.judge(model, batch).items():
                totals[name] = totals[name] + value if name in totals else value
    return task.summarise(totals)


def split(batch: Any, size: int) -> list[Any]:
    if isinstance(batch, Tensor):
        return list(batch.split(size))
    return list(zip(*(split(part, size) for part in batch), strict=True))


@pytest.mark.parametrize("file", FILES)
def test_it_is_known_what_a_loss_takes(file: str) -> None:
    assert taken_by(criterion_of(file)) and set(taken_by(criterion_of(file))) <= set(FORMS)


@pytest.mark.parametrize("file", FILES)
def test_a_loss_trains_on_every_form_that_it_takes_and_measures_the_same_however_it_is_split(file: str) -> None:
    for form in taken_by(criterion_of(file)):
        task, model, batch = fitting(file, form, criterion_of(file))
        loss = task.loss(model, batch)
        loss.backward()
        slopes = [p.grad for p in model.parameters()]
        assert loss.ndim == 0 and loss.isfinite()
        assert all(slope is not None and slope.isfinite().all() and slope.any() for slope in slopes)
        whole = evaluate(task, model, [batch])
        assert set(whole) == set(task.measures)
        for size in (1, 4):
            parts = evaluate(task, model, split(batch, size))
            assert parts == pytest.approx(whole, rel=1e-5)
            for name in {"accuracy", "error", "exact"} & set(whole):
                assert parts[name] == whole[name]


@pytest.mark.parametrize("file", FILES)
def test_a_loss_is_refused_with_what_it_needs_and_what_to_type_on_every_form_that_it_does_not_take(file: str) -> None:
    criterion = criterion_of(file)
    for form in set(FORMS) - {*taken_by(criterion), "boxes"}:  # boxes are numbers, which other losses take too
        task, model, batch = fitting(file, form, criterion)
        for act in (task.loss, task.judge):
            with pytest.raises(ConfigError) as caught:
                act(model, batch)
            told = str(caught.value)
            assert (
                told.startswith(f"loss: {type(criterion).__name__} needs ") and f"; use loss={FORMS[form][1]}" in told
            )
            assert told.count(f"({N},") >= 2, "both shapes"


@pytest.mark.parametrize("form", FORMS)
def test_the_loss_that_a_refusal_names_fits(form: str) -> None:
    word = FORMS[form][1]
    task, model, batch = fitting(word, form, criterion_of(word))
    assert task.loss(model, batch).isfinite()


def test_a_loss_of_ones_own_is_asked_whatever_it_is_derived_from() -> None:
    class Own(nn.MSELoss):
        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            return output.mean() + target.sum()

    assert taken_by(Own()) == () and taken_by(nn.functional.mse_loss) == ()
    assert Classification(Own()).loss(Linear(3), (inputs(1), torch.zeros(N, dtype=torch.int64))).isfinite()


def test_a_model_that_gives_logits_is_told_to_take_the_loss_for_logits() -> None:
    task = Classification(nn.BCELoss())
    with pytest.raises(ConfigError, match=r"^loss: BCELoss needs probabilities.* gives -.*use loss=bce"):
        task.loss(Linear(1), (inputs(1), torch.arange(N) % 2))


def test_nll_is_cross_entropy_for_logits_and_for_log_probabilities() -> None:
    batch = inputs(1), torch.arange(N) % 3
    expected = Classification(nn.CrossEntropyLoss()).loss(Linear(3), batch)
    for last in (nn.Identity(), nn.LogSoftmax(1)):
        torch.testing.assert_close(Classification(nn.NLLLoss()).loss(Linear(3, last=last), batch), expected)


def test_labels_are_handed_on_as_each_loss_of_labels_takes_them() -> None:
    x, target = inputs(1), torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0]])
    output = Linear(3)(x)
    indices = torch.tensor([[0, 2, -1], [-1, -1, -1], [1, -1, -1], [0, 1, 2], [2, -1, -1], [0, -1, -1]])
    for loss, given in (
        (nn.MultiLabelMarginLoss(), indices),
        (nn.SoftMarginLoss(), target * 2.0 - 1),
        (nn.BCEWithLogitsLoss(), target.float()),
    ):
        torch.testing.assert_close(MultiLabel(loss).loss(Linear(3), (x, target)), loss(output, given))


def test_regression_takes_means_and_log_variances_rates_and_whole_numbers() -> None:
    x, y = inputs(1), inputs(2)[:, 0]
    out = Linear(2)(x)
    task: Supervised = Regression(nn.GaussianNLLLoss())
    expected = nn.GaussianNLLLoss()(out[:, :1], y[:, None], out[:, 1:].exp())
    torch.testing.assert_close(task.loss(Linear(2), (x, y)), expected)
    assert evaluate(task, Linear(2), [(x, y)])["mae"] == pytest.approx((out[:, 0] - y).abs().mean().item(), rel=1e-5)
    counts = y.abs().round().long()
    rate = Linear(1)(x)[:, 0].exp()
    found = evaluate(Regression(nn.PoissonNLLLoss()), Linear(1), [(x, counts)])
    assert found["mae"] == pytest.approx((rate - counts).abs().mean().item(), rel=1e-5)
    with pytest.raises(ConfigError, match=r"\(6, 3\) does not fit the target of shape \(6, 1\)"):
        Regression(nn.MSELoss()).loss(Linear(3), (x, y))
    with pytest.raises(ConfigError, match=r"^loss: GIoU needs boxes .*\(6, 2\) float32.*\(6, 2\)"):
        Regression(criterion_of("giou")).loss(Linear(2), (x, inputs(2)[:, :2]))


def test_an_embedding_is_right_where_pairs_are_on_their_side_and_positives_are_nearer() -> None:
    a, near, far = (
        torch.tensor([[1.0, 0], [1, 0]]),
        torch.tensor([[2.0, 0.1], [0, 1]]),
        torch.tensor([[-1.0, 0], [1, 0]]),
    )
    same = nn.Identity()
    assert evaluate(Embedding(nn.TripletMarginLoss()), same, [(a, near, far)])["accuracy"] == 0.5
    assert evaluate(Embedding(nn.TripletMarginLoss()), same, [(a[:1], near[:1], far[:1])])["accuracy"] == 1.0
    pair = (a, near), torch.tensor([1, -1])
    assert evaluate(Embedding(nn.CosineEmbeddingLoss()), same, [pair])["accuracy"] == 1.0
    assert evaluate(Embedding(nn.HingeEmbeddingLoss(margin=0.5)), same, [pair])["accuracy"] == 0.5
    scores = (torch.tensor([[2.0], [1.0]]), torch.tensor([[1.0], [3.0]])), torch.tensor([1, 1])
    assert evaluate(Embedding(nn.MarginRankingLoss()), same, [scores])["accuracy"] == 0.5
    with pytest.raises(ConfigError, match=r"^task: embedding needs batches .*\(2, 2\) float32"):
        Embedding(nn.TripletMarginLoss()).loss(same, (a, near))


def test_a_sequence_is_read_without_repetitions_and_blanks_and_its_edits_are_counted() -> None:
    task = SequenceToSequence(nn.CTCLoss())
    places = torch.tensor([[1, 1, 0, 1, 2, 2], [0, 0, 2, 0, 0, 0]])
    output = nn.functional.one_hot(places, 3).float() * 9
    target = torch.tensor([[1, 1, 2, 0], [1, 2, -1, -1]])
    assert [task.read(row) for row in places.tolist()] == [[1, 1, 2], [2]]
    found = evaluate(task, nn.Identity(), [(output, target)])
    assert found["error"] == 1 / 5
    expected = nn.CTCLoss()(
        output.log_softmax(2).transpose(0, 1), target.clamp_min(0), torch.tensor([6, 6]), torch.tensor([3, 2])
    )
    torch.testing.assert_close(task.loss(nn.Identity(), (output, target)), expected)


def test_targets_that_are_probabilities_train_cross_entropy_and_are_measured_by_the_most_probable_class() -> None:
    x, target = inputs(1), inputs(3)[:, :3].softmax(1)
    task = Classification(nn.CrossEntropyLoss())
    torch.testing.assert_close(task.loss(Linear(3), (x, target)), nn.functional.cross_entropy(Linear(3)(x), target))
    right = (Linear(3)(x).argmax(1) == target.argmax(1)).float().mean().item()
    assert evaluate(task, Linear(3), [(x, target)])["accuracy"] == pytest.approx(right)


def test_penalties_are_added_in_training_only_and_spare_biases() -> None:
    model, batch = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)).eval(), (inputs(1), torch.arange(N) % 3)
    plain, task = Classification(nn.CrossEntropyLoss()), Classification(nn.CrossEntropyLoss(), l1=0.1, l2=0.2)
    weight = model[0].weight
    expected = plain.loss(model, batch) + 0.1 * weight.abs().sum() + 0.2 * weight.square().sum()
    torch.testing.assert_close(task.loss(model, batch), expected)
    assert evaluate(task, model, [batch]) == evaluate(plain, model, [batch])
    with pytest.raises(ValueError, match="^l2: -1 "):
        Classification(nn.CrossEntropyLoss(), l2=-1)


def test_soft_margin_gets_labels_of_both_signs_from_two_classes() -> None:
    x, labels = inputs(1), torch.arange(N) % 2
    expected = nn.SoftMarginLoss()(Linear(1)(x)[:, 0], labels * 2.0 - 1)
    torch.testing.assert_close(Classification(nn.SoftMarginLoss()).loss(Linear(1), (x, labels)), expected)
