"""What both ends share: Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from udpsend import events
from udpsend.caller import Caller
from udpsend.config import Config
from udpsend.interrupts import interruptible
from udpsend.rendezvous.code import parse_code
from udpsend.shell import Shell


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    """Background jobs of a script were stopped by the Ctrl-C that is for what runs in front."""
    told: list[str] = []
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible(lambda: told.append("way out")):
            signal.raise_signal(signal.SIGINT)
        assert told == []
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_first_ctrl_c_is_told_and_the_handler_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    told = threading.Event()
    with interruptible(told.set):
        signal.raise_signal(signal.SIGINT)
        assert told.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_handler_that_is_not_pythons_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a program that has Python in it, and a handler of its own in C: Python knows it as None, and cannot put it
    back."""

    def install(number: int, handler: Callable[..., Any] | int | None) -> None:
        raise TypeError("signal handler must be signal.SIG_IGN, signal.SIG_DFL, or a callable object")

    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", install)
    with interruptible(lambda: None):
        pass


def test_an_interrupt_does_not_wait_for_a_caller_that_never_returns() -> None:
    """Ctrl-C pressed twice, and a terminal that is stopped: it took a third one."""
    busy, go_on = threading.Event(), threading.Event()

    def hang(event: events.Event) -> None:
        busy.set()
        go_on.wait()

    class Interrupted(Shell):
        def _run(self) -> events.Verified:
            self.emit(events.Verifying())
            assert busy.wait(10)
            raise KeyboardInterrupt

    def run() -> None:
        with pytest.raises(KeyboardInterrupt):
            Interrupted(parse_code("4821-marble-otter"), Config(), Caller(hang)).run()

    running = threading.Thread(target=run, daemon=True)
    running.start()
    running.join(10)
    is_hanging = running.is_alive()
    go_on.set()
    assert not is_hanging
