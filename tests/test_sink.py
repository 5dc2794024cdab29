"""The file that is received: any order, resumed after any end, placed without replacing, and never a mixture."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.servers import wait_until
from tests.trees import content_digest, open_source
from udpsend.errors import BadPacket, LocalFileError, PeerError, TransferFailed
from udpsend.files import disk, hashing, sink, walk, write_behind
from udpsend.files.entries import File
from udpsend.files.existing import Policy
from udpsend.files.journal import make_header, make_line, parse_journal
from udpsend.files.manifest import Manifest
from udpsend.files.names import journal_name, partial_name, tree_journal_name, tree_name
from udpsend.files.sink import Sink, open_sink
from udpsend.transfer.messages import accept_message, parse_ranges_untrusted
from udpsend.wire.frames import DATA_HEADER_SIZE as HEADROOM
from udpsend.wire.ranges import MAX_TOLD, RangeSet

MTIME = 1_700_000_000_123_456_789
NAME = "a.bin"
PARTIAL, JOURNAL = partial_name(NAME), journal_name(NAME)


pytestmark = pytest.mark.usefixtures("no_leaks")


def offer(size: int, mode: int = 0o640, mtime_ns: int = MTIME, name: str = NAME) -> Manifest:
    return Manifest((File(name, size, mode, mtime_ns, 0),))


def offer_two() -> Manifest:
    """What is received into a directory."""
    return Manifest((*offer(3), *offer(0, name="b.bin")))


def view(data: bytes) -> memoryview:
    return memoryview(bytearray(data))


def put(receiver: Sink, offset: int, data: memoryview) -> int:
    """As the connection does: a header and data into the room, then kept. Waits for the disk where it is behind."""
    new = 0
    for at in range(0, len(data) or 1, 60_000):
        piece = data[at : at + 60_000]
        wait_until(lambda: receiver.room() is not None)
        room = receiver.room()
        assert room is not None
        room[:HEADROOM] = b"\xa5" * HEADROOM
        room[HEADROOM : HEADROOM + len(piece)] = piece
        new += receiver.write(offset + at, len(piece))
    return new


def settle(receiver: Sink) -> None:
    """Until the thread has written what has arrived. Raises what went wrong."""
    receiver._behind.flush()
    wait_until(lambda: receiver.room() and receiver._behind.written.total == receiver.received)


def put_through(receiver: Sink, offset: int, data: bytes) -> None:
    put(receiver, offset, view(data))
    settle(receiver)


def write(receiver: Sink, data: bytes, start: int = 0, stop: int | None = None) -> int:
    return put(receiver, start, view(data[start:stop]))


def write_missing(receiver: Sink, data: bytes) -> None:
    for start, stop in RangeSet(receiver.present).gaps(0, len(data)):
        write(receiver, data, start, stop)


def check_present(directory: Path, receiver: Sink, data: bytes) -> None:
    """What is offered as present is in the partial."""
    partial = (directory / PARTIAL).read_bytes()
    for start, stop in receiver.present:
        assert partial[start:stop] == data[start:stop]


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_017])
def test_a_file_arrives(tmp_path: Path, size: int) -> None:
    data = random.Random(size).randbytes(size)
    receiver = open_sink(offer(size), tmp_path)
    for start in range(0, size, 65_536):
        assert write(receiver, data, start, start + 65_536) == min(65_536, size - start)
    assert receiver.received == size
    path = receiver.finish(content_digest(data))
    receiver.abandon()
    assert path == tmp_path / NAME
    assert path.read_bytes() == data
    assert path.stat().st_mtime_ns == MTIME
    assert path.stat().st_mode & 0o7777 == 0o640 & ~disk.current_umask()
    assert os.listdir(tmp_path) == [NAME]


def test_any_order_with_overlaps_and_repeats(tmp_path: Path, rng: random.Random) -> None:
    for round_number in range(30):
        size = rng.choice([1, 100, 5_000, 300_000])
        data = rng.randbytes(size)
        name = f"{round_number}.bin"
        receiver = open_sink(offer(size, name=name), tmp_path)
        model = RangeSet()
        while receiver.received < len(data):
            start = rng.choice([rng.randrange(size), next(model.gaps(0, size))[0]])
            stop = min(size, start + rng.randint(1, max(1, size // 20)))
            # What is present is not written again, whatever comes: it may be hashed already.
            piece = bytearray(data[start:stop])
            for a, b in model:
                for i in range(max(a, start), min(b, stop)):
                    piece[i - start] ^= 0xFF
            assert put(receiver, start, memoryview(piece)) == model.add(start, stop)
            assert receiver.received == model.total
        receiver.finish(content_digest(data))
        assert (tmp_path / name).read_bytes() == data


def test_bytes_outside_of_the_file_are_the_peers_fault(tmp_path: Path) -> None:
    receiver = open_sink(offer(10), tmp_path)
    for offset, data in [(5, b"123456"), (10, b"x"), (-1, b"xx"), (1 << 70, b"x")]:
        with pytest.raises(PeerError, match="beyond the end"):
            put(receiver, offset, view(data))
    receiver.abandon()
    assert os.listdir(tmp_path) == []


def test_too_many_pieces_are_the_peers_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "MAX_PIECES", 10)
    receiver = open_sink(offer(1000), tmp_path)

    def scatter() -> None:
        for i in range(1, 100, 2):
            put(receiver, i, view(b"x"))

    with pytest.raises(PeerError, match="too many pieces"):
        scatter()
    receiver.abandon()


@pytest.fixture
def holes(tmp_path: Path) -> Iterator[Path]:
    """A directory where reading holes takes no memory: tmpfs where there is one (ten times faster than ext4 then)."""
    if not os.access("/dev/shm", os.W_OK):  # noqa: S108 - the directory in it has a random name
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)


def test_five_gib(holes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sparse: a partial that a journal vouches for but for its end, then the end, across the 32-bit border."""
    size, tail = 5 << 30, b"the end"
    (holes / "from").mkdir()
    with open(holes / "from" / NAME, "wb") as file:
        file.truncate(size)
        file.seek(size - len(tail))
        file.write(tail)
    monkeypatch.setattr(walk, "data_ranges", lambda *_: None)  # as if there were no holes in it
    source = open_source(holes / "from" / NAME)
    with open(holes / PARTIAL, "wb") as file:
        file.truncate(size - len(tail))
    lines = make_header(source.manifest.identity) + make_line(f"present 0 {size - len(tail)}")
    (holes / JOURNAL).write_bytes(lines)
    receiver = open_sink(source.manifest, holes)
    assert receiver.present == [(0, size - len(tail))]
    source.start([(size - len(tail), size)], lambda: None)
    put(receiver, size - len(tail), view(tail))
    path = receiver.finish(source.digest())
    assert path.stat().st_size == size
    source.check_unchanged()
    source.close()


