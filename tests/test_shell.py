"""What both ends share: Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from udpsend.interrupts import interruptible


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
