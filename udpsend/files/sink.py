"""The receiver's end: a transfer's byte space becomes a file, and never loses what has arrived.

1. `open_sink` opens the directory once, refuses what exists, locks the partial, reads the journal, checks the space.
2. `write` puts a range where it belongs. In order, it is one pwrite and two comparisons.
3. A thread hashes what lies before the first gap, and every 64 MiB or second flushes the partial and then tells the
   journal which bytes are on the disk. Only those are believed by the next attempt.
4. `finish` compares the hashes, flushes, sets mode and time, and renames into place without replacing anything; or
   `abandon` keeps partial and journal for the next attempt.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import threading
import time
from pathlib import Path

from udpsend.errors import BadPacket, LocalFileError, PeerError, TransferFailed
from udpsend.files import disk
from udpsend.files.hashing import HashThread
from udpsend.files.manifest import Manifest
from udpsend.files.names import check_path_untrusted, quote
from udpsend.files.partial import Partial
from udpsend.wire.ranges import RangeSet

FLUSH_SIZE = 64 << 20  # bytes; at 1 GB/s a kill then costs 1 % of 10 GB, and a flush is one call in 64 ms
FLUSH_INTERVAL = 1.0  # seconds
STOP_TIMEOUT = 5.0  # seconds to wait for the last flush when the transfer is given up
# A path of 1 GB/s and 200 ms that loses every fifth datagram has some 30,000 gaps; more is a peer that means harm.
MAX_PIECES = 1 << 18


def open_sink(manifest: Manifest, directory: str | os.PathLike[str], overwrite: bool = False) -> Sink:
    """Make ready to receive one file into `directory`. Raises LocalFileError: the file exists (without `overwrite`), no
    space, no such directory, not writable, being received by another process. PeerError if the manifest was not
    checked before, and should not be received."""
    try:
        (entry,) = manifest.entries
        (name,) = check_path_untrusted(entry.path)
    except (BadPacket, ValueError) as error:
        raise PeerError("The other side offered something that this version cannot receive.") from error
    try:
        partial = Partial(directory, name, entry.size, manifest.identity, overwrite)
    except OSError as error:
        raise disk.local_error(error, "write", name) from error
    return Sink(manifest, Path(directory), partial)


class Sink:
    """A file being received. `write` is for one thread, `finish` or `abandon` ends it once and for all."""

    def __init__(self, manifest: Manifest, directory: Path, partial: Partial) -> None:
        self.present: list[tuple[int, int]] = list(partial.journal.present)
        """What an earlier attempt left, which need not be sent."""
        self._entry = manifest.entries[0]
        self._size = self._entry.size
        self._directory = directory
        self._partial = partial
        self._fd = partial.fd
        self._ended = False
        self._given_up = False
        # All below the frontier is present; _ahead is what is present beyond it, and _limit where that begins.
        self._ahead = RangeSet(self.present)
        self._frontier = 0
        self._limit = self._size
        self._advance()
        self._lock = threading.Lock()  # the thread copies _ahead; the frontier is one integer and needs none
        self._flushed = self.received
        self._flush_due = time.monotonic() + FLUSH_INTERVAL
        self._hash = HashThread(self._size, self._read_back, lambda: self._frontier, self._flush_if_due, self._end)

    # What arrives

    def write(self, offset: int, view: memoryview) -> int:
        """Put these bytes at `offset` of the transfer; `view` (of bytes) is not kept. What is present already is not
        written again: it may be hashed or vouched for. Returns how many bytes were new. Raises LocalFileError on a disk
        error, PeerError for bytes outside of the file."""
        end = offset + len(view)
        if offset == self._frontier and end < self._limit and self._hash.failure is None:
            try:
                count = os.pwrite(self._fd, view, offset)
            except OSError as error:
                raise disk.local_error(error, "write", self._partial.name) from error
            self._frontier = offset + count
            if offset + count == end:
                return count
            return count + self.write(offset + count, view[count:])
        return self._write_anywhere(offset, end, view)

    def _write_anywhere(self, offset: int, end: int, view: memoryview) -> int:
        """Out of order, or meeting what is there already, or the last."""
        if self._hash.failure is not None:
            raise self._hash.failure
        if offset < 0 or end > self._size:
            raise PeerError("The other side sent bytes beyond the end of the file that it offered.")
        start = max(offset, self._frontier)
        for first, last in list(self._ahead.gaps(start, end)):
            self._write_all(view[first - offset : last - offset], first)
        with self._lock:
            new = self._ahead.add(start, end)
            self._advance()
        if len(self._ahead) > MAX_PIECES:
            raise PeerError("The other side sends the file in too many pieces.")
        if self._frontier == self._size:
            self._hash.wake()
        return new

    def _write_all(self, view: memoryview, offset: int) -> None:
        try:
            while len(view):
                count = os.pwrite(self._fd, view, offset)
                offset += count
                view = view[count:]
        except OSError as error:
            raise disk.local_error(error, "write", self._partial.name) from error

    def _advance(self) -> None:
        """Move the frontier over what was waiting right behind it."""
        ahead = self._ahead
        if not ahead:
            self._limit = self._size
        elif ahead.first > self._frontier:
            self._limit = ahead.first
        else:
            _, self._frontier = ahead.pop_first(self._size) or (0, 0)
            self._limit = ahead.first if ahead else self._size

    @property
    def received(self) -> int:
        """Bytes present, those of earlier attempts included."""
        return self._frontier + self._ahead.total

    @property
    def complete(self) -> bool:
        return self._frontier == self._size

    @property
    def hashed(self) -> int:
        """Bytes hashed so far."""
        return self._hash.hashed

    def hash_done(self) -> bool:
        """Whether `finish` has no hashing to wait for any more."""
        return self._hash.finished

    # In the thread

    def _read_back(self, offset: int, view: memoryview) -> None:
        try:
            self._partial.read_into(offset, view)
        except OSError as error:
            raise disk.local_error(error, "read back", self._partial.name) from error

    def _flush_if_due(self) -> None:
        fresh = self.received - self._flushed
        if not fresh:
            return
        now = time.monotonic()
        if fresh >= FLUSH_SIZE or now >= self._flush_due:
            self._flush()
            self._flush_due = time.monotonic() + FLUSH_INTERVAL

    def _flush(self) -> None:
        received = self.received  # before the copy: what comes in between is flushed now, and counted the next time
        with self._lock:
            ranges = [(0, self._frontier), *self._ahead]
        try:
            self._partial.flush(ranges)
        except OSError as error:
            raise disk.local_error(error, "write", self._partial.name) from error
        self._flushed = received

    def _end(self) -> None:
        """The last thing the thread does, if the transfer is given up: flush once more, and close everything."""
        if not self._given_up:
            return
        # Not after a flush that failed: the kernel reports lost pages once, and the next fdatasync would be a lie.
        with contextlib.suppress(LocalFileError, OSError):
            if not self.received:
                self._partial.discard()
            elif self._hash.failure is None:
                self._flush()
        self._partial.close()

    # The end

    def finish(self, digest: bytes) -> Path:
        """Compare the content's BLAKE3 with the sender's, make it durable, and rename it into place. Returns where it
        is. Waits for the hash and the disk: seconds for a large file on a slow disk.

        Raises TransferFailed if bytes are missing or the content is not what was read (the partial is then thrown away:
        nothing in it can be trusted), LocalFileError if the disk or the destination fail (it is then kept)."""
        if not self.complete:
            raise TransferFailed("The other side ended the transfer before all of it had arrived: try again.")
        name = self._partial.name
        mine = self._hash.digest()
        if not self._claim_end():
            raise TransferFailed("The transfer was stopped before its content was verified.")
        self._hash.stop(None)
        try:
            if self._hash.failure is not None:
                raise self._hash.failure
            if not hmac.compare_digest(mine, digest):
                self._partial.discard()
                raise TransferFailed(
                    f"The content of {quote(name)} is not what the other side read; it was thrown away. Try again."
                )
            self._flush()
            self._partial.place(self._entry)
        except OSError as error:
            raise disk.local_error(error, "finish", name) from error
        finally:
            self._partial.close()
        return self._directory / name

    def abandon(self) -> None:
        """Give up for now: flush, keep partial and journal for the next attempt (unless nothing arrived), and close.
        Waits at most five seconds for a slow disk, whose flush then goes on in the thread. Does nothing when called
        again, and after `finish` has begun to rename; a `finish` that still waits for the hash raises."""
        if self._claim_end():
            self._given_up = True
            self._hash.stop(STOP_TIMEOUT)

    def _claim_end(self) -> bool:
        """Whether this is the first to end it. From here on nothing is written: the number may be another file's."""
        with self._lock:
            first = not self._ended
            self._ended = True
            self._fd = -1
        return first
