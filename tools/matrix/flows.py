"""Long transfers over the simulator's links, of files that exist nowhere: real connections at both ends, one or several
flows through one bottleneck, and what each of them got."""

from __future__ import annotations

from typing import Any

from tests.sim import ConnectionEndpoint, Link, Network, Router, Socket
from udpsend.config import Role
from udpsend.transfer.connection import Connection
from udpsend.transfer.messages import ConnectionEvent, OfferReceived
from udpsend.wire.datagram import MAX_TRAIN_SIZE, Address
from udpsend.wire.frames import DATA_HEADER_SIZE
from udpsend.wire.ranges import RangeSet

SECRET = bytes(range(32))
ENDLESS = 1 << 50
HUGE_BUFFER = 1 << 40  # a receiver whose socket takes everything: only the network is looked at


class EndlessFile:
    """A source and a sink of zeros."""

    is_full = False

    def __init__(self) -> None:
        self.have = RangeSet()
        self.taken = 0
        """Bytes that were read to be sent."""
        self.reached = 0
        """The end of what was read at least once."""
        self._room = memoryview(bytearray(MAX_TRAIN_SIZE))

    def read(self, start: int, stop: int) -> memoryview:
        self.taken += stop - start
        self.reached = max(self.reached, stop)
        return self._room[: DATA_HEADER_SIZE + stop - start]

    @property
    def received(self) -> int:
        return self.have.total

    def room(self) -> memoryview:
        return self._room

    def write(self, offset: int, size: int) -> int:
        return self.have.add(offset, offset + size)


class Peer(ConnectionEndpoint):
    """A connection that accepts what it is offered."""

    def __init__(self, role: Role, address: Address, network: Network, name: str, **options: Any) -> None:
        self.network = network
        self.file = EndlessFile()
        random_bytes = network.random_bytes(f"{name}/{role.value}")
        self.connection = Connection(role, SECRET, address, network.now, random_bytes, **options)
        if role is Role.SENDER:
            self.connection.offer(self.file, ENDLESS, {})

    def respond(self, event: ConnectionEvent | None) -> None:
        if isinstance(event, OfferReceived) and self.connection.receiver is not None:
            self.connection.receiver.accept(self.file, ENDLESS, RangeSet())


class Flow:
    """A transfer from one host to another."""

    def __init__(self, sender: Socket[Peer], receiver: Socket[Peer]) -> None:
        self.sender = sender
        self.receiver = receiver
        self.flight = sender.endpoint.connection.flight

    @property
    def received(self) -> int:
        """Bytes of the file at the receiver, each counted once."""
        return self.receiver.endpoint.file.received

    @property
    def retransmitted(self) -> float:
        """The share of what was sent that had been sent before."""
        file = self.sender.endpoint.file
        return 1 - file.reached / file.taken if file.taken else 0.0


def pair(
    network: Network,
    name: str,
    ends: tuple[tuple[Any, str], tuple[Any, str]],
    **options: Any,
) -> Flow:
    """`options` are keywords of Connection."""
    (a, a_ip), (b, b_ip) = ends
    options = {"max_datagram_size": 1472, "receive_buffer": HUGE_BUFFER, **options}
    receiver = b.bind(5000, lambda _: Peer(Role.RECEIVER, (a_ip, 4000), network, name, **options), gro=True)
    sender = a.bind(4000, lambda _: Peer(Role.SENDER, (b_ip, 5000), network, name, **options), gro=True)
    return Flow(sender, receiver)


def single(seed: int, options: dict[str, Any] | None = None, **link: Any) -> tuple[Network, Flow, Link]:
    """One flow over a cable with the keywords of `Network.cable`. The link is that from sender to receiver."""
    network = Network(seed)
    a, b = network.host("a"), network.host("b")
    there, _ = network.cable(a, "10.0.0.1", b, "10.0.0.2", **link)
    flow = pair(network, "flow", ((a, "10.0.0.1"), (b, "10.0.0.2")), **(options or {}))
    return network, flow, there


class Bottleneck:
    """Several hosts on each side of one link."""

    def __init__(self, seed: int, **link: Any) -> None:
        self.network = Network(seed)
        self._left = Router(self.network, "left")
        self.link, _ = self._left.connect(self.network.internet, **link)
        self._flows = 0

    def flow(self, name: str, **options: Any) -> Flow:
        self._flows += 1
        a, b = self.network.host(f"{name}/a"), self.network.host(f"{name}/b")
        a_ip, b_ip = f"10.1.{self._flows}.1", f"10.2.{self._flows}.1"
        self._left.attach(a, a_ip, delay=0.0)
        self.network.internet.attach(b, b_ip, delay=0.0)
        return pair(self.network, name, ((a, a_ip), (b, b_ip)), **options)
