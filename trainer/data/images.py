"""Pictures: from any file or array to the pixels that are kept, from pixels to what a model sees, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from trainer.errors import DataError
from trainer.state import State

Bands = Literal["grey", "rgb"]

T = TypeVar("T")

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".gif", ".tif", ".tiff", ".bmp", ".webp"})
_ORIENTATION = 0x0112  # the EXIF tag
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
_SAMPLED = 256  # pictures that are enough to measure mean and deviation, or to learn how masks are coded


class UnreadableError(DataError):
    """One file that cannot be read as a picture."""


def open_picture(path: Path) -> Image.Image:
    """The decoded picture of a file, turned as its camera was held; the first frame of an animation.

    Raises:
        UnreadableError: the file is missing, damaged, or no picture.
    """

    def decoded(image: Image.Image) -> Image.Image:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return image

    return _opened(path, decoded)


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) as the camera was held, from the file's header alone where that is possible.

    Raises:
        UnreadableError: the file is missing, or no picture.
    """

    def size(image: Image.Image) -> tuple[int, int]:
        # Pillow would decode a whole PNG in search of EXIF data behind the pixels, where hardly any program writes it.
        unturned = image.format == "PNG" and "exif" not in image.info
        if unturned or image.getexif().get(_ORIENTATION) not in _SIDEWAYS:
            return image.height, image.width
        if image.format == "TIFF":  # whether its header is turned already depends on Pillow's version
            ImageOps.exif_transpose(image, in_place=True)
            return image.height, image.width
        return image.width, image.height

    return _opened(path, size)


def _opened(path: Path, use: Callable[[Image.Image], T]) -> T:
    try:
        with path.open("rb") as file:
            return use(Image.open(file))
    except MemoryError:
        raise
    except Exception as error:  # the decoders raise nearly everything on damaged files: SyntaxError, struct.error, ...
        raise UnreadableError(f"{path}: cannot be read as a picture ({_reason(error, path)})") from error


def _reason(error: Exception, path: Path) -> str:
    if not path.exists():
        return "no such file"
    if path.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "its content is no known picture format"
    return str(error) or type(error).__name__


def pixels(image: Image.Image, bands: Bands, size: tuple[int, int]) -> np.ndarray:
    """uint8 (C, H, W) of a picture of any mode, scaled to `size` = (H, W) with antialiasing.

    16-bit values are divided by 257 (not clipped), floats in 0..1 multiplied by 255, transparent parts become white.
    """
    image = _eight_bit(image)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if bands == "grey" else "RGB")
    if (image.height, image.width) != size:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _eight_bit(image: Image.Image) -> Image.Image:
    if not image.mode.startswith(("I", "F")):
        return image
    array = np.nan_to_num(np.asarray(image).astype(np.float64))
    top = array.max(initial=0.0)
    if image.mode == "F" and top <= 1:
        array = array * 255
    elif image.mode.startswith("I;16") or top > 255:
        array = array / 257
    return Image.fromarray(np.clip(np.rint(array), 0, 255).astype(np.uint8))


class Preprocess:
    """From a picture to what the model sees: grey or RGB, resized, `(x / 255 - mean) / std`. And back, for display.

    `model(preprocess(Image.open(path)))` is all that inference takes; `Preprocess(**state_dict)` rebuilds one.

    Args:
        size: (height, width) that the model was trained on.
        mean, std: of each channel, in units of the full range (0 to 1): one number for grey, three for RGB.
    """

    def __init__(self, size: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) not in (1, 3) or len(mean) != len(std):
            raise ValueError(f"mean: {list(mean)} and std: {list(std)} must both have 1 number (grey) or 3 (RGB)")
        if min(std) <= 0:
            raise ValueError(f"std: {list(std)} must be more than 0")
        self.size = (int(size[0]), int(size[1]))
        self.mean, self.std = [float(m) for m in mean], [float(s) for s in std]
        shape = (len(mean), 1, 1)
        self._scale = torch.tensor([1 / (255 * s) for s in self.std]).view(shape)
        self._shift = torch.tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)]).view(shape)

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def bands(self) -> Bands:
        return "grey" if self.channels == 1 else "rgb"

    def __call__(self, image: Image.Image | np.ndarray | Tensor) -> Tensor:
        """float32 (1, C, H, W) of a PIL image, a uint8 array (H, W) or (H, W, C), or a uint8 tensor (C, H, W).

        A tensor (N, C, H, W) gives as many.

        Raises:
            TypeError: an array or tensor is not uint8 (uint16 is allowed for arrays).
        """
        if isinstance(image, Tensor) and image.ndim == 4:
            return torch.cat([self(one) for one in image])
        array = pixels(_as_picture(image), self.bands, self.size)
        return self.normalise(torch.from_numpy(array.copy())[None])

    def normalise(self, images: Tensor) -> Tensor:
        """float32 (N, C, H, W) from pixels 0..255 of the right size, uint8 or float32 (which is changed in place)."""
        return images.to(torch.float32).mul_(self._scale).add_(self._shift)

    def restore(self, images: Tensor) -> np.ndarray:
        """uint8 (H, W, 3), or (H, W) for grey, from a model's input (C, H, W); with N in front if there is one."""
        x = (images.detach().to("cpu", torch.float32) - self._shift) / self._scale
        array = x.round().clamp(0, 255).to(torch.uint8).movedim(-3, -1).numpy()
        return array[..., 0] if self.channels == 1 else array

    def state_dict(self) -> State:
        return {"size": list(self.size), "mean": list(self.mean), "std": list(self.std)}

    def load_state_dict(self, state: State) -> None:
        self.__init__(**state)  # type: ignore[misc]  # the state is the constructor's arguments


def _as_picture(image: Image.Image | np.ndarray | Tensor) -> Image.Image:
    if isinstance(image, Image.Image):
        return ImageOps.exif_transpose(image)
    if isinstance(image, Tensor):
        array: np.ndarray = image.detach().cpu().numpy()
        array = array.transpose(1, 2, 0) if array.ndim == 3 else array
    else:
        array = image
    if array.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"a picture holds uint8 values from 0 to 255; got {array.dtype}")
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else np.ascontiguousarray(array))


def statistics(images: Iterable[np.ndarray]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, in units of the full range, over uint8 pictures (C, H, W).

    Counted in whole numbers, so the result does not depend on the order or the machine.
    """
    counts: Any = 0
    for image in images:
        counts = counts + np.stack([np.bincount(channel.ravel(), minlength=256) for channel in image])
    levels = np.arange(256) / 255
    mean = (counts * levels).sum(axis=1) / counts.sum(axis=1)
    variance = (counts * (levels - mean[:, None]) ** 2).sum(axis=1) / counts.sum(axis=1)
    std = np.maximum(np.sqrt(variance), 1 / 255)  # one flat colour has no deviation to divide by
    return [round(float(m), 6) for m in mean], [round(float(s), 6) for s in std]


def spaced(count: int, most: int = _SAMPLED) -> list[int]:
    """At most `most` indices below `count`, evenly spaced."""
    return [i * count // min(count, most) for i in range(min(count, most))]
