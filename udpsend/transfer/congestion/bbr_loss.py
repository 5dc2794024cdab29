"""What BBR makes of losses (draft-ietf-ccwg-bbr-06, section 5.5.10): is this congestion, and how little delivers still?

The draft takes every loss for congestion where it does not probe, and more than 2 % where it does: on a path that
loses 3 % at random it ends in the single percents of the rate. Here the *residual* loss is learned: what is lost in
rounds whose round trips show an empty queue is not lost for lack of room. Only what goes beyond it, and beyond its
statistical noise, counts. Losses next to an empty queue count when they are massive (a shallow buffer, a policer):
too high a rate makes them grow with it, and chance does not.
"""

from __future__ import annotations

from math import sqrt

from udpsend.transfer.delivery_rate import RateSample

INFINITY = float("inf")

LOSS_THRESHOLD = 0.02
BETA = 0.7
MASSIVE_LOSS = 0.12  # with an empty queue: ProbeBW_UP overshoots a rate limit by a fifth, chance rarely does this
MIN_RESIDUAL = 0.0005
MAX_RESIDUAL = 0.1
RESIDUAL_MEMORY = 7 / 8  # for each quiet round
NOISE = 2.0  # standard deviations


class LossModel:
    def __init__(self) -> None:
        self.bandwidth_short = INFINITY
        """The draft's bw_shortterm."""
        self.inflight_short = INFINITY
        self.bandwidth_latest = 0.0
        """The best delivery rate of this round trip."""
        self.inflight_latest = 0
        self.in_round = False
        """Something was lost in this round trip."""
        self.events = 0
        """Discontiguous losses in this round trip."""
        self.round_start = False
        self.residual = 0.0
        self.quiet = True
        """The queue was empty at some time in the last round trip."""
        self._round_end = 0
        self._last_number = -2
        self._round_rtt = INFINITY
        self._round_lost = 0
        self._round_delivered = 0
        self._quiet_lost = 0.0
        self._quiet_sent = 0.0

    # signals

    def on_rate(self, rate: RateSample, delivered: int) -> None:
        self.bandwidth_latest = max(self.bandwidth_latest, rate.rate)
        self.inflight_latest = max(self.inflight_latest, rate.delivered)
        self.round_start = rate.prior_delivered >= self._round_end
        if self.round_start:
            self._round_end = delivered

    def on_ack_done(self, rate: RateSample) -> None:
        """After everything else that an acknowledgement does."""
        if self.round_start:
            self.bandwidth_latest = rate.rate
            self.inflight_latest = rate.delivered
            self.in_round = False
            self.events = 0

    def on_lost(self, number: int, delivered: int) -> None:
        if not self.in_round:
            self._round_end = delivered
            self.in_round = True
        if number != self._last_number + 1:
            self.events += 1
        self._last_number = number

    def reset_signals(self) -> None:
        self.in_round = False
        self.events = 0
        self.bandwidth_latest = 0.0
        self.inflight_latest = 0

    # residual loss

    def on_round_trip(self, sample: float) -> None:
        if sample < self._round_rtt:
            self._round_rtt = sample

    def end_round(self, lost: int, delivered: int, quiet_rtt: float, datagram_size: int) -> None:
        """A packet-timed round trip is over; counts since the start of the connection."""
        was_quiet, self.quiet = self.quiet, self._round_rtt <= quiet_rtt
        if self.quiet and was_quiet:  # a round's losses are found in the next
            newly_lost = max(0, lost - self._round_lost)
            self._quiet_lost = self._quiet_lost * RESIDUAL_MEMORY + newly_lost
            self._quiet_sent = self._quiet_sent * RESIDUAL_MEMORY + newly_lost + delivered - self._round_delivered
            if self._quiet_sent:
                # Of few datagrams one is a large part: a hundred stand for what is not known yet.
                known = max(self._quiet_sent, 100.0 * datagram_size)
                residual = min(MAX_RESIDUAL, self._quiet_lost / known)
                self.residual = residual if residual >= MIN_RESIDUAL else 0.0
        self._round_rtt = INFINITY
        self._round_lost = lost
        self._round_delivered = delivered

    def _excess(self, lost: float, inflight: float, datagram_size: int) -> float:
        """Bytes lost beyond what is lost anyway."""
        if not self.residual:
            return lost
        expected = self.residual * inflight
        return lost - expected - (NOISE * sqrt(expected / datagram_size) + 1) * datagram_size

    def is_too_high(self, lost: float, inflight: float, datagram_size: int, quiet: bool) -> bool:
        """`lost` bytes since a record was sent that brought the bytes in flight to `inflight`."""
        threshold = MASSIVE_LOSS if quiet else LOSS_THRESHOLD
        return self._excess(lost, inflight, datagram_size) > threshold * inflight

    # the short-term bounds

    def adapt(self, rate: RateSample, lost: int, max_bandwidth: float, window: float, datagram_size: int) -> None:
        """At the end of a round trip with losses, in which more was not tried for."""
        if self.quiet or self._excess(lost - rate.prior_lost, rate.prior_in_flight, datagram_size) <= 0:
            return
        if self.bandwidth_short == INFINITY:
            self.bandwidth_short = max_bandwidth
        if self.inflight_short == INFINITY:
            self.inflight_short = window
        self.bandwidth_short = max(self.bandwidth_latest, BETA * self.bandwidth_short)
        self.inflight_short = max(self.inflight_latest, BETA * self.inflight_short)

    def reset_short(self) -> None:
        self.bandwidth_short = INFINITY
        self.inflight_short = INFINITY
