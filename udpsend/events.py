"""What happens, as values: `send` and `receive` pass each to `on_event`, and the display is built on these alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from msgspec import Struct


class PathKind(Enum):
    """How direct a path is, best first. The value is what a user reads."""

    THIS_HOST = "this host"
    LOCAL_NETWORK = "local network"
    IPV6 = "internet, IPv6"
    INTERNET = "internet, through NAT"
    RELAYED = "relayed"


class CodeReady(Struct, frozen=True):
    """The code to tell the other side. Comes first, before anything is opened."""

    code: str
    weak: str | None = None
    """Why the code is easy to guess, as a warning for the user; None if it is not."""


class NoRoom(Struct, frozen=True):
    """On the receiving side, before anybody comes: no file could be put into the directory, and why. A text can be
    received all the same."""

    reason: str


class MeetingPlace(Struct, frozen=True):
    """A mailbox came up or went down. `name` is its URL without a password, or `local network`."""

    name: str
    up: bool
    detail: str = ""


class PublicAddress(Struct, frozen=True):
    """A STUN server told this side's address as seen from the internet, or (`address` None) why not is in `detail`."""

    server: str
    address: tuple[str, int] | None
    detail: str = ""


class PortMapped(Struct, frozen=True):
    """The router mapped a port to this side, by `protocol`; or it did not (`address` None, and why not)."""

    protocol: str
    address: tuple[str, int] | None
    detail: str = ""


class RelayReady(Struct, frozen=True):
    """The relay gave this side an address; or it did not, or takes it away (`address` None, and why)."""

    relay: str
    address: tuple[str, int] | None
    detail: str = ""


class TextToCarry(Struct, frozen=True):
    """To be carried to the other side by hand, where there is no meeting place: 1 is the sender's, 2 is the
    receiver's."""

    number: int
    text: str


class TextRejected(Struct, frozen=True):
    """What was given as text `number` is not that text, and why."""

    number: int
    reason: str


class WrongGuess(Struct, frozen=True):
    """Somebody came with another code. After `remaining` more of them this side gives up."""

    remaining: int


class PeerMet(Struct, frozen=True):
    """The other side is there and knows the code. `phrase` is the same on both sides if nobody stands between."""

    phrase: str


class PathLost(Struct, frozen=True):
    """Nothing is heard from the other side any more. Another path is looked for, for minutes, and comes as another
    PathFound; if the old one comes back by itself, it is used."""


class PathFound(Struct, frozen=True):
    """The path that is used from here on: a direct one, or RELAYED where that was allowed. `round_trip` in seconds."""

    kind: PathKind
    address: tuple[str, int]
    round_trip: float


class OfferLate(Struct, frozen=True):
    """There is a path, and nothing is offered yet: the sender still goes through what it sends, which may take minutes,
    or is asked for the phrase."""


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
    holes: int = 0
    """Bytes of `size` that are holes of sparse files: they are not sent, and take no place."""


class Skipped(Struct, frozen=True):
    """The sender does not send `count` things that it was asked for; of the first ones the paths, and why. Both from
    the other side, on the receiving one."""

    count: int
    first: tuple[tuple[str, str], ...]


class Preparing(Struct, frozen=True):
    """On the receiving side, which said yes: before anything is sent it has work to do that takes seconds. It copies
    what is replaced in part, makes directories, or waits for a slow disk."""


class Accepted(Struct, frozen=True):
    """The receiver said yes. `already` bytes are there, of an earlier attempt or of the file that is replaced; of these
    only what differs is sent."""

    already: int = 0


class Progress(Struct, frozen=True):
    """`done` of `total` bytes have arrived at the receiver (acknowledged, on the sending side). `total` is None while
    a stream goes on."""

    done: int
    total: int | None


class Verifying(Struct, frozen=True):
    """All bytes are there; the hashes are being compared."""


class Verified(Struct, frozen=True):
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
    holes: int = 0
    """Bytes of `size` that are holes of sparse files."""
    others: int = 0
    """What was offered beside `name`, not counting what is in directories."""


class TextReceived(Struct, frozen=True):
    """A message from the other side, verified; Verified comes next, and the other side is told, when `on_event` has
    taken it. Escape it before printing."""

    text: str


class Statistics(Struct, frozen=True):
    """Counters at the end, for `-v` and for tests: datagrams, records, losses, drops by reason."""

    counters: dict[str, float]


Event = (
    CodeReady
    | NoRoom
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
    | OfferLate
    | Offered
    | Skipped
    | Preparing
    | Accepted
    | Progress
    | Verifying
    | Verified
    | TextReceived
    | Statistics
)
