"""Outbound: the file's bytes are in memory, and hashed, before the loop asks for them.

1. The thread reads the ranges to be sent, in order, a block at a time, into a few reused buffers.
2. It hashes them as soon as they are read, while they are in the cache, and then publishes them.
3. The loop takes records off the published blocks. Each record's bytes lie behind HEADROOM bytes that the caller may
   write its header into: they belong to the record before it, which has left.
4. What is skipped, since the receiver has it, is read and hashed when there is nothing else to do, but for the blocks
   that were compared before.

The loop neither reads from the disk nor waits for it, except for what was lost and is asked for again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from msgspec import Struct

from udpsend.errors import PeerError
from udpsend.files.hashing import BLOCK_SIZE, MAX_REPAIRS, HashingThread
from udpsend.wire.frames import DATA_HEADER_SIZE as HEADROOM
from udpsend.wire.ranges import RangeSet

BLOCKS = 8  # buffers: 8 ms at 1 GB/s, in which the disk may do something else
FRESH_HASHES = 32  # waiting to be taken: then the loop is told
FIRST_BLOCK = 1 << 17  # so that the first record need not wait for a whole one


class _Block(Struct):
    start: int
    stop: int
    buffer: memoryview


class ReadAhead(HashingThread):
    """`read(offset, view)` fills views; `plan` are the ranges to be sent, ascending; `known` the blocks that need no
    hash. `on_ready` is called from the thread when `take` had to say None and need not any more, and when there are
    hashes to take."""

    def __init__(
        self,
        size: int,
        read: Callable[[int, memoryview], None],
        plan: Iterable[tuple[int, int]],
        on_ready: Callable[[], None],
        end: Callable[[], None],
        known: RangeSet | None = None,
    ) -> None:
        super().__init__(size, known or RangeSet(), "udpsend-read", end)
        self._fresh: deque[int] = deque()  # blocks whose hashes nobody has taken
        self._again_wanted: deque[int] = deque()
        self._asked = 0  # all of them so far
        self._read = read
        self._plan = deque(plan)
        self._planned = RangeSet(self._plan)
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
        if start < self._taken or start not in self._planned:
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

    def take_hashes(self, limit: int) -> list[tuple[int, bytes]]:
        """(index, hash) of at most `limit` blocks that were not taken yet."""
        count = min(limit, len(self._fresh))
        return [(index, self.blocks.of(index)) for index in (self._fresh.popleft() for _ in range(count))]

    def hash_again(self, first: int, last: int) -> None:
        """These blocks (`last` excluded) are sent once more; their hashes are taken anew. Raises PeerError."""
        self._asked += last - first
        if self._asked > MAX_REPAIRS * self.blocks.count:
            raise PeerError("The other side asks for the same content again and again.")
        self._again_wanted.extend(range(first, last))
        self._wake.set()

    # in the thread

    def _work(self) -> None:
        while not self._stopping:
            if self._again_wanted:
                self._hash_block(self._again_wanted.popleft())
            elif self._plan and (buffer := self._buffer()) is not None:
                self._publish_next(buffer)
            elif (index := self._skipped_block()) is not None:
                self._hash_block(index)
            else:
                if self.blocks.complete and not self._finished.is_set():
                    self._finished.set()
                    self._on_ready()
                self._pause()

    def _skipped_block(self) -> int | None:
        """One that will not come by, since all of it that is sent has been read, or nothing of it is sent."""
        limit = self._plan[0][0] // self.blocks.block_size if self._plan else self.blocks.count
        return next((first for first, _ in self.blocks.done.gaps(0, limit)), None)

    def _hash_block(self, index: int) -> None:
        self.blocks.put(index, self.blocks.hash_from(self._read, index))
        self._tell([index])

    def _tell(self, hashed: list[int]) -> None:
        self._fresh.extend(hashed)
        if len(self._fresh) >= FRESH_HASHES or (self.blocks.complete and hashed):
            self._on_ready()

    def _buffer(self) -> memoryview | None:
        if self._free:
            return self._free.popleft()
        if self._made == BLOCKS:
            return None
        self._made += 1
        return memoryview(bytearray(HEADROOM + BLOCK_SIZE))

    def _publish_next(self, buffer: memoryview) -> None:
        start, stop = self._plan.popleft()
        size = FIRST_BLOCK if self._made == 1 else max(BLOCK_SIZE // self._piece, 1) * self._piece
        end = min(stop, start + size, start + BLOCK_SIZE)
        view = buffer[HEADROOM : HEADROOM + end - start]
        self._read(start, view)
        self._tell(self.blocks.feed(start, view))
        if end < stop:
            self._plan.appendleft((end, stop))
        self._published.append(_Block(start, end, buffer))
        self._tell_loop()

    def _tell_loop(self) -> None:
        if self._starving:
            self._starving = False
            self._on_ready()
