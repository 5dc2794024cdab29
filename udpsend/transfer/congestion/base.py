"""The seam between the connection and a congestion controller. Bytes, seconds, bytes per second throughout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from udpsend.transfer.delivery_rate import RateSample
from udpsend.transfer.rtt import RttEstimator
from udpsend.transfer.sent_records import SentRecord

INITIAL_WINDOW_DATAGRAMS = 10  # RFC 9002, 7.2
INITIAL_WINDOW_BYTES = 14_720
MINIMUM_WINDOW_DATAGRAMS = 2


def initial_window(datagram_size: int) -> int:
    """RFC 9002, 7.2."""
    return min(INITIAL_WINDOW_DATAGRAMS * datagram_size, max(2 * datagram_size, INITIAL_WINDOW_BYTES))


# Not frozen, though nobody changes them: writing the fields of a frozen one takes three times as long, thousands of
# times a second.


class AckedSample(Struct):
    """One acknowledgement as the controller sees it."""

    now: float
    acked_bytes: int
    newest_acked: int
    """The largest record number it acknowledged for the first time."""
    newest_sent_time: float
    largest_sent: int
    bytes_in_flight: int
    """After this acknowledgement."""
    rtt: RttEstimator
    rtt_sample: float | None
    rate: RateSample | None
    app_limited: bool
    delivered: int
    """All bytes delivered in this connection so far."""
    lost: int = 0
    """All bytes lost in this connection so far, those found lost with this acknowledgement included."""
    window_limited: bool = False
    """Since the last acknowledgement the window kept something from leaving."""


class LostSample(Struct):
    """Records declared lost together."""

    now: float
    lost_bytes: int
    """Bytes of the datagrams that are missing, as far as that is known, not of all their records."""
    newest_sent_time: float
    """When the newest of the lost records was sent: one reaction for each flight (RFC 9002, 7.3.2)."""
    bytes_in_flight: int
    persistent: bool
    """Everything over more than three probe timeouts was lost (RFC 9002, 7.6)."""
    records: Sequence[SentRecord] = ()
    """In the order of their numbers."""
    lost_before: int = 0
    """All bytes lost in this connection before these."""


class CongestionController(Protocol):
    @property
    def window(self) -> float:
        """Bytes that may be in flight."""

    @property
    def pacing_rate(self) -> float:
        """Bytes per second; 0 until the controller knows."""

    @property
    def yields(self) -> bool:
        """Everybody else on the path comes first."""

    @property
    def holds_back(self) -> bool:
        """It sends less than the path takes, to measure it: delivery rates of now say nothing of the path."""

    def on_sent(self, size: int, bytes_in_flight: int, now: float) -> None: ...

    def on_acked(self, sample: AckedSample) -> None: ...

    def on_lost(self, sample: LostSample) -> None: ...

    def on_spurious_loss(self, sent_time: float) -> None:
        """A record sent then had been declared lost, and came through: the reaction to it was mistaken."""

    def set_datagram_size(self, size: int) -> None: ...
