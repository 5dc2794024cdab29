"""BBR's parts with literal samples, and its states over a whole connection."""

from __future__ import annotations

from itertools import pairwise
from math import inf

import pytest

from tools.matrix.flows import Bottleneck, single
from udpsend.config import Config
from udpsend.transfer.congestion.base import AckedSample, LostSample, initial_window
from udpsend.transfer.congestion.bbr import Bbr
from udpsend.transfer.congestion.bbr_loss import BETA, LossModel
from udpsend.transfer.congestion.bbr_model import Model, State
from udpsend.transfer.congestion.bbr_path import MIN_RATE_SPAN, PathModel
from udpsend.transfer.congestion.choice import choose
from udpsend.transfer.congestion.cubic import Cubic
from udpsend.transfer.congestion.ledbat import Ledbat
from udpsend.transfer.delivery_rate import RateSample
from udpsend.transfer.rtt import RttEstimator
from udpsend.transfer.sent_records import SentRecord

SIZE = 1000


def sample_of(rate: float, prior_delivered: int = 0, *, app_limited: bool = False, prior_lost: int = 0) -> RateSample:
    return RateSample(rate, int(rate * 0.1), 0.1, app_limited, prior_delivered, int(rate * 0.1), prior_lost)


# the path


class Rounds:
    """Feeds a PathModel one sample for each round trip."""

    def __init__(self) -> None:
        self.path = PathModel()
        self.delivered = 0
        self.now = 0.0

    def round(self, rate: float, *, app_limited: bool = False) -> None:
        prior, self.delivered = self.delivered, self.delivered + 10_000
        self.now += 0.1
        sample = sample_of(rate, prior, app_limited=app_limited)
        self.path.on_rate(sample, self.delivered, self.now)
        self.path.check_full(sample, self.now)


def test_the_pipe_is_full_after_three_rounds_without_growth() -> None:
    rounds = Rounds()
    for rate in (1e5, 2e5, 4e5, 4.9e5, 4.9e5):
        rounds.round(rate)
        assert not rounds.path.full_reached
    rounds.round(4.9e5)
    assert rounds.path.full_reached


def test_what_the_sender_held_back_does_not_fill_the_pipe() -> None:
    rounds = Rounds()
    for _ in range(10):
        rounds.round(1e5, app_limited=True)
    assert not rounds.path.full_reached


def test_later_two_rounds_say_so_and_fifteen_percent_go_on() -> None:
    rounds = Rounds()
    rounds.path.set_full_reached()
    rounds.path.reset_full(1e6)
    for rate in (1.0e6, 1.2e6, 1.2e6, 1.45e6, 1.45e6):
        rounds.round(rate)
        assert not rounds.path.full_now
    rounds.round(1.45e6)
    assert rounds.path.full_now


def test_the_best_rate_of_two_cycles_counts() -> None:
    rounds = Rounds()
    rounds.round(5e6)
    rounds.path.advance_cycle()
    rounds.round(1e6)
    assert rounds.path.max_bandwidth == 5e6
    rounds.path.advance_cycle()
    rounds.round(2e6)
    assert rounds.path.max_bandwidth == 2e6
    rounds.round(1.9e6, app_limited=True)
    assert rounds.path.max_bandwidth == 2e6
    rounds.round(3e6, app_limited=True)
    assert rounds.path.max_bandwidth == 3e6, "the path gave it, however little the sender had"


def test_acknowledgements_that_run_ahead_of_a_growing_rate_are_not_aggregated() -> None:
    rounds = Rounds()
    path = rounds.path
    for rate in (1e5, 2e5, 4e5):
        path.on_acked_bytes(80_000, rate, 1e6, rounds.now)
        path.on_acked_bytes(80_000, rate, 1e6, rounds.now + 0.01)
        assert path.extra_acked == 0
        rounds.round(rate)
    rounds.round(4e5)
    path.on_acked_bytes(1000, 4e5, 1e6, rounds.now)
    assert path.extra_acked <= 1000, "what was counted while the rate grew is forgotten"
    path.on_acked_bytes(80_000, 4e5, 1e6, rounds.now + 0.01)
    assert path.extra_acked == pytest.approx(80_000)


