"""How long to look for a path: to the end where one may still come up, and not so long where none can.

What comes up without a search does so in the first two seconds, in all networks of the laboratory. So the wait may be
short where nothing else is left: no search helps (`reasons.py`), or the two have no IP version in common; nobody has a
mapped or a relayed address or waits for one, and not both sides have IPv6.
"""

from __future__ import annotations

from collections.abc import Iterable

from udpsend.punching.behaviour import NatBehaviour
from udpsend.punching.reasons import is_hopeless
from udpsend.wire.candidate import Candidate, CandidateType

PUNCH_TIMEOUT = 11.5  # seconds; with what it takes to say so, the answer is there within 12
GRACE = 2.0  # seconds for the CONFIRM of a nomination that came just before the timeout
HOPELESS = 5.0  # seconds
SETTLE = 2.0  # seconds after the latest candidate, for plain punching


class Deadline:
    """`has_more`: another way than plain punching may come up, such as a relay that is not connected yet."""

    def __init__(self, start: float, timeout: float, *, has_more: bool) -> None:
        self._start = start
        self._at = start + timeout
        self._last = self._at + 2 * GRACE
        self._has_more = has_more
        self._is_hopeless = False
        self._versions: dict[bool, set[int]] = {True: set(), False: set()}
        self._latest = start

    def nominated(self, now: float) -> None:
        """It is about to succeed."""
        self._at = max(self._at, min(now + GRACE, self._last))

    def candidates_known(self, candidates: Iterable[Candidate], now: float, *, own: bool) -> None:
        for candidate in candidates:
            self._latest = now
            if candidate.type is not CandidateType.LOOPBACK:
                self._versions[own].add(6 if candidate.is_ipv6 else 4)
            self._has_more |= candidate.type in (CandidateType.MAPPED, CandidateType.RELAYED)

    def versions(self) -> tuple[frozenset[int], frozenset[int]]:
        """IP versions of the addresses that this side and the other have told."""
        return frozenset(self._versions[True]), frozenset(self._versions[False])

    def behaviours_known(self, own: NatBehaviour, peer: NatBehaviour) -> None:
        self._is_hopeless = is_hopeless(own, peer)

    def at(self, *, is_heard: bool) -> float:
        """When to give up. `is_heard`: something of the peer has arrived."""
        own, peer = self.versions()
        is_hopeless = self._is_hopeless or (own and peer and not own & peer)
        if is_heard or self._has_more or 6 in own & peer or not is_hopeless:
            return self._at
        return min(self._at, max(self._start + HOPELESS, self._latest + SETTLE))
