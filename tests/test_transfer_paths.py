"""The path changes under a transfer: NATs rebind, hosts move, disks are slow. It goes on, or says why not."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from tests.sim import Depends, Host, NatKind, Network, Ports, Socket
from tests.transfers import Peer, transfer
from udpsend.config import Role

MB = 1_000_000
REBINDING = NatKind(Depends.NOTHING, Depends.ADDRESS_AND_PORT, Ports.SEQUENTIAL)
PUBLIC = ("203.0.113.1", 20_000)
FAR = ("198.51.100.7", 5000)
WIFI, MOBILE = ("198.51.100.1", 4000), ("203.0.113.9", 4000)  # of a host that moves


def behind_nat(seed: int, role: Role, size: int) -> tuple[Network, Any, Socket[Peer], Socket[Peer]]:
    """(network, gateway, the socket behind it with `role`, the other)"""
    network = Network(seed)
    home, near, far = network.gateway("home", PUBLIC[0], REBINDING, delay=0.01), network.host("a"), network.host("b")
    home.attach(near, "192.168.1.10")
    network.internet.attach(far, FAR[0], delay=0.01, rate=2e6)
    content = Random(seed).randbytes(size)
    near.send(4000, FAR, [b"opens the mapping, as punching has"])
    a = near.bind(4000, lambda _: Peer(role, FAR, network, content, max_datagram_size=1472))
    b = far.bind(5000, lambda _: Peer(role.other, PUBLIC, network, content, max_datagram_size=1472))
    a.endpoint.drive, b.endpoint.drive = a.drive, b.drive
    return network, home, a, b


def finish(network: Network, a: Socket[Peer], b: Socket[Peer], seconds: float = 60.0) -> None:
    assert network.run(lambda: bool(a.endpoint.closed and b.endpoint.closed), seconds=seconds)
    for peer in (a.endpoint, b.endpoint):
        assert peer.closed
        assert peer.closed.error is None
    assert a.endpoint.file.content == b.endpoint.file.content


@pytest.mark.parametrize("role", list(Role))
def test_nat_rebinds(role: Role, seed: int) -> None:
    """The router restarts: from then on the side behind it has another port. Its next record says so."""
    network, home, a, b = behind_nat(seed, role, 2 * MB)
    network.run(seconds=0.5)
    received = a if role is Role.RECEIVER else b
    before = received.endpoint.file.have.total
    assert 0 < before < 2 * MB
    home.forget()
    moved = (PUBLIC[0], 20_001)
    assert network.run(lambda: b.endpoint.connection.address == moved, seconds=15)
    assert network.run(lambda: received.endpoint.file.have.total > before + 100_000, seconds=1.5)
    assert network.now < (2 if role is Role.SENDER else 12), "a receiver speaks again after 10 s at the latest"
    finish(network, a, b)
    assert b.endpoint.connection.flight.mtu.size == (1200 if role is Role.SENDER else 1472), "the path is the same"


def test_nat_rebinds_again_and_again(seed: int) -> None:
    network, home, a, b = behind_nat(seed, Role.SENDER, 2 * MB)
    for second in range(1, 11):
        network.at(0.1 * second, home.forget)
    finish(network, a, b)
    assert b.endpoint.connection.address[1] > 20_001


def on_wifi(seed: int) -> tuple[Network, Host, Host]:
    """(network, the host that will move, the host at `FAR`)"""
    network = Network(seed)
    here, there = network.host("a"), network.host("b")
    network.internet.attach(here, WIFI[0], delay=0.005, rate=20e6)
    network.internet.attach(there, FAR[0], delay=0.005)
    return network, here, there


def to_mobile(network: Network, host: Host) -> None:
    host.interfaces.clear()
    network.internet.attach(host, MOBILE[0], delay=0.05, rate=2e6)
    del network.internet.routes[WIFI[0]]


def test_the_sender_moves_to_another_network(seed: int) -> None:
    """From one address to another, as from Wi-Fi to a mobile network: the path is measured anew."""
    network, here, there = on_wifi(seed)
    content = Random(seed).randbytes(4 * MB)
    a = here.bind(4000, lambda _: Peer(Role.SENDER, FAR, network, content, max_datagram_size=1472))
    b = there.bind(5000, lambda _: Peer(Role.RECEIVER, WIFI, network, content))
    network.run(seconds=0.15)
    before = b.endpoint.file.have.total
    assert 0 < before < 4 * MB
    to_mobile(network, here)
    finish(network, a, b)
    assert b.endpoint.connection.address == MOBILE


def test_the_receiver_moves_to_another_network(seed: int) -> None:
    network, here, there = on_wifi(seed)
    content = Random(seed).randbytes(4 * MB)
    b = there.bind(5000, lambda _: Peer(Role.SENDER, WIFI, network, content, max_datagram_size=1472))
    a = here.bind(4000, lambda _: Peer(Role.RECEIVER, FAR, network, content))
    b.drive()
    network.run(lambda: a.endpoint.file.have.total > MB, seconds=15)
    to_mobile(network, here)
    finish(network, a, b)
    assert b.endpoint.connection.address == MOBILE


def test_a_disk_that_is_behind(seed: int) -> None:
    """The sink is full for a while, many times: records that find no room are sent again, nothing is lost."""
    running = transfer(seed, 2 * MB, delay=0.01, rate=10e6, queue=200e3)
    receiver = running.receiver

    def full() -> None:
        receiver.file.full = True

    def room() -> None:
        receiver.file.full = False
        if not receiver.closed:
            receiver.connection.room_again(running.network.now)
            receiver.drive()

    for turn in range(10):
        running.network.at(0.1 + 0.4 * turn, full)
        running.network.at(0.3 + 0.4 * turn, room)
    running.run(60)
    running.assert_verified()
    assert hashlib.sha256(receiver.file.content).digest() == hashlib.sha256(running.sender.file.content).digest()


def test_a_disk_that_asks_for_what_there_is_says_nothing(seed: int) -> None:
    """On a slow path it does for each record. Nobody waits, so nobody is told."""
    running = transfer(seed, MB // 4, delay=0.01, rate=100e3, queue=50e3)
    receiver = running.receiver
    write, records = receiver.file.write, 0

    def asks() -> None:
        if not receiver.closed:
            receiver.connection.room_again(running.network.now)
            receiver.drive()

    def watched(offset: int, size: int) -> int:
        nonlocal records
        records += 1
        running.network.after(0.004, asks)
        return write(offset, size)

    receiver.file.write = watched  # type: ignore[method-assign]
    running.run(60)
    running.assert_verified()
    assert receiver.connection.flight.next_number < 0.7 * records


@pytest.mark.parametrize("delay", [0.002, 0.01])
def test_what_finds_no_room_is_not_taken_for_damaged(delay: float, seed: int) -> None:
    """All its datagrams arrived, as those of records with forged fragments, after which a thousand are single."""
    running = transfer(seed, 10 * MB, delay=delay, rate=50e6, queue=1e6)
    receiver, sender = running.receiver, running.sender.connection.flight
    assert running.network.run(lambda: receiver.file.written > MB, seconds=5)
    receiver.file.full = True
    running.network.run(seconds=0.3)
    receiver.file.full = False
    receiver.connection.room_again(running.network.now)
    receiver.drive()
    running.run(10)
    running.assert_verified()
    assert sender.records_lost > 3
    assert sender.next_number < 500


def test_a_disk_that_is_full_for_long_keeps_the_path(seed: int) -> None:
    running = transfer(seed, MB, delay=0.01, rate=10e6, queue=200e3)
    receiver = running.receiver
    running.network.run(lambda: receiver.file.written > 100_000, seconds=5)
    receiver.file.full = True
    running.network.run(seconds=100)
    assert not receiver.closed
    assert not running.sender.closed
    sent = running.sender.connection.flight.bytes_sent
    assert sent < MB + 100 * 65_507, "a receiver without room is asked with a record a second, not flooded"
    receiver.file.full = False
    receiver.connection.room_again(running.network.now)
    receiver.drive()
    running.run(30)
    running.assert_verified()


def test_keep_alives_come_more_often_where_a_mapping_lives_shorter(seed: int) -> None:
    """Both sides have nothing to say while the receiver hashes for a minute, and mappings live 2 s."""
    network, home, a, b = behind_nat(seed, Role.SENDER, 300_000)
    home.nat = replace(REBINDING, lifetime=2.0)
    b.endpoint.hash_time = 60.0
    assert network.run(lambda: b.endpoint.file.have.total == 300_000, seconds=15)
    network.run(seconds=20)
    port = b.endpoint.connection.address[1]
    assert port > PUBLIC[1], "the first keep-alive came too late"
    network.run(seconds=35)
    assert b.endpoint.connection.address[1] == port, "those after it did not"
    finish(network, a, b)
