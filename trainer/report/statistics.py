"""Whether a difference between two settings is more than luck, from a few seeds: Student's t and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence

LEVEL = 0.05  # how often a difference that is only luck may be called a difference
LEAST = 3  # common seeds below which no test is made: two differences cannot tell their own spread


def two_sided(t: float, freedom: int) -> float:
    """The probability that Student's t with that many degrees of freedom is at least as far from 0 as `t`.

    The finite sums for whole degrees of freedom (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4).
    """
    if math.isinf(t):
        return 0.0
    angle = math.atan(abs(t) / math.sqrt(freedom))
    cosine, odd = math.cos(angle), freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for n in range(odd, freedom - 1 + (1 - odd), 2):
        total += term
        term *= cosine * cosine * (n + 1) / (n + 2)
    inside = math.sin(angle) * total
    return min(1.0, max(0.0, 1 - (2 / math.pi * (angle + inside) if odd else inside)))


def quantile(level: float, freedom: int) -> float:
    """The t that is exceeded, on both sides together, with the probability `level`."""
    low, high = 0.0, 1.0
    while two_sided(high, freedom) > level:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided(middle, freedom) > level else (low, middle)
    return high


def mean(values: Sequence[float]) -> float:
    """Not finite where a value is not."""
    return sum(values) / len(values)


def half_width(values: Sequence[float]) -> float | None:
    """Half the 95 % confidence interval of the mean by Student's t; None for fewer than two values."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    return quantile(LEVEL, len(values) - 1) * deviation(values) / math.sqrt(len(values))


def deviation(values: Sequence[float]) -> float:
    """The sample standard deviation, of two values or more."""
    middle = mean(values)
    return math.sqrt(sum((value - middle) ** 2 for value in values) / (len(values) - 1))


def paired(differences: Sequence[float]) -> float | None:
    """The two-sided p of "on average there is no difference"; None for fewer seeds than LEAST, or what is not finite.

    `differences` holds one number a seed: both settings have seen the same data order and start there, so what a seed
    does to both of them cancels out.

    It is the paired t-test. An exact sign-flip test assumes less, but with n seeds it finds no p below 2 / 2**n: 5
    seeds could never tell, however far two settings lie apart, nor could 8 where several settings are compared. If the
    setting makes no difference, the differences are as often positive as negative, and for such ones the t-test hardly
    errs more often than it says, also with few of them (Efron 1969, Student's t-test under symmetry conditions). Where
    it would err is a coarse metric that differs by the same amount for every seed: no spread is no certainty, and
    there the sign-flip bound holds.
    """
    n = len(differences)
    if n < LEAST or not all(map(math.isfinite, differences)):
        return None
    middle, spread = mean(differences), deviation(differences)
    if spread <= 1e-9 * abs(middle) or spread == 0:
        return 2 / 2**n if middle else 1.0
    return two_sided(middle / spread * math.sqrt(n), n - 1)


def corrected(ps: Sequence[float], settings: int) -> list[float]:
    """Holm's correction for the tests of one setting, found to be the best of `settings`, against others (Holm 1979).

    The best was picked after looking at the results, so every pair of settings counts as a test, not only those with
    the best. Counted as `settings - 1` tests, 4 settings that are all the same have a "best one" in 7 of 100 sweeps, 8
    in 10 of 100; so counted, in 3.
    """
    tests, found, floor = settings * (settings - 1) // 2, [0.0] * len(ps), 0.0
    for rank, n in enumerate(sorted(range(len(ps)), key=lambda n: ps[n])):
        floor = max(floor, min(1.0, (tests - rank) * ps[n]))
        found[n] = floor
    return found


def seeds_needed(differences: Sequence[float], tests: int, most: int = 100) -> int | None:
    """How many seeds would show a difference, were it and its spread what they are now; None for more than `most`."""
    middle, spread = abs(mean(differences)), deviation(differences)
    for n in range(len(differences) + 1, most + 1):
        if spread and two_sided(middle / spread * math.sqrt(n), n - 1) * tests <= LEVEL:
            return n
    return None
