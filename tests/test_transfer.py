"""Whole transfers over the virtual network: sizes, bad links, path MTU, and what an earlier attempt left."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sim import GilbertElliott
from tests.transfers import transfer
from udpsend.config import Config
from udpsend.errors import BadPacket
from udpsend.transfer.congestion.ledbat import Ledbat
from udpsend.transfer.messages import parse_background_untrusted, parse_limit_untrusted
from udpsend.transfer.rtt import MAX_ACK_DELAY

CLEAN: dict[str, Any] = {"delay": 0.01, "rate": 10e6, "queue": 200e3}
MB = 1_000_000

BAD_LINKS: dict[str, dict[str, Any]] = {
    "loss 20 %": {"delay": 0.01, "loss": 0.2},
    "bursts of 20 datagrams lost": {"delay": 0.01, "bursts": GilbertElliott(0.01, 0.05)},
    "every other doubled": {"delay": 0.01, "duplicate": 0.5},
    "a third held back": {"delay": 0.01, "reorder": 0.33, "reorder_delay": 0.03},
    "jitter beyond the delay": {"delay": 0.005, "jitter": 0.05, "ordered": False},
    "20 % lost, doubled, reordered": {
        "delay": 0.02,
        "loss": 0.2,
        "duplicate": 0.2,
        "reorder": 0.2,
        "reorder_delay": 0.05,
        "jitter": 0.01,
    },
    "no acknowledgement but one in five": {"delay": 0.01, "back": {"loss": 0.8}},
    "satellite": {"delay": 0.3, "rate": 1e6, "queue": 100e3, "loss": 0.01},
    "modem": {"delay": 0.1, "rate": 30e3, "queue": 20e3},
    "tiny queue": {"delay": 0.02, "rate": 5e6, "queue": 6000},
    "bloated queue": {"delay": 0.02, "rate": 1e6, "queue": 2e6},
    "MTU 1280": {"delay": 0.01, "mtu": 1280},
    "no delay at all": {"delay": 0.0},
}


@pytest.mark.parametrize("gro", [False, True])
@pytest.mark.parametrize("size", [0, 1, 2, 1147, 1148, 1159, 1160, 1161, 65_536, 65_537, 3 * MB])
def test_sizes(size: int, gro: bool, seed: int) -> None:
    running = transfer(seed, size, gro=gro, **CLEAN)
    running.run(10)
    running.assert_verified()
    assert running.receiver.file.written >= size
    assert running.sender.connection.progress == running.receiver.connection.progress == (size, size)


@pytest.mark.parametrize("gro", [False, True])
@pytest.mark.parametrize("link", BAD_LINKS.values(), ids=BAD_LINKS)
def test_bad_links(link: dict[str, Any], gro: bool, seed: int) -> None:
    running = transfer(seed, 300_000, gro=gro, **link)
    running.run(900)
    running.assert_verified()


@pytest.mark.parametrize("start", [0.05, 0.2, 0.35])
def test_outage_of_two_seconds(start: float, seed: int) -> None:
    running = transfer(seed, 3 * MB, **CLEAN)
    for link in (running.there, running.back):
        link.outage(start, 2.0)
    running.run(10)
    running.assert_verified()
    assert running.network.now < start + 2.0 + 2.5, "it takes up its work within about a second"


def test_a_clean_link_loses_and_repeats_nothing(seed: int) -> None:
    running = transfer(seed, MB, delay=0.005, rate=20e6)
    running.run(10)
    running.assert_verified()
    sender = running.sender.connection
    assert sender.flight.records_lost == 0
    assert running.receiver.file.written == MB
    assert sender.flight.recovery.sent.bytes_in_flight == 0
    assert sender.flight.bytes_sent < 1.06 * MB
    assert running.receiver.connection.flight.bytes_sent < 0.06 * MB


def test_the_link_is_used(seed: int) -> None:
    running = transfer(seed, 10 * MB, delay=0.02, rate=10e6, queue=400e3)
    running.run(10)
    running.assert_verified()
    assert running.network.now < 1.5


# path MTU


@pytest.mark.parametrize(
    ("mtu", "ceiling", "found"), [(1500, 1472, 1472), (1500, 8972, 1472), (9000, 8972, 8972), (65_535, 65_507, 65_507)]
)
def test_mtu_search(mtu: int, ceiling: int, found: int, seed: int) -> None:
    running = transfer(seed, 3 * MB, options={"max_datagram_size": ceiling}, mtu=mtu, delay=0.01, rate=3e6)
    running.run(10)
    running.assert_verified()
    assert running.sender.connection.flight.mtu.size == found


@pytest.mark.parametrize("delay", [0.001, 0.02, 0.1])
@pytest.mark.parametrize("size", [1472, 8972])
def test_black_hole(delay: float, size: int, seed: int) -> None:
    """The link's MTU drops while it runs: noticed within a second."""
    running = transfer(
        seed, 20 * MB, options={"max_datagram_size": size}, delay=delay, rate=10e6, queue=400e3, mtu=size + 28
    )
    running.network.run(seconds=1.0)
    assert running.sender.connection.flight.mtu.size == size
    for link in (running.there, running.back):
        link.mtu = 1300
    before = running.receiver.file.have.total
    assert running.network.run(lambda: running.receiver.file.have.total > before + 20_000, seconds=1.0 + 4 * delay)
    running.run(60)
    running.assert_verified()
    assert running.sender.connection.flight.mtu.size <= 1300 - 28


