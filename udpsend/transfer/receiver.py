"""The receiving end's part of the dialogue: accept, where the bytes go, when they are all there."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from udpsend.errors import BadPacket, PeerError
from udpsend.transfer.control_stream import ControlSender, Message
from udpsend.transfer.messages import (
    ConnectionEvent,
    ContentArrived,
    HashesArrived,
    ManifestArrived,
    OfferReceived,
    accept_message,
    need_messages,
    parse_digest_untrusted,
    parse_hashes_untrusted,
    parse_size_untrusted,
)
from udpsend.wire.datagram import MAX_TRAIN_SIZE
from udpsend.wire.frames import DATA_HEADER_SIZE
from udpsend.wire.ranges import RangeSet

MAX_PIECES = 1 << 16  # of a manifest, with gaps between them


class WritesRanges(Protocol):
    """Where the bytes go."""

    @property
    def received(self) -> int:
        """Bytes that are there, those of earlier attempts included."""

    @property
    def is_full(self) -> bool:
        """Whether the sender had better wait."""

    def room(self) -> memoryview | None:
        """Where to open the next record: DATA_HEADER_SIZE bytes for its header, then its data. None: there is no
        room now. Raises UdpsendError."""

    def write(self, offset: int, size: int) -> int:
        """The latest room holds `size` bytes that belong at `offset`. How many were new. Raises UdpsendError."""


class _Packed:
    """The sink of a manifest: memory."""

    def __init__(self, size: int) -> None:
        self.content = bytearray(size)
        self._have = RangeSet()
        self._room = memoryview(bytearray(DATA_HEADER_SIZE + MAX_TRAIN_SIZE))

    @property
    def received(self) -> int:
        return self._have.total

    @property
    def is_full(self) -> bool:
        return False

    def room(self) -> memoryview:
        return self._room

    def write(self, offset: int, size: int) -> int:
        self.content[offset : offset + size] = self._room[DATA_HEADER_SIZE : DATA_HEADER_SIZE + size]
        added = self._have.add(offset, offset + size)
        if len(self._have) > MAX_PIECES:
            raise PeerError("The other side sends the list of files in too many pieces.")
        return added


class Receiver:
    def __init__(
        self,
        control: ControlSender,
        events: deque[ConnectionEvent],
        limit: float | None = None,
        background: bool = False,
    ) -> None:
        """`limit`: bytes per second that the sender is told not to exceed; `background`: it is to yield to others."""
        self._control = control
        self._limit, self._background = limit, background
        self._events = events
        self._offered = False
        self._packed: _Packed | None = None
        self._listed = False
        self._base = 0  # bytes of the manifest, before those of the files
        self._sink: WritesRanges | None = None
        self._digest: bytes | None = None
        self._reported = False
        self.total = 0
        self._is_open = False  # how much comes is not known yet
        self.in_order = False
        """Whether it goes where nothing can be put in its place later."""

    @property
    def known_total(self) -> int | None:
        return None if self._is_open else self.total

    @property
    def done(self) -> int:
        return self._sink.received if self._sink is not None else 0

    def message_received_untrusted(self, message: Message) -> None:
        """Raises BadPacket."""
        match message["type"]:
            case "offer" if not self._offered:
                self._offered = True
                self._events.append(OfferReceived(message.get("manifest")))
            case "hashes" if self._sink is not None:
                self._events.append(HashesArrived(*parse_hashes_untrusted(message)))
            case "finished" if self._sink is not None and self._digest is None:
                self._digest = parse_digest_untrusted(message)
                if self._is_open:
                    self._is_open = False
                    self.total = parse_size_untrusted(message)
                    if self.done > self.total:
                        raise BadPacket("size")
                self._report()
            case _:
                raise BadPacket("unexpected message")

    def ask_list(self, size: int) -> None:
        """Ask for the manifest, of `size` bytes; ManifestArrived comes when it is there."""
        self._base = size
        self._packed = _Packed(size)
        self._control.queue({"type": "list"})

    def accept(
        self,
        sink: WritesRanges,
        size: int | None,
        present: RangeSet,
        left_out: bytes = b"",
        known: RangeSet | None = None,
        ahead: int | None = None,
    ) -> None:
        """Start receiving `size` bytes (None: of a stream, which says it at its end; `ahead`: at most so many past the
        first that is missing), of which `present` are in the sink already; of the blocks `known` no hash is
        needed; `left_out` is not wanted."""
        self._sink = sink
        self._packed = None
        self._is_open = size is None
        self.total = size or 0
        self.in_order = ahead is not None
        known = known or RangeSet()
        self._control.queue(accept_message(present, left_out, known, ahead, self._limit, self._background))

    def need(self, ranges: RangeSet) -> None:
        """These differ from what the sender has, and have to come again."""
        for message in need_messages(ranges):
            self._control.queue(message)

    def verified(self, digest: bytes) -> None:
        """The sink's hash is the sender's; `digest` is that of all blocks."""
        self._control.queue({"type": "verified", "digest": digest.hex()})

    @property
    def is_full(self) -> bool:
        return self._sink is not None and self._sink.is_full

    def room(self) -> memoryview | None:
        """Where to open a record that may carry data; None: nowhere now. Raises UdpsendError."""
        sink = self._sink or self._packed
        return sink.room() if sink is not None else None

    def check_untrusted(self, offset: int, size: int) -> None:
        """Raises BadPacket for data outside of what was offered."""
        if self._is_open:
            return  # the sink bounds it
        limit = self._base + self.total if self._sink is not None else self._base
        if offset + size > limit or offset < self._base < offset + size:
            raise BadPacket("data outside of the transfer")

    def data_received(self, offset: int, size: int) -> None:
        """The latest room was filled with data that was checked. Raises UdpsendError (from the sink)."""
        if self._packed is not None:
            self._packed.write(offset, size)
            if self._packed.received == self._base and not self._listed:
                self._listed = True
                self._events.append(ManifestArrived(bytes(self._packed.content)))
        elif self._sink is not None and offset >= self._base:  # what is below came twice
            self._sink.write(offset - self._base, size)
        if self._digest is not None:
            self._report()

    def _report(self) -> None:
        if self._digest is not None and self.done == self.total and not self._reported:
            self._reported = True
            self._events.append(ContentArrived(self._digest))
