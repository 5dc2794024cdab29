"""The receiver's end of what is written in order: standard output, a text, or a file whose size nobody knows yet.

1. `write` puts a record into a ring of memory, wherever it belongs. The sender goes no more than AHEAD bytes past the
   first one that is missing, so that everything has its place there.
2. A thread writes what is complete from the beginning, and hashes it.
3. When it is behind, `room` gives None: records are dropped, and the sender is told to wait.
4. `finish` compares the hashes when all is written. Nothing of it can be resumed.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable
from pathlib import Path

from udpsend.errors import PeerError, TransferFailed
from udpsend.files.byte_space import EntrySet
from udpsend.files.hashing import POLL_INTERVAL, hash_block_size
from udpsend.files.outlets import Outlet
from udpsend.files.stream_digest import StreamDigest
from udpsend.wire.datagram import MAX_TRAIN_SIZE
from udpsend.wire.frames import DATA_HEADER_SIZE as HEADROOM
from udpsend.wire.ranges import RangeSet

AHEAD = 16 << 20  # bytes: 80 MB/s at a round trip of 200 ms
RING = 2 * AHEAD
LOW = AHEAD // 2  # bytes that wait for the outlet: more, and the sender is told to wait
PIECE = 1 << 20  # bytes written at once
MAX_PIECES = 1 << 16
STOP_TIMEOUT = 0.5  # seconds: a reader that does not read is left to its thread


class InOrder:
    """As files/sink.py, for an outlet. `size` is None where it is not known."""

    ahead: int | None = AHEAD

    def __init__(self, outlet: Outlet, size: int | None) -> None:
        self.size = size
        self.present: list[tuple[int, int]] = []
        self.known = RangeSet()
        self.left_out = EntrySet(0)
        self.digest = b""
        self._outlet = outlet
        self._ring = memoryview(bytearray(RING))
        self._room = memoryview(bytearray(HEADROOM + MAX_TRAIN_SIZE))
        self._have = RangeSet()
        self._complete = 0  # from the beginning
        self._written = 0
        self._hash = StreamDigest() if size is None else StreamDigest(hash_block_size(size))
        self._waited_for = False
        self._stopping = False
        self._end_claim = threading.Lock()  # taken by whoever is the first to end it, for good
        self._given_up = False
        self._failure: Exception | None = None
        self._wake = threading.Event()
        self._progressed = threading.Event()
        self._on_room: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="udpsend-write", daemon=True)
        self._thread.start()

    def start(self, on_room: Callable[[], None]) -> None:
        """`on_room` is called from the thread when there is room again, or when it has failed."""
        self._on_room = on_room
        if self._failure is not None:
            on_room()

    @property
    def received(self) -> int:
        return self._have.total

    @property
    def is_full(self) -> bool:
        """Whether the sender had better wait."""
        if self._complete - self._written <= LOW:
            return False
        self._waited_for = True
        return self._complete - self._written > LOW  # the thread may have looked just before

    def room(self) -> memoryview | None:
        """Where to decrypt the next record. Raises LocalFileError, and TransferFailed after `abandon`."""
        if self._failure is not None:
            raise self._failure
        if self._given_up:
            raise TransferFailed("The transfer was stopped.")
        if self._complete - self._written > RING - AHEAD:
            self._waited_for = True
            if self._complete - self._written > RING - AHEAD:
                return None
        return self._room

    def write(self, offset: int, size: int) -> int:
        """The room holds `size` bytes that belong at `offset`. Returns how many were new. Raises PeerError."""
        stop = offset + size
        if offset < 0 or stop > self._complete + AHEAD or (self.size is not None and stop > self.size):
            raise PeerError("The other side sends more than it was asked for.")
        for first, last in list(self._have.gaps(offset, stop)):
            self._copy(first, self._room[HEADROOM + first - offset : HEADROOM + last - offset])
        new = self._have.add(offset, stop)
        if len(self._have) > MAX_PIECES:
            raise PeerError("The other side sends in too many pieces.")
        if self._have and self._have.first == 0:
            complete = next(iter(self._have))[1]
            if complete > self._complete:
                self._complete = complete
                self._wake.set()
        return new

    def _copy(self, offset: int, view: memoryview) -> None:
        at = offset % RING
        first = min(len(view), RING - at)
        self._ring[at : at + first] = view[:first]
        self._ring[: len(view) - first] = view[first:]

    def compare(self, first: int, hashes: bytes) -> None:
        """Nothing could be fetched again of what has been written: only the digest of all counts."""

    def take_differing(self) -> list[tuple[int, int]]:
        return []

    # in the thread

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._write_piece()
        except Exception as error:  # raised where the loop, or `finish`, asks
            self._failure = error
            self._progressed.set()
            self._on_room()
        while not self._stopping:
            self._pause()
        self._outlet.close()

    def _pause(self) -> None:
        self._wake.wait(POLL_INTERVAL)
        self._wake.clear()

    def _write_piece(self) -> None:
        size, at = self._complete - self._written, self._written % RING
        if not size:
            self._progressed.set()
            self._pause()
            return
        view = self._ring[at : at + min(size, PIECE)]
        count = self._outlet.write(view)
        self._hash.update(view[:count])
        self._written += count
        if self._waited_for and self._complete - self._written <= LOW // 2:
            self._waited_for = False
            self._on_room()

    # the end

    def finish(self, digest: bytes) -> Path | None:
        """Wait until all is written, and compare. Returns where it is, if anywhere. Raises TransferFailed where the
        content is another one: a file is thrown away, what went down a pipe cannot be taken back."""
        if self._complete < self.received or (self.size is not None and self.received < self.size):
            raise TransferFailed("The other side ended the transfer before all of it had arrived: try again.")
        while self._written < self._complete and self._failure is None and not self._end_claim.locked():
            self._progressed.wait(POLL_INTERVAL)
            self._progressed.clear()
        if self._failure is not None:
            raise self._failure
        if not self._end_claim.acquire(blocking=False):
            raise TransferFailed("The transfer was stopped before its content was verified.")
        try:
            self.digest = self._hash.digest()
            if not hmac.compare_digest(self.digest, digest):
                self._outlet.discard()
                raise TransferFailed("What has arrived is not what the other side read: do not use it. Try again.")
            return self._outlet.finish(self._written)
        finally:
            self._stop()

    def abandon(self) -> None:
        """Give up. Does nothing when called again, or after `finish`; one that still writes holes, which may be of any
        size, stops."""
        self._outlet.hurry()
        if self._end_claim.acquire(blocking=False):
            self._given_up = True
            self._outlet.discard()
            self._stop()

    def _stop(self) -> None:
        self._stopping = True
        self._wake.set()
        self._thread.join(STOP_TIMEOUT)
