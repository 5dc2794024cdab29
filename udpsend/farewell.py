"""What is said when one side gives up: the last word to the other, and what its last word means here."""

from __future__ import annotations

from collections.abc import Mapping

from udpsend.errors import Cancelled, Refused, TransferFailed, UdpsendError
from udpsend.transfer.closing import MAX_TEXT, close_of, error_of
from udpsend.wire.frames import Close, CloseCode


def last_word(error: UdpsendError) -> Close:
    if isinstance(error, Cancelled):
        return Close(CloseCode.CANCELLED, "")
    if isinstance(error, Refused):
        return Close(CloseCode.REFUSED, "")
    return close_of(error)


def peer_left(payload: Mapping[str, object]) -> UdpsendError:
    """From its last message in the mailboxes, where there was no path yet, or none any more: the same as from CLOSE."""
    text, number = payload.get("bye"), payload.get("code")
    code = next((code for code in CloseCode if code == number), CloseCode.FAILED)
    why = text[:MAX_TEXT] if isinstance(text, str) else ""
    return error_of(Close(code, why), is_verified=False) or TransferFailed("The other side gave up.")
