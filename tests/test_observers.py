"""The hooks that come with the package: what they keep, and that they change nothing."""

from __future__ import annotations

import json
import logging
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.small import make_trainer, newest, timeless
from trainer import _hydra
from trainer.folder import RunFolder
from trainer.gradients import Clip
from trainer.observers import Code, Device, Histograms
from trainer.observers.histograms import histogram
from trainer.overrides import check
from trainer.tracking.beside import send_code
from trainer.tracking.journal import Journal
from trainer.tracking.mailbox import Mailbox


def trained(path: Path, **options: Any) -> list[dict[str, Any]]:
    folder = RunFolder(path)
    options = {"accumulate": 2, "clip": Clip(norm=1e-3), "log_every": "3steps", **options}
    make_trainer(folder=folder, trackers=[Journal(folder)], **options).fit()
    return [json.loads(line) for line in folder.metrics.read_text().splitlines()]


def test_histograms_are_those_of_the_update_and_leave_every_bit_as_it_is(tmp_path: Path) -> None:
    plain = trained(tmp_path / "plain")
    hooked = trained(tmp_path / "hooked", hooks=[Histograms(every="2steps")])
    assert timeless(hooked) == timeless(plain)
    (weights, state), (same, others) = newest(tmp_path / "hooked"), newest(tmp_path / "plain")
    assert weights == same
    assert state | {"journal": 0} == others | {"journal": 0}, "but for the journal's length, which tells the time"
    lines = [json.loads(line) for line in (tmp_path / "hooked/histograms.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6], "the next row of each"
    names = ("0/weight", "0/bias", "1/weight", "1/bias", "4/weight", "4/bias")
    assert set(lines[0]) == {"step", *(f"{kind}/{name}" for kind in ("gradients", "weights") for name in names)}
    gradients = [entry for name, entry in lines[0].items() if name.startswith("gradients")]
    assert [sum(entry["counts"]) for entry in gradients] == [24, 8, 8, 8, 8, 1]
    assert max(abs(edge) for entry in gradients for edge in entry["edges"] if len(set(entry["counts"])) > 2) <= 1e-3
    last = torch.load(sorted((tmp_path / "hooked/checkpoints").glob("step-*"))[-1] / "weights.pt", weights_only=True)
    edges = lines[-1]["weights/0/weight"]["edges"]
    assert (edges[0], edges[-1]) == (last["0.weight"].min(), last["0.weight"].max()), "those after the update"


def test_a_histogram_of_a_tensor_counts_as_numpy_does() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    found = histogram(torch.cat([values, torch.tensor([float("nan"), float("inf")])]), 20)
    counts, edges = np.histogram(values.double().numpy(), 20)
    assert found.counts == counts.tolist()
    np.testing.assert_allclose(found.edges, edges)
    assert histogram(torch.full((5,), 3.0), 4).counts == [0, 0, 5, 0]
    assert histogram(torch.full((5,), float("nan")), 4).counts == [0, 0, 0, 0]


def test_several_hooks_are_chosen_in_one_word_and_a_wrong_one_is_told() -> None:
    cfg = check(["experiment=digits", "hooks=[histograms,device,code]", "hooks.histograms.every=100steps"])
    made = _hydra.instantiate(cfg.hooks, "hooks")
    assert {name: type(hook) for name, hook in made.items()} == {
        "histograms": Histograms, "device": Device, "code": Code,
    }  # fmt: skip
    for wrong, told in {"what": "gradient", "every": "10min", "bins": 0}.items():
        with pytest.raises(ValueError, match=f"{wrong}: "):
            Histograms(**{wrong: told})  # type: ignore[arg-type]


def test_without_a_gpu_the_device_hook_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="trainer"):
        rows = trained(tmp_path, hooks=[Device(seconds=1e-9)])
    assert caplog.text.count("there is no CUDA GPU to watch") == 1
    assert not [key for row in rows for key in row if "device" in key]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_device_hook_tells_what_its_memory_holds() -> None:
    held = torch.ones(1 << 20, device="cuda")
    found = Device().look(held.device)
    assert found["device/memory_peak"] >= found["device/memory_allocated"] > 0


def tree(path: Path) -> None:
    for name in ("model.py", "lib/net.py", ".env", ".hidden.py", ".venv/x.py", "py311/y.py", "notes.txt", "runs/z.py",
                 "out/run-1/code/old.py", "big.py"):  # fmt: skip
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name)
    (path / "py311/pyvenv.cfg").touch()
    (path / "out/run-1/metrics.jsonl").touch()


def kept(run: Path) -> list[str]:
    return sorted(path.relative_to(run / "code").as_posix() for path in (run / "code").rglob("*") if path.is_file())


@pytest.mark.parametrize("git", [False, True])
def test_the_code_is_kept_without_secrets_environments_and_runs(
    git: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree(tmp_path)
    (tmp_path / ".gitignore").write_text("py311\nbig.py\nruns\n")
    if git:
        subprocess.run(["git", "init", "-q", tmp_path], check=True)
    run = RunFolder(tmp_path / "out/run-2")
    run.create()
    trainer: Any = SimpleNamespace(folder=run)
    Code(root=str(tmp_path)).on_fit_start(trainer)
    assert kept(run.path) == sorted(["lib/net.py", "model.py", *([] if git else ["big.py"])])
    assert (run.code / "lib/net.py").read_text() == "lib/net.py"
    with caplog.at_level(logging.WARNING, logger="trainer"):
        Code(root=str(tmp_path), megabytes=1e-6).on_fit_start(trainer)
    assert "not kept; name a folder with less: hooks.code.root=FOLDER" in caplog.text


def test_code_that_wandb_does_not_take_is_told_and_ends_nothing(tmp_path: Path) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("a word of wandb's\nand its inside")

    run = RunFolder(tmp_path)
    Mailbox(run).clear()
    send_code(run, SimpleNamespace(project="p", log_code=refuse))
    assert [message.text for message in Mailbox(run).messages()] == [
        "the code of the run was not sent (a word of wandb's)"
    ]