def test_a_short_round_trip_counts_over_several() -> None:
    path = PathModel()
    path.set_full_reached()
    now, delivered = 0.0, 0
    for i in range(100):  # 1 MB/s, acknowledged a millisecond's worth at a time, every second one late
        now += 0.0005 if i % 2 else 0.0015
        delivered += 1000
        path.on_rate(RateSample(2e6, 1000, 0.0005, False, delivered - 1000, 2000, 0), delivered, now)
        if i > MIN_RATE_SPAN * 1000 + 2:
            path.advance_cycle()
    assert path.max_bandwidth == pytest.approx(1e6, rel=0.1)


def test_the_shortest_round_trip_lives_on_while_it_is_met() -> None:
    path = PathModel()
    for i in range(200):
        path.on_round_trip(0.050 if i % 40 else 0.0505, i * 0.1)
        assert not path.probe_rtt_expired
    for i in range(200, 249):
        path.on_round_trip(0.080, i * 0.1)
        assert not path.probe_rtt_expired
    path.on_round_trip(0.080, 25.1)
    assert path.probe_rtt_expired
    assert path.min_rtt == 0.050
    path.on_round_trip(0.080, 31.0)
    assert path.min_rtt == 0.080, "a longer one counts after ten seconds"


# losses


class Losses:
    """Feeds a LossModel a round trip at a time, each of 100 datagrams."""

    def __init__(self) -> None:
        self.model = LossModel()
        self.lost = 0
        self.delivered = 0

    def round(self, lost: int, *, rtt: float, cruise: float = 0.0) -> None:
        self.lost += lost * SIZE
        self.delivered += (100 - lost) * SIZE
        self.model.on_round_trip(rtt)
        self.model.end_round(self.lost, self.delivered, 0.056, SIZE, cruise)


def test_what_is_lost_next_to_an_empty_queue_is_the_path() -> None:
    losses = Losses()
    for _ in range(30):
        losses.round(3, rtt=0.05)
    assert losses.model.residual == pytest.approx(0.03, rel=0.2)
    assert not losses.model.is_too_high(6 * SIZE, 100 * SIZE, SIZE, quiet=False)
    assert losses.model.is_too_high(15 * SIZE, 100 * SIZE, SIZE, quiet=False)


def test_what_is_lost_next_to_a_queue_is_not() -> None:
    losses = Losses()
    for _ in range(30):
        losses.round(3, rtt=0.09)
    assert losses.model.residual == 0
    assert losses.model.is_too_high(3 * SIZE, 100 * SIZE, SIZE, quiet=False)
    assert not losses.model.is_too_high(2 * SIZE, 100 * SIZE, SIZE, quiet=False)


def test_massive_loss_counts_without_a_queue() -> None:
    losses = Losses()
    assert not losses.model.is_too_high(10 * SIZE, 100 * SIZE, SIZE, quiet=True)
    assert losses.model.is_too_high(13 * SIZE, 100 * SIZE, SIZE, quiet=True)


def test_what_others_impose_for_long_counts_as_the_path() -> None:
    losses = Losses()
    for _ in range(100):
        losses.round(3, rtt=0.09, cruise=100 * SIZE)
    assert losses.model.imposed == pytest.approx(0.06, rel=0.2)
    small = Losses()
    for _ in range(100):
        small.round(3, rtt=0.09, cruise=10 * SIZE)
    assert small.model.imposed == 0, "windows of ten datagrams lose that much to Reno"


@pytest.mark.parametrize(
    ("lost", "every", "is_imposed"), [(3, 4, True), (9, 8, True), (1, 10, False), (100, 60, False)]
)
def test_what_is_lost_to_bbr_is_imposed_and_what_is_lost_to_cubic_is_not(
    lost: int, every: int, is_imposed: bool
) -> None:
    """0.75 and 1.1 % in a quarter and an eighth of the rounds; 0.1 % in a tenth; bursts of a whole round."""
    losses = Losses()
    for i in range(181):
        losses.round(lost if i % every == 0 else 0, rtt=0.09, cruise=100 * SIZE)
    assert (losses.model.imposed > 0) == is_imposed


@pytest.mark.parametrize(
    ("quiet", "min_rtt", "imposed", "left"),
    [(True, 0.05, 0.0, 30_000), (False, 0.05, 0.0, 40_000), (False, 0.08, 0.0, 20_000), (False, 0.05, 0.02, 0)],
    ids=["nobody there", "a queue", "one that stays", "who does not answer losses"],
)
def test_the_room_that_is_left_to_others(quiet: bool, min_rtt: float, imposed: float, left: int) -> None:
    model = Model(SIZE, 1)
    assert model.inflight_with_headroom == inf
    for at in range(12):  # the shortest of ten seconds is a longer one
        model.path.on_round_trip(min_rtt if at else 0.05, float(at))
    assert model.path.min_rtt == min_rtt
    model.inflight_long = 100_000
    model.loss.quiet, model.loss.imposed = quiet, imposed
    assert model.inflight_with_headroom == 100_000 - left


