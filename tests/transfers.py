"""Two connections over the virtual network, the shell's part played in memory: the harness of the transfer tests."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.sim import ConnectionEndpoint, Link, Network, Train
from udpsend.config import Role
from udpsend.errors import LocalFileError, TransferFailed, UdpsendError
from udpsend.sealing.keys import derive_keys
from udpsend.sealing.seal import Sealer
from udpsend.transfer.connection import Connection
from udpsend.transfer.messages import (
    Closed,
    ConnectionEvent,
    ContentArrived,
    OfferAccepted,
    OfferReceived,
    PeerVerified,
)
from udpsend.wire.datagram import HEADER_SIZE, MAX_TRAIN_SIZE, Address, Arrival
from udpsend.wire.frames import DATA_HEADER_SIZE, Close, CloseCode
from udpsend.wire.packets import KIND_RECORD, Header
from udpsend.wire.ranges import RangeSet

SECRET = bytes(range(32))


class MemoryFile:
    """A source and a sink."""

    def __init__(self, content: bytes | bytearray) -> None:
        self.content = content
        self.written = 0
        self.have = RangeSet()
        self.full = False
        self._room = memoryview(bytearray(MAX_TRAIN_SIZE))
        self.broken_at: int | None = None  # reading or writing there fails

    def read(self, start: int, stop: int) -> memoryview:
        self._check(start, stop - start)
        return memoryview(bytearray(bytes(DATA_HEADER_SIZE) + self.content[start:stop]))

    @property
    def received(self) -> int:
        return self.have.total

    @property
    def is_full(self) -> bool:
        return self.full

    def room(self) -> memoryview | None:
        return None if self.full else self._room

    def write(self, offset: int, size: int) -> int:
        self._check(offset, size)
        assert isinstance(self.content, bytearray)
        self.content[offset : offset + size] = self._room[DATA_HEADER_SIZE : DATA_HEADER_SIZE + size]
        self.written += size
        return self.have.add(offset, offset + size)

    def _check(self, offset: int, length: int) -> None:
        if self.broken_at is not None and offset <= self.broken_at < offset + length:
            raise LocalFileError("The disk failed.")

    def digest(self) -> bytes:
        return hashlib.blake2s(self.content).digest()


class Peer(ConnectionEndpoint):
    """A connection and what the shell around it would do at its events."""

    def __init__(
        self,
        role: Role,
        address: Address,
        network: Network,
        content: bytes,
        present: tuple[tuple[int, int], ...] = (),
        hash_time: float = 0.0,
        **options: Any,
    ) -> None:
        self.network = network
        self.hash_time = hash_time
        self.drive: Callable[[], None] = lambda: None  # the socket's
        self.connection = Connection(role, SECRET, address, network.now, network.random_bytes(role.value), **options)
        self.size = len(content)
        self.closed: Closed | None = None
        self.closed_at = 0.0
        self.decline = False
        self.present = RangeSet(present)
        if role is Role.SENDER:
            self.file = MemoryFile(content)
            self.offer()
        else:
            self.file = MemoryFile(bytearray(len(content)))
            for start, stop in present:
                self.file.content[start:stop] = content[start:stop]  # type: ignore[index]
                self.file.have.add(start, stop)

    def offer(self) -> None:
        self.connection.offer(self.file, self.size, {"name": "x"})

    def respond(self, event: ConnectionEvent | None) -> None:
        """What the shell does about it."""
        now = self.network.now
        match event:
            case OfferReceived():
                if self.decline:
                    self.connection.close(Close(CloseCode.REFUSED, "no, thank you"), now)
                elif self.connection.receiver is not None:
                    self.connection.receiver.accept(self.file, self.size, self.present)
            case OfferAccepted():
                self._beside(self._finish)
            case ContentArrived(digest):
                self._beside(lambda: self._compare(digest))
            case PeerVerified():
                self.connection.close(Close(CloseCode.DONE, ""), now)
            case Closed():
                self.closed = event
                self.closed_at = now

    def _finish(self) -> None:
        assert self.connection.sender is not None
        self.connection.sender.digest_ready(self.file.digest())

    def _beside(self, work: Callable[[], None]) -> None:
        """Hashing takes time, in a thread; the loop goes on meanwhile."""
        if not self.hash_time:
            work()
            return

        def done() -> None:
            work()
            self.drive()

        self.network.after(self.hash_time, done)

    def _compare(self, digest: bytes) -> None:
        if digest == self.file.digest():
            self.connection.verified(self.network.now, digest)
        else:
            self.connection.fail(TransferFailed("The content is damaged."), self.network.now)


@dataclass
class Transfer:
    network: Network
    sender: Peer
    receiver: Peer
    there: Link
    back: Link

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
        for peer in (self.sender, self.receiver):
            assert_flight_adds_up(peer.connection)


def assert_flight_adds_up(connection: Connection) -> None:
    """Bytes in flight are those of the records that are outstanding."""
    sent = connection.flight.recovery.sent
    assert sent.bytes_in_flight == sum(record.size for record in sent) >= 0


class NumberWatch:
    """Taps a link: no fragment of a record leaves twice, so no record number does, and numbers only grow."""

    def __init__(self, link: Link) -> None:
        self.sizes: list[int] = []
        """Of every datagram that was offered."""
        self._last = b""
        link.tap = self._offered

    def _offered(self, train: Train) -> None:
        for datagram in train.datagrams:
            assert datagram[0] == KIND_RECORD
            place = datagram[8 : HEADER_SIZE - 1]  # number and fragment, big endian
            assert place > self._last, "a record number was used twice"
            self._last = place
            self.sizes.append(len(datagram))


def transfer(
    seed: int,
    size: int,
    *,
    gro: bool = False,
    present: tuple[tuple[int, int], ...] = (),
    options: dict[str, Any] | None = None,
    receiver_options: dict[str, Any] | None = None,
    hash_time: float = 0.0,
    **link: Any,
) -> Transfer:
    """A transfer of `size` random bytes over a cable with the keywords of `Network.cable`."""
    network = Network(seed)
    a, b = network.host("a"), network.host("b")
    there, back = network.cable(a, "10.0.0.1", b, "10.0.0.2", **link)
    content = random.Random(seed).randbytes(size)
    options = {"max_datagram_size": 1472, **(options or {})}
    more = {Role.SENDER: {}, Role.RECEIVER: receiver_options or {}}

    def peer(role: Role, address: Address) -> Peer:
        there = present if role is Role.RECEIVER else ()
        return Peer(role, address, network, content, there, hash_time, **options, **more[role])

    sa = a.bind(4000, lambda _: peer(Role.SENDER, ("10.0.0.2", 5000)), gro=gro)
    sb = b.bind(5000, lambda _: peer(Role.RECEIVER, ("10.0.0.1", 4000)), gro=gro)
    sa.endpoint.drive, sb.endpoint.drive = sa.drive, sb.drive
    return Transfer(network, sa.endpoint, sb.endpoint, there, back)


class Rogue:
    """A peer that has the keys and says what it likes."""

    def __init__(self, role: Role) -> None:
        keys = derive_keys(SECRET, role, "traffic").send
        self.tag = keys.tag
        self._sealer = Sealer(keys)
        self.number = 0

    def datagram(self, frames: bytes) -> bytes:
        header = Header(KIND_RECORD, self.tag, self.number, 0, 1).pack()
        self.number += 1
        return header + self._sealer.seal(self.number - 1, header, frames)

    def says(self, connection: Connection, frames: bytes, address: Address = ("10.0.0.9", 9), now: float = 1.0) -> None:
        connection.datagram_received(Arrival.of([self.datagram(frames)], address), now)
