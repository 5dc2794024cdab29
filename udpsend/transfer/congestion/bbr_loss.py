"""What BBR makes of losses (draft-ietf-ccwg-bbr-06, section 5.5.10): is this congestion, and how little delivers still?

The draft takes every loss for congestion where it does not probe, and more than 2 % where it does: on a path that
loses 3 % at random it ends in the single percents of the rate. Here the *residual* loss is learned: what is lost in
rounds whose round trips show an empty queue is not lost for lack of room. Only what goes beyond it, and beyond its
statistical noise, counts. Losses next to an empty queue count when they are massive (a shallow buffer, a policer):
too high a rate makes them grow with it, and chance does not. And what is lost of a flow that cruises, for dozens of
rounds, is somebody else's doing who does not answer losses (BBR version 1 in a short buffer): yielding ends nothing.
"""

from __future__ import annotations

from math import inf, sqrt

from udpsend.transfer.delivery_rate import RateSample

LOSS_THRESHOLD = 0.02
BETA = 0.7
MASSIVE_LOSS = 0.12  # with an empty queue: ProbeBW_UP overshoots a rate limit by a fifth, chance rarely does this
MIN_RESIDUAL = 0.0005
MAX_RESIDUAL = 0.15
# Next to CUBIC a flow that cruises loses a thousandth or two, next to BBR 0.005 and more.
MIN_IMPOSED = 0.005
RENO_LOSS = 5.0  # and where windows of n datagrams are small about 1.5 / n² (RFC 5348, 3.1)
# In so many rounds at least: the overshoot of a start is lost in one or two, and stands out for dozens where they are
# small (10 Mbit/s x 40 ms beside CUBIC: 85 % of the path if that counts). Next to BBR 6 to 90 % of them lose.
IMPOSED_ROUNDS = 0.05
IMPOSED_PEAK = 2.0  # single rounds, times the mean
QUIET_MEMORY = 7 / 8  # for each quiet round
STEADY_MEMORY = 63 / 64  # for each round of cruising
# Two rounds with an empty queue show that there is room: the short-term bounds give way (the draft keeps them until the
# next probe, up to three seconds).
RELEASE = 17 / 16
NOISE = 2.0  # standard deviations


class DecayingShare:
    """What part of the bytes of the last rounds was lost, or what part of the rounds had losses."""

    def __init__(self, memory: float) -> None:
        self._memory = memory
        self._lost = 0.0
        self._sent = 0.0

    def update(self, lost: float, sent: float, least: float) -> float:
        """`least`: bytes at least that the share is taken of."""
        self._lost = self._lost * self._memory + lost
        self._sent = self._sent * self._memory + sent
        return self._lost / max(self._sent, least)


class LossModel:
    def __init__(self) -> None:
        self.bandwidth_short = inf
        """The draft's bw_shortterm."""
        self.inflight_short = inf
        self.bandwidth_latest = 0.0
        """The best delivery rate of this round trip."""
        self.inflight_latest = 0
        self.in_round = False
        """Something was lost in this round trip."""
        self.events = 0
        """Discontiguous losses in this round trip."""
        self.round_start = False
        self.residual = 0.0
        self.imposed = 0.0
        """Of the residual loss, what others impose."""
        self.quiet = True
        """The queue was empty at some time in the last round trip."""
        self._round_end = 0
        self._last_number = -2
        self._round_rtt = inf
        self._round_lost = 0
        self._round_delivered = 0
        self._quiet_loss = DecayingShare(QUIET_MEMORY)
        self._steady_loss = DecayingShare(STEADY_MEMORY)
        self._steady_rounds = DecayingShare(STEADY_MEMORY)
        self._residual = 0.0

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
        """A probe is over: what comes now tells of something else."""
        self.quiet = False
        self._round_rtt = inf
        self.in_round = False
        self.events = 0
        self.bandwidth_latest = 0.0
        self.inflight_latest = 0

    # residual loss

    def on_round_trip(self, sample: float) -> None:
        if sample < self._round_rtt:
            self._round_rtt = sample

    def end_round(self, lost: int, delivered: int, quiet_rtt: float, datagram_size: int, cruise: float) -> None:
        """A packet-timed round trip is over; counts since the start of the connection. `cruise`: what the path holds of
        this flow, if it cruises, else 0."""
        was_quiet, self.quiet = self.quiet, self._round_rtt <= quiet_rtt
        newly_lost = max(0, lost - self._round_lost)
        newly_sent = newly_lost + delivered - self._round_delivered
        if self.quiet and was_quiet:  # a round's losses are found in the next
            # Of few datagrams one is a large part: a hundred stand for what is not known yet.
            residual = self._quiet_loss.update(newly_lost, newly_sent, 100 * datagram_size)
            self._residual = residual if residual >= MIN_RESIDUAL else 0.0
        if cruise:
            steady = self._steady_loss.update(newly_lost, newly_sent, 1000 * datagram_size)
            lossy = self._steady_rounds.update(newly_lost > 0, 1, 1 / (1 - STEADY_MEMORY))
            bearable = MIN_IMPOSED + RENO_LOSS * (datagram_size / cruise) ** 2
            self.imposed = IMPOSED_PEAK * steady if steady >= bearable and lossy >= IMPOSED_ROUNDS else 0.0
        self.residual = min(MAX_RESIDUAL, max(self._residual, self.imposed))
        if self.quiet and was_quiet and self._excess(newly_lost, newly_sent, datagram_size) <= 0:
            self._release()
        self._round_rtt = inf
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
        if self.bandwidth_short == inf:
            self.bandwidth_short = max_bandwidth
        if self.inflight_short == inf:
            self.inflight_short = window
        self.bandwidth_short = max(self.bandwidth_latest, BETA * self.bandwidth_short)
        self.inflight_short = max(self.inflight_latest, BETA * self.inflight_short)

    def _release(self) -> None:
        self.bandwidth_short *= RELEASE
        self.inflight_short *= RELEASE
        if self.bandwidth_short > 2 * self.bandwidth_latest:
            self.reset_short()

    def reset_short(self) -> None:
        self.bandwidth_short = inf
        self.inflight_short = inf
