"""Acknowledgements: what they name, when they leave, and what is remembered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from udpsend.transfer.acks import MAX_RANGES, AckTracker
from udpsend.transfer.rtt import MAX_ACK_DELAY
from udpsend.wire.frames import MAX_ACK_RANGES


def tracker(*numbers: int) -> AckTracker:
    made = AckTracker()
    for number in numbers:
        made.record_received(number, True, 1.0)
    return made


def test_one_waits_a_little_for_the_next() -> None:
    made = tracker(0)
    assert made.timer() == 1.0 + MAX_ACK_DELAY
    made.record_received(1, True, 1.01)
    assert made.timer() == 1.01
    ack = made.take_ack(2, 1000, 1.02)
    assert ack.ranges == ((0, 1),)
    assert round(ack.delay, 6) == 0.01
    assert (ack.datagrams, ack.window) == (2, 1000)
    assert made.timer() is None


def test_a_gap_is_told_at_once() -> None:
    made = tracker(0)
    made.take_ack(1, 0, 1.0)
    made.record_received(2, True, 2.0)
    assert made.timer() == 2.0
    assert made.take_ack(2, 0, 2.0).ranges == ((2, 2), (0, 0))
    made.record_received(1, True, 3.0)
    assert made.timer() == 3.0
    ack = made.take_ack(3, 0, 3.0)
    assert ack.ranges == ((0, 2),)
    assert ack.delay == 1.0, "since the newest came"


def test_acknowledgements_are_not_acknowledged() -> None:
    made = AckTracker()
    for number in range(10):
        made.record_received(number, False, 1.0)
    assert made.timer() is None
    made.record_received(10, True, 1.0)
    assert made.take_ack(11, 0, 1.0).ranges == ((0, 10),)


def test_asked_for() -> None:
    made = AckTracker()
    made.ack_now(1.0)
    assert made.timer() is None, "nothing has been received"
    made.record_received(0, False, 1.0)
    made.ack_now(2.0)
    assert made.timer() == 2.0


def test_the_newest_ranges_fit() -> None:
    ranges = tracker(*range(0, 200, 2)).take_ack(0, 0, 1.0).ranges
    assert len(ranges) == MAX_ACK_RANGES
    assert ranges[0] == (198, 198)
    assert ranges[-1] == (198 - 2 * (MAX_ACK_RANGES - 1),) * 2


@given(st.lists(st.integers(0, 300), max_size=100))
def test_ranges_are_what_was_received(numbers: list[int]) -> None:
    made, seen = AckTracker(), set[int]()
    for number in numbers:
        assert made.is_known(number) == (number in seen)
        if number not in seen:
            made.record_received(number, True, 1.0)
            seen.add(number)
    if seen:
        named = [n for first, last in made.take_ack(0, 0, 1.0).ranges for n in range(last, first - 1, -1)]
        expected = sorted(seen, reverse=True)
        assert named == expected[: len(named)]
        assert made.largest == max(seen)


def test_old_gaps_are_closed() -> None:
    made = tracker(*range(0, 4 * MAX_RANGES, 2))
    assert len(made._received) <= MAX_RANGES
    assert made._floor > 0
    assert made.is_known(1), "too late now"
    assert made.is_known(made._floor - 1)
    assert not made.is_known(4 * MAX_RANGES - 1)
