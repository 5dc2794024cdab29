"""Probes all addresses of the peer at once until both sides agree on the best one that works both ways. Sans-IO.

1. Candidates of the peer become pairs; each is probed with REQUESTs, paced, at growing intervals.
2. A datagram that is authentic (`channel.py`) belongs to the pair of its source address, which is learned
   (peer-reflexive) if it is a REQUEST from an unknown one.
3. A REQUEST is answered by a RESPONSE to where it came from, and triggers a REQUEST there. A RESPONSE from the address
   to which its REQUEST went validates the pair: that way works both ways. Each side does this for itself and says so
   in the flag of all its later probes there.
4. The SENDER role decides. Once a pair is validated by both (`agreed`), it waits a little for more direct ones, then
   sends NOMINATE on the best. The other side adopts it if it has validated it too, and answers NOMINATED; the deciding
   side now has its path, and says CONFIRM, on which the other side has it, too. NOMINATE and NOMINATED are repeated
   until answered. A nomination that stays unanswered is withdrawn by one with a higher generation, on any pair; only
   the latest generation can be completed, so the two sides never end with different paths.
5. With a path the puncher falls silent but for answers to the peer, whose last probes may have been lost.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from udpsend.config import Role
from udpsend.errors import BadPacket
from udpsend.events import PathKind
from udpsend.punching.candidates import path_kind
from udpsend.punching.channel import ProbeChannel
from udpsend.punching.pairs import FIRST_INTERVAL, MAX_INTERVAL, MAX_PAIRS, Pair
from udpsend.punching.path import Path, PathValidated, PunchFailed
from udpsend.wire.candidate import MAX_CANDIDATES, Candidate, CandidateType
from udpsend.wire.datagram import Address, Arrival, Transmit
from udpsend.wire.probe import TRANSACTION_SIZE, Probe, ProbeType

PACE = 0.005  # seconds between requests; RFC 8445, section 14.2 asks for this much
# For more direct pairs, or two round trips of the one at hand if that is longer; three times as long where the peer
# has been heard on one: over a slow IPv6 path two exchanges take longer than over a fast NAT.
PATIENCE = 0.1
MAX_NOMINATIONS = 6  # of one pair before another is tried
GRACE = 2.0  # for the CONFIRM of a nomination that came just before the timeout
MAX_ANSWERS = 64  # that wait to be sent; the peer repeats what is lost


__all__ = ["Path", "PathValidated", "PunchFailed", "Puncher"]


class Puncher:
    """One for each secret: numbers of probes are never used twice with one key."""

    def __init__(
        self,
        secret: bytes,
        role: Role,
        now: float,
        random_bytes: Callable[[int], bytes],
        same_host: bool,
        timeout: float = 12.0,
    ) -> None:
        self.path: Path | None = None
        self.drops: Counter[str] = Counter()
        self._decides = role is Role.SENDER
        self._channel = ProbeChannel(secret, role)
        self._random_bytes = random_bytes
        self._same_host = same_host
        self._deadline = now + timeout
        self._last_deadline = now + timeout + 2 * GRACE
        self._failed = False
        self._local: list[Candidate] = []
        self._pairs: dict[Address, Pair] = {}
        self._signalled = 0
        self._pace_at = now
        self._answers: list[Transmit] = []
        self._events: list[PathValidated | PunchFailed] = []

        self._nominee: Pair | None = None
        self._nominee_kind = PathKind.INTERNET
        self._generation = 0
        self._nominations = 0
        self._agreed_at: float | None = None  # when a pair first was
        self._patience = 0.0
        self._decide_at = math.inf
        self._repeat_at = math.inf
        self._repeat_interval = 0.0

    def add_local_candidates(self, candidates: Sequence[Candidate], now: float) -> None:
        """This side's own: they tell how direct the peer's addresses are."""
        self._local += candidates
        for candidate in candidates:
            self._pairs.pop(candidate.address, None)
        for pair in self._pairs.values():
            pair.kind = path_kind(self._local, pair.address, self._same_host)

    def add_remote_candidates(self, candidates: Sequence[Candidate], now: float) -> None:
        """The peer's, in any number of portions. Beyond MAX_CANDIDATES in all they are ignored."""
        own = {candidate.address for candidate in self._local}
        for candidate in candidates:
            if self._signalled >= MAX_CANDIDATES:
                self.drops["too many candidates"] += 1
                break
            if candidate.type is CandidateType.LOOPBACK and not self._same_host:
                continue
            if candidate.address in own:
                continue  # the same private address in two homes: there it would be us
            pair = self._pairs.get(candidate.address)
            if pair is None:
                pair = self._add_pair(candidate.address, now)
            elif pair.signalled:
                continue
            if pair is not None:
                pair.signalled = True
                self._signalled += 1

    def datagram_received(self, arrival: Arrival, now: float) -> None:
        """Whatever comes from the network, with the first byte KIND_PROBE. Never raises."""
        for datagram in arrival.datagrams():
            try:
                probe = self._channel.open_untrusted(datagram)
            except BadPacket as reason:
                self.drops[str(reason)] += 1
            else:
                self._authentic_received(probe, arrival.address, now)

    def _authentic_received(self, probe: Probe, address: Address, now: float) -> None:
        if self._failed:
            return
        pair = self._pairs.get(address)
        if pair is None and probe.type is ProbeType.REQUEST:
            pair = self._add_pair(address, now)
        if pair is None:
            self.drops["unknown address"] += 1
            return
        pair.received += 1
        self._probe_received(pair, probe, now)
        self._decide(now)

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        pair = self._next_pair() if self._unfinished and now >= self._pace_at else None
        if pair is not None and pair.next_probe <= now:
            self._pace_at = now + PACE
            transaction = self._random_bytes(TRANSACTION_SIZE)
            pair.request_sent(transaction, now)
            self._send(pair, Probe(ProbeType.REQUEST, pair.validated, transaction=transaction))
        answers, self._answers = self._answers, []
        return answers

    def next_timer(self) -> float | None:
        if not self._unfinished:
            return None
        timer = min(self._deadline, self._repeat_at, self._decide_at)
        pair = self._next_pair()
        return timer if pair is None else min(timer, max(pair.next_probe, self._pace_at))

    def timer_expired(self, now: float) -> None:
        if not self._unfinished:
            return
        if now >= self._deadline:
            self._failed = True
            pairs = self._pairs.values()
            heard = sum(pair.received > 0 for pair in pairs)
            self._events.append(PunchFailed(self._signalled, heard, sum(pair.validated for pair in pairs)))
            return
        if now >= self._repeat_at:
            self._repeat(now)
        self._decide(now)

    def next_event(self) -> PathValidated | PunchFailed | None:
        return self._events.pop(0) if self._events else None

    @property
    def own_addresses(self) -> set[Address]:
        """This side's addresses as the peer saw them."""
        return {pair.observed for pair in self._pairs.values() if pair.observed is not None}

    @property
    def _unfinished(self) -> bool:
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
                if pair.response_received(probe.transaction, now):
                    pair.observed = probe.observed
                else:
                    self.drops["unasked response"] += 1
            case ProbeType.NOMINATE if not self._decides:
                self._nominate_received(pair, probe, now)
            case ProbeType.NOMINATED if (
                self._decides and probe.generation == self._generation and pair is self._nominee
            ):
                self._send(pair, Probe(ProbeType.CONFIRM, True, self._generation, self._nominee_kind))
                self._path_agreed(pair)
            case ProbeType.CONFIRM if (
                not self._decides and probe.generation == self._generation and pair is self._nominee
            ):
                self._path_agreed(pair)
            case _:
                self.drops["out of turn"] += 1

    def _nominate_received(self, pair: Pair, probe: Probe, now: float) -> None:
        if self.path is not None or probe.generation < self._generation or not pair.validated:
            self.drops["out of turn"] += 1
            return
        if probe.generation == self._generation and pair is not self._nominee:
            self.drops["two nominations"] += 1
            return
        if probe.generation > self._generation:
            self._generation = probe.generation
            self._nominee, self._nominee_kind = pair, probe.kind
            # The deciding side has its path with the first NOMINATED that arrives, and cannot go back. So the intervals
            # do not grow here: of runs over links that lose up to 70 % one in 150 else ended with a path on one side.
            self._repeat_interval = FIRST_INTERVAL
            self._deadline = max(self._deadline, min(now + GRACE, self._last_deadline))
        self._send_nomination(ProbeType.NOMINATED, now)

    def _decide(self, now: float) -> None:
        """Nominates the best pair, if it is the turn of this side and the time has come."""
        if not self._decides or self._nominee is not None or not self._unfinished:
            return
        best = min((pair for pair in self._pairs.values() if pair.agreed), key=lambda pair: pair.rank, default=None)
        if best is None:
            return
        if self._agreed_at is None:
            self._agreed_at = now
            self._patience = max(PATIENCE, 2 * best.round_trip)
        better = [pair for pair in self._pairs.values() if pair.is_more_direct_than(best)]
        self._decide_at = self._agreed_at + self._patience * max((3 if p.received else 1 for p in better), default=0)
        if now < self._decide_at:
            return
        self._nominee, self._nominee_kind = best, best.kind
        self._decide_at = math.inf
        self._generation += 1
        self._nominations = 0
        self._repeat_interval = max(FIRST_INTERVAL, 1.5 * best.round_trip)
        self._send_nomination(ProbeType.NOMINATE, now)

    def _send_nomination(self, probe_type: ProbeType, now: float) -> None:
        assert self._nominee is not None  # noqa: S101 - callers have just seen to it
        self._nominations += 1
        self._send(self._nominee, Probe(probe_type, True, self._generation, self._nominee_kind))
        self._repeat_at = now + self._repeat_interval
        if self._decides:
            self._repeat_interval = min(1.5 * self._repeat_interval, max(MAX_INTERVAL, 1.5 * self._nominee.round_trip))

    def _repeat(self, now: float) -> None:
        if self._nominee is None:
            return
        if not self._decides:
            self._send_nomination(ProbeType.NOMINATED, now)
        elif self._nominations < MAX_NOMINATIONS:
            self._send_nomination(ProbeType.NOMINATE, now)
        else:
            # It worked, and works no more: it has to prove itself again, while the others have their chance.
            self._nominee.validated = self._nominee.peer_validated = False
            self._nominee.start_over(now)
            self._nominee = None
            self._repeat_at = math.inf

    def _path_agreed(self, pair: Pair) -> None:
        if self.path is None:
            self.path = Path(pair.address, self._nominee_kind, pair.round_trip)
            self._events.append(PathValidated(self.path))

    def _add_pair(self, address: Address, now: float) -> Pair | None:
        if len(self._pairs) >= MAX_PAIRS:
            self.drops["too many addresses"] += 1
            return None
        pair = Pair(address, path_kind(self._local, address, self._same_host), False, now)
        self._pairs[address] = pair
        return pair

    def _next_pair(self) -> Pair | None:
        """The one whose probe is due first; among equals the most direct."""
        eligible = (pair for pair in self._pairs.values() if pair.may_send)
        return min(eligible, key=lambda pair: (pair.next_probe, pair.rank), default=None)

    def _send(self, pair: Pair, probe: Probe) -> None:
        if not pair.may_send:
            self.drops["amplification limit"] += 1
            return
        if len(self._answers) >= MAX_ANSWERS:
            self.drops["too many answers"] += 1
            return
        pair.sent += 1
        datagram = self._channel.seal(probe)
        self._answers.append(Transmit([datagram], len(datagram), len(datagram), pair.address))