# Resuming


def test_resumes_where_it_was_given_up(tmp_path: Path) -> None:
    data = random.Random(2).randbytes(100_000)
    first = open_sink(offer(len(data)), tmp_path)
    write(first, data, 0, 30_000)
    write(first, data, 50_000, 60_000)
    first.abandon()
    first.abandon()
    with pytest.raises(TransferFailed, match="stopped"):
        write(first, data, 30_000, 30_001)
    assert sorted(os.listdir(tmp_path)) == [JOURNAL, PARTIAL]
    assert (tmp_path / PARTIAL).stat().st_mode & 0o777 == 0o600
    second = open_sink(offer(len(data)), tmp_path)
    assert second.present == [(0, 30_000), (50_000, 60_000)]
    assert second.received == 40_000
    write_missing(second, data)
    second.finish(content_digest(data))
    assert (tmp_path / NAME).read_bytes() == data


def test_no_more_blocks_are_known_than_can_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides leave the same ones out of the digest."""
    monkeypatch.setattr(hashing, "BLOCK_SIZE", 8)
    data = random.Random(3).randbytes(8 * 3 * MAX_TOLD)
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / NAME).write_bytes(data)
    with contextlib.closing(open_source(tmp_path / "sent" / NAME)) as source:
        hashes = b"".join(content_digest(data[at : at + 8]) for at in range(0, len(data), 8))
        first = open_sink(source.manifest, tmp_path)
        first.compare(0, hashes)
        for at in range(0, len(data), 16):
            write(first, data, at, at + 8)
        settle(first)
        first.abandon()
        second = open_sink(source.manifest, tmp_path)
        assert len(second.present) > len(second.known) == MAX_TOLD
        told = accept_message(RangeSet(second.present), b"", second.known)
        known = parse_ranges_untrusted(told["known"], len(data) // 8)
        assert known == second.known
        source.start([], lambda: None, known)
        second.compare(0, hashes)
        write_missing(second, data)
        assert second.finish(source.digest()).read_bytes() == data


def test_random_ends_never_lose_or_invent(tmp_path: Path, rng: random.Random) -> None:
    """Given up at random points, the journal torn at random points: what is offered as present always is."""
    data = rng.randbytes(200_000)
    digest = content_digest(data)
    for _ in range(40):
        receiver = open_sink(offer(len(data)), tmp_path)
        while True:
            check_present(tmp_path, receiver, data)
            for _ in range(rng.randrange(12)):
                start = rng.randrange(len(data))
                write(receiver, data, start, start + rng.randint(1, 9_000))
            before = receiver.received
            receiver.abandon()
            if rng.random() < 0.5 and (tmp_path / JOURNAL).exists():
                torn = (tmp_path / JOURNAL).read_bytes()
                (tmp_path / JOURNAL).write_bytes(torn[: rng.randint(0, len(torn))] + bytes(rng.choice([0, 0, 17])))
                before = 0
            receiver = open_sink(offer(len(data)), tmp_path)
            assert receiver.received >= before
            if rng.random() < 0.3:
                break
        check_present(tmp_path, receiver, data)
        write_missing(receiver, data)
        assert receiver.finish(digest).read_bytes() == data
        (tmp_path / NAME).unlink()


CHILD = f"""
import random, sys, time
from udpsend.files import sink, write_behind
from udpsend.files.entries import File
from udpsend.files.manifest import Manifest
sink.FLUSH_SIZE, sink.FLUSH_INTERVAL, write_behind.FULL = 1 << 16, 0.005, 1 << 15
seed, size = int(sys.argv[2]), int(sys.argv[3])
data = random.Random(1).randbytes(size)
receiver = sink.open_sink(Manifest((File("a.bin", size, 0o640, {MTIME}, 0),)), sys.argv[1])
order = list(range(0, size, 8192))
if seed % 2:
    random.Random(seed).shuffle(order)
