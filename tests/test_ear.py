"""What wandb says of its connection, and how long the end of a run is waited for."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace as Having
from typing import Any

import pytest

from tests.test_shipper import ONLINE, life
from tests.wandb_server import WandbServer
from trainer.folder import RunFolder
from trainer.tracking import ear
from trainer.tracking.attempts import sync_command
from trainer.tracking.ear import Ear, watch
from trainer.tracking.mailbox import Mailbox


@pytest.fixture
def box(tmp_path: Path) -> Mailbox:
    box = Mailbox(RunFolder(tmp_path))
    box.clear()
    return box


def texts(box: Mailbox) -> list[tuple[str, str]]:
    return [(message.kind, message.text) for message in box.messages()]


def test_what_matters_is_told_once_and_the_rest_is_not(box: Mailbox) -> None:
    heard = Ear(box, "trainer-sync r")
    for _ in range(3):
        heard.info('wandb: 500 encountered ({"error": "x"}), retrying request')
        heard.info("wandb: Syncing run r")
        heard.warning("wandb: WARNING Artifact x already exists with the same content.")
        heard.error("\x1b[33mwandb\x1b[0m: \x1b[33mERROR\x1b[0m Something broke")
    heard.warning("wandb: WARNING Fatal error while uploading data. Some run data will not be synced")
    heard.closed = True
    heard.warning("wandb: WARNING Timed out finishing run.")
    assert texts(box) == [
        ("warning", "the server answers 500; training goes on"),
        ("warning", "Something broke"),
        ("warning", "the server refuses the rest of this run, which stays in the folder; later: trainer-sync r"),
    ]


class Stream:
    """The end of a run as wandb tells of it: an answer to each question, the last one for ever."""

    def __init__(self, *sent: int) -> None:
        self.sent, self.error, self.asked = list(sent), "", threading.Semaphore(0)
        self._interface = self

    def deliver_poll_exit(self) -> Stream:
        return self

    def wait_or(self, timeout: float) -> Any:
        bytes_sent = self.sent.pop(0) if len(self.sent) > 1 else self.sent[0]
        self.asked.release()
        part = Having(desc="uploading", progress="", error_status=self.error)
        state = Having(pusher_stats=Having(uploaded_bytes=bytes_sent), operation_stats=Having(operations=[part]))
        return Having(response=Having(poll_exit_response=state))


def test_what_is_sent_and_what_is_in_the_way_is_told(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ear, "LOOK", 0.01)
    stream = Stream(1, 2, 2, 2, 3, 3, 3)
    with watch(stream, box):
        for _ in range(7):
            assert stream.asked.acquire(timeout=10)
        stream.error = 'retrying: Post "http://x/graphql": dial tcp 127.0.0.1:1: connection refused'
        for _ in range(3):
            assert stream.asked.acquire(timeout=10)
    assert texts(box) == [*[("server", "")] * 3, ("server", "dial tcp 127.0.0.1:1: connection refused")]


def test_a_wandb_that_cannot_be_asked_is_waited_for(box: Mailbox) -> None:
    with watch(Having(), box):
        pass
    assert texts(box) == []


def test_rows_that_the_server_refuses_are_told_with_what_sends_them_later(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "r")
    with WandbServer() as server:
        server.fail("filestream", 403)
        said = life(folder.path, server.env(), ONLINE)
    assert said.count("0 of 20 rows arrived; later: trainer-sync r\n") == 1
    assert sync_command(folder) is not None
