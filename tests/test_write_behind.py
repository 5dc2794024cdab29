"""The thread that writes: blocks, the bytes that headers lie over, order, room, failures, and an end at any time."""

from __future__ import annotations

import functools
import itertools
import random
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.servers import wait_until
from tests.trees import content_digest
from udpsend.errors import LocalFileError, TransferFailed
from udpsend.files import comparison, hashing, write_behind
from udpsend.files.write_behind import BLOCKS, LOW_BLOCKS, MAX_SEGMENTS, WriteBehind
from udpsend.wire.datagram import MAX_TRAIN_SIZE
from udpsend.wire.frames import DATA_HEADER_SIZE as HEADROOM
from udpsend.wire.ranges import RangeSet

BOUND = 30  # seconds


class Disk:
    """A file in memory that can be slow, write little at once, and fail; and the thread that writes to it."""

    def __init__(self, size: int, present: RangeSet | None = None, content: bytes = b"") -> None:
        self.content = bytearray(content or bytes(size))
        self.writes: list[tuple[int, int]] = []
        self.reads: list[tuple[int, int]] = []
        self.limit = size or 1
        self.fail_at: int | None = None
        self.open = threading.Event()
        self.open.set()
        self.called = threading.Event()
        self.ended = threading.Event()
        self.vouched = RangeSet()
        self.behind = WriteBehind(
            size, present or RangeSet(), self.write, self.read, self.turn, self.called.set, self.ended.set
        )

    def write(self, offset: int, view: memoryview) -> int:
        assert self.open.wait(BOUND)
        if self.fail_at is not None and offset >= self.fail_at:
            raise LocalFileError("The disk is full.")
        count = min(len(view), self.limit)
        self.content[offset : offset + count] = view[:count]
        self.writes.append((offset, offset + count))
        return count

    def read(self, offset: int, view: memoryview) -> None:
        view[:] = self.content[offset : offset + len(view)]
        self.reads.append((offset, offset + len(view)))

    def turn(self, written: RangeSet) -> None:
        self.vouched = RangeSet(written)

    def room(self) -> memoryview | None:
        """Scribbled over, as a record that somebody forged does."""
        room = self.behind.room()
        if room is not None:
            room[: HEADROOM + 100] = b"\xa5" * (HEADROOM + 100)
        return room

    def put(self, offset: int, data: bytes, *pieces: tuple[int, int]) -> bool:
        """A record of which `pieces` are kept (all of it, if none are given). False: there is no room."""
        room = self.room()
        if room is None:
            return False
        assert len(room) == HEADROOM + MAX_TRAIN_SIZE
        room[HEADROOM : HEADROOM + len(data)] = data
        for begin, end in pieces or [(0, len(data))]:
            self.behind.keep(offset + begin, begin, end - begin)
        self.behind.end_record()
        return True

    def put_when_called(self, offset: int, data: bytes) -> None:
        """Asks again only when it is called: a call that is lost is a transfer that stands still."""
        while True:
            self.called.clear()
            if self.put(offset, data):
                return
            assert self.called.wait(BOUND)


