"""Where recovery, congestion control and the peer's window meet, with literal times."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from tests.transfers import SECRET, MemoryFile, Rogue
from udpsend.config import Role
from udpsend.transfer.congestion.base import CongestionController
from udpsend.transfer.congestion.bbr import Bbr
from udpsend.transfer.congestion.cubic import Cubic
from udpsend.transfer.congestion.ledbat import Ledbat
from udpsend.transfer.connection import Connection
from udpsend.transfer.delivery_rate import DeliveryRate
from udpsend.transfer.flight import Flight
from udpsend.transfer.sent_records import SentRecord
from udpsend.wire.datagram import Arrival
from udpsend.wire.frames import PING_FRAME, Ack, pack_ack

WINDOW = 200_000


def send(flight: Flight, now: float, count: int) -> None:
    """So many records of 50 datagrams."""
    for _ in range(count):
        flight.on_sent(SentRecord(flight.take_number(), now, 60_000, 50, 1200, True, data=(0, 1)))


def ack(flight: Flight, now: float, *ranges: tuple[int, int], window: int = WINDOW) -> None:
    """All datagrams have arrived."""
    flight.on_ack_untrusted(Ack(ranges, 0.0, flight.datagrams_sent, window), int(now * 1e6), now)


def moved_from_a_fast_path(*acknowledged: tuple[int, int]) -> Flight:
    """From 100 MB/s and 20 ms. Of 34 records these were acknowledged before."""
    flight = Flight(0.02, 1472)
    send(flight, 1.0, 34)
    ack(flight, 1.02, *acknowledged)
    assert flight.window > WINDOW
    flight.restart()
    return flight


def test_another_path_is_not_near_because_nobody_knows_its_round_trip() -> None:
    flight = moved_from_a_fast_path((33, 33), (0, 31))
    ack(flight, 1.021, (0, 33))  # the newest of it was acknowledged before: no round trip
    assert not flight._peer.is_host_bound
    assert flight._peer.limit == WINDOW


def test_another_path_is_not_as_fast_as_the_one_before() -> None:
    flight = moved_from_a_fast_path((0, 33))
    send(flight, 1.5, 1)
    ack(flight, 1.503, (34, 34))  # 20 MB/s
    assert flight._peer.limit < WINDOW + 70_000


def test_nor_is_a_near_one() -> None:
    flight = moved_from_a_fast_path((0, 33))
    send(flight, 1.5, 1)
    ack(flight, 1.5003, (34, 34))
    assert flight._peer.is_host_bound, "200 MB/s"
    flight = moved_from_a_fast_path((0, 33))
    for number in range(34, 40):  # little to say
        now = 1.5 + number / 1000
        flight.on_sent(SentRecord(flight.take_number(), now, 1200, 1, 1200, True, data=(0, 1)))
        ack(flight, now + 0.0003, (number, number))
    assert not flight._peer.is_host_bound


def test_a_window_that_comes_late_is_an_old_one() -> None:
    connection = Connection(Role.SENDER, SECRET, ("10.0.0.9", 9), 0.0, Random(1).randbytes)
    connection.offer(MemoryFile(bytes(100)), 100, {})
    list(connection.datagrams_to_send(0.0))
    rogue = Rogue(Role.RECEIVER)
    none, some = (pack_ack(Ack(((0, 0),), 0.0, 1, window)) for window in (0, WINDOW))
    records = [rogue.datagram(frames) for frames in (none, some, none, some, PING_FRAME)]

    def may_send(number: int) -> bool:
        """After this record."""
        connection.datagram_received(Arrival.of([records[number]], connection.address), 0.1)
        return connection.flight.window > 0

    assert [may_send(number) for number in (1, 0)] == [True, True]
    assert [may_send(number) for number in (2, 4)] == [False, False]
    assert may_send(3), "what came before it did not tell"
    assert connection.drops.total() == 0


@pytest.mark.parametrize("congestion", [Bbr, Cubic, Ledbat])
def test_a_clock_that_ticks_seldom_measures_round_trips_of_nothing(
    congestion: Callable[[int], CongestionController],
) -> None:
    flight = Flight(0.02, 1472, congestion)
    for tick in range(100):
        now = 1.0 + tick // 2 * 0.016
        first = flight.next_number
        send(flight, now, 10)
        ack(flight, now, *[(first + 9, first + 9)] * (tick % 5 > 0), (0, first + 5))
    assert flight.window > 0


def test_datagrams_that_are_missing_are_counted_as_lost_once() -> None:
    """Of each record of 50 that is lost one datagram is missing."""
    flight = Flight(0.02, 1472)
    send(flight, 1.0, 20)
    flight.on_ack_untrusted(Ack(((1, 4),), 0.0, 249, WINDOW), 0, 1.02)
    flight.on_ack_untrusted(Ack(((6, 9), (1, 4)), 0.0, 498, WINDOW), 1, 1.021)
    assert flight.records_lost == 2
    assert flight._delivery.lost == 2 * 60_000 // 50


def test_acknowledgements_that_come_together_make_no_path_faster() -> None:
    """What was sent within 1.9 s has not been delivered within one."""
    rate = DeliveryRate()
    times = (0.0, 0.0, 1.1, 1.3, 1.5, 1.7, 1.9)
    records = [SentRecord(number, time, 1000, 1, 1000, True) for number, time in enumerate(times)]
    for record in records[:2]:
        rate.on_sent(record, 1000 * record.number, record.time)
    rate.on_acked(records[0], 1000, 1.0)
    for record in records[2:]:
        rate.on_sent(record, 1000 * (record.number - 1), record.time)
    sample = rate.on_acked(records[-1], 6000, 2.0)
    assert sample is not None
    assert sample.delivered == 6000
    assert sample.interval == pytest.approx(1.9)
