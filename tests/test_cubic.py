"""CUBIC's curve and reactions (RFC 9438), and the end of slow start by HyStart++ (RFC 9406)."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.transfers import transfer
from udpsend.config import Config
from udpsend.transfer.congestion.base import AckedSample, LostSample, initial_window
from udpsend.transfer.congestion.cubic import BETA, C, Cubic, HyStart
from udpsend.transfer.rtt import RttEstimator

SIZE = 1000


@dataclass
class Path:
    """Feeds a controller one acknowledgement for each datagram, a window in each round trip."""

    cubic: Cubic
    round_trip: float = 0.1
    now: float = 0.0
    number: int = 0

    def __post_init__(self) -> None:
        self.rtt = RttEstimator(self.round_trip)

    def round(self, app_limited: bool = False, size: int = SIZE) -> None:
        datagrams = self.cubic.window // size
        last = self.number + datagrams - 1
        self.now += self.round_trip
        self.rtt.update(self.round_trip, 0.0)
        for i in range(datagrams):
            self.cubic.on_acked(self.sample(self.number + i, last + i + 1, app_limited, size))
        self.number = last + 1

    def sample(self, number: int, largest_sent: int, app_limited: bool, size: int = SIZE) -> AckedSample:
        return AckedSample(
            now=self.now,
            acked_bytes=size,
            newest_acked=number,
            newest_sent_time=self.now - self.round_trip,
            largest_sent=largest_sent,
            bytes_in_flight=self.cubic.window,
            rtt=self.rtt,
            rtt_sample=self.round_trip,
            rate=None,
            app_limited=app_limited,
            delivered=number * SIZE,
        )

    def lose(self, sent_time: float | None = None, persistent: bool = False) -> None:
        sent = self.now if sent_time is None else sent_time
        self.cubic.on_lost(LostSample(self.now, SIZE, sent, self.cubic.window, persistent))


def leave_slow_start(path: Path, window: int = 100 * SIZE) -> None:
    while path.cubic.window < window:
        path.round()
    path.lose()


def test_initial_window() -> None:
    assert Cubic(SIZE).window == initial_window(SIZE) == 10 * SIZE
    assert Cubic(1472).window == 14_720
    assert Cubic(8972).window == 2 * 8972
    assert Cubic(65_507).window == 2 * 65_507


def test_slow_start_doubles() -> None:
    path = Path(Cubic(SIZE))
    for doubled in (20, 40, 80, 160):
        path.round()
        assert path.cubic.window == doubled * SIZE


def test_nothing_grows_that_is_not_used() -> None:
    path = Path(Cubic(SIZE))
    path.round(app_limited=True)
    assert path.cubic.window == 10 * SIZE
    leave_slow_start(path)
    path.now += 1
    window = path.cubic.window
    for _ in range(20):
        path.round(app_limited=True)
    assert path.cubic.window == window


def test_a_loss_takes_three_tenths_once_for_a_flight() -> None:
    path = Path(Cubic(SIZE))
    for _ in range(4):
        path.round()
    before = path.cubic.window
    path.now += 0.01
    path.lose(sent_time=path.now - 0.05)
    assert path.cubic.window == pytest.approx(before * BETA, abs=1)
    path.now += 0.05
    path.lose(sent_time=path.now - 0.05)
    assert path.cubic.window == pytest.approx(before * BETA, abs=1), "sent before the reaction"
    path.now += 0.05
    path.lose(sent_time=path.now - 0.01)
    assert path.cubic.window == pytest.approx(before * BETA * BETA, abs=1)


def test_what_was_sent_before_a_reaction_does_not_let_it_grow() -> None:
    path = Path(Cubic(SIZE))
    leave_slow_start(path)
    window = path.cubic.window
    path.cubic.on_acked(path.sample(path.number, path.number, False))
    assert path.cubic.window == window


def test_the_curve() -> None:
    """W(t) = C (t - K)^3 + W_max: back at W_max after K seconds, flat there, steep beyond it."""
    path = Path(Cubic(SIZE))
    leave_slow_start(path, 1000 * SIZE)
    w_max = path.cubic.window / BETA / SIZE
    k = (w_max * (1 - BETA) / C) ** (1 / 3)
    path.now += 0.001
    path.round()  # its first acknowledgement starts the epoch
    start = path.now
    shape = []
    while path.now < start + 2 * k:
        path.round()
        elapsed = path.now - start
        expected = C * (elapsed + path.round_trip - k) ** 3 + w_max
        shape.append((elapsed, path.cubic.window / SIZE))
        assert path.cubic.window / SIZE == pytest.approx(expected, rel=0.03)
    at_k = min(shape, key=lambda point: abs(point[0] - k))
    assert at_k[1] == pytest.approx(w_max, rel=0.01)
    assert shape[-1][1] > 1.2 * w_max


def test_short_round_trips_grow_as_reno_would() -> None:
    """RFC 9438, 4.3: with a small window and a short round trip the Reno estimate leads."""
    path = Path(Cubic(SIZE), round_trip=0.002)
    leave_slow_start(path, 40 * SIZE)
    path.now += 0.01
    start, rounds = path.cubic.window / SIZE, 100
    for _ in range(rounds):
        path.round()
    grown = path.cubic.window / SIZE - start
    assert 0.4 * rounds < grown < 1.1 * rounds, "between 0.53 and 1 datagram in a round"


def test_fast_convergence() -> None:
    path = Path(Cubic(SIZE))
    leave_slow_start(path)
    w_max = path.cubic._w_max
    path.now += 0.3
    path.lose()  # below the last maximum: somebody else takes room
    assert path.cubic._w_max == pytest.approx(w_max * BETA * (1 + BETA) / 2, rel=0.01)


def test_a_mistaken_reaction_is_taken_back() -> None:
    path = Path(Cubic(SIZE))
    leave_slow_start(path)
    sent = path.now
    window = path.cubic.window
    path.now += 0.2
    path.round()
    path.lose()
    assert path.cubic.window < window
    path.cubic.on_spurious_loss(path.now)
    assert path.cubic.window >= window
    again = path.cubic.window
    path.cubic.on_spurious_loss(sent)
    assert path.cubic.window == again, "once"


def test_persistent_congestion_starts_from_the_bottom() -> None:
    path = Path(Cubic(SIZE))
    leave_slow_start(path)
    path.now += 1
    path.lose(persistent=True)
    assert path.cubic.window == 2 * SIZE
    path.now += 0.2
    path.round()
    assert path.cubic.window == 4 * SIZE, "slow start again"


def test_never_below_two_datagrams() -> None:
    path = Path(Cubic(SIZE))
    for _ in range(50):
        path.now += 1
        path.lose()
    assert path.cubic.window == 2 * SIZE


def test_pacing_rate() -> None:
    path = Path(Cubic(SIZE))
    assert path.cubic.pacing_rate == 0
    path.round()
    assert path.cubic.pacing_rate == pytest.approx(2 * path.cubic.window / 0.1)
    path.lose()
    assert path.cubic.pacing_rate == pytest.approx(1.25 * path.cubic.window / 0.1)


def test_a_larger_datagram_lifts_a_small_window() -> None:
    cubic = Cubic(1200)
    cubic.set_datagram_size(8972)
    assert cubic.window == 2 * 8972
    cubic.set_datagram_size(1200)
    assert cubic.window == 2 * 8972


# HyStart++


def hystart_round(path: Path, round_trip: float) -> None:
    path.round_trip = round_trip
    path.round()


def test_growing_round_trips_slow_it_down_and_end_it() -> None:
    path = Path(Cubic(SIZE))
    hystart_round(path, 0.1)
    hystart_round(path, 0.1)
    assert path.cubic.window == 40 * SIZE
    hystart_round(path, 0.113)  # more than an eighth longer, which is 12.5 ms: conservative from the eighth sample on
    assert path.cubic._hystart.in_css
    assert 40 * SIZE + 32 * SIZE / 4 < path.cubic.window < 80 * SIZE
    for _ in range(HyStart.CSS_ROUNDS - 1):
        window = path.cubic.window
        hystart_round(path, 0.113)
        assert path.cubic.window == pytest.approx(1.25 * window, rel=0.01)
    hystart_round(path, 0.113)
    assert path.cubic._threshold < float("inf")


def test_a_passing_growth_is_forgiven() -> None:
    path = Path(Cubic(SIZE))
    for round_trip in (0.1, 0.1, 0.12):
        hystart_round(path, round_trip)
    assert path.cubic._hystart.in_css
    hystart_round(path, 0.1)
    assert not path.cubic._hystart.in_css
    window = path.cubic.window
    hystart_round(path, 0.1)
    assert path.cubic.window == pytest.approx(2 * window, rel=0.01)


@pytest.mark.parametrize(("base", "ends"), [(0.01, 0.0041), (0.1, 0.0126), (0.5, 0.0161)])
def test_thresholds(base: float, ends: float) -> None:
    """An eighth of the round trip, between 4 and 16 ms."""
    for growth, in_css in ((ends, True), (ends - 0.0003, False)):
        path = Path(Cubic(SIZE))
        for round_trip in (base, base, base + growth):
            hystart_round(path, round_trip)
        assert path.cubic._hystart.in_css == in_css


# in the simulator


def test_a_bottleneck_is_filled_and_not_flooded(seed: int) -> None:
    options = {"config": Config(congestion="cubic")}
    running = transfer(seed, 10_000_000, options=options, delay=0.02, rate=5e6, queue=300e3)
    assert isinstance(running.sender.connection.flight.congestion, Cubic)
    running.run(30)
    running.assert_verified()
    assert running.network.now < 10_000_000 / 5e6 * 1.3
    lost, sent = running.there.dropped["queue"], running.there.offered
    assert lost < 0.03 * sent
