"""Several sockets for one port: what they hold, the order they give it in, and what happens where they cannot be."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import sys
from collections.abc import Iterator
from random import Random

import pytest

if sys.platform != "linux":
    pytest.skip("lanes are for Linux", allow_module_level=True)

from tests.carriers import KINDS, OPENING, address_of, as_stock, bound, received_now, record, transmit, with_lanes
from tests.servers import LOOPBACK
from udpsend.net import lanes, udp
from udpsend.net.carrier import DESCRIPTORS_LEFT, Carrier
from udpsend.net.lanes import Lane, Lanes, open_lanes
from udpsend.net.udp import UdpEndpoint
from udpsend.wire.datagram import MAX_DATAGRAM_SIZE

SHAPES = [(1, 100), (3, 1472), (44, 1472), (64, 1472), (176, 1472), (255, 1024), (29, 8972), (4, MAX_DATAGRAM_SIZE)]


@pytest.fixture
def receiver() -> Iterator[Carrier]:
    carrier = bound(with_lanes)
    yield carrier
    carrier.close()


@pytest.fixture(params=["offload", "batches"])
def sender(request: pytest.FixtureRequest) -> Iterator[Carrier]:
    carrier = bound(KINDS[request.param])
    yield carrier
    carrier.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_they_hold_what_the_sender_is_told_and_give_it_in_order(
    sender: Carrier, receiver: Carrier, shape: tuple[int, int]
) -> None:
    """All of it sent before the first is taken, of records that are alike; twice, so that numbers go round."""
    count, size = shape
    row = min(250, receiver.receive_buffer // (count * size))
    for start in (0, row):
        datagrams = [record(number, count, size) for number in range(start, start + row)]
        for one in datagrams:
            sender.send(transmit(one, address_of(receiver)))
        assert [data for _, data in received_now(receiver)] == [data for one in datagrams for data in one]


def test_they_hold_more_than_one_socket_does(sender: Carrier) -> None:
    sent = [record(number, 44, 1472) for number in range(40)]
    with contextlib.closing(bound(lambda sock: KINDS["offload"](as_stock(sock)))) as receiver:
        for one in sent:
            sender.send(transmit(one, address_of(receiver)))
        assert len(received_now(receiver)) < 40 * 44


@pytest.mark.parametrize("with_pieces", [False, True], ids=["whole records", "pieces"])
def test_gaps_and_records_of_all_lengths_do_not_upset_the_order(
    receiver: Carrier, with_pieces: bool, seed: int
) -> None:
    sender = bound(KINDS["offload" if with_pieces else "batches"])
    random, number, sent = Random(seed), 0, list[bytes]()
    for _ in range(40):
        number += random.choice((1, 1, 1, 2, 40, 300))
        datagrams = record(number, random.choice((1, 2, 7, 16)), 1200)
        first, last = sorted(random.sample(range(len(datagrams) + 1), 2)) if with_pieces else (0, len(datagrams))
        sender.send(transmit(datagrams[first:last], address_of(receiver)))
        sent += datagrams[first:last]
    end = record(number + 1, 1, 1200)  # else a beginning may be held
    sender.send(transmit(end, address_of(receiver)))
    assert [data for _, data in received_now(receiver)] == sent + end
    sender.close()


def test_a_whole_record_is_still_one_train(sender: Carrier, receiver: Carrier) -> None:
    trains = []
    for number in range(20):
        sender.send(transmit(record(number, 176, 1472), address_of(receiver)))
        while (arrival := receiver.receive()) is not None:
            trains.append(arrival.count)
    assert trains[-5:] == [176] * 5


def test_the_next_one_is_found_without_looking_everywhere(sender: Carrier, receiver: Carrier) -> None:
    """The kernel's filter and the reader agree on where everything is: only what comes first has to be looked for."""
    all_lanes = receiver._lanes  # type: ignore[attr-defined]
    looks = 0

    class Poll:
        def poll(self, timeout: float) -> list[tuple[int, int]]:
            nonlocal looks
            looks += 1
            return list(poll.poll(timeout))

    for number in range(4):
        sender.send(transmit(record(number, 44, 1472), address_of(receiver)))
    received_now(receiver)
    poll, all_lanes._poll = all_lanes._poll, Poll()
    for number in range(4, 300):
        sender.send(transmit(record(number, 44, 1472), address_of(receiver)))
        if number % 20 == 0:
            received_now(receiver)
    all_lanes._poll = poll
    assert looks == 14, "once whenever nothing more was there"


STRANGE = [b"", b"short", b"\x01".ljust(40), b"\xe0another".ljust(1472, b"\xff"), OPENING]


