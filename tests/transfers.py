"""Two connections over the virtual network, with the shell's part played in memory: the harness of the transfer tests."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.sim import Link, Network, Socket
from udpsend.config import Role
from udpsend.errors import LocalFileError, TransferFailed, UdpsendError
from udpsend.transfer.connection import Connection
from udpsend.transfer.messages import Closed, ConnectionEvent, ContentArrived, OfferReceived, PeerVerified
from udpsend.wire.datagram import Address, Arrival, Transmit
from udpsend.wire.frames import Close, CloseCode
from udpsend.wire.ranges import RangeSet

SECRET = bytes(range(32))


class MemoryFile:
    """A source and a sink."""

    def __init__(self, content: bytes | bytearray) -> None:
        self.content = content
        self.written = 0
        self.have = RangeSet()
        self.broken_at: int | None = None  # reading or writing there fails

    def read_into(self, offset: int, view: memoryview) -> None:
        self._check(offset, len(view))
        view[:] = self.content[offset : offset + len(view)]

    @property
    def received(self) -> int:
        return self.have.total

    def write(self, offset: int, view: memoryview) -> int:
        self._check(offset, len(view))
        assert isinstance(self.content, bytearray)
        self.content[offset : offset + len(view)] = view
        self.written += len(view)
        return self.have.add(offset, offset + len(view))

    def _check(self, offset: int, length: int) -> None:
        if self.broken_at is not None and offset <= self.broken_at < offset + length:
            raise LocalFileError("The disk failed.")

    def digest(self) -> bytes:
        return hashlib.blake2s(self.content).digest()


class Peer:
    """An endpoint with the five verbs: a connection and what the shell around it would do at its events."""

    def __init__(
        self,
        role: Role,
        address: Address,
        network: Network,
        content: bytes,
        present: tuple[tuple[int, int], ...] = (),
        **options: Any,
    ) -> None:
        self.network = network
        self.connection = Connection(role, SECRET, address, network.now, network.random_bytes(role.value), **options)
        self.size = len(content)
        self.closed: Closed | None = None
        self.closed_at = 0.0
        self.decline = False
        self.present = RangeSet(present)
        if role is Role.SENDER:
            self.file = MemoryFile(content)
            self.connection.offer(self.file, len(content), {"name": "x"})
            self.connection.digest_ready(self.file.digest())
        else:
            self.file = MemoryFile(bytearray(len(content)))
            for start, stop in present:
                self.file.content[start:stop] = content[start:stop]  # type: ignore[index]
                self.file.have.add(start, stop)

    def datagram_received(self, arrival: Arrival, now: float) -> None:
        self.connection.datagram_received(arrival, now)

    def datagrams_to_send(self, now: float) -> Iterator[Transmit]:
        return self.connection.datagrams_to_send(now)

    def next_timer(self) -> float | None:
        return self.connection.next_timer()

    def timer_expired(self, now: float) -> None:
        self.connection.timer_expired(now)

    def next_event(self) -> ConnectionEvent | None:
        event = self.connection.next_event()
        now = self.network.now
        match event:
            case OfferReceived():
                if self.decline:
                    self.connection.close(Close(CloseCode.REFUSED, "no, thank you"), now)
                else:
                    self.connection.accept(self.file, self.size, self.present)
            case ContentArrived(digest):
                if digest == self.file.digest():
                    self.connection.verified(now)
                else:
                    self.connection.fail(TransferFailed("The content is damaged."), now)
            case PeerVerified():
                self.connection.close(Close(CloseCode.DONE, ""), now)
            case Closed():
                self.closed = event
                self.closed_at = now
        return event


@dataclass
class Transfer:
    network: Network
    sender: Peer
    receiver: Peer
    sender_socket: Socket
    receiver_socket: Socket
    there: Link
    back: Link
    events: list[object] = field(default_factory=list)

    def run(self, seconds: float = 600) -> None:
        """Until both sides are closed."""
        done = self.network.run(lambda: bool(self.sender.closed and self.receiver.closed), seconds=seconds)
        assert done, f"not finished after {seconds} virtual seconds: {self.sender.connection.counters()}"

    def errors(self) -> tuple[UdpsendError | None, UdpsendError | None]:
        assert self.sender.closed
        assert self.receiver.closed
        return self.sender.closed.error, self.receiver.closed.error

    def assert_verified(self) -> None:
        assert self.errors() == (None, None)
        assert self.receiver.file.content == self.sender.file.content


def transfer(
    seed: int,
    size: int,
    *,
    gro: bool = False,
    present: tuple[tuple[int, int], ...] = (),
    options: dict[str, Any] | None = None,
    **link: Any,
) -> Transfer:
    """A transfer of `size` random bytes over a cable with the keywords of `Network.cable`."""
    network = Network(seed)
    a, b = network.host("a"), network.host("b")
    there, back = network.cable(a, "10.0.0.1", b, "10.0.0.2", **link)
    content = random.Random(seed).randbytes(size)
    options = {"max_datagram_size": 1472, **(options or {})}

    def peer(role: Role, address: Address) -> Peer:
        return Peer(role, address, network, content, present if role is Role.RECEIVER else (), **options)

    sa = a.bind(4000, lambda _: peer(Role.SENDER, ("10.0.0.2", 5000)), gro=gro)
    sb = b.bind(5000, lambda _: peer(Role.RECEIVER, ("10.0.0.1", 4000)), gro=gro)
    return Transfer(network, sa.endpoint, sb.endpoint, sa, sb, there, back)  # type: ignore[arg-type]
