"""Loss detection and probe timeouts (RFC 9002, section 6), in records.

1. `on_ack` takes what an acknowledgement names off the outstanding records and updates the round-trip time.
2. `detect_lost` gives a verdict on the rest: lost by the packet threshold, lost by the time threshold, or not yet,
   with the time at which to look again.
3. `timer` is that time, or the probe timeout with its backoff.

Reordering is learned: a record that was declared lost and acknowledged later raises the thresholds (RFC 8985, 6.2).
"""

from __future__ import annotations

from operator import attrgetter

from msgspec import Struct, field

from udpsend.errors import BadPacket
from udpsend.transfer.rtt import RttEstimator
from udpsend.transfer.sent_records import SentRecord, SentRecords
from udpsend.wire.frames import Ack

PACKET_THRESHOLD = 3  # RFC 9002, 6.1.1
MAX_PACKET_THRESHOLD = 300
MAX_PROBE_TIMEOUT = 1.0  # an outage ends unannounced: look again every second

_number = attrgetter("number")


class AckOutcome(Struct):
    """What one acknowledgement changed."""

    acked: list[SentRecord] = field(default_factory=list)
    newest: SentRecord | None = None
    """The one of `acked` with the largest number."""
    spurious: list[SentRecord] = field(default_factory=list)
    """Declared lost before, and not lost after all."""
    rtt_sample: float | None = None


class Recovery:
    def __init__(self, rtt: RttEstimator) -> None:
        self.rtt = rtt
        self.sent = SentRecords()
        self.largest_acked = -1
        self.probe_count = 0
        self._packet_threshold = PACKET_THRESHOLD
        self._reordering_window = 0.0
        self._loss_time: float | None = None
        self._last_eliciting_time = 0.0
        self._known_ranges: frozenset[tuple[int, int]] = frozenset()

    def on_sent(self, record: SentRecord) -> None:
        """An ack-eliciting record was sent."""
        self.sent.add(record)
        self._last_eliciting_time = record.time

    def on_ack_untrusted(self, ack: Ack, next_number: int, now: float) -> AckOutcome:
        """Raises BadPacket when it names records that were never sent."""
        largest = ack.ranges[0][1]
        if largest >= next_number:
            raise BadPacket("acknowledged what was not sent")
        outcome = AckOutcome()
        ranges = frozenset(ack.ranges)
        # All but the newest are mostly those of the acknowledgement before: with thirty gaps, looking at all of them
        # again would be a fifth of the sender's work.
        for first, last in ranges - self._known_ranges if len(ranges) > 1 else ranges:
            taken, spurious = self.sent.take_acknowledged(first, last)
            outcome.acked += taken
            outcome.spurious += spurious
        self._known_ranges = ranges
        if outcome.acked:
            self.probe_count = 0
            outcome.newest = newest = max(outcome.acked, key=_number)
            if newest.number == largest and largest > self.largest_acked:
                self.rtt.update(now - newest.time, ack.delay)
                outcome.rtt_sample = self.rtt.latest
        self.largest_acked = max(self.largest_acked, largest)
        for late in outcome.spurious:
            self._learn_reordering(late, now)
        return outcome

    def _learn_reordering(self, late: SentRecord, now: float) -> None:
        gap = self.largest_acked - late.number + 1
        self._packet_threshold = min(MAX_PACKET_THRESHOLD, max(self._packet_threshold, gap))
        excess = now - late.time - self.rtt.loss_delay
        self._reordering_window = min(self.rtt.smoothed, max(self._reordering_window, excess))

    def detect_lost(self, now: float) -> list[SentRecord]:
        """The records that are lost as of now; they are not outstanding any more."""
        self._loss_time = None
        delay = self.rtt.loss_delay + self._reordering_window
        lost = []
        for record in self.sent:
            if record.number > self.largest_acked:
                break
            if self.largest_acked - record.number >= self._packet_threshold or record.time + delay <= now:
                lost.append(record)
            else:  # later records were sent later: the first that is not lost yet is the next that can be
                self._loss_time = record.time + delay
                break
        for record in lost:
            self.sent.declare_lost(record)
        return lost

    def timer(self) -> float | None:
        """When to call `on_timer`, or None while nothing is outstanding."""
        if self._loss_time is not None:
            return self._loss_time
        if not len(self.sent):
            return None
        backoff = self.rtt.probe_timeout * (1 << min(self.probe_count, 16))
        return self._last_eliciting_time + max(min(backoff, MAX_PROBE_TIMEOUT), self.rtt.probe_timeout)

    def on_timer(self, now: float) -> bool:
        """True if a probe is to be sent: nothing was heard for a probe timeout."""
        if self._loss_time is not None:
            return False
        due = self.timer()
        if due is None or now < due:
            return False
        self.probe_count += 1
        self._last_eliciting_time = now
        return True
