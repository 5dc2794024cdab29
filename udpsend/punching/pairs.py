"""The addresses at which the peer may be, each with its probes: when the next is due, what has been answered.

A pair is named by the remote address and by the socket of ours, of which there is one except in `hard.py`: which of our
own addresses is used is the routing's choice. All pairs of one punching are its checklist (RFC 8445, section 6.1.2).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct, field

from udpsend.events import PathKind
from udpsend.punching.candidates import addresses_through_relay, path_kind
from udpsend.wire.candidate import MAX_CANDIDATES, Candidate, CandidateType
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


class Checklist:
    """Candidates of the peer are reached from the socket `main`, and addresses behind a relay not before
    `relayed_from`."""

    def __init__(
        self, main: int, same_host: bool, relayed_from: float, max_interval: float, drops: Counter[str]
    ) -> None:
        self.signalled: set[Address] = set()
        """The candidates of the peer that have a pair."""
        self._main = main
        self._same_host = same_host
        self._relayed_from = relayed_from
        self._max_interval = max_interval
        self._drops = drops
        self._local: list[Candidate] = []
        self._relayed: set[Address] = set()  # of `signalled`, those of the peer's relay
        self._pairs: dict[tuple[Address, int], Pair] = {}

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._pairs.values())

    def get(self, address: Address, local: int) -> Pair | None:
        return self._pairs.get((address, local))

    def next(self, may_send: Callable[[Pair], bool]) -> Pair | None:
        """The one whose probe is due first; among equals the most direct."""
        return min(filter(may_send, self), key=lambda pair: (pair.next_probe, pair.rank), default=None)

    def add_local(self, candidates: Sequence[Candidate], now: float) -> None:
        """This side's own: they tell how direct the peer's addresses are."""
        self._local += candidates
        for candidate in candidates:
            self._pairs.pop((candidate.address, self._main), None)
        for pair in self:
            pair.kind = self._kind_of(pair.address)
        self._pair_through_relay(now)

    def add_remote(self, candidates: Sequence[Candidate], now: float) -> list[Pair]:
        """The peer's, in any number of portions; beyond MAX_CANDIDATES in all they are ignored. Their pairs."""
        own = {candidate.address for candidate in self._local}
        pairs = []
        for candidate in candidates:
            if len(self.signalled) >= MAX_CANDIDATES:
                self._drops["too many candidates"] += 1
                break
            if candidate.type is CandidateType.LOOPBACK and not self._same_host:
                continue
            if candidate.address in own or candidate.address in self.signalled:
                continue  # the same private address in two homes: there it would be us
            if candidate.type is CandidateType.RELAYED:
                self._relayed.add(candidate.address)
            if (pair := self._signal(candidate.address, now)) is not None:
                self.signalled.add(candidate.address)
                pairs.append(pair)
        self._pair_through_relay(now)
        return pairs

    def add(self, address: Address, local: int, now: float) -> Pair | None:
        """None where there are too many."""
        if len(self._pairs) >= MAX_PAIRS:
            self._drops["too many addresses"] += 1
            return None
        kind = self._kind_of(address)
        first_probe = max(now, self._relayed_from) if kind is PathKind.RELAYED else now
        pair = Pair(address, kind, address in self.signalled, first_probe, local, max_interval=self._max_interval)
        self._pairs[address, local] = pair
        return pair

    def _signal(self, address: Address, now: float) -> Pair | None:
        """The pair of an address that the peer told, maybe learned before."""
        pair = self.get(address, self._main) or self.add(address, self._main, now)
        if pair is not None:
            pair.signalled = True
        return pair

    def _pair_through_relay(self, now: float) -> None:
        for address in addresses_through_relay(self._local, self.signalled):
            self._signal(address, now)

    def _kind_of(self, address: Address) -> PathKind:
        return path_kind(self._local, address, self._same_host, self._relayed)
