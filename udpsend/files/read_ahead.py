"""Outbound: the file's bytes are in memory, and hashed, before the loop asks for them.

1. The thread reads the ranges to be sent, in order, a block at a time, into a few reused buffers.
2. It hashes a block as soon as it is read, while it is in the cache, and then publishes it.
3. The loop takes records off the published blocks. Each record's bytes lie behind HEADROOM bytes that the caller may
   write its header into: they belong to the record before it, which has left.
4. What is skipped, since the receiver has it, is read and hashed when there is nothing else to do.

The loop neither reads from the disk nor waits for it, except for what was lost and is asked for again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from udpsend.files.hashing import BLOCK_SIZE, HashingThread
from udpsend.wire.frames import DATA_HEADER_SIZE as HEADROOM

if TYPE_CHECKING:
    from blake3 import blake3

BLOCKS = 8  # buffers: 8 ms at 1 GB/s, in which the disk may do something else
FIRST_BLOCK = 1 << 17  # so that the first record need not wait for a whole one


@dataclass(slots=True)
class _Block:
    start: int
    stop: int
    buffer: memoryview


class ReadAhead(HashingThread):
    """`read(offset, view)` fills views; `plan` are the ranges to be sent, ascending; `on_ready` is called from the
    thread when `take` had to say None and need not any more."""

    def __init__(
        self,
        size: int,
        read: Callable[[int, memoryview], None],
        plan: Iterable[tuple[int, int]],
        on_ready: Callable[[], None],
        end: Callable[[], None],
    ) -> None:
        super().__init__(size, "udpsend-read", end)
        self._read = read
        self._plan = deque(plan)
        self._on_ready = on_ready
        self._published: deque[_Block] = deque()
        self._free: deque[memoryview] = deque()
        self._made = 0
        self._taken = 0  # what was taken lies below; it is not in memory any more
        self._piece = BLOCK_SIZE  # blocks hold whole pieces, as long as what was taken last
        self._starving = False
        self._again = memoryview(b"")
        self._thread.start()

    # the loop's side

    def take(self, start: int, stop: int) -> memoryview | None:
        """HEADROOM bytes and then those from `start`, at most up to `stop`; None when they are not there yet. Valid
        until the next call. Raises LocalFileError."""
        if start < self._taken:
            return self._read_again(start, stop)
        block = self._block_at(start)
        if block is None:
            self._starving = True
            block = self._block_at(start)  # it may have come just before
            if block is None:
                if self.failure is not None:
                    raise self.failure
                return None
        if start < block.start:  # not in the plan
            return self._read_again(start, stop)
        self._piece = max(stop - start, 1)
        stop = min(stop, block.stop)
        self._taken = stop
        return block.buffer[start - block.start : stop - block.start + HEADROOM]

    def _block_at(self, offset: int) -> _Block | None:
        while self._published:
            block = self._published[0]
            if offset < block.stop:
                return block
            self._published.popleft()
            self._free.append(block.buffer)
            self._wake.set()
        return None

    def _read_again(self, start: int, stop: int) -> memoryview:
        size = HEADROOM + stop - start
        if len(self._again) < size:
            self._again = memoryview(bytearray(size))
        view = self._again[:size]
        self._read(start, view[HEADROOM:])
        return view

    # in the thread

    def _work(self, hasher: blake3) -> None:
        if not self._size:
            self._announce(hasher)
        scratch = memoryview(b"")
        while not self._stopping and (self._plan or self.hashed < self._size):
            if self._plan and (buffer := self._buffer()) is not None:
                self._publish_next(hasher, buffer)
            elif self.hashed < (self._plan[0][0] if self._plan else self._size):
                scratch = scratch or memoryview(bytearray(BLOCK_SIZE))
                limit = self._plan[0][0] if self._plan else self._size
                view = scratch[: limit - self.hashed]
                self._read(self.hashed, view)
                self._hash(hasher, view)
            else:
                self._pause()

    def _buffer(self) -> memoryview | None:
        if self._free:
            return self._free.popleft()
        if self._made == BLOCKS:
            return None
        self._made += 1
        return memoryview(bytearray(HEADROOM + BLOCK_SIZE))

    def _publish_next(self, hasher: blake3, buffer: memoryview) -> None:
        start, stop = self._plan.popleft()
        size = FIRST_BLOCK if self._made == 1 else max(BLOCK_SIZE // self._piece, 1) * self._piece
        end = min(stop, start + size, start + BLOCK_SIZE)
        view = buffer[HEADROOM : HEADROOM + end - start]
        self._read(start, view)
        if start == self.hashed:
            self._hash(hasher, view)
        if end < stop:
            self._plan.appendleft((end, stop))
        self._published.append(_Block(start, end, buffer))
        self._failed_or_done()

    def _failed_or_done(self) -> None:
        if self._starving:
            self._starving = False
            self._on_ready()
