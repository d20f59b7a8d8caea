"""Models and data as wandb artifacts, with the real client: what arrives, when, and that a run goes on from it."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

import trainer
from tests import test_shipper as small
from tests.small import newest, timeless
from tests.wandb_server import Run, WandbServer
from trainer import cli
from trainer.data.base import Data
from trainer.data.folders import image_folder
from trainer.folder import RunFolder
from trainer.tracking.artifacts import data_name, model_name
from trainer.tracking.mailbox import Answer, Mailbox
from trainer.tracking.shipper import Wandb

ROOT = Path(__file__).resolve().parents[1]
WORDS = ["experiment=digits", "model=mlp", "epochs=3", "log_every=20steps", "world.threads=1", "name=r",
         "early_stopping.monitor=val/loss", "early_stopping.mode=max"]  # fmt: skip
BEST = "checkpoints/step-000000045"  # with the largest loss: of the first epoch


@pytest.fixture(scope="module")
def server() -> Iterator[WandbServer]:
    with WandbServer() as server:
        yield server
        assert server.unknown == [], "the client asked for something that this server does not know"


def typed(server: WandbServer, path: Path, *words: str, **env: str) -> int:
    """Types `trainer WORDS` in a working directory."""
    path.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        for name, value in server.env(**env).items():
            patch.setenv(name, value)
        return cli.train(words)


@pytest.fixture(scope="module")
def trained(server: WandbServer, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that nothing interrupts, and nothing but its folder beside it."""
    path = tmp_path_factory.mktemp("trained")
    assert typed(server, path, *WORDS, WANDB_PROJECT="p") == 0
    assert [each.name for each in path.iterdir()] == ["runs"]
    assert list(Path(server.home).rglob("*")) == [], "wandb wrote into the home folder"
    return RunFolder(path / "runs/r")


def run_of(server: WandbServer, folder: RunFolder) -> Run:
    return server.run(folder.read_status()["wandb_id"])


def artifacts(server: WandbServer, run: Run, kind: str) -> list[dict[str, Any]]:
    return [each for each in run.artifacts if each["type"] == kind]


def content(server: WandbServer, artifact: dict[str, Any]) -> dict[str, bytes]:
    prefix = f"artifact/{artifact['id']}/"
    return {key.removeprefix(prefix): blob for key, blob in server.backend.blobs.items() if key.startswith(prefix)}


# --------------------------------------------------------------------------------------------------- a run and its end


def test_the_best_checkpoint_is_on_the_website_as_the_run_folder_that_it_was_saved_in(
    server: WandbServer, trained: RunFolder, tmp_path: Path
) -> None:
    run = run_of(server, trained)
    (model,) = artifacts(server, run, "model")
    assert (model["name"], model["state"]) == (f"model-{run.id}", "COMMITTED")
    assert sorted(model["aliases"]) == ["best", "latest", "step-45"]
    files = content(server, model)
    for name in ("config.yaml", "checkpoints/best", *(f"{BEST}/{each}" for each in ("weights.pt", "state.pt"))):
        assert files.pop(name) == (trained.path / name).read_bytes()
    rows = small.journal_of(trained)
    assert [json.loads(line) for line in files["metrics.jsonl"].splitlines()] == rows[:3]
    assert sorted(files) == [f"{BEST}/manifest.json", "metrics.jsonl", "status.json"]
    status = json.loads(files["status.json"])
    assert (status["state"], status["wandb_id"], "host" in status) == ("interrupted", run.id, False)
    row, status = rows[2], trained.read_status()
    told = {key: value for key, value in row.items() if key not in ("step", "epoch", "time")}
    assert model["metadata"] == {
        **{"run": "r", "group": None, "step": 45, "epoch": 1, "monitor": "val/loss", "mode": "max"},
        **{"value": row["val/loss"], "metrics": told, "config_hash": status["config_hash"]},
    }
    for name, blob in content(server, model).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(blob)
    best = torch.load(trained.path / BEST / "weights.pt")
    assert all(torch.equal(value, best[name]) for name, value in trainer.load(tmp_path).state_dict().items())


