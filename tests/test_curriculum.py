"""The easiest samples come first, an epoch stays as long as ever, and its order can be begun anywhere."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from tests.small import Recorder, StopAt, make_trainer, newest, points, recorder_of, timeless
from tests.test_loader import Noisy, Whole, plain
from trainer.accounts import plan
from trainer.data.base import Data
from trainer.data.curriculum import Curriculum, Order
from trainer.data.loader import Loader
from trainer.data.scores import auto, boundary, contrast
from trainer.errors import ConfigError

COUNT, EPOCHS = 11, 6
HARD = [4, 8, 0, 10, 3, 7, 1, 9, 5, 2, 6]  # by index; the easiest is 2, the hardest 3


def hardness(sample: Any) -> float:
    """Of a sample whose first number is its index."""
    return HARD[int(torch.as_tensor(sample[0]).reshape(-1)[0])]


def numbered(count: int = COUNT) -> TensorDataset:
    return TensorDataset(torch.arange(count))


def curriculum(**changes: Any) -> Curriculum:
    return Curriculum(**{"start": "30%", "length": "4epochs", "score": hardness, **changes})


def order_of(count: int = COUNT, epochs: int = EPOCHS, dataset: Any = None, **changes: Any) -> Order:
    found = curriculum(**changes).over(dataset or numbered(count), epochs, 4)
    assert found is not None
    return found


def by_difficulty(most: int = COUNT) -> list[int]:
    return sorted(range(COUNT), key=HARD.__getitem__)[:most]


# ------------------------------------------------------------------------------------------------ share and order


@pytest.mark.parametrize("p", [0.5, 1, 2, 3])
def test_the_share_grows_from_start_to_all_as_the_formula_of_the_paper_says(p: float) -> None:
    order = order_of(p=p, start="20%", length="10epochs", epochs=20)
    for epoch in range(20):
        expected = min(1.0, (epoch * (1 - 0.2**p) / 10 + 0.2**p) ** (1 / p))
        assert math.isclose(order.share(epoch), expected)
    assert order.share(9) < order.share(10) == order.share(19) == 1
    assert order_of(p=p, start="20%", length="10.5epochs", epochs=20).share(10) < 1


@pytest.mark.parametrize(("length", "epochs"), [("50%", 3), ("3epochs", 3), ("12steps", 3), ("1.5epochs", 1.5)])
def test_a_length_is_counted_in_epochs_of_the_run(length: str, epochs: float) -> None:
    assert order_of(length=length).until == epochs


@pytest.mark.parametrize("strict", [False, True], ids=["shuffled", "strict"])
def test_an_epoch_has_all_its_samples_and_repeats_none_before_the_whole_easy_part_was_seen(strict: bool) -> None:
    order, sizes = order_of(strict=strict), []
    for epoch in range(EPOCHS):
        found, size = order.indices(5, epoch).tolist(), order.size(epoch)
        assert len(found) == COUNT
        for start in range(0, COUNT, size):
            part = found[start : start + size]
            assert len(set(part)) == len(part)
            assert set(part) <= set(by_difficulty(size))
        assert set(found) == set(by_difficulty(size))
        sizes.append(size)
    assert sizes == [round(order.share(epoch) * COUNT) for epoch in range(EPOCHS)] == [3, 6, 8, 10, 11, 11]


def test_a_strict_pass_goes_from_easy_to_hard() -> None:
    order = order_of(strict=True)
    assert order.indices(5, 0).tolist() == (by_difficulty(3) * 4)[:COUNT]
    assert order.indices(5, EPOCHS - 1).tolist() == by_difficulty()


def test_the_easy_part_is_shuffled_anew_in_each_pass_each_epoch_and_each_seed() -> None:
    order = order_of(start="60%", length="1000epochs", count=COUNT)
    found = {str(order.indices(seed, epoch)[:7].tolist()) for seed in (5, 6) for epoch in range(4)}
    assert len(found) == 8
    passes = order_of(start="30%", length="1000epochs").indices(5, 0).reshape(-1)[:9].reshape(3, 3).tolist()
    assert len(set(map(tuple, passes))) > 1


def test_once_all_are_drawn_from_the_batches_are_those_of_a_run_without_a_curriculum() -> None:
    options: dict[str, Any] = {"batch_size": 3, "seed": 5, "epochs": EPOCHS}
    loader, without = Loader(Noisy(), curriculum=curriculum(), **options), Loader(Noisy(), **options)
    for epoch in range(EPOCHS):
        same = plain(loader.batches(epoch)) == plain(without.batches(epoch))
        assert same == (epoch >= 4)


def test_at_least_one_sample_is_drawn_from() -> None:
    order = order_of(start="0.001%")
    assert order.indices(5, 0).tolist() == [2] * COUNT


def made(kind: str, **changes: Any) -> Loader:
    dataset: Any = {"tensors": numbered(), "source": Whole(), "subset": Subset(numbered(), range(COUNT))}.get(
        kind, Noisy()
    )
    options = {"batch_size": 3, "seed": 5, "workers": 2 if kind == "2 workers" else 0, "epochs": EPOCHS, **changes}
    return Loader(dataset, curriculum=curriculum(), **options)


@pytest.mark.parametrize("kind", ["tensors", "source", "subset", "0 workers", "2 workers"])
def test_an_epoch_begun_at_any_batch_is_the_tail_of_the_whole_epoch(kind: str) -> None:
    loader = made(kind)
    for epoch in (0, 2, 5) if kind != "2 workers" else (0,):
        whole = plain(loader.batches(epoch))
        assert len(whole) == loader.batches_per_epoch == 4
        for start in range(5) if kind != "2 workers" else (1, 3):
            torch.manual_seed(start)
            assert plain(made(kind).batches(epoch, start)) == whole[start:]


def test_the_number_of_workers_changes_nothing() -> None:
    none, two = made("0 workers"), made("2 workers")
    for epoch, start in [(0, 0), (1, 2), (5, 0)]:
        assert plain(none.batches(epoch, start)) == plain(two.batches(epoch, start))


@pytest.mark.parametrize("kind", ["0 workers", "source"])
def test_a_sample_that_comes_again_in_an_epoch_is_augmented_in_another_way(kind: str) -> None:
    loader = made(kind)
    assert loader.curriculum is not None
    seen: dict[int, list[float]] = {}
    for batch in loader.batches(0):  # batches of 3 from 3 samples: each batch is a pass
        indices, draws = (batch[0], batch[1]) if kind == "source" else (batch[1], batch[0][:, 1])
        for index, draw in zip(indices.tolist(), draws.tolist(), strict=True):
            seen.setdefault(index, []).append(draw)
    assert set(seen) == set(by_difficulty(3))
    for draws in seen.values():
        assert len(set(draws)) == len(draws) >= 3


# ------------------------------------------------------------------------------------------------ scores


def test_samples_of_one_score_are_ranked_at_random_and_always_the_same() -> None:
    """A folder of classes is sorted by class: the first of them must not be all that is drawn from."""
    order = order_of(count=100, score=lambda sample: int(sample[0] >= 50))
    assert sorted(order.ranked[:50].tolist()) == list(range(50))
    assert order.ranked[:50].tolist() != list(range(50))
    assert any(index >= 25 for index in order.ranked[:10].tolist())
    again = order_of(count=100, score=lambda sample: int(sample[0] >= 50))
    assert torch.equal(order.ranked, again.ranked)


def test_scoring_depends_on_no_seed_and_leaves_the_generators_alone() -> None:
    rankings = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        rankings.append(order_of(dataset=Noisy(), score=lambda sample: sample[0][1:].sum()).ranked.tolist())
        assert torch.equal(torch.get_rng_state(), states[0])
        assert np.random.get_state()[1].tolist() == states[1]
        assert random.getstate() == states[2]
    assert rankings[0] == rankings[1]


class Own(Noisy):
    def difficulty(self, index: int) -> float:
        return HARD[index]


class Listed(Noisy):
    difficulties = HARD


@pytest.mark.parametrize("dataset", [Own(), Listed()], ids=["method", "sequence"])
def test_a_dataset_may_know_the_difficulties_itself_and_a_named_score_goes_before(dataset: Any) -> None:
    assert order_of(dataset=dataset, score="auto").ranked.tolist() == by_difficulty()
    other = order_of(dataset=dataset, score=lambda sample: sample[1])
    assert other.ranked.tolist() == list(range(COUNT))


def test_a_score_is_named_by_its_word_or_its_path_or_is_given() -> None:
    path = f"{__name__}.hardness"
    assert order_of(score=path).ranked.tolist() == order_of().ranked.tolist() == by_difficulty()
    texts = [(torch.zeros(n), 0) for n in (3, 1, 2)]
    assert order_of(dataset=texts, score="length").ranked.tolist() == [1, 2, 0]


def test_boundary_is_the_share_of_pixels_at_an_edge_and_contrast_puts_faint_pictures_last() -> None:
    mask = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [0, 2, 2, 2]])
    assert boundary((None, mask)) == (3 + 3) / 12
    assert boundary((None, torch.zeros(4, 4, dtype=torch.int64))) == 0
    strong = torch.tensor([[[0.0, 1.0]]])
    assert contrast((strong, 0)) == -0.5
    assert contrast((0.1 * strong, 0)) > contrast((strong, 0))
    assert auto((strong, mask)) == boundary((strong, mask))
    assert auto((strong, 0)) == auto([strong]) == contrast((strong, 0))


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": 0.2}, r"start: 0.2 has no unit; write start=20%"),
        ({"start": 20}, r"start: 20 has no unit; write start=20%"),
        ({"start": "0%"}, r"start: 0% must be more than 0% and at most 100%"),
        ({"start": "120%"}, r"start: 120% must be more than 0% and at most 100%"),
        ({"start": "2epochs"}, r"start: 2epochs is not a share; write start=20%"),
        ({"length": 10}, r"length: 10 has no unit; write length=10steps or length=10epochs"),
        ({"length": "10min"}, r"length: 10min: the order of the data cannot follow a clock; use epochs, steps or %"),
        ({"length": "never"}, r"length: never: it never ends; use .* curriculum=none"),
        ({"p": 0}, r"p: 0 must be more than 0"),
        ({"p": math.inf}, r"p: inf must be more than 0"),
        ({"score": "bondary"}, r"score: 'bondary' is not one of auto, boundary, contrast, length; did you mean bound"),
        ({"score": 3}, r"score: 3 is not one of .*my_module.my_score"),
        ({"score": "nowhere.hard"}, r"score: nowhere.hard cannot be imported: there is no module nowhere"),
        ({"score": "math.hypott"}, r"score: math.hypott is not there: math has no hypott; did you mean math.hypot"),
    ],
    ids=str,
)
def test_a_wrong_value_is_told_by_its_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        curriculum(**changes)


def scored(values: list[Any], names: list[str] | None = None) -> Order:
    dataset: Any = numbered(len(values))
    dataset.names = names
    return order_of(dataset=dataset, score=lambda sample: values[int(sample[0])])


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "3", torch.zeros(2), 1j], ids=str)
def test_a_score_that_is_no_finite_number_is_told_with_its_sample(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^curriculum.score: of training sample 2 \(c\): "):
        _ = scored([0.5, np.float32(1), value], ["a", "b", "c"]).ranked
    with pytest.raises(ConfigError, match=r"^curriculum.score: of training sample 2: "):
        _ = scored([True, torch.tensor(3.0), value]).ranked


@pytest.mark.parametrize("score", ["boundary", "contrast", "auto"])
def test_a_score_that_does_not_fit_the_samples_is_told(score: str) -> None:
    with pytest.raises(ConfigError, match=f"^curriculum.score: of training sample 0: {score}: .*curriculum.score"):
        _ = order_of(dataset=TensorDataset(torch.arange(4), torch.arange(4)), score=score).ranked


def test_scores_that_are_all_the_same_are_refused_and_a_single_sample_is_not() -> None:
    with pytest.raises(ConfigError, match=r"^curriculum.score: each of the 3 training samples has the score 2,"):
        _ = scored([2, 2.0, 2]).ranked
    assert scored([2]).ranked.tolist() == [0]


def test_difficulties_of_another_number_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^curriculum: the dataset has 12 samples and 11 difficulties"):
        _ = order_of(dataset=Listed(12), score="auto").ranked


def test_a_stream_is_refused() -> None:
    class Stream(IterableDataset[Any]):
        def __len__(self) -> int:
            return 5

        def __iter__(self) -> Iterator[int]:
            yield from range(5)

    with pytest.raises(ConfigError, match=r"^curriculum: the training set is an IterableDataset, .*curriculum=none"):
        Loader(Stream(), 2, curriculum=Curriculum())
    Loader(Stream(), 2, curriculum=Curriculum(start="100%"))  # off


# ------------------------------------------------------------------------------------------------ in a run


class Faint(Dataset[Any]):
    """The points with noise, and asked for how often."""

    def __init__(self) -> None:
        self.points, self.asked = points(), 0

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> Any:
        self.asked += 1
        x, y = self.points[index]
        return x + 0.1 * torch.randn(3), y


def size(sample: Any) -> float:
    return float(sample[0].abs().sum())


def trainer_of(folder: Path | None, workers: int = 0, **changes: Any) -> Any:
    easy = Curriculum(start="30%", length="3epochs", score=size)
    data = changes.pop("data", Data(Faint(), points(5, seed=2), num_workers=workers))
    return make_trainer(**{"curriculum": easy, "folder": folder, "data": data, "epochs": 4, **changes})


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("accumulate", [1, 3, "full"])
def test_a_run_that_is_stopped_after_each_update_ends_with_the_same_bits(
    accumulate: Any, workers: int, tmp_path: Path
) -> None:
    whole = trainer_of(tmp_path / "whole", accumulate=accumulate)
    whole.fit()
    rows, updates = [], whole.steps
    for done in range(1, updates + 1):
        last = done == updates
        task = {} if last else {"task": StopAt(1)}
        trainer = trainer_of(tmp_path / "cut", workers, accumulate=accumulate, resume="auto", **task)
        assert trainer.fit().exit_code == (0 if last else 143)
        assert trainer.progress.step == done
        rows += recorder_of(trainer).got
    assert newest(tmp_path / "cut") == newest(tmp_path / "whole")
    assert timeless(rows) == timeless(recorder_of(whole).got)


def test_the_plan_and_the_rows_say_the_share_and_the_number_of_steps_is_as_ever() -> None:
    trainer = trainer_of(None, log_every="1steps")
    assert trainer.steps == trainer_of(None, curriculum=None).steps == 16
    assert plan(trainer).lines["curriculum"] == "from the easiest 30 % to all samples over 3 epochs"
    trainer.fit()
    shares = [row["train/curriculum"] for row in recorder_of(trainer).got]
    assert shares == [trainer.loader.curriculum.share(epoch) for epoch in range(4) for _ in range(4)]
    assert shares[0] == 0.3
    assert shares[-1] == 1


def test_a_run_that_is_too_short_for_all_samples_says_so() -> None:
    assert order_of(epochs=2).words == "from the easiest 30 % to the easiest 56.3 % over 2 epochs"
    assert order_of(epochs=1).words == "from the easiest 30 % to the easiest 30 % over 1 epoch"


@pytest.mark.parametrize("off", [None, Curriculum(start="100%")], ids=["none", "100%"])
def test_a_run_without_a_curriculum_scores_nothing_and_says_nothing_of_it(off: Curriculum | None) -> None:
    trainer = trainer_of(None, curriculum=off)
    assert "curriculum" not in plan(trainer).lines
    trainer.fit()
    assert trainer.data.train.asked == 4 * COUNT + 2  # and two in the rehearsal
    assert not any("train/curriculum" in row for row in recorder_of(trainer).got)


def test_the_samples_are_scored_once_and_before_the_first_step_and_not_to_evaluate() -> None:
    trainer = trainer_of(None)
    trainer.evaluate()
    assert trainer.data.train.asked == 0
    trainer.fit()
    assert trainer.data.train.asked == COUNT + 4 * COUNT + 2


def test_a_wrong_score_ends_the_run_before_its_first_step() -> None:
    recorder = Recorder()
    wrong = Curriculum(score=lambda sample: math.nan)
    with pytest.raises(ConfigError, match=r"^curriculum.score: of training sample 0: nan is not a finite number"):
        trainer_of(None, curriculum=wrong, recorder=recorder).fit()
    assert recorder.calls == []


@pytest.mark.parametrize(
    "other",
    [None, Curriculum("40%", "3epochs", score=size), Curriculum("30%", "2epochs", score=size),
     Curriculum("30%", "3epochs", 3, size), Curriculum("30%", "3epochs", score=size, strict=True),
     Curriculum("30%", "3epochs", score=lambda sample: -size(sample))],
    ids=["none", "start", "length", "p", "strict", "score"],
)  # fmt: skip
def test_going_on_with_another_curriculum_is_told(
    other: Curriculum | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer_of(tmp_path, epochs=1).fit()
    with caplog.at_level(logging.WARNING):
        trainer_of(tmp_path, resume="must")  # more epochs alone change nothing where its length is in epochs
        assert "curriculum" not in caplog.text
        trainer_of(tmp_path, resume="must", curriculum=other)
    assert "curriculum: was from 30 %, 3 epochs, p=2, ranking" in caplog.text
    assert "the order of the data differs from here on" in caplog.text
