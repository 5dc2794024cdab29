"""The seam between the connection and a congestion controller. Bytes, seconds, bytes per second throughout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from udpsend.transfer.delivery_rate import RateSample
from udpsend.transfer.rtt import RttEstimator

INITIAL_WINDOW_DATAGRAMS = 10  # RFC 9002, 7.2
MINIMUM_WINDOW_DATAGRAMS = 2


@dataclass(frozen=True, slots=True)
class AckedSample:
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


@dataclass(frozen=True, slots=True)
class LostSample:
    """Records declared lost together."""

    now: float
    lost_bytes: int
    """Bytes of the datagrams that are missing, as far as that is known, not of all their records."""
    newest_sent_time: float
    """When the newest of the lost records was sent: one reaction for each flight (RFC 9002, 7.3.2)."""
    newest_lost: int
    bytes_in_flight: int
    persistent: bool
    """Everything over more than three probe timeouts was lost (RFC 9002, 7.6)."""


class CongestionController(Protocol):
    @property
    def window(self) -> int:
        """Bytes that may be in flight."""

    @property
    def pacing_rate(self) -> float:
        """Bytes per second; 0 until the controller knows."""

    def on_sent(self, size: int, bytes_in_flight: int, number: int, now: float) -> None: ...

    def on_acked(self, sample: AckedSample) -> None: ...

    def on_lost(self, sample: LostSample) -> None: ...

    def on_spurious_loss(self, sent_time: float, now: float) -> None:
        """A record sent then had been declared lost, and came through: the reaction to it was mistaken."""

    def set_datagram_size(self, size: int) -> None: ...
