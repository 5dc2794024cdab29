"""The receiving end: what it does at the session's events.

It looks at what is in the way, asks whether to accept, opens the sink, asks again for what differs, compares the
hashes, and says so. What has no size, and what goes to a descriptor, is written in order, and cannot be resumed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from udpsend import events
from udpsend.caller import Caller
from udpsend.config import Config, Role
from udpsend.errors import BadPacket, LocalFileError, PeerError, Refused, TransferFailed, UsageError
from udpsend.files.disk import errors_told
from udpsend.files.entries import File, Link
from udpsend.files.existing import Policy, look_first
from udpsend.files.in_order import InOrder
from udpsend.files.manifest import Announced, Manifest
from udpsend.files.names import check_can_be_named
from udpsend.files.offers import Offer, Stream, Text, parse_offer_untrusted
from udpsend.files.opening import open_destination
from udpsend.files.outlets import DescriptorOutlet, FileOutlet, MemoryOutlet, Outlet, WithHoles
from udpsend.files.sink import Sink, open_sink
from udpsend.net import clock
from udpsend.rendezvous.code import Code
from udpsend.session import SessionEvent
from udpsend.shell import Shell
from udpsend.telling import offered_event, skipped_event, stream_verified_event, verified_event
from udpsend.transfer.messages import ContentArrived, HashesArrived, ManifestArrived, OfferReceived
from udpsend.transfer.receiver import Receiver
from udpsend.wire.ranges import RangeSet


class Receiving(Shell):
    role = Role.RECEIVER

    def __init__(
        self,
        code: Code,
        config: Config,
        caller: Caller,
        directory: Path,
        policy: Policy,
        descriptor: int | None = None,
    ) -> None:
        """`descriptor`, if any, gets the content in place of the directory."""
        super().__init__(code, config, caller)
        self._descriptor = descriptor
        self._directory = directory
        self._policy = policy
        self._accept = caller.accept
        self._sink: Sink | InOrder | None = None
        self._text: MemoryOutlet | None = None
        self._offer: Offer | Announced | None = None
        self._confirmed = False
        self._left = False

    def look_ahead(self) -> None:
        if self._descriptor is None:
            try:
                with errors_told("open the directory", str(self._directory)):
                    os.close(open_destination(self._directory))
            except LocalFileError as error:
                self.emit(events.NoRoom(str(error)))

    def path_confirmed(self) -> None:
        super().path_confirmed()
        self._confirmed = True
        self._answer_offer()

    def session_event(self, event: SessionEvent, now: float) -> None:
        match event:
            case OfferReceived(value):
                try:
                    self._offer = parse_offer_untrusted(value)
                except BadPacket as error:
                    self.end(_not_taken(error))
                    return
                self._answer_offer()
            case ManifestArrived(packed):
                self.beside(lambda: self._unpack(packed), self._ask)
            case HashesArrived(first, hashes) if self._sink is not None:
                try:
                    self._sink.compare(first, hashes)
                except TransferFailed as error:
                    self.end(error)
            case ContentArrived(digest) if self._sink is not None:
                sink = self._sink
                self.show_progress(now)
                self.emit(events.Verifying())
                seconds = now - self.started
                self.beside(lambda: sink.finish(digest), lambda path: self._finished(path, seconds))
            case _:
                super().session_event(event, now)

    def turn(self, now: float) -> None:
        super().turn(now)
        if self._sink is not None and (differing := self._sink.take_differing()):
            self._receiver.need(RangeSet(differing))

    def _answer_offer(self) -> None:
        if not self._confirmed:
            return
        if self._offer is not None:
            self.tell_if_late(None)
        match self._offer:
            case Announced(packed):
                self._receiver.ask_list(packed)
            case (Manifest() | Stream() | Text()) as offer:
                self._ask(offer)

    def _unpack(self, packed: bytes) -> Manifest:
        announced = self._offer
        assert isinstance(announced, Announced)  # noqa: S101 - it was asked for
        try:
            return announced.unpack_untrusted(packed)
        except BadPacket as error:
            raise _not_taken(error) from error

    def _ask(self, offer: Offer) -> None:
        self._offer = offer
        offered = offered_event(offer)
        if isinstance(offer, Manifest) and offer.skipped_count:
            self.emit(skipped_event(offer))
        self.emit(offered)
        if self._descriptor is not None and isinstance(offer, Manifest) and not offer.is_single_file:
            self.end(UsageError("What is offered is not one file: receive it into a directory (-o DIR)."))
            return

        def decide() -> Sink | InOrder:
            if self._descriptor is None:
                check_can_be_named(_names(offer))
            if self._accept is not None:
                self._look_first(offer)
                if not self._accept(offered):
                    raise Refused("Declined.")
            self.driver.call_soon(lambda: self.tell_if_late(events.Preparing()))
            self._sink = sink = self._open_sink(offer)
            if self._left:  # while the user thought; looked at last, as `leave` sets it first
                sink.abandon()
            return sink

        if self._accept is None:
            self.beside(decide, self._accepted)
        else:
            self.ask(decide, self._accepted)

    def _look_first(self, offer: Offer) -> None:
        """Nobody need be asked about what cannot be taken."""
        if self._descriptor is None and isinstance(offer, Stream):
            offer = Manifest([File(offer.name, 0, 0, 0, 0)])
        if self._descriptor is None and isinstance(offer, Manifest):
            look_first(self._directory, offer, self._policy)

    def _open_sink(self, offer: Offer) -> Sink | InOrder:
        size = offer.size if isinstance(offer, Manifest) else None
        if self._descriptor is not None:
            outlet: Outlet = DescriptorOutlet(self._descriptor)
            if isinstance(offer, Manifest) and offer.data:
                outlet = WithHoles(outlet, offer.full_size, offer.data[0])
            return InOrder(outlet, size)
        match offer:
            case Manifest():
                return open_sink(offer, self._directory, self._policy)
            case Stream(name):
                return InOrder(FileOutlet(self._directory, name, self._policy), size)
            case Text(length):
                self._text = MemoryOutlet(length)
                return InOrder(self._text, size)

    def _accepted(self, sink: Sink | InOrder) -> None:
        self.started = clock.now()
        self.tell_if_late(None)
        if isinstance(sink, InOrder):
            self.after_stopping = "What comes in order cannot be resumed: begin anew."
        present = RangeSet(sink.present)
        self.emit(events.Accepted(present.total))
        sink.start(lambda: self.driver.call_soon(lambda: self.connection.room_again(clock.now())))
        left_out = sink.left_out.pack() if sink.left_out else b""
        self._receiver.accept(sink, sink.size, present, left_out, sink.known, sink.ahead)

    @property
    def _receiver(self) -> Receiver:
        assert self.connection.receiver is not None  # noqa: S101
        return self.connection.receiver

    def _finished(self, path: Path | None, seconds: float) -> None:
        if self._text is None:
            self._say_verified(path, seconds)
            return
        self.emit(events.TextReceived(self._text.content.decode(errors="replace")))
        self.ask(lambda: None, lambda _: self._shown(seconds))

    def _shown(self, seconds: float) -> None:
        """A text is nowhere but there: where it could not be shown, the sender has to know (`_say_why`)."""
        self._reporter.check()
        self._say_verified(None, seconds)

    def _say_verified(self, path: Path | None, seconds: float) -> None:
        assert self._sink is not None  # noqa: S101 - it was finished
        left_out = len(self._sink.left_out)
        where = str(path) if path is not None else None
        if isinstance(self._offer, Manifest):
            self.done(verified_event(self._offer, seconds, self._sink.digest, left_out, where))
        elif isinstance(self._offer, Stream | Text):
            size = self._sink.received
            self.done(stream_verified_event(self._offer, size, seconds, self._sink.digest, where))
        self.connection.verified(clock.now(), self._sink.digest)

    def interrupted(self) -> None:
        """What is verified is not stopped any more: the sender learns it from what was said already."""
        if self._verified is not None:
            self.driver.stop()
        else:
            super().interrupted()

    def leave(self) -> None:
        try:
            super().leave()
        finally:
            self._left = True
            if self._sink is not None:
                self._sink.abandon()


def _names(offer: Offer) -> Iterator[str]:
    """Of all that would be made of it, links' targets too."""
    match offer:
        case Manifest():
            for entry in offer:
                yield entry.path
                if isinstance(entry, Link):
                    yield entry.target
        case Stream(name):
            yield name


def _not_taken(error: BadPacket) -> PeerError:
    return PeerError(f"The other side offered something that cannot be taken ({error}).")
