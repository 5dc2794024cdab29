"""First packets that open the way for the peer's, and do not get there.

A Linux host that masquerades and lets strays in ties the peer's early packet to itself, and what we then send there
leaves from another port. So the first packet to an address behind a NAT has hops enough to make our own routers expect
answers, and not enough to reach the peer's; the rest waits until the peer says that it has done the same. One router is
crossed with a TTL of 2, and the next drops it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from udpsend.punching.pairs import Pair

ONE_ROUTER = 2


class Openers:
    """`send(pair, ttl, now)` sends a request. The pairs wait for `peer_opened`; or for `hold` seconds after
    `peer_spoke`; or, without that, twice as long after the start."""

    def __init__(self, start: float, hold: float, send: Callable[[Pair, int, float], None]) -> None:
        self.until = start + 2 * hold
        self.ttl = ONE_ROUTER
        self._start = start
        self._hold = hold
        self._send = send

    def open(self, pair: Pair, now: float) -> None:
        if now < self.until:
            self._send(pair, self.ttl, now)
            pair.held = True
            pair.next_probe = self.until

    def cross(self, routers: int, pairs: Iterable[Pair], now: float) -> None:
        """It is known how many of our own there are: openers that did not get so far go out again."""
        if routers + 1 > self.ttl:
            self.ttl = routers + 1
            for pair in pairs:
                if pair.held and not pair.received:
                    self.open(pair, now)

    def peer_spoke(self, pairs: Iterable[Pair], now: float) -> None:
        """The mailbox works, and what the peer has still to say is not far."""
        if now + self._hold < self.until:
            self.until = now + self._hold
            for pair in pairs:
                if pair.held:
                    pair.next_probe = min(pair.next_probe, self.until)

    def peer_opened(self, pairs: Iterable[Pair], at_least: float, now: float) -> None:
        """The peer's routers expect what comes from here. `at_least`: seconds from the start."""
        if now < self.until:
            self.until = max(now, self._start + at_least)
            for pair in pairs:
                if pair.held:
                    pair.start_over(self.until)
