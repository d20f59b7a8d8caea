"""The page of a comparison in a real browser: brushed, slid, hovered, printed, without an error and without a network.

Skipped without Playwright (`pip install playwright`) and a Chromium: `playwright install chromium`, one on the PATH, or
CHROMIUM=/path/to/it. SCREENSHOTS=FOLDER keeps pictures of the page there, in light, in dark and as on a phone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runs import history, run_folder, sweep
from trainer.report.entries import find
from trainer.report.page import write

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")

SCREENS = {
    "light": {"viewport": {"width": 1360, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1360, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}
ALL_SECTIONS = "[...document.querySelectorAll('section:not([hidden]) .body')].every((body) => body.children.length)"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"needs a Chromium: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write(find([str(sweep(folder / "lr-sweep", [1e-3, 1e-2], seeds=2, steps=80, pictures=True))]), folder / "page.html")
    return folder / "page.html"


class Visit:
    """A page that is open, and all that it complained of or asked for."""

    def __init__(self, browser: Any, file: Path, screen: str = "light") -> None:
        self.problems: list[str] = []
        self.context = browser.new_context(**SCREENS[screen])
        self.page = self.context.new_page()
        self.page.on("console", lambda said: self.problems.append(f"console: {said.text}"))
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("request", lambda asked: self._asked(asked.url))
        self.page.goto(file.as_uri())

    def _asked(self, url: str) -> None:
        if not url.startswith(("file:", "data:")):
            self.problems.append(f"request: {url}")

    def see_all(self) -> None:
        """Scrolls through the page, which makes each part when it comes into view."""
        for section in self.page.locator("section:not([hidden])").all():
            section.scroll_into_view_if_needed()
            self.page.wait_for_timeout(60)
        self.page.wait_for_function(ALL_SECTIONS)

    def end(self) -> None:
        self.context.close()
        assert self.problems == []


@pytest.mark.parametrize("screen", SCREENS)
def test_every_part_appears_and_fits_the_screen(chromium: Any, page_file: Path, screen: str) -> None:
    visit = Visit(chromium, page_file, screen)
    visit.see_all()
    wide, inner = visit.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= inner
    assert visit.page.locator("#table tbody tr").count() == 4
    assert visit.page.locator("section canvas").count() > 8
    assert visit.page.locator("html").get_attribute("data-theme") == ("dark" if screen == "dark" else "light")
    if folder := os.environ.get("SCREENSHOTS"):
        visit.page.evaluate("scrollTo(0, 0)")
        visit.page.wait_for_timeout(200)
        visit.page.screenshot(path=Path(folder) / f"{screen}.png", full_page=True)
    visit.end()


def test_a_brush_filters_everything_and_is_cleared(chromium: Any, page_file: Path) -> None:
    visit = Visit(chromium, page_file)
    page = visit.page
    visit.see_all()
    page.locator("#parallel").scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    box = page.locator("#parallel .chart").bounding_box()
    x = box["x"] + 60  # the first axis: the optimizer
    page.mouse.move(x, box["y"] + 0.6 * box["height"])
    page.mouse.down()
    page.mouse.move(x, box["y"] + box["height"] - 30, steps=5)
    page.mouse.up()
    page.wait_for_function("document.querySelector('.shown').textContent.startsWith('4 of 8 runs shown')")
    assert page.locator("#table tbody tr").count() == 2
    assert page.locator("#scatter .chart").get_attribute("data-points") == "4"
    page.wait_for_function("document.querySelector('[data-metric=\"train/loss\"]').dataset.lines === '2'")
    assert page.locator("#media .shot:not(.reference)").count() == 4
    page.locator(".shown button").click()
    page.wait_for_function("document.querySelector('.shown').textContent === '8 runs'")
    assert page.locator("#table tbody tr").count() == 4
    visit.end()


def test_hover_smoothing_zoom_and_single_runs(chromium: Any, page_file: Path) -> None:
    visit = Visit(chromium, page_file)
    page = visit.page
    page.locator("#curves").scroll_into_view_if_needed()
    panel = page.locator('.panel[data-metric="train/loss"]')
    panel.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('[data-metric=\"train/loss\"]').dataset.lines === '4'")
    box = panel.locator("canvas").first.bounding_box()
    for n in range(3):
        page.mouse.move(box["x"] + 250 + n, box["y"] + 150)
        page.wait_for_timeout(60)
    assert page.locator("#tip").inner_text().startswith("train/loss at step")
    page.mouse.move(5, 5)
    page.locator("#smoothing").fill("50")
    assert "half-life" in page.locator(".smoothing").inner_text()
    page.locator("#curves .switch button", has_text="Single").click()
    page.wait_for_function("document.querySelector('[data-metric=\"train/loss\"]').dataset.lines === '8'")
    for axis in ("Epoch", "Time"):
        page.locator("#curves .switch button", has_text=axis).click()
    panel.locator("button", has_text="log").click()
    before = panel.locator("canvas").first.screenshot()
    box = panel.locator("canvas").first.bounding_box()
    page.mouse.move(box["x"] + 150, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 160, steps=4)
    page.mouse.up()
    page.mouse.move(5, 5)
    page.wait_for_timeout(200)
    assert panel.locator("canvas").first.screenshot() != before
    visit.end()


def test_the_slider_goes_through_the_evaluations_and_a_line_of_the_table_stays_marked(
    chromium: Any, page_file: Path
) -> None:
    visit = Visit(chromium, page_file)
    page = visit.page
    visit.see_all()
    page.locator("#evaluation").fill("0")
    assert page.locator("#media output").inner_text() == "step 20 (1 of 4)"
    assert page.locator("#media .shot").nth(1).inner_text().endswith("step 20: a")
    page.locator("#table tbody tr").first.click()
    page.mouse.move(5, 5)
    assert page.locator("#table tr.pinned").count() == 1
    page.locator("#table .more[aria-expanded]").first.click()
    assert page.locator("#table tr.child").count() == 2
    page.locator("#table th button", has_text="lr").click()
    assert page.locator("#table th[aria-sort]").inner_text().startswith("lr")
    page.locator(".bar button", has_text="Dark").click()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert len(page.pdf()) > 50_000
    visit.end()


def test_one_run_broken_runs_and_strange_names_make_a_sensible_page(chromium: Any, tmp_path: Path) -> None:
    config = {"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1}, "seed": 0}
    run_folder(tmp_path / "one" / "alone", history(30, 0.1, 0), config)
    run_folder(tmp_path / "none" / "empty", state="failed")
    name = "<img src=x onerror=alert(1)>"
    run_folder(tmp_path / "mixed" / name, history(30, 0.1, 0), config)
    run_folder(tmp_path / "mixed" / "failed", state="failed", config={**config, "seed": 1})
    rows = [{"step": step, "epoch": 0, "time": 0.1 * step, "train/loss": loss} for step, loss in ((1, None), (2, 2.0))]
    run_folder(tmp_path / "mixed" / "other", rows, {"data": {"_target_": name}, "seed": "x"}, monitor="val/loss")
    for folder in ("one", "none", "mixed"):
        write(find([str(tmp_path / folder)]), tmp_path / f"{folder}.html")
        visit = Visit(chromium, tmp_path / f"{folder}.html")
        visit.see_all()
        assert visit.page.locator("#table tbody tr").count() == {"one": 1, "none": 1, "mixed": 2}[folder]  # seeds
        assert visit.page.locator("img").count() == 0
        for option in visit.page.locator(".bar select").last.locator("option").all():
            visit.page.locator(".bar select").last.select_option(option.get_attribute("value"))
        visit.end()
