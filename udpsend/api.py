"""`send` and `receive`: one end each, and what it does at the session's events.

The sender offers its file when there is a path, hashes it while it is sent, and is done when the other side has
verified. The receiver asks whether to accept, opens the sink, compares the hashes, and says so.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from udpsend import events
from udpsend.config import Config, Role
from udpsend.errors import BadPacket, LocalFileError, PeerError, Refused
from udpsend.files.manifest import Manifest, parse_manifest_untrusted
from udpsend.files.sink import Sink, open_sink
from udpsend.files.source import Source, open_source
from udpsend.net import clock
from udpsend.rendezvous.code import Code, generate_code, parse_code
from udpsend.session import SessionEvent
from udpsend.shell import Confirm, OnEvent, Shell
from udpsend.transfer.messages import ContentArrived, OfferAccepted, OfferReceived, PeerVerified
from udpsend.wire.frames import Close, CloseCode
from udpsend.wire.ranges import RangeSet

Accept = Callable[[events.Offered], bool]


def send(
    path: str | os.PathLike[str],
    *,
    code: str | None = None,
    config: Config | None = None,
    on_event: OnEvent | None = None,
    confirm: Confirm | None = None,
) -> events.Verified:
    """Send one file to whoever comes with the same code; returns when it has verified what it wrote.

    Without `code` one is made: it comes as the first event, CodeReady. `confirm(phrase)` is asked before anything
    moves whether the other side shows the same phrase. Raises a subclass of UdpsendError."""
    source = open_source(path)
    try:
        parsed = parse_code(code if code is not None else generate_code(secrets.token_bytes))
        return _Sending(parsed, config or Config(), on_event, confirm, source).run()
    finally:
        source.close()


def receive(
    code: str,
    directory: str | os.PathLike[str] = ".",
    *,
    overwrite: bool = False,
    accept: Accept | None = None,
    config: Config | None = None,
    on_event: OnEvent | None = None,
    confirm: Confirm | None = None,
) -> events.Verified:
    """Receive one file into `directory`; returns when it is verified and in place.

    `accept(offered)` is asked whether to take what is offered; None takes it. `overwrite` replaces a file of the same
    name. `confirm` as with `send`. Raises a subclass of UdpsendError."""
    if not os.path.isdir(directory):
        raise LocalFileError(f"{os.fspath(directory)!r} is no directory. Make it, or name another one.")
    receiving = _Receiving(parse_code(code), config or Config(), on_event, confirm, Path(directory), overwrite, accept)
    return receiving.run()


class _Sending(Shell):
    role = Role.SENDER

    def __init__(
        self, code: Code, config: Config, on_event: OnEvent | None, confirm: Confirm | None, source: Source
    ) -> None:
        super().__init__(code, config, on_event, confirm)
        self._source = source

    def path_confirmed(self) -> None:
        manifest = self._source.manifest
        if self.session.connection is not None:
            self.emit(events.Offered(manifest.name, manifest.size, len(manifest.entries)))
            self.session.connection.offer(self._source, manifest.size, manifest.to_json())

    def session_event(self, event: SessionEvent, now: float) -> None:
        match event:
            case OfferAccepted(already, missing):
                self.started = now
                self._source.start(missing, lambda: self.driver.call_soon(lambda: None))
                self.beside(self._hash, self._hashed)
                self.emit(events.Accepted(already))
            case PeerVerified() if self.session.connection is not None:
                manifest = self._source.manifest
                self.done(events.Verified(manifest.name, manifest.size, now - self.started, self._digest.hex()))
                self.session.connection.close(Close(CloseCode.DONE, ""), now)
            case _:
                super().session_event(event, now)

    def _hash(self) -> bytes:
        digest = self._source.digest()
        self._source.check_unchanged()
        return digest

    def _hashed(self, digest: bytes) -> None:
        self._digest = digest
        if self.session.connection is not None:
            self.session.connection.digest_ready(digest)


class _Receiving(Shell):
    role = Role.RECEIVER

    def __init__(
        self,
        code: Code,
        config: Config,
        on_event: OnEvent | None,
        confirm: Confirm | None,
        directory: Path,
        overwrite: bool,
        accept: Accept | None,
    ) -> None:
        super().__init__(code, config, on_event, confirm)
        self._directory = directory
        self._overwrite = overwrite
        self._accept = accept
        self._sink: Sink | None = None
        self._offer: Manifest | None = None
        self._confirmed = False

    def path_confirmed(self) -> None:
        self._confirmed = True
        self._answer_offer()

    def session_event(self, event: SessionEvent, now: float) -> None:
        match event:
            case OfferReceived(value):
                try:
                    self._offer = parse_manifest_untrusted(value)
                except BadPacket as error:
                    self.end(PeerError(f"The other side offered something that cannot be taken ({error})."))
                    return
                self._answer_offer()
            case ContentArrived(digest) if self._sink is not None:
                sink = self._sink
                self.show_progress(now)
                self.emit(events.Verifying())
                seconds = now - self.started
                self.beside(lambda: sink.finish(digest), lambda path: self._finished(path, digest, seconds))
            case _:
                super().session_event(event, now)

    def _answer_offer(self) -> None:
        if self._offer is None or not self._confirmed:
            return
        manifest = self._offer
        offered = events.Offered(manifest.name, manifest.size, len(manifest.entries))
        self.emit(offered)

        def decide() -> Sink:
            if self._accept is not None and not self._accept(offered):
                raise Refused("Declined.")
            self._sink = sink = open_sink(manifest, self._directory, self._overwrite)
            return sink

        self.beside(decide, lambda sink: self._accepted(sink, manifest))

    def _accepted(self, sink: Sink, manifest: Manifest) -> None:
        self.started = clock.now()
        present = RangeSet(sink.present)
        self.emit(events.Accepted(present.total))
        if (connection := self.session.connection) is not None:
            sink.start(lambda: self.driver.call_soon(lambda: connection.room_again(clock.now())))
            connection.accept(sink, manifest.size, present)

    def _finished(self, path: Path, digest: bytes, seconds: float) -> None:
        assert self._offer is not None  # noqa: S101 - it was accepted
        self.done(events.Verified(self._offer.name, self._offer.size, seconds, digest.hex(), str(path)))
        if self.session.connection is not None:
            self.session.connection.verified(clock.now())

    def leave(self) -> None:
        try:
            super().leave()
        finally:
            if self._sink is not None:
                self._sink.abandon()
