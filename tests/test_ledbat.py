"""LEDBAT++ with literal round trips."""

from __future__ import annotations

import pytest

from udpsend.transfer.congestion.base import AckedSample, LostSample
from udpsend.transfer.congestion.ledbat import SLOWDOWN_PAUSE, BaseDelay, Ledbat
from udpsend.transfer.rtt import RttEstimator
from udpsend.transfer.sent_records import SentRecord

SIZE = 1000


class Path:
    """Feeds a controller a window in each round trip; `queueing` seconds are added to the base."""

    def __init__(self, base: float = 0.1) -> None:
        self.ledbat = Ledbat(SIZE)
        self.base = base
        self.now = 0.0
        self.number = 0
        self.rtt = RttEstimator(base)

    def round(self, queueing: float = 0.0, *, app_limited: bool = False) -> None:
        round_trip = self.base + queueing
        datagrams = max(1, int(self.ledbat.window // SIZE))
        self.now += round_trip
        self.rtt.update(round_trip, 0.0)
        for i in range(datagrams):
            self.ledbat.on_acked(
                AckedSample(
                    now=self.now,
                    acked_bytes=SIZE,
                    newest_acked=self.number + i,
                    newest_sent_time=self.now - round_trip,
                    largest_sent=self.number + 2 * datagrams,
                    bytes_in_flight=datagrams * SIZE,
                    rtt=self.rtt,
                    rtt_sample=round_trip,
                    rate=None,
                    app_limited=app_limited,
                    delivered=0,
                )
            )
        self.number += datagrams

    def lose(self, count: int = 1, *, persistent: bool = False) -> None:
        records = [SentRecord(i, self.now, SIZE, 1, SIZE, True) for i in range(count)]
        in_flight = int(self.ledbat.window)
        self.ledbat.on_lost(LostSample(self.now, count * SIZE, self.now, in_flight, persistent, records))


def grown(datagrams: int, base: float = 0.1) -> Path:
    path = Path(base)
    while path.ledbat.window < datagrams * SIZE:
        path.round()
    return path


def test_the_base_is_the_shortest_of_ten_minutes() -> None:
    base = BaseDelay()
    base.update(0.05, 0.0)
    for minute in range(1, 10):
        base.update(0.08, minute * 60.0)
        assert base.value == 0.05
    base.update(0.08, 600.0)
    assert base.value == 0.08
    base.update(0.06, 610.0)
    assert base.value == 0.06


def test_slow_start_ends_with_the_queue_and_a_slowdown_follows() -> None:
    path = grown(60)
    path.round(queueing=0.05)
    path.round(queueing=0.05)
    for _ in range(4):
        path.round(queueing=0.05)
        if path.ledbat.window == 2 * SIZE:
            break
    assert path.ledbat.window == 2 * SIZE


def test_slowdowns_are_a_tenth_of_the_time() -> None:
    path = grown(60)
    low = total = 0
    for _ in range(600):
        path.round(queueing=0.012 if path.ledbat.window > 50 * SIZE else 0.0)
        total += 1
        low += path.ledbat.window <= 2 * SIZE
    assert 0 < low / total < 0.1
    assert SLOWDOWN_PAUSE == 9


def test_it_yields_to_a_queue() -> None:
    path = grown(60)
    path.ledbat._threshold = path.ledbat.window
    path.ledbat._first_slow_start = False
    window = path.ledbat.window
    for _ in range(12):
        path.round(queueing=0.08)
    assert path.ledbat.window < window / 4


def test_it_gives_up_what_waits_beyond_the_target_and_that_once_for_a_flight() -> None:
    path = grown(60)
    path.ledbat._threshold = window = path.ledbat.window
    path.ledbat._first_slow_start = False
    for _ in range(3):  # until the least of two round trips has it
        path.round(queueing=0.0185)
    assert path.ledbat.window == pytest.approx(window * (1 - 0.006 / 0.1185), rel=0.02), "the target is 12.5 ms"
    assert path.ledbat._threshold <= path.ledbat.window, "slow start would take it back at once"


@pytest.mark.parametrize(("base", "target"), [(0.01, 0.004), (0.08, 0.01), (0.4, 0.05), (1.0, 0.06)])
def test_the_target_fits_short_buffers(base: float, target: float) -> None:
    path = Path(base)
    path.round()
    assert path.ledbat._target == pytest.approx(target)


def test_a_window_that_is_not_used_does_not_grow() -> None:
    path = grown(20)
    window = path.ledbat.window
    for _ in range(5):
        path.round(app_limited=True)
    assert path.ledbat.window == window


def test_losses() -> None:
    path = grown(60)
    window = path.ledbat.window
    path.lose()
    assert path.ledbat.window == window, "next to an empty queue"
    path.lose(20)
    assert path.ledbat.window == window / 2, "a massive one counts all the same"
    path.lose(20)
    assert path.ledbat.window == window / 2, "once for each flight"
    path.round()
    path.lose(1, persistent=True)
    assert path.ledbat.window == 2 * SIZE


def test_a_loss_next_to_a_queue_halves() -> None:
    path = grown(60)
    for _ in range(3):
        path.round(queueing=0.05)
    path.ledbat.window = 40.0 * SIZE
    path.lose()
    assert path.ledbat.window == 20 * SIZE


def test_a_mistaken_loss_is_borne() -> None:
    path = grown(20)
    path.ledbat.on_spurious_loss(0.0)
    assert path.ledbat.window >= 20 * SIZE
