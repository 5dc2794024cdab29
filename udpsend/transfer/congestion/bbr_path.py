"""What BBR holds of the path (draft-ietf-ccwg-bbr-06, sections 5.3.1.2 and 5.5.1 to 5.5.9): round trips counted by
deliveries, the bottleneck's rate, the propagation delay, how much acknowledgements are aggregated, and whether the pipe
is full."""

from __future__ import annotations

from collections import deque
from math import inf

from udpsend.transfer.delivery_rate import MaxFilter, RateSample

# A train more or less at the end of a round trip of 1 ms is 5 % of it, and the highest sample counts: the rate of short
# round trips is also that over so many seconds, once the pipe has been full.
MIN_RATE_SPAN = 0.008
FULL_PIPE_GROWTH = 1.25
FULL_PIPE_ROUNDS = 3
# Once the pipe has been full, two rounds say so again (the draft waits for three, and each adds a quarter of the path's
# content to the queue). The first of them still tells of what was sent before; the second must show most of a quarter.
FULL_PIPE_GROWTH_LATER = 1.15
FULL_PIPE_ROUNDS_LATER = 2
PROBE_RTT_INTERVAL = 5.0  # seconds
MIN_RTT_WINDOW = 10.0  # seconds
EXTRA_ACKED_ROUNDS = 10
# A sample this close to the minimum shows an empty queue as well as one below it, and the minimum lives on: there is
# nothing that ProbeRTT could find out. (The draft takes lower ones only, and pays 2 % every five seconds.)
MIN_RTT_NEAR = 1 / 32


class PathModel:
    def __init__(self) -> None:
        self.round_count = 0
        self.round_start = False
        """The sample that was taken last began a round trip."""
        self.max_bandwidth = 0.0
        self.min_rtt = inf
        self.lowest_rtt = inf
        """Ever, where `min_rtt` is that of the last ten seconds."""
        self.extra_acked = 0.0
        self.full_now = False
        self.full_reached = False
        self.probe_rtt_expired = False
        self._round_end = 0
        self._deliveries: deque[tuple[float, int]] = deque()  # (time, delivered so far) of the last acknowledgements
        self._previous_cycle = 0.0
        self._this_cycle = 0.0
        self._min_rtt_time = 0.0
        self._recent_min_rtt = inf
        self._recent_min_rtt_time = 0.0
        self._extra_acked = MaxFilter(1)
        self._aggregation_start = 0.0
        self._aggregated = 0
        self._full_bandwidth = 0.0
        self._full_rounds = 0

    # round trips and rate

    def start_round(self, delivered: int) -> None:
        """The round ends when something that is sent from now on is acknowledged; `delivered` is the count so far."""
        self._round_end = delivered

    def on_rate(self, rate: RateSample, delivered: int, now: float) -> None:
        self.round_start = rate.prior_delivered >= self._round_end
        if self.round_start:
            self._round_end = delivered
            self.round_count += 1
        bandwidth = rate.rate
        if self.full_reached and rate.interval < MIN_RATE_SPAN:
            bandwidth = min(bandwidth, self._rate_over_span(delivered, now))
        if bandwidth >= self.max_bandwidth or not rate.app_limited:
            if bandwidth > self._this_cycle:
                self._this_cycle = bandwidth
            self.max_bandwidth = max(self._previous_cycle, self._this_cycle)

    def _rate_over_span(self, delivered: int, now: float) -> float:
        history = self._deliveries
        history.append((now, delivered))
        while len(history) > 2 and now - history[1][0] >= MIN_RATE_SPAN:
            history.popleft()
        start, before = history[0]
        span = now - start
        return (delivered - before) / span if MIN_RATE_SPAN <= span < 2 * MIN_RATE_SPAN else inf

    def advance_cycle(self) -> None:
        """One ProbeBW cycle is over: what was measured two cycles ago does not count any more."""
        self._previous_cycle, self._this_cycle = self._this_cycle, 0.0

    # propagation delay

    def on_round_trip(self, sample: float | None, now: float) -> None:
        if self._recent_min_rtt == inf:
            self._recent_min_rtt_time = self._min_rtt_time = now
        self.probe_rtt_expired = now > self._recent_min_rtt_time + PROBE_RTT_INTERVAL
        if sample is not None:
            self.lowest_rtt = min(self.lowest_rtt, sample)
            if sample < self._recent_min_rtt or self.probe_rtt_expired:
                self._recent_min_rtt = sample
                self._recent_min_rtt_time = now
            elif sample <= self._recent_min_rtt * (1 + MIN_RTT_NEAR):
                self._recent_min_rtt_time = now
        if self._recent_min_rtt <= self.min_rtt or now > self._min_rtt_time + MIN_RTT_WINDOW:
            self.min_rtt = self._recent_min_rtt
            self._min_rtt_time = self._recent_min_rtt_time

    def min_rtt_probed(self, now: float) -> None:
        self._recent_min_rtt_time = now

    # aggregation

    def on_acked_bytes(self, acked: int, bandwidth: float, window: float, now: float) -> None:
        expected = bandwidth * (now - self._aggregation_start)
        if self._aggregated <= expected:
            self._aggregated = 0
            self._aggregation_start = now
            expected = 0.0
        self._aggregated += acked
        self._extra_acked.update(self.round_count, min(self._aggregated - expected, window))
        # While the rate grows acknowledgements run ahead of what is known of it, and that is no aggregation: with it
        # Startup overran a buffer of one BDP.
        is_known = self.full_reached or self._full_rounds > 0
        self.extra_acked = self._extra_acked.value if is_known else 0.0

    def restart_aggregation(self, now: float) -> None:
        self._aggregation_start = now
        self._aggregated = 0

    # full pipe

    def reset_full(self, bandwidth: float = 0.0) -> None:
        self._full_bandwidth = bandwidth
        self._full_rounds = 0
        self.full_now = False

    def check_full(self, rate: RateSample, now: float) -> None:
        """Round trips in which sending faster did not deliver faster: the pipe is full."""
        if self.full_now or not self.round_start or rate.app_limited:
            return
        growth = FULL_PIPE_GROWTH_LATER if self.full_reached else FULL_PIPE_GROWTH
        if rate.rate >= self._full_bandwidth * growth:
            self.reset_full(rate.rate)
            if not self.full_reached:
                self._extra_acked = MaxFilter(1)
                self.restart_aggregation(now)
            return
        self._full_rounds += 1
        if self._full_rounds >= (FULL_PIPE_ROUNDS_LATER if self.full_reached else FULL_PIPE_ROUNDS):
            self.full_now = True
            self.set_full_reached()

    def set_full_reached(self) -> None:
        if not self.full_reached:
            self.full_reached = True
            self._extra_acked = MaxFilter(EXTRA_ACKED_ROUNDS)

    def clear_full_reached(self) -> None:
        """What said so was mistaken."""
        self.full_reached = False
