"""One session: meet -> punch -> transfer. Sans-IO: composes the three stages and gives each its datagrams.

1. Meet: messages of the mailboxes go to `Rendezvous` until both sides agree on a secret; candidates found later are
   sent after it, sealed.
2. Punch: datagrams that open with KIND_PROBE go to `Puncher` until both sides agree on a path; it goes on answering
   the peer's late probes.
3. Transfer: datagrams that open with KIND_RECORD go to `Connection`, which has its own keys.

The first error ends the session, tells the other side on whatever way there is, and comes out as `Closed`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from udpsend.config import Role
from udpsend.errors import BadPacket, Cancelled, NoDirectPath, PeerNeverCame, Refused, UdpsendError
from udpsend.events import PathFound, PeerMet, WrongGuess
from udpsend.punching.puncher import PathValidated, Puncher, PunchFailed
from udpsend.rendezvous.code import Code
from udpsend.rendezvous.machine import Agreed, Failed, Rendezvous, SealedMessage
from udpsend.rendezvous.messages import JSON
from udpsend.transfer.closing import close_of
from udpsend.transfer.connection import Connection
from udpsend.transfer.messages import Closed, ConnectionEvent
from udpsend.wire.candidate import MAX_CANDIDATES, Candidate, parse_candidate_untrusted
from udpsend.wire.datagram import Address, Arrival, Transmit
from udpsend.wire.frames import Close, CloseCode
from udpsend.wire.packets import KIND_PROBE, KIND_RECORD

SessionEvent = WrongGuess | PeerMet | PathFound | ConnectionEvent


class Session:
    """`candidates` are this side's own known so far; `host_token` is equal on two sessions of one host;
    `max_datagram_size(address)` is what the interface towards a peer takes."""

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
    ) -> None:
        self._role = role
        self._random_bytes = random_bytes
        self._candidates = list(candidates)
        self._host_token = host_token
        self._max_datagram_size = max_datagram_size
        self._receive_buffer = receive_buffer
        self._timeout = timeout
        self._give_up = now + timeout
        self._now = now
        self._rendezvous = Rendezvous(role, code, now, random_bytes, self._hello())
        self._secret: bytes | None = None
        self._puncher: Puncher | None = None
        self.connection: Connection | None = None
        self._events: deque[SessionEvent] = deque()
        self._closed = False

    def _hello(self) -> dict[str, JSON]:
        candidates: list[JSON] = [[*candidate.to_json()] for candidate in self._candidates[:MAX_CANDIDATES]]
        return {"candidates": candidates, "host": self._host_token}

    # what the owner does

    def add_candidates(self, candidates: Sequence[Candidate], now: float) -> None:
        """This side's own, found later: the peer is told."""
        known = {candidate.address for candidate in self._candidates}
        fresh = [candidate for candidate in candidates if candidate.address not in known]
        if not fresh or self._closed:
            return
        self._candidates += fresh
        if self._puncher is None:
            self._rendezvous.set_hello(self._hello())
            return
        self._puncher.add_local_candidates(fresh, now)
        told: list[JSON] = [[*candidate.to_json()] for candidate in fresh]
        self._rendezvous.send_sealed({"candidates": told})

    def mailbox_up(self, now: float) -> None:
        self._rendezvous.mailbox_up(now)

    def message_received(self, message: bytes, now: float) -> None:
        """From any mailbox."""
        self._rendezvous.message_received(message, now)
        self._advance(now)

    def messages_to_send(self, now: float) -> list[bytes]:
        """Each to be left in all mailboxes."""
        return self._rendezvous.messages_to_send(now)

    def end(self, error: UdpsendError, now: float) -> None:
        """This side gives up: tell the other, as far as there is a way."""
        if isinstance(error, Cancelled):
            close = Close(CloseCode.CANCELLED, "")
        elif isinstance(error, Refused):
            close = Close(CloseCode.REFUSED, "")
        else:
            close = close_of(error)
        if self.connection is not None:
            self.connection.close(close, now, error)
            return
        if self._secret is not None and not self._closed:
            self._rendezvous.send_sealed({"bye": str(close.reason), "code": int(close.code)})
        self._close(error)

    def counters(self) -> dict[str, float]:
        counters: dict[str, float] = {f"mailbox, {why}": n for why, n in self._rendezvous.drops.items()}
        if self._puncher is not None:
            counters |= {f"probes, {why}": n for why, n in self._puncher.drops.items()}
        if self.connection is not None:
            counters |= self.connection.counters()
        return counters

    # the five verbs

    def datagram_received(self, arrival: Arrival, now: float) -> None:
        kind = arrival.first_byte()
        if kind == KIND_RECORD:
            if self.connection is not None:
                self.connection.datagram_received(arrival, now)
        elif kind == KIND_PROBE and self._puncher is not None:
            self._puncher.datagram_received(arrival, now)
            self._advance(now)

    def datagrams_to_send(self, now: float) -> Iterator[Transmit]:
        if self._puncher is not None:
            yield from self._puncher.datagrams_to_send(now)
        if self.connection is not None:
            yield from self.connection.datagrams_to_send(now)

    def next_timer(self) -> float | None:
        if self.connection is not None:
            times = [self.connection.next_timer()]
        elif self._closed:
            times = []
        elif self._puncher is not None:
            times = [self._puncher.next_timer(), self._rendezvous.next_timer()]
        else:
            times = [self._give_up, self._rendezvous.next_timer()]
        return min((time for time in times if time is not None), default=None)

    def timer_expired(self, now: float) -> None:
        if self.connection is not None:
            self.connection.timer_expired(now)
            return
        self._rendezvous.timer_expired(now)
        if self._puncher is not None:
            self._puncher.timer_expired(now)
        elif now >= self._give_up:
            self._close(
                PeerNeverCame(
                    f"Nobody with this code came within {self._timeout:.0f} s. "
                    "Start the other side with the same code and the same brokers, and try again."
                )
            )
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
                case Agreed(secret, phrase, hello):
                    self._agreed(secret, phrase, hello, now)
                case SealedMessage(payload):
                    self._sealed_message_received(payload, now)
                case Failed(error) if self._secret is None:
                    self._close(error)
                case WrongGuess():
                    self._events.append(event)
        while self._puncher is not None and (punched := self._puncher.next_event()) is not None:
            match punched:
                case PathValidated():
                    self._path_validated(punched, now)
                case PunchFailed():
                    self.end(_no_direct_path(punched), now)

    def _agreed(self, secret: bytes, phrase: str, hello: dict[str, JSON], now: float) -> None:
        if self._closed:
            return
        self._secret = secret
        same_host = hello.get("host") == self._host_token
        self._puncher = Puncher(secret, self._role, now, self._random_bytes, same_host)
        self._puncher.add_local_candidates(self._candidates, now)
        self._events.append(PeerMet(phrase))
        self._add_remote_candidates(hello, now)

    def _sealed_message_received(self, payload: dict[str, JSON], now: float) -> None:
        self._add_remote_candidates(payload, now)
        if "bye" in payload and self.connection is None:
            self._close(_peer_left(payload))

    def _add_remote_candidates(self, payload: dict[str, JSON], now: float) -> None:
        values = payload.get("candidates")
        if self._puncher is None or not isinstance(values, list):
            return
        candidates = []
        for value in values[:MAX_CANDIDATES]:
            try:
                candidates.append(parse_candidate_untrusted(value))
            except BadPacket as error:
                self._rendezvous.drops[str(error)] += 1
        self._puncher.add_remote_candidates(candidates, now)

    def _path_validated(self, validated: PathValidated, now: float) -> None:
        if self._secret is None or self._closed:
            return
        path = validated.path
        self.connection = Connection(
            self._role,
            self._secret,
            path.address,
            now,
            self._random_bytes,
            round_trip=path.round_trip,
            max_datagram_size=self._max_datagram_size(path.address),
            receive_buffer=self._receive_buffer,
        )
        self._events.append(PathFound(path.kind, path.address, path.round_trip))

    def _close(self, error: UdpsendError | None) -> None:
        if not self._closed:
            self._closed = True
            self._events.append(Closed(error))


def _no_direct_path(failed: PunchFailed) -> NoDirectPath:
    if failed.heard:
        why = "its packets arrive here, ours do not arrive there"
    else:
        why = f"none of its {failed.tried} addresses answered"
    return NoDirectPath(
        f"The other side is there, but no direct path to it was found: {why}. A firewall or a symmetric NAT "
        "is in the way; try another network on one side, IPv6, or a port mapping in the router."
    )


def _peer_left(payload: dict[str, JSON]) -> UdpsendError:
    if payload.get("code") == CloseCode.CANCELLED:
        return Refused("The other side stopped the transfer.")
    text = payload.get("bye")
    return NoDirectPath(f"The other side gave up: {text if isinstance(text, str) and text else 'no reason given'}")
