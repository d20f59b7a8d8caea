"""wandb artifacts: the best checkpoint with all that it takes to go on from it, and what a run was trained on."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainer.errors import brief
from trainer.folder import BEST, MANIFEST, RunFolder
from trainer.tracking.mailbox import Mailbox, Spec, Tail

PATIENCE = 3  # seconds that the server may take to note the data of a run; it has just answered
_LASTING = ("config_hash", "code_version", "micro_batch", "monitor", "mode")  # of status.json: the same at each attempt


class Artifacts:
    """What one attempt of a run sends beside its rows. Whatever goes wrong here is told, and ends nothing."""

    def __init__(self, wandb: Any, folder: RunFolder, spec: Spec) -> None:
        self.folder, self.spec, self.box = folder, spec, Mailbox(folder)
        self._wandb = wandb
        self._next = time.monotonic() + (spec.model_every or 0.0)
        self._sent = ""  # the checkpoint that was sent last
        self._model: Any = None
        self._refused = ""  # why the server did not take it at the end

    def data(self, run: Any) -> None:
        """Notes what the run is trained on; nothing of it is sent."""
        source, facts = (self.spec.config.get(name) for name in ("data", "run"))
        if self.spec.model_every is None or not isinstance(source, dict) or "_target_" not in source:
            return
        with self._guarded("the data is not noted there"):
            data = self._data(source, facts or {})
            run.log_artifact(data)
            data.wait(PATIENCE)
            run.use_artifact(data)

    def while_training(self, run: Any) -> None:
        """Sends the best checkpoint if that is due and it is another one than the last time."""
        if not self.spec.model_every or time.monotonic() < self._next:
            return
        with self._guarded("the model was not sent"):
            path, best = best_or_newest(self.folder)
            if path is not None and best and path.name != self._sent:
                self._next = time.monotonic() + self.spec.model_every  # also if it fails
                self._log(run, path, best, "mutable")  # retention may remove it while it is on its way

    def at_the_end(self, run: Any, before: str) -> str:
        """Sends the best checkpoint, or the last where none is best.

        Args:
            before: what this returned for the attempt before, if it did: the digest, which tells contents apart.
        """
        if self.spec.model_every is None:
            return ""
        with self._guarded("the model was not sent"):
            path, best = best_or_newest(self.folder)
            if path is not None:
                try:
                    self._model = self._log(run, path, best, "immutable")
                except self._wandb.Error as error:  # the server; what has to do with files is told, and no more
                    self._refused = f"the model was not sent ({brief(error)})"
                    return ""
                return str(self._model.digest)
            if before:
                raise FileNotFoundError("its checkpoint is gone")
        return ""

    def lost(self) -> str:
        """Why the model did not arrive, after the run was finished online; wandb tells it only those who ask."""
        if self._refused:
            return self._refused
        try:
            if self._model is not None:
                self._model.wait(1)
                shutil.rmtree(self._texts, ignore_errors=True)
        except Exception as error:
            return f"the model did not arrive ({brief(error)})"
        return ""

    def _log(self, run: Any, path: Path, best: bool, policy: Literal["mutable", "immutable"]) -> Any:
        model = read(self.folder, path, self.spec, run.id)
        artifact = self._wandb.Artifact(model_name(run.id), type="model", metadata=model.metadata)
        self._texts.mkdir(parents=True, exist_ok=True)
        texts = {name: self._texts / name.replace("/", "-") for name in model.texts}
        for name, file in texts.items():
            file.write_bytes(model.texts[name])
        for name, file in {**model.files, **texts}.items():
            artifact.add_file(str(file), name, policy=policy, skip_cache=True)
            if not run.offline:
                self.box.tell("server", "")  # to read a large one takes its time
        run.log_artifact(artifact, aliases=[*([BEST] if best else []), "latest", f"step-{model.metadata['step']}"])
        self._sent = path.name
        return artifact

    @property
    def _texts(self) -> Path:
        return self.box.path / "model"

    def _data(self, source: dict[str, Any], facts: dict[str, Any]) -> Any:
        root, digest = source.get("root"), facts.get("data")
        what = {name: facts.get(name) for name in ("samples", "val_samples")} | {"digest": digest}
        what |= {} if digest else {"root": root}
        told = {**what, "root": root, "config": source}
        artifact = self._wandb.Artifact(data_name(source), type="dataset", metadata=told)
        file = self.box.path / "data.json"
        file.write_text(json.dumps(what, sort_keys=True) + "\n")
        artifact.add_file(str(file), policy="immutable", skip_cache=True)
        if isinstance(root, str):  # one reference, the same wherever it lies; add_reference would make one of each file
            entry = self._wandb.sdk.artifacts.artifact_manifest_entry.ArtifactManifestEntry
            uri = Path(root).absolute().as_uri()
            artifact.manifest.add_entry(entry(path="root", ref=uri, digest=digest or uri, size=0))
        return artifact

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.box.tell("warning", f"{what} ({brief(error)})")


@dataclass(frozen=True)
class Model:
    """What a model artifact holds: a run folder as it was when its checkpoint was saved.

    Attributes:
        files, texts: what is taken as it is, and what is made for it, by their paths in a run folder.
        metadata: what is said of it on the website.
    """

    files: dict[str, Path]
    texts: dict[str, bytes]
    metadata: dict[str, Any]


def read(folder: RunFolder, checkpoint: Path, spec: Spec, id: str) -> Model:
    """The model of one checkpoint; the history ends where it stands.

    Raises:
        OSError, ValueError, KeyError: the checkpoint is gone, or something cannot be read.
    """
    manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    step = int(manifest["step"])
    lines = [(json.loads(line), line + b"\n") for line in Tail(folder.metrics).lines()]
    lines = [(row, line) for row, line in lines if row["step"] <= step]
    row = lines[-1][0] if lines and lines[-1][0]["step"] == step else {}
    lasting = {name: value for name, value in folder.read_status().items() if name in _LASTING}
    status = {"state": "interrupted", "wandb_id": id, **lasting}
    place = f"{folder.checkpoints.name}/{checkpoint.name}"
    files = {f"{place}/{path.name}": path for path in sorted(checkpoint.iterdir())}
    files |= {folder.config.name: folder.config} if folder.config.is_file() else {}
    return Model(
        files,
        {
            folder.metrics.name: b"".join(line for _, line in lines),
            folder.status.name: json.dumps(status, indent=1).encode() + b"\n",
            f"{folder.checkpoints.name}/{BEST}": f"{checkpoint.name}\n".encode(),
        },
        {
            "run": folder.path.name,
            "group": spec.group,
            "step": step,
            "epoch": manifest.get("epoch"),
            "monitor": spec.monitor,
            "mode": spec.direction,
            "value": row.get(spec.monitor),
            "metrics": {name: value for name, value in row.items() if name not in ("step", "epoch", "time")},
            "config_hash": status.get("config_hash"),
        },
    )


def best_or_newest(folder: RunFolder) -> tuple[Path | None, bool]:
    """The folder of the best checkpoint and True; of the newest and False where none is best; None without any."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        path = folder.checkpoints / (folder.checkpoints / BEST).read_text(encoding="utf-8").strip()
        if (path / MANIFEST).is_file():
            return path, True
    whole = sorted(path.parent for path in folder.checkpoints.glob(f"step-*/{MANIFEST}"))
    return (whole[-1] if whole else None), False


def model_name(id: str) -> str:
    """What the model of a run is called on wandb."""
    return allowed(f"model-{id}")


def data_name(source: dict[str, Any]) -> str:
    """What data is called on wandb: `digits`, or with its folder `image_folder-cats`."""
    root = source.get("root")
    return allowed("-".join([str(source["_target_"]).rpartition(".")[2], *([Path(str(root)).name] if root else [])]))


def allowed(name: str) -> str:
    """A name with `_` for what wandb does not take in one."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:128]
