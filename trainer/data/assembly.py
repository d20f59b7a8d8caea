"""From a list of files to the two datasets: every file checked, kept in memory if it fits, normalisation measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from trainer.data.augment import Augment
from trainer.data.base import Data
from trainer.data.files import Findings, OnDisk, Reader, Sample, read_all, split
from trainer.data.images import Bands, Preprocess, picture_size, spaced, statistics
from trainer.data.masks import Color, MaskCode
from trainer.data.memory import Memory
from trainer.errors import DataError

Cache = Literal["auto", "always", "never"]

_FITS = 1_000_000_000  # bytes of pixels that `cache=auto` keeps in memory


@dataclass(frozen=True)
class Settings:
    """The arguments that both kinds of folders share."""

    val_fraction: float
    size: int | list[int] | None
    bands: Bands
    augment: Augment
    mean: list[float] | None
    std: list[float] | None
    skip_bad: bool
    cache: Cache
    num_workers: int
    split_seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"val_fraction: {self.val_fraction} must be at least 0 and less than 1")
        sides = [self.size] if isinstance(self.size, int) else self.size
        if sides is not None and (not 1 <= len(sides) <= 2 or min(sides) < 1):
            raise ValueError(f"size: {self.size} must be a number of pixels, or [height, width]")
        if self.bands not in ("grey", "rgb"):
            raise ValueError(f"bands: {self.bands!r} must be grey or rgb")
        if self.cache not in ("auto", "always", "never"):
            raise ValueError(f"cache: {self.cache!r} must be auto, always or never")
        if self.num_workers < 0:
            raise ValueError(f"num_workers: {self.num_workers} must be at least 0")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.channels:
                raise ValueError(f"{name}: {values} must have {self.channels} numbers for bands={self.bands}")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std: {self.std} must be more than 0")

    @property
    def channels(self) -> int:
        return 1 if self.bands == "grey" else 3

    @property
    def shape(self) -> tuple[int, int] | None:
        if self.size is None:
            return None
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[-1])

    def in_memory(self, pixel_bytes: int) -> bool:
        return self.cache == "always" or (self.cache == "auto" and pixel_bytes <= _FITS)


@dataclass(frozen=True)
class MaskWords:
    """What the config says of the masks."""

    classes: list[str] | None
    colors: list[Color] | None
    ignore_index: int | None


def assemble(
    kind: str, settings: Settings, parts: Sequence[list[Sample]], facts: dict[str, Any], words: MaskWords | None
) -> Data:
    """The data of one part, which is split, or of two (training, validation).

    Args:
        facts: what is known of the classes; for masks it is found out.
        words: for samples with masks.

    Raises:
        DataError: whatever is wrong with the files, all at once.
    """
    findings = Findings(settings.skip_bad)
    everything = [sample for part in parts for sample in part]
    shape = _common_shape(everything, settings, findings)
    reader = Reader(settings.bands, shape)
    bytes_each = shape[0] * shape[1] * (settings.channels + (words is not None))
    in_memory = settings.in_memory(len(everything) * bytes_each)
    images: dict[str, np.ndarray] = {}
    targets: dict[str, np.ndarray] = {}
    masks = _read_masks(reader, findings.kept(everything), in_memory, findings) if words else {}
    if in_memory:
        images = read_all(reader.image, findings.kept(everything), findings)
    findings.refuse()
    if words is not None:
        reader, facts = _learn_masks(reader, masks, words)
    if in_memory:
        targets = read_all(lambda s: reader.target(s, masks.get(s.name)), findings.kept(everything), findings)
        findings.refuse()
    train, val = _two_sets([findings.kept(part) for part in parts], settings)
    preprocess = _preprocess(reader, train, images, settings, findings)
    findings.tell()

    def dataset(part: list[Sample], augment: Augment | None) -> Memory | OnDisk:
        if not in_memory:
            return OnDisk(part, reader, preprocess, augment, settings.skip_bad)
        names = [sample.name for sample in part]
        return Memory(_taken(images, names), _taken(targets, names), names, preprocess, augment)

    if words is None:
        labels = Counter(sample.label for sample in train)
        facts = {**facts, "class_counts": tuple(labels[index] for index in range(facts["num_classes"]))}
    facts = {**_picture_facts(preprocess), **facts, "preprocess": preprocess}
    told = [
        f"{kind}: {len(train)} training and {len(val)} validation pictures, {shape[0]}x{shape[1]} {settings.bands}",
        f"{facts['num_classes']} classes" + (f" ({reader.code.words})" if reader.code else ""),
        "in memory" if in_memory else "read from disk",
        f"augmentation: {settings.augment}",
        *([f"{len(findings.left_out)} unreadable left out"] if findings.left_out else []),
    ]
    return Data(
        train=dataset(train, settings.augment),
        val=dataset(val, None) if val else None,
        facts=facts,
        num_workers=settings.num_workers,
        summary=", ".join(told),
        names=[sample.name for sample in [*train, *val]],
        files=_files([*train, *val]),
    )


def _files(samples: Sequence[Sample]) -> dict[str, Path]:
    masks = {f"mask of {sample.name}": sample.mask for sample in samples if sample.mask is not None}
    return {sample.name: sample.image for sample in samples} | masks


def _picture_facts(preprocess: Preprocess) -> dict[str, Any]:
    height, width = preprocess.size
    return {
        "in_channels": preprocess.channels,
        "image_size": (height, width),
        "in_features": preprocess.channels * height * width,
    }


def _common_shape(samples: list[Sample], settings: Settings, findings: Findings) -> tuple[int, int]:
    """(height, width) of all pictures, from the files' headers alone; a mask must be as large as its picture."""
    sizes = read_all(lambda s: picture_size(s.image), samples, findings)
    of_masks = read_all(lambda s: picture_size(s.mask or s.image), [s for s in samples if s.mask], findings)
    for sample in samples:
        size, other = sizes.get(sample.name), of_masks.get(sample.name)
        if size and other and size != other:
            turned = "; the picture is turned by its EXIF tag" if size == other[::-1] else ""
            findings.problems.append(
                f"{sample.image} is {size[1]}x{size[0]} and its mask {sample.mask} is {other[1]}x{other[0]}{turned}"
            )
    common = Counter(sizes[sample.name] for sample in findings.kept(samples) if sample.name in sizes).most_common()
    if settings.shape is None and len(common) > 1:
        shown = ", ".join(f"{width}x{height} ({n})" for (height, width), n in common[:3])
        findings.problems.append(
            f"data.size: the pictures are of {len(common)} sizes, {shown}{', ...' if len(common) > 3 else ''}; "
            "set data.size=128, or data.size=[height,width]"
        )
    findings.refuse()
    if not common:
        raise DataError(f"data.root: none of the {len(samples)} files can be read, such as {samples[0].image}")
    return settings.shape or common[0][0]


