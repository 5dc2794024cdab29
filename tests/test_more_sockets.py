"""The further sockets of punching, on loopback: opened, used by number, all but one closed."""

from __future__ import annotations

import resource
import select
import socket
import sys
from collections.abc import Iterator

import pytest

from udpsend.net.carrier import DESCRIPTORS_LEFT
from udpsend.net.udp import UdpEndpoint
from udpsend.wire.datagram import Address, Transmit

LOOPBACK = "127.0.0.1"
IP_RECVTTL = 12  # linux/in.h; the socket module of Python 3.11 has no name for it


@pytest.fixture
def endpoint() -> Iterator[UdpEndpoint]:
    endpoint = UdpEndpoint(LOOPBACK)
    yield endpoint
    endpoint.close()


@pytest.fixture
def other() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind((LOOPBACK, 0))
        opened.settimeout(10)
        yield opened


def transmit(data: bytes, address: Address, local: int = 0, ttl: int = 0) -> Transmit:
    return Transmit([data], len(data), len(data), address, local, ttl)


def test_each_number_is_a_socket_of_its_own(endpoint: UdpEndpoint, other: socket.socket) -> None:
    before = endpoint.sockets
    numbers = endpoint.open_more(3)
    assert len(set(numbers)) == 3
    assert 0 not in numbers
    assert endpoint.sockets is not before
    sources = set()
    for number in (0, *numbers):
        endpoint.send(transmit(b"from %d" % number, other.getsockname(), number))
        data, source = other.recvfrom(100)
        assert data == b"from %d" % number
        sources.add(source)
        other.sendto(b"to %d" % number, source)
        (ready,) = select.select(endpoint.sockets, [], [], 10)[0]
        assert ready.local == number
        arrival = ready.receive()
        assert arrival is not None
        assert arrival.first_datagram() == b"to %d" % number
    assert len(sources) == 4


def test_the_one_that_is_kept_takes_the_place_of_the_first(endpoint: UdpEndpoint, other: socket.socket) -> None:
    first, second = endpoint.open_more(2)
    endpoint.send(transmit(b"x", other.getsockname(), second))
    _, source = other.recvfrom(100)
    endpoint.keep(second)
    assert len(endpoint.sockets) == 1
    for number in (0, second, first):  # the first is gone, and 0 is the session's, whichever that is
        endpoint.send(transmit(b"y" * 2000, other.getsockname(), number))
        assert other.recvfrom(4000) == (b"y" * 2000, source)
    assert endpoint.ports == {4: source[1]}
    assert endpoint.sockets[0].local == second


def test_none_is_kept_if_the_first_has_won(endpoint: UdpEndpoint) -> None:
    ports = endpoint.ports
    endpoint.open_more(4)
    endpoint.keep(0)
    assert endpoint.ports == ports
    assert len(endpoint.sockets) == 1
    assert endpoint.open_more(1) == [5]  # numbers are never used twice


def test_the_spare_one_is_the_same_until_one_is_kept(endpoint: UdpEndpoint, other: socket.socket) -> None:
    spare = endpoint.spare()
    assert spare is not None
    assert endpoint.spare() == spare
    local, port = spare
    endpoint.send(transmit(b"x", other.getsockname(), local))
    assert other.recvfrom(100)[1][1] == port
    endpoint.keep(local)
    assert endpoint.ports == {4: port}
    assert endpoint.spare() not in (None, spare)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the TTL as Linux tells it")
@pytest.mark.parametrize("local", [0, 1])
def test_a_ttl_is_for_one_datagram_only(endpoint: UdpEndpoint, other: socket.socket, local: int) -> None:
    endpoint.open_more(1)
    other.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
    seen = []
    for ttl in (0, 2, 0):
        endpoint.send(transmit(b"x", other.getsockname(), local, ttl))
        _, ancillary, _, _ = other.recvmsg(100, socket.CMSG_SPACE(4))
        seen.append(int.from_bytes(ancillary[0][2], "little"))
    assert seen[1] == 2
    assert seen[0] == seen[2] > 2


def test_where_descriptors_run_out_some_are_left(endpoint: UdpEndpoint) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(sock.fileno() for sock in endpoint.sockets)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 60, hard))
    try:
        opened = endpoint.open_more(256)
        more = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(DESCRIPTORS_LEFT)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for sock in more:
        sock.close()
    assert 0 < len(opened) < 64
    assert len(endpoint.sockets) == len(opened) + 1


@pytest.mark.usefixtures("many_descriptors")
def test_where_many_descriptors_are_open() -> None:
    endpoint = UdpEndpoint(LOOPBACK)
    try:
        assert endpoint.open_more(3) == [1, 2, 3]
        assert endpoint.spare() is not None
    finally:
        endpoint.close()
