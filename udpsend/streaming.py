"""The sending end of a stream or a text: `Sending` without files.

It reads as fast as the other side takes it, tells how much there is in all and its hash at the end, and is done when
the other side has verified. There is no second attempt at what comes out of a pipe.
"""

from __future__ import annotations

from udpsend import events
from udpsend.caller import Caller
from udpsend.config import Config, Role
from udpsend.files.stream_source import StreamSource
from udpsend.rendezvous.code import Code
from udpsend.session import SessionEvent
from udpsend.shell import Shell
from udpsend.telling import offered_event, stream_verified_event
from udpsend.transfer.messages import OfferAccepted, PeerVerified
from udpsend.wire.frames import Close, CloseCode


class Streaming(Shell):
    role = Role.SENDER
    after_stopping = "What comes out of a pipe cannot be resumed: begin anew."

    def __init__(self, code: Code, config: Config, caller: Caller, source: StreamSource) -> None:
        super().__init__(code, config, caller)
        self._source = source

    def path_confirmed(self) -> None:
        offer = self._source.offer
        self.emit(offered_event(offer))
        self._sender = self.connection.offer(self._source, None, offer.to_json())

    def session_event(self, event: SessionEvent, now: float) -> None:
        match event:
            case OfferAccepted():
                self.started = now
                self._source.start(self.driver.wake)
                self.beside(self._source.digest, self._hashed)
                self.emit(events.Accepted())
            case PeerVerified():
                size = self._source.available
                self.done(stream_verified_event(self._source.offer, size, now - self.started, self._digest))
                self.connection.close(Close(CloseCode.DONE, ""), now)
            case _:
                super().session_event(event, now)

    def turn(self, now: float) -> None:
        super().turn(now)
        if self.started:
            self._sender.grow(self._source.take_available())
            self._source.release(self._sender.floor)

    def _hashed(self, digest: bytes) -> None:
        self._digest = digest
        self._sender.grow(self._source.take_available())
        self._sender.digest_ready(digest)
