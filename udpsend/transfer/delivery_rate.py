"""How fast the path delivers, measured at each acknowledgement (draft-cheng-iccrg-delivery-rate-estimation-02).

Bytes are those on the wire; seconds; one sample for each acknowledgement, from the newest record it names.
"""

from __future__ import annotations

from collections import deque

from msgspec import Struct

from udpsend.transfer.sent_records import SentRecord


class RateSample(Struct):
    rate: float
    """Bytes per second over `interval`."""
    delivered: int
    interval: float
    app_limited: bool
    """The sender had too little to send at that time: the path may be faster than this."""
    prior_delivered: int
    """`DeliveryRate.delivered` when the record was sent: what round trips are counted by."""
    prior_in_flight: int
    """Bytes in flight just after that record was sent."""
    prior_lost: int
    """`DeliveryRate.lost` when that record was sent."""


class MaxFilter:
    """The largest of the values of the last `window` rounds or seconds, whichever the caller counts by."""

    def __init__(self, window: float, none: float = 0.0) -> None:
        """`none` is the value while there is none."""
        self._window = window
        self._none = none
        self._values: deque[tuple[float, float]] = deque()  # (time, value): later ones are smaller

    def update(self, time: float, value: float) -> None:
        values = self._values
        while values and values[-1][1] <= value:
            values.pop()
        values.append((time, value))
        while values[0][0] < time - self._window:
            values.popleft()

    @property
    def value(self) -> float:
        return self._values[0][1] if self._values else self._none


class DeliveryRate:
    def __init__(self) -> None:
        self.delivered = 0
        self.lost = 0
        self._delivered_time = 0.0
        self._first_sent_time = 0.0
        self._app_limited_until = 0

    @property
    def app_limited(self) -> bool:
        return self._app_limited_until > 0

    def on_sent(self, record: SentRecord, bytes_in_flight: int, now: float) -> None:
        """`bytes_in_flight` does not count `record` yet."""
        if bytes_in_flight == 0:
            self._first_sent_time = self._delivered_time = now
        record.first_sent_time = self._first_sent_time
        record.delivered = self.delivered
        record.delivered_time = self._delivered_time
        record.app_limited = self.app_limited
        record.in_flight = bytes_in_flight + record.size
        record.lost = self.lost

    def on_app_limited(self, bytes_in_flight: int) -> None:
        """There was room to send more than there was to send."""
        self._app_limited_until = (self.delivered + bytes_in_flight) or 1

    def on_lost(self, size: int) -> None:
        self.lost += size

    def on_spurious(self, size: int) -> None:
        """What was counted as lost came through."""
        self.delivered += size
        self.lost = max(0, self.lost - size)

    def on_acked(self, newest: SentRecord, size: int, now: float) -> RateSample | None:
        """`size` bytes were acknowledged, and `newest` was sent last of them. None when nothing can be said: the
        interval is shorter than can be measured."""
        self.delivered += size
        self._delivered_time = now
        self._first_sent_time = newest.time
        if self._app_limited_until and self.delivered > self._app_limited_until:
            self._app_limited_until = 0
        send_elapsed = newest.time - newest.first_sent_time
        ack_elapsed = now - newest.delivered_time
        interval = max(send_elapsed, ack_elapsed)
        if interval <= 0:
            return None
        delivered = self.delivered - newest.delivered
        return RateSample(
            delivered / interval,
            delivered,
            interval,
            newest.app_limited,
            newest.delivered,
            newest.in_flight,
            newest.lost,
        )
