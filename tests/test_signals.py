"""Signals: noted once, the second one kills, and what was there before comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from trainer.signals import NUMBERS, Signals


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
def test_the_first_signal_is_noted_and_nothing_else_happens(number: signal.Signals) -> None:
    with Signals() as signals:
        assert (signals.number, signals.name) == (0, "")
        os.kill(os.getpid(), number)
        assert (signals.number, signals.name) == (number, number.name)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_the_second_signal_kills(first: signal.Signals, second: signal.Signals) -> None:
    code = f"""
import os, trainer.signals
from trainer.signals import Signals
trainer.signals.ECHO = 0
with Signals() as signals:
    os.kill(os.getpid(), {int(first)})
    print(signals.name, flush=True)
    os.kill(os.getpid(), {int(second)})
    print("alive", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == f"{first.name}\n"
    assert done.returncode == -second


def test_a_signal_that_comes_twice_at_once_is_one() -> None:
    """`timeout 1h trainer ...` sends it to the process, and then to the group that the process is in."""
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.name == "SIGTERM"


def test_the_handlers_of_before_come_back_also_after_an_error() -> None:
    seen: list[int] = []
    old = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        before = [signal.getsignal(number) for number in NUMBERS]
        with pytest.raises(ZeroDivisionError), Signals():
            assert [signal.getsignal(number) for number in NUMBERS] != before
            raise ZeroDivisionError
        assert [signal.getsignal(number) for number in NUMBERS] == before
        os.kill(os.getpid(), signal.SIGUSR1)
        assert seen == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, old)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_that_was_ignored_stays_ignored(number: signal.Signals) -> None:
    """`nohup trainer ... &`, and a shell script's background jobs: they must survive the log-out and the Ctrl-C."""
    old = signal.signal(number, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), number)
            assert signals.number == 0
    finally:
        signal.signal(number, old)


def test_outside_the_main_thread_nothing_is_noted_and_nothing_fails() -> None:
    before, found = [signal.getsignal(number) for number in NUMBERS], []

    def enter() -> None:
        with Signals() as signals:
            found.append(signals.number)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [0]
    assert [signal.getsignal(number) for number in NUMBERS] == before
