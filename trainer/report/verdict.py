"""What a comparison came to, in plain words: which setting is best, and whether that is more than luck."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainer.durations import count
from trainer.report.entries import SEED, Entry, short, told
from trainer.report.formats import PLUS_MINUS, numbers, p_value
from trainer.report.keys import TARGET, class_names
from trainer.report.ranking import Section, Standing, differences, is_ahead, is_worse, number
from trainer.report.statistics import LEAST, LEVEL, deviation, mean, quantile, seeds_needed

MORE = "type seed=0,1,2,3,4 with -m"


def verdict(section: Section) -> list[str]:
    """Sentences for below the table of a section."""
    ranked = section.ranked
    if not ranked:
        return ["no run has a result yet"]
    lines = _of_settings(section) if section.seeds else _of_runs(section)
    failed = [entry for entry in section.rest if entry.state in ("failed", "killed")]
    if failed:
        verb = "is" if len(failed) == 1 else "are"
        lines.append(f"{count(len(failed), 'run')} that failed or {'was' if verb == 'is' else 'were'} killed {verb} "
                     "in no mean: a setting that fails with some seeds looks better than it is")  # fmt: skip
    return lines


def name_of(section: Section, one: Standing) -> str:
    """A setting in the words of the table: `optimizer AdamW, lr 0.01`."""
    return ", ".join(f"{section.keys.names[key]} {_value(section, key, one.group.entries[0])}"
                     for key in section.keys.shown if one.group.entries[0].config.get(key) is not None)  # fmt: skip


def _value(section: Section, key: str, entry: Entry) -> str:
    value = entry.config.get(key)
    if key.endswith(TARGET):
        return class_names(each.config.get(key) for each in section.entries)[str(value)]
    return short(key, value)


# ------------------------------------------------------------------------------------------------------ over the seeds


def _of_settings(section: Section) -> list[str]:
    best, others = section.ranked[0], section.ranked[1:]
    name = name_of(section, best) or "the one setting"
    if not others:
        text, *spread = numbers([best.mean, *([best.half_width] if best.half_width is not None else [])])
        ends = f" {PLUS_MINUS} {spread[0]} (95 % interval of the mean)" if spread else ""
        seeds = count(len(best.scores), "seed")
        return [f"{name}: {section.monitor} {text}{ends} over {seeds}; there is nothing to compare it with"]
    tested = [one for one in others if one.versus and one.versus.p is not None]
    if not tested:
        return [f"best so far: {name}; too few seeds to tell whether that is luck: a test needs {LEAST} seeds that "
                f"two settings have in common; {MORE}"]  # fmt: skip
    worse = [one for one in tested if one.versus and is_worse(one.versus, section.maximised)]
    ahead = [one for one in tested if one.versus and is_ahead(one.versus, section.maximised)]
    how = "paired t-test over common seeds, Holm's correction for all pairs"
    if len(worse) == len(others):
        most = max(one.versus.p for one in worse if one.versus and one.versus.p is not None)
        than = "the other" if len(others) == 1 else f"each of the {len(others)} others"
        return [f"best: {name}; better than {than} by more than luck ({p_value(most)} or less; {how})"]
    if worse:
        text = f"better than {len(worse)} of the {len(others)} others by more than luck ({how})"
    elif ahead:
        text = f"but no other setting is worse by more than luck ({how})"
    else:
        text = f"but that may be luck: no other setting is told from it ({how})"
    lines = [f"{name_of(section, one)} is ahead on the seeds that both have; run the missing seeds" for one in ahead]
    rest = [one for one in others if one not in worse and one not in ahead]
    return [f"best on average: {name}; {text}", *lines, *(_open(section, best, rest) if rest else [])]


def _open(section: Section, best: Standing, others: Sequence[Standing]) -> list[str]:
    """How many seeds would tell the best from the nearest that it is not told from."""
    nearest = others[0]
    if not math.isfinite(nearest.mean):
        return []
    found = differences(nearest, best)
    pairs = len(section.ranked) * (len(section.ranked) - 1) // 2
    needed = seeds_needed(found, pairs) if len(found) >= LEAST else None
    name = name_of(section, nearest)
    if len(found) < LEAST:
        return [f"too few common seeds to tell it from {name}; {MORE}"]
    if needed is None:
        return [f"it is not told from {name}, and more seeds would hardly change that"]
    return [f"about {needed} seeds would tell it from {name}, if the difference stays what it is"]


# --------------------------------------------------------------------------------------------------------- single runs


def _of_runs(section: Section) -> list[str]:
    ranked = section.ranked
    if len(ranked) == 1:
        return []
    noise = noise_of(section)
    if noise is not None:
        far = numbers([noise])[0]
        return [f"differences below {far} cannot be told from luck: so far apart lie two seeds of one setting (95 %)"]
    luck = f"the best of {len(ranked)} is also the luckiest of them, and no difference here can be told from luck"
    return [f"one seed each: {luck}; {MORE}"]


def noise_of(section: Section) -> float | None:
    """How far two runs of one setting lie apart by their seed alone, in 95 of 100 cases; None without two of any."""
    settings: dict[tuple[str, ...], dict[str, float]] = {}
    for one in section.ranked:
        entry = one.group.entries[0]
        key = tuple(told(entry.config.get(name)) for name in section.keys.told)
        value = number(entry.best.get(section.monitor))
        if entry.config and math.isfinite(value):
            settings.setdefault(key, {})[str(entry.config.get(SEED))] = value
    several = [list(values.values()) for values in settings.values() if len(values) > 1]
    if not several:
        return None
    freedom = sum(len(values) - 1 for values in several)
    pooled = mean([deviation(values) ** 2 for values in several for _ in values[1:]])
    return quantile(LEVEL, freedom) * math.sqrt(2 * pooled)
