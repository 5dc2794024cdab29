"""Which numbers were seen already: a window of bits that slides (RFC 4303, section 3.4.3)."""

from __future__ import annotations

WINDOW = 1024  # numbers; what is older than that counts as seen


class ReplayWindow:
    """Ask `is_new` before opening, which is cheap; call `take` after authentication only, or a forged number would
    push the window past the true ones."""

    def __init__(self) -> None:
        self._highest = -1
        self._seen = 0  # bit i: number highest - i

    def is_new(self, number: int) -> bool:
        behind = self._highest - number
        return behind < 0 or (behind < WINDOW and not self._seen >> behind & 1)

    def take(self, number: int) -> None:
        ahead = number - self._highest
        if ahead > 0:
            self._seen = (self._seen << min(ahead, WINDOW) | 1) & ((1 << WINDOW) - 1)
            self._highest = number
        else:
            self._seen |= 1 << -ahead
