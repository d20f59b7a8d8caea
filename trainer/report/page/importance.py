"""How much of what a metric came to goes with each key: a small robust measure for a first look, no proof.

The share of the variance of the metric's *ranks* that one key explains by itself, less what chance would explain:
between the values of the key (eta squared of Kruskal and Wallis' test, (H - k + 1) / (n - k); Tomczak and Tomczak,
2014), or, for numbers of more than `VALUES` values, along them (Spearman's rank correlation, squared). Ranks, so that
one diverged run does not decide; keys one by one, so that what only two of them do together is not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

VALUES = 5  # a number with more of them is taken as a scale, not as a choice


def ranks(values: Sequence[float]) -> np.ndarray:
    """1 for the least; equal values share the mean of their ranks."""
    numbers = np.asarray(values, dtype=np.float64)
    _, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def share(values: Sequence[Any], metric: Sequence[float]) -> dict[str, Any] | None:
    """How much of the metric goes with the values of a key.

    Returns:
        `share` (0 to 1), `how` (`groups` or `scale`) and, of numbers, `correlation` (-1 to 1); None where it cannot be
        said: fewer than three runs, one value, or a value for each run that is no number.
    """
    n = len(values)
    numeric = all(type(value) in (int, float) and np.isfinite(value) for value in values)
    distinct = sorted({str(value) for value in values})
    if n < 3 or len(distinct) < 2 or (not numeric and len(distinct) == n):
        return None
    told = ranks(metric)
    total = float(((told - told.mean()) ** 2).sum())
    if total == 0:
        return {"share": 0.0, "how": "groups"}
    correlation = float(np.corrcoef(ranks(values), told)[0, 1]) if numeric else None
    if correlation is not None and len(distinct) > VALUES:
        raw, used, how = correlation**2, 1, "scale"
    else:
        groups = [told[[str(value) == one for value in values]] for one in distinct]
        raw = sum(len(group) * (group.mean() - told.mean()) ** 2 for group in groups) / total
        used, how = len(groups) - 1, "groups"
    left = n - 1 - used
    adjusted = 1 - (1 - raw) * (n - 1) / left if left > 0 else 0.0
    found = {"share": round(max(0.0, float(adjusted)), 4), "how": how}
    return found if correlation is None else found | {"correlation": round(correlation, 3)}


def importance(keys: Mapping[str, Sequence[Any]], metric: Sequence[float | None]) -> dict[str, Any]:
    """The shares of all keys for one metric, the largest first; runs without a value are left out (`runs`)."""
    some = [(n, value) for n, value in enumerate(metric) if value is not None]
    found = {key: share([values[n] for n, _ in some], [value for _, value in some]) for key, values in keys.items()}
    told = [{"key": key, **one} for key, one in found.items() if one is not None]
    return {"runs": len(some), "keys": sorted(told, key=lambda one: -one["share"])}
