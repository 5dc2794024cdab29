"""What punching wants of its owner, and what it comes to."""

from __future__ import annotations

from msgspec import Struct

from udpsend.events import PathKind
from udpsend.wire.datagram import Address


class Path(Struct, frozen=True):
    """A remote address that works both ways, from the socket `local`. `round_trip` in seconds, the best that was
    measured."""

    address: Address
    kind: PathKind
    round_trip: float
    local: int = 0


class PathValidated(Struct, frozen=True):
    """Both sides agree on this path. Comes once."""

    path: Path


class SocketsWanted(Struct, frozen=True):
    """Open so many more IPv4 sockets, and tell the puncher. All but that of the path may be closed after the end."""

    count: int


class SocketChosen(Struct, frozen=True):
    """Of the sockets that were opened, `local` is needed further (0: none)."""

    local: int


class CandidatesWanted(Struct, frozen=True):
    """Gather this side's addresses again, and tell the negotiation."""

    by_peer: bool
    """It is the peer that looks for a path; so the mailboxes work."""


class PunchFailed(Struct, frozen=True):
    """No path within the timeout. `tried` addresses of the peer were probed; from `heard` of all addresses authentic
    probes of the peer came."""

    tried: int
    heard: int
    own: frozenset[int] = frozenset({4})
    peer: frozenset[int] = frozenset({4})
    """The IP versions of the addresses that each has told, those of one host aside."""