@pytest.mark.parametrize("strange", STRANGE, ids=repr)
def test_what_strangers_send_upsets_nothing(sender: Carrier, receiver: Carrier, strange: bytes) -> None:
    """As much of it as there is of ours, and something of ours is always missing, so that it has to be looked for."""
    with contextlib.closing(bound(KINDS["portable"])) as other:
        sent = []
        for number in range(100):
            datagrams = record(number, 3, 1472)[number % 2 :]
            sender.send(transmit(datagrams, address_of(receiver)))
            sent += datagrams
            other.sock.sendto(strange, address_of(receiver))
        came = received_now(receiver)
        assert [data for address, data in came if address == address_of(sender)] == sent
        assert len(came) == len(sent) + 100
        first = [address == address_of(sender) for address, _ in came[:100]]
        assert sum(first) >= 40, "everybody gets a turn"


def test_ipv6() -> None:
    with contextlib.ExitStack() as stack:
        receiver = stack.enter_context(contextlib.closing(bound(with_lanes, "::1")))
        sender = stack.enter_context(contextlib.closing(bound(KINDS["offload"], "::1")))
        sent = [record(number, 44, 1472) for number in range(40)]
        for one in sent:
            sender.send(transmit(one, address_of(receiver)))
        assert [data for _, data in received_now(receiver)] == [data for one in sent for data in one]


@pytest.mark.parametrize(
    ("buffer", "count"), [(4096, 32), (212_992, 32), (425_984, 16), (1 << 20, 4), (3 << 20, 2), (4 << 20, 1)]
)
def test_as_many_as_make_up_for_the_buffer(buffer: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Granted(socket.socket):
        def getsockopt(self, *_: object) -> int:  # type: ignore[override]
            return 2 * buffer

    with Granted(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((LOOPBACK, 0))
        found = open_lanes(sock, OPENING)
        assert len(found.sockets) == count
        assert isinstance(found, Lanes) == (count > 1)
        assert found.receive_buffer == min(count * buffer, max(buffer, 4 << 20))
        found.close()


def stock() -> socket.socket:
    sock = as_stock(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.bind((LOOPBACK, 0))
    return sock


def test_the_port_is_bound_before_it_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel gives a port that is shared already to another program that shares, if it may choose."""
    shared_first = []

    class Watched(socket.socket):
        def bind(self, address: object) -> None:
            shares = self.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
            shared_first.append(bool(shares) and address[1] == 0)  # type: ignore[index]
            super().bind(address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "socket", Watched)
    monkeypatch.setattr(udp, "BUFFER_SIZE", 212_992)
    with contextlib.closing(UdpEndpoint(LOOPBACK)) as endpoint:
        assert endpoint.room((LOOPBACK, 9), OPENING) == 4 << 20
        assert len(shared_first) == 32
        assert not any(shared_first)


def test_where_the_system_has_no_such_filter_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOPROTOOPT, "Protocol not available")

    monkeypatch.setattr(lanes, "_deal", refuse)
    with stock() as sock:
        before = descriptors()
        assert type(open_lanes(sock, OPENING)) is Lane
        assert descriptors() == before
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


@pytest.mark.parametrize("more", [10, 31 + DESCRIPTORS_LEFT])
def test_where_descriptors_run_out_there_is_one(more: int) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with stock() as sock:
        before = descriptors()
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (sock.fileno() + more, limits[1]))
            assert type(open_lanes(sock, OPENING)) is Lane
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert descriptors() == before


def test_an_endpoint_widens_the_family_of_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "BUFFER_SIZE", 212_992)
    before = descriptors()
    endpoint = UdpEndpoint()
    small, few = endpoint.receive_buffer, descriptors()
    assert small <= 212_992
    assert endpoint.room((LOOPBACK, 9), OPENING) == 4 << 20
    assert endpoint.room((LOOPBACK, 9), OPENING) == 4 << 20
    assert descriptors() == few + 32
    (winner,) = endpoint.open_more(1)
    endpoint.keep(winner)
    assert descriptors() == few
    assert endpoint.receive_buffer == small
    assert endpoint.room((LOOPBACK, 9), OPENING) == 4 << 20
    endpoint.close()
    assert descriptors() == before


def test_who_wants_no_offload_gets_no_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "BUFFER_SIZE", 212_992)
    with contextlib.closing(UdpEndpoint(LOOPBACK, offload=False)) as endpoint:
        assert endpoint.room((LOOPBACK, 9), OPENING) == endpoint.receive_buffer <= 212_992
