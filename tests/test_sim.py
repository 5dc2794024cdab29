"""The virtual network does what it says: NATs as RFC 4787 defines them, queues, losses, one run for one seed."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest

from tests.sim import (
    ADDRESS_RESTRICTED,
    FULL_CONE,
    PORT_RESTRICTED,
    SYMMETRIC,
    SYMMETRIC_RANDOM,
    GilbertElliott,
    Host,
    Link,
    NatKind,
    Network,
    Recorder,
    SimulationStuck,
    Socket,
)
from udpsend.wire.datagram import Address

INSIDE = "192.168.1.10"
FIRST, SECOND = "198.51.100.1", "198.51.100.2"


def joined(seed: int, *, gro: bool = False, **link: Any) -> tuple[Network, Host, Socket[Recorder], Link]:
    """A host, a socket at the other end of a cable, and the link to there."""
    net = Network(seed)
    a, b = net.host("a"), net.host("b")
    there, _ = net.cable(a, "10.0.0.1", b, "10.0.0.2", **link)
    return net, a, b.bind(9, Recorder, gro=gro), there


def send(host: Host, count: int, size: int = 1000) -> None:
    host.send(1, ("10.0.0.2", 9), [number.to_bytes(4) + bytes(size - 4) for number in range(count)])


def numbers(socket: Socket[Recorder]) -> list[int]:
    return [int.from_bytes(datagram[:4]) for _, _, datagram in socket.endpoint.received]


class Home:
    """A host behind a NAT, and two outside with sockets at two ports each."""

    def __init__(self, seed: int, kind: NatKind) -> None:
        self.net = Network(seed)
        self.inside = self.net.host("inside")
        self.gateway = self.net.gateway("home", "203.0.113.1", kind, delay=0.01)
        self.gateway.attach(self.inside, INSIDE)
        self.socket = self.inside.bind(4000, Recorder)
        self.outside: dict[Address, Socket[Recorder]] = {}
        for ip in (FIRST, SECOND):
            host = self.net.host(ip)
            self.net.internet.attach(host, ip)
            for port in (1, 2):
                self.outside[ip, port] = host.bind(port, Recorder)

    def out(self, destination: Address, port: int = 4000) -> Address | None:
        """Sends from inside; the source as seen outside, None if it did not arrive."""
        received = self.outside[destination].endpoint.received
        before = len(received)
        self.inside.send(port, destination, [b"out"])
        self.net.run(seconds=0.1)
        return received[-1][1] if len(received) > before else None

    def comes_in(self, source: Address, mapped: Address) -> bool:
        received = self.socket.endpoint.received
        before = len(received)
        self.outside[source].host.send(source[1], mapped, [b"in"])
        self.net.run(seconds=0.1)
        return len(received) > before


@pytest.mark.parametrize(
    ("kind", "same_for_port", "same_for_address"),
    [
        (FULL_CONE, True, True),
        (ADDRESS_RESTRICTED, True, True),
        (PORT_RESTRICTED, True, True),
        (SYMMETRIC, False, False),
        (SYMMETRIC_RANDOM, False, False),
    ],
)
def test_mapping(seed: int, kind: NatKind, same_for_port: bool, same_for_address: bool) -> None:
    home = Home(seed, kind)
    mapped = home.out((FIRST, 1))
    assert mapped is not None
    assert mapped[0] == "203.0.113.1"
    assert home.out((FIRST, 1)) == mapped
    assert (home.out((FIRST, 2)) == mapped) is same_for_port
    assert (home.out((SECOND, 1)) == mapped) is same_for_address


@pytest.mark.parametrize(
    ("kind", "other_port", "other_address"),
    [
        (FULL_CONE, True, True),
        (ADDRESS_RESTRICTED, True, False),
        (PORT_RESTRICTED, False, False),
        (SYMMETRIC, False, False),
    ],
)
def test_filtering(seed: int, kind: NatKind, other_port: bool, other_address: bool) -> None:
    home = Home(seed, kind)
    assert not home.comes_in((FIRST, 1), ("203.0.113.1", 4000))
    assert home.gateway.dropped["nat unmapped"] == 1
    mapped = home.out((FIRST, 1))
    assert mapped is not None
    assert home.comes_in((FIRST, 1), mapped)
    assert home.comes_in((FIRST, 2), mapped) is other_port
    assert home.comes_in((SECOND, 1), mapped) is other_address
    assert home.gateway.dropped["nat filter"] == 2 - other_port - other_address


def test_ports_of_symmetric_nats(seed: int) -> None:
    home = Home(seed, SYMMETRIC)
    ports = [mapped[1] for d in home.outside if (mapped := home.out(d)) is not None]
    assert ports == [20_000, 20_001, 20_002, 20_003]
    home = Home(seed, SYMMETRIC_RANDOM)
    ports = [mapped[1] for d in home.outside if (mapped := home.out(d)) is not None]
    assert len(set(ports)) == 4
    assert ports != sorted(ports) or ports[-1] - ports[0] > 3


def test_two_hosts_with_one_port_get_two_mappings(seed: int) -> None:
    home = Home(seed, PORT_RESTRICTED)
    other = home.net.host("other")
    home.gateway.attach(other, "192.168.1.11")
    assert home.out((FIRST, 1)) == ("203.0.113.1", 4000)
    other.send(4000, (FIRST, 1), [b"out"])
    home.net.run(seconds=0.1)
    assert home.outside[FIRST, 1].endpoint.received[-1][1] == ("203.0.113.1", 20_000)


@pytest.mark.parametrize("refreshes", [False, True])
def test_mapping_lifetime(seed: int, refreshes: bool) -> None:
    home = Home(seed, NatKind(SYMMETRIC.mapping, SYMMETRIC.filtering, lifetime=30, inbound_refreshes=refreshes))
    mapped = home.out((FIRST, 1))
    assert mapped is not None
    home.net.run(seconds=20)
    assert home.comes_in((FIRST, 1), mapped)
    home.net.run(seconds=20)
    assert home.comes_in((FIRST, 1), mapped) is refreshes
    home.net.run(seconds=60)
    assert not home.comes_in((FIRST, 1), mapped)
    home.out((FIRST, 1))
    home.gateway.forget()
    assert not home.comes_in((FIRST, 1), mapped)


@pytest.mark.parametrize("hairpin", [False, True])
def test_hairpin(seed: int, hairpin: bool) -> None:
    home = Home(seed, NatKind(FULL_CONE.mapping, FULL_CONE.filtering, hairpin=hairpin))
    other = home.net.host("other")
    home.gateway.attach(other, "192.168.1.11")
    mapped = home.out((FIRST, 1))
    assert mapped is not None
    other.send(7000, mapped, [b"around"])
    home.net.run(seconds=0.1)
    assert [source for _, source, _ in home.socket.endpoint.received] == ([("203.0.113.1", 7000)] if hairpin else [])
    assert home.gateway.dropped["nat hairpin"] == (not hairpin)


def test_nat_behind_a_carriers_nat(seed: int) -> None:
    net = Network(seed)
    carrier = net.gateway("carrier", "203.0.113.1", FULL_CONE)
    home = net.gateway("home", "100.64.0.2", PORT_RESTRICTED, above=carrier)
    host, server = net.host("host"), net.host("server")
    home.attach(host, INSIDE)
    net.internet.attach(server, FIRST)
    seen = server.bind(1, Recorder)
    answered = host.bind(4000, Recorder)
    host.send(4000, (FIRST, 1), [b"out"])
    net.run(seconds=1)
    assert seen.endpoint.received[0][1] == ("203.0.113.1", 4000)
    server.send(1, ("203.0.113.1", 4000), [b"in"])
    net.run(seconds=1)
    assert answered.endpoint.received[0][1:] == ((FIRST, 1), b"in")


def test_firewall_lets_in_what_was_sent_to(seed: int) -> None:
    net = Network(seed)
    home = net.gateway("home", "203.0.113.1", PORT_RESTRICTED)
    inside, outside = net.host("inside"), net.host("outside")
    home.attach(inside, "2001:db8:1::9")
    net.internet.attach(outside, "2001:db8:2::9")
    socket = inside.bind(4000, Recorder)
    outside.send(5, ("2001:db8:1::9", 4000), [b"too early"])
    net.run(seconds=1)
    inside.send(4000, ("2001:db8:2::9", 5), [b"out"])
    net.run(seconds=1)
    outside.send(5, ("2001:db8:1::9", 4000), [b"in"])
    outside.send(6, ("2001:db8:1::9", 4000), [b"from another port"])
    net.run(seconds=1)
    assert [datagram for _, _, datagram in socket.endpoint.received] == [b"in"]
    assert home.dropped["firewall"] == 2


def test_delay_and_rate_are_exact(seed: int) -> None:
    net, a, socket, _ = joined(seed, delay=0.05, rate=1e6, merge_within=0)
    send(a, 3)
    net.run(seconds=1)
    assert [time for time, _, _ in socket.endpoint.received] == pytest.approx([0.051, 0.052, 0.053])


def test_queue_drops_the_tail(seed: int) -> None:
    net, a, socket, link = joined(seed, rate=1e6, queue=5000, merge_within=0)
    send(a, 8)
    assert link.backlog == pytest.approx(5000)
    net.run(seconds=0.0025)  # room for two and a half
    send(a, 4)
    net.run(seconds=1)
    assert numbers(socket) == [0, 1, 2, 3, 4, 0, 1]
    assert link.dropped == {"queue": 5}
    assert link.max_queue == 5000 - 2500 + 2000 + 500
    assert link.max_queueing_delay == pytest.approx(0.004)
    assert link.mean_queueing_delay == pytest.approx((0 + 1 + 2 + 3 + 4 + 2.5 + 3.5) / 7 / 1000)
    assert (link.offered, link.delivered, link.bytes_delivered) == (12, 7, 7000)


def test_idle_link_takes_a_datagram_that_is_longer_than_its_queue(seed: int) -> None:
    net, a, socket, _ = joined(seed, rate=1e6, queue=10)
    send(a, 2)
    net.run(seconds=1)
    assert numbers(socket) == [0]


def test_rate_that_changes(seed: int) -> None:
    net, a, socket, link = joined(seed, rate=1e6, merge_within=0)
    send(a, 10)
    net.at(0.005, lambda: setattr(link, "rate", 1e5))
    net.run(seconds=0.005)
    assert link.backlog == pytest.approx(5000)
    send(a, 1)
    net.run(seconds=1)
    assert socket.endpoint.received[-1][0] == pytest.approx(0.005 + 0.05 + 0.01)
    assert numbers(socket) == [*range(10), 0]


def test_outage_and_mtu(seed: int) -> None:
    net, a, socket, link = joined(seed, mtu=1028)
    send(a, 1, 1000)
    send(a, 1, 1001)
    link.outage(1.0, 2.0)
    for instant in (1.5, 2.9, 3.1):
        net.at(instant, lambda: send(a, 1))
    net.run(seconds=5)
    assert len(socket.endpoint.received) == 2
    assert link.dropped == {"mtu": 1, "outage": 2}


@pytest.mark.parametrize("train", [1, 44])
def test_loss_statistics(seed: int, train: int) -> None:
    net, a, _, link = joined(seed, loss=0.05)
    for _ in range(22_000 // train):
        send(a, train, 40)
        net.run(seconds=0.001)
    assert link.dropped["loss"] == pytest.approx(22_000 * 0.05, rel=0.25)  # eight standard deviations
    assert link.delivered + link.dropped["loss"] == link.offered
    link.loss = 1.0
    send(a, 50, 40)
    link.loss = 0.0
    before = link.delivered
    send(a, 50, 40)
    net.run(seconds=1)
    assert link.delivered == before + 50


def test_losses_of_a_train_do_not_depend_on_where_it_begins(seed: int) -> None:
    """The draw goes by the datagram, however they are grouped."""
    outcomes = []
    for groups in ((100,), (1,) * 100, (33, 33, 34)):
        net, a, socket, _ = joined(seed, loss=0.2)
        first = 0
        for count in groups:
            a.send(1, ("10.0.0.2", 9), [n.to_bytes(4) for n in range(first, first + count)])
            first += count
        net.run(seconds=1)
        outcomes.append(numbers(socket))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_bursts(seed: int) -> None:
    bursts = GilbertElliott(enter=0.01, leave=0.25)
    net, a, socket, link = joined(seed, bursts=bursts)
    a.send(1, ("10.0.0.2", 9), [n.to_bytes(4) for n in range(60_000)])
    net.run(seconds=1)
    assert link.dropped["burst"] / 60_000 == pytest.approx(bursts.mean_loss, rel=0.4)
    arrived = numbers(socket)
    gaps = [b - a - 1 for a, b in pairwise(arrived) if b - a > 1]
    assert sum(gaps) / len(gaps) == pytest.approx(4, rel=0.4)  # independent losses would give 1.04


def test_jitter_keeps_the_order_unless_told(seed: int) -> None:
    for ordered in (True, False):
        net, a, socket, _ = joined(seed, delay=0.01, jitter=0.005, ordered=ordered)
        send(a, 100)
        net.run(seconds=1)
        assert sorted(numbers(socket)) == list(range(100))
        assert (numbers(socket) == list(range(100))) is ordered
        assert all(0.01 <= time <= 0.015 for time, _, _ in socket.endpoint.received)


def test_duplication_and_reordering(seed: int) -> None:
    net, a, socket, link = joined(seed, duplicate=0.1, reorder=0.1, reorder_delay=0.002)
    send(a, 1000, 40)
    net.run(seconds=1)
    assert 50 < link.duplicated < 200
    assert 50 < link.reordered < 200
    assert link.delivered == 1000 + link.duplicated
    assert set(numbers(socket)) == set(range(1000))
    assert {round(time, 6) for time, _, _ in socket.endpoint.received} == {0, 0.002}


def test_a_train_costs_one_event_for_each_link(seed: int) -> None:
    net, a, socket, _ = joined(seed, gro=True, delay=0.01, rate=1e9)
    send(a, 44)
    net.run(seconds=1)
    assert net.steps == 1
    ((instant, count),) = socket.endpoint.arrivals
    assert (round(instant, 9), count) == (0.010044, 44)


def test_gro_merges_what_is_equally_long_and_arrives_together(seed: int) -> None:
    net, a, socket, _ = joined(seed, gro=True)
    a.send(1, ("10.0.0.2", 9), [bytes(n) for n in (100, 100, 60, 60, 80, *[50] * 70)])
    net.run(seconds=1)
    assert [count for _, count in socket.endpoint.arrivals] == [3, 1, 2, 64, 5]


def test_long_trains_come_out_in_pieces(seed: int) -> None:
    net, a, socket, _ = joined(seed, gro=True, rate=1e6, merge_within=0.004)
    send(a, 10)
    net.run(seconds=1)
    assert [(round(t, 9), n) for t, n in socket.endpoint.arrivals] == [(0.004, 4), (0.008, 4), (0.01, 2)]


def test_the_same_seed_gives_the_same_run(seed: int) -> None:
    def outcome(value: int) -> list[tuple[float, Address, bytes]]:
        net, a, socket, _ = joined(value, loss=0.1, jitter=0.01, ordered=False, duplicate=0.1)
        send(a, 200)
        net.run(seconds=1)
        return socket.endpoint.received

    assert outcome(seed) == outcome(seed)
    assert outcome(seed) != outcome(seed + 1)


class Ticker(Recorder):
    """Wakes every 0.1 s, or as told."""

    def __init__(self, step: float = 0.1) -> None:
        super().__init__()
        self.step = step
        self.due = step
        self.woken: list[float] = []

    def next_timer(self) -> float | None:
        return self.due

    def timer_expired(self, now: float) -> None:
        self.woken.append(now)
        self.due = now + self.step


def test_timers_fire_when_due_also_when_they_move(seed: int) -> None:
    net = Network(seed)
    socket = net.host("a").bind(1, lambda _: Ticker())
    net.run(seconds=0.25)
    assert socket.endpoint.woken == pytest.approx([0.1, 0.2])
    socket.endpoint.due = 1.0  # later: the pending wake-up finds nothing due
    socket.drive()
    net.run(seconds=0.25)
    assert len(socket.endpoint.woken) == 2
    socket.endpoint.due = 0.6  # earlier
    socket.drive()
    net.run(seconds=0.15)
    assert socket.endpoint.woken[2:] == pytest.approx([0.6])


def test_an_endpoint_that_spins_is_found(seed: int) -> None:
    net = Network(seed)
    net.host("a").bind(1, lambda _: Ticker(0.0))
    with pytest.raises(SimulationStuck, match=f"seed {seed}"):
        net.run(seconds=1)


def test_run_says_whether_the_condition_came_true(seed: int) -> None:
    net, a, socket, _ = joined(seed, delay=0.5)
    send(a, 1)
    assert not net.run(until=lambda: bool(socket.endpoint.received), seconds=0.4)
    assert net.now == pytest.approx(0.4)
    assert net.run(until=lambda: bool(socket.endpoint.received), seconds=0.4)
    assert net.now == pytest.approx(0.5)


def test_what_has_nowhere_to_go_is_counted(seed: int) -> None:
    net, a, socket, _ = joined(seed)
    a.send(1, ("2001:db8::1", 9), [b"no IPv6 here"])
    a.send(1, ("10.0.0.2", 10), [b"nobody there"])
    net.run(seconds=1)
    assert a.dropped == {"no route": 1}
    assert socket.host.dropped == {"no socket": 1}


def test_loopback_needs_no_interface(seed: int) -> None:
    net = Network(seed)
    host = net.host("a")
    socket = host.bind(1, Recorder)
    host.send(2, ("127.0.0.1", 1), [b"hello"])
    host.send(2, ("::1", 1), [b"hello"])
    net.run(seconds=1)
    assert [source for _, source, _ in socket.endpoint.received] == [("127.0.0.1", 2), ("::1", 2)]


def test_overhead_is_small_enough_to_be_of_use(seed: int) -> None:
    """No bound on time, only on work: the figure is printed for who wants it (1,000,000 a second were measured)."""
    net, a, _, link = joined(seed, gro=True, delay=0.01, rate=1e9, loss=0.01)
    start = time.perf_counter()
    for _ in range(500):
        send(a, 44, 1400)
        net.run(seconds=0.001)
    print(f"{link.offered / (time.perf_counter() - start):,.0f} datagrams a second over one link")
    assert net.steps <= 500
