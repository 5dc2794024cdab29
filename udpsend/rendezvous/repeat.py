"""When to say something again that got no answer: after 1 s, then ever later, up to every 5 s."""

from __future__ import annotations

from math import inf

FIRST_INTERVAL = 1.0  # seconds
LAST_INTERVAL = 5.0  # seconds
GROWTH = 1.5


class Repeat:
    """One thing to be said. `due` is when to say it next, or None for never."""

    def __init__(self) -> None:
        self.due: float | None = None
        self._planned: float | None = None
        self._said = -inf
        self._interval = FIRST_INTERVAL

    def at_once(self, now: float) -> None:
        """There is something new to say, or a new way to say it."""
        self.due, self._interval = now, FIRST_INTERVAL
        self._planned = self.due

    def provoked(self, now: float, spacing: float, patience: float = inf) -> None:
        """Somebody asked for it: sooner than planned, `spacing` after the last time, or `patience` from now."""
        soon = max(now, min(self._said + spacing, now + patience))
        self.due = soon if self.due is None else min(self.due, soon)

    def calmed(self) -> None:
        """Who asked for it has it: as planned before."""
        self.due = self._planned

    def is_due(self, now: float) -> bool:
        return self.due is not None and now >= self.due

    def said(self, now: float, again: bool) -> None:
        self._said = now
        self.due = self._planned = now + self._interval if again else None
        self._interval = min(self._interval * GROWTH, LAST_INTERVAL)

    def stop(self) -> None:
        self.due = self._planned = None
