"""What both sides tell each other of their addresses, and the punching that comes of it. Sans-IO.

All of it travels sealed over the mailboxes: in the hello of the handshake, and later in messages of their own, each a
dictionary with some of these words:

    candidates   [[type, host, port], ...]          addresses of the one who says it; more may follow
    host         text                               the host token (`candidates.py`)
    relay        true                               a relay was asked for, and may be found later
    nat          [mapping, host, port, sequential]  its NAT (`behaviour.py`)
    opened       [[host, port], ...]                addresses of the other side that it knows and has sent openers to
    punch        number                             which punching this is about; 0 if it is not said

1. `agreed`: the first puncher starts, with what the hello told.
2. Own candidates that are found later are told, and so is the NAT once enough servers have answered.
3. When the peer has opened towards all that we told, and we know our addresses, packets go out with full TTL.
4. A path that dies is looked for again (`punch_again`): the next puncher has keys of its own, and starts on the other
   side at the word. Both sides gather their addresses anew for it, since those are what may have changed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence

from udpsend.config import Role
from udpsend.errors import BadPacket
from udpsend.punching.behaviour import NatBehaviour, parse_behaviour_untrusted
from udpsend.punching.channel import MAX_PROBE_SIZE
from udpsend.punching.deadline import PUNCH_TIMEOUT
from udpsend.punching.outbox import Tally
from udpsend.punching.path import CandidatesWanted, PathValidated, PunchFailed, SocketChosen, SocketsWanted
from udpsend.punching.puncher import Puncher
from udpsend.punching.reasons import explain
from udpsend.sealing.keys import derive_generation
from udpsend.wire.candidate import MAX_CANDIDATES, Candidate, CandidateType, parse_candidate_untrusted
from udpsend.wire.datagram import Address, Arrival, Transmit
from udpsend.wire.json import JSON

HOLD = 1.0  # seconds from the peer's first word to the one that it has opened: a round trip through the mailbox, mostly
MAX_GENERATIONS = 200  # of punching in one session
MAX_EARLY = 8  # probes, kept: they may overtake the last word of the handshake, and the next are due 20 to 50 ms later


NegotiationEvent = PathValidated | PunchFailed | SocketsWanted | SocketChosen | CandidatesWanted


class Negotiation:
    """`drops` counts what of the peer's words made no sense."""

    def __init__(
        self,
        role: Role,
        random_bytes: Callable[[int], bytes],
        candidates: Sequence[Candidate],
        host_token: str,
        drops: Counter[str],
        patience: float = PUNCH_TIMEOUT,
        awaits_relay: bool = False,
    ) -> None:
        """`patience` is how many seconds to look for the first path. `awaits_relay`: this side asked for one."""
        self.behaviour: NatBehaviour | None = None
        self.peer_behaviour = NatBehaviour()
        self.generation = 0
        self._probe_drops: Counter[str] = Counter()
        self._earlier = Tally()  # what went out in earlier punchings
        self._role = role
        self._random_bytes = random_bytes
        self._candidates = list(candidates)
        self._host_token = host_token
        self._drops = drops
        self._patience = patience
        self._awaits_relay = awaits_relay
        self._has_more = awaits_relay or patience != PUNCH_TIMEOUT
        self._secret = b""
        self._same_host = False
        self._puncher: Puncher | None = None
        self._main = 0  # the socket that the session uses
        self._opened_more = False
        self._known: list[Address] = []  # the peer's, as far as it told
        self._is_opened_told = True
        self._peer_opened: set[Address] = set()
        self._words: list[dict[str, JSON]] = []
        self._events: deque[NegotiationEvent] = deque()
        self._early: deque[Arrival] = deque(maxlen=MAX_EARLY)

    # what the owner does

    def hello(self) -> dict[str, JSON]:
        """For the handshake."""
        hello: dict[str, JSON] = {"candidates": _to_json(self._candidates), "host": self._host_token}
        if self._awaits_relay:
            hello["relay"] = True
        if self.behaviour is not None:
            hello["nat"] = self.behaviour.to_json()
        return hello

    def add_candidates(self, candidates: Sequence[Candidate], now: float, *, are_all: bool = False) -> bool:
        """This side's own, as they are found; `are_all`: in place of those that no peer was told yet. Whether there is
        something to tell."""
        if are_all and self._puncher is None:
            self._candidates, self.behaviour = list(candidates), None
            return True
        known = {candidate.address for candidate in self._candidates}
        fresh = [candidate for candidate in candidates if candidate.address not in known]
        self._candidates += fresh
        if fresh and self._puncher is not None:
            self._puncher.add_local_candidates(fresh, now)
            self._tell({"candidates": _to_json(fresh)})
        return bool(fresh)

    def set_behaviour(self, behaviour: NatBehaviour, now: float) -> None:
        """This side's NAT is known, and with it all its addresses."""
        self.behaviour = behaviour
        self._opened_more |= behaviour.local > 0
        if self._puncher is not None:
            self._tell({"nat": behaviour.to_json()})
            self._behaviours_changed(now)
            if self._puncher.path is not None:  # found before, so nothing is searched
                self._choose(self._main)

    def agreed(self, secret: bytes, hello: dict[str, JSON], size: float, now: float) -> None:
        self._secret = secret
        self._same_host = hello.get("host") == self._host_token
        self._has_more |= hello.get("relay") is True
        self._start(now)
        self._take_untrusted(hello, size, now)
        while self._early:
            self.datagram_received(self._early.popleft(), now)

    def word_received(self, word: dict[str, JSON], size: float, now: float) -> None:
        """What the peer told later; `size` is that of the message in bytes, as in `agreed`."""
        punch = word.get("punch", 0)
        if not isinstance(punch, int) or isinstance(punch, bool) or not 0 <= punch <= MAX_GENERATIONS:
            self._drops["punching number"] += 1
            return
        if punch > self.generation:
            self._begin(punch, now, by_peer=True)
        if punch == self.generation and self._puncher is not None:
            self._puncher.peer_spoke(now)
            self._take_untrusted(word, size, now)

    def words_to_send(self) -> list[dict[str, JSON]]:
        words, self._words = self._words, []
        return words

    def punch_again(self, now: float) -> None:
        """The path is dead: look for one as at the beginning, with a puncher of its own."""
        if self.generation < MAX_GENERATIONS:
            self._begin(self.generation + 1, now, by_peer=False)

    def sockets_opened(self, sockets: list[int], now: float) -> None:
        self._opened_more = True
        if self._puncher is not None:
            self._puncher.sockets_opened(sockets, now)

    def why_no_path(self) -> str:
        """For the user, once it is clear that there is none."""
        failed = self._puncher.failure() if self._puncher is not None else PunchFailed(0, 0)
        return explain(self.behaviour or NatBehaviour(), self.peer_behaviour, failed)

    @property
    def is_punching(self) -> bool:
        return self._puncher is not None and self._puncher.unfinished

    def counters(self) -> dict[str, float]:
        drops, tally = self._probe_drops, self._earlier
        if self._puncher is not None:
            drops, tally = drops + self._puncher.drops, tally + self._puncher.tally
        return {
            "probes, sent": tally.sent,
            "probes, bytes sent": tally.size,
            "probes, most to one unheard": tally.to_one_unheard,
            **{f"probes, {why}": n for why, n in drops.items()},
        }

    # the five verbs

    def datagram_received(self, arrival: Arrival, now: float) -> None:
        if self._puncher is not None:
            self._puncher.datagram_received(arrival, now)
            self._take_events()
        elif arrival.stride <= MAX_PROBE_SIZE:
            early = Arrival.of([arrival.first_datagram()], arrival.address)
            early.local = arrival.local
            self._early.append(early)

    def datagrams_to_send(self, now: float) -> Sequence[Transmit]:
        if self._puncher is None:
            return ()
        transmits = self._puncher.datagrams_to_send(now)
        self._take_events()
        return transmits

    def next_timer(self) -> float | None:
        return self._puncher.next_timer() if self._puncher is not None else None

    def timer_expired(self, now: float) -> None:
        if self._puncher is not None:
            self._puncher.timer_expired(now)
            self._take_events()

    def next_event(self) -> NegotiationEvent | None:
        return self._events.popleft() if self._events else None

    # one punching after the other

    def _begin(self, generation: int, now: float, *, by_peer: bool) -> None:
        self._choose(self._main)
        self.generation = generation
        self._candidates.clear()
        self.behaviour = None
        self._start(now)
        self._events.append(CandidatesWanted(by_peer))
        self._tell({})

    def _start(self, now: float) -> None:
        if self._puncher is not None:
            self._probe_drops += self._puncher.drops
            self._earlier += self._puncher.tally
        self._known.clear()
        self._peer_opened.clear()
        secret = derive_generation(self._secret, self.generation)
        patience = self._patience if self.generation == 0 else PUNCH_TIMEOUT
        has_more = self._has_more or self.generation > 0
        self._puncher = Puncher(
            secret, self._role, now, self._random_bytes, self._same_host, patience, self._main, HOLD, has_more=has_more
        )
        self._puncher.credit = 0
        self._puncher.add_local_candidates(self._candidates, now)

    def _take_events(self) -> None:
        while self._puncher is not None and (event := self._puncher.next_event()) is not None:
            if isinstance(event, PathValidated):
                self._choose(event.path.local)
            elif isinstance(event, PunchFailed):
                self._choose(self._main)
            self._events.append(event)

    def _choose(self, local: int) -> None:
        if self._opened_more:
            self._opened_more = False
            self._main = local
            self._events.append(SocketChosen(local))

    # what the peer told

    def _take_untrusted(self, word: dict[str, JSON], size: float, now: float) -> None:
        if self._puncher is not None:
            self._puncher.credit += size
        self._add_remote_candidates(word.get("candidates"), now)
        if "nat" in word:
            try:
                self.peer_behaviour = parse_behaviour_untrusted(word["nat"])
            except BadPacket as error:
                self._drops[str(error)] += 1
        if isinstance(opened := word.get("opened"), list):
            self._peer_opened |= {(host, port) for host, port in _addresses_untrusted(opened)}
        self._behaviours_changed(now)

    def _add_remote_candidates(self, values: object, now: float) -> None:
        if self._puncher is None or not isinstance(values, list):
            return
        candidates = []
        for value in values[:MAX_CANDIDATES]:
            try:
                candidates.append(parse_candidate_untrusted(value))
            except BadPacket as error:
                self._drops[str(error)] += 1
        self._puncher.add_remote_candidates(candidates, now)
        fresh = [c.address for c in candidates if not c.is_ipv6 and c.address not in self._known]
        known, self._known = len(self._known), (self._known + fresh)[: 2 * MAX_CANDIDATES]
        if len(self._known) > known:
            self._is_opened_told = False

    def _behaviours_changed(self, now: float) -> None:
        if self._puncher is None or self.behaviour is None:
            return
        self._puncher.set_behaviours(self.behaviour, self.peer_behaviour, now)
        # The openers leave in this turn of the loop, the word after them: not before it is known how far they must get.
        if not self._is_opened_told:
            self._is_opened_told = True
            self._tell({"opened": [[host, port] for host, port in self._known]})
        own = {c.address for c in self._candidates if not c.is_ipv6 and c.type is not CandidateType.LOOPBACK}
        if own <= self._peer_opened:
            self._puncher.peer_opened(now)

    def _tell(self, word: dict[str, JSON]) -> None:
        self._words.append({"punch": self.generation, **word})


def _to_json(candidates: Sequence[Candidate]) -> list[JSON]:
    return [candidate.to_json() for candidate in candidates[:MAX_CANDIDATES]]


def _addresses_untrusted(values: list[JSON]) -> Iterator[Address]:
    for value in values[: 2 * MAX_CANDIDATES]:
        match value:
            case [str(host), int(port)]:
                yield host, port
