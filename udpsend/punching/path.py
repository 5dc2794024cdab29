"""What punching comes to."""

from __future__ import annotations

from dataclasses import dataclass

from udpsend.events import PathKind
from udpsend.wire.datagram import Address


@dataclass(frozen=True, slots=True)
class Path:
    """A remote address that works both ways, from the socket `local`. `round_trip` in seconds, the best that was
    measured."""

    address: Address
    kind: PathKind
    round_trip: float
    local: int = 0


@dataclass(frozen=True, slots=True)
class PathValidated:
    """Both sides agree on this path. Comes once."""

    path: Path


@dataclass(frozen=True, slots=True)
class SocketsWanted:
    """Open so many more IPv4 sockets, and tell the puncher. All but that of the path may be closed after the end."""

    count: int


@dataclass(frozen=True, slots=True)
class PunchFailed:
    """No path within the timeout. `tried` addresses of the peer were probed; from `heard` of all addresses authentic
    probes of the peer came; `answered` answered ours."""

    tried: int
    heard: int
    answered: int
