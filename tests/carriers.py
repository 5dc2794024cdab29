"""Real sockets on loopback of every kind, and records for them to carry."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

import pytest

from tests.servers import has_ipv6
from udpsend.net.carrier import Carrier
from udpsend.net.linux import LinuxSocket
from udpsend.net.portable import PortableSocket
from udpsend.wire.datagram import Address, Transmit
from udpsend.wire.packets import KIND_RECORD, Header

Make = Callable[[socket.socket], Carrier]
KINDS: dict[str, Make] = {
    "offload": LinuxSocket,
    "batches": lambda sock: LinuxSocket(sock, offload=False),
    "portable": PortableSocket,
}
WAIT = 10.0
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
ROOM = 1 << 22  # bytes
OPENING = b"\xe07 bytes"  # of records


def as_stock(sock: socket.socket) -> socket.socket:
    """With the buffer that a stock host grants."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 212_992)
    return sock


def with_lanes(sock: socket.socket) -> Carrier:
    carrier = LinuxSocket(as_stock(sock))
    carrier.widen(OPENING)
    return carrier


def bound(make: Make, host: str = "127.0.0.1") -> Carrier:
    if ":" in host and not has_ipv6():
        pytest.skip("no IPv6 on this machine")
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
    sock.bind((host, 0))
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < ROOM:
        sock.close()
        pytest.skip("a stock host has no room for what is sent before it is read, and only root makes some")
    return make(sock)


def address_of(carrier: Carrier) -> Address:
    host, port, *_ = carrier.sock.getsockname()
    return host, port


def transmit(datagrams: list[bytes], address: Address) -> Transmit:
    views: list[memoryview | bytes] = []
    for datagram in datagrams:
        views += [memoryview(datagram[:16]), memoryview(datagram[16:])]
    return Transmit(views, len(datagrams[0]), sum(map(len, datagrams)), address)


def receive(carrier: Carrier, count: int, source: Address) -> list[bytes]:
    received: list[bytes] = []
    while len(received) < count:
        ready, _, _ = select.select([carrier], [], [], WAIT)
        assert ready, f"{len(received)} of {count} came"
        while (arrival := carrier.receive()) is not None:
            assert arrival.address == source
            datagrams = list(arrival.datagrams())
            assert all(len(datagram) == arrival.stride for datagram in datagrams[:-1])
            received += datagrams
    return received


def record(number: int, count: int, size: int) -> list[bytes]:
    return [Header(KIND_RECORD, b"7 bytes", number, i, count).pack().ljust(size, b".") for i in range(count)]


def received_now(receiver: Carrier) -> list[tuple[Address, bytes]]:
    came = []
    while (arrival := receiver.receive()) is not None:
        came += [(arrival.address, datagram) for datagram in arrival.datagrams()]
    return came
