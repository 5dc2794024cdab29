"""The end of a connection: say CLOSE a few times, or until the other side says it, and be gone; and what either side's
last word means to the other."""

from __future__ import annotations

from collections.abc import Mapping

from udpsend.errors import BadPacket, Cancelled, LocalFileError, PeerError, Refused, TransferFailed, UdpsendError
from udpsend.wire.frames import Close, CloseCode

REPEATS = 3
INTERVAL = 0.02  # seconds between two of them
# Characters: written as escapes they still fit into a message of the mailboxes, which says the same where no path does.
MAX_TEXT = 300


class Closing:
    """Idle until `start`."""

    def __init__(self) -> None:
        self._close: Close | None = None
        self._left = 0
        self._next: float | None = None

    @property
    def started(self) -> bool:
        return self._close is not None

    @property
    def over(self) -> bool:
        return self.started and self._left == 0

    def start(self, close: Close, now: float) -> None:
        if self._close is None:
            self._close, self._left, self._next = close, REPEATS, now

    def answer(self, now: float) -> None:
        """The other side has closed: say once that it was heard, so that it need not repeat itself."""
        if self._close is None:
            self._close, self._left, self._next = Close(CloseCode.DONE, ""), 1, now

    def take(self, now: float) -> Close | None:
        """The frame to send now."""
        if self._next is None or now < self._next:
            return None
        self._left -= 1
        self._next = now + INTERVAL if self._left else None
        return self._close

    def timer(self) -> float | None:
        return self._next


def close_of(error: UdpsendError) -> Close:
    """What the other side is told when this side ends with `error`."""
    match error:
        case Cancelled():
            return Close(CloseCode.CANCELLED, "")
        case Refused(told=told):
            return Close(CloseCode.REFUSED, told[:MAX_TEXT])
        case LocalFileError():
            return Close(CloseCode.LOCAL_FILE, str(error)[:MAX_TEXT])
        case _:
            return Close(CloseCode.FAILED, str(error)[:MAX_TEXT])


def error_of(close: Close, is_verified: bool) -> UdpsendError | None:
    """What this side fails with when the other side closed. None: it is done, and the content was verified here."""
    why = f": {close.reason}" if close.reason else "."
    match close.code:
        case CloseCode.DONE if is_verified:
            return None
        case CloseCode.DONE:
            return TransferFailed("The other side ended the transfer before the content was verified.")
        case CloseCode.REFUSED:
            return Refused("The other side declined the file" + why)
        case CloseCode.CANCELLED:
            return Refused("The other side stopped the transfer" + why)
        case CloseCode.LOCAL_FILE:
            return TransferFailed("The other side has a problem with its file or disk" + why)
        case CloseCode.FAILED:
            return TransferFailed("The other side gave up" + why)


def peer_left(payload: Mapping[str, object]) -> UdpsendError:
    """The same from its last message in the mailboxes, where there was no path yet, or none any more."""
    text, number = payload.get("bye"), payload.get("code")
    code = next((code for code in CloseCode if code == number), CloseCode.FAILED)
    why = text[:MAX_TEXT] if isinstance(text, str) else ""
    return error_of(Close(code, why), is_verified=False) or TransferFailed("The other side gave up.")


def unconfirmed() -> Refused:
    """The phrases of both sides were not compared, or differ."""
    why = (
        "nobody confirmed that both sides show the same phrase. "
        "If they differ, somebody stands between the two: take another code."
    )
    return Refused(f"Stopped: {why}", told=why)


def silent(seconds: float, in_order: bool) -> TransferFailed:
    """Nothing was heard for so long. `in_order`: nothing of it can be resumed."""
    rest = "What comes in order cannot be resumed: begin anew."
    if not in_order:
        rest = "What has arrived is kept: run the same commands again."
    return TransferFailed(
        f"Nothing was heard from the other side for {seconds:.0f} s: its network or this one is gone, or it was "
        f"switched off. {rest}"
    )


def broken(reason: BadPacket) -> PeerError:
    """What the peer sealed cannot be taken."""
    return PeerError(
        f"The other side does not keep to the protocol ({reason}): another version of udpsend, or a fault in it. "
        "Take the same version on both sides and try again."
    )
