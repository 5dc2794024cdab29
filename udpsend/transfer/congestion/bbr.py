"""BBR (draft-ietf-ccwg-bbr-06): how fast and how much to send, from a model of the path instead of from single losses.

At each acknowledgement, in the draft's order (5.2.3):
1. `LossModel` and `PathModel` take the delivery rate, the round trip and what was lost.
2. The state machine moves on: Startup and Drain find the rate once, `BandwidthProbe` goes round (down, cruise, refill,
   up), ProbeRTT looks for the propagation delay when it has not been seen for five seconds.
3. Pacing rate and window follow in `Model`.
Names are the draft's where it has them; bytes, seconds, bytes per second.
"""

from __future__ import annotations

from udpsend.transfer.congestion.base import AckedSample, LostSample, initial_window
from udpsend.transfer.congestion.bbr_model import PACING_GAIN, PROBE_BW, PROBING, Model, State
from udpsend.transfer.congestion.bbr_probe import BandwidthProbe
from udpsend.transfer.delivery_rate import RateSample

STARTUP_LOSS_EVENTS = 6
DRAIN_ROUNDS = 3
PROBE_RTT_TIME = 0.2  # seconds


class Bbr:
    yields = False

    def __init__(self, datagram_size: int, seed: int = 1) -> None:
        self._model = Model(datagram_size, seed)
        self._probe = BandwidthProbe(self._model)
        self._prior_window = 0.0
        self._idle_restart = False
        self._recovery_start: float | None = None
        self._drain_start = 0
        self._probe_rtt_done: float | None = None
        self._probe_rtt_round_done = False
        # what a spurious loss takes back
        self._episode_lost = 0  # records
        self._undo_state: State | None = None
        self._undo_bandwidth_short = 0.0
        self._undo_inflight_short = 0.0
        self._undo_inflight_long = 0.0

    @property
    def window(self) -> float:
        return self._model.window

    @property
    def pacing_rate(self) -> float:
        return self._model.pacing_rate

    @property
    def state(self) -> State:
        return self._model.state

    @property
    def holds_back(self) -> bool:
        return self._model.state is State.PROBE_RTT

    def set_datagram_size(self, size: int) -> None:
        model = self._model
        model.size = size
        if not model.path.full_reached:
            model.window = max(model.window, initial_window(size))

    def on_sent(self, size: int, bytes_in_flight: int, now: float) -> None:
        model = self._model
        if bytes_in_flight > size or not model.delivered:
            return
        self._idle_restart = True  # nothing was on its way (5.4.1)
        model.path.restart_aggregation(now)
        if model.state in PROBE_BW:
            model.set_pacing_rate(1.0)
        elif model.state is State.PROBE_RTT:
            self._check_probe_rtt_done(now)

    # acknowledgements

    def on_acked(self, sample: AckedSample) -> None:
        model, rate, now = self._model, sample.rate, sample.now
        path, loss = model.path, model.loss
        model.delivered = sample.delivered
        if rate is not None:
            loss.on_rate(rate, sample.delivered)
            path.on_rate(rate, sample.delivered, now)
            if path.round_start:
                cruise = model.bdp() if model.state is State.CRUISE else 0.0
                loss.end_round(sample.lost, sample.delivered, model.quiet_rtt, model.size, cruise)
            if loss.round_start and loss.in_round and model.state not in PROBING:
                loss.adapt(rate, sample.lost, path.max_bandwidth, model.window, model.size)
            path.on_acked_bytes(sample.acked_bytes, model.bandwidth, model.window, now)
            path.check_full(rate, now)
            self._check_startup_and_drain(rate, sample)
            if path.full_reached:
                self._probe.on_acked(rate, sample)
        if sample.rtt_sample is not None:
            model.latest_rtt = sample.rtt_sample
            loss.on_round_trip(sample.rtt_sample)
        path.on_round_trip(sample.rtt_sample, now)
        self._check_probe_rtt(sample)
        model.has_room = rate is not None and model.sees_room(sample.lost - rate.prior_lost, rate.prior_in_flight)
        if rate is not None:
            loss.on_ack_done(rate)
        model.bandwidth = min(path.max_bandwidth, loss.bandwidth_short)
        if self._recovery_start is not None and sample.newest_sent_time > self._recovery_start:
            self._recovery_start = None
            self._restore_window()
        if not model.pacing_rate:
            model.start_pacing(sample.rtt.smoothed, sample.lost)
        model.set_pacing_rate(PACING_GAIN[model.state])
        model.set_window(sample.acked_bytes)

    def _check_startup_and_drain(self, rate: RateSample, sample: AckedSample) -> None:
        model = self._model
        path, loss = model.path, model.loss
        if model.state is State.STARTUP:
            if (
                loss.round_start
                and loss.events >= STARTUP_LOSS_EVENTS
                and not path.full_reached
                and model.is_too_high(sample.lost - rate.prior_lost, rate.prior_in_flight)
            ):
                self._undo_state = State.STARTUP
                path.set_full_reached()
                model.inflight_long = max(model.bdp(), loss.inflight_latest)
            if path.full_reached:
                model.state = State.DRAIN
                self._drain_start = path.round_count
        if model.state is State.DRAIN and (
            model.is_drained(sample.bytes_in_flight) or path.round_count > self._drain_start + DRAIN_ROUNDS
        ):
            self._probe.start_down(sample.now)

    # ProbeRTT (5.3.4)

    def _check_probe_rtt(self, sample: AckedSample) -> None:
        model = self._model
        if model.state is not State.PROBE_RTT:
            if model.path.probe_rtt_expired and not self._idle_restart:
                self._save_window()
                model.state = State.PROBE_RTT
                self._probe_rtt_done = None
                self._probe.on_probe_rtt()
        elif self._probe_rtt_done is None:
            if sample.bytes_in_flight <= model.probe_rtt_window:
                self._probe_rtt_done = sample.now + PROBE_RTT_TIME
                self._probe_rtt_round_done = False
                model.path.start_round(model.delivered)
        else:
            self._probe_rtt_round_done |= model.path.round_start
            if self._probe_rtt_round_done:
                self._check_probe_rtt_done(sample.now)
        self._idle_restart = False

    def _check_probe_rtt_done(self, now: float) -> None:
        if self._probe_rtt_done is None or now <= self._probe_rtt_done:
            return
        model = self._model
        model.path.min_rtt_probed(now)
        self._restore_window()
        model.loss.reset_short()
        if model.path.full_reached:
            self._probe.start_down(now)
            model.state = State.CRUISE
        else:
            model.state = State.STARTUP

    # losses

    def on_lost(self, sample: LostSample) -> None:
        model = self._model
        loss = model.loss
        if not loss.in_round:
            self._save_window()
            self._episode_lost = 0
            self._undo_state = None
            self._undo_bandwidth_short = loss.bandwidth_short
            self._undo_inflight_short = loss.inflight_short
            self._undo_inflight_long = model.inflight_long
        self._episode_lost += len(sample.records)
        share = sample.lost_bytes / (sum(record.size for record in sample.records) or 1)
        lost = float(sample.lost_before)
        for record in sample.records:
            loss.on_lost(record.number, model.delivered)
            missing = share * record.size
            if self._probe.on_lost(record, lost, missing, sample.now):
                self._undo_state = State.UP
            lost += missing
        if model.check_start(sample.lost_before + sample.lost_bytes):
            self._prior_window = model.window
        if sample.persistent:
            # A whole flight is gone: an outage, or another path. Begin with little; what was known counts again when
            # something that is sent from now on arrives (5.6.4.4).
            self._save_window()
            self._recovery_start = sample.now
            model.window = float(sample.bytes_in_flight + model.min_window)

    def on_spurious_loss(self, sent_time: float) -> None:
        """Take back what was done about losses when none of them was one (5.5.11.2)."""
        self._episode_lost -= 1
        if self._episode_lost != 0:
            return
        model = self._model
        loss = model.loss
        loss.in_round = False
        self._restore_window()
        loss.bandwidth_short = max(loss.bandwidth_short, self._undo_bandwidth_short)
        loss.inflight_short = max(loss.inflight_short, self._undo_inflight_short)
        model.inflight_long = max(model.inflight_long, self._undo_inflight_long)
        undo, self._undo_state = self._undo_state, None
        if undo is State.STARTUP and model.state is not State.STARTUP:
            model.path.reset_full()
            model.path.clear_full_reached()
            if model.state is not State.PROBE_RTT:
                model.state = State.STARTUP
        elif undo is State.UP and model.state not in (State.UP, State.PROBE_RTT):
            model.path.reset_full()
            self._probe.start_refill()

    def _save_window(self) -> None:
        model = self._model
        if model.state is State.PROBE_RTT or model.loss.in_round or self._recovery_start is not None:
            self._prior_window = max(self._prior_window, model.window)
        else:
            self._prior_window = model.window

    def _restore_window(self) -> None:
        self._model.window = max(self._model.window, self._prior_window)
