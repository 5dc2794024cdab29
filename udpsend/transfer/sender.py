"""The sending end's part of the dialogue: offer, which bytes go next, finished, verified.

Offsets of DATA: a manifest that does not go with the offer takes the first `base` of them, the files those behind it.
Everything else here and outside counts from the first byte of the files.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from udpsend.errors import BadPacket
from udpsend.transfer.control_stream import ControlSender, Message
from udpsend.transfer.messages import (
    BlocksNeeded,
    ConnectionEvent,
    OfferAccepted,
    PeerVerified,
    hashes_message,
    parse_ahead_untrusted,
    parse_background_untrusted,
    parse_digest_untrusted,
    parse_left_out_untrusted,
    parse_limit_untrusted,
    parse_ranges_untrusted,
)
from udpsend.transfer.sent_records import SentRecord
from udpsend.wire.frames import DATA_HEADER_SIZE
from udpsend.wire.json import JSON
from udpsend.wire.ranges import MAX_BLOCKS, RangeSet


class ReadsRanges(Protocol):
    """Where the bytes come from. The file is the send buffer: what is lost is read again."""

    def read(self, start: int, stop: int) -> memoryview | None:
        """DATA_HEADER_SIZE bytes that may be overwritten, then those from `start` of the transfer's byte space, at most
        up to `stop`; None if they are not there yet. Valid until the next call. Raises LocalFileError."""


Select = Callable[[bytes], int]


class Sender:
    def __init__(
        self,
        source: ReadsRanges,
        size: int | None,
        manifest: JSON,
        control: ControlSender,
        events: deque[ConnectionEvent],
        packed: bytes = b"",
        select: Select | None = None,
        outstanding: Iterable[SentRecord] = (),
    ) -> None:
        """`size` is None for a stream, of which `grow` tells how much there is; nothing of it can be asked for again.
        `packed` is the manifest, if it does not go with the offer; `select(left_out)` leaves out what the receiver
        does not want, returns the bytes that remain, and raises BadPacket. `outstanding`: what is on its way now."""
        self._source = source
        self._control = control
        self._events = events
        self._packed = packed
        self._base = len(packed)
        self._select = select
        self._outstanding = outstanding
        self._listing = False
        self._accepted = False
        self._digest: bytes | None = None
        self._is_known = False  # some of it, to the receiver, from an earlier attempt
        self._is_verified = False
        self._unsent = RangeSet()
        self._delivered = RangeSet()
        self._never_sent = RangeSet()  # of what is delivered
        self._is_stream = size is None
        self.total = size or 0
        """Of a stream what has been read so far, until `digest_ready`."""
        self._ahead: int | None = None
        self.limit = math.inf
        """Bytes per second that the receiver wants at the most."""
        self.background = False
        """The receiver wants others on the path to come first."""
        control.queue({"type": "offer", "manifest": manifest})

    @property
    def done(self) -> int:
        """Bytes that are known to be with the receiver."""
        return self._delivered.total - self._base if self._accepted else 0

    @property
    def known_total(self) -> int | None:
        return None if self._is_stream and self._digest is None else self.total

    @property
    def in_order(self) -> bool:
        """Whether it comes from where it comes once, or goes where nothing can be put in its place later."""
        return self._is_stream or self._ahead is not None

    @property
    def floor(self) -> int:
        """The receiver has all bytes below it."""
        return next(self._delivered.gaps(self._base, self._base + self.total + 1))[0] - self._base

    def grow(self, size: int) -> None:
        """`size` bytes of the stream have been read so far. Not before it was accepted."""
        self._unsent.add(self._base + self.total, self._base + size)
        self.total = size

    @property
    def control_backlog(self) -> int:
        """Bytes of control messages that the other side has not acknowledged."""
        return self._control.backlog

    @property
    def pending(self) -> bool:
        """Whether there are bytes to send now."""
        return bool(self._unsent)

    @property
    def unfinished(self) -> bool:
        """Whether bytes are to be sent or on their way."""
        if self._accepted:
            return self.done < self.total
        return self._listing and self._delivered.total < self._base

    def message_received_untrusted(self, message: Message) -> None:
        """Raises BadPacket."""
        match message["type"]:
            case "list" if self._packed and not self._listing and not self._accepted:
                self._listing = True
                self._unsent.add(0, self._base)
            case "accept" if not self._accepted:
                self._accepted_untrusted(message)
            case "verified" if self._accepted and self._digest is not None and not self._is_verified:
                # It may overtake the last acknowledgements, and says more than they do.
                digest = parse_digest_untrusted(message)
                if digest != self._digest and not self._is_known:
                    raise BadPacket("it verified something else")
                self._is_verified = True
                self._unsent.clear()
                self._delivered.add(0, self._base + self.total)
                self._events.append(PeerVerified(digest))
            case "need" if self._accepted and not self._is_stream:
                ranges = parse_ranges_untrusted(message.get("ranges"), self.total)
                self._send_again_untrusted(RangeSet((self._base + start, self._base + stop) for start, stop in ranges))
                self._events.append(BlocksNeeded(tuple(ranges)))
            case _:
                raise BadPacket("unexpected message")

    def _accepted_untrusted(self, message: Message) -> None:
        left_out = parse_left_out_untrusted(message)
        if left_out:
            if self._select is None:
                raise BadPacket("left out")
            self.total = self._select(left_out)
        present = parse_ranges_untrusted(message.get("present"), self.total)
        known = parse_ranges_untrusted(message.get("known", []), MAX_BLOCKS)
        self._ahead = parse_ahead_untrusted(message)
        self.limit = parse_limit_untrusted(message)
        self.background = parse_background_untrusted(message)
        self._accepted, self._is_known = True, bool(known)
        self._unsent.clear()
        self._delivered.add(0, self._base)
        missing = tuple(present.gaps(0, self.total))
        for start, stop in present:
            self._delivered.add(self._base + start, self._base + stop)
            self._never_sent.add(self._base + start, self._base + stop)
        for start, stop in missing:
            self._unsent.add(self._base + start, self._base + stop)
        self._events.append(OfferAccepted(self.done, missing, tuple(known)))
        self._say_finished()

    def _send_again_untrusted(self, ranges: RangeSet) -> None:
        # What is on its way of them was sent before: when it is acknowledged, that says nothing of what is sent now.
        # A look at thousands of records, but not for what was present and differs, a thousand times a second.
        was_sent = RangeSet(gap for piece in ranges for gap in self._never_sent.gaps(*piece))
        for record in self._outstanding if was_sent else ():
            if record.data is not None and was_sent.overlaps(*record.data):
                self.on_lost(*record.data)  # the rest of it goes again, too
                record.data = None
        for start, stop in ranges:
            self._never_sent.subtract(start, stop)
            self._delivered.subtract(start, stop)
            self._unsent.add(start, stop)
        if len(self._unsent) > MAX_BLOCKS:
            raise BadPacket("more is needed than there are blocks")

    def hashes_ready(self, first: int, hashes: bytes) -> None:
        """Of consecutive blocks."""
        self._control.queue(hashes_message(first, hashes))

    def digest_ready(self, digest: bytes) -> None:
        """The BLAKE3 of everything that was read."""
        self._digest = digest
        self._say_finished()

    def _say_finished(self) -> None:
        if self._accepted and self._digest is not None:
            message: Message = {"type": "finished", "digest": self._digest.hex()}
            if self._is_stream:
                message["size"] = self.total
            self._control.queue(message)

    def take(self, limit: int) -> tuple[int, memoryview] | None:
        """(start, plaintext of a DATA record without its header written) of at most `limit` bytes to send next, or None
        when there are none, the file is not there yet, or the receiver has no place for it. Raises LocalFileError."""
        if not self.pending:
            return None
        start, stop = self._unsent.peek_first(limit)
        if self._ahead is not None and stop > (missing := self._base + self.floor) + self._ahead:
            if start > missing:  # what is on its way makes room for a whole record
                return None
            stop = missing + self._ahead
        if start < self._base:
            plaintext: memoryview | None = self._read_packed(start, min(stop, self._base))
        else:
            plaintext = self._source.read(start - self._base, stop - self._base)
        if plaintext is not None:
            self._unsent.pop_first(len(plaintext) - DATA_HEADER_SIZE)
            return start, plaintext
        return None

    def _read_packed(self, start: int, stop: int) -> memoryview:
        return memoryview(bytearray(DATA_HEADER_SIZE) + self._packed[start:stop])

    def on_acked(self, start: int, stop: int) -> None:
        self._delivered.add(start, stop)
        self._unsent.subtract(start, stop)  # it had been taken for lost

    def on_lost(self, start: int, stop: int) -> None:
        for gap in list(self._delivered.gaps(start, stop)):
            self._unsent.add(*gap)
