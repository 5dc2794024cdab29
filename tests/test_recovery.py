"""Loss detection, probe timeouts and round trips, with literal times (RFC 9002, sections 5 and 6)."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpsend.errors import BadPacket
from udpsend.transfer.acks import AckTracker
from udpsend.transfer.recovery import MAX_PACKET_THRESHOLD, Recovery
from udpsend.transfer.rtt import GRANULARITY, INITIAL_RTT, MAX_ACK_DELAY, RttEstimator
from udpsend.transfer.sent_records import MAX_GAPS, MAX_LOST, SentRecord
from udpsend.wire.frames import Ack


def recovery(sent: int, interval: float = 0.01, round_trip: float = 0.1) -> Recovery:
    """`sent` records, number i at the time i * interval, 1000 bytes each."""
    made = Recovery(RttEstimator(round_trip))
    for number in range(sent):
        made.on_sent(SentRecord(number, number * interval, 1000, 1, 1000, True))
    return made


def ack(made: Recovery, now: float, *ranges: tuple[int, int], delay: float = 0.0) -> list[int]:
    outcome = made.on_ack_untrusted(Ack(ranges, delay, 0, 0), made.sent.largest_sent + 1, now)
    return sorted(record.number for record in outcome.acked)


def lost(made: Recovery, now: float) -> list[int]:
    return [record.number for record in made.detect_lost(now)]


# round trips


def test_first_sample() -> None:
    rtt = RttEstimator(None)
    assert (rtt.smoothed, rtt.variation) == (INITIAL_RTT, INITIAL_RTT / 2)
    rtt.update(0.2, 0.05)
    assert (rtt.smoothed, rtt.variation, rtt.minimum) == (0.2, 0.1, 0.2), "the first is taken as it is"


def test_later_samples() -> None:
    rtt = RttEstimator(None)
    rtt.update(0.2, 0.0)
    rtt.update(0.28, 0.02)  # adjusted to 0.26
    assert rtt.variation == pytest.approx(0.75 * 0.1 + 0.25 * 0.06)
    assert rtt.smoothed == pytest.approx(0.875 * 0.2 + 0.125 * 0.26)
    assert rtt.latest == 0.28


def test_a_delay_is_not_believed_below_the_minimum_or_above_the_maximum() -> None:
    rtt = RttEstimator(None)
    rtt.update(0.2, 0.0)
    rtt.update(0.21, 0.02)  # 0.19 would be less than the minimum
    assert rtt.smoothed == pytest.approx(0.875 * 0.2 + 0.125 * 0.21)
    rtt = RttEstimator(None)
    rtt.update(0.2, 0.0)
    rtt.update(2.0, 1.0)
    assert rtt.smoothed == pytest.approx(0.875 * 0.2 + 0.125 * (2.0 - MAX_ACK_DELAY))


def test_a_clock_that_stands_still() -> None:
    rtt = RttEstimator(None)
    rtt.update(0.0, 0.0)
    assert 0 < rtt.smoothed < 1e-5
    assert 1 / rtt.smoothed > 0
    assert rtt.loss_delay == GRANULARITY
    assert rtt.probe_timeout == pytest.approx(GRANULARITY + MAX_ACK_DELAY, abs=1e-5)


def test_a_record_that_asks_for_no_acknowledgement_is_no_sample() -> None:
    """The delay that is told is that of the newest record, of whose sending nothing is kept here."""
    made = recovery(2)
    outcome = made.on_ack_untrusted(Ack(((0, 2),), 0.0, 0, 0), 3, 0.5)
    assert len(outcome.acked) == 2
    assert outcome.rtt_sample is None


def test_an_acknowledgement_that_comes_late_takes_nothing_back() -> None:
    made = recovery(6)
    assert ack(made, 0.2, (4, 4)) == [4]
    assert ack(made, 0.2, (0, 0)) == [0]
    assert made.largest_acked == 4
    assert lost(made, 0.2) == [1, 2]


def test_probe_timeout_and_loss_delay() -> None:
    rtt = RttEstimator(0.1)
    assert rtt.probe_timeout == pytest.approx(0.1 + 4 * 0.05 + 0.025)
    assert rtt.loss_delay == pytest.approx(0.1125)


# loss


def test_packet_threshold() -> None:
    made = recovery(10)
    assert ack(made, 0.11, (0, 0)) == [0]
    assert lost(made, 0.11) == []
    assert ack(made, 0.131, (3, 3)) == [3]
    assert lost(made, 0.131) == [], "1 and 2 are fewer than 3 behind"
    assert ack(made, 0.141, (4, 4)) == [4]
    assert lost(made, 0.141) == [1]
    assert ack(made, 0.151, (5, 5)) == [5]
    assert lost(made, 0.151) == [2]


def test_time_threshold() -> None:
    made = recovery(3)  # 2 was sent at 0.02
    assert ack(made, 0.12, (2, 2)) == [2]
    assert made.rtt.latest == pytest.approx(0.1)
    # 9/8 of 0.1 s after they were sent
    assert lost(made, 0.112) == []
    assert made.timer() == pytest.approx(0.1125)
    assert not made.on_timer(0.1125), "this timer is for losses, not for a probe"
    assert lost(made, 0.1126) == [0]
    assert made.timer() == pytest.approx(0.1225)
    assert lost(made, 0.1226) == [1]
    assert made.timer() is None, "nothing is outstanding"


def test_what_was_sent_after_the_newest_acknowledged_is_not_lost() -> None:
    made = recovery(10)
    ack(made, 5.0, (2, 2))
    assert lost(made, 100.0) == [0, 1]
    assert [record.number for record in made.sent] == list(range(3, 10))


def test_bytes_in_flight() -> None:
    made = recovery(10)
    assert made.sent.bytes_in_flight == 10_000
    ack(made, 0.2, (4, 5), (1, 1))
    assert made.sent.bytes_in_flight == 7000
    assert lost(made, 0.2) == [0, 2, 3]
    assert made.sent.bytes_in_flight == 4000
    ack(made, 0.3, (0, 9))
    assert made.sent.bytes_in_flight == 0


def test_reordering_is_learned() -> None:
    made = recovery(20, interval=0.001)
    ack(made, 0.105, (5, 5))
    assert lost(made, 0.105) == [0, 1, 2]
    outcome = made.on_ack_untrusted(Ack(((10, 10), (0, 5)), 0, 0, 0), 20, 0.11)
    assert [record.number for record in outcome.spurious] == [0, 1, 2]
    # 0 came when 10 had: 11 behind is the threshold now
    ack(made, 0.117, (17, 17))
    assert lost(made, 0.117) == [6]
    for _ in range(3):
        made.on_ack_untrusted(Ack(((17, 17),), 0, 0, 0), 20, 0.118)
    assert made._packet_threshold == 11


def test_the_threshold_has_a_limit() -> None:
    made = recovery(2000, interval=0.0)
    ack(made, 0.1, (3, 3))
    assert lost(made, 0.1) == [0]
    made.on_ack_untrusted(Ack(((1999, 1999), (0, 3)), 0, 0, 0), 2000, 0.1)
    assert made._packet_threshold == MAX_PACKET_THRESHOLD


def test_only_some_of_the_lost_are_remembered() -> None:
    made = recovery(MAX_LOST + 100, interval=0.0)
    ack(made, 0.1, (MAX_LOST + 99, MAX_LOST + 99))
    assert len(lost(made, 1.0)) == MAX_LOST + 99
    assert len(made.sent._lost) == MAX_LOST
    outcome = made.on_ack_untrusted(Ack(((0, MAX_LOST + 99),), 0, 0, 0), MAX_LOST + 100, 1.0)
    assert len(outcome.spurious) == MAX_LOST


@pytest.mark.parametrize("eliciting", [1, 50])
def test_what_is_remembered_of_a_long_lossy_run_is_bounded(seed: int, eliciting: int) -> None:
    """One record in twenty is lost; one in so many asks for an acknowledgement, the others leave gaps all the same."""
    random = Random(seed)
    made, peer, count = recovery(0), AckTracker(), 60_000
    dropped, found = [], []
    for number in range(count):
        now, asks = number * 1e-4, number % eliciting == 0
        if asks:
            made.on_sent(SentRecord(number, now, 1000, 1, 1000, True))
        if random.random() < 0.05:
            dropped += [number] * asks
            continue
        peer.record_received(number, asks, now)
        if asks:
            made.on_ack_untrusted(peer.take_ack(0, 1, now), number + 1, now)
            found += lost(made, now)
        assert len(made.sent._acknowledged) <= MAX_GAPS
    assert found == [number for number in dropped if number <= found[-1]]
    assert len(dropped) - len(found) <= 3
    late = list(made.sent._lost)[-MAX_LOST // eliciting :]
    outcome = made.on_ack_untrusted(Ack(((late[0], late[-1]),), 0, 0, 0), count, now)
    assert [record.number for record in outcome.spurious] == late


def test_what_is_on_its_way_is_no_gap_to_be_closed() -> None:
    made = recovery(4 * MAX_GAPS, interval=0.0)
    for number in range(2, 4 * MAX_GAPS, 2):
        made.on_ack_untrusted(Ack(((number, number),), 0, 0, 0), 4 * MAX_GAPS, 0.1)
    assert ack(made, 0.1, (0, 4 * MAX_GAPS - 1)) == [0, *range(1, 4 * MAX_GAPS, 2)]
    assert made.sent.bytes_in_flight == 0


def test_acknowledging_what_was_never_sent() -> None:
    made = recovery(3)
    with pytest.raises(BadPacket, match="not sent"):
        ack(made, 0.1, (0, 3))
    assert made.sent.bytes_in_flight == 3000


def test_a_range_is_named_again_and_again() -> None:
    made = recovery(5)
    assert ack(made, 0.1, (0, 3)) == [0, 1, 2, 3]
    samples = made.rtt.smoothed
    assert ack(made, 9.0, (0, 3)) == []
    assert made.rtt.smoothed == samples, "no sample without news"


def test_no_sample_from_old_news() -> None:
    made = recovery(5)
    ack(made, 0.14, (4, 4))
    before = made.rtt.smoothed
    assert ack(made, 0.5, (4, 4), (0, 2)) == [0, 1, 2]
    assert made.rtt.smoothed == before, "the newest of them is not the newest acknowledged"


# probes


def test_probe_timeout_and_its_backoff() -> None:
    made = recovery(1, round_trip=0.04)
    first = 0.04 + 4 * 0.02 + 0.025  # 0.145
    assert made.timer() == pytest.approx(first)
    assert not made.on_timer(first - 0.001)
    assert made.on_timer(first)
    now = first
    for backoff in (2, 4):
        assert made.timer() == pytest.approx(now + backoff * first)
        now += backoff * first
        assert made.on_timer(now)
    for _ in range(30):
        assert made.timer() == pytest.approx(now + 1.0), "an outage ends unannounced"
        now += 1.0
        assert made.on_timer(now)
    ack(made, now, (0, 0))
    assert made.timer() is None
    assert made.probe_count == 0


def test_a_path_slower_than_a_second_is_given_its_time() -> None:
    made = recovery(1, round_trip=2.0)
    assert made.timer() == pytest.approx(2.0 + 4.0 + 0.025)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=30), st.randoms(use_true_random=False))
def test_flight_adds_up(acks: list[tuple[int, int]], random: object) -> None:
    made = recovery(0)
    now, number = 0.0, 0
    for first, length in acks:
        for _ in range(5):
            made.on_sent(SentRecord(number, now, 100 + number, 1, 100, True))
            number += 1
        now += 0.03
        last = min(first + length, number - 1)
        if first <= last:
            ack(made, now, (first, last))
        made.detect_lost(now)
        assert made.sent.bytes_in_flight == sum(record.size for record in made.sent) >= 0
        assert [r.number for r in made.sent] == sorted(r.number for r in made.sent)
        timer = made.timer()
        assert (timer is None) == (len(made.sent) == 0)