def test_a_probe_that_fills_the_first_window_holds_nothing_up(seed: int) -> None:
    options = {"max_datagram_size": 65_507, "round_trip": 0.0002}
    running = transfer(seed, MB, options=options, hash_time=1.0, mtu=65_535, delay=0.0001, rate=2e9, queue=1e6)
    received = running.receiver.file.have
    assert running.network.run(lambda: received.total == MB, seconds=MAX_ACK_DELAY)
    assert running.sender.connection.flight.mtu.size == 65_507


def test_an_outage_is_no_black_hole(seed: int) -> None:
    running = transfer(seed, 5 * MB, **CLEAN)
    running.there.outage(0.2, 2.0)
    running.back.outage(0.2, 2.0)
    running.run(30)
    running.assert_verified()
    assert running.sender.connection.flight.mtu.size == 1472


# an earlier attempt


def test_resume_sends_what_is_missing(seed: int) -> None:
    present = ((0, 100_000), (150_000, 150_001), (200_000, 1_000_000))
    running = transfer(seed, MB, present=present, **CLEAN)
    running.run(10)
    running.assert_verified()
    assert running.receiver.file.written == 99_999
    assert running.sender.connection.flight.bytes_sent < 130_000


def test_resume_with_everything_present(seed: int) -> None:
    running = transfer(seed, MB, present=((0, MB),), **CLEAN)
    running.run(10)
    running.assert_verified()
    assert running.receiver.file.written == 0


def test_resume_with_thousands_of_gaps(seed: int) -> None:
    """More than fit into one message: the largest are told, the rest is sent again."""
    present = tuple((start, start + 40) for start in range(0, 500_000, 100))
    running = transfer(seed, 500_000, present=present, **CLEAN)
    running.run(10)
    running.assert_verified()


@pytest.mark.parametrize(("queue", "narrows"), [(400_000, False), (300_000, True)])
def test_what_a_short_path_holds_is_found_by_the_first_loss(queue: float, narrows: bool, seed: int) -> None:
    """The receiver tells half of what its socket may hold; on a host, trains fit in as they are."""
    running = transfer(seed, 30_000_000, delay=0.00005, rate=300e6, queue=queue, options={"receive_buffer": 212_992})
    flight = running.sender.connection.flight
    widest = 0.0

    def look() -> bool:
        nonlocal widest
        widest = max(widest, flight.recovery.sent.bytes_in_flight)
        return bool(running.sender.closed and running.receiver.closed)

    assert running.network.run(look, seconds=20)
    running.assert_verified()
    assert widest > 300_000
    assert (flight.records_lost > 0) is narrows
    assert flight.window == (212_992 if narrows else 372_736)


@pytest.mark.parametrize("short", [False, True])
def test_the_limit_of_the_receiver_is_kept_by_the_sender(short: bool, seed: int) -> None:
    """On a path that is bounded by its hosts, too."""
    link: dict[str, Any] = {"delay": 0.01, "rate": 50e6, "queue": 1e6}
    if short:
        link = {"delay": 0.00005, "rate": 300e6, "queue": 400e3}
    size, limit = 10_000_000, 5e6
    running = transfer(seed, size, receiver_options={"config": Config(limit=limit)}, **link)
    running.run(60)
    running.assert_verified()
    assert 0.9 < running.network.now * limit / size < 1.2


@pytest.mark.parametrize("limit", [True, 999, -1, 5e6, "5M", [5_000_000]])
def test_a_limit_that_is_none(limit: Any) -> None:
    with pytest.raises(BadPacket, match="limit"):
        parse_limit_untrusted({"type": "accept", "limit": limit})


@pytest.mark.parametrize("side", ["options", "receiver_options"])
def test_either_side_may_have_others_come_first(side: str, seed: int) -> None:
    """Between neighbouring hosts, too, where nothing else bounds a transfer but what the receiver's socket holds."""
    link: dict[str, Any] = {"delay": 0.00005, "rate": 300e6, "queue": 400e3}
    link[side] = {"config": Config(background=True)}
    running = transfer(seed, 10_000_000, **link)
    bound: list[bool] = []

    def over() -> bool:
        bound.append(running.sender.connection.flight._peer.is_host_bound)
        return bool(running.sender.closed and running.receiver.closed)

    assert running.network.run(over, seconds=60)
    running.assert_verified()
    assert isinstance(running.sender.connection.flight.congestion, Ledbat)
    assert not any(bound)


@pytest.mark.parametrize("background", [1, "yes", None, [True]])
def test_a_wish_that_is_none(background: Any) -> None:
    with pytest.raises(BadPacket, match="background"):
        parse_background_untrusted({"type": "accept", "background": background})