def test_losses_bound_rate_and_window_until_the_queue_is_empty() -> None:
    losses = Losses()
    model = losses.model
    losses.round(0, rtt=0.09)
    model.on_rate(sample_of(8e5), losses.delivered)
    model.on_lost(1, losses.delivered)
    model.adapt(sample_of(8e5), 5 * SIZE, 1e6, 100e3, SIZE)
    assert model.bandwidth_short == max(8e5, BETA * 1e6)
    assert model.inflight_short == max(model.inflight_latest, BETA * 100e3)
    for _ in range(2):
        losses.round(0, rtt=0.05)
    assert model.bandwidth_short == pytest.approx(8e5 * 17 / 16)
    for _ in range(30):
        losses.round(0, rtt=0.05)
    assert model.bandwidth_short == inf
    assert model.inflight_short == inf


# the controller


def lost_sample(now: float, *records: SentRecord, persistent: bool = False, lost_before: int = 0) -> LostSample:
    size = sum(record.size for record in records)
    last = records[-1]
    return LostSample(now, size, last.time, 20_000, persistent, records, lost_before)


def record(number: int, *, in_flight: int = 100_000, lost: int = 0) -> SentRecord:
    return SentRecord(number, 1.0, SIZE, 1, SIZE, True, in_flight=in_flight, lost=lost)


class Controller:
    """A Bbr at 1 MB/s and 100 ms, an acknowledgement of 1000 bytes each millisecond."""

    def __init__(self) -> None:
        self.bbr = Bbr(SIZE, 7)
        self.rtt = RttEstimator(0.1)
        self.rtt.update(0.1, 0.0)
        self.now = 0.0
        self.delivered = 0
        self.lost = 0

    def run_until(self, wanted: State) -> None:
        while self.bbr.state is not wanted:
            self.run(0.01)
        self.run(0.1)

    def run(self, seconds: float, rate: float = 1e6) -> None:
        for _ in range(round(seconds * 1000)):
            self.now += 0.001
            self.delivered += SIZE
            prior = max(0, self.delivered - 100 * SIZE)
            sample = RateSample(rate, 100 * SIZE, 0.1, False, prior, 100 * SIZE, self.lost)
            self.bbr.on_acked(
                AckedSample(
                    now=self.now,
                    acked_bytes=SIZE,
                    newest_acked=self.delivered // SIZE,
                    newest_sent_time=self.now - 0.1,
                    largest_sent=self.delivered // SIZE + 100,
                    bytes_in_flight=100 * SIZE,
                    rtt=self.rtt,
                    rtt_sample=0.1,
                    rate=sample,
                    app_limited=False,
                    delivered=self.delivered,
                    lost=self.lost,
                )
            )


def state(bbr: Bbr) -> State:
    return bbr.state


def test_the_model_of_a_steady_path() -> None:
    controller = Controller()
    assert controller.bbr.window == initial_window(SIZE)
    controller.run(4)
    bbr = controller.bbr
    assert bbr.state in (State.DOWN, State.CRUISE, State.REFILL, State.UP)
    assert 0.85e6 <= bbr.pacing_rate <= 1.25e6
    for wanted, gain in ((State.CRUISE, 1.85), (State.UP, 2.25)):
        controller.run_until(wanted)
        assert gain * 97_000 <= bbr.window <= gain * 100_000 + 5_000, "what the path holds so many times, and a little"


@pytest.mark.parametrize(
    ("round_trip", "times"), [(0.001, 1), (0.02, 1), (0.05, 2.5), (0.2, 10), (2.0, 10)], ids=lambda value: f"{value:g}"
)
def test_a_long_path_begins_at_the_rate_of_a_shorter_one(round_trip: float, times: float) -> None:
    model = Model(SIZE, 1)
    model.start_pacing(round_trip, 0)
    assert model.window == pytest.approx(times * initial_window(SIZE))
    assert model.pacing_rate == pytest.approx(2.77 * times * initial_window(SIZE) / round_trip)


