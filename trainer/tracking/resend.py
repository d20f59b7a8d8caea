"""What `trainer-sync` is made of: a run that is over is sent once more, and what arrived is looked at."""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer.errors import brief
from trainer.folder import RunFolder
from trainer.tracking import arrival
from trainer.tracking.attempts import write_into
from trainer.tracking.mailbox import Answer, Done, Mailbox, Sent, Spec
from trainer.tracking.sender import Sender

SECONDS = 600.0  # that sending one run may take
_OTHER = "a server of your own is named by WANDB_BASE_URL"


def again(folder: RunFolder, seconds: float, load: Callable[[], Any]) -> int:
    """Sends a run that is over, and leaves an `Answer` in its mailbox. Returns the exit code.

    Args:
        seconds: that it may take. load: gives the module wandb, with which everything is online.
    """
    box = Mailbox(folder)
    spec = box.last_spec()
    if spec is None:
        print(f"{folder}: nothing of this run was meant for wandb; there is no {box.path.name}/spec.json")
        return 2
    try:
        if folder.held:
            raise BlockingIOError
        with box.hold(take_over=False):
            answer = _sent(folder, replace(spec, dir=str(home(folder, spec)), finish_timeout=0.7 * seconds), load)
            box.write(answer)
    except BlockingIOError:
        answer = Answer(text="another process trains or sends this run; wait for it")
    except Exception as error:
        traceback.print_exc()
        answer = Answer(text=brief(error))
        box.write(answer)
    print(f"{folder}: {answer.text or 'everything is there'}  {answer.url}")
    return 0 if answer.good else 1


def _sent(folder: RunFolder, spec: Spec, load: Callable[[], Any]) -> Answer:
    box, journal = Mailbox(folder), arrival.kept(folder)
    box.messages()  # those of earlier on
    write_into(spec)
    wandb = load()
    sender = Sender(wandb, folder, spec, child=True, again=True)
    sender.open()
    sender.pump()
    sender.close(box.read(Done) or Done())
    found, missing = arrival.wait_for(wandb, spec, sender.sent.id, journal, sender.files, spec.finish_timeout / 20)
    told = [message.text for message in box.messages() if message.kind == "warning"]
    missing = missing or sender.lost
    if missing:
        sender.sent.closed = False
        box.write(sender.sent)
        told = [missing, arrival.refusal(sender.files), *told]
    return Answer(not missing, "; ".join(filter(None, told)), sender.count, found.url if found else "")


def home(folder: RunFolder, spec: Spec) -> Path:
    """What holds wandb's folder of a run, also where both were moved together: the run folder, or that of its sweep."""
    if Path(spec.dir) in (folder.path, folder.path.parent):
        return Path(spec.dir)
    own = folder.wandb.is_dir() or not (folder.path.parent / "wandb").is_dir()
    return folder.path if own else folder.path.parent


def look(folders: Sequence[str], answers: Path, load: Callable[[], Any]) -> int:
    """Asks the server for the runs of some folders, and writes what it says into a file, a line of JSON for each.

    `{"problem": ..., "exit_code": ...}` if there is no login or no server; else `{"server": URL}`, and then
    `{"folder": ..., "complete": ..., "rows": ..., "url": ...}` for each folder. Returns the exit code.
    """

    def tell(**found: Any) -> None:
        with open(answers, "a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")

    wandb = load()
    if found := unanswered(wandb):
        tell(problem=found[0], exit_code=found[1])
        return found[1]
    tell(server=str(wandb.setup().settings.base_url))
    for path in folders:
        tell(folder=path, **_looked(wandb, RunFolder(path)))
    return 0


def unanswered(wandb: Any) -> tuple[str, int] | None:
    """Why the server cannot be asked, and the exit code: there is no server (1), or no login (2); None if it can."""
    server = str(wandb.setup().settings.base_url)
    if why := arrival.unreachable(server):
        return f"{server} cannot be reached: {why}; is there a network? ({_OTHER})", 1
    try:
        if not wandb.login(prompt=False, verify=False):
            return f"no login for {server}; type wandb login, or set WANDB_API_KEY ({_OTHER})", 2
        wandb.Api(timeout=math.ceil(arrival.init_timeout()))
    except (wandb.Error, ValueError) as error:
        return f"{brief(error)}; type wandb login --relogin, or set WANDB_API_KEY ({_OTHER})", 2
    return None


def _looked(wandb: Any, folder: RunFolder) -> dict[str, Any]:
    box = Mailbox(folder)
    spec, sent = box.last_spec(), box.read(Sent) or Sent()
    try:
        found = arrival.there(wandb, spec, sent.id or spec.id) if spec else None
        whole = arrival.complete(found, arrival.kept(folder), box)
        if whole and spec and sent.mode == "offline" and sent.model:  # `wandb sync` does not tell what failed
            whole = arrival.has_model(wandb, spec, sent)
    except Exception:  # whatever it is, it will be told when the run is sent
        found, whole = None, False
    return {"complete": whole, "rows": found.rows if found else 0, "url": found.url if found else ""}
