"""What the two sides leave messages in until they can talk directly: the interface of all mailboxes, and its bounds.

A mailbox is a place where everybody who knows the topic may write and read: an MQTT broker (`mqtt.py`) or the local
network (`multicast.py`). It promises nothing: messages may be lost, doubled, reordered, one's own, or a stranger's.
What is to be believed is decided in `machine.py`, what is lost is sent again there.

`on_message(message)` and `on_state(name, up, detail)` are called from the mailbox's own thread, never after `close`
has returned. `on_state` is called once per change; `detail` says why it is down, or how it is reached.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

LOCAL_NETWORK = "local network"
"""The name of its mailbox; the others are called by their URL."""

MAX_MESSAGES_PER_SECOND = 1000.0
"""What one mailbox hands on; the rest is dropped before it is parsed. A pair that meets needs about ten in all, but the
limit falls on friend and stranger alike: at 200 per second a flood of 2,000 would leave one in ten of the peer's."""

BURST = 1000.0
"""Messages that may come at once after silence."""

MAX_WAITING = 128
"""Messages of all mailboxes that may wait to be looked at. One of ours comes in a few copies, and is said again; a
stranger's of 8 KiB may take 1.3 ms, and there may be thousands a second."""

CLOSE_TIMEOUT = 1.0
"""Seconds that `close` may take at the most."""

OnMessage = Callable[[bytes], None]
OnState = Callable[[str, bool, str], None]


class Mailbox(Protocol):
    name: str
    """For the user: the URL without its password, or LOCAL_NETWORK."""

    def publish(self, message: bytes) -> None:
        """Leaves `message` to all readers of the topic. From any thread; never blocks, never raises; while the
        mailbox is down, messages are dropped."""

    def renew(self) -> None:
        """The way there may be dead without anybody having noticed, or be there again: connect anew, at once. From any
        thread; never blocks."""

    def close(self) -> None:
        """Sends what was published, then leaves, within CLOSE_TIMEOUT seconds. May be called more than once."""


class Inbox:
    """What all mailboxes bring, on its way from their threads into the loop: `call_soon` makes calls there, `take` gets
    the messages in order. What comes while too much waits is dropped, so that neither memory nor the time of the loop
    is a stranger's."""

    def __init__(self, call_soon: Callable[[Callable[[], None]], None], take: OnMessage) -> None:
        self._call_soon = call_soon
        self._take = take
        self._waiting: deque[bytes] = deque()

    def put(self, message: bytes) -> None:
        """From any thread."""
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(message)
            self._call_soon(self._take_next)

    def _take_next(self) -> None:
        self._take(self._waiting.popleft())


class RateLimit:
    """A token bucket: `rate` per second, `burst` at once. Starts full."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._last: float | None = None

    def take(self, now: float, amount: float = 1.0) -> bool:
        """Takes `amount` if it is there; else takes nothing and is False."""
        if self._last is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._last) * self._rate)
        self._last = now
        if self._tokens < amount:
            return False
        self._tokens -= amount
        return True

    def owed(self, now: float, amount: float) -> float:
        """Takes `amount` in any case; the seconds to wait until the bucket is even again."""
        if not self.take(now, amount):
            self._tokens -= amount
        return max(0.0, -self._tokens / self._rate)
