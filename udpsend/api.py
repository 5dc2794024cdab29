"""`send` and `receive`: one end each, and what it does at the session's events.

The sender goes through what it was given, offers it when there is a path, hashes it while it is sent, and is done when
the other side has verified. The receiver asks whether to accept, opens the sink, compares the hashes, and says so.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from udpsend import events
from udpsend.config import Config, Role
from udpsend.errors import BadPacket, LocalFileError, PeerError, Refused, UsageError
from udpsend.exchange import ReadText
from udpsend.files.byte_space import unpack_set_untrusted
from udpsend.files.entries import Kind
from udpsend.files.existing import Policy
from udpsend.files.manifest import Announced, Manifest, parse_manifest_untrusted
from udpsend.files.sink import Sink, open_sink
from udpsend.files.source import Source
from udpsend.net import clock
from udpsend.rendezvous.code import Code, generate_code, parse_code
from udpsend.session import SessionEvent
from udpsend.shell import Confirm, OnEvent, Shell
from udpsend.transfer.messages import (
    BlocksNeeded,
    ContentArrived,
    HashesArrived,
    ManifestArrived,
    OfferAccepted,
    OfferReceived,
    PeerVerified,
)
from udpsend.wire.frames import Close, CloseCode
from udpsend.wire.ranges import RangeSet

MAX_BACKLOG = 64 << 10  # bytes of hashes on their way: the other side holds 512 KiB of what comes out of order
HASHES_AT_ONCE = 512

Accept = Callable[[events.Offered], bool]


Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def send(
    paths: Paths,
    *,
    code: str | None = None,
    follow: bool = False,
    exclude: Sequence[str] = (),
    gitignore: bool = False,
    config: Config | None = None,
    on_event: OnEvent | None = None,
    confirm: Confirm | None = None,
    read_text: ReadText | None = None,
) -> events.Verified:
    """Send files and directories to whoever comes with the same code; returns when all is verified there.

    `follow` sends what symbolic links point to in their place; `exclude` are patterns as in .gitignore of what is not
    sent, and `gitignore` has the .gitignore files below the paths say so, too. Without `code` one is made: it comes as
    the first event, CodeReady. `confirm(phrase)` is asked before anything moves whether the other side shows the same
    phrase. What cannot be sent (sockets, what may not be read) comes as the event Skipped, and is counted in what is
    returned. With `read_text` there is no meeting place: people carry the texts of the events TextToCarry to the other
    side, and `read_text(number)` is asked for those from there. Raises a subclass of UdpsendError."""
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not given:
        raise UsageError("Nothing to send: name a file or a directory.")
    source = Source(given, follow=follow, exclude=exclude, gitignore=gitignore)
    try:
        parsed = parse_code(code if code is not None else generate_code(secrets.token_bytes))
        sending = _Sending(parsed, config or Config(), on_event, confirm, source)
        sending.read_text = read_text
        return sending.run()
    finally:
        source.close()


def receive(
    code: str,
    directory: str | os.PathLike[str] = ".",
    *,
    overwrite: bool = False,
    rename: bool = False,
    skip_existing: bool = False,
    delta: bool = False,
    accept: Accept | None = None,
    config: Config | None = None,
    on_event: OnEvent | None = None,
    confirm: Confirm | None = None,
    read_text: ReadText | None = None,
) -> events.Verified:
    """Receive into `directory`; returns when all is verified and in place.

    `accept(offered)` is asked whether to take what is offered; None takes it. Files that exist are an error, unless
    `overwrite` replaces them, `rename` gives what is received another name, or `skip_existing` leaves out those of the
    same size and time; `delta` replaces them, and has only those parts sent that differ. `confirm` as with `send`.
    Raises a subclass of UdpsendError."""
    if not os.path.isdir(directory):
        raise LocalFileError(f"{os.fspath(directory)!r} is no directory. Make it, or name another one.")
    if rename and (overwrite or skip_existing or delta):
        raise UsageError("What gets another name replaces nothing: leave out one of these.")
    policy = Policy(overwrite or delta, rename, skip_existing, delta)
    receiving = _Receiving(parse_code(code), config or Config(), on_event, confirm, Path(directory), policy, accept)
    receiving.read_text = read_text
    return receiving.run()


class _Listing:
    """What is offered, for events."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def __iter__(self) -> Iterator[tuple[str, int | None]]:
        for entry in self._manifest:
            yield entry.path, entry.size if entry.kind is Kind.FILE else None


def _offered(manifest: Manifest) -> events.Offered:
    return events.Offered(
        manifest.name, manifest.size, manifest.files, manifest.directories, manifest.links, _Listing(manifest)
    )


