"""The picture of a learning-rate curve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageColor

from trainer import preview
from trainer.schedules import Curves


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
    metrics.write_text(
        "".join(f'{{"step": {n}, "lr": {n}.5, "lr/a": {n}.5, "x": 9, "lr/b": {n}.0}}\n' for n in (2, 3, 5))
    )
    planned = [[0.5] * 6, [0.0] * 6]
    found = preview.lived([list(line) for line in planned], metrics, step=3)
    assert found == [[0.5, 2.5, 3.5, 0.5, 0.5, 0.5], [0.0, 2.0, 3.0, 0.0, 0.0, 0.0]]
    assert preview.lived([list(line) for line in planned], metrics, step=5)[0] == [0.5, 2.5, 3.5, 4.5, 5.5, 0.5]
    assert preview.lived([list(line) for line in planned], metrics, step=0) == planned
    assert preview.lived([list(line) for line in planned], tmp_path / "none", step=3) == planned
    assert preview.lived([[0.1] * 6], metrics, step=3) == [[0.1] * 6]


def test_the_momentum_is_a_line_of_its_own(tmp_path: Path) -> None:
    preview.draw(tmp_path / "a.png", [[0.1] * 50], 10, [[0.9] * 25 + [0.5] * 25])
    with Image.open(tmp_path / "a.png") as image:
        line = heights(np.asarray(image.convert("RGB")).astype(int)[:300], preview.MOMENTUM)
    assert len(line) > 300


# ------------------------------------------------------------------------------------------------- for the terminal

FALL = [1 - n / 100 for n in range(101)]


def dots(lines: list[str], column: int) -> list[int]:
    """The rows that hold something in a column of the curve, from the top."""
    return [n for n, line in enumerate(lines) if line.ljust(99)[10 + column] not in (" ", "\u2800")]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", None, "no such encoding"])
def test_a_curve_in_a_terminal_falls_where_the_rate_falls_and_its_stream_can_show_it(encoding: str | None) -> None:
    lines = preview.plots(Curves([FALL], steps_per_epoch=10), encoding)
    assert all(line.isascii() for line in lines) == (encoding != "utf-8")
    assert len(lines) == preview.HEIGHT + 1
    assert max(map(len, lines)) <= 100
    for column in range(preview.WIDTH):
        expected = column / (preview.WIDTH - 1) * (preview.HEIGHT - 1)
        assert all(abs(row - expected) <= 1 for row in dots(lines[:-1], column))
        assert dots(lines[:-1], column)
    assert lines[0].split()[0] == "1"
    assert lines[-1].split() == ["1", "step", "101,", "epoch", "10.1"]


def test_a_jump_between_two_columns_is_a_line_without_a_gap() -> None:
    lines = preview.plots(Curves([[1.0] * 50 + [0.0] * 50]), "ascii")
    (full,) = [c for c in range(preview.WIDTH) if len(dots(lines[:-1], c)) == preview.HEIGHT]
    assert full == preview.WIDTH // 2


@pytest.mark.parametrize("curve", [[0.0], [1e-9], [0.5, 0.0], [0.1] * 100_000])
def test_any_curve_can_be_shown_in_a_terminal(curve: list[float]) -> None:
    lines = preview.plots(Curves([curve, curve], [curve, curve]), "ascii")
    assert sum("*" in line for line in lines) >= 2
    assert "momentum" in lines[-1]


@pytest.mark.parametrize(
    ("curves", "words"),
    [
        (Curves([[0.1, 0.1, 0.1]]), "per step: 0.1 throughout"),
        (Curves([[0.1, 0.2, 0.3, 0.2, 0.0]]), "per step: 0.1 -> 0.3 (step 3) -> 0"),
        (Curves([[0.1, 0.1, 0.01, 0.01]], unit="epoch"), "per epoch: 0.1 -> 0.01"),
        (
            Curves([[0.1]], unit="value", follows_metric=True),
            "per evaluation: 0.1 throughout, less when the metric gets no better",
        ),
        (Curves([[0.1, 0.2]], [[0.9, 0.8]]), "per step: 0.1 -> 0.2; momentum 0.8 to 0.9"),
        (Curves([[0.0, 1.0] * 4]), "per step: 0, 4 times up between 0 and 1, -> 1"),
        (
            Curves([[0.2, 0.1]], end=9),
            "per step: 0.2 -> 0.1; does not finish: its end would be at step 9, and the run has 2 "
            "(the last learning rate is 0.1)",
        ),
    ],
)
def test_a_curve_is_told_in_a_line(curves: Curves, words: str) -> None:
    assert preview.in_words(curves) == words


def test_the_groups_are_named_in_the_colours_of_their_lines(tmp_path: Path) -> None:
    for name, names in (("plain", ()), ("named", ["rest", "encoder"]), ("many", ["a long name"] * 99)):
        preview.draw(tmp_path / f"{name}.png", [[0.1] * 50, [0.2] * 50], 10, names=names)
    plain, named, many = (
        Image.open(tmp_path / f"{name}.png").crop((0, 0, 900, 30)) for name in ("plain", "named", "many")
    )
    colours = [{n: count for count, n in image.getcolors(1 << 20)} for image in (plain, named)]
    for line in preview.LINES[:2]:
        colour = tuple(bytes.fromhex(line[1:]))
        assert colour not in colours[0]
        assert colour in colours[1]
    box = ImageChops.difference(many, plain).getbbox()
    assert box is not None
    assert box[2] < 720, "the momentum is written there"