@pytest.mark.parametrize("before", [0, 1_000_000], ids=["first path", "another path"])
def test_a_start_that_was_too_much_is_taken_back(before: int) -> None:
    model = Model(SIZE, 1)
    model.delivered = before
    model.path.on_round_trip(0.2, 0.2)
    model.start_pacing(0.2, before)
    modest = initial_window(SIZE)
    model.check_start(before + modest)
    assert model.window == 10 * modest
    model.check_start(before + modest + 1)
    assert model.window == modest
    assert model.pacing_rate == pytest.approx(2.77 * modest / 0.2)


def test_a_lost_flight_does_not_bring_the_start_back() -> None:
    bbr, modest = Bbr(SIZE), initial_window(SIZE)
    bbr._model.path.on_round_trip(0.2, 0.2)
    bbr._model.start_pacing(0.2, 0)
    bbr.on_lost(lost_sample(1.0, *(record(number) for number in range(20))))
    assert bbr.window == modest
    bbr.on_lost(lost_sample(1.1, record(20), persistent=True, lost_before=20 * SIZE))
    bbr._restore_window()
    assert bbr.window <= 20_000 + 4 * SIZE


def test_losses_after_the_first_window_do_not_take_it_back() -> None:
    model = Model(SIZE, 1)
    model.path.on_round_trip(0.2, 0.2)
    model.start_pacing(0.2, 0)
    model.delivered = 10 * initial_window(SIZE)
    model.check_start(5 * initial_window(SIZE))
    assert model.window == 10 * initial_window(SIZE)


@pytest.mark.parametrize(("rate", "after"), [(12.5e6, 1.2), (62.5e6, 1.4)], ids=["100 Mbit/s", "500 Mbit/s"])
def test_a_long_fast_path_is_full_early_in_the_second_second(rate: float, after: float) -> None:
    network, flow, _ = single(1, delay=0.1, rate=rate, queue=0.2 * rate)
    network.run(seconds=after)
    before = flow.received
    network.run(seconds=0.8)
    assert flow.received - before >= 0.95 * 0.8 * rate


class Startup:
    """A Model at a path of 100 ms, after its first window of ten datagrams was sent."""

    def __init__(self) -> None:
        self.model = Model(SIZE, 1)
        self.model.path.on_round_trip(0.1, 0.1)
        self.model.start_pacing(0.1, 0)
        self.first = self.model.window

    def acked(self, size: int, *, rtt: float, lost: float = 0.0) -> None:
        self.model.delivered += size
        self.model.latest_rtt = rtt
        self.model.has_room = self.model.sees_room(lost, self.first)
        self.model.set_window(size)


def test_a_window_that_met_no_queue_grows_by_more_than_it_doubles() -> None:
    startup = Startup()
    for _ in range(round(startup.first / SIZE)):
        startup.acked(SIZE, rtt=0.101)
    assert startup.model.window == pytest.approx(2.77 * startup.first, rel=0.1)
    startup.model.set_pacing_rate(2.77)
    assert startup.model.pacing_rate == pytest.approx(2.77 * startup.model.window / 0.1)


@pytest.mark.parametrize(("rtt", "lost"), [(0.12, 0.0), (0.101, 0.2)], ids=["a queue", "many losses"])
def test_a_window_that_met_the_end_of_the_path_does_not(rtt: float, lost: float) -> None:
    startup = Startup()
    startup.model.path.max_bandwidth = startup.model.bandwidth = 1e6
    for _ in range(round(startup.first / SIZE)):
        startup.acked(SIZE, rtt=rtt, lost=lost * startup.first)
    assert startup.model.window == 2 * startup.first
    startup.model.set_pacing_rate(2.77)
    assert startup.model.pacing_rate == pytest.approx(2.77 * 0.99 * 1e6)


def test_room_is_looked_for_in_startup_only() -> None:
    startup = Startup()
    startup.acked(SIZE, rtt=0.1)
    assert startup.model.has_room
    startup.model.path.set_full_reached()
    startup.acked(SIZE, rtt=0.1)
    assert not startup.model.has_room


def test_a_slow_long_path_is_not_flooded_by_the_start() -> None:
    rate = 250e3
    network, flow, _ = single(1, delay=0.1, rate=rate, queue=4 * 0.2 * rate)
    network.run(seconds=8)
    assert flow.received >= 0.9 * 7.5 * rate
    assert flow.retransmitted <= 0.01


