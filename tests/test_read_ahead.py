"""The thread that reads: what is taken is what is there, whatever is planned, skipped, lost, and however fast."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.servers import wait_until
from tests.trees import content_digest
from udpsend.errors import LocalFileError, PeerError, TransferFailed
from udpsend.files import hashing, read_ahead
from udpsend.files.read_ahead import BLOCKS, ReadAhead
from udpsend.wire.frames import DATA_HEADER_SIZE as HEADROOM

BOUND = 30  # seconds


class Reader:
    """A file in memory, the thread that reads it, and a loop that asks again only when it is called."""

    def __init__(self, data: bytes, plan: list[tuple[int, int]]) -> None:
        self.data = data
        self.reads: list[tuple[int, int]] = []
        self.begun = 0
        self.fail_at: int | None = None
        self.open = threading.Event()
        self.open.set()
        self.ready = threading.Event()
        self.ended = threading.Event()
        self.ahead = ReadAhead(len(data), self.read, plan, self.ready.set, self.ended.set)

    def read(self, offset: int, view: memoryview) -> None:
        self.begun += 1
        assert self.open.wait(BOUND)
        if self.fail_at is not None and offset + len(view) > self.fail_at:
            raise LocalFileError("It became shorter.")
        view[:] = self.data[offset : offset + len(view)]
        self.reads.append((offset, offset + len(view)))

    def take(self, start: int, stop: int) -> int:
        """Checks what is there, writes a header into its room; returns where it ends."""
        while True:
            self.ready.clear()
            view = self.ahead.take(start, stop)
            if view is not None:
                break
            assert self.ready.wait(BOUND)
        end = start + len(view) - HEADROOM
        assert start < end <= stop
        assert view[HEADROOM:] == self.data[start:end]
        view[:HEADROOM] = b"\xa5" * HEADROOM
        return end

    def hang(self) -> int:
        """All that was read is taken, and the disk hangs in the next read. Returns where."""
        wait_until(lambda: len(self.ahead._published) == BLOCKS)
        self.open.clear()
        offset = 0
        while self.ahead.take(offset, len(self.data)) is not None:
            offset = self.ahead._taken
        wait_until(lambda: self.begun == BLOCKS + 1)
        return offset

    def take_all(self, start: int, stop: int, piece: int) -> list[int]:
        """The lengths of what it came in."""
        lengths = []
        while start < stop:
            end = self.take(start, min(stop, start + piece))
            lengths.append(end - start)
            start = end
        return lengths


@pytest.fixture(autouse=True)
def small_hash_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "BLOCK_SIZE", 7000)


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Reader]]:
    """With small blocks, so that there are many."""
    monkeypatch.setattr(read_ahead, "BLOCK_SIZE", 10_000)
    monkeypatch.setattr(read_ahead, "FIRST_BLOCK", 1000)
    made: list[Reader] = []

    def make(data: bytes, plan: list[tuple[int, int]] | None = None) -> Reader:
        made.append(Reader(data, [(0, len(data))] if plan is None else plan))
        return made[-1]

    yield make
    for reader in made:
        reader.open.set()
        assert reader.ahead.stop(BOUND)
        assert reader.ended.is_set()


DATA = random.Random(8).randbytes(400_000)


@pytest.mark.parametrize("piece", [1, 7, HEADROOM, 1300, 9_999, 10_000, 10_001, 70_000])
def test_all_of_it_in_pieces(readers: Callable[..., Reader], piece: int) -> None:
    data = DATA[: piece * 3000]
    reader = readers(data)
    reader.take_all(0, len(data), piece)
    assert reader.ahead.digest() == content_digest(data)
    assert sum(stop - start for start, stop in reader.reads) == len(data)  # each byte once


def test_blocks_hold_whole_pieces(readers: Callable[..., Reader]) -> None:
    """Once it is known how long they are; what was read before that is cut where its blocks end."""
    reader = readers(DATA)
    lengths = reader.take_all(0, len(DATA), 3000)
    assert lengths[-51:-1] == [3000] * 50


def test_the_first_block_is_small(readers: Callable[..., Reader]) -> None:
    reader = readers(DATA)
    assert reader.take(0, 3000) == 1000


def test_memory_is_bounded_and_used_again(readers: Callable[..., Reader]) -> None:
    reader = readers(DATA)
    wait_until(lambda: len(reader.ahead._published) == BLOCKS)
    assert len(reader.reads) == BLOCKS
    assert reader.ahead.blocks.done.total == reader.reads[-1][1] // hashing.BLOCK_SIZE
    places = set()
    offset = 0
    while offset < len(DATA):
        end = reader.take(offset, min(len(DATA), offset + 5000))
        if (block := reader.ahead._block_at(end - 1)) is not None:
            places.add(id(block.buffer.obj))
        offset = end
    assert len(places) <= BLOCKS
    assert reader.ahead._made == BLOCKS


def test_what_was_taken_is_not_overwritten_until_the_next_call(readers: Callable[..., Reader]) -> None:
    reader = readers(DATA)
    reader.take_all(0, 100_000, 10_000)
    view = reader.ahead.take(100_000, 100_010)
    while view is None:
        view = reader.ahead.take(100_000, 100_010)
    wait_until(lambda: not reader.ahead._free)  # all other buffers are full again
    assert view[HEADROOM:] == DATA[100_000:100_010]


@pytest.mark.parametrize(
    "plan",
    [
        [],
        [(0, 1)],
        [(399_999, 400_000)],
        [(0, 50), (50, 60), (1000, 200_000), (350_000, 400_000)],
        [(i, i + 3) for i in range(5, 400_000, 1000)],
    ],
    ids=["nothing", "first", "last", "some", "crumbs"],
)
def test_a_plan_with_gaps_is_sent_and_all_is_hashed(
    readers: Callable[..., Reader], plan: list[tuple[int, int]]
) -> None:
    reader = readers(DATA, plan)
    for start, stop in plan:
        reader.take_all(start, stop, 1300)
    assert reader.ahead.digest() == content_digest(DATA)
    assert reader.ahead.blocks.complete


def test_all_is_hashed_though_nothing_is_taken_of_a_gap_before(readers: Callable[..., Reader]) -> None:
    """The gap is read when the buffers are full, and what follows it then comes in order."""
    reader = readers(DATA, [(200_000, 400_000)])
    wait_until(lambda: reader.ahead.blocks.done.total * hashing.BLOCK_SIZE >= 196_000)
    reader.take_all(200_000, 400_000, 1300)
    assert reader.ahead.digest() == content_digest(DATA)


def test_nothing_has_a_hash_too(readers: Callable[..., Reader]) -> None:
    assert readers(b"", []).ahead.digest() == content_digest(b"")


def test_any_plan_any_pieces_any_loss(readers: Callable[..., Reader], rng: random.Random) -> None:
    for _ in range(30):
        data = rng.randbytes(rng.randint(1, 200_000))
        cuts = sorted({0, len(data), *(rng.randrange(len(data)) for _ in range(rng.randrange(40)))})
        plan = [part for part in itertools.pairwise(cuts) if rng.random() < 0.7]
        reader = readers(data, plan)
        done: list[tuple[int, int]] = []
        for start, stop in plan:
            while start < stop:
                piece = rng.choice([1, 100, 1300, 8000, 65_000])
                if done and rng.random() < 0.2:  # lost, and if it was the latest, joined to what comes next
                    first, last = rng.choice(done)
                    start = max(start, reader.take(first, min(stop, last + piece) if last == start else last))
                    continue
                end = reader.take(start, min(stop, start + piece))
                done.append((start, end))
                start = end
        assert reader.ahead.digest() == content_digest(data)


def test_what_was_not_planned_is_read_all_the_same(readers: Callable[..., Reader]) -> None:
    reader = readers(DATA, [(100_000, 150_000), (200_000, 250_000)])
    assert reader.take(50_000, 51_000) == 51_000
    assert reader.take(100_000, 100_500) == 100_500
    wait_until(lambda: len(reader.ahead._published) == BLOCKS)
    reader.take_all(100_500, 150_000, 2000)
    assert reader.take(160_000, 161_000) == 161_000
    reader.take_all(200_000, 250_000, 2000)


def test_no_call_is_lost(readers: Callable[..., Reader], monkeypatch: pytest.MonkeyPatch) -> None:
    """Loop and thread race for each block: whoever finds none is called when there is one."""
    monkeypatch.setattr(read_ahead, "BLOCK_SIZE", 20)
    monkeypatch.setattr(read_ahead, "FIRST_BLOCK", 20)
    reader = readers(DATA)
    reader.take_all(0, len(DATA), 20)
    assert reader.ahead.digest() == content_digest(DATA)


def test_a_failure_is_raised_after_what_was_read_before(readers: Callable[..., Reader]) -> None:
    reader = readers(DATA)
    reader.fail_at = 150_000
    offset = 0
    with pytest.raises(LocalFileError, match="shorter"):  # noqa: PT012 - how far it gets is what is asked
        while True:
            offset = reader.take(offset, offset + 1000)
    assert 140_000 <= offset <= 150_000
    with pytest.raises(LocalFileError, match="shorter"):
        reader.ahead.digest()
    assert reader.take(5, 100) == 100  # it is there, and may be asked for again
    with pytest.raises(LocalFileError, match="shorter"):
        reader.ahead.take(149_000, 150_001)


def test_a_failure_calls_who_waits(readers: Callable[..., Reader]) -> None:
    reader = readers(DATA)
    offset = reader.hang()
    reader.fail_at = 0
    reader.ready.clear()
    reader.open.set()
    assert reader.ready.wait(BOUND)
    wait_until(lambda: reader.ahead.failure)
    with pytest.raises(LocalFileError, match="shorter"):
        reader.ahead.take(offset, offset + 1000)


@pytest.mark.parametrize("taken", [0, 20_000])
def test_stopping_ends_it_with_full_buffers(readers: Callable[..., Reader], taken: int) -> None:
    reader = readers(DATA)
    reader.take_all(0, taken, 1000)
    wait_until(lambda: reader.ahead._made == BLOCKS and not reader.ahead._free)
    assert reader.ahead.stop(BOUND)
    assert reader.ended.is_set()
    assert not reader.ahead._thread.is_alive()
    with pytest.raises(TransferFailed, match="stopped"):
        reader.ahead.digest()


def test_stopping_does_not_wait_for_a_disk_that_hangs(readers: Callable[..., Reader]) -> None:
    reader = readers(DATA)
    reader.hang()
    assert not reader.ahead.stop(0)
    assert not reader.ended.is_set()
    reader.open.set()
    assert reader.ended.wait(BOUND)


def test_what_is_asked_for_again_is_bounded() -> None:
    """Forty bytes of a peer ask for all of it, which may be a million blocks."""
    reader = Reader(bytes(3000), [])
    try:
        for _ in range(hashing.MAX_REPAIRS):
            reader.ahead.hash_again(0, 1)
        with pytest.raises(PeerError, match="again and again"):
            reader.ahead.hash_again(0, 1)
    finally:
        reader.ahead.stop(BOUND)