print("open", flush=True)
for start in order:
    while (room := receiver.room()) is None:
        time.sleep(0.001)
    room[{HEADROOM} : {HEADROOM} + 8192] = data[start : start + 8192]
    receiver.write(start, 8192)
    print(start, flush=True)
print("all", flush=True)
sys.stdin.read()
"""


def test_killed_processes_lose_only_what_was_not_flushed(tmp_path: Path, rng: random.Random) -> None:
    size = 8 << 20
    data = random.Random(1).randbytes(size)
    resumed = 0
    for _ in range(12):
        arguments = [sys.executable, "-c", CHILD, str(tmp_path), str(rng.randrange(1000)), str(size)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(rng.randint(1, size // 8192)):
                if child.stdout.readline() in ("all\n", ""):
                    break
            child.send_signal(signal.SIGKILL)
        assert child.returncode == -signal.SIGKILL
        receiver = open_sink(offer(size), tmp_path)
        check_present(tmp_path, receiver, data)
        assert receiver.received >= resumed
        resumed = receiver.received
        receiver.abandon()
    assert resumed
    receiver = open_sink(offer(size), tmp_path)
    write_missing(receiver, data)
    assert receiver.finish(content_digest(data)).read_bytes() == data


def test_the_journal_vouches_only_for_what_was_flushed(
    tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that forgets what was not flushed: after each flush the journal names a part of what was on it then."""
    monkeypatch.setattr(sink, "FLUSH_SIZE", 1)
    monkeypatch.setattr(write_behind, "FULL", 10_000)
    size = 500_000
    data = rng.randbytes(size)
    receiver = open_sink(offer(size), tmp_path)
    written, durable = RangeSet(), RangeSet()
    lock = threading.Lock()
    real_pwrite, real_sync = os.pwrite, os.fdatasync
    partial_inode = (tmp_path / PARTIAL).stat().st_ino
    complaints: list[object] = []

    def pwrite(fd: int, piece: memoryview, offset: int) -> int:
        count = real_pwrite(fd, piece, offset)
        if os.fstat(fd).st_ino == partial_inode:
            with lock:
                written.add(offset, offset + count)
        else:
            vouched = parse_journal((tmp_path / JOURNAL).read_bytes(), offer(size).identity, size).present
            complaints.extend(r for r in vouched if not durable.covers(*r))
        return count

    def fdatasync(fd: int) -> None:
        real_sync(fd)
        if os.fstat(fd).st_ino == partial_inode:
            with lock:
                for start, stop in written:
                    durable.add(start, stop)

    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    order = list(range(0, size, 1000))
    rng.shuffle(order)
    for start in order:
        write(receiver, data, start, start + 1000)
    receiver.finish(content_digest(data))
    assert not complaints
    assert durable.total == size


