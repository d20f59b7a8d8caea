"""Panels as files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.colors import RIGHT, WRONG, palette
from trainer.records import Panel
from trainer.tracking.panels import read_panels, sheet, smaller, write_panels

CLASSES, COLORS = ("water", "land", "ignore"), ((30, 90, 200), (60, 160, 60), (128, 128, 128))

ERRORS = {"right": (240, 240, 240), "wrong": (250, 20, 30)}


def segmented(sample: str = "a", height: int = 20, width: int = 30) -> Panel:
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
    masks = {name: draw.integers(0, 3, (height, width), dtype=np.uint8) for name in ("true", "pred")}
    masks["error"] = (masks["true"] != masks["pred"]).astype(np.uint8)
    return Panel("val/examples", sample, image, masks, CLASSES, COLORS, f"{sample}  IoU 0.83", {"error": ERRORS})


def classified(n: int) -> Panel:
    return Panel("val/examples", str(n), np.full((8, 8), 20 * n, np.uint8), caption=f"{n}: true {n}, predicted {n}")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    panels = [segmented("a"), classified(3), segmented("b")]
    write_panels(tmp_path / "step-000000001", panels)
    for wrote, read in zip(panels, read_panels(tmp_path / "step-000000001"), strict=True):
        facts = ("name", "sample", "classes", "colors", "caption", "legends", "right", "drawn")
        assert [getattr(wrote, key) for key in facts] == [getattr(read, key) for key in facts]
        np.testing.assert_array_equal(wrote.image, read.image)
        assert list(wrote.masks) == list(read.masks)
        for name, mask in wrote.masks.items():
            np.testing.assert_array_equal(mask, read.masks[name])


def test_nothing_is_read_where_nothing_is(tmp_path: Path) -> None:
    assert read_panels(tmp_path / "step-000000001") == []


def test_the_files_are_plain_pictures_with_plain_names(tmp_path: Path) -> None:
    write_panels(tmp_path / "m", [segmented()])
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [
        "00-error.png", "00-image.png", "00-pred.png", "00-true.png", "panels.json", "sheet.png",
    ]  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["m"], "a temporary folder is left"
    (entry,) = json.loads((tmp_path / "m" / "panels.json").read_text())
    assert entry["masks"] == {"true": "00-true.png", "pred": "00-pred.png", "error": "00-error.png"}


def test_a_mask_file_holds_class_indices_and_shows_their_colors(tmp_path: Path) -> None:
    panel = segmented()
    write_panels(tmp_path / "m", [panel])
    with Image.open(tmp_path / "m" / "00-true.png") as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), panel.masks["true"])
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), np.array(COLORS)[panel.masks["true"]])
    with Image.open(tmp_path / "m" / "00-error.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), panel.masks["error"])
        own = np.array(list(ERRORS.values()))[panel.masks["error"]]
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), own)


def test_classes_without_a_color_get_different_ones() -> None:
    for given in ((), COLORS):
        colors = palette(given)
        assert len(colors) == 256
        assert tuple(colors[: len(given)]) == given
        assert len(set(colors[:24])) == 24
    assert palette()[:2] == [(31, 119, 180), (255, 127, 14)], "runs of other versions have other colors"


def test_writing_again_replaces_all_of_the_folder(tmp_path: Path) -> None:
    write_panels(tmp_path / "m", [segmented("a"), segmented("b")])
    write_panels(tmp_path / "m", [classified(1)])
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["00-image.png", "panels.json", "sheet.png"]


def test_mask_names_cannot_lead_out_of_the_folder_or_hide_the_picture(tmp_path: Path) -> None:
    mask = np.ones((4, 4), np.uint8)
    panel = Panel("x", "a", np.zeros((4, 4), np.uint8), {"../up": mask, "image": mask})
    write_panels(tmp_path / "m", [panel])
    (read,) = read_panels(tmp_path / "m")
    assert read.image.max() == 0
    assert [read.masks[name].min() for name in ("../up", "image")] == [1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_large_pictures_are_averaged_and_their_masks_sampled() -> None:
    stripes = np.zeros((1024, 2048), np.uint8)
    stripes[:, ::2] = 200
    small = smaller(Panel("x", "a", stripes, {"true": (stripes > 0).astype(np.uint8) * 7}))
    assert small.image.shape == small.masks["true"].shape == (256, 512)
    assert set(np.unique(small.image)) == {100}
    assert set(np.unique(small.masks["true"])) <= {0, 7}


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        (np.zeros((4, 4), np.float32), np.zeros((4, 4), np.uint8)),
        (np.zeros((3, 4, 4), np.uint8), np.zeros((4, 4), np.uint8)),
        (np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.int64)),
        (np.zeros((4, 4), np.uint8), np.zeros((1, 4, 4), np.uint8)),
    ],
)
def test_what_is_no_picture_is_refused_by_name(tmp_path: Path, image: np.ndarray, mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="val/examples"):
        write_panels(tmp_path / "m", [Panel("val/examples", "tile-3", image, {"true": mask})])
    assert list(tmp_path.iterdir()) == []


def test_the_sheet_has_a_row_for_each_segmented_sample_with_pictures_enlarged() -> None:
    one, two = (sheet([segmented(name, 64, 64) for name in names]) for names in ("a", "ab"))
    assert one.width == two.width >= 4 * 160
    assert two.height - one.height > 160
    pixels = np.asarray(one).reshape(-1, 3)
    for color in (*COLORS, *ERRORS.values()):
        assert (pixels == color).all(1).any(), "the legend lacks a class"


def test_the_sheet_shows_classified_samples_in_a_grid() -> None:
    four, five = sheet([classified(n) for n in range(4)]), sheet([classified(n) for n in range(5)])
    assert four.width == five.width
    assert five.height > 1.5 * four.height


def test_a_frame_tells_right_from_wrong_on_the_sheet_and_nothing_is_drawn_into_the_picture(tmp_path: Path) -> None:
    for right, color in ((True, RIGHT), (False, WRONG), (None, (60, 60, 60))):
        panel = replace(classified(3), right=right)
        assert sheet([panel]).getpixel((10, 10)) == color
        write_panels(tmp_path / "m", [panel])
        (read,) = read_panels(tmp_path / "m")
        assert read.right is right
        np.testing.assert_array_equal(read.image, panel.image)


def test_a_caption_of_any_length_stays_under_its_picture() -> None:
    long = Panel("x", "a", np.zeros((8, 8), np.uint8), caption="word " * 60 + "W" * 300)
    assert sheet([long]).width < 200
