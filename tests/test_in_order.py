"""What comes once and in order, without a network: the ring of the source, the sink, its outlets, the digest."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trees import content_digest
from udpsend.errors import BadPacket, LocalFileError, PeerError, TransferFailed
from udpsend.files import descriptors, in_order, stream_source
from udpsend.files.existing import Policy
from udpsend.files.hashing import BLOCK_SIZE
from udpsend.files.in_order import AHEAD, InOrder
from udpsend.files.offers import Stream, Text, parse_offer_untrusted
from udpsend.files.outlets import DescriptorOutlet, FileOutlet, MemoryOutlet, WithHoles
from udpsend.files.stream_digest import StreamDigest
from udpsend.files.stream_source import StreamSource, descriptor_reader, memory_reader
from udpsend.wire.frames import DATA_HEADER_SIZE as HEADROOM

pytestmark = pytest.mark.usefixtures("no_leaks")

BOUND = 30
RECORD = 50_000


@pytest.fixture
def content(seed: int) -> bytes:
    return random.Random(seed).randbytes(3 * BLOCK_SIZE + 4321)


def put(sink: InOrder, offset: int, data: bytes) -> int:
    room = sink.room()
    assert room is not None
    room[HEADROOM : HEADROOM + len(data)] = data
    return sink.write(offset, len(data))


@pytest.mark.parametrize("size", [0, 1, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 2 * BLOCK_SIZE, 3 * BLOCK_SIZE + 9])
def test_digest_is_that_of_a_file(seed: int, size: int) -> None:
    rng = random.Random(seed)
    content = rng.randbytes(size)
    digest, at = StreamDigest(), 0
    while at < size:
        step = rng.randrange(1, 400_000)
        digest.update(memoryview(content)[at : at + step])
        at += step
    assert digest.digest() == digest.digest() == content_digest(content)


def test_a_record_without_data_is_nothing() -> None:
    sink = InOrder(MemoryOutlet(1), 1)
    assert put(sink, 0, b"") == 0
    assert put(sink, 0, b"x") == 1
    sink.finish(content_digest(b"x"))


@pytest.mark.parametrize("known_size", [True, False])
def test_any_order_comes_out_in_order(content: bytes, seed: int, known_size: bool) -> None:
    outlet = MemoryOutlet(len(content))
    sink = InOrder(outlet, len(content) if known_size else None)
    records = list(range(0, len(content), RECORD)) * 2
    random.Random(seed).shuffle(records)
    assert sum(put(sink, at, content[at : at + RECORD]) for at in records) == len(content)
    assert sink.finish(content_digest(content)) is None
    assert outlet.content == content
    assert sink.room() is not None  # the connection lives until the other side has heard of it
    sink.abandon()


def test_around_the_ring(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_order, "RING", 300_001)
    monkeypatch.setattr(in_order, "AHEAD", 150_000)
    monkeypatch.setattr(in_order, "LOW", 75_000)
    outlet, room_again = MemoryOutlet(len(content)), threading.Event()
    sink = InOrder(outlet, None)
    sink.start(room_again.set)
    for at in range(0, len(content), RECORD):
        room_again.clear()
        while sink.room() is None:
            assert room_again.wait(BOUND)
            room_again.clear()
        put(sink, at, content[at : at + RECORD])
    sink.finish(content_digest(content))
    assert outlet.content == content


def test_what_is_too_far_ahead_or_too_much_is_the_peers_fault(content: bytes) -> None:
    sink = InOrder(MemoryOutlet(10), None)
    put(sink, AHEAD - 5, b"12345")
    with pytest.raises(PeerError):
        put(sink, AHEAD, b"1")
    sink.abandon()
    sink = InOrder(MemoryOutlet(10), 10)
    with pytest.raises(PeerError):
        put(sink, 5, b"123456")
    sink.abandon()
    with pytest.raises(TransferFailed):
        sink.room()


def test_a_gap_is_not_verified(content: bytes) -> None:
    sink = InOrder(MemoryOutlet(10), None)
    put(sink, 5, b"12345")
    with pytest.raises(TransferFailed, match="before all of it"):
        sink.finish(bytes(32))
    sink.abandon()


def test_a_longer_text_than_was_offered(content: bytes) -> None:
    failed = threading.Event()
    sink = InOrder(MemoryOutlet(3), None)
    sink.start(failed.set)
    put(sink, 0, b"1234")
    assert failed.wait(BOUND)
    with pytest.raises(PeerError, match="longer text"):
        sink.room()
    sink.abandon()


def test_a_file_appears_when_it_is_verified(content: bytes, tmp_path: Path) -> None:
    sink = InOrder(FileOutlet(tmp_path, "a", Policy()), None)
    for at in range(0, len(content), RECORD):
        put(sink, at, content[at : at + RECORD])
    assert not (tmp_path / "a").exists()
    assert sink.finish(content_digest(content)) == tmp_path / "a"
    assert (tmp_path / "a").read_bytes() == content
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("ending", ["damaged", "abandoned"])
def test_nothing_is_left_of_a_file_that_is_not_verified(tmp_path: Path, ending: str) -> None:
    sink = InOrder(FileOutlet(tmp_path, "a", Policy()), None)
    put(sink, 0, b"content")
    if ending == "abandoned":
        sink.abandon()
    else:
        with pytest.raises(TransferFailed, match="do not use it"):
            sink.finish(content_digest(b"another"))
    assert os.listdir(tmp_path) == []


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        try:
            os.close(descriptor)
        except OSError:
            continue


def test_a_reader_that_does_not_read_fills_the_ring_and_no_more(pipe: tuple[int, int]) -> None:
    sink = InOrder(DescriptorOutlet(pipe[1]), None)
    accepted, piece = 0, bytes(RECORD)
    while sink.room() is not None:
        put(sink, accepted, piece)
        accepted += RECORD
    assert sink.is_full
    assert accepted <= AHEAD + descriptors.PIPE_SIZE + 2 * RECORD
    sink.abandon()


def test_a_reader_that_has_left(pipe: tuple[int, int]) -> None:
    failed = threading.Event()
    sink = InOrder(DescriptorOutlet(pipe[1]), None)
    sink.start(failed.set)
    os.close(pipe[0])
    put(sink, 0, b"x")
    assert failed.wait(BOUND)
    with pytest.raises(LocalFileError, match="its reader has ended"):
        sink.finish(content_digest(b"x"))
    sink.abandon()


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("to_file", [True, False])
def test_a_full_disk_does_not_promise_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to_file: bool) -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        outlet = FileOutlet(tmp_path, "a", Policy()) if to_file else DescriptorOutlet(descriptor)
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(LocalFileError, match="disk is full; free some space and begin anew"):
            outlet.write(memoryview(b"x"))
        outlet.discard()
        outlet.close()
    finally:
        os.close(descriptor)


def test_the_source_reads_no_further_than_its_ring(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_source, "RING", 200_001)
    ready = threading.Event()
    source = StreamSource(Stream("a"), memory_reader(content))
    source.start(ready.set)
    at, got = 0, b""
    while at < len(content):
        assert ready.wait(BOUND) or source.available == len(content)
        ready.clear()
        available = source.take_available()
        assert at < available <= at + 200_001 or available == len(content)
        while at < available:
            stop = min(at + RECORD, available)
            view = source.read(at, stop)
            assert source.read(at, stop)[HEADROOM:] == view[HEADROOM:]  # as often as it is lost
            got += view[HEADROOM:]
            at = stop
        source.release(at)
        if source.available > available:
            ready.set()
    assert got == content
    assert source.digest() == content_digest(content)
    source.close()


def test_a_source_that_is_closed_while_it_waits(pipe: tuple[int, int]) -> None:
    source = StreamSource(Stream("a"), descriptor_reader(pipe[0]))
    source.start(lambda: None)
    source.close()
    with pytest.raises(TransferFailed):
        source.digest()


def test_a_source_that_cannot_be_read(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        source = StreamSource(Stream("a"), descriptor_reader(descriptor))
        source.start(lambda: None)
        with pytest.raises(LocalFileError, match="standard input"):
            source.digest()
        source.close()
        with pytest.raises(LocalFileError, match="is a directory"):
            descriptors.check_readable(descriptor)
    finally:
        os.close(descriptor)


def test_offers() -> None:
    for offer in (Stream("a.tar"), Text(0), Text(65_536)):
        assert parse_offer_untrusted(offer.to_json()) == offer
    for value in (
        {"stream": "../a"},
        {"stream": ""},
        {"stream": "a/b"},
        {"text": -1},
        {"text": 65_537},
        {"text": True},
    ):
        with pytest.raises(BadPacket):
            parse_offer_untrusted(value)


def test_holes_of_any_size_are_not_written_after_the_end() -> None:
    """Nothing comes for them: who gives up is not kept by zeros for years, nor is the descriptor."""
    reader, writer = os.pipe()
    sink = InOrder(WithHoles(DescriptorOutlet(writer), 1 << 61, ()), 0)
    failures: list[TransferFailed] = []

    def finish() -> None:
        try:
            sink.finish(content_digest(b""))
        except TransferFailed as error:
            failures.append(error)

    finishing = threading.Thread(target=finish, daemon=True)
    finishing.start()
    assert os.read(reader, 1000) == bytes(1000)
    sink.abandon()
    finishing.join(BOUND)
    os.close(reader)
    os.close(writer)
    assert "stopped" in str(failures[0])
