"""Where recovery, congestion control and the peer's window meet, with literal times."""

from __future__ import annotations

from udpsend.transfer.flight import Flight
from udpsend.transfer.sent_records import SentRecord
from udpsend.wire.frames import Ack

WINDOW = 200_000


def send(flight: Flight, now: float, count: int) -> None:
    """So many records of 50 datagrams."""
    for _ in range(count):
        flight.on_sent(SentRecord(flight.take_number(), now, 60_000, 50, 1200, True, data=(0, 1)))


def ack(flight: Flight, now: float, *ranges: tuple[int, int], window: int = WINDOW) -> None:
    """All datagrams have arrived."""
    flight.on_ack_untrusted(Ack(ranges, 0.0, flight.datagrams_sent, window), now)


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