def _read_masks(reader: Reader, samples: list[Sample], in_memory: bool, findings: Findings) -> dict[str, Any]:
    """All masks, or as many as show how they are coded."""
    return read_all(reader.mask, samples if in_memory else [samples[i] for i in spaced(len(samples))], findings)


def _learn_masks(reader: Reader, masks: Mapping[str, Any], words: MaskWords) -> tuple[Reader, dict[str, Any]]:
    """The reader that knows how masks are coded, and the facts of the classes."""
    code = MaskCode.learn(list(masks.values()), words.classes, words.colors, words.ignore_index)
    names = tuple(words.classes or [f"class_{i}" for i in range(len(code.colors))])
    facts: dict[str, Any] = {"num_classes": len(names), "classes": names, "colors": code.colors}
    if words.ignore_index is not None:
        facts["ignore_index"] = words.ignore_index
    return replace(reader, code=code), facts


def _two_sets(parts: Sequence[list[Sample]], settings: Settings) -> tuple[list[Sample], list[Sample]]:
    train, val = parts if len(parts) == 2 else split(parts[0], settings.val_fraction, settings.split_seed)
    if not train or not val and (len(parts) == 2 or settings.val_fraction):
        raise DataError(
            f"data.root: {len(train)} training and {len(val)} validation pictures; "
            "each set needs at least one (data.val_fraction=0 trains without validation)"
        )
    return train, val


def _preprocess(
    reader: Reader, train: list[Sample], images: Mapping[str, np.ndarray], settings: Settings, findings: Findings
) -> Preprocess:
    mean, std = settings.mean, settings.std
    if mean is None or std is None:
        chosen = [train[i] for i in spaced(len(train))]
        found = images or read_all(reader.image, chosen, Findings(settings.skip_bad, findings.problems))
        findings.refuse()
        measured = statistics(found[sample.name] for sample in chosen if sample.name in found)
        mean, std = mean or measured[0], std or measured[1]
    return Preprocess(reader.size, mean, std)


def _taken(arrays: dict[str, np.ndarray], names: Sequence[str]) -> Tensor:
    """One tensor of the named arrays, which are let go one by one: large data is never in memory twice."""
    first = arrays[names[0]]
    whole = np.empty((len(names), *first.shape), first.dtype)
    for i, name in enumerate(names):
        whole[i] = arrays.pop(name)
    return torch.from_numpy(whole)
