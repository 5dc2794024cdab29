"""How long to go on waiting after a bad sign that anybody could have given: a FAIL, or a hello of another version."""

from __future__ import annotations

from udpsend.rendezvous.code import PROTOCOL_VERSION

GRACE = 3.0  # after a failed run, for the sender that this receiver belongs to
PEER_SILENCE = 10.0  # two hellos of the slowest rate: a run with somebody who is still there is waited for
VERSION_GRACE = 6.0  # longer than between two hellos: one that is alone was a stray


class GiveUp:
    """When a receiver whose runs failed gives up."""

    def __init__(self) -> None:
        self.due: float | None = None

    def run_failed(self, now: float) -> None:
        self.due = now + GRACE if self.due is None else min(self.due, now + GRACE)

    def no_more_runs(self, now: float) -> None:
        self.due = now + PEER_SILENCE if self.due is None else self.due

    def is_over(self, now: float, open_run_heard: float | None) -> bool:
        """Whether nothing better can be expected; `open_run_heard` is when a side whose run has not failed was heard
        last."""
        if self.due is None or now < self.due:
            return False
        if open_run_heard is None or open_run_heard + PEER_SILENCE <= now:
            return True
        self.due = open_run_heard + PEER_SILENCE
        return False

    def stop(self) -> None:
        self.due = None


class VersionWatch:
    """Whether the only others around speak another version of the rendezvous."""

    def __init__(self) -> None:
        self.due: float | None = None
        self._hellos = 0
        self._version = 0

    def hello_received(self, version: int, now: float) -> None:
        self._hellos += 1
        self._version = version
        if self.due is None:
            self.due = now + VERSION_GRACE

    def verdict(self, now: float, others: int) -> str | None:
        """What the other side speaks, if it said so more than once and nobody of our version came meanwhile."""
        if self.due is None or now < self.due:
            return None
        repeated = self._hellos > 1
        self.due, self._hellos = None, 0
        return f"rendezvous {self._version} instead of {PROTOCOL_VERSION}" if repeated and not others else None

    def stop(self) -> None:
        self.due = None