def test_no_copy_of_a_model_stays_on_the_disk(server: WandbServer, trained: RunFolder) -> None:
    model = artifacts(server, run_of(server, trained), "model")[0]
    sent = set(content(server, model).values())
    for place in (trained.wandb, trained.shipper):
        assert not [path for path in place.rglob("*") if path.is_file() and path.read_bytes() in sent]


def test_the_data_is_noted_as_what_the_run_used_and_none_of_it_is_sent(server: WandbServer, trained: RunFolder) -> None:
    run = run_of(server, trained)
    (data,) = artifacts(server, run, "dataset")
    assert (data["name"], data["state"], list(data["files"])) == ("digits", "COMMITTED", ["data.json"])
    facts = {"samples": 1437, "val_samples": 360, "digest": run.config["run"]["data"]}
    assert {key: data["metadata"][key] for key in facts} == facts
    assert len(facts["digest"]) == 16
    assert server.ops("graphql").count("UseArtifact") >= 1


def test_a_run_that_goes_on_from_its_model_in_an_empty_folder_ends_with_the_same_bits(
    server: WandbServer, trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(server, trained)
    rows, runs = run.history, len(server.runs)
    name = f"wandb:p/{model_name(run.id)}:best"
    assert typed(server, tmp_path, f"resume={name}") == 0
    folder = RunFolder(tmp_path / "runs/r")
    said = capsys.readouterr().out
    assert "resumed    at step 45, after 1 epoch\n" in said
    (weights, state), (expected, wanted) = newest(folder.path), newest(trained.path)
    assert weights == expected
    assert {**state, "journal": None} == {**wanted, "journal": None}  # its length, in which the time stands
    assert timeless(small.journal_of(folder)) == timeless(small.journal_of(trained))
    assert (run.rewinds, len(server.runs), run.overwritten) == ([("_step", 45)], runs, 0)
    assert small.plain(bare(run.history)) == small.journal_of(folder)
    assert [row["_step"] for row in run.history] == [row["_step"] for row in rows]
    assert not (tmp_path / "runs/.download").exists()

    assert typed(server, tmp_path, f"resume={name}", "name=r") == 2
    assert "name: runs/r is there already" in capsys.readouterr().err


def bare(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what is shown beside the curves."""
    return [{k: v for k, v in row.items() if k not in ("val/worst", "val/confusion")} for row in rows]


# ------------------------------------------------------------------------------------------------------- what is wrong

ASK = """
import json, sys
from pathlib import Path
from trainer.tracking import shipper
work = Path("work")
for name in sys.argv[2:]:
    work.mkdir()
    shipper.main(["--download", name, sys.argv[1], "", str(work)])
    print((work / "answer.json").read_text())
    work.rename(name.replace("/", "-"))
"""


def other(server: WandbServer, model: dict[str, Any], name: str, without: str = "", spoilt: str = "") -> str:
    """The same model under another name, without some files, or with one whose bytes are others; its full name."""
    made = copy.deepcopy(model)
    files = {file: size for file, size in model["files"].items() if file != without}
    made |= {"id": name, "name": name, "aliases": ["best"], "files": files, "metadata": {"run": name}}
    made["manifest"]["contents"].pop(without, None)
    server.backend.artifacts[name] = made
    server.backend.blobs[f"manifest/{name}"] = json.dumps(made["manifest"]).encode()
    for file, blob in content(server, model).items():
        server.backend.blobs[f"artifact/{name}/{file}"] = blob[:-1] + b"?" if file == spoilt else blob
    return f"p/{name}:best"


def test_what_is_no_model_of_a_run_is_told_and_leaves_no_folder(
    server: WandbServer, trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = artifacts(server, run_of(server, trained), "model")[0]
    foreign = other(server, model, "foreign", without=f"{BEST}/manifest.json")
    cases = {
        "p/absent:best": (2, "wandb has no artifact p/absent:best for you (artifact membership 'absent:best' not foun"),
        "p/digits:latest": (2, "p/digits:latest is an artifact of type dataset, and one of type model is needed"),
        foreign: (5, "p/foreign:best holds no checkpoint that this trainer has made"),
        other(server, model, "script", without="config.yaml"): (2, "p/script:best holds no config.yaml: a script made"),
        other(server, model, "spoilt", spoilt=f"{BEST}/state.pt"): (2, "p/spoilt:best did not arrive whole (Digest mi"),
        f"p/{model['name']}:best": (2, f"{trained} is there already; type resume={trained} to go on with it"),
    }
    words = [sys.executable, "-c", ASK, str(trained.path.parent), *cases]
    env = {**server.env(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=True)
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for (code, text), answer in zip(cases.values(), said, strict=True):
        assert (answer["exit_code"], answer["problem"][: len(text)]) == (code, text)

    assert typed(server, tmp_path / "here", f"resume=wandb:{foreign}") == 5
    assert "resume: p/foreign:best holds no checkpoint that this trainer has made" in capsys.readouterr().err
    assert list((tmp_path / "here").iterdir()) == []

    assert typed(server, tmp_path / "here", f"resume=wandb:p/{model['name']}:best", "epochz=3") == 2
    assert "did you mean epochs?" in capsys.readouterr().err
    assert list((tmp_path / "here").rglob("config.yaml")) == [], "the corrected words must find their place free"


@pytest.mark.parametrize("name", ["a/b/c/d:best", "", "p//m", "p/m:v1:v2"])
def test_a_name_that_is_none_is_told_with_what_to_type(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.train([f"resume=wandb:{name}"]) == 2
    assert "names no model; type resume=wandb:ENTITY/PROJECT/NAME:ALIAS" in capsys.readouterr().err
    assert cli.train(["-m", "resume=wandb:p/m:best", "seed=1,2"]) == 2
    assert " is one run, and -m starts a sweep; leave out -m" in capsys.readouterr().err
    assert not Path("runs").exists()


# ---------------------------------------------------------------------------------------------------- when it is sent

SEND = """
import json, shutil, sys
from dataclasses import replace
from pathlib import Path
import wandb
from trainer.folder import RunFolder
from trainer.tracking.mailbox import Done, Mailbox, Spec
from trainer.tracking.attempts import write_into
from trainer.tracking.sender import Sender

def run(id, every, mode="online"):
    folder = RunFolder(id)
    folder.create()
    folder.metrics.write_text("".join(json.dumps({"step": n, "val/loss": 1 / n}) + "\\n" for n in (1, 2, 3)))
    box = Mailbox(folder)
    box.clear()
    data = {"data": {"_target_": "x.image_folder", "root": f"{id}/cats"}, "run": {"samples": 3, "data": "abc"}}
    how = dict(config=data, attempt=1, monitor="val/loss", model_every=every, finish_timeout=9)
    spec = Spec(id, id, "q", mode, str(folder.path), 1, **how)
    box.write(spec)
    write_into(spec)
    sender = Sender(wandb, folder, spec, child=False)
    sender.open()
    return folder, sender

def better(folder, step):
    path = folder.checkpoints / f"step-{step:09d}"
    path.mkdir(parents=True)
    (path / "weights.pt").write_bytes(bytes([step]) * 5000)
    (path / "manifest.json").write_text(json.dumps({"step": step, "epoch": step}))
    (folder.checkpoints / "best").write_text(path.name)
    return path

def end(sender):
    sender.pump()
    sender.close(Done(exit_code=0))
    sender.box.write(Done(exit_code=0))

often, sender = run("often", 1e-9)
for step in (1, 2):
    path = better(often, step)
    sender.pump()
    sender.pump()
    if step == 1:
        shutil.rmtree(path)
end(sender)

seldom, sender = run("seldom", 3600.0)
for step in (1, 2):
    better(seldom, step)
    sender.pump()
end(sender)

off, sender = run("off", None)
better(off, 1)
end(sender)

gone, sender = run("gone", 0.0)
weights = better(gone, 1) / "weights.pt"
weights.unlink()
weights.symlink_to("nowhere")
end(sender)

away, sender = run("away", 0.0, "offline")
better(away, 3)
end(sender)
print(sender.sent.dir)
"""


AGAIN = "import sys; from trainer.tracking.shipper import main; main(['--look', 'answers']); main(sys.argv[1:])"


@pytest.fixture(scope="module")
def several(server: WandbServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Where five runs without a training lie, and the offline one's files of wandb."""
    before = server.ops("graphql").count("CreateArtifact")
    path = tmp_path_factory.mktemp("several")
    env = {**server.env(), "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", SEND]
    done = subprocess.run(words, cwd=path, env=env, stdout=-1, text=True, timeout=60, check=True)
    made = server.ops("graphql").count("CreateArtifact") - before
    assert made == 3 + 1 + 3, "often and at its end, seldom at its end, and the data of three runs"
    return path, Path(done.stdout.split()[-1])


def test_while_training_a_better_one_is_sent_if_it_is_time_and_the_same_one_once(
    server: WandbServer, several: tuple[Path, Path]
) -> None:
    first, second = artifacts(server, server.run("often"), "model")
    assert [sorted(each["aliases"]) for each in (first, second)] == [["step-1"], ["best", "latest", "step-2"]]
    for step, model in ((1, first), (2, second)):  # the first was removed while it was on its way
        assert content(server, model)[f"checkpoints/step-{step:09d}/weights.pt"] == bytes([step]) * 5000
        assert len(content(server, model)["metrics.jsonl"].splitlines()) == model["metadata"]["step"] == step
    assert not [path for path in (several[0] / "often/wandb/data").rglob("*") if path.is_file()]
    (only,) = artifacts(server, server.run("seldom"), "model")
    assert only["metadata"]["step"] == 2
    assert artifacts(server, server.run("off"), "model") == []


def test_the_same_folder_of_data_is_one_version_wherever_it_lies_and_is_only_pointed_at(
    server: WandbServer, several: tuple[Path, Path]
) -> None:
    (first,), (second,) = (artifacts(server, server.run(id), "dataset") for id in ("often", "seldom"))
    assert (first is second, first["name"], list(first["files"])) == (True, "image_folder-cats", ["data.json"])
    found = json.loads(server.backend.blobs[f"manifest/{first['id']}"])["contents"]["root"]
    assert (found["ref"], found["digest"]) == ((several[0] / "often/cats").as_uri(), "abc")
    assert artifacts(server, server.run("off"), "dataset") == []


def test_a_checkpoint_that_goes_away_meanwhile_is_told_and_the_run_arrives_all_the_same(
    server: WandbServer, several: tuple[Path, Path]
) -> None:
    said = [message.text for message in Mailbox(RunFolder(several[0] / "gone")).messages() if message.kind == "warning"]
    assert len(said) == 1
    assert said[0].startswith("the model was not sent (Path is not a file: ")
    run = server.run("gone")
    assert (run.state, len(run.history), artifacts(server, run, "model")) == ("finished", 3, [])


def test_a_model_that_a_sync_of_an_offline_run_lost_without_a_word_is_missed_and_sent(
    server: WandbServer, several: tuple[Path, Path]
) -> None:
    folder, wandb = RunFolder(several[0] / "away"), Path(sys.executable).with_name("wandb")
    server.fail("storage", 403)
    server.exec([str(wandb), "sync", str(several[1])], capture_output=True)
    run = server.run("away")
    assert (run.state, len(run.history), artifacts(server, run, "model")[0]["state"]) == ("finished", 3, "PENDING")

    def again() -> tuple[bool, Answer]:
        """Whether the server had everything, and what came of sending it once more."""
        env = {**server.env(), "PYTHONPATH": str(ROOT)}
        words = [sys.executable, "-c", AGAIN, str(folder.path)]
        subprocess.run(words, cwd=several[0], input=str(folder.path), env=env, text=True, timeout=60, check=True)
        looked = json.loads((several[0] / "answers").read_text().splitlines()[-1])
        return looked["complete"], Mailbox(folder).read(Answer) or Answer()

    there, answer = again()
    assert (there, answer.good) == (False, False)
    assert answer.text.startswith("the model did not arrive (")
    assert answer.text.endswith("; the server answered 403")
    server.heal()
    there, answer = again()
    assert (there, answer.good, answer.rows, answer.text) == (False, True, 3, "")
    model = artifacts(server, run, "model")[-1]
    assert (model["state"], sorted(model["aliases"])) == ("COMMITTED", ["best", "latest", "step-3"])
    assert content(server, model)["checkpoints/step-000000003/weights.pt"] == bytes([3]) * 5000


# ------------------------------------------------------------------------------------------------- without any server


@pytest.mark.parametrize(
    ("artifact", "seconds"),
    [("end", 0.0), ("off", None), (False, None), ("30min", 1800.0), (600, 600.0), ("1.5h", 5400.0)],
)
def test_when_a_model_is_sent_is_said_by_a_word_or_a_time(artifact: Any, seconds: float | None) -> None:
    assert Wandb(artifact=artifact).model_every == seconds


@pytest.mark.parametrize("artifact", ["never", "2epochs", True, 0, -1, "30", "5%"])
def test_another_word_is_told_with_what_is_allowed(artifact: Any) -> None:
    with pytest.raises(
        ValueError, match=re.escape(f"artifact: {artifact!r} must be end, off, or a time such as 30min")
    ):
        Wandb(artifact=artifact)


def test_names_hold_only_what_wandb_allows() -> None:
    assert model_name("optimizer.lr=0.1,seed=1-ab12") == "model-optimizer.lr_0.1_seed_1-ab12"
    assert data_name({"_target_": "my.data.make"}) == "make"
    assert data_name({"_target_": "trainer.data.folders.image_folder", "root": "/d/Cats & dogs"}) == (
        "image_folder-Cats___dogs"
    )


# ------------------------------------------------------------------------------------------- what tells data from data


def test_data_in_memory_is_told_by_its_values_and_other_data_of_ones_own_not_at_all() -> None:
    class Own(Dataset[int]):
        def __len__(self) -> int:
            return 3

    def told(*tensors: torch.Tensor) -> str:
        return Data(TensorDataset(*tensors)).fingerprint()

    values = torch.arange(12.0).reshape(4, 3)
    assert told(values) == told(values.clone()) != told(values + 1)
    assert len({told(values), told(values.reshape(3, 4)), told(values.double()), told(values, values), ""}) == 5
    assert told(values.to(torch.bfloat16)) == told(values.to(torch.bfloat16))
    assert Data(Own()).fingerprint() == Data(TensorDataset(values), Own()).fingerprint() == ""


def test_a_folder_is_told_by_the_names_and_sizes_of_its_files_however_it_is_read(tmp_path: Path) -> None:
    for name in ("cat/1", "cat/2", "dog/1", "dog/2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), "red").save(tmp_path / f"{name}.png")
    first = image_folder(str(tmp_path), val_fraction=0.5).fingerprint()
    assert first == image_folder(str(tmp_path), val_fraction=0.5, cache="never", split_seed=5).fingerprint() != ""
    (tmp_path / "dog/2.png").rename(tmp_path / "dog/3.png")
    renamed = image_folder(str(tmp_path), val_fraction=0.5).fingerprint()
    with open(tmp_path / "dog/3.png", "ab") as file:
        file.write(b"more")
    assert len({first, renamed, image_folder(str(tmp_path), val_fraction=0.5).fingerprint()}) == 3
