"""Sessions over the virtual network and a mailbox in memory: the harness of the session tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from random import Random
from typing import Any

from tests.sim import PORT_RESTRICTED, Host, Network, Socket
from tests.transfers import MemoryFile, Peer
from udpsend.config import Role
from udpsend.errors import UdpsendError
from udpsend.events import PathFound, PathKind, PeerMet, WrongGuess
from udpsend.rendezvous.code import parse_code
from udpsend.session import Session
from udpsend.wire.candidate import Candidate, CandidateType
from udpsend.wire.datagram import Address, Arrival
from udpsend.wire.ranges import RangeSet

CODE = "4821-marble-otter"
OTHER_CODE = "4821-marble-osier"
SIZE = 200_000
read_code = lru_cache(parse_code)  # Argon2id once for each


class Bus:
    """One mailbox: everybody hears everything, late, lost and doubled as asked for."""

    def __init__(self, network: Network, *, delay: float = 0.05, jitter: float = 0.0, loss: float = 0.0) -> None:
        self.network = network
        self.delay, self.jitter, self.loss, self.duplicate = delay, jitter, loss, 0.0
        self.random = Random(network.seed)
        self.parties: list[Party] = []
        self.watchers: list[Callable[[bytes], None]] = []

    def publish(self, message: bytes) -> None:
        for party in self.parties:
            for _ in range(2 if self.random.random() < self.duplicate else 1):
                if self.random.random() >= self.loss:
                    after = self.delay + self.jitter * self.random.random()
                    self.network.after(after, lambda party=party: party.message_received(message))  # type: ignore[misc]
        for watcher in self.watchers:
            watcher(message)


class Party(Peer):
    """A session, and what the shell around it does."""

    def __init__(
        self,
        role: Role,
        network: Network,
        bus: Bus,
        candidates: list[Candidate],
        host_token: str,
        code: str = CODE,
        timeout: float = 600.0,
    ) -> None:
        self.network, self.bus = network, bus
        self.role = role
        self.hash_time = 0.01
        self.drive = lambda: None
        self.closed, self.closed_at, self.decline = None, 0.0, False
        self.present = RangeSet()
        content = Random(1).randbytes(SIZE)
        self.size = SIZE
        self.file = MemoryFile(content if role is Role.SENDER else bytearray(SIZE))
        self.session = Session(
            role,
            read_code(code),
            network.now,
            network.random_bytes(f"{role.value} {len(bus.parties)}"),
            candidates=candidates,
            host_token=host_token,
            max_datagram_size=lambda _: 1472,
            receive_buffer=212_992,
            timeout=timeout,
        )
        self.path: PathFound | None = None
        self.phrase = ""
        self.guesses = 0
        bus.parties.append(self)

    def message_received(self, message: bytes) -> None:
        if self.closed is None:
            self.session.message_received(message, self.network.now)
            self.drive()

    def datagram_received(self, arrival: Arrival, now: float) -> None:
        self.session.datagram_received(arrival, now)

    def datagrams_to_send(self, now: float) -> Any:
        return self.session.datagrams_to_send(now)

    def next_timer(self) -> float | None:
        return self.session.next_timer()

    def timer_expired(self, now: float) -> None:
        self.session.timer_expired(now)

    def next_event(self) -> Any:
        event: Any = self.session.next_event()
        for message in self.session.messages_to_send(self.network.now):
            self.bus.publish(message)
        match event:
            case PathFound():
                self.path = event
                assert self.session.connection is not None
                self.connection = self.session.connection
                if self.role is Role.SENDER:
                    self.connection.offer(self.file, SIZE, {"name": "x"})
            case PeerMet(phrase):
                self.phrase = phrase
            case WrongGuess():
                self.guesses += 1
            case _:
                self.respond(event)
        return event

    def end(self, error: UdpsendError) -> None:
        self.session.end(error, self.network.now)
        self.drive()


class World:
    """A network with two places, and the bus."""

    def __init__(self, seed: int, **bus: float) -> None:
        self.network = Network(seed)
        self.bus = Bus(self.network, **bus)
        self.hosts: dict[Role, Host] = {}
        self.candidates: dict[Role, list[Candidate]] = {}
        self.port = {Role.SENDER: 4000, Role.RECEIVER: 5000}

    def place(self, role: Role, ip: str, public: str | None = None) -> None:
        """On the internet, or behind a NAT with the address `public`."""
        host = self.hosts[role] = self.network.host(role.value)
        self.candidates[role] = [Candidate(CandidateType.HOST, (ip, self.port[role]))]
        if public is None:
            self.network.internet.attach(host, ip, delay=0.01)
        else:
            self.network.gateway(f"home of {role.value}", public, PORT_RESTRICTED, delay=0.01).attach(host, ip)
            self.candidates[role].append(self.mapped(role, public))

    def mapped(self, role: Role, public: str) -> Candidate:
        return Candidate(CandidateType.SERVER_REFLEXIVE, (public, self.port[role]))

    def start(self, role: Role, token: str = "", **options: Any) -> Party:
        def make(_: Address) -> Party:
            return Party(
                role, self.network, self.bus, self.candidates[role], token or f"host of {role.value}", **options
            )

        socket: Socket[Party] = self.hosts[role].bind(self.port[role], make)
        party = socket.endpoint
        party.drive = socket.drive
        party.session.mailbox_up(self.network.now)
        socket.drive()
        return party

    def both(self) -> tuple[Party, Party]:
        return self.start(Role.SENDER), self.start(Role.RECEIVER)

    def finish(self, *parties: Party, seconds: float = 60.0) -> None:
        assert self.network.run(lambda: all(party.closed for party in parties), seconds=seconds)

    def assert_crossed(self, sender: Party, receiver: Party, kind: PathKind, seconds: float = 60.0) -> None:
        self.finish(sender, receiver, seconds=seconds)
        assert sender.closed is not None
        assert receiver.closed is not None
        assert (sender.closed.error, receiver.closed.error) == (None, None)
        assert sender.file.content == receiver.file.content
        assert sender.phrase == receiver.phrase != ""
        assert sender.path is not None
        assert receiver.path is not None
        assert sender.path.kind == receiver.path.kind == kind


def lan(seed: int, **bus: float) -> World:
    world = World(seed, **bus)
    for role, ip in ((Role.SENDER, "192.168.1.10"), (Role.RECEIVER, "192.168.1.11")):
        world.place(role, ip)
    return world


def two_nats(seed: int, **bus: float) -> World:
    world = World(seed, **bus)
    world.place(Role.SENDER, "192.168.1.10", "203.0.113.1")
    world.place(Role.RECEIVER, "192.168.1.10", "198.51.100.1")
    return world


def nowhere(seed: int) -> World:
    """Each side is behind something that lets nothing through."""
    world = World(seed)
    for role, ip in ((Role.SENDER, "203.0.113.5"), (Role.RECEIVER, "198.51.100.5")):
        world.place(role, ip)
        del world.network.internet.routes[ip]
    return world
