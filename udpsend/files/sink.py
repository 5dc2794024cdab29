"""The receiver's end: a transfer's byte space becomes a file, and never loses what has arrived.

1. `open_sink` opens the directory once, refuses what exists, locks the partial, reads the journal, checks the space.
2. `room` gives the loop a place to decrypt a record into, `write` keeps of it what is new.
3. A thread writes and hashes it (write_behind.py), notes in the journal what was written, and every 64 MiB or second
   flushes the partial and then tells it which bytes are on the disk. Only those are believed after a power cut.
4. `finish` compares the hashes, flushes, sets mode and time, and renames into place without replacing anything; or
   `abandon` keeps partial and journal for the next attempt.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from udpsend.errors import BadPacket, LocalFileError, PeerError, TransferFailed
from udpsend.files import disk
from udpsend.files.existing import Policy, is_here
from udpsend.files.hashing import hash_block_size
from udpsend.files.journal import Journal
from udpsend.files.manifest import Manifest
from udpsend.files.names import check_path_untrusted, quote
from udpsend.files.partial import Partial
from udpsend.files.staging import Staging
from udpsend.files.write_behind import WriteBehind
from udpsend.wire.ranges import DIGEST_SIZE, RangeSet

FLUSH_SIZE = 64 << 20  # bytes; at 1 GB/s a kill then costs 1 % of 10 GB, and a flush is one call in 64 ms
FLUSH_INTERVAL = 1.0  # seconds
STOP_TIMEOUT = 5.0  # seconds to wait for the last flush when the transfer is given up
# A path of 1 GB/s and 200 ms that loses every fifth datagram has some 30,000 gaps; more is a peer that means harm.
MAX_PIECES = 1 << 18


def open_sink(manifest: Manifest, directory: str | os.PathLike[str], policy: Policy | None = None) -> Sink:
    """Make ready to receive into `directory`. Raises LocalFileError: something exists that the policy (None: nothing
    may) does not cover, no space, no such directory, not writable, being received by another process. PeerError if the
    manifest was not checked before, and should not be received."""
    policy = policy or Policy()
    try:
        check_path_untrusted(manifest.name)
    except BadPacket as error:
        raise PeerError("The other side offered something that this version cannot receive.") from error
    partial: Partial | Staging
    with disk.errors_told("write", manifest.name):
        # One file needs no directory, unless it has holes, or is there already and is to be left out.
        is_plain = manifest.is_single_file and not manifest.data
        if is_plain and not (policy.skip and is_here(directory, manifest[0])):
            partial = Partial(directory, manifest.file(0), manifest.identity, policy)
        else:
            partial = Staging(directory, manifest, policy)
    return Sink(Path(directory), partial)


class Sink:
    """What is being received. `room` and `write` are for one thread, `finish` or `abandon` ends it once and for all."""

    ahead: int | None = None
    """Bytes that may come before the first one that is missing (in_order.py); here everything has its place."""

    def __init__(self, directory: Path, partial: Partial | Staging) -> None:
        journal = partial.journal
        self.present: list[tuple[int, int]] = list(journal.there)
        """What is there, which need not be sent unless a block of it differs."""
        self.known = _known_blocks(journal, partial.size)
        """Blocks (hashing.py) of it that were compared before: the sender need not hash them. No more than it can be
        told of, since both sides have to leave the same ones out of the digest."""
        self.size = partial.size
        """Bytes that are to be there at the end."""
        self.left_out = partial.left_out
        """What is not wanted."""
        self.digest = b""
        """BLAKE3 of all blocks' hashes, after `finish`."""
        self._directory = directory
        self._partial = partial
        self._end_claim = threading.Lock()  # taken by whoever is the first to end it, for good
        self._given_up = False
        self._have = RangeSet(self.present)
        self._flushed = self.received
        self._unnoted = RangeSet()
        self._flush_failed = False
        self._flush_due = time.monotonic() + FLUSH_INTERVAL
        self._on_room: Callable[[], None] = lambda: None
        self._behind = WriteBehind(
            self.size,
            self._have,
            self._write,
            self._read_back,
            self._flush_if_due,
            lambda: self._on_room(),
            self._end,
            self.known,
            ((index, digest) for index, digest in journal.checked.items() if index in self.known),
        )

    # What arrives

    def start(self, on_room: Callable[[], None]) -> None:
        """`on_room` is called from the thread when `room` had better be called: the disk has caught up, or has failed,
        or waits for what is in memory."""
        self._on_room = on_room
        if self._behind.failure is not None:  # before there was anybody to tell
            on_room()

    def room(self) -> memoryview | None:
        """Where to decrypt the next record: room for its header (write_behind.HEADROOM), then for its data. None while
        the disk is behind. Raises LocalFileError when it failed, TransferFailed after `abandon`."""
        if self._given_up:
            raise TransferFailed("The transfer was stopped.")
        return self._behind.room()

    def write(self, offset: int, size: int) -> int:
        """The latest room holds `size` bytes of data, which belong at `offset` of the transfer. What is present already
        is not written again: it may be hashed or vouched for. Returns how many bytes were new. Raises PeerError for
        bytes outside of the file."""
        end = offset + size
        have, behind = self._have, self._behind
        if offset < 0 or end > self.size:
            raise PeerError("The other side sent bytes beyond the end of the file that it offered.")
        if not have or offset > have.last:
            have.add(offset, end)
            behind.keep(offset, 0, size)
            new = size
        else:
            gaps = list(have.gaps(offset, end))
            for start, stop in gaps:
                behind.keep(start, start - offset, stop - start)
            new = have.add(offset, end)
        behind.end_record()
        if have.total == self.size:
            behind.flush()
        if len(have) > MAX_PIECES:
            raise PeerError("The other side sends the file in too many pieces.")
        return new

    def compare(self, first: int, hashes: bytes) -> None:
        """The sender's hashes of consecutive blocks. Raises PeerError, or TransferFailed when too many wait for a
        disk that hangs."""
        if first < 0 or len(hashes) % DIGEST_SIZE or first + len(hashes) // DIGEST_SIZE > self._behind.blocks.count:
            raise PeerError("The other side sent hashes of what it does not send.")
        self._behind.compare(first, hashes)

    def take_differing(self) -> list[tuple[int, int]]:
        """Ranges that are not what the sender has: they count as missing from now on, and have to come again."""
        ranges = [self._behind.blocks.range_of(index) for index in self._behind.comparison.take_differing()]
        for start, stop in ranges:
            self._have.subtract(start, stop)
        return ranges

    @property
    def is_full(self) -> bool:
        """Whether the sender had better wait for the disk."""
        return self._behind.is_full

    @property
    def received(self) -> int:
        """Bytes present, those of earlier attempts included."""
        return self._have.total

    # In the thread

    def _write(self, offset: int, view: memoryview) -> int:
        try:
            count = self._partial.write(offset, view)
        except OSError as error:
            raise disk.local_error(error, "write", self._partial.name) from error
        self._unnoted.add(offset, offset + count)
        return count

    def _read_back(self, offset: int, view: memoryview) -> None:
        with disk.errors_told("read back", self._partial.name):
            self._partial.read_into(offset, view)

    def _flush_if_due(self, written: RangeSet) -> None:
        if self._unnoted:
            self._guarded(lambda: self._partial.journal.note(self._unnoted))
            self._unnoted.clear()
        fresh = written.total - self._flushed
        if fresh and (fresh >= FLUSH_SIZE or time.monotonic() >= self._flush_due):
            self._flush(written)
            self._flush_due = time.monotonic() + FLUSH_INTERVAL

    def _flush(self, written: RangeSet, all_checked: bool = False) -> None:
        blocks = self._behind.blocks
        indices = range(blocks.count) if all_checked else self._behind.comparison.take_checked()
        checked = ((index, blocks.of(index)) for index in indices)  # of 20 GiB a list would take 3 MB
        try:
            self._guarded(lambda: self._partial.flush(list(written), checked))
        except LocalFileError:
            with contextlib.suppress(OSError):
                self._partial.journal.doubt_written()
            raise
        self._flushed = written.total
        self._unnoted.clear()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            self._flush_failed = True
            raise disk.local_error(error, "write", self._partial.name) from error

    def _end(self) -> None:
        """The last thing the thread does, if the transfer is given up: flush once more, and close everything."""
        if not self._given_up:
            return
        # Not after a flush that failed: the kernel reports lost pages once, and the next fdatasync would be a lie.
        with contextlib.suppress(LocalFileError, OSError):
            if not self._behind.written and not self._partial.placing:
                self._partial.discard()
            elif not self._flush_failed:
                self._flush(self._behind.written)
        self._partial.close()

    # The end

    def finish(self, digest: bytes) -> Path:
        """Compare the content's BLAKE3 with the sender's, make it durable, and rename it into place. Returns where it
        is. Waits for the hash and the disk: seconds for a large file on a slow disk.

        Raises TransferFailed if bytes are missing or the content is not what was read (the partial is then thrown away:
        nothing in it can be trusted), LocalFileError if the disk or the destination fail (it is then kept)."""
        if self.received < self.size and not self._behind.comparison.is_repairing:
            raise TransferFailed("The other side ended the transfer before all of it had arrived: try again.")
        name = self._partial.name
        mine = self._behind.digest()
        if not self._end_claim.acquire(blocking=False):
            raise TransferFailed("The transfer was stopped before its content was verified.")
        self._behind.stop(None)
        try:
            if self._behind.failure is not None:
                raise self._behind.failure
            self.digest = self._behind.blocks.digest_of_all()
            if not hmac.compare_digest(mine, digest):
                self._partial.discard()
                raise TransferFailed(
                    f"The content of {quote(name)} is not what the other side read; it was thrown away. Try again."
                )
            self._flush(self._behind.written, all_checked=True)
            placed = self._partial.place()
        except OSError as error:
            raise disk.local_error(error, "finish", name) from error
        finally:
            self._partial.close()
        return self._directory / placed

    def abandon(self) -> None:
        """Give up for now: flush, keep partial and journal for the next attempt (unless nothing arrived), and close.
        Waits at most five seconds for a slow disk, whose flush then goes on in the thread. Does nothing when called
        again, and after `finish` has begun to rename; a `finish` that still waits for the hash raises."""
        if self._end_claim.acquire(blocking=False):
            self._given_up = True
            self._behind.flush()
            self._behind.stop(STOP_TIMEOUT)


def _known_blocks(journal: Journal, size: int) -> RangeSet:
    block = hash_block_size(size)
    known = RangeSet()
    for index in sorted(journal.checked):
        start = index * block
        if start < size and journal.present.covers(start, min(start + block, size)):
            known.add(index, index + 1)
    return known.largest()
