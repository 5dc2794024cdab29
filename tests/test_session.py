"""Whole sessions in virtual time: from meeting to verified, and what becomes of a transfer whose path dies."""

from __future__ import annotations

import pytest

from tests.mailroom import CODE, read_code
from tests.sessions import HOME, Sessions, two_homes
from tests.sim import (
    FULL_CONE,
    MASQUERADE_OPEN,
    PORT_RESTRICTED,
    SYMMETRIC,
    SYMMETRIC_RANDOM,
    Depends,
    NatKind,
    Ports,
)
from udpsend.config import Config, Role
from udpsend.errors import NoDirectPath, PeerNeverCame, TransferFailed
from udpsend.events import PathFound
from udpsend.punching.behaviour import MappingBehaviour, NatBehaviour
from udpsend.rendezvous.mailbox import LOCAL_NETWORK
from udpsend.session import PathMoved, Session
from udpsend.transfer.messages import Closed

SHORT_LIVED = NatKind(Depends.NOTHING, Depends.ADDRESS_AND_PORT, Ports.RANDOM, lifetime=5.0)
SLACK = 150_000  # bytes that probe timeouts and the last round trip may repeat


@pytest.mark.parametrize(
    ("first", "second", "bar"),
    [
        (HOME, HOME, 1.5),
        (MASQUERADE_OPEN, MASQUERADE_OPEN, 1.5),
        (FULL_CONE, SYMMETRIC_RANDOM, 1.5),
        (PORT_RESTRICTED, SYMMETRIC, 3.0),
        (SYMMETRIC, HOME, 3.0),
        (SYMMETRIC_RANDOM, HOME, 10.0),
        (HOME, SYMMETRIC_RANDOM, 10.0),
    ],
)
def test_from_meeting_to_verified(seed: int, first: NatKind, second: NatKind, bar: float) -> None:
    sessions = two_homes(seed, first, second, 100_000)
    sessions.run()
    sessions.assert_verified()
    for side in sessions.sides:
        assert side.met_at is not None
        assert side.found[0][0] - side.met_at < bar
        counters = side.session.counters()
        assert counters["probes, sent"] <= 4096
        assert counters["probes, bytes sent"] <= 1_000_000
        assert counters["probes, most to one unheard"] <= 32


@pytest.mark.parametrize(
    ("brokers", "up", "text"),
    [
        (1, [], "Nobody could come: within 30 s this side reached no broker, and no local network"),
        (0, [], "Nobody could come: within 30 s this side reached no broker, and no local network"),
        (1, [LOCAL_NETWORK], "This side reached no broker within 30 s, and nobody with this code came on the local"),
        (0, [LOCAL_NETWORK], "Nobody with this code came within 30 s. Start the other side"),
        (2, ["mqtt://127.0.0.1:2", LOCAL_NETWORK], "Nobody with this code came within 30 s. Start the other side"),
    ],
)
def test_nobody_is_blamed_for_not_coming_where_there_was_no_place(brokers: int, up: list[str], text: str) -> None:
    config = Config(brokers=tuple(f"mqtt://127.0.0.1:{n}" for n in range(1, brokers + 1)))
    assert text in _of_waiting_in_vain(config, up)


def test_without_a_place_to_meet_no_broker_is_spoken_of() -> None:
    assert "No text of the other side" in _of_waiting_in_vain(Config(brokers=()), [], by_hand=True)


def _of_waiting_in_vain(config: Config, up: list[str], *, by_hand: bool = False) -> str:
    session = Session(
        Role.SENDER,
        read_code(CODE),
        0.0,
        bytes,
        candidates=[],
        host_token="",
        max_datagram_size=lambda address: 1472,
        receive_buffer=212_992,
        timeout=30.0,
        by_hand=by_hand,
        config=config,
    )
    for name in up:
        session.mailbox_up(name, 1.0)
    session.timer_expired(30.0)
    event = session.next_event()
    assert isinstance(event, Closed)
    assert isinstance(event.error, PeerNeverCame)
    return str(event.error)


def test_what_is_known_of_a_nat_too_late_leaves_no_socket_behind(seed: int) -> None:
    sessions = two_homes(seed, FULL_CONE, FULL_CONE)
    sessions.run_until_bytes(1_000_000)
    side = sessions.sender
    local, port = side.socket.spare()
    known = NatBehaviour(MappingBehaviour.INDEPENDENT, ("203.0.1.1", port), local=local)
    side.session.set_behaviour(known, sessions.net.now)
    sessions.run()
    sessions.assert_verified()
    assert [*side.host.sockets] == [side.socket.port]


def test_two_symmetric_nats_are_named_with_a_remedy(seed: int) -> None:
    sessions = two_homes(seed, SYMMETRIC_RANDOM, SYMMETRIC)
    sessions.run()
    errors = [side.error for side in sessions.sides]
    assert all(isinstance(error, NoDirectPath) for error in errors)
    kinds = ["a symmetric NAT with random ports", "a symmetric NAT with sequential ports"]
    for error, (own, other) in zip(errors, (kinds, kinds[::-1]), strict=True):
        assert f"this side has {own}, the other {other}." in str(error)
        assert "IPv6" in str(error)
        assert len(str(error).splitlines()) <= 3
    for side in sessions.sides:
        assert side.met_at is not None
        assert side.closed_at is not None
        assert side.closed_at - side.met_at < 12.5


