"""Ctrl-C, while something runs that has a way of its own to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interruptible(interrupted: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C calls `interrupted`, wherever the main thread is; a second one does what it did before, which is to leave
    at once. Only the main thread has signals: elsewhere KeyboardInterrupt is the caller's business, and so it is where
    the program around has a handler that is not Python's (then there is None): it could not be put back. Where Ctrl-C
    is ignored, as in the background jobs of a script, it is meant for somebody else."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) in (None, signal.SIG_IGN):
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        interrupted()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