def test_after_a_failed_flush_nothing_more_is_vouched_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel reports lost pages once; the next fdatasync succeeds without them."""
    monkeypatch.setattr(sink, "FLUSH_SIZE", 1)
    failed = threading.Event()
    real = os.fdatasync

    def fail_once(fd: int) -> None:
        if failed.is_set():
            return real(fd)
        failed.set()
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail_once)
    receiver = open_sink(offer(100), tmp_path)
    put(receiver, 0, view(b"x" * 50))
    with pytest.raises(LocalFileError, match="input/output error"):
        wait_until(lambda: settle(receiver))
    assert failed.is_set()
    with pytest.raises(LocalFileError, match="input/output error"):
        put(receiver, 0, view(b"x"))
    receiver.abandon()
    again = open_sink(offer(100), tmp_path)
    assert again.present == []
    again.abandon()


@pytest.mark.parametrize("change", [offer(1000, mtime_ns=MTIME + 1), offer(999)], ids=["time", "size"])
def test_what_another_file_of_the_same_name_left_is_compared(tmp_path: Path, change: Manifest) -> None:
    first = open_sink(offer(1000), tmp_path)
    put(first, 0, view(b"x" * 500))
    first.abandon()
    second = open_sink(change, tmp_path)
    assert (second.present, list(second.known)) == ([(0, 500)], [])
    put(second, 500, view(b"y" * (second.size - 500)))
    data = b"z" * 500 + b"y" * (second.size - 500)
    second.compare(0, content_digest(data))
    wait_until(lambda: second._behind.comparison._differing)
    differing = second.take_differing()
    assert differing == [(0, second.size)]
    assert second.received == 0
    put(second, 0, view(data))
    second.finish(content_digest(data))
    assert (tmp_path / NAME).read_bytes() == data


def test_a_block_that_stays_different_ends_it(tmp_path: Path) -> None:
    receiver = open_sink(offer(1000), tmp_path)
    receiver.compare(0, content_digest(b"z" * 1000))

    def round_trip() -> bool:
        for start, stop in [*receiver.take_differing(), *RangeSet([(0, receiver.received)]).gaps(0, 1000)]:
            put(receiver, start, view(b"x" * (stop - start)))
        receiver.room()
        return False

    with pytest.raises(TransferFailed, match="stays different"):
        wait_until(round_trip)
    receiver.abandon()


@pytest.mark.parametrize("length", [0, 100, 2000, None], ids=["emptied", "cut", "grown", "removed"])
def test_a_partial_that_somebody_changed_starts_from_nothing(tmp_path: Path, length: int | None) -> None:
    first = open_sink(offer(1000), tmp_path)
    put(first, 200, view(b"x" * 500))
    first.abandon()
    if length is None:
        (tmp_path / PARTIAL).unlink()
    else:
        os.truncate(tmp_path / PARTIAL, length)
    second = open_sink(offer(1000), tmp_path)
    assert second.present == []
    second.abandon()
    assert os.listdir(tmp_path) == []


def test_a_block_counts_as_compared_only_where_all_of_it_is_present(tmp_path: Path) -> None:
    """Whatever a journal says: of what is known no hash comes."""
    manifest = offer(3 * hashing.BLOCK_SIZE)
    digests = [make_line(f"checked {index} {'ab' * 32}") for index in (0, 1, 2, 3)]
    present = make_line(f"present {hashing.BLOCK_SIZE} {3 * hashing.BLOCK_SIZE - 1}")
    (tmp_path / JOURNAL).write_bytes(b"".join([make_header(manifest.identity), present, *digests]))
    (tmp_path / PARTIAL).write_bytes(bytes(3 * hashing.BLOCK_SIZE))
    receiver = open_sink(manifest, tmp_path)
    assert list(receiver.known) == [(1, 2)]
    receiver.abandon()


def test_a_mixture_is_thrown_away(tmp_path: Path) -> None:
    """The same name, size and time, another content: found by the hash, and the next attempt begins anew."""
    first = open_sink(offer(1000), tmp_path)
    put(first, 0, view(b"x" * 500))
    first.abandon()
    second = open_sink(offer(1000), tmp_path)
    put(second, 500, view(b"y" * 500))
    with pytest.raises(TransferFailed, match="not what the other side read"):
        second.finish(content_digest(b"y" * 1000))
    assert os.listdir(tmp_path) == []


def test_incomplete_is_not_finished(tmp_path: Path) -> None:
    receiver = open_sink(offer(10), tmp_path)
    put(receiver, 0, view(b"12345"))
    with pytest.raises(TransferFailed, match="before all of it"):
        receiver.finish(bytes(32))
    receiver.abandon()
    assert sorted(os.listdir(tmp_path)) == [JOURNAL, PARTIAL]


def test_giving_up_ends_a_finish_that_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, go_on = threading.Event(), threading.Event()
    real = os.preadv

    def slow(fd: int, views: list[memoryview], offset: int) -> int:
        reading.set()
        assert go_on.wait(30)
        return real(fd, views, offset)

    monkeypatch.setattr(os, "preadv", slow)
    monkeypatch.setattr(sink, "STOP_TIMEOUT", 0.0)
    data = b"x" * 2_000_000
    receiver = open_sink(offer(len(data)), tmp_path)
    write(receiver, data, 1_000_000)  # it is read back when the rest has come
    settle(receiver)
    write(receiver, data, 0, 1_000_000)
    outcome: list[object] = []

    def finish() -> None:
        try:
            outcome.append(receiver.finish(content_digest(data)))
        except TransferFailed as error:
            outcome.append(error)

    waiter = threading.Thread(target=finish)
    waiter.start()
    assert reading.wait(30)
    receiver.abandon()
    go_on.set()
    waiter.join(30)
    for thread in threading.enumerate():
        if thread.name == "udpsend-write":
            thread.join(30)
    assert [type(result) for result in outcome] == [TransferFailed]
    assert sorted(os.listdir(tmp_path)) == [JOURNAL, PARTIAL]


def test_a_trickle_reaches_the_journal_while_nothing_more_arrives(tmp_path: Path) -> None:
    """A process killed a second or two after the last byte loses nothing: the loop is called to hand over its block."""
    called = threading.Event()
    receiver = open_sink(offer(100_000), tmp_path)
    receiver.start(called.set)

    def vouched() -> list[tuple[int, int]]:
        if called.is_set():
            called.clear()
            receiver.room()
        return list(parse_journal((tmp_path / JOURNAL).read_bytes(), offer(100_000).identity, 100_000).present)

    for start in (0, 1000, 5000):
        put(receiver, start, view(b"x" * 1000))
        wait_until(lambda start=start: vouched() and vouched()[-1][1] == start + 1000)  # type: ignore[misc]
    assert vouched() == [(0, 2000), (5000, 6000)]
    receiver.abandon()


def test_a_failure_calls_who_waits_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender is told to stop, so nothing arrives that could ask for room and be told."""
    go_on, called = threading.Event(), threading.Event()

    def fail(*_: object) -> int:
        assert go_on.wait(30)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write_behind, "FULL", 1000)
    receiver = open_sink(offer(100_000), tmp_path)
    receiver.start(called.set)
    monkeypatch.setattr(os, "pwrite", fail)
    offset = 0
    while not receiver.is_full:
        offset += put(receiver, offset, view(b"x" * 1000))
    go_on.set()
    assert called.wait(30)
    with pytest.raises(LocalFileError, match="the disk is full"):
        receiver.room()
    receiver.abandon()
    assert os.listdir(tmp_path) == []


