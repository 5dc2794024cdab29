"""Real sockets on loopback: whatever sends and receives, the same datagrams come out; and what goes wrong."""

from __future__ import annotations

import contextlib
import errno
import itertools
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from udpsend.errors import UsageError
from udpsend.net.carrier import Carrier
from udpsend.net.portable import PortableSocket
from udpsend.net.udp import UdpEndpoint
from udpsend.net.waiting import SPIN, wait_awake, wait_readable, wait_writable
from udpsend.wire.datagram import MAX_DATAGRAM_SIZE, MAX_SEGMENTS, Address, Transmit
from udpsend.wire.packets import KIND_RECORD, Header

if sys.platform != "linux":
    pytest.skip("LinuxSocket is for Linux", allow_module_level=True)

from tests.carriers import KINDS, WAIT, address_of, bound, receive, received_now, record, transmit, with_lanes
from udpsend.net.linux import LinuxSocket


@pytest.fixture(params=KINDS)
def sender(request: pytest.FixtureRequest) -> Iterator[Carrier]:
    carrier = bound(KINDS[request.param])
    yield carrier
    carrier.close()


@pytest.fixture(params=KINDS)
def receiver(request: pytest.FixtureRequest) -> Iterator[Carrier]:
    carrier = bound(KINDS[request.param])
    yield carrier
    carrier.close()


def train(random: Random, segment: int, count: int, last: int) -> list[bytes]:
    return [random.randbytes(segment) for _ in range(count - 1)] + [random.randbytes(last)]


def cross(sender: Carrier, receiver: Carrier, trains: list[list[bytes]]) -> None:
    for datagrams in trains:
        sender.send(transmit(datagrams, address_of(receiver)))
        assert receive(receiver, len(datagrams), address_of(sender)) == datagrams
    assert receiver.receive() is None
    assert not sender.counters
    assert not receiver.counters


