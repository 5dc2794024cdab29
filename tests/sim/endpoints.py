"""What sits behind a socket: the five verbs, two simple endpoints for tests of the network itself, and a
connection as one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from udpsend.transfer.connection import Connection
from udpsend.transfer.messages import ConnectionEvent
from udpsend.wire.datagram import Address, Arrival, Transmit


class Endpoint(Protocol):
    """The five verbs."""

    def datagram_received(self, arrival: Arrival, now: float) -> None: ...
    def datagrams_to_send(self, now: float) -> Iterable[Transmit]: ...
    def next_timer(self) -> float | None: ...
    def timer_expired(self, now: float) -> None: ...
    def next_event(self) -> object | None: ...


class Recorder:
    """An endpoint that keeps what it gets, with the instant, and sends what it is told to."""

    def __init__(self, address: Address = ("", 0)) -> None:
        self.address = address
        self.received: list[tuple[float, Address, bytes]] = []
        self.arrivals: list[tuple[float, int]] = []
        """Instant and count of each Arrival."""
        self.outbox: list[Transmit] = []

    def queue(self, datagrams: Sequence[bytes], address: Address) -> None:
        self.outbox.append(Transmit(datagrams, len(datagrams[0]), sum(map(len, datagrams)), address))

    def datagram_received(self, arrival: Arrival, now: float) -> None:
        self.arrivals.append((now, arrival.count))
        self.received += ((now, arrival.address, datagram) for datagram in arrival.datagrams())

    def datagrams_to_send(self, now: float) -> Iterable[Transmit]:
        outbox, self.outbox = self.outbox, []
        return outbox

    def next_timer(self) -> float | None:
        return None

    def timer_expired(self, now: float) -> None:
        raise AssertionError("it has no timer")

    def next_event(self) -> object | None:
        return None


class Reflector(Recorder):
    """Answers each datagram with `host port` of its sender, as a STUN server does."""

    def datagram_received(self, arrival: Arrival, now: float) -> None:
        super().datagram_received(arrival, now)
        self.queue([f"{arrival.address[0]} {arrival.address[1]}".encode()], arrival.address)


class ConnectionEndpoint:
    """A connection, and what its owner does at its events."""

    connection: Connection

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
        self.respond(event)
        return event

    def respond(self, event: ConnectionEvent | None) -> None:
        raise NotImplementedError
