"""The control stream: a reliable, ordered sequence of JSON messages in each direction, beside the data.

A message is its length as u32 and its JSON in UTF-8. Pieces that are lost are sent again by range, as with data.
"""

from __future__ import annotations

import json
import struct

from udpsend.errors import BadPacket
from udpsend.wire.json import JSON
from udpsend.wire.ranges import RangeSet

# The longest is an `accept`: two lists of ranges.MAX_TOLD ranges and MAX_LEFT_OUT in base64 are 420 KB at most.
MAX_MESSAGE = 512 * 1024
WINDOW = 2 * MAX_MESSAGE  # what may arrive ahead of what is complete,
MAX_PIECES = 4096  # in so many ranges: each is looked for among all, and moves those behind it

_LENGTH = struct.Struct("!I")
# What is acknowledged may be of a message that is not complete, and so not count for the window.
_AHEAD = WINDOW - MAX_MESSAGE - _LENGTH.size

Message = dict[str, JSON]


class ControlSender:
    """Outgoing half. What is acknowledged is let go; no more leaves before than the other side takes."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._base = 0
        self._unsent = RangeSet()
        self._acked = RangeSet()

    def queue(self, message: Message) -> None:
        data = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()
        start = self._base + len(self._buffer)
        self._buffer += _LENGTH.pack(len(data)) + data
        self._unsent.add(start, self._base + len(self._buffer))

    @property
    def pending(self) -> bool:
        """Whether there is something to send now."""
        return bool(self._unsent) and self._unsent.first < self._base + _AHEAD

    @property
    def backlog(self) -> int:
        """Bytes that are not acknowledged."""
        return len(self._buffer)

    @property
    def all_acked(self) -> bool:
        return not self._buffer

    def take(self, limit: int) -> tuple[int, bytes] | None:
        """The next piece to send, as (offset, bytes)."""
        if not self.pending:
            return None
        start, stop = self._unsent.pop_first(min(limit, self._base + _AHEAD - self._unsent.first))
        return start, bytes(self._buffer[start - self._base : stop - self._base])

    def on_acked(self, start: int, stop: int) -> None:
        self._acked.add(start, stop)
        self._unsent.subtract(start, stop)  # it had been taken for lost
        first, done = next(iter(self._acked))
        if first == 0:
            del self._buffer[: done - self._base]
            self._base = done

    def on_lost(self, start: int, stop: int) -> None:
        for gap in list(self._acked.gaps(start, stop)):
            self._unsent.add(*gap)


class ControlReceiver:
    """Incoming half: pieces in any order -> messages in order."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._base = 0
        self._have = RangeSet()

    def add_untrusted(self, offset: int, data: bytes) -> list[Message]:
        """The messages that this piece completes. Raises BadPacket."""
        stop = offset + len(data)
        if stop > self._base + WINDOW:
            raise BadPacket("control stream beyond its window")
        if stop <= self._base:
            return []
        if offset < self._base:
            data = data[self._base - offset :]
            offset = self._base
        end = stop - self._base
        if end > len(self._buffer):
            self._buffer.extend(bytes(end - len(self._buffer)))
        self._buffer[offset - self._base : end] = data
        self._have.add(offset, stop)
        if len(self._have) > MAX_PIECES:
            raise BadPacket("control stream in too many pieces")
        return self._complete_untrusted()

    def _complete_untrusted(self) -> list[Message]:
        messages = []
        while self._have.covers(self._base, self._base + _LENGTH.size):
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_MESSAGE:
                raise BadPacket("control message too long")
            size = _LENGTH.size + length
            if not self._have.covers(self._base, self._base + size):
                break
            messages.append(_parse_message_untrusted(bytes(self._buffer[_LENGTH.size : size])))
            del self._buffer[:size]
            self._base += size
        return messages


def _parse_message_untrusted(data: bytes) -> Message:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadPacket("control message is no JSON") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise BadPacket("control message without a type")
    return message