def test_one_outside_address_is_named(seed: int) -> None:
    sessions = two_homes(seed, PORT_RESTRICTED, PORT_RESTRICTED)
    for home in sessions.homes:
        home.up.down = True  # type: ignore[union-attr]
        home.down.down = True  # type: ignore[union-attr]
    sessions.run()
    assert any("None of its" in str(side.error) for side in sessions.sides)


# a path that dies


def assert_nothing_twice(sessions: Sessions, in_flight: int) -> None:
    """Beyond what was in flight, and what a link of which nobody knew how fast it is has dropped."""
    size = sessions.sender.size
    assert sessions.receiver.file.written - size <= SLACK
    assert sessions.sender.file.read_bytes - size <= in_flight + SLACK


def test_nat_that_forgets_everything(seed: int) -> None:
    sessions = two_homes(seed, HOME, HOME)
    sessions.run_until_bytes(1_000_000)
    in_flight = sessions.in_flight
    for home in sessions.homes:
        home.forget()
    sessions.run()
    sessions.assert_verified()
    assert_nothing_twice(sessions, in_flight)
    for side in sessions.sides:
        kinds = [type(event) for _, event in side.found]
        assert kinds == [PathFound, PathMoved]
        assert side.found[1][0] - side.found[0][0] < 12.0


@pytest.mark.parametrize("moving", [0, 1])
def test_another_network(seed: int, moving: int) -> None:
    """From the home to a telephone, say: another address, another NAT."""
    sessions = two_homes(seed, HOME, HOME)
    sessions.run_until_bytes(1_000_000)
    in_flight = sessions.in_flight
    side = sessions.sides[moving]
    elsewhere = sessions.net.gateway("elsewhere", "203.0.99.1", HOME, delay=0.03, rate=2e6, queue=400e3)
    side.host.interfaces.clear()
    elsewhere.attach(side.host, "192.168.99.10")
    sessions.run()
    sessions.assert_verified()
    assert_nothing_twice(sessions, in_flight)


@pytest.mark.parametrize("seconds", [4.0, 30.0, 120.0])
def test_outage_of_everything(seed: int, seconds: float) -> None:
    """Also of the mailboxes, as with a laptop that sleeps."""
    sessions = two_homes(seed, HOME, HOME)
    sessions.run_until_bytes(1_000_000)
    in_flight = sessions.in_flight
    net, home = sessions.net, sessions.homes[0]
    assert home.up is not None
    assert home.down is not None
    home.up.outage(net.now, seconds)
    home.down.outage(net.now, seconds)
    sessions.sender.cut_off()
    net.after(seconds, sessions.sender.back_again)
    back = net.now + seconds
    sessions.run()
    sessions.assert_verified()
    assert_nothing_twice(sessions, in_flight)
    assert sessions.receiver.closed_at is not None
    assert sessions.receiver.closed_at - back < 20.0


def test_a_path_that_comes_back_by_itself_needs_no_mailbox(seed: int) -> None:
    sessions = two_homes(seed, HOME, HOME)
    sessions.run_until_bytes(1_000_000)
    for side in sessions.sides:
        side.cut_off()
    home = sessions.homes[1]
    assert home.up is not None
    assert home.down is not None
    home.up.outage(sessions.net.now, 10.0)
    home.down.outage(sessions.net.now, 10.0)
    sessions.run()
    sessions.assert_verified()
    assert all(len(side.found) == 1 for side in sessions.sides)


def test_nothing_for_minutes_is_the_end(seed: int) -> None:
    sessions = two_homes(seed, HOME, HOME)
    sessions.run_until_bytes(1_000_000)
    start = sessions.net.now
    for side in sessions.sides:
        side.cut_off()
    for home in sessions.homes:
        home.down.down = True  # type: ignore[union-attr]
    sessions.run()
    assert all(isinstance(side.error, TransferFailed) for side in sessions.sides)
    assert sessions.net.now - start < 320.0
    for side in sessions.sides:
        assert side.session.counters()["probes, sent"] < 10_000


def test_mappings_of_five_seconds_live_while_the_user_thinks(seed: int) -> None:
    sessions = two_homes(seed, SHORT_LIVED, SHORT_LIVED, 100_000)
    sessions.receiver.accepts = False
    sessions.net.run(seconds=100.0)
    sessions.receiver.accept()
    sessions.receiver.socket.drive()
    sessions.run()
    sessions.assert_verified()
    assert all(len(side.found) == 1 for side in sessions.sides)


def test_a_path_on_a_socket_of_the_fan_is_found_again(seed: int) -> None:
    sessions = two_homes(seed, SYMMETRIC_RANDOM, PORT_RESTRICTED)
    sessions.run_until_bytes(1_000_000)
    in_flight = sessions.in_flight
    sessions.homes[0].forget()
    sessions.run()
    sessions.assert_verified()
    assert_nothing_twice(sessions, in_flight)
