"""CUBIC (RFC 9438) with HyStart++ (RFC 9406). Windows in bytes, the cubic function in segments as in the RFC."""

from __future__ import annotations

from math import inf

from udpsend.transfer.congestion.base import MINIMUM_WINDOW_DATAGRAMS, AckedSample, LostSample, initial_window

# RFC 9438, section 4.1 and 4.6
C = 0.4
BETA = 0.7
ALPHA_RENO = 3 * (1 - BETA) / (1 + BETA)

# RFC 9002, section 7.7: a little above window / round trip, so that pacing never is the bottleneck; twice in slow
# start, where the window doubles in each round.
PACING_GAIN = 1.25
SLOW_START_PACING_GAIN = 2.0


class HyStart:
    """Leaves slow start when the round trip grows (RFC 9406). A round ends when what was sent at its start is
    acknowledged."""

    MIN_RTT_THRESHOLD = 0.004
    MAX_RTT_THRESHOLD = 0.016
    MIN_RTT_DIVISOR = 8
    RTT_SAMPLES = 8
    CSS_GROWTH_DIVISOR = 4
    CSS_ROUNDS = 5

    def __init__(self) -> None:
        self.in_css = False
        self._round_end = -1
        self._samples = 0
        self._last_min = inf
        self._current_min = inf
        self._css_baseline = inf
        self._css_rounds = 0

    def on_acked(self, sample: AckedSample) -> bool:
        """True when slow start is over."""
        if sample.newest_acked > self._round_end:
            self._round_end = sample.largest_sent
            self._last_min, self._current_min = self._current_min, inf
            self._samples = 0
            if self.in_css:
                self._css_rounds += 1
                if self._css_rounds >= self.CSS_ROUNDS:
                    return True
        if sample.rtt_sample is not None:
            self._current_min = min(self._current_min, sample.rtt_sample)
            self._samples += 1
        if self._samples < self.RTT_SAMPLES:
            return False
        if self.in_css:
            if self._current_min < self._css_baseline:  # the growth was a passing one
                self.in_css = False
        elif self._current_min < inf and self._last_min < inf:
            threshold = min(self.MAX_RTT_THRESHOLD, max(self.MIN_RTT_THRESHOLD, self._last_min / self.MIN_RTT_DIVISOR))
            if self._current_min >= self._last_min + threshold:
                self._css_baseline = self._current_min
                self.in_css = True
                self._css_rounds = 0
        return False


class Cubic:
    holds_back = False
    yields = False

    def __init__(self, datagram_size: int) -> None:
        self._size = datagram_size
        self._window = float(initial_window(datagram_size))
        self._threshold = inf
        self._hystart = HyStart()
        self._w_max = 0.0
        self._k = 0.0
        self._epoch: float | None = None
        self._w_est = 0.0
        self._recovery_start = -1.0
        self._before: tuple[float, float, float] | None = None  # window, threshold, w_max before the last reaction
        self._smoothed_rtt = 0.0

    @property
    def window(self) -> int:
        return int(self._window)

    @property
    def pacing_rate(self) -> float:
        if not self._smoothed_rtt:
            return 0.0
        gain = SLOW_START_PACING_GAIN if self._window < self._threshold else PACING_GAIN
        return gain * self._window / self._smoothed_rtt

    def set_datagram_size(self, size: int) -> None:
        self._size = size
        self._window = max(self._window, float(initial_window(size)))

    def on_sent(self, size: int, bytes_in_flight: int, now: float) -> None:
        pass

    def on_acked(self, sample: AckedSample) -> None:
        self._smoothed_rtt = sample.rtt.smoothed
        if sample.newest_sent_time <= self._recovery_start:
            return
        # RFC 9438, 5.8: a window that was not used does not grow.
        if sample.app_limited:
            self._epoch = None
            return
        if self._window < self._threshold:
            self._slow_start(sample)
        else:
            self._congestion_avoidance(sample)

    def _slow_start(self, sample: AckedSample) -> None:
        if self._hystart.on_acked(sample):
            self._threshold = self._window
            return
        growth = float(sample.acked_bytes)
        self._window += growth / HyStart.CSS_GROWTH_DIVISOR if self._hystart.in_css else growth

    def _congestion_avoidance(self, sample: AckedSample) -> None:
        size = self._size
        if self._epoch is None:
            self._epoch = sample.now
            self._w_est = self._window
            self._w_max = max(self._w_max, self._window)
            self._k = ((self._w_max - self._window) / size / C) ** (1 / 3)
        elapsed = sample.now - self._epoch
        target = C * (elapsed + sample.rtt.smoothed - self._k) ** 3 * size + self._w_max
        target = min(max(target, self._window), 1.5 * self._window)
        segments = sample.acked_bytes / size
        alpha = 1.0 if self._w_est >= self._w_max else ALPHA_RENO
        self._w_est += alpha * segments * size * size / self._window
        if C * (elapsed - self._k) ** 3 * size + self._w_max < self._w_est:
            self._window = max(self._window, self._w_est)  # the Reno-friendly region
        else:
            self._window += (target - self._window) / self._window * sample.acked_bytes

    def on_lost(self, sample: LostSample) -> None:
        minimum = float(MINIMUM_WINDOW_DATAGRAMS * self._size)
        if sample.persistent:
            self._before = None
            self._w_max = self._window
            self._threshold = max(minimum, self._window * BETA)
            self._window = minimum
            self._epoch = None
            self._recovery_start = sample.now
            return
        if sample.newest_sent_time <= self._recovery_start:
            return  # this flight has been reacted to
        self._before = (self._window, self._threshold, self._w_max)
        self._recovery_start = sample.now
        self._epoch = None
        # RFC 9438, 4.7: fast convergence leaves room for others
        self._w_max = self._window * (1 + BETA) / 2 if self._window < self._w_max else self._window
        self._window = self._threshold = max(minimum, self._window * BETA)

    def on_spurious_loss(self, sent_time: float) -> None:
        """RFC 9438, 4.9.2: take the last reaction back."""
        if self._before is not None and sent_time <= self._recovery_start:
            window, threshold, w_max = self._before
            self._window = max(self._window, window)
            self._threshold = max(self._threshold, threshold)
            self._w_max = max(self._w_max, w_max)
            self._recovery_start = -1.0
            self._before = None
            self._epoch = None
