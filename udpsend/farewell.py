"""What is said when one side gives up: the last word to the other, and what its last word means here."""

from __future__ import annotations

from collections.abc import Mapping

from udpsend.errors import Cancelled, NoDirectPath, Refused, UdpsendError
from udpsend.transfer.closing import close_of
from udpsend.wire.frames import Close, CloseCode


def last_word(error: UdpsendError) -> Close:
    if isinstance(error, Cancelled):
        return Close(CloseCode.CANCELLED, "")
    if isinstance(error, Refused):
        return Close(CloseCode.REFUSED, "")
    return close_of(error)


def peer_left(payload: Mapping[str, object]) -> UdpsendError:
    """From its last message in the mailboxes, where there was no path yet."""
    if payload.get("code") == CloseCode.CANCELLED:
        return Refused("The other side stopped the transfer.")
    text = payload.get("bye")
    return NoDirectPath(f"The other side gave up: {text if isinstance(text, str) and text else 'no reason given'}")
