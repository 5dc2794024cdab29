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

    @property
    def received(self) -> int:
        """Bytes that are there, those of earlier attempts included."""

    def write(self, offset: int, view: memoryview) -> int:
        """Take these bytes; the view is only valid during the call. How many were new. Raises UdpsendError."""


class Receiver:
    def __init__(self, control: ControlSender, events: deque[ConnectionEvent]) -> None:
        self._control = control
        self._events = events
        self._offered = False
        self._sink: WritesRanges | None = None
        self._digest: bytes | None = None
        self._reported = False
        self.total = 0

    @property
    def done(self) -> int:
        return self._sink.received if self._sink is not None else 0

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
        self._control.queue(accept_message(present))

    def verified(self) -> None:
        """The sink's hash is the sender's."""
        self._control.queue({"type": "verified"})

    def data_received_untrusted(self, offset: int, view: memoryview) -> None:
        """Raises BadPacket (outside of what was offered) and UdpsendError (from the sink)."""
        if self._sink is None or offset + len(view) > self.total:
            raise BadPacket("data outside of the transfer")
        self._sink.write(offset, view)
        if self._digest is not None:
            self._report()

    def _report(self) -> None:
        if self._digest is not None and self.done == self.total and not self._reported:
            self._reported = True
            self._events.append(ContentArrived(self._digest))