def test_a_failure_before_anybody_listens_is_told(tmp_path: Path) -> None:
    """What an earlier attempt left cannot be read back."""
    first = open_sink(offer(1000), tmp_path)
    put(first, 0, view(b"x" * 1000))
    first.abandon()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "preadv", lambda *_: 0)
        receiver = open_sink(offer(1000), tmp_path)
        wait_until(lambda: receiver._behind.failure)
    called = threading.Event()
    receiver.start(called.set)
    assert called.is_set()
    with pytest.raises(LocalFileError, match="Somebody shortened"):
        receiver.room()
    receiver.abandon()


def test_what_a_refused_peer_sends_on_does_not_reach_what_is_vouched_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that arrive together are opened after one of them was one too many."""
    monkeypatch.setattr(sink, "MAX_PIECES", 2)
    receiver = open_sink(offer(1000), tmp_path)
    put(receiver, 0, view(b"a" * 10))
    put(receiver, 20, view(b"b" * 10))
    with pytest.raises(PeerError, match="too many pieces"):
        put(receiver, 40, view(b"c" * 10))
    room = receiver.room()
    assert room is not None
    room[: HEADROOM + 10] = b"\xa5" * (HEADROOM + 10)
    receiver.abandon()
    again = open_sink(offer(1000), tmp_path)
    assert again.present == [(0, 10), (20, 30), (40, 50)]
    partial = (tmp_path / PARTIAL).read_bytes()
    assert partial == b"a" * 10 + bytes(10) + b"b" * 10 + bytes(10) + b"c" * 10
    again.abandon()


# What is there already, and who else is


def test_never_overwrites_unless_asked(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"precious")
    with pytest.raises(LocalFileError, match=r"'a.bin' exists already: .*--overwrite"):
        open_sink(offer(3), tmp_path)
    assert os.listdir(tmp_path) == [NAME]
    receiver = open_sink(offer(3), tmp_path, Policy(overwrite=True))
    put(receiver, 0, view(b"new"))
    assert (tmp_path / NAME).read_bytes() == b"precious"
    receiver.finish(content_digest(b"new"))
    assert (tmp_path / NAME).read_bytes() == b"new"


@pytest.mark.parametrize("target", ["victim", "nowhere"])
def test_overwriting_a_link_replaces_the_link(tmp_path: Path, target: str) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / NAME).symlink_to(target)
    with pytest.raises(LocalFileError, match="exists already"):
        open_sink(offer(3), tmp_path)
    receiver = open_sink(offer(3), tmp_path, Policy(overwrite=True))
    put(receiver, 0, view(b"new"))
    receiver.finish(content_digest(b"new"))
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert not (tmp_path / NAME).is_symlink()
    assert sorted(os.listdir(tmp_path)) == [NAME, "victim"]


@pytest.mark.parametrize("ways", [disk.WAYS_TO_RENAME[i:] for i in range(3)], ids=["renameat2", "link", "placeholder"])
def test_a_file_that_appears_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ways: tuple[Callable[[int, str, str], None], ...]
) -> None:
    monkeypatch.setattr(disk, "WAYS_TO_RENAME", ways)
    receiver = open_sink(offer(3, mode=0o400), tmp_path)
    put(receiver, 0, view(b"new"))
    (tmp_path / NAME).write_bytes(b"precious")
    with pytest.raises(LocalFileError, match="exists already"):
        receiver.finish(content_digest(b"new"))
    assert (tmp_path / NAME).read_bytes() == b"precious"
    (tmp_path / NAME).unlink()
    # Nothing was lost: the next attempt has it all.
    again = open_sink(offer(3, mode=0o400), tmp_path)
    assert again.present == [(0, 3)]
    assert list(again.known) == [(0, 1)], "and what was compared is not compared again"
    again.finish(hashing.BlockHashes(3, again.known).digest())
    assert (tmp_path / NAME).read_bytes() == b"new"
    assert (tmp_path / NAME).stat().st_mode & 0o7777 == 0o400
    assert os.listdir(tmp_path) == [NAME]


def test_each_way_to_rename_falls_back_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(disk, "NO_SUCH_WAY", disk.NO_SUCH_WAY | {0})
    monkeypatch.setattr(disk, "_RENAME_NOREPLACE", 1 << 20)  # a flag that no kernel knows: EINVAL
    monkeypatch.setattr(os, "link", cannot)
    where = disk.open_directory(tmp_path)
    (tmp_path / "old").write_bytes(b"x")
    disk.rename_no_replace(where, "old", "new")
    assert os.listdir(tmp_path) == ["new"]
    monkeypatch.setattr(disk, "WAYS_TO_RENAME", disk.WAYS_TO_RENAME[:2])
    with pytest.raises(OSError, match="not supported"):
        disk.rename_no_replace(where, "new", "other")
    os.close(where)


def test_a_link_may_be_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on sshfs, as far as can be told."""
    monkeypatch.setattr(disk, "WAYS_TO_RENAME", disk.WAYS_TO_RENAME[1:])

    def link(old: str, new: str, *, src_dir_fd: int, **_: object) -> None:
        content = os.open(old, os.O_RDONLY, dir_fd=src_dir_fd)
        (tmp_path / new).write_bytes(os.read(content, 100))
        os.close(content)

    monkeypatch.setattr(os, "link", link)
    receiver = open_sink(offer(3), tmp_path)
    put(receiver, 0, view(b"new"))
    receiver.finish(content_digest(b"new"))
    assert (tmp_path / NAME).read_bytes() == b"new"
    assert os.listdir(tmp_path) == [NAME]


