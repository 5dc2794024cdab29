"""Strangers at the port of a transfer: garbage, forgeries with the right tag, replays."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.sim import Network, Recorder, Socket, Train
from tests.transfers import Peer
from udpsend.config import Role
from udpsend.transfer.messages import Closed
from udpsend.wire.datagram import Address
from udpsend.wire.packets import KIND_RECORD, MAX_NUMBER, Header

A: Address = ("192.168.1.1", 4000)
B: Address = ("192.168.1.2", 5000)
STRANGER: Address = ("192.168.1.66", 6666)


class Lan:
    """Two peers at a transfer, and a stranger who sees all their datagrams and can send from any address."""

    def __init__(self, seed: int, size: int = 2_000_000) -> None:
        self.network = network = Network(seed)
        self.random = Random(seed)
        self.seen: list[Train] = []
        hosts = {}
        for name, address in (("a", A), ("b", B), ("c", STRANGER)):
            hosts[name] = network.host(name)
            up, _ = network.internet.attach(hosts[name], address[0], delay=0.005, rate=5e6, queue=200e3)
            if name != "c":
                up.tap = self.seen.append
        content = Random(seed).randbytes(size)
        self.a: Socket[Peer] = hosts["a"].bind(
            A[1], lambda _: Peer(Role.SENDER, B, network, content, max_datagram_size=1472)
        )
        self.b: Socket[Peer] = hosts["b"].bind(
            B[1], lambda _: Peer(Role.RECEIVER, A, network, content, max_datagram_size=1472)
        )
        self.c = hosts["c"].bind(STRANGER[1], Recorder)

    def inject(self, datagrams: list[bytes], to: Address, source: Address = STRANGER) -> None:
        self.network.internet.from_inside(Train.of(source, to, datagrams))

    def every(self, interval: float, attack: Any) -> None:
        def again() -> None:
            if not (self.a.endpoint.closed and self.b.endpoint.closed):
                attack()
                self.network.after(interval, again)

        self.network.after(interval, again)

    def finish(self, seconds: float = 60.0) -> None:
        a, b = self.a.endpoint, self.b.endpoint
        assert self.network.run(lambda: bool(a.closed and b.closed), seconds=seconds)
        assert a.closed == b.closed == Closed(None)
        assert a.file.content == b.file.content
        assert (a.connection.address, b.connection.address) == (B, A)

    def tag(self, of: Address) -> bytes:
        train = next(train for train in self.seen if train.source == of)
        return bytes(train.datagrams[0][1:8])


def test_garbage_of_strangers(seed: int) -> None:
    lan = Lan(seed)
    rand = lan.random

    def attack() -> None:
        for to in (A, B):
            lan.inject([rand.randbytes(rand.randrange(1400)) for _ in range(3)], to)
            lan.inject([bytes([KIND_RECORD]) + rand.randbytes(rand.randrange(1400)) for _ in range(3)], to)

    lan.every(0.002, attack)
    lan.finish()
    for peer in (lan.a.endpoint, lan.b.endpoint):
        assert peer.connection._opener.forgeries == 0, "without the tag nothing is even opened"
        assert sum(peer.connection.drops.values()) > 500


@pytest.mark.parametrize("source", [STRANGER, A])
def test_forged_fragments_with_the_right_tag(source: Address, seed: int) -> None:
    """Somebody on the path knows the tag: each forgery costs one failed opening, and the transfer goes on."""
    lan = Lan(seed)
    rand = lan.random

    def attack() -> None:
        if not lan.seen:
            return
        number = lan.a.endpoint.connection.flight.next_number + rand.randrange(-5, 40)
        count = rand.choice((1, 1, 2, 13, 64))
        header = Header(KIND_RECORD, lan.tag(A), max(0, number), rand.randrange(count), count)
        lan.inject([header.pack() + rand.randbytes(rand.choice((16, 100, 1456)))], B, source)

    lan.every(0.001, attack)
    lan.finish()
    assert lan.b.endpoint.connection._opener.forgeries > 10


def test_forged_numbers_at_the_end_of_the_range(seed: int) -> None:
    lan = Lan(seed)

    def attack() -> None:
        if lan.seen:
            header = Header(KIND_RECORD, lan.tag(A), MAX_NUMBER, 0, 1)
            lan.inject([header.pack() + bytes(100)], B, A)

    lan.every(0.001, attack)
    lan.finish()


@pytest.mark.parametrize("as_themselves", [True, False])
def test_replayed_datagrams(as_themselves: bool, seed: int) -> None:
    """All that was seen comes again, from where it came or from elsewhere: nothing moves, nothing is written twice."""
    lan = Lan(seed)

    def attack() -> None:
        for train in lan.seen[-3:] + lan.random.sample(lan.seen, min(3, len(lan.seen))):
            lan.inject(list(train.datagrams), train.destination, train.source if as_themselves else STRANGER)

    lan.every(0.002, attack)
    lan.finish()
    assert lan.b.endpoint.connection.drops["replay"] + lan.b.endpoint.connection.drops["duplicate"] > 100
    assert len(lan.c.endpoint.received) < 50, "no data goes to a stranger: path checks at the most"


def test_a_stranger_who_passes_records_on_faster(seed: int) -> None:
    """The original loses the race: the record is taken, its source is asked, does not answer, and nothing moves."""
    lan = Lan(seed)
    taken = lan.seen.append

    def tap(train: Train) -> None:
        taken(train)
        lan.network.after(0.0001, lambda: lan.inject(list(train.datagrams), train.destination))

    lan.a.host.interfaces[A[0]][1].tap = tap
    lan.finish()
    assert 0 < len(lan.c.endpoint.received) < 200
