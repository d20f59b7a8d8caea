"""A folder of pictures becomes data, or an error that says what is wrong and what to type."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.data.base import BatchSource, Data
from trainer.data.files import OnDisk
from trainer.data.folders import image_folder, image_mask_folder
from trainer.data.loader import Loader
from trainer.data.memory import Memory
from trainer.errors import DataError
from trainer.records import FACTS


def picture(path: Path, color: Any = (200, 100, 50), size: tuple[int, int] = (12, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = "RGB" if isinstance(color, tuple) else "L"
    Image.new(mode, size, color).save(path)
    return path


def animals(root: Path, count: int = 10) -> Path:
    for i in range(count):
        picture(root / "cat" / f"{i}.png", (i * 10, 0, 0))
        picture(root / "dog" / f"{i}.jpg", (0, i * 10, 200))
    return root


def pairs(root: Path, count: int = 6, size: tuple[int, int] = (12, 8)) -> Path:
    for i in range(count):
        picture(root / "imgs" / f"{i}.png", (i * 20, 0, 0), size)
        mask = np.zeros(size[::-1], np.uint8)
        mask[:, : i + 2] = 255
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(root / "masks" / f"{i}.png")
    return root


def message(call: Callable[[], Any]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    return str(caught.value)


def cut(path: Path) -> Path:
    Image.effect_noise((64, 64), 60).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:-600])
    return path


# ----------------------------------------------------------------------------------------------------- image_folder


def test_a_folder_for_each_class_becomes_labelled_samples(tmp_path: Path) -> None:
    data = image_folder(str(animals(tmp_path)), flip=False)
    assert isinstance(data.train, Memory) and isinstance(data.val, Memory) and isinstance(data.train, BatchSource)
    assert len(data.train) == 16 and len(data.val) == 4 and set(data.facts) <= set(FACTS)
    assert data.facts["classes"] == ("cat", "dog") and data.facts["num_classes"] == 2
    assert (data.facts["in_channels"], data.facts["image_size"], data.facts["in_features"]) == (3, (8, 12), 288)
    for part in (data.train, data.val):
        x, y = part.batch_of(torch.arange(len(part)), 0)
        assert x.shape == (len(part), 3, 8, 12) and y.dtype == torch.int64
        assert [name.split("/")[0] for name in part.names] == [data.facts["classes"][i] for i in y]
        assert y.bincount().tolist() == [len(part) // 2] * 2, "each class is split alike"
    x = data.train.batch_of(torch.arange(16), 0)[0]
    assert x.mean(dim=(0, 2, 3)).abs().max() < 1e-4 and (x.std(dim=(0, 2, 3))[[0, 1]] - 1).abs().max() < 0.05


def test_labels_may_stand_before_the_first_underscore(tmp_path: Path) -> None:
    for label in ("10", "2", "0"):
        for i in range(5):
            picture(tmp_path / f"{label}_{i}.jpg", (int(label) * 20, 0, 0))
    data = image_folder(str(tmp_path))
    assert data.facts["classes"] == ("0", "2", "10"), "numbers sort by their value"
    assert isinstance(data.train, Memory)
    assert [name.split("_")[0] for name in data.train.names] == [data.facts["classes"][i] for i in data.train.targets]


def test_hidden_and_other_files_do_not_count_and_suffixes_may_be_capital(tmp_path: Path) -> None:
    animals(tmp_path, 2)
    picture(tmp_path / "cat" / "deep" / "BIG.PNG")
    for name in ("cat/.hidden.png", "cat/notes.txt", ".git/x.png", "__MACOSX/cat.png", "cat/._1.png", "cat/.old/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("no picture")
    data = image_folder(str(tmp_path))
    assert len(data.names) == 5 and "cat/deep/BIG.PNG" in data.names


def test_train_and_val_folders_are_the_two_sets(tmp_path: Path) -> None:
    animals(tmp_path / "training", 3)
    animals(tmp_path / "validation", 1)
    picture(tmp_path / "testing" / "x.png")
    data = image_folder(str(tmp_path))
    assert isinstance(data.train, Memory) and isinstance(data.val, Memory)
    assert len(data.train) == 6 and data.val.names == ["validation/cat/0.png", "validation/dog/0.jpg"]


def test_a_lone_train_folder_is_split_and_a_class_called_train_stays_a_class(tmp_path: Path) -> None:
    animals(tmp_path / "a" / "train", 5)
    picture(tmp_path / "a" / "test" / "x.png")
    assert image_folder(str(tmp_path / "a")).facts["classes"] == ("cat", "dog")
    for kind in ("bus", "train"):
        for i in range(3):
            picture(tmp_path / "b" / kind / f"{i}.png")
    assert image_folder(str(tmp_path / "b")).facts["classes"] == ("bus", "train")


def test_the_split_does_not_depend_on_the_order_of_files_and_hardly_on_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    animals(tmp_path, 20)
    first = image_folder(str(tmp_path))
    walk = os.walk

    def backwards(top: Any, **given: Any) -> Any:
        return ((place, folders, files[::-1]) for place, folders, files in walk(top, **given))

    monkeypatch.setattr(os, "walk", backwards)
    again = image_folder(str(tmp_path))
    assert again.names == first.names and again.state_dict() == first.state_dict()
    picture(tmp_path / "cat" / "new.png")
    assert isinstance(first.val, Memory)
    more = image_folder(str(tmp_path)).val
    assert isinstance(more, Memory) and len(set(more.names) & set(first.val.names)) >= len(first.val) - 1
    other = image_folder(str(tmp_path), split_seed=1).val
    assert isinstance(other, Memory) and set(other.names) != set(more.names)


def test_classes_give_the_order_and_must_be_those_found(tmp_path: Path) -> None:
    animals(tmp_path, 2)
    assert image_folder(str(tmp_path), classes=["dog", "cat"]).facts["classes"] == ("dog", "cat")
    text = message(lambda: image_folder(str(tmp_path), classes=["catt", "dog"]))
    assert "data.classes: 'catt' has no pictures; did you mean cat?" in text
    assert "data.classes: pictures of 'cat' were found, which is not listed" in text


def test_pictures_are_scaled_and_turned_to_the_bands_asked_for(tmp_path: Path) -> None:
    data = image_folder(str(animals(tmp_path, 2)), size=[16, 20], bands="grey")
    assert data.facts["image_size"] == (16, 20) and data.facts["in_channels"] == 1
    assert image_folder(str(tmp_path), size=6).facts["image_size"] == (6, 6)


def test_sizes_that_differ_ask_for_one(tmp_path: Path) -> None:
    animals(tmp_path, 2)
    picture(tmp_path / "cat" / "tall.png", size=(8, 12))
    text = message(lambda: image_folder(str(tmp_path)))
    assert text == (
        "data.size: the pictures are of 2 sizes, 12x8 (4), 8x12 (1); set data.size=128, or data.size=[height,width]"
    )
    assert len(image_folder(str(tmp_path), size=8).names) == 5


def test_validation_pictures_are_never_augmented(tmp_path: Path) -> None:
    animals(tmp_path)
    for cache in ("always", "never"):
        data = image_folder(str(tmp_path), crop=0.5, jitter=0.5, cache=cache)  # type: ignore[arg-type]
        assert data.val is not None
        for batch in Loader(data.val, 4, shuffle=False).batches(3):
            assert torch.equal(batch[0], torch.stack([data.val[i][0] for i in range(4)]))


def test_given_mean_and_std_are_used(tmp_path: Path) -> None:
    data = image_folder(str(animals(tmp_path, 2)), mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25])
    assert data.facts["preprocess"].state_dict() == {"size": [8, 12], "mean": [0.5] * 3, "std": [0.25] * 3}


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        ({"val_fraction": 1.0}, "val_fraction: 1.0 must be at least 0 and less than 1"),
        ({"size": 0}, "size: 0 must be"),
        ({"size": [1, 2, 3]}, "size: .* must be"),
        ({"bands": "red"}, "bands: 'red' must be grey or rgb"),
        ({"cache": "no"}, "cache: 'no' must be"),
        ({"num_workers": -1}, "num_workers: -1"),
        ({"mean": [0.5]}, r"mean: \[0.5\] must have 3 numbers for bands=rgb"),
        ({"std": [0.5, 0.0, 0.5]}, "std: .* must be more than 0"),
        ({"crop": 1.5}, "crop: 1.5"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(tmp_path: Path, arguments: dict[str, Any], start: str) -> None:
    with pytest.raises(ValueError, match=f"^{start}"):
        image_folder(str(tmp_path), **arguments)


def test_memory_and_disk_give_the_same_pixels_facts_and_names(tmp_path: Path) -> None:
    animals(tmp_path)
    held, read = image_folder(str(tmp_path), cache="always"), image_folder(str(tmp_path), cache="never")
    assert isinstance(held.train, Memory) and isinstance(read.train, OnDisk)
    assert held.state_dict() == read.state_dict() and held.names == read.names
    assert isinstance(held.val, Memory) and isinstance(read.val, OnDisk) and held.val.names == read.val.names
    for i in range(len(held.val)):
        assert torch.equal(held.val[i][0], read.val[i][0]) and held.val[i][1] == read.val[i][1]


def test_auto_reads_from_disk_what_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    animals(tmp_path)
    monkeypatch.setattr("trainer.data.assembly._FITS", 20 * 8 * 12 * 3 - 1)
    assert isinstance(image_folder(str(tmp_path)).train, OnDisk)
    monkeypatch.setattr("trainer.data.assembly._FITS", 20 * 8 * 12 * 3)
    assert isinstance(image_folder(str(tmp_path)).train, Memory)


def test_augmentation_from_disk_is_the_same_with_any_number_of_workers(tmp_path: Path) -> None:
    data = image_folder(str(animals(tmp_path, 4)), crop=0.3, jitter=0.2, cache="never")

    def epoch(workers: int, number: int) -> list[torch.Tensor]:
        loader = Loader(data.train, 4, seed=1, workers=workers)
        return [batch[0] for batch in loader.batches(number)]

    assert all(torch.equal(a, b) for a, b in zip(epoch(0, 0), epoch(2, 0), strict=True))
    assert not torch.equal(torch.cat(epoch(0, 0)).sort(0)[0], torch.cat(epoch(0, 1)).sort(0)[0])
    assert isinstance(data.val, OnDisk) and torch.equal(data.val[0][0], data.val[0][0])


def test_a_missing_root_is_told_with_the_folder_that_was_meant(tmp_path: Path) -> None:
    animals(tmp_path / "animals")
    text = message(lambda: image_folder(str(tmp_path / "animal")))
    assert text == f"data.root: there is no folder {tmp_path / 'animal'}; in {tmp_path}: did you mean animals?"
    picture(tmp_path / "file.png")
    assert "is a file, not a folder" in message(lambda: image_folder(str(tmp_path / "file.png")))


def test_an_empty_folder_is_told_with_its_whole_path(tmp_path: Path) -> None:
    Path("empty").mkdir()
    text = message(lambda: image_folder("empty"))
    assert f"no pictures in {tmp_path / 'empty'}" in text and ".png" in text and "a folder for each class" in text


def test_files_without_label_are_told_with_what_is_expected(tmp_path: Path) -> None:
    picture(tmp_path / "1.png")
    picture(tmp_path / "cat_1.png")
    text = message(lambda: image_folder(str(tmp_path)))
    assert "1 of 2 pictures" in text and "no label: 1.png" in text and "like cat_1.jpg" in text


def test_one_class_or_one_picture_is_too_few(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "cat" / "1.png")
    assert "only one class, 'cat'" in message(lambda: image_folder(str(tmp_path / "a")))
    pairs(tmp_path / "b", 1)
    assert "1 training and 0 validation pictures" in message(lambda: image_mask_folder(str(tmp_path / "b")))
    data = image_mask_folder(str(tmp_path / "b"), val_fraction=0.0)
    assert data.val is None and len(data.names) == 1


def test_unreadable_files_are_all_named_at_once(tmp_path: Path) -> None:
    animals(tmp_path, 3)
    cut(tmp_path / "cat" / "cut.png")
    for i in range(14):
        (tmp_path / "dog" / f"bad{i:02}.png").write_text("no picture")
    with pytest.raises(DataError) as caught:
        image_folder(str(tmp_path), size=8)
    assert len(caught.value.problems) == 11 and caught.value.problems[-1] == "... and 4 more problems"
    assert f"{tmp_path}/dog/bad00.png: cannot be read as a picture" in caught.value.problems[0]


def test_pixels_that_cannot_be_decoded_are_found_at_the_start(tmp_path: Path) -> None:
    animals(tmp_path, 3)
    cut(tmp_path / "cat" / "cut.png")
    assert "cut.png: cannot be read as a picture (" in message(lambda: image_folder(str(tmp_path), size=8))


@pytest.mark.parametrize("cache", ["always", "never"])
def test_skip_bad_goes_on_and_says_what_was_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, cache: Any
) -> None:
    animals(tmp_path, 5)
    (tmp_path / "dog" / "text.png").write_text("no picture")
    with caplog.at_level(logging.WARNING):
        data = image_folder(str(tmp_path), size=8, skip_bad=True, cache=cache)
    assert len(data.names) == 10 and "1 unreadable left out" in data.summary and "dog/text.png" in caplog.text


def test_from_disk_a_bad_file_is_named_or_replaced_by_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    animals(tmp_path, 5)
    given: dict[str, Any] = {"cache": "never", "flip": False, "mean": [0.5] * 3, "std": [0.5] * 3}
    strict, lenient = image_folder(str(tmp_path), **given), image_folder(str(tmp_path), skip_bad=True, **given)
    assert isinstance(strict.train, OnDisk) and isinstance(lenient.train, OnDisk)
    cut(tmp_path / strict.train.names[0])
    cut(tmp_path / strict.train.names[-1])
    with pytest.raises(DataError, match=f"{strict.train.names[0]}: cannot be read"):
        strict.train[0]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(lenient.train[0][0], lenient.train[1][0])
            assert torch.equal(lenient.train[-1][0], lenient.train[1][0]), "behind the last comes the first"
    assert caplog.text.count(lenient.train.names[0]) == 1


# ------------------------------------------------------------------------------------------------ image_mask_folder


def test_pictures_and_masks_are_matched_by_name(tmp_path: Path) -> None:
    data = image_mask_folder(str(pairs(tmp_path)), flip=False)
    assert isinstance(data.train, Memory) and set(data.facts) <= set(FACTS)
    assert data.facts["classes"] == ("class_0", "class_1") and len(data.facts["colors"]) == 2
    assert "ignore_index" not in data.facts and data.facts["image_size"] == (8, 12)
    _, y = data.train.batch_of(torch.arange(len(data.train)), 0)
    for name, mask in zip(data.train.names, y, strict=True):
        expected = torch.zeros(8, 12, dtype=torch.int64)
        expected[:, : int(Path(name).stem) + 2] = 1
        assert torch.equal(mask, expected)


@pytest.mark.parametrize(("suffix", "given"), [("_mask", "auto"), ("-gt", "auto"), ("_L", "auto"), ("_x7", "_x7")])
def test_a_masks_name_may_have_a_suffix_and_another_format(tmp_path: Path, suffix: str, given: str) -> None:
    for i in range(4):
        picture(tmp_path / "imgs" / "deep" / f"x_{i}.jpg")
        picture(tmp_path / "masks" / "deep" / f"x_{i}{suffix}.gif", i % 2)
    data = image_mask_folder(str(tmp_path), mask_suffix=given)
    assert sorted(data.names) == [f"imgs/deep/x_{i}.jpg" for i in range(4)]


def test_pictures_may_be_called_masks_themselves(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / "imgs" / f"{i}_mask.png")
        picture(tmp_path / "masks" / f"{i}_mask.png", i % 2)
    assert len(image_mask_folder(str(tmp_path)).names) == 3


def test_masks_in_train_and_val_folders_and_folders_of_other_names(tmp_path: Path) -> None:
    pairs(tmp_path / "train", 3)
    pairs(tmp_path / "val", 2)
    for part in ("train", "val"):
        (tmp_path / part / "imgs").rename(tmp_path / part / "pictures")
    data = image_mask_folder(str(tmp_path), images="pictures")
    assert isinstance(data.val, Memory) and data.val.names == ["val/pictures/0.png", "val/pictures/1.png"]


@pytest.mark.parametrize("cache", ["always", "never"])
def test_a_mask_moves_with_its_picture(tmp_path: Path, cache: Any) -> None:
    grid = np.random.default_rng(0).integers(0, 2, (16, 16)).astype(np.uint8)
    (tmp_path / "imgs").mkdir()
    (tmp_path / "masks").mkdir()
    for i in range(12):
        Image.fromarray(grid * 255).save(tmp_path / "imgs" / f"{i}.png")
        Image.fromarray(grid).save(tmp_path / "masks" / f"{i}.png")
    data = image_mask_folder(str(tmp_path), flip=True, rotate=True, cache=cache, bands="grey", num_workers=0)
    seen = set()
    for x, y in Loader(data.train, 4).batches(0):
        for image, mask in zip(data.facts["preprocess"].restore(x), y, strict=True):
            assert np.array_equal(image // 255, mask.numpy())
            seen.add(mask.numpy().tobytes())
    assert len(seen) > 2


def test_memory_and_disk_give_the_same_masks(tmp_path: Path) -> None:
    pairs(tmp_path)
    held = image_mask_folder(str(tmp_path), size=[4, 6])
    read = image_mask_folder(str(tmp_path), size=[4, 6], cache="never")
    assert isinstance(held.val, Memory) and isinstance(read.val, OnDisk)
    assert held.state_dict() == read.state_dict()
    assert torch.equal(held.val[0][0], read.val[0][0]) and torch.equal(held.val[0][1], read.val[0][1])
    assert held.val[0][1].shape == (4, 6) and read.val[0][1].dtype == torch.int64


def test_masks_are_scaled_without_mixing_classes(tmp_path: Path) -> None:
    stripes = np.tile(np.array([0, 7], np.uint8), (32, 16))
    for i in range(3):
        picture(tmp_path / "imgs" / f"{i}.png", size=(32, 32))
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(stripes).save(tmp_path / "masks" / f"{i}.png")
    data = image_mask_folder(str(tmp_path), size=12, classes=list("abcdefgh"))
    assert isinstance(data.train, Memory) and set(data.train.targets.unique().tolist()) == {0, 7}


def test_missing_pairs_are_told_in_both_directions(tmp_path: Path) -> None:
    pairs(tmp_path, 3)
    for i in range(7):
        picture(tmp_path / "imgs" / f"lonely{i}.png")
    picture(tmp_path / "masks" / "spare.png", 0)
    with pytest.raises(DataError) as caught:
        image_mask_folder(str(tmp_path))
    first, second = caught.value.problems
    assert first.startswith("7 of 10 pictures have no mask: lonely0.png, lonely1.png, ") and "lonely5" not in first
    assert str(tmp_path / "masks") in first and "data.mask_suffix" in first
    assert second == f"1 of 4 masks have no picture in {tmp_path / 'imgs'}: spare.png"


def test_two_files_for_one_name_are_told(tmp_path: Path) -> None:
    pairs(tmp_path, 3)
    picture(tmp_path / "imgs" / "1.jpg")
    picture(tmp_path / "masks" / "2_mask.gif", 0)
    text = message(lambda: image_mask_folder(str(tmp_path)))
    assert f"pictures in {tmp_path / 'imgs'} share a name: 1.jpg and 1.png" in text
    assert f"masks in {tmp_path / 'masks'} share a name: 2.png and 2_mask.gif" in text


def test_missing_and_empty_folders_are_told_with_the_argument_to_set(tmp_path: Path) -> None:
    pairs(tmp_path, 3)
    (tmp_path / "imgs").rename(tmp_path / "images")
    text = message(lambda: image_mask_folder(str(tmp_path)))
    assert f"data.images: there is no folder {tmp_path / 'imgs'}" in text
    assert "did you mean images?" in text and "data.images=NAME" in text
    (tmp_path / "imgs").mkdir()
    assert f"data.images: no pictures in {tmp_path / 'imgs'}" in message(lambda: image_mask_folder(str(tmp_path)))


def test_a_mask_of_another_size_is_told_with_both_names_and_sizes(tmp_path: Path) -> None:
    pairs(tmp_path, 3)
    picture(tmp_path / "masks" / "1.png", 0, size=(8, 12))
    picture(tmp_path / "masks" / "2.png", 0, size=(5, 5))
    with pytest.raises(DataError) as caught:
        image_mask_folder(str(tmp_path))
    one, two = caught.value.problems
    assert one.startswith(f"{tmp_path}/imgs/1.png is 12x8 and its mask {tmp_path}/masks/1.png is 8x12; ")
    assert "EXIF" in one and two == f"{tmp_path}/imgs/2.png is 12x8 and its mask {tmp_path}/masks/2.png is 5x5"


def test_unreadable_masks_are_named_or_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pairs(tmp_path, 5, size=(64, 64))
    cut(tmp_path / "masks" / "1.png")
    (tmp_path / "imgs" / "3.png").write_text("no picture")
    text = message(lambda: image_mask_folder(str(tmp_path)))
    assert "imgs/3.png: cannot be read" in text
    with caplog.at_level(logging.WARNING):
        data = image_mask_folder(str(tmp_path), skip_bad=True)
    assert sorted(data.names) == ["imgs/0.png", "imgs/2.png", "imgs/4.png"]
    assert "2 unreadable left out" in data.summary and "masks/1.png" in caplog.text


def test_a_value_that_is_no_class_is_told_with_file_value_and_what_is_allowed(tmp_path: Path) -> None:
    for i in range(4):
        picture(tmp_path / "imgs" / f"{i}.png")
        picture(tmp_path / "masks" / f"{i}.png", i if i < 3 else 9)
    for cache in ("always", "never"):
        text = message(lambda: image_mask_folder(str(tmp_path), classes=["a", "b", "c"], cache=cache))  # type: ignore[arg-type]  # noqa: B023
        assert "0, 1, 2, 9" in text and "3 classes (0 to 2)" in text and "data.ignore_index" in text


def test_a_value_that_turns_up_later_is_told_by_file(tmp_path: Path) -> None:
    pairs(tmp_path, 4)
    data = image_mask_folder(str(tmp_path), cache="never", classes=["no", "yes"])
    assert isinstance(data.train, OnDisk)
    name = Path(data.train.names[1]).name
    picture(tmp_path / "masks" / name, 77)
    with pytest.raises(
        DataError, match=rf"masks/{name}: mask colours \[77,77,77\] are no class, allowed are \[0,0,0\]"
    ):
        data.train[1]


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        ({"ignore_index": -1}, "ignore_index: -1 must be from 0 to 255"),
        ({"classes": ["a"]}, "classes: .* at least two"),
        ({"colors": [[0, 0, 0], [0, 0, 300]]}, "colors: .* each from 0 to 255"),
        ({"colors": [[0, 0, 0], [0, 0, 0]]}, "colors: .* two different"),
        ({"colors": [[0, 0, 0], [1, 1, 1]], "classes": ["a", "b", "c"]}, "colors: 2 colours for 3 classes"),
    ],
)
def test_mask_arguments_out_of_range_are_refused_by_name(tmp_path: Path, arguments: dict[str, Any], start: str) -> None:
    with pytest.raises(ValueError, match=f"^{start}"):
        image_mask_folder(str(pairs(tmp_path)), **arguments)


def test_the_summary_says_what_was_found(tmp_path: Path) -> None:
    data: Data = image_mask_folder(str(pairs(tmp_path)), rotate=True)
    assert data.summary == (
        "image_mask_folder: 5 training and 1 validation pictures, 8x12 rgb, "
        "2 classes (grey levels 0, 255), in memory, augmentation: flip, rotate"
    )
