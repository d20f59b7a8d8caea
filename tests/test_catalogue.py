"""Every optimizer and schedule trains, is interrupted and goes on bit for bit: a new file is tested by existing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import catalogue_schedules as schedules
from tests.catalogue import NAMES, PAGE, REFUSED, TOGETHER, build, cut, expected, node_of, page, put_to_the_test
from tests.small import newest
from trainer.errors import ConfigError


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
def test_an_optimizer_trains_and_goes_on_with_the_same_bits(name: str, tmp_path: Path) -> None:
    """Once plainly; once with warm-up, clip, accumulation and averaged weights together."""
    held = put_to_the_test(name, tmp_path)
    assert [column for column, holds in held.items() if not holds] == []


def test_swats_goes_on_with_the_same_bits_after_it_has_switched(tmp_path: Path) -> None:
    """In the catalogue it trains too shortly to switch; with a large eps it does at once."""
    node = node_of("swats") | {"eps": 0.5}
    whole = build(node, folder=tmp_path / "whole", **TOGETHER)
    whole.fit()
    (group,) = whole.update.optimizer.param_groups
    assert group["phase"] == "sgd"
    assert group["sgd_ratio"] != 1
    assert cut(node, tmp_path / "cut", **TOGETHER) == newest(tmp_path / "whole")


@pytest.mark.parametrize("name", REFUSED)
def test_an_optimizer_that_does_not_fit_the_model_is_refused_before_training(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^optimizer: .*{REFUSED[name]}"):
        put_to_the_test(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_page_of_the_optimizers_lists_every_file_with_what_it_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(expected()), "type python -m tests.catalogue"


@pytest.mark.parametrize("name", schedules.FILES)
def test_a_schedule_trains_and_goes_on_with_the_same_bits(name: str, tmp_path: Path) -> None:
    """Once plainly; once with warm-up, clip, accumulation and averaged weights together, stopped at each update."""
    held = schedules.put_to_the_test(name, tmp_path)
    assert [column for column, holds in held.items() if not holds] == []


def test_the_page_of_the_schedules_lists_every_file() -> None:
    made = schedules.page(schedules.expected())
    assert schedules.PAGE.read_text(encoding="utf-8") == made, "type python -m tests.catalogue_schedules"
