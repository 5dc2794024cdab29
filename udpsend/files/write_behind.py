"""Inbound: records are decrypted straight into blocks, and a thread writes and hashes the blocks.

1. `room` gives the loop a place to decrypt one record into. Its first HEADROOM bytes are for the record's header: they
   lie over the end of the record before it, and are put back, so that the data of consecutive records is consecutive.
2. `keep` makes a segment of what was decrypted there. A full block is handed over.
3. The thread writes a block's segments, one call for each, and hashes those that come next in order while they are in
   the cache. What came out of order is read back when its turn comes.
4. A block that fills slowly is asked for by the thread: what has arrived does not wait in memory for the rest.
5. When the disk is behind and all blocks are taken, `room` gives None: the loop drops data records, unacknowledged,
   and tells the sender to wait.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from udpsend.files.hashing import BLOCK_SIZE, HashingThread
from udpsend.wire.datagram import MAX_TRAIN_SIZE
from udpsend.wire.frames import DATA_HEADER_SIZE as HEADROOM
from udpsend.wire.ranges import RangeSet

if TYPE_CHECKING:
    from blake3 import blake3

BLOCKS = 12
LOW_BLOCKS = 2  # free ones: below that the sender is told to wait
# A block full of records of the smallest size has 900 segments; more of them are a peer that means harm.
MAX_SEGMENTS = 1024
BLOCK_AGE = 0.5  # seconds after which the thread asks for a block that is not full


class _Block:
    __slots__ = ("buffer", "position", "segments")

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(HEADROOM + BLOCK_SIZE + MAX_TRAIN_SIZE))
        self.position = HEADROOM
        self.segments: list[list[int]] = []  # [offset, begin, end]: buffer[begin:end] belongs at `offset`


class WriteBehind(HashingThread):
    """`write(offset, view)` writes at least one byte and returns how many, `read(offset, view)` fills the view,
    `turn(written)` is called between blocks and while waiting with what was written, `on_room` from the thread when
    `room` had better be called: there is room again, a block is due, or it failed."""

    def __init__(
        self,
        size: int,
        present: RangeSet,
        write: Callable[[int, memoryview], int],
        read: Callable[[int, memoryview], None],
        turn: Callable[[RangeSet], None],
        on_room: Callable[[], None],
        end: Callable[[], None],
    ) -> None:
        super().__init__(size, "udpsend-write", end)
        self.written = RangeSet(present)
        """Only for the thread, and after it has ended."""
        self._write, self._read, self._turn, self._on_room = write, read, turn, on_room
        self._queue: deque[_Block] = deque()
        self._free: deque[_Block] = deque()
        self._made = 0
        self._block: _Block | None = None
        self._covered = b""  # what the header of the latest record lies over
        self._waited_for = False
        self._due: _Block | None = None  # the block that the thread asks for
        self._seen: _Block | None = None  # the block that the thread saw not full,
        self._seen_at = 0.0  # and when first
        self._thread.start()

    # the loop's side

    def room(self) -> memoryview | None:
        """Where to decrypt the next record, or None while the disk is behind. Raises LocalFileError."""
        if self.failure is not None:
            raise self.failure
        if self._due is not None:
            due, self._due = self._due, None
            if due is self._block:  # not handed over meanwhile
                self.flush()
        block = self._block or self._next_block()
        if block is None:
            return None
        self._uncover(block)
        at = block.position - HEADROOM
        self._covered = bytes(block.buffer[at : block.position])
        return block.buffer[at : block.position + MAX_TRAIN_SIZE]

    def keep(self, offset: int, begin: int, size: int) -> None:
        """Of the data in the latest room, `size` bytes from `begin` belong at `offset`. Data of one record may be kept
        in several pieces; `end_record` ends it."""
        block = self._block
        assert block is not None  # noqa: S101 - room() gave it
        if not size:
            return
        start = block.position + begin
        segments = block.segments
        if segments and segments[-1][2] == start and segments[-1][0] + start - segments[-1][1] == offset:
            segments[-1][2] = start + size
        else:
            segments.append([offset, start, start + size])

    def end_record(self) -> None:
        """The next record goes behind what was kept."""
        block = self._block
        assert block is not None  # noqa: S101
        self._uncover(block)
        if block.segments:
            block.position = block.segments[-1][2]
            if block.position >= HEADROOM + BLOCK_SIZE or len(block.segments) >= MAX_SEGMENTS:
                self.flush()

    def flush(self) -> None:
        """Hand over what there is."""
        block = self._block
        if block is not None and block.segments:
            self._uncover(block)
            self._block = None
            self._queue.append(block)
            self._wake.set()

    @property
    def is_full(self) -> bool:
        """Whether the sender had better wait."""
        if not self._is_low():
            return False
        self._waited_for = True
        return self._is_low()  # the thread may have looked just before

    def _is_low(self) -> bool:
        return BLOCKS - self._made + len(self._free) < LOW_BLOCKS

    def _uncover(self, block: _Block) -> None:
        if self._covered:
            block.buffer[block.position - HEADROOM : block.position] = self._covered
            self._covered = b""

    def _next_block(self) -> _Block | None:
        if not self._free and self._made < BLOCKS:
            self._made += 1
            self._free.append(_Block())
        if not self._free:
            self._waited_for = True
        if self._free:  # looked at again: the thread may have looked at `_waited_for` just before
            self._block = self._free.popleft()
        return self._block

    # in the thread

    def _work(self, hasher: blake3) -> None:
        if not self._size:
            self._announce(hasher)
        scratch = memoryview(b"")
        while not self._stopping or self._queue:
            self._turn(self.written)
            self._ask_for_old_block()
            busy = bool(self._queue)
            if busy:
                self._write_block(hasher, self._queue.popleft())
            behind = self._contiguous() - self.hashed
            if behind > 0 and not self._stopping:
                scratch = scratch or memoryview(bytearray(BLOCK_SIZE))
                view = scratch[:behind]
                self._read(self.hashed, view)
                self._hash(hasher, view)
            elif not busy:
                self._pause()

    def _write_block(self, hasher: blake3, block: _Block) -> None:
        for offset, begin, end in block.segments:
            done = begin
            while done < end:
                at = offset + done - begin
                count = self._write(at, block.buffer[done:end])
                self.written.add(at, at + count)
                done += count
            if offset == self.hashed:
                self._hash(hasher, block.buffer[begin:end])
        block.segments = []
        block.position = HEADROOM
        self._seen = None
        self._free.append(block)
        self._tell_waiting()

    def _ask_for_old_block(self) -> None:
        block, now = self._block, time.monotonic()
        if block is None or not block.segments:
            self._seen = None
        elif block is not self._seen:
            self._seen, self._seen_at = block, now
        elif now >= self._seen_at + BLOCK_AGE:
            self._seen = None
            self._due = block
            self._on_room()

    def _contiguous(self) -> int:
        """What is written lies below, without a gap."""
        for start, stop in self.written:
            return stop if start == 0 else 0
        return 0

    def _tell_waiting(self) -> None:
        if self._waited_for:
            self._waited_for = False
            self._on_room()

    def _failed_or_done(self) -> None:
        if self.failure is not None:  # also to who does not wait yet: nothing comes after this
            self._on_room()
