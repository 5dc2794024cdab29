"""LEDBAT++ (draft-irtf-iccrg-ledbat-plus-plus) for transfers that yield to everybody else.

1. The window grows by a fraction of what Reno's would while the queueing delay is below the target, and shrinks by
   what waits beyond it: others, who fill the queue, take what they want. (The draft shrinks by the excess in targets,
   with each acknowledgement: where the target is an eighth of the round trip, half the window went for a millisecond.)
2. Every so often it falls to two datagrams for two round trips, so that the delay without its own queue can be seen.
Delays are round trips above the shortest of the last ten minutes.
"""

from __future__ import annotations

from collections import deque
from math import ceil, inf

from udpsend.transfer.congestion.base import MINIMUM_WINDOW_DATAGRAMS, AckedSample, LostSample, initial_window

TARGET = 0.06  # seconds of queueing delay
# The draft's target alone never yields where the buffer holds less than 60 ms: an eighth of the base round trip is seen
# in any buffer that others fill. Less than four milliseconds are Wi-Fi, timers and schedulers.
TARGET_SHARE = 1 / 8
MIN_TARGET = 0.004
SAMPLES = 20  # jitter of some milliseconds must not look like a queue
GAIN_LIMIT = 16
MAX_DECREASE = 0.5  # in a round trip
# Where nobody waits in the queue a loss is nobody's queue: on a path that loses 1 % at random the draft, whose window
# grows by a sixth of Reno's, ends at a fiftieth of the rate.
QUIET = 1.0  # of the target
MASSIVE_LOSS = 0.12
FEW_DATAGRAMS = 3
SLOW_START_EXIT = 0.75  # of the target
SLOWDOWN_ROUNDS = 2
SLOWDOWN_PAUSE = 9  # times the length of the last slowdown
BASE_MINUTES = 10
PACING_GAIN = 1.25
SLOW_START_PACING_GAIN = 2.0


class BaseDelay:
    """The shortest round trip of the last ten minutes, by minutes."""

    def __init__(self) -> None:
        self._minutes: deque[float] = deque(maxlen=BASE_MINUTES)
        self._minute = -1
        self.value = inf

    def update(self, sample: float, now: float) -> None:
        if (minute := int(now // 60)) != self._minute:
            self._minute = minute
            self._minutes.append(sample)
            self.value = min(self._minutes)
        elif sample < self._minutes[-1]:
            self._minutes[-1] = sample
            self.value = min(self.value, sample)


class Ledbat:
    holds_back = False
    yields = True

    def __init__(self, datagram_size: int) -> None:
        self.window: float = MINIMUM_WINDOW_DATAGRAMS * datagram_size
        self.pacing_rate = 0.0
        self._size = datagram_size
        self._base = BaseDelay()
        self._round_end = -1
        self._last_delay = inf
        self._delay = inf
        self._samples: deque[float] = deque([inf], maxlen=SAMPLES)
        self._threshold = inf
        self._first_slow_start = True
        self._slowdown_at = inf
        self._slowdown_start = inf
        self._slowdown_end = inf
        self._recovery_start = -1.0
        self._decrease_time = -1.0
        self._smoothed = 0.0

    def set_datagram_size(self, size: int) -> None:
        self._size = size
        self.window = max(self.window, MINIMUM_WINDOW_DATAGRAMS * size)

    def on_sent(self, size: int, bytes_in_flight: int, now: float) -> None:
        pass

    @property
    def _minimum(self) -> int:
        return MINIMUM_WINDOW_DATAGRAMS * self._size

    @property
    def _target(self) -> float:
        return min(TARGET, max(MIN_TARGET, self._base.value * TARGET_SHARE))

    @property
    def _gain(self) -> float:
        return 1 / min(GAIN_LIMIT, ceil(2 * TARGET / self._base.value))

    @property
    def _queueing(self) -> float:
        """The least of about a round trip, and of a few samples where that has fewer: late ones are jitter."""
        return max(0.0, min(self._delay, self._last_delay, *self._samples) - self._base.value)

    def on_acked(self, sample: AckedSample) -> None:
        now = sample.now
        self._smoothed = sample.rtt.smoothed
        if sample.rtt_sample is not None:
            self._base.update(sample.rtt_sample, now)
            self._delay = min(self._delay, sample.rtt_sample)
            self._samples.append(sample.rtt_sample)
        if sample.newest_acked > self._round_end:
            self._round_end = sample.largest_sent
            self._last_delay, self._delay = self._delay, inf
        if self._base.value < inf and sample.newest_sent_time > self._recovery_start:
            self._adapt(sample)
        slow_start = self.window < self._threshold
        gain = SLOW_START_PACING_GAIN if slow_start else PACING_GAIN
        self.pacing_rate = gain * self.window / sample.rtt.smoothed

    def _adapt(self, sample: AckedSample) -> None:
        now = sample.now
        if now >= self._slowdown_at:
            self._slowdown_at = inf
            self._slowdown_start = now
            self._slowdown_end = now + SLOWDOWN_ROUNDS * self._smoothed
            self._threshold = self.window
        if now < self._slowdown_end < inf:
            self.window = float(self._minimum)
            return
        self._slowdown_end = inf
        if sample.app_limited:
            return
        queueing = self._queueing
        if self.window < self._threshold:
            self._slow_start(sample, queueing)
        else:
            self._avoid_congestion(sample, queueing)

    def _slow_start(self, sample: AckedSample, queueing: float) -> None:
        first = self._first_slow_start
        if first and queueing > SLOW_START_EXIT * self._target and self.window > initial_window(self._size):
            self._threshold = self.window
        else:
            self.window = min(self.window + self._gain * sample.acked_bytes, self._threshold)
        if self.window >= self._threshold:
            self._leave_slow_start(sample.now)

    def _leave_slow_start(self, now: float) -> None:
        if self._first_slow_start:
            self._first_slow_start = False
            self._slowdown_at = now + SLOWDOWN_ROUNDS * self._smoothed
        elif self._slowdown_start < inf:
            self._slowdown_at = now + SLOWDOWN_PAUSE * (now - self._slowdown_start)
            self._slowdown_start = inf

    def _avoid_congestion(self, sample: AckedSample, queueing: float) -> None:
        excess = (queueing - self._target) / (self._base.value + queueing)
        if excess <= 0:
            self.window += self._gain * self._size * sample.acked_bytes / self.window
        elif sample.newest_sent_time > self._decrease_time:  # once for each flight: the next tells what it has done
            self._decrease_time = sample.now
            self.window = max(self.window * (1 - min(excess, MAX_DECREASE)), self._minimum)
            self._threshold = min(self._threshold, self.window)  # slow start does not take it back

    def on_lost(self, sample: LostSample) -> None:
        if sample.newest_sent_time <= self._recovery_start:
            return
        in_flight = sample.bytes_in_flight + sum(record.size for record in sample.records)
        massive = max(MASSIVE_LOSS * in_flight, FEW_DATAGRAMS * self._size)
        quiet = self._queueing < QUIET * self._target and sample.lost_bytes <= massive
        if quiet and not sample.persistent:
            return
        self._recovery_start = sample.now
        self.window = float(self._minimum) if sample.persistent else max(self.window / 2, self._minimum)
        self._threshold = min(self._threshold, self.window)
        if self._first_slow_start or self._slowdown_start < inf:
            self._leave_slow_start(sample.now)

    def on_spurious_loss(self, sent_time: float) -> None:
        pass
