"""Which of the pairs that work becomes the path: rules 7 to 10 of docs/protocol.md.

The deciding side waits a little for more direct pairs, nominates the best, and has its path when that is answered; the
other side adopts what is nominated if it has validated it, too, and has its path when that is confirmed. A nomination
that stays unanswered is withdrawn by one with a higher generation; only the latest can be completed, so the two sides
never end with different paths.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable

from udpsend.events import PathKind
from udpsend.punching.pairs import FIRST_INTERVAL, MAX_INTERVAL, Pair
from udpsend.wire.probe import Probe, ProbeType

# For more direct pairs, or two round trips of the one at hand if that is longer; three times as long where the peer
# has been heard on one: over a slow IPv6 path two exchanges take longer than over a fast NAT.
PATIENCE = 0.1
MAX_NOMINATIONS = 6  # of one pair before another is tried


class Nomination:
    """`send` queues a probe on a pair."""

    def __init__(self, decides: bool, send: Callable[[Pair, Probe], None], drops: Counter[str]) -> None:
        self.decides = decides
        self.pair: Pair | None = None
        self.kind = PathKind.INTERNET
        self._send = send
        self._drops = drops
        self.generation = 0
        self._count = 0
        self._agreed_at: float | None = None  # when a pair first was
        self._patience = 0.0
        self._decide_at = math.inf
        self._repeat_at = math.inf
        self._repeat_interval = 0.0

    @property
    def timer(self) -> float:
        return min(self._decide_at, self._repeat_at)

    def timer_expired(self, now: float) -> None:
        if now < self._repeat_at or self.pair is None:
            return
        if not self.decides:
            self._say(ProbeType.NOMINATED, self.pair, now)
        elif self._count < MAX_NOMINATIONS:
            self._say(ProbeType.NOMINATE, self.pair, now)
        else:
            # It worked, and works no more: it has to prove itself again, while the others have their chance.
            self.pair.validated = self.pair.peer_validated = False
            self.pair.start_over(now)
            self.pair = None
            self._repeat_at = math.inf

    def decide(self, pairs: Iterable[Pair], now: float) -> None:
        """Nominates the best pair, if it is the turn of this side and the time has come."""
        if not self.decides or self.pair is not None:
            return
        best = min((pair for pair in pairs if pair.agreed), key=lambda pair: pair.rank, default=None)
        if best is None:
            return
        if self._agreed_at is None:
            self._agreed_at = now
            self._patience = max(PATIENCE, 2 * best.round_trip)
        better = [pair for pair in pairs if pair.is_more_direct_than(best)]
        self._decide_at = self._agreed_at + self._patience * max((3 if p.received else 1 for p in better), default=0)
        if now < self._decide_at:
            return
        self.pair, self.kind = best, best.kind
        self._decide_at = math.inf
        self.generation += 1
        self._count = 0
        self._repeat_interval = max(FIRST_INTERVAL, 1.5 * best.round_trip)
        self._say(ProbeType.NOMINATE, best, now)

    def nominate_received(self, pair: Pair, probe: Probe, now: float) -> bool:
        """Whether it is a new one, taken."""
        if probe.generation < self.generation or not pair.validated:
            self._drops["out of turn"] += 1
            return False
        if probe.generation == self.generation and pair is not self.pair:
            self._drops["two nominations"] += 1
            return False
        is_new = probe.generation > self.generation
        if is_new:
            self.generation = probe.generation
            self.pair, self.kind = pair, probe.kind
            # The deciding side has its path with the first NOMINATED that arrives, and cannot go back. So the intervals
            # do not grow here: else one in 150 runs over links that lose up to 70 % ended with a path on one side only.
            self._repeat_interval = FIRST_INTERVAL
        self._say(ProbeType.NOMINATED, pair, now)
        return is_new

    def is_current(self, pair: Pair, probe: Probe) -> bool:
        return probe.generation == self.generation and pair is self.pair

    def confirm(self, pair: Pair) -> None:
        self._send(pair, Probe(ProbeType.CONFIRM, True, self.generation, self.kind))

    def _say(self, probe_type: ProbeType, pair: Pair, now: float) -> None:
        self._count += 1
        self._send(pair, Probe(probe_type, True, self.generation, self.kind))
        self._repeat_at = now + self._repeat_interval
        if self.decides:
            self._repeat_interval = min(1.5 * self._repeat_interval, max(MAX_INTERVAL, 1.5 * pair.round_trip))
