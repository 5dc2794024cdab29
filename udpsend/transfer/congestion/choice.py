"""Which controller a transfer gets."""

from __future__ import annotations

from collections.abc import Callable

from udpsend.config import Config
from udpsend.transfer.congestion.base import CongestionController
from udpsend.transfer.congestion.bbr import Bbr
from udpsend.transfer.congestion.cubic import Cubic
from udpsend.transfer.congestion.ledbat import Ledbat


def choose(config: Config, random_bytes: Callable[[int], bytes]) -> Callable[[int], CongestionController]:
    """What makes it, from a datagram size."""
    if config.background:
        return Ledbat
    if config.congestion == "cubic":
        return Cubic
    return lambda datagram_size: Bbr(datagram_size, int.from_bytes(random_bytes(4)))
