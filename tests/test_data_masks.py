"""Masks as people save them become class indices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainer.data.masks import MaskCode, default_colors, open_mask
from trainer.errors import DataError

TRUE = np.kron(np.array([[0, 1], [2, 0]], np.uint8), np.ones((16, 16), np.uint8))
PALETTE = [(0, 0, 0), (200, 0, 0), (0, 0, 200)]


def read(folder: Path, images: dict[str, Image.Image], **given: Any) -> tuple[MaskCode, list[np.ndarray]]:
    for name, image in images.items():
        image.save(folder / name, quality=90) if name.endswith("jpg") else image.save(folder / name)
    opened = [open_mask(folder / name) for name in images]
    code = MaskCode.learn(opened, **given)
    return code, [code.encode(mask, name) for mask, name in zip(opened, images, strict=True)]


def grey(*levels: int, array: np.ndarray = TRUE) -> Image.Image:
    return Image.fromarray(np.array(levels, np.uint8)[array])


def coloured(colors: list[tuple[int, int, int]], array: np.ndarray = TRUE) -> Image.Image:
    return Image.fromarray(np.array(colors, np.uint8)[array])


def with_palette(array: np.ndarray, colors: list[tuple[int, int, int]] = PALETTE) -> Image.Image:
    image = Image.fromarray(array)
    image.putpalette([value for color in colors for value in color])
    return image


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.gif", "a.bmp"])
def test_palette_masks_hold_their_indices_and_show_their_colours(tmp_path: Path, name: str) -> None:
    code, (mask,) = read(tmp_path, {name: with_palette(TRUE)})
    assert np.array_equal(mask, TRUE) and mask.dtype == np.uint8 and code.colors == tuple(PALETTE)


def test_palette_indices_keep_their_gaps_and_take_unused_colours_from_the_palette(tmp_path: Path) -> None:
    code, (mask,) = read(tmp_path, {"a.png": with_palette(np.where(TRUE == 1, 0, TRUE).astype(np.uint8))})
    assert code.colors == tuple(PALETTE) and set(np.unique(mask)) == {0, 2}


def test_a_palette_that_an_eye_cannot_tell_apart_is_not_shown(tmp_path: Path) -> None:
    code, (mask,) = read(tmp_path, {"a.png": with_palette(TRUE, [(0, 0, 0), (1, 0, 0), (2, 0, 0)])})
    assert np.array_equal(mask, TRUE) and code.colors == default_colors(3)


def test_gifs_whose_palettes_differ_are_read_by_their_greys(tmp_path: Path) -> None:
    part = np.where(TRUE == 1, 2, TRUE).astype(np.uint8)
    images = {"a.gif": grey(0, 1, 2), "b.gif": grey(0, 1, 2, array=part), "c.gif": Image.new("L", (32, 32), 2)}
    _, (a, b, c) = read(tmp_path, images)
    assert np.array_equal(a, TRUE) and np.array_equal(b, part) and (c == 2).all()


def test_gifs_of_black_and_white_are_two_classes_in_every_file(tmp_path: Path) -> None:
    images = {"a.gif": grey(0, 255, 255), "b.gif": Image.new("L", (32, 32), 255), "c.gif": Image.new("L", (32, 32), 0)}
    code, (a, b, c) = read(tmp_path, images)
    assert np.array_equal(a, TRUE > 0) and (b == 1).all() and (c == 0).all() and len(code.colors) == 2


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "LA", "I;16"])
def test_black_and_white_are_two_classes_in_every_mode(tmp_path: Path, mode: str) -> None:
    image = grey(0, 255, 255)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    code, (mask,) = read(tmp_path, {"a.png": image if mode == "I;16" else image.convert(mode)})
    assert np.array_equal(mask, TRUE > 0) and len(code.colors) == 2


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_class_indices_are_taken_as_they_are(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(TRUE.astype(np.uint16)) if mode == "I;16" else grey(0, 1, 2).convert(mode)
    code, (mask,) = read(tmp_path, {"a.png": image})
    assert np.array_equal(mask, TRUE) and code.colors == default_colors(3)


def test_a_class_that_occurs_nowhere_keeps_its_index(tmp_path: Path) -> None:
    code, (mask,) = read(tmp_path, {"a.png": grey(0, 2, 2)})
    assert set(np.unique(mask)) == {0, 2} and len(code.colors) == 3


def test_grey_levels_that_are_no_indices_are_sorted(tmp_path: Path) -> None:
    code, (mask,) = read(tmp_path, {"a.png": grey(0, 255, 127)})
    assert np.array_equal(mask, np.array([0, 2, 1], np.uint8)[TRUE]) and code.words == "grey levels 0, 127, 255"


def test_a_level_missing_in_one_file_does_not_move_the_others(tmp_path: Path) -> None:
    _, (_, b) = read(tmp_path, {"a.png": grey(0, 127, 255), "b.png": grey(255, 255, 255)})
    assert (b == 2).all()


def test_jpeg_blurs_black_and_white_which_is_snapped_back(tmp_path: Path) -> None:
    round_mask = (np.hypot(*(np.mgrid[:64, :64] - 31.5)) < 20).astype(np.uint8)
    code, (mask,) = read(tmp_path, {"a.jpg": grey(0, 255, array=round_mask)})
    assert len(np.unique(np.asarray(Image.open(tmp_path / "a.jpg")))) > 10
    assert np.array_equal(mask, round_mask) and code.nearest


def test_softened_edges_of_black_and_white_are_no_classes(tmp_path: Path) -> None:
    image = grey(0, 255, 0).resize((100, 100), Image.Resampling.BILINEAR)
    code, (mask,) = read(tmp_path, {"a.png": image})
    assert len(code.colors) == 2 and np.array_equal(mask, np.asarray(image) > 127)


def test_jpeg_of_given_colours_is_snapped_to_them(tmp_path: Path) -> None:
    code, (mask,) = read(tmp_path, {"a.jpg": coloured(PALETTE)}, colors=PALETTE)
    assert np.array_equal(mask, TRUE) and code.colors == tuple(PALETTE)


def test_jpeg_of_class_indices_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="JPEG has blurred them, save masks as PNG"):
        read(tmp_path, {"a.jpg": grey(0, 60, 120)})
    with pytest.raises(DataError, match="blurred by JPEG.*data.colors"):
        read(tmp_path, {"a.jpg": coloured(PALETTE)})


def test_colour_masks_take_the_order_of_the_given_colours(tmp_path: Path) -> None:
    order = [PALETTE[2], PALETTE[0], PALETTE[1]]
    code, (mask,) = read(tmp_path, {"a.png": coloured(PALETTE)}, colors=order)
    assert np.array_equal(mask, np.array([1, 2, 0], np.uint8)[TRUE]) and code.colors == tuple(order)
    (tmp_path / "p").mkdir()
    _, (same,) = read(tmp_path / "p", {"a.png": with_palette(TRUE)}, colors=order)
    assert np.array_equal(same, mask), "a palette in these colours is read by colour, too"


def test_colours_that_are_not_given_are_found_and_sorted(tmp_path: Path) -> None:
    code, (mask,) = read(tmp_path, {"a.png": coloured(PALETTE)})
    assert code.colors == ((0, 0, 0), (0, 0, 200), (200, 0, 0))
    assert np.array_equal(mask, np.array([0, 2, 1], np.uint8)[TRUE])


def test_colors_beside_index_masks_are_for_display_alone(tmp_path: Path) -> None:
    code, (mask,) = read(tmp_path, {"a.png": grey(0, 1, 2)}, colors=[(9, 9, 9), (200, 0, 0), (0, 200, 0)])
    assert np.array_equal(mask, TRUE) and code.colors == ((9, 9, 9), (200, 0, 0), (0, 200, 0))


def test_the_ignored_value_stays_and_is_no_class(tmp_path: Path) -> None:
    bordered = np.where(TRUE == 2, 255, TRUE).astype(np.uint8)
    for name, image in {
        "grey.png": grey(0, 1, 255),
        "palette.png": with_palette(bordered, (PALETTE * 86)[:256]),
    }.items():
        code, (mask,) = read(tmp_path, {name: image}, ignore_index=255)
        assert np.array_equal(mask, bordered) and len(code.colors) == 2
    code, (mask,) = read(tmp_path, {"levels.png": grey(0, 127, 255)}, ignore_index=255)
    assert np.array_equal(mask, bordered) and len(code.colors) == 2
    code, (mask,) = read(tmp_path, {"rgb.png": coloured(PALETTE)}, colors=PALETTE[:2], ignore_index=255)
    assert np.array_equal(mask, bordered), "what is none of the given colours is ignored"


def test_255_among_indices_asks_what_it_means(tmp_path: Path) -> None:
    for name, image in {
        "grey.png": grey(0, 1, 255),
        "palette.png": with_palette(np.where(TRUE == 2, 255, TRUE).astype(np.uint8), (PALETTE * 86)[:256]),
    }.items():
        with pytest.raises(DataError, match=r"set data.ignore_index=255"):
            read(tmp_path, {name: image})


def test_values_beyond_the_classes_are_told(tmp_path: Path) -> None:
    code, _ = read(tmp_path, {"a.png": with_palette(TRUE)}, classes=["a", "b", "c"])
    with pytest.raises(
        DataError, match="x.png: mask values 5, 9 are no class, allowed are 0 to 2; .*data.ignore_index"
    ):
        code.encode(grey(0, 5, 9), "x.png")
    with pytest.raises(DataError, match="x.png: a mask in colour"):
        code.encode(coloured(PALETTE), "x.png")
    code, _ = read(tmp_path, {"b.png": coloured(PALETTE)})
    with pytest.raises(DataError, match=r"x.png: mask colours \[1,2,3\] are no class, allowed are \[0,0,0\], "):
        code.encode(Image.new("RGB", (4, 4), (1, 2, 3)), "x.png")


def test_a_photograph_is_no_mask(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    with pytest.raises(DataError, match="the masks hold .* colours.*data.colors"):
        read(tmp_path, {"a.png": Image.fromarray(noise)})
    with pytest.raises(DataError, match="the masks hold the grey values"):
        read(tmp_path, {"a.png": Image.fromarray(np.tile(np.arange(0, 200, 2, dtype=np.uint8) + 40, (4, 1)))})
    with pytest.raises(DataError, match="a.tif: a mask with values from 0 to 9999"):
        read(tmp_path, {"a.tif": Image.fromarray(np.array([[0, 9999]], np.uint16))})


def test_default_colours_can_be_told_apart() -> None:
    for count in (2, 21, 150):
        colors = default_colors(count)
        assert len(colors) == len(set(colors)) == count and all(0 <= v <= 255 for color in colors for v in color)


def test_a_class_that_no_pixel_has_is_pointed_out_where_the_classes_are_not_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.tile(np.array([0, 1, 2, 3, 4, 7], np.uint8), (6, 1))
    Image.fromarray(values).save(tmp_path / "m.png")
    with caplog.at_level("WARNING", logger="trainer"):
        code = MaskCode.learn([open_mask(tmp_path / "m.png")])
    assert len(code.colors) == 8
    assert "no pixel of the masks has class 5, 6, and the largest is 7" in caplog.text
