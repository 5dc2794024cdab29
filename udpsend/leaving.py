"""The last calls of a session, which may take long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable


def at_once(calls: Iterable[Callable[[], None]], seconds: float) -> None:
    """Run all of them, each in a thread of its own, and wait for each so long. Where the system gives no thread (more),
    in this one: what was verified is not undone because there is none to say goodbye in."""
    threads = []
    for call in calls:
        thread = threading.Thread(target=call, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            call()
        else:
            threads.append(thread)
    for thread in threads:
        thread.join(seconds)
