"""Probes all addresses of the peer at once until both sides agree on the best one that works both ways. Sans-IO.

1. Candidates of the peer become pairs (`pairs.py`); each is probed with REQUESTs, paced, at growing intervals.
2. A datagram that is authentic (`channel.py`) belongs to the pair of its source address, which is learned
   (peer-reflexive) if it is a REQUEST from an unknown one.
3. A REQUEST is answered by a RESPONSE to where it came from, and triggers a REQUEST there. A RESPONSE from the address
   to which its REQUEST went validates the pair: that way works both ways. Each side does this for itself and says so
   in the flag of all its later probes there.
4. Where the NATs call for it and nothing has come up yet, a method of `hard.py` sends further requests, from sockets
   that the owner opens (SocketsWanted).
5. The SENDER role decides (`nomination.py`): NOMINATE, NOMINATED, CONFIRM.
6. With a path the puncher falls silent but for answers to the peer, whose last probes may have been lost.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from udpsend.config import Role
from udpsend.errors import BadPacket
from udpsend.events import PathKind
from udpsend.punching.behaviour import NatBehaviour
from udpsend.punching.channel import ProbeChannel
from udpsend.punching.deadline import PUNCH_TIMEOUT, Deadline
from udpsend.punching.hard import Method, choose_method
from udpsend.punching.nomination import Nomination
from udpsend.punching.openers import Openers
from udpsend.punching.outbox import Outbox, Tally, size_on_the_wire
from udpsend.punching.pairs import MAX_INTERVAL, Checklist, Pair
from udpsend.punching.path import Path, PathValidated, PunchFailed, SocketsWanted
from udpsend.wire.candidate import Candidate
from udpsend.wire.datagram import Arrival, Transmit
from udpsend.wire.probe import TRANSACTION_SIZE, Probe, ProbeType

PACE = 0.005  # seconds between requests; RFC 8445, section 14.2 asks for this much
RELAY_DELAY = 2.0  # seconds for a direct path to come up, before a relay is tried
SLOWEST_PROBES = 150  # of one pair, where the timeout is longer than usual: with 16 pairs that is below MAX_SENT

PunchEvent = PathValidated | PunchFailed | SocketsWanted


class Puncher:
    """One for each secret: numbers of probes are never used twice with one key."""

    def __init__(
        self,
        secret: bytes,
        role: Role,
        now: float,
        random_bytes: Callable[[int], bytes],
        same_host: bool,
        timeout: float = PUNCH_TIMEOUT,
        main_socket: int = 0,
        hold: float = 0.0,
        *,
        has_more: bool = True,
    ) -> None:
        """`main_socket` is the `local` of what is sent to candidates. With `hold`, those of kind INTERNET get an opener
        first (`openers.py`). Without `has_more` it may give up sooner (`deadline.py`)."""
        self.path: Path | None = None
        self.drops: Counter[str] = Counter()
        self.credit = math.inf
        """Bytes that the peer said so far, by way of the mailboxes."""
        self._role = role
        self._channel = ProbeChannel(secret, role)
        self._outbox = Outbox(self._channel, self.drops)
        self._random_bytes = random_bytes
        self._main = main_socket
        self._start = now
        self._deadline = Deadline(now, timeout, has_more=has_more)
        self._failed = False
        interval = max(MAX_INTERVAL, timeout / SLOWEST_PROBES)
        self._checklist = Checklist(main_socket, same_host, now + RELAY_DELAY, interval, self.drops)
        self._method: Method | None = None
        self._pace_at = now
        self._events: list[PunchEvent] = []
        self._openers = Openers(now, hold, self._request_to)
        self._nomination = Nomination(role is Role.SENDER, self._send, self.drops)

    def add_local_candidates(self, candidates: Sequence[Candidate], now: float) -> None:
        """This side's own: they tell how direct the peer's addresses are."""
        self._deadline.candidates_known(candidates, now, own=True)
        self._checklist.add_local(candidates, now)

    def add_remote_candidates(self, candidates: Sequence[Candidate], now: float) -> None:
        """The peer's, in any number of portions. Beyond MAX_CANDIDATES in all they are ignored."""
        self._deadline.candidates_known(candidates, now, own=False)
        for pair in self._checklist.add_remote(candidates, now):
            if pair.kind is PathKind.INTERNET:
                self._openers.open(pair, now)

    def peer_spoke(self, now: float) -> None:
        self._openers.peer_spoke(self._checklist, now)

    def peer_opened(self, now: float) -> None:
        hold = self._method.hold if self._method is not None else 0.0
        self._openers.peer_opened(self._checklist, hold, now)

    def set_behaviours(self, own: NatBehaviour, peer: NatBehaviour, now: float) -> None:
        """What both NATs do. May come at any time, and again as more is known; what has begun goes on."""
        self._deadline.behaviours_known(own, peer)
        self._openers.cross(own.routers.count, self._checklist, now)
        if self._method is None or not self._method.begun:
            self._method = choose_method(self._role, own, peer, self._main, self._start, self._random_bytes)

    def sockets_opened(self, sockets: list[int], now: float) -> None:
        """The answer to SocketsWanted: the `local` of each, as many as there could be."""
        if self._method is not None:
            self._method.sockets_opened(sockets, now)

    def datagram_received(self, arrival: Arrival, now: float) -> None:
        """Whatever comes from the network, with the first byte KIND_PROBE. Never raises."""
        for datagram in arrival.datagrams():
            try:
                probe = self._channel.open_untrusted(datagram)
            except BadPacket as reason:
                self.drops[str(reason)] += 1
            else:
                self._authentic_received(probe, arrival, now)

    def _authentic_received(self, probe: Probe, arrival: Arrival, now: float) -> None:
        if self._failed:
            return
        local = arrival.local or self._main
        pair = self._checklist.get(arrival.address, local)
        if pair is None and probe.type is ProbeType.REQUEST:
            pair = self._checklist.add(arrival.address, local, now)
        if pair is None:
            self.drops["unknown address"] += 1
            return
        pair.received += 1
        self._outbox.heard_from(arrival.address)
        self._probe_received(pair, probe, now)
        self._decide(now)

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        if self.unfinished:
            self._request(now)
        return self._outbox.take()

    def _request(self, now: float) -> None:
        """What is due of the candidates, and of the method."""
        pair = self._checklist.next(self._may_send) if now >= self._pace_at else None
        if pair is not None and pair.next_probe <= now:
            self._pace_at = now + PACE
            self._request_to(pair, 0, now)
        while self._method is not None and not self._method.sockets_wanted and now >= self._method_due:
            self._method.begun = True
            target = self._method.take(now)
            if target is None:
                return
            # Its answer is not waited for: the peer's own request comes with it, and makes a pair.
            transaction = self._random_bytes(TRANSACTION_SIZE)
            self._outbox.put(Probe(ProbeType.REQUEST, transaction=transaction), *target)

    def _request_to(self, pair: Pair, ttl: int, now: float) -> None:
        transaction = self._random_bytes(TRANSACTION_SIZE)
        pair.request_sent(transaction, now)
        self._send(pair, Probe(ProbeType.REQUEST, pair.validated, transaction=transaction), ttl)

    @property
    def _method_due(self) -> float:
        """Not while a pair works: if that fails, the method goes on."""
        if self._method is None or any(pair.validated for pair in self._checklist):
            return math.inf
        return max(self._method.due, self._openers.until)

    @property
    def _give_up_at(self) -> float:
        return self._deadline.at(is_heard=any(pair.received for pair in self._checklist))

    def next_timer(self) -> float | None:
        if not self.unfinished:
            return None
        timer = min(self._give_up_at, self._nomination.timer, self._method_due)
        pair = self._checklist.next(self._may_send)
        return timer if pair is None else min(timer, max(pair.next_probe, self._pace_at))

    def timer_expired(self, now: float) -> None:
        if not self.unfinished:
            return
        if now >= self._give_up_at:
            self._failed = True
            self._events.append(self.failure())
            return
        if self._method is not None and self._method.sockets_wanted and now >= self._method_due:
            self._events.append(SocketsWanted(self._method.sockets_wanted))
            self._method.due = math.inf  # until they are opened
        self._nomination.timer_expired(now)
        self._decide(now)

    def next_event(self) -> PunchEvent | None:
        return self._events.pop(0) if self._events else None

    def failure(self) -> PunchFailed:
        """What has come of it, if this is the end."""
        heard = sum(pair.received > 0 for pair in self._checklist)
        return PunchFailed(len(self._checklist.signalled), heard, *self._deadline.versions())

    @property
    def tally(self) -> Tally:
        """What was sent so far."""
        return self._outbox.tally

    @property
    def unfinished(self) -> bool:
        return self.path is None and not self._failed

    def _probe_received(self, pair: Pair, probe: Probe, now: float) -> None:
        pair.peer_validated |= probe.validated
        match probe.type:
            case ProbeType.REQUEST:
                response = Probe(
                    ProbeType.RESPONSE, pair.validated, transaction=probe.transaction, observed=pair.address
                )
                self._send(pair, response)
                pair.request_received(now)
            case ProbeType.RESPONSE:
                if not pair.response_received(probe.transaction, now):
                    self.drops["unasked response"] += 1
            case ProbeType.NOMINATE if not self._nomination.decides and self.path is None:
                if self._nomination.nominate_received(pair, probe, now):
                    self._deadline.nominated(now)
            case ProbeType.NOMINATED if self._nomination.decides and self._nomination.is_current(pair, probe):
                self._nomination.confirm(pair)
                self._path_agreed(pair)
            case ProbeType.CONFIRM if not self._nomination.decides and self._nomination.is_current(pair, probe):
                self._path_agreed(pair)
            case _:
                self.drops["out of turn"] += 1

    def _decide(self, now: float) -> None:
        if self.unfinished:
            self._nomination.decide(self._checklist, now)

    def _path_agreed(self, pair: Pair) -> None:
        if self.path is None:
            self.path = Path(pair.address, self._nomination.kind, pair.round_trip, pair.local)
            self._events.append(PathValidated(self.path))

    def _may_send(self, pair: Pair) -> bool:
        return pair.may_send(size_on_the_wire(pair.address), self.credit)

    def _send(self, pair: Pair, probe: Probe, ttl: int = 0) -> None:
        if not self._may_send(pair):
            self.drops["amplification limit"] += 1
        elif self._outbox.put(probe, pair.address, pair.local, ttl):
            pair.sent += 1