def _skipped(manifest: Manifest) -> events.Skipped:
    return events.Skipped(manifest.skipped_count, tuple((s.path, s.why) for s in manifest.skipped))


class _Sending(Shell):
    role = Role.SENDER

    def __init__(
        self, code: Code, config: Config, on_event: OnEvent | None, confirm: Confirm | None, source: Source
    ) -> None:
        super().__init__(code, config, on_event, confirm)
        self._source = source
        self._left_out = 0
        self._scanned: Future[None] = Future()
        # Beside everything else: the code is shown at once, and the two meet while a large directory is gone through.
        threading.Thread(target=self._scan, name="udpsend-scan", daemon=True).start()

    def _scan(self) -> None:
        try:
            self._source.scan()
        except Exception as error:  # whoever waits for it raises it
            self._scanned.set_exception(error)
        else:
            self._scanned.set_result(None)

    def path_confirmed(self) -> None:
        self.beside(self._scanned.result, lambda _: self._offer())

    def _offer(self) -> None:
        manifest = self._source.manifest
        if manifest.skipped_count:
            self.emit(_skipped(manifest))
        self.emit(_offered(manifest))
        if self.session.connection is not None:
            value = manifest.to_json()
            packed = manifest.pack() if "packed" in value else b""
            self.session.connection.offer(self._source, manifest.size, value, packed, self._select)

    def _select(self, left_out: bytes) -> int:
        chosen = unpack_set_untrusted(left_out, len(self._source.manifest))
        self._left_out = len(chosen)
        return self._source.select(chosen)

    def session_event(self, event: SessionEvent, now: float) -> None:
        match event:
            case OfferAccepted(already, missing, known):
                self.started = now
                self._source.start(missing, lambda: self.driver.call_soon(lambda: None), RangeSet(known))
                self.beside(self._hash, self._hashed)
                self.emit(events.Accepted(already))
            case BlocksNeeded(ranges):
                for start, stop in ranges:
                    self._source.hash_again(start, stop)
            case PeerVerified(digest) if self.session.connection is not None:
                digest = digest or self._digest
                self.done(_verified(self._source.manifest, now - self.started, digest, self._left_out))
                self.session.connection.close(Close(CloseCode.DONE, ""), now)
            case _:
                super().session_event(event, now)

    def turn(self, now: float) -> None:
        super().turn(now)
        self._tell_hashes()

    def _tell_hashes(self) -> None:
        """As far as the control stream takes them."""
        connection = self.session.connection
        sender = connection.sender if connection is not None else None
        while sender is not None and sender.control_backlog < MAX_BACKLOG:
            hashes = self._source.take_hashes(HASHES_AT_ONCE)
            if not hashes:
                break
            for first, run in _runs(hashes):
                sender.hashes_ready(first, run)

    def _hash(self) -> bytes:
        digest = self._source.digest()
        self._source.check_unchanged()
        return digest

    def _hashed(self, digest: bytes) -> None:
        self._digest = digest
        self._tell_hashes()
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
                except PeerError as error:
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
        offered = _offered(manifest)
        if manifest.skipped_count:
            self.emit(_skipped(manifest))
        self.emit(offered)

        def decide() -> Sink:
            if self._accept is not None and not self._accept(offered):
                raise Refused("Declined.")
            self._sink = sink = open_sink(manifest, self._directory, self._policy)
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
        self.done(_verified(self._manifest, seconds, self._sink.digest, left_out, str(path)))
        connection = self.session.connection
        if connection is not None and connection.receiver is not None:
            connection.receiver.digest_of_all = self._sink.digest
            connection.verified(clock.now())

    def leave(self) -> None:
        try:
            super().leave()
        finally:
            if self._sink is not None:
                self._sink.abandon()


def _runs(hashes: list[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Those of consecutive blocks together: (first block, hashes)."""
    start = 0
    for at in range(1, len(hashes) + 1):
        if at == len(hashes) or hashes[at][0] != hashes[at - 1][0] + 1:
            yield hashes[start][0], b"".join(digest for _, digest in hashes[start:at])
            start = at


def _not_taken(error: BadPacket) -> PeerError:
    return PeerError(f"The other side offered something that cannot be taken ({error}).")


def _verified(
    manifest: Manifest, seconds: float, digest: bytes, left_out: int, path: str | None = None
) -> events.Verified:
    skipped = manifest.skipped_count
    return events.Verified(manifest.name, manifest.size, seconds, digest.hex(), path, manifest.files, skipped, left_out)