def test_a_lost_flight_begins_with_little_and_comes_back() -> None:
    controller = Controller()
    controller.run(4)
    before = controller.bbr.window
    controller.bbr.on_lost(lost_sample(controller.now, record(1), persistent=True))
    assert controller.bbr.window <= 20_000 + 4 * SIZE
    controller.run(0.05)
    assert controller.bbr.window < before / 2
    controller.run(0.1)
    assert controller.bbr.window >= before * 0.9


def test_a_mistaken_loss_is_taken_back() -> None:
    controller = Controller()
    bbr = controller.bbr
    controller.run(4)
    controller.run_until(State.UP)
    lost = [record(number) for number in range(20)]
    bbr.on_lost(lost_sample(controller.now, *lost))
    assert state(bbr) is State.DOWN
    for late in lost[:-1]:
        bbr.on_spurious_loss(late.time)
        assert state(bbr) is State.DOWN, "some of it was lost as yet"
    bbr.on_spurious_loss(lost[-1].time)
    assert state(bbr) is State.REFILL
    assert bbr._model.inflight_long == inf


def test_too_much_loss_while_probing_bounds_what_is_in_flight() -> None:
    controller = Controller()
    bbr = controller.bbr
    controller.run(4)
    controller.run_until(State.UP)
    bbr.on_lost(lost_sample(controller.now, record(1, in_flight=120_000)))
    assert state(bbr) is State.UP, "one datagram in 120"
    bbr.on_lost(lost_sample(controller.now, *(record(number, in_flight=120_000) for number in range(2, 20))))
    assert state(bbr) is State.DOWN
    assert 70_000 <= bbr._model.inflight_long <= 120_000
    controller.run(0.01)
    assert bbr.window <= bbr._model.inflight_long


def test_flows_probe_at_different_times() -> None:
    waits = set()
    for seed in range(1, 6):
        bbr = Bbr(SIZE, seed)
        bbr._probe.start_down(0.0)
        waits.add(bbr._probe._wait)
        assert 2 <= bbr._probe._wait <= 3
    assert len(waits) == 5


def test_the_choice() -> None:
    def zeros(count: int) -> bytes:
        return bytes(count)

    assert isinstance(choose(Config(), zeros)(SIZE), Bbr)
    assert isinstance(choose(Config(congestion="cubic"), zeros)(SIZE), Cubic)
    assert isinstance(choose(Config(background=True), zeros)(SIZE), Ledbat)
    assert isinstance(choose(Config(congestion="cubic", background=True), zeros)(SIZE), Ledbat)


# over a whole connection

MAY_FOLLOW = {
    State.STARTUP: {State.DRAIN, State.DOWN},
    State.DRAIN: {State.DOWN, State.CRUISE},  # through down with one acknowledgement
    State.DOWN: {State.CRUISE, State.REFILL},
    State.CRUISE: {State.REFILL},
    State.REFILL: {State.UP},
    State.UP: {State.DOWN},
    State.PROBE_RTT: {State.CRUISE, State.STARTUP},
}


def test_states_in_their_order() -> None:
    network, flow, link = single(1, delay=0.02, rate=2.5e6, queue=100e3)
    bbr = flow.flight.congestion
    assert isinstance(bbr, Bbr)
    seen = [bbr.state]
    for _ in range(16_000):
        network.run(seconds=0.0005)
        if bbr.state is not seen[-1]:
            seen.append(bbr.state)
    assert seen[:2] == [State.STARTUP, State.DRAIN]
    assert State.UP in seen
    for one, other in pairwise(seen):
        assert other in MAY_FOLLOW[one] | {State.PROBE_RTT}, (one, other)
    assert bbr._model.path.max_bandwidth == pytest.approx(link.rate, rel=0.1)
    assert bbr._model.path.min_rtt == pytest.approx(0.04, rel=0.05)


def test_the_round_trip_is_probed_where_others_keep_the_queue() -> None:
    bottleneck = Bottleneck(1, delay=0.02, rate=1.25e6, queue=150e3)
    flow = bottleneck.flow("bbr", config=Config())
    bottleneck.flow("cubic", config=Config(congestion="cubic"))
    bbr = flow.flight.congestion
    assert isinstance(bbr, Bbr)
    probed = 0.0
    for _ in range(3000):
        bottleneck.network.run(seconds=0.005)
        if bbr.state is State.PROBE_RTT:
            assert bbr.holds_back
            probed += 0.005
    assert 0.2 <= probed <= 3, "200 ms and a round trip each five seconds, and the way down to there"
