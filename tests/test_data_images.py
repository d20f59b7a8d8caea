"""Pictures of every mode become the pixels that they show, and come back from what the model sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.data.images import Preprocess, UnreadableError, open_picture, picture_size, pixels, spaced, statistics
from trainer.state import Stateful


def ramp(height: int = 6, width: int = 8) -> np.ndarray:
    return np.arange(height * width, dtype=np.uint8).reshape(height, width) * 5


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    wide = ramp().astype(np.uint16) * 257
    Image.fromarray(wide).save(tmp_path / "a.png")
    Image.fromarray(wide).save(tmp_path / "a.tif")
    for name in ("a.png", "a.tif"):
        assert np.array_equal(pixels(open_picture(tmp_path / name), "grey", (6, 8))[0], ramp())


@pytest.mark.parametrize("factor", [1.0, 1 / 255])
def test_float_tiffs_are_read_in_either_range(tmp_path: Path, factor: float) -> None:
    Image.fromarray((ramp() * factor).astype(np.float32)).save(tmp_path / "a.tiff")
    assert np.array_equal(pixels(open_picture(tmp_path / "a.tiff"), "grey", (6, 8))[0], ramp())


def test_transparent_parts_become_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    image.paste((10, 20, 30, 255), (0, 0, 2, 4))
    image.save(tmp_path / "a.png")
    read = pixels(open_picture(tmp_path / "a.png"), "rgb", (4, 4))
    assert read[:, 0, 0].tolist() == [10, 20, 30] and read[:, 0, 3].tolist() == [255, 255, 255]
    grey = pixels(Image.new("LA", (4, 4), (7, 0)), "grey", (4, 4))
    assert (grey == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "LA", "RGBA", "I", "HSV"])
@pytest.mark.parametrize("bands", ["grey", "rgb"])
def test_every_mode_becomes_the_bands_that_are_asked_for(mode: str, bands: str) -> None:
    image = Image.new("RGB", (5, 4), (255, 255, 255)).convert("L" if mode in ("I", "LA") else "RGB").convert(mode)
    read = pixels(image, bands, (4, 5))  # type: ignore[arg-type]
    assert read.shape == (1 if bands == "grey" else 3, 4, 5) and read.dtype == np.uint8 and read.min() > 250


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tiff", "bmp", "webp"])
def test_every_format_is_read(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (10, 6), (255, 0, 0)).save(tmp_path / f"a.{suffix}")
    read = pixels(open_picture(tmp_path / f"a.{suffix}"), "rgb", (6, 10))
    assert np.abs(read.astype(int) - np.array([255, 0, 0])[:, None, None]).max() < 6
    assert picture_size(tmp_path / f"a.{suffix}") == (6, 10)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff"])
def test_pictures_are_turned_as_exif_says(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    array = np.zeros((16, 32, 3), np.uint8)
    array[:8, :16] = 255  # white in the corner that is stored first
    Image.fromarray(array).save(tmp_path / f"a.{suffix}", exif=exif, quality=95)
    size = picture_size(tmp_path / f"a.{suffix}")
    read = pixels(open_picture(tmp_path / f"a.{suffix}"), "grey", size)[0]
    assert size == ((32, 16) if orientation >= 5 else (16, 32))
    corners = [read[2, 2], read[2, -3], read[-3, -3], read[-3, 2]]
    assert int(np.argmax(corners)) == {1: 0, 2: 1, 3: 2, 4: 3, 5: 0, 6: 1, 7: 2, 8: 3}[orientation]


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:700])
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty.jpg").touch()
    for name, reason in {
        "cut.png": "truncated",
        "text.jpg": "no known picture format",
        "empty.jpg": "empty",
        "gone.jpg": "no such file",
    }.items():
        with pytest.raises(UnreadableError, match=f"{name}: cannot be read as a picture .*{reason}"):
            open_picture(tmp_path / name)


def test_preprocess_takes_pictures_arrays_and_tensors_alike() -> None:
    array = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    pre = Preprocess((6, 8), [0.4, 0.5, 0.6], [0.2, 0.25, 0.3])
    x = pre(Image.fromarray(array))
    assert x.shape == (1, 3, 6, 8) and x.dtype == torch.float32
    expected = (array / 255 - [0.4, 0.5, 0.6]) / [0.2, 0.25, 0.3]
    assert np.allclose(x[0].permute(1, 2, 0), expected, atol=1e-5)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    assert torch.equal(pre(array), x) and torch.equal(pre(tensor), x)
    assert torch.equal(pre(torch.stack([tensor, tensor])), torch.cat([x, x]))
    grey = Preprocess((3, 4), [0.5], [0.5])
    assert grey(array).shape == grey(array[..., 0]).shape == grey(tensor[0]).shape == (1, 1, 3, 4)


def test_preprocess_turns_an_opened_photo_as_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(ramp(16, 16)).save(tmp_path / "a.png", exif=exif)
    pre = Preprocess((16, 16), [0.5], [0.5])
    with Image.open(tmp_path / "a.png") as opened:
        assert torch.equal(pre(opened), pre(np.ascontiguousarray(np.rot90(ramp(16, 16), -1))))


def test_restore_undoes_the_normalisation() -> None:
    array = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    pre = Preprocess((6, 8), [0.4, 0.5, 0.6], [0.2, 0.25, 0.3])
    assert np.array_equal(pre.restore(pre(array)[0]), array)
    assert np.array_equal(pre.restore(pre(array)), array[None])
    grey = Preprocess((6, 8), [0.4], [0.2])
    assert np.array_equal(grey.restore(grey(array[..., 0])[0]), array[..., 0])


def test_preprocess_is_rebuilt_from_its_state() -> None:
    pre, other = Preprocess((6, 8), [0.4], [0.2]), Preprocess((2, 2), [0.1, 0.1, 0.1], [1, 1, 1])
    other.load_state_dict(pre.state_dict())
    assert isinstance(pre, Stateful)
    for copy in (other, Preprocess(**pre.state_dict())):
        assert copy.state_dict() == pre.state_dict() and copy.bands == "grey"
        assert torch.equal(copy(ramp()), pre(ramp()))


def test_preprocess_refuses_floats_and_bad_numbers() -> None:
    pre = Preprocess((6, 8), [0.4], [0.2])
    with pytest.raises(TypeError, match="uint8 values from 0 to 255; got float32"):
        pre(torch.zeros(1, 6, 8))
    with pytest.raises(ValueError, match="std: .* must be more than 0"):
        Preprocess((6, 8), [0.4], [0.0])
    with pytest.raises(ValueError, match="mean: .* 1 number"):
        Preprocess((6, 8), [0.4, 0.4], [0.1, 0.1])


def test_statistics_are_those_of_all_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 6), dtype=np.uint8)
    mean, std = statistics(iter(images))
    assert np.allclose(mean, (images / 255).mean(axis=(0, 2, 3)), atol=1e-6)
    assert np.allclose(std, (images / 255).std(axis=(0, 2, 3)), atol=1e-6)
    assert statistics(iter(images[::-1])) == (mean, std)
    assert statistics([np.full((1, 4, 4), 7, np.uint8)])[1] == [round(1 / 255, 6)]


def test_spaced_indices_reach_over_the_whole_set() -> None:
    assert spaced(3, 8) == [0, 1, 2] and spaced(100, 4) == [0, 25, 50, 75] and spaced(0) == []
