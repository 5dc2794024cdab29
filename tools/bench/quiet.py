"""Whether the machine does something else at the same time, and waiting until it does not.

What others use of the processors while a transfer runs is what was busy in all less what the transfer itself used. A
transfer that was disturbed can be made again, as long as there is patience left: that is decided by what the others
did, never by the figure that came out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .tool import Sample

DISTURBED = 0.10  # of all processors
_LOOK = 1.0  # seconds
_TRIES = 3
_TICKS = os.sysconf("SC_CLK_TCK")


def busy() -> float:
    """CPU seconds of all processors since the machine was started."""
    user, nice, system, _, _, interrupt, soft, stolen, *_ = map(int, Path("/proc/stat").read_text().split()[1:11])
    return (user + nice + system + interrupt + soft + stolen) / _TICKS


def _share(seconds: float, wall: float) -> float:
    return max(0.0, seconds) / max(wall, 1e-9) / (os.cpu_count() or 1)


@dataclass(slots=True)
class Patience:
    """`left` seconds may be spent on waiting for quiet and on making disturbed transfers again."""

    left: float = 0.0

    def wait_for_quiet(self) -> None:
        """Returns when nobody else has used the processors for a second, or when the patience is used up."""
        while self.left > 0:
            begin, before = time.monotonic(), busy()
            time.sleep(_LOOK)
            wall = time.monotonic() - begin
            if _share(busy() - before, wall) < DISTURBED:
                return
            self.left -= wall

    def undisturbed(self, transfer: Callable[[], Sample]) -> tuple[Sample, float]:
        """A sample, and the share of all processors that others had meanwhile."""
        for tried in range(1, _TRIES + 1):
            self.wait_for_quiet()
            begin, before = time.monotonic(), busy()
            sample = transfer()
            wall = time.monotonic() - begin
            used = sample.sender.cpu + (sample.receiver.cpu if sample.receiver else 0.0)
            others = _share(busy() - before - used, wall)
            if others < DISTURBED or self.left <= 0 or tried == _TRIES:
                break
            self.left -= wall
        return sample, others
