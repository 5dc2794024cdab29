"""What happens, as values: `send` and `receive` pass each to `on_event`, and the display is built on these alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum


class PathKind(Enum):
    """How direct a path is, best first. The value is what a user reads."""

    THIS_HOST = "this host"
    LOCAL_NETWORK = "local network"
    IPV6 = "internet, IPv6"
    INTERNET = "internet, through NAT"
    RELAYED = "relayed"


@dataclass(frozen=True, slots=True)
class CodeReady:
    """The code to tell the other side. Comes first, before anything is opened."""

    code: str
    weak: str | None = None
    """Why the code is easy to guess, as a warning for the user; None if it is not."""


@dataclass(frozen=True, slots=True)
class MeetingPlace:
    """A mailbox came up or went down. `name` is its URL without a password, or `local network`."""

    name: str
    up: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PublicAddress:
    """A STUN server told this side's address as seen from the internet, or (`address` None) did not answer."""

    server: str
    address: tuple[str, int] | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PortMapped:
    """The router mapped a port to this side, by `protocol`; or it did not (`address` None, and why not)."""

    protocol: str
    address: tuple[str, int] | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RelayReady:
    """The relay gave this side an address; or it did not, or takes it away (`address` None, and why)."""

    relay: str
    address: tuple[str, int] | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TextToCarry:
    """To be carried to the other side by hand, where there is no meeting place: 1 and 3 are the sender's, 2 is the
    receiver's."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class TextRejected:
    """What was given as text `number` is not that text, and why."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class WrongGuess:
    """Somebody came with another code. After `remaining` more of them this side gives up."""

    remaining: int


@dataclass(frozen=True, slots=True)
class PeerMet:
    """The other side is there and knows the code. `phrase` is the same on both sides if nobody stands between."""

    phrase: str


@dataclass(frozen=True, slots=True)
class PathLost:
    """Nothing is heard from the other side any more. Another path is looked for, for minutes, and comes as another
    PathFound; if the old one comes back by itself, it is used."""


@dataclass(frozen=True, slots=True)
class PathFound:
    """The path that is used from here on: a direct one, or RELAYED where that was allowed. `round_trip` in seconds."""

    kind: PathKind
    address: tuple[str, int]
    round_trip: float


@dataclass(frozen=True, slots=True)
class Offered:
    """What the sender offers. `name` comes from the other side: escape it before printing."""

    name: str
    """The first of it."""
    size: int | None
    """None: a stream, such as standard input, of which nobody knows it yet."""
    files: int = 1
    directories: int = 0
    links: int = 0
    listing: Iterable[tuple[str, int | None]] = field(default=(), repr=False, compare=False)
    """All of it, as often as it is gone through: paths, with the size of those that are files. From the other side."""
    is_text: bool = False
    """A message, and no file; it comes as TextReceived."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """The sender does not send `count` things that it was asked for; of the first ones the paths, and why. Both from
    the other side, on the receiving one."""

    count: int
    first: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The receiver said yes. `already` bytes of an earlier attempt are there and are not sent again."""

    already: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` bytes have arrived at the receiver (acknowledged, on the sending side). `total` is None while
    a stream goes on."""

    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Verifying:
    """All bytes are there; the hashes are being compared."""


@dataclass(frozen=True, slots=True)
class Verified:
    """The content at the receiver is the content that was read. `digest` is its BLAKE3 in hex."""

    name: str
    size: int
    seconds: float
    digest: str
    path: str | None = None
    """Where it is now, on the receiving side."""
    files: int = 1
    skipped: int = 0
    """What the sender could not send; everything else is there."""
    left_out: int = 0
    """Files that the receiver had already."""


@dataclass(frozen=True, slots=True)
class TextReceived:
    """A message from the other side, verified; Verified comes next. Escape it before printing."""

    text: str


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counters at the end, for `-v` and for tests: datagrams, records, losses, drops by reason."""

    counters: dict[str, float]


Event = (
    CodeReady
    | MeetingPlace
    | PublicAddress
    | PortMapped
    | RelayReady
    | TextToCarry
    | TextRejected
    | WrongGuess
    | PeerMet
    | PathLost
    | PathFound
    | Offered
    | Skipped
    | Accepted
    | Progress
    | Verifying
    | Verified
    | TextReceived
    | Statistics
)
