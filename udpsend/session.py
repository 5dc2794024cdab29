"""One session: meet -> punch -> transfer. Sans-IO: composes the three stages and gives each its datagrams.

1. Meet: messages of the mailboxes go to `Rendezvous` until both sides agree on a secret; candidates found later are
   sent after it, sealed.
2. Punch: datagrams that open with KIND_PROBE go to `Negotiation` until both sides agree on a path; it goes on
   answering the peer's late probes.
3. Transfer: datagrams that open with KIND_RECORD go to `Connection`, which has its own keys. Where nothing is heard of
   the other side any more, 2 begins anew, and the connection moves to the path that is found, where it goes on.

The first error ends the session, tells the other side on whatever way there is, and comes out as `Closed`.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from udpsend.config import Config, Role
from udpsend.errors import NoDirectPath, UdpsendError
from udpsend.events import PathFound, PeerMet, WrongGuess
from udpsend.punching.behaviour import NatBehaviour
from udpsend.punching.deadline import PUNCH_TIMEOUT
from udpsend.punching.negotiation import Negotiation
from udpsend.punching.path import CandidatesWanted, Path, PathValidated, PunchFailed, SocketChosen, SocketsWanted
from udpsend.rendezvous.code import Code
from udpsend.rendezvous.machine import Rendezvous
from udpsend.rendezvous.manual import ManualRendezvous
from udpsend.rendezvous.outcome import Agreed, Failed, SealedMessage, no_text, nobody_came, nothing_came
from udpsend.transfer.closing import close_of, peer_left
from udpsend.transfer.connection import Connection
from udpsend.transfer.messages import Closed, ConnectionEvent
from udpsend.wire.candidate import Candidate
from udpsend.wire.datagram import Address, Arrival, Transmit
from udpsend.wire.packets import KIND_PROBE, KIND_RECORD
from udpsend.wire.relayed import peer_behind_relay

SILENCE = 5.0  # seconds without an answer: then the path is taken for dead, and another is looked for
WATCH_INTERVAL = 1.0  # seconds between two looks at that


class PathMoved(Struct, frozen=True):
    """The old path was dead; the transfer goes on here."""

    found: PathFound


SessionEvent = (
    WrongGuess | PeerMet | PathFound | PathMoved | SocketsWanted | SocketChosen | CandidatesWanted | ConnectionEvent
)


class Session:
    """`candidates` are this side's own known so far; `host_token` is equal on two sessions of one host; `by_hand` means
    that people carry texts (`manual`) in place of mailboxes, and that the receiver waits for as long as that takes;
    `max_datagram_size(address)` is what the interface towards a peer takes; `config` says how to send."""

    def __init__(
        self,
        role: Role,
        code: Code,
        now: float,
        random_bytes: Callable[[int], bytes],
        *,
        candidates: Sequence[Candidate],
        host_token: str,
        max_datagram_size: Callable[[Address], int],
        receive_buffer: int,
        timeout: float,
        by_hand: bool = False,
        config: Config = Config(),  # noqa: B008 - frozen
    ) -> None:
        self._role = role
        self._random_bytes = random_bytes
        self._max_datagram_size = max_datagram_size
        self._receive_buffer = receive_buffer
        self._config = config
        self._timeout = timeout
        self._meet_by = now + timeout
        self._drops: Counter[str] = Counter()
        patience = timeout if by_hand and role is Role.RECEIVER else PUNCH_TIMEOUT
        self._negotiation = Negotiation(
            role, random_bytes, candidates, host_token, self._drops, patience, config.relay is not None
        )
        hello = self._negotiation.hello()
        self.manual = ManualRendezvous(role, code, now, random_bytes, hello) if by_hand else None
        self._rendezvous = self.manual or Rendezvous(role, code, now, random_bytes, hello)
        self._mailbox_timer = self._rendezvous.next_timer()
        self._reached: set[str] = set()  # mailboxes, by their names
        self._secret: bytes | None = None
        self._watch_at = math.inf
        self.connection: Connection | None = None
        self._events: deque[SessionEvent] = deque()
        self._closed = False

    @property
    def behaviours(self) -> tuple[NatBehaviour, NatBehaviour]:
        """What is known of this side's NAT and of the other's."""
        return self._negotiation.behaviour or NatBehaviour(), self._negotiation.peer_behaviour

    # what the owner does

    def add_candidates(self, candidates: Sequence[Candidate], now: float, *, are_all: bool = False) -> None:
        """This side's own, found later: the peer is told. `are_all`: those of before are of no use any more."""
        if self._negotiation.add_candidates(candidates, now, are_all=are_all):
            self._tell(now)

    def set_behaviour(self, behaviour: NatBehaviour, now: float) -> None:
        """What this side's NAT does: the STUN servers have been asked, and all own addresses are known."""
        self._negotiation.set_behaviour(behaviour, now)
        self._tell(now)

    def sockets_opened(self, sockets: list[int], now: float) -> None:
        """The answer to SocketsWanted: the `local` of each."""
        self._negotiation.sockets_opened(sockets, now)

    def mailbox_up(self, name: str, now: float) -> None:
        self._reached.add(name)
        self._rendezvous.mailbox_up(now)
        self._mailbox_timer = now

    def message_received(self, message: bytes, now: float) -> None:
        """From any mailbox."""
        self._rendezvous.message_received(message, now)
        self._mailbox_timer = now
        self._advance(now)

    def text_carried(self, now: float) -> None:
        """A text was taken from `manual`, or given to it."""
        self._advance(now)

    def messages_to_send(self, now: float) -> list[bytes]:
        """Each to be left in all mailboxes."""
        if self._mailbox_timer is None or now < self._mailbox_timer:
            return []
        messages = self._rendezvous.messages_to_send(now)
        self._mailbox_timer = self._rendezvous.next_timer()
        return messages

    def end(self, error: UdpsendError, now: float) -> None:
        """This side gives up: tell the other, as far as there is a way."""
        close = close_of(error)
        is_alone = self.connection is None or self.connection.silence(now) > SILENCE
        if self._secret is not None and not self._closed and is_alone:
            self._rendezvous.send_sealed(
                {"bye": close.reason, "code": int(close.code), "no_path": isinstance(error, NoDirectPath)}, is_last=True
            )
            self._mailbox_timer = now
        if self.connection is not None:
            self.connection.close(close, now, error)
        else:
            self._close(error)

    def counters(self) -> dict[str, float]:
        counters = {f"mailbox, {why}": float(n) for why, n in (self._rendezvous.drops + self._drops).items()}
        counters |= self._negotiation.counters()
        if self.connection is not None:
            counters |= self.connection.counters()
        return counters

    # the five verbs

    def datagram_received(self, arrival: Arrival, now: float) -> None:
        kind = arrival.first_byte()
        if kind == KIND_RECORD:
            if self.connection is not None:
                self.connection.datagram_received(arrival, now)
        elif kind == KIND_PROBE:
            self._negotiation.datagram_received(arrival, now)
            self._advance(now)

    def datagrams_to_send(self, now: float) -> Iterator[Transmit]:
        yield from self._negotiation.datagrams_to_send(now)
        if self.connection is not None:
            yield from self.connection.datagrams_to_send(now)

    def next_timer(self) -> float | None:
        if self._closed:
            return None
        times = [self._mailbox_timer, self._negotiation.next_timer()]
        if self.connection is not None:
            times += [self.connection.next_timer(), self._watch_at]
        elif self._secret is None:
            times.append(self._meet_by)
        return min((time for time in times if time is not None), default=None)

    def timer_expired(self, now: float) -> None:
        if self._mailbox_timer is not None and now >= self._mailbox_timer:
            self._rendezvous.timer_expired(now)
        self._negotiation.timer_expired(now)
        if self.connection is not None:
            self.connection.timer_expired(now)
            self._watch(self.connection, now)
        elif self._secret is None and now >= self._meet_by:
            brokers, is_by_hand = len(self._config.brokers), self.manual is not None
            self._close(no_text(self._timeout) if is_by_hand else nobody_came(self._timeout, brokers, self._reached))
        self._advance(now)

    def next_event(self) -> SessionEvent | None:
        if self._events:
            return self._events.popleft()
        if self.connection is None or self._closed:
            return None
        event = self.connection.next_event()
        self._closed = isinstance(event, Closed)
        return event

    # from stage to stage

    def _advance(self, now: float) -> None:
        """Take what the current stages have come to."""
        while (event := self._rendezvous.next_event()) is not None:
            match event:
                case Agreed() if not self._closed:
                    self._agreed(event, now)
                case SealedMessage():
                    self._sealed_message_received(event, now)
                case Failed(error) if self._secret is None:
                    self._close(error)
                case WrongGuess():
                    self._events.append(event)
        while (step := self._negotiation.next_event()) is not None:
            match step:
                case PathValidated(path):
                    self._path_validated(path, now)
                case PunchFailed() if self.connection is None:
                    self.end(self._why_no_path(step), now)
                case SocketsWanted() | SocketChosen() | CandidatesWanted():
                    self._events.append(step)
        self._tell(now)

    def _tell(self, now: float) -> None:
        """What the negotiation has to say; before there is agreement, in the hello."""
        if self._closed:
            return
        if self._secret is None:
            self._rendezvous.set_hello(self._negotiation.hello())
            return
        for word in self._negotiation.words_to_send():
            self._rendezvous.send_sealed(word)
            self._mailbox_timer = now

    def _agreed(self, agreed: Agreed, now: float) -> None:
        self._secret = agreed.secret
        self._events.append(PeerMet(agreed.phrase))
        self._negotiation.agreed(agreed.secret, agreed.hello, agreed.size, now)

    def _sealed_message_received(self, message: SealedMessage, now: float) -> None:
        payload = message.payload
        if payload.get("no_path") is True and self.connection is None:
            self._close(NoDirectPath(self._negotiation.why_no_path()))  # the same, from where this side stands
        elif "bye" in payload:
            self._close(peer_left(payload))
        elif not self._closed:
            self._negotiation.word_received(payload, message.size, now)

    def _why_no_path(self, failed: PunchFailed) -> UdpsendError:
        if self.manual is not None and self._role is Role.RECEIVER and not failed.heard:
            return nothing_came(self._timeout)
        return NoDirectPath(self._negotiation.why_no_path())

    def _watch(self, connection: Connection, now: float) -> None:
        """Look for another path where this one is dead."""
        if now < self._watch_at or self._closed:
            return
        self._watch_at = now + WATCH_INTERVAL
        if connection.silence(now) > SILENCE and not self._negotiation.is_punching:
            self._negotiation.punch_again(now)

    def _path_validated(self, path: Path, now: float) -> None:
        if self._secret is None or self._closed:
            return
        found = PathFound(path.kind, peer_behind_relay(path.address), path.round_trip)
        if self.connection is not None:
            self.connection.move(path.address, self._max_datagram_size(path.address), now)
            self._events.append(PathMoved(found))
            return
        self.connection = Connection(
            self._role,
            self._secret,
            path.address,
            now,
            self._random_bytes,
            round_trip=path.round_trip,
            max_datagram_size=self._max_datagram_size(path.address),
            receive_buffer=self._receive_buffer,
            config=self._config,
        )
        self._watch_at = now + WATCH_INTERVAL
        self._events.append(found)

    def _close(self, error: UdpsendError | None) -> None:
        if not self._closed:
            self._closed = True
            self._events.append(Closed(error))
