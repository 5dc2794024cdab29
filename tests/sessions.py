"""Two whole sessions over the virtual network: mailboxes with a delay, STUN from reflectors, files in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.mailroom import CODE, read_code
from tests.sim import Depends, Gateway, Host, NatKind, Network, Ports, Reflector, Socket
from tests.transfers import MemoryFile
from udpsend.config import Role
from udpsend.errors import UdpsendError
from udpsend.events import PathFound, PeerMet
from udpsend.punching.behaviour import judge_behaviour, search_apart
from udpsend.punching.path import CandidatesWanted, SocketChosen, SocketsWanted
from udpsend.rendezvous.mailbox import LOCAL_NETWORK
from udpsend.session import PathMoved, Session, SessionEvent
from udpsend.transfer.messages import Closed, ContentArrived, OfferAccepted, OfferReceived, PeerVerified
from udpsend.wire.candidate import Candidate, CandidateType
from udpsend.wire.datagram import Address, Arrival, Transmit
from udpsend.wire.frames import Close, CloseCode
from udpsend.wire.ranges import RangeSet

PORT = 4000
STUN: tuple[Address, ...] = (("198.51.100.7", 3478), ("198.51.100.8", 3478))
MAIL_DELAY = 0.08  # one way, through the broker
HOME = NatKind(Depends.NOTHING, Depends.ADDRESS_AND_PORT, Ports.RANDOM, lifetime=30.0)


class CountedFile(MemoryFile):
    """A file in memory; `read_bytes` counts what was sent, repetitions included."""

    def __init__(self, content: bytes | bytearray) -> None:
        super().__init__(content)
        self.read_bytes = 0

    def read(self, start: int, stop: int) -> memoryview:
        self.read_bytes += stop - start
        return super().read(start, stop)


class Side:
    """An endpoint with the five verbs: a session, and what the shell around it would do."""

    def __init__(self, net: Network, host: Host, role: Role, content: bytes) -> None:
        self.net = net
        self.host = host
        self.role = role
        self.file = CountedFile(content if role is Role.SENDER else bytearray(len(content)))
        self.size = len(content)
        self.other: Side
        self.socket: Socket[Side]
        self.is_cut_off = False  # from the mailboxes
        self.accepts = True
        self.found: list[tuple[float, PathFound | PathMoved]] = []
        self.met_at: float | None = None
        self.error: UdpsendError | None = None
        self.closed_at: float | None = None
        self._seen: dict[str, Address | None] = {}
        self._asking: list[Transmit] = []
        self.session = Session(
            role,
            read_code(CODE),
            net.now,
            net.random_bytes(role.value),
            candidates=self._host_candidates(),
            host_token=host.name,
            max_datagram_size=lambda address: 1472,
            receive_buffer=212_992,
            timeout=600.0,
        )
        self._ask_stun()
        self.session.mailbox_up(LOCAL_NETWORK, net.now)

    # the five verbs

    def datagram_received(self, arrival: Arrival, now: float) -> None:
        if arrival.address not in STUN:
            self.session.datagram_received(arrival, now)
            return
        host, port = arrival.first_datagram().decode().split()
        self._seen[arrival.address[0]] = (host, int(port))
        self.session.add_candidates([Candidate(CandidateType.SERVER_REFLEXIVE, (host, int(port)))], now)
        if len(self._seen) == len(STUN):
            judged = judge_behaviour(self._host_candidates(), self._seen)
            self.session.set_behaviour(search_apart(judged, self.socket.port, self.socket.spare), now)

    def datagrams_to_send(self, now: float) -> Iterator[Transmit]:
        asking, self._asking = self._asking, []
        yield from asking
        yield from self.session.datagrams_to_send(now)
        self._publish(self.session.messages_to_send(now))

    def next_timer(self) -> float | None:
        return self.session.next_timer()

    def timer_expired(self, now: float) -> None:
        self.session.timer_expired(now)

    def next_event(self) -> SessionEvent | None:
        event = self.session.next_event()
        if event is not None:
            self._respond(event)
        return event

    # the shell's part

    def _respond(self, event: SessionEvent) -> None:
        now, connection = self.net.now, self.session.connection
        match event:
            case PeerMet():
                self.met_at = now
            case SocketsWanted(count):
                self.session.sockets_opened(self.socket.open_more(count), now)
            case SocketChosen(local):
                self.socket.keep(local)
            case CandidatesWanted():
                self._seen.clear()
                self.session.add_candidates(self._host_candidates(), now)
                self._ask_stun()
            case PathFound() | PathMoved():
                self.found.append((now, event))
                if isinstance(event, PathFound) and self.role is Role.SENDER and connection is not None:
                    connection.offer(self.file, self.size, {"name": "x"})
            case OfferReceived() if self.accepts:
                self.accept()
            case OfferAccepted() if connection is not None and connection.sender is not None:
                connection.sender.digest_ready(self.file.digest())
            case ContentArrived(digest) if connection is not None:
                connection.verified(now, digest)
            case PeerVerified() if connection is not None:
                connection.close(Close(CloseCode.DONE, ""), now)
            case Closed(error):
                self.error, self.closed_at = error, now

    def accept(self) -> None:
        assert self.session.connection is not None
        assert self.session.connection.receiver is not None
        self.session.connection.receiver.accept(self.file, self.size, RangeSet())

    def _host_candidates(self) -> list[Candidate]:
        return [Candidate(CandidateType.HOST, (ip, PORT)) for ip in self.host.interfaces]

    def _ask_stun(self) -> None:
        self._asking = [Transmit([b"who am I"], 8, 8, server) for server in STUN]

    # mailboxes

    def _publish(self, messages: Sequence[bytes]) -> None:
        if self.is_cut_off:
            return
        for message in messages:
            self.net.after(MAIL_DELAY, lambda message=message: self.other.mail(message))  # type: ignore[misc]

    def mail(self, message: bytes) -> None:
        if not self.is_cut_off:
            self.session.message_received(message, self.net.now)
            self.socket.drive()

    def cut_off(self) -> None:
        self.is_cut_off = True

    def back_again(self) -> None:
        """The mailboxes can be reached again."""
        self.is_cut_off = False
        self.session.mailbox_up(LOCAL_NETWORK, self.net.now)
        self.socket.drive()


@dataclass
class Sessions:
    net: Network
    sender: Side
    receiver: Side
    homes: list[Gateway]

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.sender, self.receiver

    def run(self, seconds: float = 600.0) -> None:
        done = self.net.run(lambda: all(side.closed_at is not None for side in self.sides), seconds=seconds)
        assert done, f"not over after {seconds} virtual seconds: {self.sender.session.counters()}"

    def run_until_bytes(self, count: int) -> None:
        """Until so many are at the receiver."""
        assert self.net.run(lambda: self.receiver.file.written >= count, seconds=120)

    def assert_verified(self) -> None:
        assert [side.error for side in self.sides] == [None, None]
        assert self.receiver.file.content == self.sender.file.content

    @property
    def in_flight(self) -> int:
        assert self.sender.session.connection is not None
        return self.sender.session.connection.flight.recovery.sent.bytes_in_flight


def two_homes(seed: int, first: NatKind, second: NatKind, size: int = 3_000_000, **link: Any) -> Sessions:
    """The sender behind the first, the receiver behind the second; 20 ms to the internet, 2 MB/s."""
    net = Network(seed)
    for ip, port in STUN:
        server = net.host(ip)
        net.internet.attach(server, ip)
        server.bind(port, Reflector)
    link = {"delay": 0.02, "rate": 2e6, "queue": 400e3} | link
    content = net.random_bytes("content")(size)
    sides: list[Side] = []
    homes = []
    for number, (kind, role) in enumerate(((first, Role.SENDER), (second, Role.RECEIVER)), 1):
        homes.append(net.gateway(f"home{number}", f"203.0.{number}.1", kind, **link))
        host = net.host(role.value)
        homes[-1].attach(host, f"192.168.{number}.10")
        sides.append(Side(net, host, role, content))
    sides[0].other, sides[1].other = sides[1], sides[0]
    for side in sides:
        side.socket = side.host.bind(PORT, lambda _, side=side: side)  # type: ignore[misc]
    return Sessions(net, sides[0], sides[1], homes)
