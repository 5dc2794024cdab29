"""Probes on their way out: sealed, bounded in number, and counted by where they go.

`MAX_SENT` bounds one punching, whatever the peer and strangers do. What went to addresses from which nothing authentic
came is counted for itself: it is what a peer could turn against somebody else.
"""

from __future__ import annotations

from collections import Counter

from msgspec import Struct

from udpsend.punching.channel import PROBE_SIZE, ProbeChannel
from udpsend.wire.datagram import Address, Transmit, ip_overhead
from udpsend.wire.probe import Probe

MAX_WAITING = 64  # of probes that wait to be sent; the peer repeats what is lost
MAX_SENT = 4096  # probes, requests and answers


def size_on_the_wire(address: Address) -> int:
    """Bytes of a probe there."""
    return PROBE_SIZE + ip_overhead(address[0])


class Tally(Struct):
    """What was sent, by one punching or by several."""

    sent: int = 0
    size: int = 0
    """Bytes, with the headers of IP and UDP."""
    to_one_unheard: int = 0
    """The most that went to one address from which nothing came."""

    def __add__(self, other: Tally) -> Tally:
        most = max(self.to_one_unheard, other.to_one_unheard)
        return Tally(self.sent + other.sent, self.size + other.size, most)


class Outbox:
    def __init__(self, channel: ProbeChannel, drops: Counter[str]) -> None:
        self._channel = channel
        self._drops = drops
        self._waiting: list[Transmit] = []
        self._size = 0
        self._sent = 0
        self._by_address: Counter[Address] = Counter()
        self._heard: set[Address] = set()

    def put(self, probe: Probe, address: Address, local: int, ttl: int = 0) -> bool:
        """Whether there was room for it."""
        if len(self._waiting) >= MAX_WAITING or self._sent >= MAX_SENT:
            self._drops["too many probes"] += 1
            return False
        datagram = self._channel.seal(probe)
        self._waiting.append(Transmit([datagram], len(datagram), len(datagram), address, local, ttl))
        self._sent += 1
        self._size += size_on_the_wire(address)
        self._by_address[address] += 1
        return True

    def take(self) -> list[Transmit]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def heard_from(self, address: Address) -> None:
        if address in self._by_address:
            self._heard.add(address)

    @property
    def tally(self) -> Tally:
        unheard = (count for address, count in self._by_address.items() if address not in self._heard)
        return Tally(self._sent, self._size, max(unheard, default=0))