SHAPES = [
    (1, 1, 1),
    (15, 1, 15),
    (16, 1, 16),
    (17, 1, 17),
    (100, MAX_SEGMENTS, 100),
    (1200, 1, 1200),
    (1472, 44, 1472),
    (1472, 44, 1471),
    (1472, 44, 17),
    (1472, 44, 16),
    (1472, 44, 15),
    (1472, 44, 1),
    (8972, 7, 3000),
    (32_000, 2, 32_000),
    (MAX_DATAGRAM_SIZE, 1, MAX_DATAGRAM_SIZE),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_trains_of_every_shape(sender: Carrier, receiver: Carrier, shape: Any, seed: int) -> None:
    """Three times: before the stride is known, and when it has been guessed."""
    random = Random(seed)
    cross(sender, receiver, [train(random, *shape) for _ in range(3)])


def test_the_same_views_again(sender: Carrier, receiver: Carrier, seed: int) -> None:
    """As a connection sends them: one buffer, the same list of its pieces for records of one length."""
    random = Random(seed)
    buffer = bytearray(44 * 1472)
    pieces = memoryview(buffer)
    other = bound(PortableSocket)
    lists: dict[tuple[int, int, int], list[memoryview | bytes]] = {}
    for segment, count, last in [(1472, 44, 1472)] * 4 + [(1472, 44, 700)] * 3 + [(1472, 44, 1472), (900, 20, 900)] * 3:
        datagrams = train(random, segment, count, last)
        buffer[: segment * (count - 1) + last] = b"".join(datagrams)
        cuts = [(i * segment, i * segment + (segment if i < count - 1 else last)) for i in range(count)]
        views = lists.setdefault((segment, count, last), [])
        views.extend(() if views else (v for a, b in cuts for v in (pieces[a : a + 16], pieces[a + 16 : b])))
        for target in (receiver, other, receiver):
            sender.send(Transmit(views, segment, segment * (count - 1) + last, address_of(target)))
            assert receive(target, count, address_of(sender)) == datagrams
    assert not sender.counters
    other.close()


def test_strides_that_change(sender: Carrier, receiver: Carrier, seed: int) -> None:
    random = Random(seed)
    trains = []
    for _ in range(300):
        segment = random.choice((80, 300, 1200, 1452, 1472, 1472, 1472, 8972, 30_000))
        count = random.randrange(1, min(MAX_SEGMENTS, MAX_DATAGRAM_SIZE // segment) + 1)
        trains.append(train(random, segment, count, random.randrange(1, segment + 1)))
    cross(sender, receiver, trains)


def test_many_singles(sender: Carrier, receiver: Carrier, seed: int) -> None:
    """Nothing joins them: the receiver takes many in a call, and joined ones again when they come."""
    random = Random(seed)
    singles = [[random.randbytes(1472)] for _ in range(300)]
    for start in range(0, 300, 50):
        for single in singles[start : start + 50]:
            sender.send(transmit(single, address_of(receiver)))
        got = receive(receiver, 50, address_of(sender))
        assert got == [single[0] for single in singles[start : start + 50]]
    cross(sender, receiver, [train(random, 1472, 44, 100), [random.randbytes(50)], train(random, 1200, 10, 1200)])


def test_small_ones_that_were_joined_where_singles_came(seed: int) -> None:
    """Both together are no longer than one of those that came before."""
    random = Random(seed)
    sender, receiver = bound(KINDS["offload"]), bound(KINDS["offload"])
    try:
        cross(sender, receiver, [train(random, 1472, 2, 1472)])
        for _ in range(80):
            cross(sender, receiver, [train(random, 1472, 1, 1472)])
        cross(sender, receiver, [train(random, 600, 2, 600)])
    finally:
        sender.close()
        receiver.close()


def test_sources_are_kept_apart(receiver: Carrier, seed: int) -> None:
    senders = [bound(KINDS["offload"]) for _ in range(3)]
    random = Random(seed)
    sent: dict[Address, list[bytes]] = {address_of(sender): [] for sender in senders}
    for _ in range(60):
        sender = random.choice(senders)
        datagrams = train(random, 1000, random.randrange(1, 10), random.randrange(1, 1000))
        sender.send(transmit(datagrams, address_of(receiver)))
        sent[address_of(sender)] += datagrams
    received: dict[Address, list[bytes]] = {address: [] for address in sent}
    while sum(map(len, received.values())) < sum(map(len, sent.values())):
        assert select.select([receiver], [], [], WAIT)[0]
        while (arrival := receiver.receive()) is not None:
            received[arrival.address] += arrival.datagrams()
    assert received == sent
    for sender in senders:
        sender.close()


@pytest.mark.parametrize("kind", KINDS)
def test_ipv6(kind: str, seed: int) -> None:
    with contextlib.closing(bound(KINDS[kind], "::1")) as a, contextlib.closing(bound(KINDS[kind], "::1")) as b:
        cross(a, b, [train(Random(seed), 1452, 45, 45) for _ in range(3)])


# what goes wrong


class Trouble:
    """A socket whose sendmsg and sendto fail as long as `fails` says so."""

    def __init__(self, sock: socket.socket, fails: Callable[[list[Any]], OSError | None]) -> None:
        self._sock, self._fails = sock, fails

    def sendmsg(self, views: Any, ancillary: list[Any], flags: int, address: Address) -> int:
        error = self._fails(ancillary)
        if error is not None:
            raise error
        return self._sock.sendmsg(views, ancillary, flags, address)

    def sendto(self, data: Any, address: Address) -> int:
        error = self._fails([])
        if error is not None:
            raise error
        return self._sock.sendto(data, address)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def troubled(kind: str, fails: Callable[[list[Any]], OSError | None]) -> Carrier:
    carrier = bound(KINDS[kind])
    carrier.sock = Trouble(carrier.sock, fails)  # type: ignore[assignment]
    return carrier


@pytest.mark.parametrize("code", [errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.EOPNOTSUPP])
def test_offload_refused_at_the_first_train(receiver: Carrier, code: int, seed: int) -> None:
    """That train is sent again, one datagram at a time, and so are those after it."""
    sender = troubled("offload", lambda ancillary: OSError(code, "") if ancillary else None)
    assert isinstance(sender, LinuxSocket)
    random = Random(seed)
    for _ in range(3):
        datagrams = train(random, 1472, 44, 10)
        sender.send(transmit(datagrams, address_of(receiver)))
        assert receive(receiver, 44, address_of(sender)) == datagrams
    assert not sender.offload
    assert sender.counters == {"offload refused": 1}
    sender.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", [errno.ENETUNREACH, errno.EPERM, errno.ENOBUFS, errno.ECONNREFUSED])
def test_what_the_network_does_not_take_is_lost(kind: str, code: int) -> None:
    sender = troubled(kind, lambda _: OSError(code, ""))
    sender.send(transmit([b"x" * 100], ("127.0.0.1", 9)))
    assert sender.counters == {errno.errorcode[code]: 1}
    sender.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_datagram_that_is_too_long(kind: str) -> None:
    with contextlib.closing(bound(KINDS[kind])) as sender:
        sender.send(transmit([bytes(MAX_DATAGRAM_SIZE + 1)], address_of(sender)))
        assert sender.counters == {"EMSGSIZE": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_buffer_is_waited_for_once(kind: str) -> None:
    sender = troubled(kind, lambda _: BlockingIOError())
    sender.send(transmit([b"x" * 100], ("127.0.0.1", 9)))
    assert sender.counters == {"EAGAIN": 1}
    times = iter([BlockingIOError()])
    again = troubled(kind, lambda _: next(times, None))
    with contextlib.closing(bound(PortableSocket)) as receiver:
        again.send(transmit([b"y" * 100], address_of(receiver)))
        assert receive(receiver, 1, address_of(again)) == [b"y" * 100]
    for carrier in (sender, again):
        carrier.close()


@pytest.mark.parametrize("kind", KINDS)
def test_other_errors_are_ours(kind: str) -> None:
    sender = troubled(kind, lambda _: OSError(errno.EBADF, ""))
    with pytest.raises(OSError, match=r"Errno 9"):
        sender.send(transmit([b"x"], ("127.0.0.1", 9)))
    sender.close()


def test_an_empty_datagram(receiver: Carrier) -> None:
    with contextlib.closing(bound(PortableSocket)) as sender:
        sender.sock.sendto(b"", address_of(receiver))
        sender.sock.sendto(b"after it", address_of(receiver))
        assert receive(receiver, 2, address_of(sender)) == [b"", b"after it"]


def fragment(index: int, count: int, size: int, tag: bytes = b"7 bytes") -> bytes:
    return Header(KIND_RECORD, tag, 5, index, count).pack().ljust(size, b".")


@pytest.mark.parametrize("shape", [(176, 1472), (4, MAX_DATAGRAM_SIZE), (4, 65_488), (28, 8972), (204, 1280)], ids=str)
def test_records_of_several_calls(sender: Carrier, receiver: Carrier, shape: tuple[int, int]) -> None:
    """In one piece, whatever carries them: once the size is known, no record has to be put together by copying."""
    for number in range(8):
        datagrams = record(number, *shape)
        sender.send(transmit(datagrams, address_of(receiver)))
        pieces: list[list[bytes]] = []
        while sum(map(len, pieces)) < len(datagrams):
            assert select.select([receiver], [], [], WAIT)[0]
            while (arrival := receiver.receive()) is not None:
                pieces.append(list(arrival.datagrams()))
        assert [datagram for piece in pieces for datagram in piece] == datagrams
    assert len(pieces) == 1


def received_from(receiver: Carrier, trains: list[list[bytes]], senders: list[Carrier]) -> list[list[bytes]]:
    """As trains, what `senders` have sent; the last one the strays."""
    for datagrams in trains:
        carrier = senders[-1] if datagrams == [b"stray"] else senders[0]
        carrier.send(transmit(datagrams, address_of(receiver)))
    came = []
    while (arrival := receiver.receive()) is not None:
        came.append(list(arrival.datagrams()))
    return came


def test_the_beginning_of_a_record_is_held_until_the_rest_is_there() -> None:
    with contextlib.ExitStack() as stack:
        one, other, receiver = (stack.enter_context(contextlib.closing(bound(KINDS["offload"]))) for _ in range(3))
        r, s, t = (record(number, 100, 1472) for number in range(3))
        sent = [r[:44], r[44:], s[:44], t, t[:44], s[:44], [b"stray"], s[44:]]
        assert (
            received_from(receiver, sent, [one, other])
            == [
                r[:44],  # sorted out: nobody knew the size
                r[44:88],
                r[88:],
                s[:44] + t[:44],  # what was lost does no harm to more than what comes with it
                t[44:88],
                t[88:],
                t[:44],  # not held: its end has been here
                s[:44],
                [b"stray"],
                s[44:88],
                s[88:],
            ]
        )


def test_a_beginning_that_comes_after_the_end_is_not_held() -> None:
    with contextlib.closing(bound(KINDS["offload"])) as sender, contextlib.closing(bound(KINDS["offload"])) as receiver:
        first, second = record(1, 88, 1472), record(2, 88, 1472)
        sent = [first[:44], first[44:], second[44:], second[:44]]
        assert received_from(receiver, sent, [sender]) == sent


def test_what_is_no_record_is_not_given_behind_what_was_held() -> None:
    """Whoever tells STUN and probes from records looks at the first datagram of a train."""
    with contextlib.closing(bound(KINDS["offload"])) as sender, contextlib.closing(bound(KINDS["offload"])) as receiver:
        first, second = record(1, 88, 1472), record(2, 88, 1472)
        probe, stun = [b"\xe1".ljust(80)], [b"\x01".ljust(20)]
        sent = [first[:44], first[44:], second[:44], probe, stun, second[:44], [b"short"], second[44:]]
        assert received_from(receiver, sent, [sender]) == sent


def test_joined_ones_of_the_size_that_came_singly_are_taken_as_trains_again() -> None:
    with contextlib.closing(bound(KINDS["offload"])) as sender, contextlib.closing(bound(KINDS["offload"])) as receiver:
        singles = [[fragment(0, 1, 1472)]] * 70
        came = received_from(receiver, singles, [sender])
        assert [datagram for train in came for datagram in train] == [datagram for (datagram,) in singles]
        joined = [record(number, 44, 1472) for number in range(4)]
        assert received_from(receiver, joined, [sender])[2:] == joined[2:]
        assert isinstance(receiver, LinuxSocket)
        assert receiver._singles == 0


@pytest.mark.parametrize("kind", [*KINDS, "lanes"])
def test_whatever_is_sent_comes_in_order(kind: str, seed: int) -> None:
    """Pieces of records of all sizes, from two sources, by all kinds of senders."""
    random = Random(seed)
    make, least = (with_lanes, 16) if kind == "lanes" else (KINDS[kind], 1)  # without a header there is no lane
    with contextlib.ExitStack() as stack:
        receiver = stack.enter_context(contextlib.closing(bound(make)))
        senders = [stack.enter_context(contextlib.closing(bound(KINDS[other]))) for other in KINDS for _ in range(2)]
        sender, sent, came = senders[0], list[tuple[Address, bytes]](), list[tuple[Address, bytes]]()
        for number in range(200):
            size = random.choice((40, 300, 1200, 1472, 1472, 1472, 8972, 30_000, 40_000, MAX_DATAGRAM_SIZE))
            most = min(255, 4 * MAX_DATAGRAM_SIZE // size)
            datagrams = record(number, random.choice((1, 2, 3, most)) if most > 3 else most, size)
            datagrams[-1] = datagrams[-1][: random.choice((size, random.randrange(least, size)))]
            cuts = sorted({0, len(datagrams), *(random.randrange(len(datagrams) + 1) for _ in range(2))})
            for first, last in itertools.pairwise(cuts):
                if random.random() < 0.2:
                    sender = random.choice(senders)
                if random.random() < 0.9:
                    sender.send(transmit(datagrams[first:last], address_of(receiver)))
                    sent += [(address_of(sender), datagram) for datagram in datagrams[first:last]]
                if random.random() < 0.5:
                    came += received_now(receiver)
        last_one = record(200, 1, 40)  # what begins a record is held until something comes behind it
        sender.send(transmit(last_one, address_of(receiver)))
        sent += [(address_of(sender), datagram) for datagram in last_one]
        while len(came) < len(sent):
            assert select.select([receiver], [], [], WAIT)[0]
            came += received_now(receiver)
        assert came == sent


def test_what_comes_singly_is_taken_as_trains_of_one_record() -> None:
    with contextlib.closing(bound(PortableSocket)) as receiver, contextlib.closing(bound(PortableSocket)) as sender:
        record, short = [fragment(index, 3, 1472) for index in range(3)], fragment(1, 3, 100)
        for datagram in (*record, *record, *record[:2], short):
            sender.sock.sendto(datagram, address_of(receiver))
        trains = [receiver.receive() for _ in range(4)]
        assert [train and list(train.datagrams()) for train in trains] == [
            record,
            record,
            [*record[:2], short],
            None,
        ]


def test_a_record_whose_end_is_lost_is_apart_from_the_next() -> None:
    with contextlib.closing(bound(PortableSocket)) as receiver, contextlib.closing(bound(PortableSocket)) as sender:
        first, second, third = (record(number, 5, 1472) for number in range(3))
        lossy = [first[0], *first[2:]]
        for datagram in (*lossy, *second[:3], *third):
            sender.sock.sendto(datagram, address_of(receiver))
        trains = [receiver.receive() for _ in range(4)]
        assert [train and list(train.datagrams()) for train in trains] == [lossy, second[:3], third, None]


def test_a_larger_datagram_and_one_from_elsewhere_begin_another_train() -> None:
    with contextlib.ExitStack() as stack:
        receiver, one, other = (stack.enter_context(contextlib.closing(bound(PortableSocket))) for _ in range(3))
        small, large = fragment(0, 9, 1200), fragment(1, 9, 1472)
        for sender, datagram in ((one, small), (one, small), (one, large), (other, small), (other, small)):
            sender.sock.sendto(datagram, address_of(receiver))
        came: list[tuple[Address, list[bytes]]] = []
        while (arrival := receiver.receive()) is not None:
            assert receiver.has_pending == (not came)
            came.append((arrival.address, list(arrival.datagrams())))
        assert came == [
            (address_of(one), [small, small]),
            (address_of(one), [large]),
            (address_of(other), [small, small]),
        ]


@pytest.mark.parametrize("stranger", [b"\x01".ljust(1472), fragment(0, 9, 1472, b"another")], ids=["STUN", "tag"])
def test_what_is_none_of_ours_spoils_no_train(stranger: bytes) -> None:
    with contextlib.closing(bound(PortableSocket)) as receiver, contextlib.closing(bound(PortableSocket)) as sender:
        record = [fragment(index, 3, 1472) for index in range(3)]
        for datagram in (stranger, *record, *record[:2], stranger):
            sender.sock.sendto(datagram, address_of(receiver))
        came = []
        while (arrival := receiver.receive()) is not None:
            came.append(list(arrival.datagrams()))
        assert [datagram for train in came for datagram in train] == [stranger, *record, *record[:2], stranger]
        assert all(train == [stranger] or stranger not in train for train in came)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_receive(kind: str) -> None:
    with contextlib.closing(bound(KINDS[kind])) as carrier:
        assert carrier.receive() is None
        assert carrier.fileno() > 0


# the endpoint


@pytest.fixture(params=[True, False], ids=["offload", "no offload"])
def endpoint(request: pytest.FixtureRequest) -> Iterator[UdpEndpoint]:
    made = UdpEndpoint("127.0.0.1", offload=request.param)
    yield made
    made.close()


def test_endpoint(endpoint: UdpEndpoint, receiver: Carrier) -> None:
    assert set(endpoint.ports) == {4}
    source = ("127.0.0.1", endpoint.ports[4])
    endpoint.send(transmit([b"a" * 100, b"b" * 50], address_of(receiver)))
    assert receive(receiver, 2, source) == [b"a" * 100, b"b" * 50]
    endpoint.send_datagram(b"stun", address_of(receiver))
    assert receive(receiver, 1, source) == [b"stun"]
    endpoint.send(transmit([b"to another family"], ("::1", 9)))
    endpoint.send_datagram(b"to another family", ("::1", 9))
    assert endpoint.counters() == {}
    assert endpoint.receive_buffer >= 50_000


def test_the_largest_datagram_of_loopback(endpoint: UdpEndpoint) -> None:
    assert endpoint.max_datagram_size(("127.0.0.1", 9)) == MAX_DATAGRAM_SIZE


def test_all_families() -> None:
    endpoint = UdpEndpoint()
    try:
        assert 4 in endpoint.ports
        assert len(endpoint.sockets) == len(endpoint.ports)
    finally:
        endpoint.close()


@pytest.mark.parametrize(("bind", "text"), [("192.0.2.1", "no such address"), ("localhost", "no IP address")])
def test_bad_bind(bind: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        UdpEndpoint(bind)


@pytest.mark.usefixtures("many_descriptors")
def test_waiting_beyond_what_select_takes() -> None:
    here, there = socket.socketpair()
    with here, there:
        assert here.fileno() > 1023
        assert wait_readable([here], 0.0) == []
        there.send(b"x")
        assert wait_readable([here], 10.0) == [here]
        wait_writable(here, 10.0)


def test_lone_datagrams_are_taken_many_at_once() -> None:
    """Where nothing is joined from the beginning, as on links without receive offload."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        raw.bind(("127.0.0.1", 0))
        receiver = LinuxSocket(raw)
        largest = 0
        for round_ in range(8):
            for i in range(32):
                sender.sendto(bytes([round_, i]) + bytes(1470), raw.getsockname())
            got = 0
            while got < 32:
                arrival = receiver.receive()
                assert arrival is not None
                assert bytes(arrival.headers[:2]) == bytes([round_, got])
                largest = max(largest, arrival.count)
                got += arrival.count
        receiver.close()
    assert largest > 8


def test_waiting_awake_gives_what_comes_at_once_and_what_comes_later() -> None:
    here, there = socket.socketpair()
    with here, there:
        assert wait_awake([here], 0.0) == []
        assert wait_awake([here], 2 * SPIN) == []
        there.send(b"x")
        assert wait_awake([here], 10.0) == [here]
        here.recv(1)
        later = threading.Timer(10 * SPIN, there.send, [b"y"])
        later.start()
        assert wait_awake([here], 10.0) == [here]
        later.join()
