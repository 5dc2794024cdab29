"""The round-trip time estimate (RFC 9002, section 5). Seconds."""

from __future__ import annotations

from math import inf

GRANULARITY = 0.001  # RFC 9002, 6.1.2
INITIAL_RTT = 0.1  # RFC 9002 says 0.333; the path's probes have measured it already, this is for when they have not
MAX_ACK_DELAY = 0.025  # seconds (RFC 9000, 18.2)
MINIMUM = 1e-6  # some clocks tick in 16 ms and measure nothing at all: rates are divided by this


class RttEstimator:
    def __init__(self, initial: float | None) -> None:
        self.reset(initial)

    def reset(self, initial: float | None) -> None:
        """Forget everything; `initial` is a round trip that somebody else has measured."""
        self.latest = initial or INITIAL_RTT
        self.smoothed = self.latest
        self.variation = self.latest / 2
        self.minimum = inf
        self.sampled = False

    def update(self, latest: float, ack_delay: float) -> None:
        """A newly acknowledged, ack-eliciting largest record gave this sample."""
        latest = max(latest, MINIMUM)
        self.latest = latest
        self.minimum = min(self.minimum, latest)
        if not self.sampled:
            self.sampled = True
            self.smoothed = latest
            self.variation = latest / 2
            return
        adjusted = latest
        if latest >= self.minimum + ack_delay:
            adjusted = latest - min(ack_delay, MAX_ACK_DELAY)
        self.variation = 0.75 * self.variation + 0.25 * abs(self.smoothed - adjusted)
        self.smoothed = 0.875 * self.smoothed + 0.125 * adjusted

    @property
    def probe_timeout(self) -> float:
        """RFC 9002, 6.2.1, without the backoff."""
        return self.smoothed + max(4 * self.variation, GRANULARITY) + MAX_ACK_DELAY

    @property
    def loss_delay(self) -> float:
        """The time threshold of RFC 9002, 6.1.2."""
        return max(1.125 * max(self.smoothed, self.latest), GRANULARITY)
