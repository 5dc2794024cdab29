"""The receiving end: what it does at the session's events.

It asks whether to accept, opens the sink, has come again what differs, compares the hashes, and says so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from udpsend import events
from udpsend.config import Config, Role
from udpsend.errors import BadPacket, PeerError, Refused, TransferFailed
from udpsend.files.existing import Policy
from udpsend.files.manifest import Announced, Manifest, parse_manifest_untrusted
from udpsend.files.sink import Sink, open_sink
from udpsend.net import clock
from udpsend.rendezvous.code import Code
from udpsend.session import SessionEvent
from udpsend.shell import Confirm, OnEvent, Shell
from udpsend.telling import offered_event, skipped_event, verified_event
from udpsend.transfer.messages import (
    ContentArrived,
    HashesArrived,
    ManifestArrived,
    OfferReceived,
)
from udpsend.wire.ranges import RangeSet

Accept = Callable[[events.Offered], bool]


class Receiving(Shell):
    role = Role.RECEIVER

    def __init__(
        self,
        code: Code,
        config: Config,
        on_event: OnEvent | None,
        confirm: Confirm | None,
        directory: Path,
        policy: Policy,
        accept: Accept | None,
    ) -> None:
        super().__init__(code, config, on_event, confirm)
        self._directory = directory
        self._policy = policy
        self._accept = accept
        self._sink: Sink | None = None
        self._offer: Manifest | Announced | None = None
        self._confirmed = False
        self._left = False

    def path_confirmed(self) -> None:
        self._confirmed = True
        self._answer_offer()

    def session_event(self, event: SessionEvent, now: float) -> None:
        match event:
            case OfferReceived(value):
                try:
                    self._offer = parse_manifest_untrusted(value)
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
        connection = self.session.connection
        if self._sink is not None and connection is not None and connection.receiver is not None:
            differing = self._sink.take_differing()
            if differing:
                connection.receiver.need(RangeSet(differing))

    def _answer_offer(self) -> None:
        if not self._confirmed:
            return
        match self._offer:
            case Manifest() as manifest:
                self._ask(manifest)
            case Announced(packed) if self.session.connection is not None:
                self.session.connection.ask_list(packed)

    def _unpack(self, packed: bytes) -> Manifest:
        announced = self._offer
        assert isinstance(announced, Announced)  # noqa: S101 - it was asked for
        try:
            manifest = Manifest.unpack_untrusted(packed, announced.manifest)
            if (len(manifest), manifest.size) != (announced.count, announced.size):
                raise BadPacket("the manifest is not the one that was announced")
        except BadPacket as error:
            raise _not_taken(error) from error
        return manifest

    def _ask(self, manifest: Manifest) -> None:
        self._manifest = manifest
        offered = offered_event(manifest)
        if manifest.skipped_count:
            self.emit(skipped_event(manifest))
        self.emit(offered)

        def decide() -> Sink:
            if self._accept is not None and not self._accept(offered):
                raise Refused("Declined.")
            self._sink = sink = open_sink(manifest, self._directory, self._policy)
            if (
                self._left
            ):  # the user thought for longer than the session lived; looked at last, as `leave` sets it first
                sink.abandon()
            return sink

        self.beside(decide, self._accepted)

    def _accepted(self, sink: Sink) -> None:
        self.started = clock.now()
        present = RangeSet(sink.present)
        self.emit(events.Accepted(present.total))
        connection = self.session.connection
        if connection is not None and connection.receiver is not None:
            sink.start(lambda: self.driver.call_soon(lambda: connection.room_again(clock.now())))
            left_out = sink.left_out.pack() if sink.left_out else b""
            connection.receiver.accept(sink, sink.size, present, left_out, sink.known)

    def _finished(self, path: Path, seconds: float) -> None:
        assert self._sink is not None  # noqa: S101 - it was finished
        left_out = len(self._sink.left_out) if self._sink.left_out else 0
        self.done(verified_event(self._manifest, seconds, self._sink.digest, left_out, str(path)))
        connection = self.session.connection
        if connection is not None and connection.receiver is not None:
            connection.receiver.digest_of_all = self._sink.digest
            connection.verified(clock.now())

    def leave(self) -> None:
        try:
            super().leave()
        finally:
            self._left = True
            if self._sink is not None:
                self._sink.abandon()


def _not_taken(error: BadPacket) -> PeerError:
    return PeerError(f"The other side offered something that cannot be taken ({error}).")
