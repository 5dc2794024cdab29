"""The addresses at which the peer may be, each with its probes: when the next is due, what has been answered.

A pair is named by the remote address and by the socket of ours, of which there is one except in `hard.py`: which of our
own addresses is used is the routing's choice.
"""

from __future__ import annotations

import math

from msgspec import Struct, field

from udpsend.events import PathKind
from udpsend.wire.candidate import MAX_CANDIDATES
from udpsend.wire.datagram import Address

FIRST_INTERVAL = 0.05  # seconds between two requests; it doubles
MAX_INTERVAL = 0.5  # seconds
MIN_INTERVAL = 0.02  # between a probe and one that the peer's request triggers
MAX_PAIRS = 3 * MAX_CANDIDATES  # those the peer told, the same by way of a relay, and as many learned from its requests
MAX_TRANSACTIONS = 16  # of one pair; at MAX_INTERVAL an answer may take 8 s

# To an address that only a source address told us, as an on-path stranger could forge by passing the peer's probe on
# from there, we send at most three times what came from it; to one that the peer told and from which nothing came, at
# most three times the bytes of what the peer said in this punching.
MAX_AMPLIFICATION = 3

_RANKS = {kind: rank for rank, kind in enumerate(PathKind)}


class Pair(Struct):
    address: Address
    kind: PathKind
    signalled: bool
    """Told by the peer under the seal, as against learned from where its request came."""
    next_probe: float
    local: int = 0
    """The socket of ours that it is to be reached from."""
    held: bool = False
    """It got an opener, and waits for the peer's word."""
    interval: float = FIRST_INTERVAL
    max_interval: float = MAX_INTERVAL
    last_probe: float = -math.inf
    sent: int = 0
    received: int = 0
    round_trip: float = math.inf
    validated: bool = False
    """Our request was answered from where it was sent to."""
    peer_validated: bool = False
    """The peer says that its own was."""
    transactions: dict[bytes, float] = field(default_factory=dict)

    @property
    def rank(self) -> tuple[int, float]:
        """Best first: the most direct, then the fastest."""
        return _RANKS[self.kind], self.round_trip

    @property
    def agreed(self) -> bool:
        return self.validated and self.peer_validated

    def may_send(self, size: int, credit: float) -> bool:
        """Another probe of `size` bytes, the peer having said `credit` bytes."""
        if self.validated or self.sent < MAX_AMPLIFICATION * self.received:
            return True
        return self.signalled and (self.received > 0 or (self.sent + 1) * size <= MAX_AMPLIFICATION * credit)

    def is_more_direct_than(self, other: Pair) -> bool:
        return _RANKS[self.kind] < _RANKS[other.kind]

    def request_sent(self, transaction: bytes, now: float) -> None:
        self.transactions[transaction] = now
        if len(self.transactions) > MAX_TRANSACTIONS:
            del self.transactions[next(iter(self.transactions))]
        self.last_probe = now
        self.next_probe = now + self.interval
        self.interval = min(2 * self.interval, self.max_interval)

    def request_received(self, now: float) -> None:
        """The peer's way to us is open there: ask back at once instead of when the turn comes."""
        if not self.validated:
            soon = self.last_probe + MIN_INTERVAL
            self.next_probe = min(self.next_probe, soon if soon > now else -math.inf)

    def response_received(self, transaction: bytes, now: float) -> bool:
        """Whether it answers a request of ours that went to this address."""
        sent = self.transactions.pop(transaction, None)
        if sent is None:
            return False
        self.round_trip = min(self.round_trip, now - sent)
        if not self.validated:
            self.validated = True
            self.start_over(now)  # the next request tells the peer
        return True

    def start_over(self, now: float) -> None:
        self.held = False
        self.interval = FIRST_INTERVAL
        self.next_probe = now
