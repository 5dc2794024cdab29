"""Pacing and record length, with literal times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpsend.transfer.pacing import BURST_TIME, SLACK, Pacer
from udpsend.transfer.record_length import FIRST_OVER, LOSS_BUDGET, MEASURED_OVER, SINGLES_AFTER_DAMAGE, RecordLength


def test_without_a_rate_nothing_waits() -> None:
    pacer = Pacer()
    for _ in range(100):
        pacer.on_sent(60_000)
        assert pacer.next_send_time(1.0) is None


def burst(pacer: Pacer, now: float) -> int:
    """Bytes that may leave at once."""
    sent = 0
    while pacer.next_send_time(now) is None:
        pacer.on_sent(1000)
        sent += 1000
    return sent


def test_the_first_burst_and_the_rate() -> None:
    pacer = Pacer()
    pacer.set_rate(1e6, 10.0)
    assert 14_000 <= burst(pacer, 10.0) <= 16_000, "the initial window of RFC 9002"
    when = pacer.next_send_time(10.0)
    assert when is not None
    assert 10.0 < when <= 10.001
    assert pacer.next_send_time(10.0) == when, "asking costs nothing"
    pacer.on_sent(5000)
    assert pacer.next_send_time(10.0) == pytest.approx(when + 0.005)
    assert pacer.next_send_time(10.003) == pytest.approx(when + 0.005)
    assert pacer.next_send_time(when + 0.005) is None


def test_idle_time_saves_up_one_burst() -> None:
    pacer = Pacer()
    pacer.set_rate(100e6, 0.0)
    burst(pacer, 0.0)
    assert 100e6 * BURST_TIME <= burst(pacer, 100.0) <= 100e6 * (BURST_TIME + 0.0001) + 1000


@given(st.floats(1e4, 1e9), st.lists(st.integers(100, 65_000), min_size=1, max_size=300))
def test_the_rate_holds(rate: float, sizes: list[int]) -> None:
    pacer = Pacer()
    pacer.set_rate(rate, 0.0)
    now = 0.0
    for size in sizes:
        now = pacer.next_send_time(now) or now
        pacer.on_sent(size)
    allowance = max(15_000, rate * BURST_TIME) + rate * 0.0001 + sizes[-1] + 1
    assert sum(sizes) <= now * rate + allowance


def test_a_new_rate_counts_from_then_on() -> None:
    pacer = Pacer()
    pacer.set_rate(1e6, 0.0)
    burst(pacer, 0.0)
    when = pacer.next_send_time(0.0)
    assert when is not None
    pacer.on_sent(10_000)
    pacer.set_rate(1e5, when + 0.005)  # 5,000 of the debt were worked off
    assert pacer.next_send_time(when + 0.005) == pytest.approx(when + 0.055)


def test_there_is_no_sleep_shorter_than_the_slack() -> None:
    pacer = Pacer()
    pacer.set_rate(1e6, 0.0)
    burst(pacer, 0.0)
    pacer.on_sent(10_000)
    when = pacer.next_send_time(0.0)
    assert when is not None
    assert pacer.next_send_time(when - 2 * SLACK) == pytest.approx(when)
    assert pacer.next_send_time(when - SLACK / 2) is None


# record length


def test_length_follows_the_rate() -> None:
    length = RecordLength()
    assert length.datagrams(0, 1452, 44) == 1
    assert length.datagrams(1452, 1452, 44) == 1
    assert length.datagrams(14_600, 1452, 44) == 10, "what fits into a train of that many bytes"
    assert length.datagrams(1e9, 1452, 44) == 44


def test_length_follows_the_loss() -> None:
    length = RecordLength()
    sent = received = 0
    for _ in range(50):
        sent, received = sent + 1000, received + 990
        length.on_ack(sent, received)
    assert length.loss == pytest.approx(0.01, rel=0.05)
    assert length.datagrams(1e9, 1452, 44) == int(LOSS_BUDGET / length.loss)
    for _ in range(60):
        sent, received = sent + 1000, received + 1000
        length.on_ack(sent, received)
    assert length.loss == 0
    assert length.datagrams(1e9, 1452, 44) == 44


def test_loss_is_measured_over_many_but_for_the_first_time() -> None:
    length = RecordLength()
    length.on_ack(FIRST_OVER - 1, 0)
    assert length.loss == 0
    length.on_ack(FIRST_OVER, FIRST_OVER // 2)
    assert length.loss == 0.25, "half of it at the first sight"
    length.on_ack(FIRST_OVER + MEASURED_OVER - 1, 0)
    assert length.loss == 0.25
    length.on_ack(FIRST_OVER + MEASURED_OVER, FIRST_OVER // 2)
    assert length.loss == 0.625


@pytest.mark.parametrize("received", [-100, 0, 500, 10_000])
def test_counts_of_a_liar(received: int) -> None:
    length = RecordLength()
    length.on_ack(100, received)
    assert 0 <= length.loss <= 1
    assert 1 <= length.datagrams(1e9, 1452, 44) <= 44


def test_forged_fragments_bring_it_to_one() -> None:
    """Every datagram arrived, and still records were lost."""
    length = RecordLength()
    for _ in range(3):
        length.on_record_lost()
    length.on_ack(1000, 1000)
    for _ in range(SINGLES_AFTER_DAMAGE):
        assert length.datagrams(1e9, 1452, 44) == 1
    assert length.datagrams(1e9, 1452, 44) == 44
