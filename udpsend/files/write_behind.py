"""Inbound: records are decrypted straight into blocks, and a thread writes and hashes the blocks.

1. `room` gives the loop a place to decrypt one record into. Its first HEADROOM bytes are for the record's header: they
   lie over the end of the record before it, and are put back, so that the data of consecutive records is consecutive.
2. `keep` makes a segment of what was decrypted there. A full block is handed over.
3. The thread writes a block's segments, one call for each, and hashes what comes in order while it is in the cache. The
   hash blocks that did not come in order are read back when they are complete.
4. A block that fills slowly is asked for by the thread: what has arrived does not wait in memory for the rest.
5. Hashes are compared with the sender's as these come (comparison.py). A block that differs is asked for again.
6. When the disk is behind and all blocks are taken, `room` gives None: the loop drops records, and has the sender wait.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

from udpsend.files.comparison import Comparison
from udpsend.files.hashing import BLOCK_SIZE, POLL_INTERVAL, HashingThread
from udpsend.wire.datagram import MAX_TRAIN_SIZE
from udpsend.wire.frames import DATA_HEADER_SIZE as HEADROOM
from udpsend.wire.ranges import RangeSet

FULL = BLOCK_SIZE - MAX_TRAIN_SIZE  # bytes that make a block full; there is place for a record more
BLOCKS = 12  # the thread is waited for with fewer: 1 GiB took 1.76 s with eight, 1.69 with ten; more gives 3 % at most
LOW_BLOCKS = 5  # free ones: below that the sender is told to wait; with three, 4 to 12 records a GiB found no room
# A block full of records of the smallest size has 680 segments; more of them are a peer that means harm.
MAX_SEGMENTS = 1024
# Seconds after which the thread asks for a block that is not full: what a kill costs. Above 200 MB/s it is full then.
BLOCK_AGE = 0.004


class _Block:
    __slots__ = ("buffer", "position", "segments")

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(HEADROOM + FULL + MAX_TRAIN_SIZE))
        self.position = HEADROOM
        self.segments: list[list[int]] = []  # [offset, begin, end]: buffer[begin:end] belongs at `offset`


class WriteBehind(HashingThread):
    """`write(offset, view)` writes at least one byte and returns how many, `read(offset, view)` fills the view,
    `turn(written)` is called between blocks and while waiting, and is given what was written. `on_room` is called from
    the thread when the loop had better call `room`, and take what differs: there is room again, a block is due, or
    differs, or it failed. `known` are the hash blocks compared before, `hashes` theirs."""

    def __init__(
        self,
        size: int,
        present: RangeSet,
        write: Callable[[int, memoryview], int],
        read: Callable[[int, memoryview], None],
        turn: Callable[[RangeSet], None],
        on_room: Callable[[], None],
        end: Callable[[], None],
        known: RangeSet | None = None,
        hashes: Iterable[tuple[int, bytes]] = (),
    ) -> None:
        super().__init__(size, known or RangeSet(), "udpsend-write", end, hashes)
        self.comparison = Comparison(self.blocks)
        self._unread: deque[int] = deque()  # complete blocks that have to be read back
        self.written = RangeSet(present)
        """Only for the thread, and after it has ended."""
        self._write, self._read, self._turn, self._on_room = write, read, turn, on_room
        self._queue, self._free = deque[_Block](), deque[_Block]()
        self._block: _Block | None = None
        self._covered = b""  # what the header of the latest record lies over
        self._made, self._waited_for = 0, False
        self._due: _Block | None = None  # the block that the thread asks for
        self._seen: _Block | None = None  # the block that the thread saw not full,
        self._seen_at = 0.0  # and when first
        self._is_idle = False  # the thread waits for a block to begin
        for first, last in self.blocks.done.gaps(0, self.blocks.count):
            self._unread.extend(index for index in range(first, last) if self._is_written(index))
        self._thread.start()

    # the loop's side

    def room(self) -> memoryview | None:
        """Where to decrypt the next record, or None while the disk is behind. Raises LocalFileError."""
        if self.failure is not None:
            raise self.failure
        due, self._due = self._due, None
        if due is not None and due is self._block:  # not handed over meanwhile
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
        start, segments = block.position + begin, block.segments
        if segments and segments[-1][2] == start and segments[-1][0] + start - segments[-1][1] == offset:
            segments[-1][2] = start + size
        else:
            segments.append([offset, start, start + size])
            if self._is_idle:
                self._wake.set()

    def end_record(self) -> None:
        """The next record goes behind what was kept."""
        block = self._block
        assert block is not None  # noqa: S101
        self._uncover(block)
        if block.segments:
            block.position = block.segments[-1][2]
            if block.position >= HEADROOM + FULL or len(block.segments) >= MAX_SEGMENTS:
                self.flush()

    def flush(self) -> None:
        """Hand over what there is."""
        if (block := self._block) is not None and block.segments:
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

    def compare(self, first: int, hashes: bytes) -> None:
        """The sender's hashes of consecutive blocks. Raises TransferFailed when too many wait for a disk that hangs."""
        self.comparison.put(first, hashes)
        self._finished.clear()  # of a transfer of which everything was there, it seemed to be
        self._wake.set()

    # in the thread

    def _work(self) -> None:
        comparison = self.comparison
        while not self._stopping or self._queue or comparison.has_more:
            self._turn(self.written)
            self._ask_for_old_block()
            while comparison.has_more:
                for index in comparison.next_differing():
                    self._forget(index)
            if self._queue:
                self._write_block(self._queue.popleft())
            elif self._unread and not self._stopping:
                index = self._unread.popleft()
                if index not in self.blocks.done and self._is_written(index):
                    self._hashed(index, self.blocks.hash_from(self._read, index))
            elif not comparison.has_more:
                if self.blocks.complete and comparison.is_over:
                    self._finished.set()
                    if comparison.has_more:  # they came just before
                        self._finished.clear()
                        continue
                self._pause()

    def _write_block(self, block: _Block) -> None:
        for offset, begin, end in block.segments:
            done = begin
            while done < end:
                at = offset + done - begin
                count = self._write(at, block.buffer[done:end])
                self.written.add(at, at + count)
                done += count
            for index in self.blocks.feed(offset, block.buffer[begin:end]):
                self._hashed(index, self.blocks.of(index))
            size = self.blocks.block_size
            for index in range(offset // size, (offset + end - begin - 1) // size + 1):
                if index not in self.blocks.done and self._is_written(index):
                    self._unread.append(index)
        block.segments = []
        block.position = HEADROOM
        self._seen = None
        self._free.append(block)
        if self._waited_for:
            self._waited_for = False
            self._on_room()

    def _is_written(self, index: int) -> bool:
        return self.written.covers(*self.blocks.range_of(index))

    def _hashed(self, index: int, mine: bytes) -> None:
        self.blocks.put(index, mine)
        if self.comparison.is_another(index):
            self._forget(index)

    def _forget(self, index: int) -> None:
        """This block is not what the sender read, and is to come again."""
        self._finished.clear()
        self.blocks.done.subtract(index, index + 1)
        self.written.subtract(*self.blocks.range_of(index))
        self.comparison.wanted_again(index)
        self._on_room()

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

    def _pause(self) -> None:
        self._is_idle = True
        block = self._block  # looked at after that: it may have begun just before
        self._is_idle = block is None or not block.segments
        self._wake.wait(POLL_INTERVAL if self._is_idle else min(BLOCK_AGE, POLL_INTERVAL))
        self._wake.clear()

    def _is_unsettled(self) -> bool:
        return self.comparison.has_more or not self._finished.is_set()

    def _tell_loop(self) -> None:
        if self.failure is not None:  # also to who does not wait yet: nothing comes after this
            self._on_room()
