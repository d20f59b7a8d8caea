"""Which code a run is made by, and what is said where it is another one than the run was started with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import trainer
from tests.commands import command
from trainer.code_version import changes, code_version, git
from trainer.folder import RunFolder

FILES = {
    "my_model.py": "import torch\nfrom my_parts.wide import WIDTH\nfrom my_parts import *\n"
    "class Net(torch.nn.Sequential):\n"
    "    def __init__(self):\n"
    "        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, 10 + WIDTH))\n",
    "my_parts/__init__.py": "from . import deep\n",
    "my_parts/wide.py": "WIDTH = 0\ndef late():\n    import lazy\n",
    "my_parts/deep/__init__.py": "from .. import wide\nfrom .inner import x\nimport absent.module\n",
    "my_parts/deep/inner.py": "x = 1\n",
    "lazy.py": "this is no Python\n",
    "my_scores.py": "def score(sample):\n    return 0\n",
    "other.py": "",
    "conf/model/mine.yaml": "_target_: my_model.Net\n",
}
USED = ("lazy.py", "my_model.py", "my_parts/__init__.py", "my_parts/deep/__init__.py", "my_parts/deep/inner.py",
        "my_parts/wide.py")  # fmt: skip
WORDS = ("experiment=digits", "model=mine", "world.threads=1", "wandb.mode=disabled", "debug=quick", "name=a")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_files_of_a_run_are_those_that_its_config_names_and_what_they_import(here: Path) -> None:
    values: dict[str, Any] = {
        "model": {"_target_": "my_model.Net"},
        "optimizer": {"_target_": "torch.optim.SGD", "betas": [0.9, 0.99]},
        "data": {"_target_": "trainer.data.images.ImageFolder", "root": str(here)},
    }
    version = code_version(values)
    own = version["files"].pop("trainer/")  # a checkout, as long as the tests run in one
    assert (version["trainer"], tuple(version["files"]), len(own)) == (trainer.__version__, USED, 10)
    assert set(code_version({**values, "curriculum": {"score": "my_scores.score"}})["files"]) == {
        "trainer/", "my_scores.py", *USED
    }  # fmt: skip


def test_a_commit_is_told_of_a_checkout(here: Path) -> None:
    assert "commit" not in code_version({})
    (here / "below").mkdir()
    git("init", "-q", cwd=here / "below")
    git("-c", "user.name=a", "-c", "user.email=b@c", "commit", "-q", "--allow-empty", "-m", "x", cwd=here / "below")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here / "below")
        version = code_version({})
    assert (len(version["commit"]), version["dirty"]) == (40, False)


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ({"trainer": "1", "files": {"a.py": "0", "b.py": "0", "c.py": "0"}}, ""),
        ({"trainer": "1", "commit": "0"}, ""),
        ({"trainer": "0", "files": {"a.py": "0", "b.py": "1", "c.py": "0"}}, 
         "the trainer was 0 and is 1 and b.py changed"),
        ({"files": {"a.py": "1", "b.py": "1", "d.py": "0", "e.py": "0"}},
         "a.py and b.py changed, c.py is new and d.py and e.py are gone"),
    ],
    ids=["same", "before files were noted", "changed", "other files"],
)  # fmt: skip
def test_how_two_versions_differ_is_told_by_the_files(before: Any, words: str) -> None:
    assert changes(before, {"trainer": "1", "files": {"a.py": "0", "b.py": "0", "c.py": "0"}}) == words


def test_a_run_that_goes_on_by_other_code_is_told_and_refused_where_that_is_asked_for(here: Path) -> None:
    (here / "my_parts/deep").rename(here / "deep")
    (here / "my_parts/__init__.py").write_text("")
    assert command("train", *WORDS, "epochs=1", cwd=here).code == 0
    run, go_on = RunFolder(here / "runs/a"), ("resume=runs/a", "epochs=2")
    version = run.read_status()["code_version"]
    assert set(version["files"]) == {"trainer/", "lazy.py", "my_model.py", "my_parts/__init__.py", "my_parts/wide.py"}
    assert "code" not in command("train", *go_on, cwd=here).told
    (here / "my_parts/wide.py").write_text("WIDTH = 0\nimport other\n")
    (here / "lazy.py").unlink()

    left = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file() and path.name != ".lock"}
    refused = command("train", "resume=runs/a", "epochs=3", "strict_code=true", cwd=here)
    changed = "my_parts/wide.py changed, other.py is new and lazy.py is gone"
    assert refused.code == 2
    assert f"code: {changed} since this run was started" in refused.told
    assert {path: path.read_bytes() for path in left} == left
    answered = command("train", *go_on, "strict_code=true", cwd=here)
    assert (answered.code, f"(by other code: {changed} since then)" in answered.told) == (0, True)
    assert "by other code" not in command("train", *go_on, cwd=here).told

    warned = command("train", "resume=runs/a", "epochs=3", cwd=here)
    assert warned.code == 0
    assert warned.told.count(f"warning: code: {changed} since this run was started; the bits may differ") == 1
    status = run.read_status()
    assert status["code_version"] == version
    assert set(status["code_versions"]) == {"3"}
    assert changes(version, status["code_versions"]["3"]) == changed


def test_a_run_that_begins_anew_is_of_the_code_that_begins_it(here: Path) -> None:
    (here / "my_parts/deep").rename(here / "deep")
    (here / "my_parts/__init__.py").write_text("")
    broken = "    def forward(self, x):\n        raise OSError('mine')\n"
    (here / "my_model.py").write_text(FILES["my_model.py"] + broken)
    assert command("train", *WORDS, "resume=auto", cwd=here).code != 0
    before = RunFolder(here / "runs/a").read_status()["code_version"]["files"]
    (here / "my_model.py").write_text(FILES["my_model.py"])
    ended = command("train", *WORDS, "resume=auto", "strict_code=true", cwd=here)
    assert (ended.code, "code:" in ended.told) == (0, False)
    after = RunFolder(here / "runs/a").read_status()["code_version"]["files"]
    assert after["my_model.py"] != before["my_model.py"]
