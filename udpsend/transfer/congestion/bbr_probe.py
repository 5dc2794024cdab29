"""BBR's search for more bandwidth (draft-ietf-ccwg-bbr-06, section 5.3.3): when to send faster, how far, and when it
was too much. Down drains the queue, cruise keeps what was found, refill fills the pipe, up sends a quarter more."""

from __future__ import annotations

from enum import Enum
from math import inf

from udpsend.transfer.congestion.base import AckedSample
from udpsend.transfer.congestion.bbr_loss import BETA, LOSS_THRESHOLD
from udpsend.transfer.congestion.bbr_model import PROBE_BW, Model, State
from udpsend.transfer.delivery_rate import RateSample
from udpsend.transfer.sent_records import SentRecord

RENO_ROUNDS = 63
MAX_UP_ROUNDS = 30
# A probe that met losses met somebody who fills the buffer, and took as much from him: where buffers are short CUBIC
# needs more than the draft's 2 to 3 seconds to come back.
AFTER_LOSS = 1.4


class AckPhase(Enum):
    """Which part of a probe the acknowledgements tell of."""

    INIT = 0
    REFILLING = 1
    STARTING = 2
    FEEDBACK = 3
    STOPPING = 4


class BandwidthProbe:
    def __init__(self, model: Model) -> None:
        self._model = model
        self._phase = AckPhase.INIT
        self._is_sample = False
        """What is acknowledged now was sent while probing, and losses in it have not been answered yet."""
        self._too_high = False
        """The last probe ended with too much loss."""
        self._precautionary = False
        """This one stopped where the last one lost."""
        self._cycle_start = 0.0
        self._wait = 0.0
        self._patience = 1.0
        self._rounds = 0
        self._up_rounds = 0
        self._up_acked = 0.0
        self._up_per_datagram = inf

    def on_acked(self, rate: RateSample, sample: AckedSample) -> None:
        """The pipe has been filled once."""
        model = self._model
        self._rounds += model.path.round_start
        if self._adapt_long_term(rate, sample):
            return
        state = model.state
        if state is State.DOWN or state is State.CRUISE:
            if self._is_time_to_probe(sample.now):
                self.start_refill()
            elif state is State.DOWN and self._is_time_to_cruise(sample.bytes_in_flight):
                model.state = State.CRUISE
        elif state is State.REFILL:
            if model.path.round_start:
                self._is_sample = True
                self._start_up(rate)
        elif state is State.UP and self._is_time_to_go_down(rate, sample):
            self._too_high = False
            self.start_down(sample.now)

    def on_probe_rtt(self) -> None:
        """ProbeRTT begins."""
        self._phase = AckPhase.STOPPING
        self._model.path.start_round(self._model.delivered)

    def on_lost(self, record: SentRecord, lost_before: float, lost: float, now: float) -> bool:
        """`lost` bytes of `record`, after `lost_before` in all. True if that ended Up."""
        model = self._model
        since_sent = lost_before - record.lost
        if not self._is_sample or not model.is_too_high(since_sent + lost, record.in_flight):
            return False
        # How much of the train did the path take before losses passed the threshold? (5.5.10.2)
        before = record.in_flight - record.size
        prefix = (LOSS_THRESHOLD * before - since_sent) / (1 - LOSS_THRESHOLD)
        self._too_high = True
        self._is_sample = False
        if not record.app_limited:
            at_loss = before + min(max(prefix, 0.0), record.size)
            model.inflight_long = max(at_loss, min(model.bdp(), model.window) * BETA)
        if model.state is not State.UP:
            return False
        self.start_down(now)
        return True

    # the cycle

    def start_down(self, now: float) -> None:
        model = self._model
        model.loss.reset_signals()
        self._up_per_datagram = inf
        self._rounds = model.random() & 1
        self._patience = AFTER_LOSS if self._too_high else 1.0
        self._wait = (2 + (model.random() & 0xFFFF) / 0x10000) * self._patience
        self._cycle_start = now
        self._phase = AckPhase.STOPPING
        model.path.start_round(model.delivered)
        model.state = State.DOWN

    def start_refill(self) -> None:
        model = self._model
        model.loss.reset_short()
        self._up_rounds = 0
        self._up_acked = 0
        self._precautionary = False
        self._phase = AckPhase.REFILLING
        model.path.start_round(model.delivered)
        model.state = State.REFILL

    def _start_up(self, rate: RateSample) -> None:
        model = self._model
        self._phase = AckPhase.STARTING
        model.path.start_round(model.delivered)
        model.path.reset_full(rate.rate)
        model.state = State.UP
        self._raise_slope()

    def _is_time_to_probe(self, now: float) -> bool:
        if now > self._cycle_start + self._wait:
            return True
        model = self._model
        if model.state is not State.CRUISE or model.is_path_tiny:
            # The draft also cuts down short for its Reno-like pace, and probes each round trip where a path holds one
            # datagram: the queue of one probe would never drain before the next.
            return False
        rounds = min(model.bdp() / model.size, model.window / model.size, RENO_ROUNDS)
        return self._rounds >= rounds * self._patience

    def _is_time_to_cruise(self, bytes_in_flight: int) -> bool:
        return bytes_in_flight <= self._model.inflight_with_headroom and self._model.is_drained(bytes_in_flight)

    def _is_time_to_go_down(self, rate: RateSample, sample: AckedSample) -> bool:
        model = self._model
        if self._too_high and sample.bytes_in_flight >= model.inflight_long:
            self._precautionary = True
            return True
        if sample.window_limited and model.window >= model.inflight_long:
            model.path.reset_full(rate.rate)
            return False
        return model.path.full_now

    # the long-term bound

    def _adapt_long_term(self, rate: RateSample, sample: AckedSample) -> bool:
        """True if it decided on a transition."""
        model = self._model
        if model.path.round_start and self._round_started(rate):
            return True
        if model.inflight_long == inf or model.is_too_high(sample.lost - rate.prior_lost, rate.prior_in_flight):
            return False
        model.inflight_long = max(model.inflight_long, rate.prior_in_flight)
        if model.state is State.UP and sample.window_limited and model.window >= model.inflight_long:
            self._probe_upward(sample.acked_bytes)
        return False

    def _round_started(self, rate: RateSample) -> bool:
        """True if that decided on a transition."""
        model = self._model
        if self._phase is AckPhase.STARTING:
            self._phase = AckPhase.FEEDBACK
        elif self._phase is AckPhase.STOPPING:
            self._is_sample = False
            self._phase = AckPhase.INIT
            if model.state in PROBE_BW and not rate.app_limited:
                model.path.advance_cycle()
            if model.state in PROBE_BW and self._precautionary and not self._too_high:
                self.start_refill()
                return True
        return False

    def _probe_upward(self, acked: int) -> None:
        """Raise the bound by one datagram in the first round trip, two in the second, four in the third; and by all
        that arrives while the queue is empty, since then the path has become larger."""
        if self._model.latest_rtt <= self._model.quiet_rtt:
            self._model.inflight_long += acked
            return
        self._up_acked += acked
        if self._up_acked >= self._up_per_datagram:
            steps = int(self._up_acked / self._up_per_datagram)
            self._up_acked -= steps * self._up_per_datagram
            self._model.inflight_long += steps * self._model.size
        if self._model.path.round_start:
            self._raise_slope()

    def _raise_slope(self) -> None:
        self._up_per_datagram = max(self._model.window / (1 << self._up_rounds), self._model.size)
        self._up_rounds = min(self._up_rounds + 1, MAX_UP_ROUNDS)