@pytest.fixture(autouse=True)
def small_hash_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "BLOCK_SIZE", 7000)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a block may be old before the next line of a test."""
    monkeypatch.setattr(write_behind, "BLOCK_AGE", 3600.0)


@pytest.fixture
def disks() -> Iterator[Callable[..., Disk]]:
    made: list[Disk] = []

    def make(size: int, present: RangeSet | None = None, content: bytes = b"") -> Disk:
        made.append(Disk(size, present, content))
        return made[-1]

    yield make
    for disk in made:
        disk.open.set()
        assert disk.behind.stop(BOUND)
        assert disk.ended.is_set()


@pytest.mark.parametrize("block_size", [1, HEADROOM, 50, 1 << 20])
@pytest.mark.parametrize("length", [1, 2, HEADROOM - 1, HEADROOM, HEADROOM + 1, 40])
def test_what_headers_lie_over_is_put_back(
    disks: Callable[..., Disk], monkeypatch: pytest.MonkeyPatch, block_size: int, length: int
) -> None:
    """At every position of a block, with rooms in between that come to nothing."""
    monkeypatch.setattr(write_behind, "FULL", block_size)
    data = random.Random(length).randbytes(length * 120)
    disk = disks(len(data))
    for i, offset in enumerate(range(0, len(data), length)):
        if i % 3:
            disk.room()
        disk.put_when_called(offset, data[offset : offset + length])
        if i % 5 == 0:
            disk.room()
    disk.behind.flush()
    assert disk.behind.digest() == content_digest(data)
    assert disk.content == data
    assert disk.reads == []


def test_consecutive_records_are_one_write(disks: Callable[..., Disk]) -> None:
    disk = disks(1000)
    for offset in (0, 100, 200, 500, 600, 300):
        disk.put(offset, bytes([offset // 100]) * 100)
    disk.behind.flush()
    wait_until(lambda: len(disk.writes) == 3)
    assert disk.writes == [(0, 300), (500, 700), (300, 400)]


def test_of_partly_present_records_the_rest_is_written(disks: Callable[..., Disk]) -> None:
    data = bytes(range(100))
    content = bytearray(100)
    present = RangeSet([(10, 20), (30, 40), (95, 100)])
    for start, stop in present:
        content[start:stop] = data[start:stop]
    disk = disks(100, present, bytes(content))
    disk.put(0, data[:15] + b"\xff" * 5 + data[20:30] + b"\xff" * 10, (0, 10), (20, 30))
    disk.put(40, data[40:95])
    disk.put(40, b"\xff" * 60, (0, 0))
    disk.behind.flush()
    assert disk.behind.digest() == content_digest(data)
    assert disk.content == data
    assert disk.writes == [(0, 10), (20, 30), (40, 95)]


def test_records_that_bring_nothing_new_take_no_room(disks: Callable[..., Disk]) -> None:
    disk = disks(100)
    for _ in range(100):
        disk.put(0, bytes(60_000), (0, 0))
    disk.put(0, b"a" * 50)
    for _ in range(100):
        disk.put(0, bytes(60_000), (0, 0))
    disk.put(50, b"b" * 50)
    disk.behind.flush()
    assert disk.behind.digest() == content_digest(b"a" * 50 + b"b" * 50)
    assert disk.writes == [(0, 100)]


def test_many_small_pieces_do_not_pile_up(disks: Callable[..., Disk]) -> None:
    """A block of 1 MiB could hold a million of them."""
    disk = disks(1 << 20)
    for i in range(MAX_SEGMENTS):
        disk.put(2 * i, b"x")
    wait_until(lambda: len(disk.writes) == MAX_SEGMENTS)


def test_nothing_has_a_hash_too(disks: Callable[..., Disk]) -> None:
    disk = disks(0)
    assert disk.behind.digest() == content_digest(b"")


def test_what_came_early_is_read_back(disks: Callable[..., Disk]) -> None:
    data = random.Random(5).randbytes(100_000)
    disk = disks(len(data))
    disk.put(50_000, data[50_000:])
    disk.behind.flush()
    wait_until(lambda: disk.writes)
    disk.put(0, data[:50_000])
    disk.behind.flush()
    assert disk.behind.digest() == content_digest(data)
    assert disk.reads[0] == (49_000, 56_000)  # the block in the middle, and others whose bytes had come before
    assert disk.behind._finished.is_set()
    assert disk.behind.blocks.complete


@pytest.mark.parametrize("block_size", [1000, 30_000])
def test_any_order_is_hashed_right(
    disks: Callable[..., Disk], monkeypatch: pytest.MonkeyPatch, rng: random.Random, block_size: int
) -> None:
    monkeypatch.setattr(write_behind, "FULL", block_size)
    for _ in range(20):
        data = rng.randbytes(rng.randint(1, 200_000))
        cuts = sorted({0, len(data), *(rng.randrange(len(data)) for _ in range(rng.randrange(200)))})
        parts = list(itertools.pairwise(cuts))
        present = RangeSet(part for part in parts if rng.random() < 0.2)
        content = bytearray(len(data))
        for start, stop in present:
            content[start:stop] = data[start:stop]
        disk = disks(len(data), present, bytes(content))
        disk.limit = rng.choice([700, 1 << 20])
        parts = [part for part in parts if not present.covers(*part)]
        how_far = rng.choice([1, 3, len(parts) or 1])  # nearly in order, or not at all
        for i in range(0, len(parts), how_far):
            some = parts[i : i + how_far]
            rng.shuffle(some)
            for start, stop in some:
                for at in range(start, stop, 60_000):
                    disk.put_when_called(at, data[at : min(stop, at + 60_000)])
        disk.behind.flush()
        assert disk.behind.digest() == content_digest(data)
        assert disk.content == data
        assert disk.behind.stop(BOUND)
        assert list(disk.behind.written) == [(0, len(data))]


def test_a_disk_that_is_behind_stops_the_loop_and_calls_it(
    disks: Callable[..., Disk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_behind, "FULL", 1000)
    data = random.Random(6).randbytes(1000 * (BLOCKS + 1))
    disk = disks(len(data))
    disk.open.clear()
    warned = None
    for i in range(BLOCKS):
        assert disk.put(1000 * i, data[1000 * i : 1000 * (i + 1)])
        if disk.behind.is_full and warned is None:
            warned = i + 1
    assert warned == BLOCKS - LOW_BLOCKS + 1
    assert disk.room() is None
    assert disk.behind.is_full
    assert not disk.called.is_set()
    disk.open.set()
    assert disk.called.wait(BOUND)
    wait_until(lambda: not disk.behind.is_full)
    assert disk.put(1000 * BLOCKS, data[1000 * BLOCKS :])
    assert disk.behind.digest() == content_digest(data)


def test_no_call_is_lost(disks: Callable[..., Disk], monkeypatch: pytest.MonkeyPatch, rng: random.Random) -> None:
    """Loop and thread race for each block: whoever finds none, or few, is called when there are some."""
    monkeypatch.setattr(write_behind, "FULL", 16)
    data = rng.randbytes(200_000)
    disk = disks(len(data))
    for offset in range(0, len(data), 50):
        disk.put_when_called(offset, data[offset : offset + 50])
        disk.called.clear()
        while disk.behind.is_full:
            assert disk.called.wait(BOUND)
            disk.called.clear()
    assert disk.behind.digest() == content_digest(data)


def test_an_old_block_is_asked_for(disks: Callable[..., Disk], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "BLOCK_AGE", 0.05)
    disk = disks(1000)
    assert disk.room() is not None  # an empty one is not
    disk.put(0, b"x" * 10)
    assert disk.called.wait(BOUND)
    disk.put(10, b"y" * 10)  # hands over what was there, and lies in the next block
    wait_until(lambda: list(disk.vouched) == [(0, 10)])
    assert disk.content[:20] == b"x" * 10 + bytes(10)
    disk.called.clear()
    assert disk.called.wait(BOUND)
    assert disk.room() is not None
    wait_until(lambda: list(disk.vouched) == [(0, 20)])
    assert disk.content[:20] == b"x" * 10 + b"y" * 10


def test_a_block_that_was_handed_over_meanwhile_is_not_asked_for(
    disks: Callable[..., Disk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_behind, "BLOCK_AGE", 0.05)
    disk = disks(1000)
    disk.put(0, b"x" * 10)
    assert disk.called.wait(BOUND)
    disk.behind.flush()
    disk.put(10, b"y" * 10)
    wait_until(lambda: disk.writes)
    assert disk.writes == [(0, 10)]


def test_a_failure_is_told_at_once(disks: Callable[..., Disk], monkeypatch: pytest.MonkeyPatch) -> None:
    """To a loop that does not wait, too; and what was written before it is known."""
    monkeypatch.setattr(write_behind, "FULL", 100)
    disk = disks(1000)
    disk.fail_at = 250
    disk.limit = 30
    disk.open.clear()
    for offset in range(0, 400, 50):
        disk.put(offset, b"x" * 50)
    disk.open.set()
    assert disk.called.wait(BOUND)
    wait_until(lambda: disk.behind.failure)
    for _ in range(2):
        with pytest.raises(LocalFileError, match="full"):
            disk.behind.room()
    with pytest.raises(LocalFileError, match="full"):
        disk.behind.digest()
    disk.behind.flush()
    assert disk.behind.stop(BOUND)
    assert list(disk.behind.written) == [(0, 260)]


def test_a_failure_between_blocks_is_told(disks: Callable[..., Disk], monkeypatch: pytest.MonkeyPatch) -> None:
    disk = disks(10)

    def fail(written: RangeSet) -> None:
        raise LocalFileError("Cannot flush.")

    monkeypatch.setattr(disk.behind, "_turn", fail)
    disk.put(0, b"x" * 10)
    disk.behind.flush()
    assert disk.called.wait(BOUND)
    with pytest.raises(LocalFileError, match="Cannot flush"):
        disk.behind.room()


def test_stopping_writes_what_was_handed_over(disks: Callable[..., Disk], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "FULL", 1000)
    data = random.Random(7).randbytes(1000 * (BLOCKS + 1))
    disk = disks(len(data))
    disk.open.clear()
    for i in range(BLOCKS):
        assert disk.put(1000 * i, data[1000 * i : 1000 * (i + 1)])
    assert not disk.behind.stop(0)
    assert not disk.ended.is_set()
    disk.open.set()
    assert disk.behind.stop(BOUND)
    assert list(disk.behind.written) == [(0, 1000 * BLOCKS)]
    assert disk.content[: 1000 * BLOCKS] == data[: 1000 * BLOCKS]
    with pytest.raises(TransferFailed, match="stopped"):
        disk.behind.digest()


def test_hashes_that_wait_for_a_disk_that_hangs_are_bounded(
    disks: Callable[..., Disk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "MAX_WAITING", 10)
    data = random.Random(1).randbytes(7000 * 20)
    hashes = [content_digest(data[at : at + 7000]) for at in range(0, len(data), 7000)]
    disk = disks(len(data))
    for index, digest in enumerate(hashes):  # what was looked at does not count
        disk.put_when_called(7000 * index, data[7000 * index : 7000 * (index + 1)])
        disk.behind.flush()
        disk.behind.compare(index, digest)
        wait_until(functools.partial(disk.behind.comparison._same.covers, index, index + 1))
    disk.open.clear()
    disk.put_when_called(0, data[:100])
    disk.behind.flush()
    wait_until(lambda: not disk.behind._queue)
    disk.behind.compare(0, b"".join(hashes[:10]))
    with pytest.raises(TransferFailed, match="disk"):
        disk.behind.compare(10, hashes[10])
