"""The receiving end's part of the dialogue: accept, where the bytes go, when they are all there."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from udpsend.errors import BadPacket
from udpsend.transfer.control_stream import ControlSender, Message
from udpsend.transfer.messages import (
    ConnectionEvent,
    ContentArrived,
    OfferReceived,
    accept_message,
    parse_digest_untrusted,
)
from udpsend.wire.ranges import RangeSet


class WritesRanges(Protocol):
    """Where the bytes go."""

    def write(self, offset: int, view: memoryview) -> None:
        """Take these bytes; the view is only valid during the call. Raises LocalFileError."""


class Receiver:
    def __init__(self, control: ControlSender, events: deque[ConnectionEvent]) -> None:
        self._control = control
        self._events = events
        self._offered = False
        self._sink: WritesRanges | None = None
        self._digest: bytes | None = None
        self._have = RangeSet()
        self._reported = False
        self.total = 0

    @property
    def done(self) -> int:
        return self._have.total

    def message_received_untrusted(self, message: Message) -> None:
        """Raises BadPacket."""
        match message["type"]:
            case "offer" if not self._offered:
                self._offered = True
                self._events.append(OfferReceived(message.get("manifest")))
            case "finished" if self._sink is not None and self._digest is None:
                self._digest = parse_digest_untrusted(message)
                self._report()
            case _:
                raise BadPacket("unexpected message")

    def accept(self, sink: WritesRanges, size: int, present: RangeSet) -> None:
        """Start receiving `size` bytes, of which `present` are in the sink already."""
        self._sink = sink
        self.total = size
        for start, stop in present:
            self._have.add(start, stop)
        self._control.queue(accept_message(present))

    def verified(self) -> None:
        """The sink's hash is the sender's."""
        self._control.queue({"type": "verified"})

    def data_received_untrusted(self, offset: int, view: memoryview) -> None:
        """Raises BadPacket (outside of what was offered) and LocalFileError (from the sink)."""
        stop = offset + len(view)
        if self._sink is None or stop > self.total:
            raise BadPacket("data outside of the transfer")
        if self._have.covers(offset, stop):
            return
        self._sink.write(offset, view)
        self._have.add(offset, stop)
        if self._have.total == self.total:
            self._report()

    def _report(self) -> None:
        if self._digest is not None and self._have.total == self.total and not self._reported:
            self._reported = True
            self._events.append(ContentArrived(self._digest))
