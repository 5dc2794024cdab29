"""The sending end: what it does at the session's events.

It goes through what it was given, offers it when there is a path, tells the hashes of its blocks while they are sent,
and is done when the other side has verified.
"""

from __future__ import annotations

import threading  # noqa: TID251 - a large directory is gone through beside everything else
from collections.abc import Iterator
from concurrent.futures import Future

from udpsend import events
from udpsend.caller import Caller
from udpsend.config import Config, Role
from udpsend.errors import PeerError
from udpsend.files.byte_space import unpack_set_untrusted
from udpsend.files.source import Source
from udpsend.rendezvous.code import Code
from udpsend.session import SessionEvent
from udpsend.shell import Shell
from udpsend.telling import offered_event, skipped_event, verified_event
from udpsend.transfer.messages import BlocksNeeded, OfferAccepted, PeerVerified
from udpsend.wire.frames import Close, CloseCode
from udpsend.wire.ranges import RangeSet

MAX_BACKLOG = 64 << 10  # bytes of hashes on their way: the other side holds 1 MiB of what comes out of order
HASHES_AT_ONCE = 512


class Sending(Shell):
    role = Role.SENDER

    def __init__(self, code: Code, config: Config, caller: Caller, source: Source) -> None:
        super().__init__(code, config, caller)
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
        super().path_confirmed()
        self.beside(self._scanned.result, lambda _: self._offer())

    def _offer(self) -> None:
        self.tell_if_late(None)
        manifest = self._source.manifest
        if manifest.skipped_count:
            self.emit(skipped_event(manifest))
        self.emit(offered_event(manifest))
        value = manifest.to_json()
        packed = manifest.pack() if "packed" in value else b""
        self._sender = self.connection.offer(self._source, manifest.size, value, packed, self._select)

    def _select(self, left_out: bytes) -> int:
        chosen = unpack_set_untrusted(left_out, len(self._source.manifest))
        self._left_out = len(chosen)
        return self._source.select(chosen)

    def session_event(self, event: SessionEvent, now: float) -> None:
        match event:
            case OfferAccepted(already, missing, known):
                self.started = now
                if self.connection.in_order:
                    self.after_stopping = "What goes to a pipe cannot be resumed: begin anew."
                try:
                    self._source.start(missing, self.driver.wake, RangeSet(known))
                except PeerError as error:
                    self.end(error)
                    return
                self.beside(self._hash, self._hashed)
                self.emit(events.Accepted(already))
            case BlocksNeeded(ranges):
                try:
                    for start, stop in ranges:
                        self._source.hash_again(start, stop)
                except PeerError as error:
                    self.end(error)
            case PeerVerified(digest):
                self.done(verified_event(self._source.manifest, now - self.started, digest, self._left_out))
                self.connection.close(Close(CloseCode.DONE, ""), now)
            case _:
                super().session_event(event, now)

    def turn(self, now: float) -> None:
        super().turn(now)
        if self.started:
            self._tell_hashes()

    def _tell_hashes(self) -> None:
        """As far as the control stream takes them."""
        while self._sender.control_backlog < MAX_BACKLOG and (hashes := self._source.take_hashes(HASHES_AT_ONCE)):
            for first, run in _runs(hashes):
                self._sender.hashes_ready(first, run)

    def _hash(self) -> bytes:
        digest = self._source.digest()
        self._source.check_unchanged()
        return digest

    def _hashed(self, digest: bytes) -> None:
        self._tell_hashes()
        self._sender.digest_ready(digest)


def _runs(hashes: list[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Those of consecutive blocks together: (first block, hashes)."""
    start = 0
    for at in range(1, len(hashes) + 1):
        if at == len(hashes) or hashes[at][0] != hashes[at - 1][0] + 1:
            yield hashes[start][0], b"".join(digest for _, digest in hashes[start:at])
            start = at
