"""The statistics of a comparison, against printed tables and against what luck alone does."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.report.statistics import corrected, half_width, paired, quantile, seeds_needed, two_sided

# Student's t, two-sided 5 % and 1 %, as printed in every statistics book
TABLE = {1: (12.706, 63.657), 2: (4.303, 9.925), 3: (3.182, 5.841), 4: (2.776, 4.604), 5: (2.571, 4.032),
         9: (2.262, 3.250), 10: (2.228, 3.169), 30: (2.042, 2.750), 120: (1.980, 2.617)}  # fmt: skip


@pytest.mark.parametrize("freedom", TABLE)
def test_the_quantiles_are_those_of_the_printed_table(freedom: int) -> None:
    five, one = TABLE[freedom]
    assert quantile(0.05, freedom) == pytest.approx(five, abs=5.1e-4)
    assert quantile(0.01, freedom) == pytest.approx(one, abs=5.1e-4)
    assert two_sided(five, freedom) == pytest.approx(0.05, abs=1e-4)
    assert two_sided(0.0, freedom) == pytest.approx(1)


def test_the_interval_of_a_mean_is_the_textbooks() -> None:
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.303 / 3**0.5, abs=1e-3)
    assert half_width([1.0]) is None
    assert half_width([1.0, float("nan")]) is None


def test_a_paired_test_needs_three_seeds_and_a_spread() -> None:
    assert paired([0.1, 0.2]) is None
    assert paired([0.1, 0.2, float("inf")]) is None
    assert paired([1.0, 2.0, 3.0]) == pytest.approx(0.0742, abs=1e-4)  # t = 3.464 with 2 degrees of freedom
    assert paired([0.0, 0.0, 0.0]) == 1
    assert paired([0.01, 0.01, 0.01]) == 0.25  # no spread is no certainty: 2 / 2**3
    assert paired([0.3, 0.3 + 1e-14, 0.3]) == 0.25


def test_holm_multiplies_the_least_p_by_the_number_of_pairs() -> None:
    assert corrected([0.04], 2) == [0.04]
    assert corrected([0.02, 0.001, 0.9], 4) == pytest.approx([0.1, 0.006, 1.0])
    assert corrected([0.01, 0.0101, 0.01], 4) == pytest.approx([0.06, 0.06, 0.06])  # never less than a smaller p's


@pytest.mark.parametrize("settings", [2, 4, 8])
def test_settings_that_are_all_the_same_seldom_have_a_best(settings: int) -> None:
    generator, wrong = np.random.default_rng(0), 0
    for _ in range(300):
        values = generator.normal(size=(settings, 5))
        best = values.mean(1).argmax()
        ps = [paired((values[n] - values[best]).tolist()) for n in range(settings) if n != best]
        wrong += min(corrected([p for p in ps if p is not None], settings)) <= 0.05
    assert wrong <= 300 * 0.08


def test_the_seeds_that_would_be_needed() -> None:
    assert paired([1.0, 2.0, 3.0]) > 0.05  # type: ignore[operator]
    assert seeds_needed([1.0, 2.0, 3.0], 1) == 4
    assert seeds_needed([1.0, -1.0, 0.01], 1) is None