def test_a_directory_of_that_name_is_told(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    for overwrite in (False, True):
        with pytest.raises(LocalFileError, match="A directory named"):
            open_sink(offer(3), tmp_path, Policy(overwrite=overwrite))
    assert os.listdir(tmp_path) == [NAME]


def test_two_receivers_do_not_share_a_partial(tmp_path: Path) -> None:
    first = open_sink(offer(10), tmp_path)
    put(first, 0, view(b"12345"))
    for other in (offer(10), offer(99)):
        with pytest.raises(LocalFileError, match=r"Another udpsend is receiving 'a\.bin'"):
            open_sink(other, tmp_path)
    open_sink(offer(10, name="b.bin"), tmp_path).abandon()
    put(first, 5, view(b"67890"))
    first.finish(content_digest(b"1234567890"))
    assert (tmp_path / NAME).read_bytes() == b"1234567890"


# What was planted


def test_planted_partials_are_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    for name in (PARTIAL, JOURNAL):
        in_the_way = rf"^'\{name}' is in the way, and is not a file of yours"
        (tmp_path / name).symlink_to("victim")
        with pytest.raises(LocalFileError, match=in_the_way):
            open_sink(offer(3), tmp_path)
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
        with pytest.raises(LocalFileError, match=in_the_way):
            open_sink(offer(3), tmp_path)
        (tmp_path / name).unlink()
        (tmp_path / name).mkdir()
        with pytest.raises(LocalFileError, match=in_the_way):
            open_sink(offer(3), tmp_path)
        (tmp_path / name).rmdir()
        (tmp_path / PARTIAL).unlink(missing_ok=True)
    os.link(victim, tmp_path / PARTIAL)
    receiver = open_sink(offer(3), tmp_path)
    put(receiver, 0, view(b"new"))
    receiver.finish(content_digest(b"new"))
    assert victim.read_bytes() == b"precious"


def test_what_arrived_counts_with_and_without_skip_existing(tmp_path: Path) -> None:
    """It was received anew into a directory, and what had arrived stayed for good."""
    content = bytes(range(200))
    for stop, policy in ((50, Policy()), (100, Policy(skip=True)), (200, Policy())):
        receiver = open_sink(offer(200), tmp_path, policy)
        at = receiver.received
        assert at in (0, stop // 2)
        put(receiver, at, view(content[at:stop]))
        if stop < 200:
            receiver.abandon()
    receiver.finish(content_digest(content))
    assert os.listdir(tmp_path) == [NAME]


def test_what_has_the_name_of_a_staging_directory_is_named(tmp_path: Path) -> None:
    staging = tmp_path / tree_name(NAME)
    (tmp_path / "elsewhere").mkdir()
    for target in ("elsewhere", "nowhere"):
        staging.symlink_to(target)
        with pytest.raises(LocalFileError, match=r"^'\.a\.bin\.udpsend-tree' is in the way, and is not a directory of"):
            open_sink(offer_two(), tmp_path)
        staging.unlink()
    assert os.listdir(tmp_path / "elsewhere") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a file of another user")
def test_a_partial_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / PARTIAL).write_bytes(b"xxx")
    os.chown(tmp_path / PARTIAL, 12345, 12345)
    with pytest.raises(LocalFileError, match="not a file of yours"):
        open_sink(offer(3), tmp_path)


@pytest.mark.parametrize("entries", [offer(3), offer_two()], ids=["file", "tree"])
def test_a_file_system_where_all_is_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: Manifest
) -> None:
    """FAT, NTFS or SMB that root has mounted for everybody."""

    def refuse(fd: int, mode: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "geteuid", lambda: 1 << 20)
    monkeypatch.setattr(os, "fchmod", refuse)
    size = entries.size
    receiver = open_sink(entries, tmp_path)
    put(receiver, 0, view(bytes(size // 2)))
    receiver.abandon()
    again = open_sink(entries, tmp_path)
    assert again.present == [(0, size // 2)]
    put(again, size // 2, view(bytes(size - size // 2)))
    again.finish(content_digest(bytes(size)))
    assert sorted(os.listdir(tmp_path)) == sorted({entry.path.split("/")[0] for entry in entries})


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a file of another user")
@pytest.mark.parametrize("name", [PARTIAL, JOURNAL, tree_name(NAME), tree_journal_name(NAME)])
def test_what_another_user_left_and_does_not_let_us_open_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As after sudo: it was said that 'a.bin' may not be written, which is not there."""
    (tmp_path / name).mkdir() if name == tree_name(NAME) else (tmp_path / name).touch()
    os.chown(tmp_path / name, 12345, 12345)
    real = os.open

    def deny(path: Any, *arguments: Any, **options: Any) -> int:
        if path == name:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", deny)
    with pytest.raises(LocalFileError, match=rf"^'\{name}' is in the way, and is not a (file|directory) of yours"):
        open_sink(offer_two() if "tree" in name else offer(3), tmp_path)


def test_a_link_swapped_in_while_writing_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    receiver = open_sink(offer(6), tmp_path)
    put(receiver, 0, view(b"new"))
    settle(receiver)
    (tmp_path / PARTIAL).unlink()
    (tmp_path / PARTIAL).symlink_to("victim")
    put(receiver, 3, view(b"new"))
    with pytest.raises(LocalFileError, match="Somebody re"):
        receiver.finish(content_digest(b"newnew"))
    receiver.abandon()
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert not (tmp_path / NAME).exists()


def test_a_directory_swapped_for_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "elsewhere").mkdir()
    receiver = open_sink(offer(3), tmp_path / "in")
    (tmp_path / "in").rename(tmp_path / "moved")
    (tmp_path / "in").symlink_to("elsewhere")
    put(receiver, 0, view(b"new"))
    receiver.finish(content_digest(b"new"))
    assert os.listdir(tmp_path / "elsewhere") == []
    assert (tmp_path / "moved" / NAME).read_bytes() == b"new"


def test_no_hostile_name_makes_a_file(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    vectors = json.loads((Path(__file__).parent / "vectors" / "hostile_names.json").read_text())
    for vector in vectors["hostile"]:
        name = vector["name"]
        if any("\ud800" <= c <= "\udfff" for c in name):
            continue  # has no identity in UTF-8, and no manifest can be made with it
        with pytest.raises(BadPacket):
            open_sink(offer(3, name=name), root)
    with pytest.raises(PeerError):
        open_sink(Manifest(), root)
    assert os.listdir(root) == []
    assert os.listdir(tmp_path) == ["root"]


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o066, 0])
def test_modes_are_masked(tmp_path: Path, mode: int) -> None:
    old = os.umask(0o027)
    try:
        receiver = open_sink(offer(0, mode=mode), tmp_path)
        receiver.finish(content_digest(b""))
    finally:
        os.umask(old)
    assert (tmp_path / NAME).stat().st_mode & 0o7777 == (mode & 0o777 & ~0o027) | 0o400


@pytest.mark.parametrize("mtime_ns", [0, -1, -(1 << 62), 1 << 62, MTIME])
def test_any_time_of_a_manifest_is_taken(tmp_path: Path, mtime_ns: int) -> None:
    open_sink(offer(0, mtime_ns=mtime_ns), tmp_path).finish(content_digest(b""))
    assert (tmp_path / NAME).exists()


# When the disk says no


def test_space_is_checked_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, position: int, how: int) -> int:  # btrfs takes all that fits into 63 bits
        assert position == (1 << 62) - 1
        raise OSError(errno.EINVAL, "Invalid argument")

    with pytest.raises(LocalFileError, match=r"Not enough space for 'a.bin': .* MB are needed and .* MB are free"):
        open_sink(offer(1 << 43), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "lseek", refuse)
        with pytest.raises(LocalFileError, match="larger than this file system allows"):
            open_sink(offer((1 << 62) - 1), tmp_path)
    assert os.listdir(tmp_path) == []
    data = b"x" * 1000
    first = open_sink(offer(1000), tmp_path)
    write(first, data, 0, 900)
    first.abandon()
    monkeypatch.setattr(disk, "free_bytes", lambda fd: 99)
    with pytest.raises(LocalFileError, match="Not enough space"):
        open_sink(offer(1000), tmp_path)
    monkeypatch.setattr(disk, "free_bytes", lambda fd: 100)
    second = open_sink(offer(1000), tmp_path)
    assert second.present == [(0, 900)]  # what is there needs no space
    second.abandon()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "input/output error"),
        (errno.EFBIG, "files this large"),
        (errno.ENXIO, "No such device"),
    ],
)
@pytest.mark.parametrize("start", [0, 50])
def test_disk_errors_say_what_to_do_and_keep_the_partial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, text: str, start: int
) -> None:
    receiver = open_sink(offer(100), tmp_path)
    put(receiver, 0, view(b"x" * 10))
    settle(receiver)

    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        with pytest.raises(LocalFileError, match=f"Cannot write 'a.bin': .*{text}"):
            put_through(receiver, start or 10, b"y" * 10)
    receiver.abandon()
    again = open_sink(offer(100), tmp_path)
    assert again.present == [(0, 10)]
    again.abandon()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_disk_that_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = tmp_path / "small"
    where.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", where], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        data = random.Random(3).randbytes(2 << 20)
        with pytest.raises(LocalFileError, match="Not enough space"):
            open_sink(offer(len(data)), where)
        monkeypatch.setattr(disk, "free_bytes", lambda fd: None)
        receiver = open_sink(offer(len(data)), where)
        with pytest.raises(LocalFileError, match="the disk is full"):
            put_through(receiver, 0, data)
        receiver.abandon()
        subprocess.run(["mount", "-o", "remount,size=8m", where], check=True)
        again = open_sink(offer(len(data)), where)
        write_missing(again, data)
        assert again.finish(content_digest(data)).read_bytes() == data
        subprocess.run(["mount", "-o", "remount,ro", where], check=True)
        with pytest.raises(LocalFileError, match="read-only"):
            open_sink(offer(3, name="b"), where)
    finally:
        subprocess.run(["umount", "-l", where], check=True)


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a limit in the middle of one: what was written counts."""
    data = random.Random(4).randbytes(100_000)
    receiver = open_sink(offer(len(data)), tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(LocalFileError, match="files this large"):
            put_through(receiver, 0, data[:50_000])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    receiver.abandon()
    receiver = open_sink(offer(len(data)), tmp_path)
    assert receiver.present == [(0, 10_000)]
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, piece, offset: real(fd, piece[:7_001], offset))
    assert write(receiver, data, 60_000) == 40_000
    assert write(receiver, data, 10_000, 60_000) == 50_000
    receiver.finish(content_digest(data))
    assert (tmp_path / NAME).read_bytes() == data


def test_a_partial_removed_meanwhile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = open_sink(offer(10), tmp_path)
    put(receiver, 0, view(b"x" * 10))
    (tmp_path / PARTIAL).unlink()
    with pytest.raises(LocalFileError, match="Somebody removed"):
        receiver.finish(content_digest(b"x" * 10))
    receiver.abandon()
    assert not (tmp_path / NAME).exists()


def test_a_partial_cut_meanwhile_is_told(tmp_path: Path) -> None:
    receiver = open_sink(offer(10), tmp_path)
    put(receiver, 0, view(b"x" * 9))
    settle(receiver)
    os.truncate(tmp_path / PARTIAL, 2)
    os.chmod(tmp_path / PARTIAL, 0o600)
    with open(tmp_path / PARTIAL, "r+b") as file:
        put(receiver, 9, view(b"x"))
        settle(receiver)
        file.truncate(2)
        with pytest.raises((LocalFileError, TransferFailed)):
            receiver.finish(content_digest(b"x" * 10))
    receiver.abandon()
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("where", ["missing", "file"])
def test_a_bad_directory_is_told(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LocalFileError, match=rf"^There is no directory '{tmp_path / where}'\.$"):
        open_sink(offer(1), tmp_path / where)


@pytest.mark.parametrize(("flags", "text"), [(0, "permission denied"), (os.ST_RDONLY, "is read-only")])
@pytest.mark.parametrize("offered", [offer(1), offer_two()], ids=["file", "tree"])
def test_a_directory_that_takes_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offered: Manifest, flags: int, text: str
) -> None:
    """As it is for all but root."""
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(f_flag=flags))
    with pytest.raises(LocalFileError, match=f"^Cannot write into the directory '{tmp_path}': .*{text}"):
        open_sink(offered, tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_file_that_cannot_be_made_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def takes_nothing(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", takes_nothing)
    with pytest.raises(LocalFileError, match=r"^Cannot write 'a\.bin': permission denied"):
        open_sink(offer(1), tmp_path)


def test_a_read_only_partial_left_by_a_crash_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mode is set just before the rename; a crash in between leaves it."""
    first = open_sink(offer(10), tmp_path)
    put(first, 0, view(b"x" * 10))
    first.abandon()
    os.chmod(tmp_path / PARTIAL, 0o400)
    system_open = os.open

    def as_anybody_but_root(path: str, flags: int, *arguments: int, **options: int) -> int:
        if path == PARTIAL and flags & os.O_RDWR and (tmp_path / PARTIAL).stat().st_mode & 0o777 == 0o400:
            raise PermissionError
        return system_open(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", as_anybody_but_root)
    second = open_sink(offer(10), tmp_path)
    assert (tmp_path / PARTIAL).stat().st_mode & 0o777 == 0o600
    assert second.present == [(0, 10)]
    second.finish(content_digest(b"x" * 10))


def test_umask_is_read_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    old = os.umask(0o031)
    try:
        assert disk.current_umask() == 0o031
        monkeypatch.setattr(Path, "read_text", lambda *_, **__: "Name: x\n")
        assert disk.current_umask() == 0o031
    finally:
        os.umask(old)
