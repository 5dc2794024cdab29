"""What has been received and what to tell the peer of it (RFC 9000, section 13.2)."""

from __future__ import annotations

from udpsend.transfer.rtt import MAX_ACK_DELAY
from udpsend.wire.frames import MAX_ACK_RANGES, Ack
from udpsend.wire.ranges import RangeSet

ACK_EVERY = 2  # ack-eliciting records
MAX_RANGES = 512  # older gaps are closed: what arrives in them is treated as a duplicate


class AckTracker:
    """The numbers of all records that were authenticated: duplicates and replays show here, and nowhere else."""

    def __init__(self) -> None:
        self._received = RangeSet()
        self._floor = 0  # numbers below this are not taken any more
        self.largest = -1
        self._largest_time = 0.0
        self._eliciting = 0
        self._due: float | None = None

    def is_known(self, number: int) -> bool:
        return number <= self.largest and (number < self._floor or number in self._received)

    def record_received(self, number: int, ack_eliciting: bool, now: float) -> None:
        """An authenticated record that `is_known` did not know."""
        in_order = number == self.largest + 1
        self._received.add(number, number + 1)
        if number > self.largest:
            self.largest = number
            self._largest_time = now
        if not in_order and len(self._received) > MAX_RANGES:
            self._received.subtract(0, next(iter(self._received))[1])
            self._floor = self._received.first
        if ack_eliciting:
            self._eliciting += 1
            if self._eliciting >= ACK_EVERY or not in_order:
                self._due = now
            elif self._due is None:
                self._due = now + MAX_ACK_DELAY

    def timer(self) -> float | None:
        """When an acknowledgement has to leave."""
        return self._due

    def ack_now(self, now: float) -> None:
        if self._received:
            self._due = now

    def take_ack(self, datagrams: int, window: int, now: float) -> Ack:
        """The acknowledgement to send now. There must be something received."""
        self._due = None
        self._eliciting = 0
        ranges = []
        for start, stop in reversed(self._received):
            ranges.append((start, stop - 1))
            if len(ranges) == MAX_ACK_RANGES:
                break
        return Ack(tuple(ranges), now - self._largest_time, datagrams, window)
