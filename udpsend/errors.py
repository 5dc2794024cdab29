"""Every way in which udpsend can fail, by whose fault it is.

The text of a `UdpsendError` is what the user reads: what happened, whose fault it may be, what to do, in one or two
lines. Its `exit_code` is the exit code of the command. `BadPacket` never reaches a user: it is how a parser of
network bytes says that they are not to be believed, and its reason is counted by whoever drops them.
Anything else that comes out of udpsend is a bug of ours.
"""

from __future__ import annotations

from typing import ClassVar


class BadPacket(Exception):
    """Bytes from the network that are not what they claim to be. Raised by functions ending in `_untrusted` only."""


class UdpsendError(Exception):
    """The base of all errors that are shown to a user."""

    exit_code: ClassVar[int] = 1


class TransferFailed(UdpsendError):
    """The two sides had met, and the transfer failed: the path died, or the content did not verify."""


class PeerError(TransferFailed):
    """The other side broke the protocol: another version, a bug there, or somebody who means harm."""


class UsageError(UdpsendError):
    """The caller asked for something that cannot be."""

    exit_code = 2


class PeerNeverCame(UdpsendError):
    """Nobody with the same code came within the timeout."""

    exit_code = 3


class WrongCode(UdpsendError):
    """Somebody came, and their code was another one: a typing error, or a guess."""

    exit_code = 4


class NoDirectPath(UdpsendError):
    """Both sides met, and no pair of their addresses let a datagram through both ways."""

    exit_code = 5


class Refused(UdpsendError):
    """The other side said no: it declined the offer, or stopped the transfer."""

    exit_code = 6

    def __init__(self, text: str = "", told: str = "") -> None:
        """`told` is why, for the other side."""
        super().__init__(text)
        self.told = told


class LocalFileError(UdpsendError):
    """This side's file or disk: not found, not readable, exists already, full, or changed while it was sent."""

    exit_code = 7


class Cancelled(UdpsendError):
    """The user of this side stopped it (Ctrl-C), or a caller of the library (`cancel`)."""

    exit_code = 130
