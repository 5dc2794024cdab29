"""Inbound: whether each block is what the sender read. The loop hands in the sender's hashes, and learns what differs;
the thread that writes and hashes (write_behind.py) compares.

A block that differs is as if it had not arrived: it comes again, and is compared with the same hash. The two threads
hand things over in deques, which need no lock.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator

from udpsend.errors import PeerError, TransferFailed
from udpsend.files.hashing import MAX_REPAIRS, BlockHashes
from udpsend.wire.ranges import DIGEST_SIZE, RangeSet

MAX_WAITING = 1 << 18  # hashes of blocks that are not there, or that the thread has not looked at


class Comparison:
    """`blocks` are the hashes here. Those that were known before are not compared."""

    def __init__(self, blocks: BlockHashes) -> None:
        self._blocks = blocks
        self._theirs: deque[tuple[int, bytes]] = deque()  # (first block, hashes), from the loop
        self._told = self._heard = 0  # hashes that the loop has put there, and that the thread has looked at
        self._expects = False  # the sender's hashes come
        self._waiting: dict[int, bytes] = {}  # the sender's hashes of blocks that are not complete here
        self._same = RangeSet(blocks.known)
        self._checked: deque[int] = deque()  # the same, and nobody was told
        self._differing: deque[int] = deque()
        self._differed: Counter[int] = Counter()

    # the loop's side

    def put(self, first: int, hashes: bytes) -> None:
        """The sender's, of consecutive blocks. Raises TransferFailed when too many wait for a disk that hangs."""
        self._expects = True
        self._told += len(hashes) // DIGEST_SIZE
        if self._told - self._heard > MAX_WAITING:
            raise TransferFailed(
                "The disk has not answered for long, and too much waits for it. What has arrived is kept: "
                "run the same commands again when it does."
            )
        self._theirs.append((first, hashes))

    @property
    def is_repairing(self) -> bool:
        """Whether blocks have come, or are to come, again."""
        return bool(self._differed)

    def take_differing(self) -> list[int]:
        """The blocks that are not what the sender read; they have to come again."""
        return [self._differing.popleft() for _ in range(len(self._differing))]

    # in the thread

    @property
    def has_more(self) -> bool:
        """Whether there are hashes that were not looked at."""
        return bool(self._theirs)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be compared, as far as is known, and nothing comes again."""
        return (not self._expects or self._same.total == self._blocks.count) and not self._differing

    def take_checked(self) -> list[int]:
        """The blocks that were found to be the sender's since this was asked last."""
        return [self._checked.popleft() for _ in range(len(self._checked))]

    def next_differing(self) -> Iterator[int]:
        """Looks at the sender's next hashes: the blocks that are complete here, and another. Raises PeerError, and
        TransferFailed for a block that differs again and again."""
        first, hashes = self._theirs.popleft()
        count = len(hashes) // DIGEST_SIZE
        for number in range(count):
            index, theirs = first + number, hashes[number * DIGEST_SIZE : (number + 1) * DIGEST_SIZE]
            if index in self._same:
                continue
            if index not in self._blocks.done:
                self._waiting[index] = theirs
            elif self._differs(index, theirs):
                yield index
        self._heard += count
        if len(self._waiting) > MAX_WAITING:
            raise PeerError("The other side sends hashes of what it does not send.")

    def is_another(self, index: int) -> bool:
        """A block is complete: whether it differs from what the sender has said by now. Raises TransferFailed."""
        theirs = self._waiting.pop(index, None)
        return theirs is not None and self._differs(index, theirs)

    def _differs(self, index: int, theirs: bytes) -> bool:
        if self._blocks.of(index) == theirs:
            self._same.add(index, index + 1)
            self._checked.append(index)
            return False
        self._differed[index] += 1
        if self._differed[index] > MAX_REPAIRS:
            raise TransferFailed(
                "A part of the content stays different from what the other side reads: "
                "something writes to the file there, or memory or disk of one side is damaged. Try again."
            )
        self._waiting[index] = theirs
        return True

    def wanted_again(self, index: int) -> None:
        """It counts as missing here: the loop may ask for it."""
        self._differing.append(index)
