"""The picture of a learning-rate curve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from trainer import preview


def drawn(path: Path, *curves: list[float]) -> np.ndarray:
    preview.draw(path, curves, steps_per_epoch=10)
    with Image.open(path) as image:
        assert image.size == (preview.SIZE[0] // 2, preview.SIZE[1] // 2), "drawn twice as large"
        return np.asarray(image.convert("RGB")).astype(int)


def heights(pixels: np.ndarray, color: str) -> dict[int, float]:
    """The mean row of a color in each column that has it."""
    mask = (np.abs(pixels - np.array(ImageColor.getrgb(color))).sum(2)) < 100
    return {int(x): float(np.nonzero(mask[:, x])[0].mean()) for x in np.nonzero(mask.any(0))[0]}


def test_the_line_falls_where_the_rate_falls_and_spans_the_whole_run(tmp_path: Path) -> None:
    line = heights(drawn(tmp_path / "a.png", [1 - n / 100 for n in range(101)]), preview.LINES[0])
    left, right = preview.LEFT / 2, (preview.SIZE[0] - preview.RIGHT) / 2
    assert abs(min(line) - left) <= 3
    assert abs(max(line) - right) <= 3
    top, bottom = preview.TOP / 2, (preview.SIZE[1] - preview.BOTTOM) / 2
    for x in range(int(left) + 10, int(right) - 10, 50):
        expected = bottom - (bottom - top) * (1 - (x - left) / (right - left)) / 1.05
        assert abs(line[x] - expected) < 3


def test_each_parameter_group_has_a_line_of_its_own_color(tmp_path: Path) -> None:
    pixels = drawn(tmp_path / "a.png", [1.0] * 50, [0.5] * 50, [0.25] * 50)
    rows = [np.mean(list(heights(pixels, color).values())) for color in preview.LINES[:3]]
    assert rows == sorted(rows)
    assert rows[0] < rows[1] - 20


@pytest.mark.parametrize("curve", [[0.0, 0.0], [1e-9, 1e-10], [0.1] * 20_000, [0.1, 5.0, 0.1]])
def test_any_curve_can_be_drawn(tmp_path: Path, curve: list[float]) -> None:
    assert heights(drawn(tmp_path / "a.png", curve), preview.LINES[0])


def test_a_run_of_one_step_and_more_groups_than_colors_can_be_drawn(tmp_path: Path) -> None:
    drawn(tmp_path / "a.png", [0.1])
    drawn(tmp_path / "a.png", *[[float(n), 1.0] for n in range(1, 10)])


def test_a_picture_that_cannot_be_written_is_no_reason_to_stop(tmp_path: Path) -> None:
    preview.draw(tmp_path / "absent" / "a.png", [[0.1, 0.2]], 1)
    assert not (tmp_path / "absent").exists()


def test_what_a_run_has_lived_is_drawn_as_it_was(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(f'{{"step": {n}, "lr/a": {n}.5, "x": 9, "lr/b": {n}.0}}\n' for n in (2, 3, 5)))
    planned = [[0.5] * 6, [0.0] * 6]
    found = preview.lived([list(line) for line in planned], metrics, step=3)
    assert found == [[0.5, 2.5, 3.5, 0.5, 0.5, 0.5], [0.0, 2.0, 3.0, 0.0, 0.0, 0.0]]
    assert preview.lived([list(line) for line in planned], metrics, step=5)[0] == [0.5, 2.5, 3.5, 4.5, 5.5, 0.5]
    assert preview.lived([list(line) for line in planned], metrics, step=0) == planned
    assert preview.lived([list(line) for line in planned], tmp_path / "none", step=3) == planned
    assert preview.lived([[0.1] * 6], metrics, step=3) == [[0.1] * 6]
