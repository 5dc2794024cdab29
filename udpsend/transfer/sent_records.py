"""What is on its way: one entry for each record sent and neither acknowledged nor lost. Values, no closures."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from udpsend.wire.ranges import RangeSet


class SentRecord(Struct):
    number: int
    time: float
    size: int
    """Bytes of all its datagrams, headers included."""
    datagrams: int
    largest_datagram: int
    ack_eliciting: bool
    data: tuple[int, int] | None = None
    """(start, stop) in the transfer's byte space; None also when the receiver has asked for that again."""
    control: tuple[int, int] | None = None
    """(start, stop) in the control stream."""
    mtu_probe: int = 0
    """The datagram size that this record tries, or 0."""
    datagrams_total: int = 0
    """Datagrams sent in this connection up to and including this record."""
    # The snapshot for delivery-rate samples (draft-cheng-iccrg-delivery-rate-estimation).
    delivered: int = 0
    delivered_time: float = 0.0
    first_sent_time: float = 0.0
    app_limited: bool = False
    in_flight: int = 0
    """Bytes in flight just after this record was sent."""
    lost: int = 0
    """Bytes counted as lost when this record was sent."""


# How many records that were declared lost are remembered, to notice that they had only been late.
MAX_LOST = 512
# Between acknowledged numbers: each that never is acknowledged leaves one. Half of them stay, more than MAX_LOST.
MAX_GAPS = 4 * MAX_LOST


class SentRecords:
    """Outstanding records in the order of their numbers, and what the peer has acknowledged of all ever sent."""

    def __init__(self) -> None:
        self._outstanding: dict[int, SentRecord] = {}
        self._lost: dict[int, SentRecord] = {}
        self._acknowledged = RangeSet()
        self.bytes_in_flight = 0
        self.largest_sent = -1

    def __len__(self) -> int:
        return len(self._outstanding)

    def __iter__(self) -> Iterator[SentRecord]:
        return iter(self._outstanding.values())

    def add(self, record: SentRecord) -> None:
        self._outstanding[record.number] = record
        self.largest_sent = record.number
        self.bytes_in_flight += record.size

    def take_acknowledged(self, first: int, last: int) -> tuple[list[SentRecord], list[SentRecord]]:
        """(outstanding records in this range, records in it that had been declared lost too early).

        The peer names a range again and again: what it named before is not looked at, so the cost is that of what
        is new."""
        taken, spurious = [], []
        for start, stop in list(self._acknowledged.gaps(first, last + 1)):
            for number in range(start, stop):
                record = self._outstanding.pop(number, None)
                if record is not None:
                    self.bytes_in_flight -= record.size
                    taken.append(record)
                elif self._lost and (late := self._lost.pop(number, None)) is not None:
                    spurious.append(late)
        self._acknowledged.add(first, last + 1)
        if len(self._acknowledged) > MAX_GAPS:
            self._close_gaps()
        return taken, spurious

    def _close_gaps(self) -> None:
        """The older half, as far as nothing in them is on its way: what is acknowledged there is not looked at."""
        middle = [start for start, _ in self._acknowledged][MAX_GAPS // 2]
        self._acknowledged.add(0, min(middle, next(iter(self._outstanding), middle)))

    def declare_lost(self, record: SentRecord) -> None:
        del self._outstanding[record.number]
        self.bytes_in_flight -= record.size
        self._lost[record.number] = record
        if len(self._lost) > MAX_LOST:
            del self._lost[next(iter(self._lost))]
