"""What the pages in docs/ tell to type has no mistake in it, and their links lead somewhere."""

from __future__ import annotations

import copy
import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainer import _hydra, config, space
from trainer.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
TYPED = ("choosing", "optimizers", "schedules", "losses", "tracking", "dashboards")

# What stands in a page for something of the reader's own, or for a package that the tests do without.
STAND_INS = {
    r"(optimizer|scheduler|loss)=NAME\b": lambda found: f"{found[1]}={_hydra.options(found[1])[0]}",
    r"\bW(?=steps)|\(W-1\)(?=steps)": "4",
    r"\bD(?=steps)": "3",
    r"=1/W\b": "=0.25",
    r"=R\b": "=0.1",
    r"=X\b": "=0.001",
    r"\bhooks=mine\b": "hooks=none",
    r"\bmy_curves\.\w+": "trainer.schedules.one_minus_sqrt",
    r"\bmy_scores\.\w+": "math.prod",
    r"\bmy_losses\.\w+": "torch.nn.MSELoss",
    r"torchmetrics\.CohenKappa, task: multiclass, num_classes: 10": "trainer.metrics.Accuracy",
}
NOT_TYPED = ("sparse=True",)  # Python


def typed(text: str) -> Iterator[tuple[str, str]]:
    """Each command line of `trainer` and `trainer-check` in a page, each override in backticks, and its line."""
    blocks = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    for line in "".join(blocks).splitlines():
        if re.match(r"trainer(-check)? ", line):
            yield line, line
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for paragraph in re.split(r"\n\n|\n(?=[|*#-])|\n(?=\d\.)", prose):
        line = " ".join(paragraph.split())
        for words in re.findall(r"`([^`]+)`", line):
            if re.match(r"trainer(-check)? \S*=|trainer -m |[+~]*[\w@/.]+=\S", words) and words not in NOT_TYPED:
                yield words, line


def jobs(words: str) -> list[list[str]]:
    """The overrides of each run that the words mean; of a sweep the first and the last."""
    for placeholder, value in STAND_INS.items():
        words = re.sub(placeholder, value, words)
    parts = re.sub(r" (--cfg job|lr_find=\w+|\.\.\.)$", "", words)
    every = _hydra.implied([part for part in shlex.split(parts, comments=True) if not part.startswith("trainer")])
    if every[:1] != ["-m"]:
        return [every]
    swept = space.expand(every[1:])
    return [swept[0], swept[-1]]


def mistakes(overrides: list[str]) -> list[str]:
    """What `trainer-check` would say; values are put into a config of the same files, which is composed once."""
    values = [word for word in overrides if re.match(r"[\w.]+=", word) and word.split("=")[0] not in _hydra.groups()]
    try:
        cfg = copy.deepcopy(composed(*(word for word in overrides if word not in values)))
        for word in values:
            OmegaConf.update(cfg, word.split("=")[0], _hydra.parse(word).value())
        return config.problems(cfg)
    except ConfigError as error:
        return error.problems
    except OmegaConfBaseException as error:
        return [str(error)]


@functools.cache
def composed(*files: str) -> DictConfig:
    return _hydra.compose(files)


def files_meant(overrides: list[str], line: str) -> Iterator[list[str]]:
    """The words with each file that `loss.weight=...` may be about, those that the line names first."""
    told = [word.split("=")[0] for word in overrides]
    for group in dict.fromkeys(key.split(".")[0] for key in told if "." in key and key[0] not in "+~"):
        if group in _hydra.groups() and group not in told:
            known = _hydra.options(group)
            named = [name for name in known if re.search(rf"\b{name}\b", line)]
            yield from ([f"{group}={name}", *overrides] for name in dict.fromkeys([*named, *known]))


TO_TYPE = {
    (page, words): line for page in TYPED for words, line in typed((ROOT / f"docs/{page}.md").read_text("utf-8"))
}


@pytest.mark.parametrize(("page", "words"), TO_TYPE, ids=map(": ".join, TO_TYPE))
def test_what_a_page_tells_to_type_has_no_mistake_in_it(page: str, words: str) -> None:
    """In choosing.md just as it stands there; elsewhere a value alone may belong to any file of its group."""
    for overrides in jobs(words):
        found = mistakes(overrides)
        if found and page != "choosing":
            assert any(not mistakes(more) for more in files_meant(overrides, TO_TYPE[page, words])), found
        else:
            assert found == []


def test_each_page_tells_something_to_type() -> None:
    """So that a change of the pages' form does not leave the test above without anything to do."""
    counts = {page: sum(1 for at, _ in TO_TYPE if at == page) for page in TYPED}
    assert counts["choosing"] > 60
    assert min(counts.values()) >= 6, counts


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_page_or_a_heading_leads_there(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not heading or heading in headings(target), link


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub and PyPI make them."""
    titles = re.findall(r"^#+ (.*)", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_linked_from_the_readme_or_from_a_page_that_is() -> None:
    seen, new = set(), {ROOT / "README.md"}
    while new:
        page = new.pop()
        seen.add(page)
        links = re.findall(r"\]\(([^)#]+\.md)[^)]*\)", page.read_text("utf-8"))
        new |= {(page.parent / link).resolve() for link in links if "://" not in link} - seen
    assert set(PAGES) <= seen
