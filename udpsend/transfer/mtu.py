"""Path MTU search (RFC 8899, DPLPMTUD). Sizes are UDP payloads in bytes.

The ceiling is tried first: on most paths it is the interface's own MTU, and one round trip settles it. Below it the
usual sizes are searched by halves. Large datagrams that stop arriving while small ones do are a black hole: back to
the base size, and the search goes on below what failed. The evidence comes with probe timeouts, which send a small
record and a large one together: an outage loses both, a black hole only the large one.
"""

from __future__ import annotations

BASE = 1200  # RFC 8899, 5.1.2 and RFC 9000, 14.1
MAX_PROBES = 3  # for one size (RFC 8899, 5.1.2)
RAISE_INTERVAL = 600.0  # RFC 8899, 5.1.1: then larger sizes get another chance
BLACK_HOLE_LOSSES = 2  # next to a small record that arrived, and no large one acknowledged meanwhile
NEXT_TO = 2  # record numbers

# UDP payloads of usual links: IPv6 minimum, tunnels and PPPoE, Ethernet over IPv6 and IPv4, jumbo, loopback.
USUAL_SIZES = (1232, 1280, 1372, 1412, 1452, 1472, 4052, 8952, 8972, 16_000, 32_000, 65_507)


class MtuSearch:
    def __init__(self, ceiling: int) -> None:
        self.size = min(BASE, ceiling)
        self._ceiling = ceiling
        self._failed = ceiling + 1  # the smallest size known not to pass
        self._probing: int | None = None
        self._tries = 0
        self._losses = 0
        self._small_acked = -1  # the newest record of the base size that arrived
        self._large_acked = -1  # the newest above it that did
        self._raise_at: float | None = None

    def next_probe(self, now: float) -> int | None:
        """The size to probe now, or None: a probe is out, or the search is over."""
        if self._probing is not None or self.size == self._ceiling:
            return None
        if self._raise_at is not None:
            if now < self._raise_at:
                return None
            self._raise_at = None
            self._failed = self._ceiling + 1
        sizes = [s for s in (*USUAL_SIZES, self._ceiling) if self.size < s < self._failed and s <= self._ceiling]
        if not sizes:
            self._raise_at = now + RAISE_INTERVAL
            return None
        return self._ceiling if self._failed > self._ceiling else sorted(sizes)[len(sizes) // 2]

    @property
    def excess(self) -> int:
        """Bytes by which the probe that is out is longer than what is sent otherwise: fifty times on loopback, and one
        packet all the same."""
        return max(0, (self._probing or 0) - self.size)

    def on_probe_sent(self, size: int) -> None:
        self._probing = size

    def on_probe_acked(self, size: int) -> bool:
        """True if datagrams of this size can be used from now on."""
        if size == self._probing:
            self._probing = None
            self._tries = 0
        if size <= self.size or size >= self._failed:
            return False
        self.size = size
        self._losses = 0
        return True

    def on_probe_lost(self, size: int) -> None:
        if size != self._probing:
            return
        self._probing = None
        self._tries += 1
        if self._tries >= MAX_PROBES:
            self._tries = 0
            self._failed = min(self._failed, size)

    def on_acked(self, number: int, size: int) -> None:
        """Record `number`, whose largest datagram had `size` bytes, came through."""
        if size > BASE:
            self._losses = 0
            self._large_acked = max(self._large_acked, number)
        else:
            self._small_acked = max(self._small_acked, number)

    def on_lost(self, number: int, size: int) -> bool:
        """The same record was lost. True if that makes a black hole: `size` is the base again."""
        if size <= BASE or size > self.size or abs(number - self._small_acked) > NEXT_TO:
            return False
        if number < self._large_acked:  # others of its kind passed after it: an ordinary loss
            return False
        self._losses += 1
        if self._losses < BLACK_HOLE_LOSSES:
            return False
        self._losses = 0
        self._tries = 0
        self._failed = size
        self._raise_at = None  # the search had ended, and goes on
        self._probing = None
        self.size = BASE
        return True
