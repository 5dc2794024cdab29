"""Events for the caller, from a thread of their own: a terminal that is slow to draw, or stopped, holds nobody.

`on_event` gets one event at a time, in the order in which they happened. While it is busy, of several Progress in a row
only the newest is kept. What it raises comes out of `check`, in the loop.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from udpsend.events import Event, Progress


class Reporter:
    def __init__(self, on_event: Callable[[Event], None] | None) -> None:
        self._on_event = on_event
        self._events: deque[Event] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._closed = False
        self._failure: BaseException | None = None
        if on_event is not None:
            threading.Thread(target=self._run, args=(on_event,), name="udpsend-events", daemon=True).start()

    def __enter__(self) -> None:
        """It is closed at the end."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.close(is_interrupted=isinstance(error, KeyboardInterrupt))

    def emit(self, event: Event) -> None:
        """From any thread; never waits for `on_event`."""
        if self._on_event is None:
            return
        with self._changed:
            if isinstance(event, Progress) and self._events and isinstance(self._events[-1], Progress):
                self._events[-1] = event
            else:
                self._events.append(event)
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all that was emitted has been shown: before a question is asked, or the end."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._events or self._busy))

    def check(self) -> None:
        """Raises what `on_event` raised."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def close(self, *, is_interrupted: bool = False) -> None:
        """Show what is left, and end the thread. Waits for as long as `on_event` takes: what it shows last is what the
        caller has to know. Only KeyboardInterrupt ends the wait (Ctrl-C, in the main thread), and what is left is then
        not shown; nor is it when that has come before (`is_interrupted`). A call of `on_event` that never returns keeps
        its thread, which does not keep the process."""
        try:
            if not is_interrupted:
                self.flush()
        finally:
            with self._changed:
                self._closed = True
                self._events.clear()
                self._changed.notify_all()

    def _run(self, on_event: Callable[[Event], None]) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._events) or self._closed)
                if not self._events:
                    return
                event = self._events.popleft()
                self._busy = True
            try:
                if self._failure is None:
                    on_event(event)
            except BaseException as failure:  # the caller's own: it is raised where the caller waits
                self._failure = failure
            with self._changed:
                self._busy = False
                self._changed.notify_all()
