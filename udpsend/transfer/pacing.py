"""When the next train may leave: a token bucket filled at the pacing rate (RFC 9002, section 7.7)."""

from __future__ import annotations

# A wake-up of the event loop is late by 0.1 to 1 ms, on a busy host by several: what could have been sent meanwhile may
# be sent at once after it, up to an eighth of the round trip: no queue is shorter. With 1 ms a sender that shared its
# processor lost a quarter of a 100 Mbit/s path of 40 ms.
BURST_TIME = 0.001
MAX_BURST_TIME = 0.01
MIN_BURST = 2 * 1472
INITIAL_BURST = 10 * 1472  # the initial window of RFC 9002, so that small transfers are not paced at all
SLACK = 0.0001  # do not go to sleep for less


def burst_time(round_trip: float) -> float:
    """Seconds of the rate that may leave at once after a late wake-up; the round trip without queues."""
    return min(MAX_BURST_TIME, max(BURST_TIME, round_trip / 8))


class Pacer:
    def __init__(self) -> None:
        self.burst_time = BURST_TIME
        self._rate = 0.0
        self._budget = float(INITIAL_BURST)
        self._time = 0.0

    def set_rate(self, rate: float, now: float) -> None:
        """Bytes per second from now on."""
        self._refill(now)
        self._rate = rate

    def _refill(self, now: float) -> None:
        burst = max(MIN_BURST, self._rate * self.burst_time)
        if self._budget < burst:
            self._budget = min(burst, self._budget + (now - self._time) * self._rate)
        self._time = now

    def on_sent(self, size: int) -> None:
        self._budget -= size

    def next_send_time(self, now: float) -> float | None:
        """None when a train may leave now. The budget may go below zero by one train."""
        self._refill(now)
        if self._budget > 0 or self._rate <= 0:
            return None
        wait = -self._budget / self._rate
        return None if wait < SLACK else now + wait
