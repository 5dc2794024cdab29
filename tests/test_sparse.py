"""Files with holes: only their data moves, at the other end they have the same holes, also when resumed."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.trees import compare, move, open_source, over_the_wire, transfer
from udpsend.errors import LocalFileError
from udpsend.files import disk, holes, room
from udpsend.files.entries import Sparse
from udpsend.files.existing import Policy
from udpsend.files.outlets import Outlet, WithHoles
from udpsend.files.sink import open_sink

MIB = 1 << 20


def make(path: Path, size: int, *parts: tuple[int, bytes]) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, content in parts:
            file.seek(offset)
            file.write(content)
    if path.stat().st_blocks * 512 >= size:
        pytest.skip("this file system has no holes")
    return path


def data_of(path: Path) -> holes.Ranges | None:
    fd = os.open(path, os.O_RDONLY)
    try:
        return holes.data_ranges(fd, path.stat().st_size, 1000)
    finally:
        os.close(fd)


def same(one: Path, other: Path) -> bool:
    """Without reading terabytes of zeros."""
    parts = data_of(one)
    assert parts is not None
    with one.open("rb") as a, other.open("rb") as b:
        for start, stop in parts:
            a.seek(start)
            b.seek(start)
            if a.read(stop - start) != b.read(stop - start):
                return False
    return parts == data_of(other) and one.stat().st_size == other.stat().st_size


@pytest.mark.parametrize(
    "parts",
    [[], [(0, 1)], [(50 * MIB - 1, 1)], [(3 * MIB, 2 * MIB), (20 * MIB, 5000), (41 * MIB, 1_500_000)]],
    ids=["none", "first", "last", "some"],
)
@pytest.mark.parametrize("alone", [True, False])
def test_holes_are_kept(
    tmp_path: Path, here: Path, rng: random.Random, parts: list[tuple[int, int]], alone: bool
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    path = make(root / "disk", 50 * MIB, *((at, rng.randbytes(size)) for at, size in parts))
    path.chmod(0o640)
    os.utime(path, ns=(0, 1_234_567_890))
    (root / "other").write_bytes(b"dense")
    source = open_source(path if alone else root)
    try:
        sink = open_sink(over_the_wire(source.manifest), here)
        moved = move(source, sink)
        sink.finish(source.digest())
        source.check_unchanged()
    finally:
        source.close()
    arrived = here / "disk" if alone else here / "root/disk"
    assert same(path, arrived)
    assert moved <= sum(size + 2 * 4096 for _, size in parts) + 5
    assert arrived.stat().st_blocks * 512 <= 3 * moved + 65_536
    assert (arrived.stat().st_mode & 0o777, arrived.stat().st_mtime_ns) == (0o640, 1_234_567_890)
    assert os.listdir(here) == [arrived.relative_to(here).parts[0]]


def test_a_terabyte_of_holes_takes_no_time(tmp_path: Path, here: Path) -> None:
    path = make(tmp_path / "disk", 1 << 40, (1 << 39, b"x" * MIB))
    before = time.process_time()
    assert same(path, transfer([path], here))
    assert time.process_time() < before + 60  # to read it all would take minutes


@pytest.mark.parametrize("damaged", [False, True])
def test_it_is_resumed(tmp_path: Path, here: Path, rng: random.Random, damaged: bool) -> None:
    parts = [(at * 4 * MIB, rng.randbytes(MIB)) for at in range(1, 10)]
    path = make(tmp_path / "disk", 50 * MIB, *parts)
    for attempt in range(3):
        source = open_source(path)
        sink = open_sink(over_the_wire(source.manifest), here)
        assert sink.size == source.manifest.size == 9 * MIB
        if attempt and not damaged:
            assert sink.received >= 3 * MIB
        moved = move(source, sink, limit=None if attempt == 2 else 3 * MIB, rng=rng if attempt == 0 else None)
        if attempt == 2:
            compare(source, sink)
            sink.finish(source.digest())
        sink.abandon()
        source.close()
        if damaged and attempt == 0:
            os.truncate(next(here.glob(".*-tree")) / "disk", 17 * MIB)
    assert damaged or moved <= 4 * MIB
    assert same(path, here / "disk")


def test_what_had_no_holes_before_is_not_mixed_with_what_has(tmp_path: Path, here: Path, rng: random.Random) -> None:
    """An attempt at a file that was full, and now has holes: nothing of what was there shows in them."""
    path = tmp_path / "root/disk"
    path.parent.mkdir()
    path.write_bytes(rng.randbytes(8 * MIB))
    source = open_source(path.parent)
    sink = open_sink(over_the_wire(source.manifest), here)
    move(source, sink, limit=6 * MIB)
    sink.abandon()
    source.close()
    make(path, 8 * MIB, (2 * MIB, rng.randbytes(MIB)))
    transfer([path.parent], here)
    assert same(path, here / "root/disk")


def test_with_delta_the_data_that_is_there_is_used(tmp_path: Path, here: Path, rng: random.Random) -> None:
    path = make(tmp_path / "disk", 50 * MIB, (4 * MIB, rng.randbytes(8 * MIB)), (40 * MIB, rng.randbytes(4 * MIB)))
    transfer([path], here)
    with path.open("r+b") as file:
        file.seek(41 * MIB)
        file.write(b"changed")
    source = open_source(path)
    sink = open_sink(over_the_wire(source.manifest), here, Policy(overwrite=True, delta=True))
    assert move(source, sink) == 0
    assert compare(source, sink) == MIB
    sink.finish(source.digest())
    source.close()
    assert same(path, here / "disk")


def test_of_too_many_holes_the_largest_are_kept(tmp_path: Path, here: Path, rng: random.Random) -> None:
    sizes = [rng.randrange(1, 8) * 128 * 1024 for _ in range(20)]
    at, parts = 0, []
    for size in sizes:
        parts.append((at + size, rng.randbytes(4096)))
        at += size + 4096
    path = make(tmp_path / "disk", at, *parts)
    source = open_source(path)
    source._walk._ranges_left = 3
    source.scan()
    entry = source.manifest.file(0)
    source.close()
    assert isinstance(entry, Sparse)
    assert len(entry.data) <= 3
    edges = [0, *(edge for part in entry.data for edge in part)]
    told = [stop - start for start, stop in zip(edges[::2], edges[1::2], strict=False)]
    assert sorted(told)[-2:] == sorted(sizes)[-2:]
    assert transfer([path], here).read_bytes() == path.read_bytes()


def test_a_hole_that_is_filled_meanwhile_is_told(tmp_path: Path, here: Path) -> None:
    """Also by somebody who sets the time back: what is not sent is not hashed either."""
    path = make(tmp_path / "disk", 50 * MIB, (MIB, b"x" * MIB))

    def fill() -> None:
        status = path.stat()
        with path.open("r+b") as file:
            file.seek(20 * MIB)
            file.write(b"new")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    with pytest.raises(LocalFileError, match="changed"):
        transfer([path], here, change=fill)
    assert not (here / "disk").exists()


def test_where_there_are_no_holes_there_has_to_be_place(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_makes_holes", lambda *_: False)
    path = make(tmp_path / "disk", 1 << 40, (MIB, b"x" * MIB))
    source = open_source(path)
    try:
        with pytest.raises(LocalFileError, match="Not enough space"):
            open_sink(over_the_wire(source.manifest), here)
    finally:
        source.close()
    assert os.listdir(here) == []


def test_larger_than_a_file_may_be(tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "disk", 50 * MIB, (MIB, b"x" * MIB))
    monkeypatch.setattr(disk, "holds_size", lambda *_: False)
    source = open_source(path)
    try:
        with pytest.raises(LocalFileError, match="does not allow files as large"):
            open_sink(over_the_wire(source.manifest), here)
    finally:
        source.close()
    assert os.listdir(here) == []


class Collected(Outlet):
    def __init__(self, rng: random.Random) -> None:
        self.content = bytearray()
        self._rng = rng

    def write(self, view: memoryview) -> int:
        count = self._rng.randrange(len(view) + 1)
        self.content += view[:count]
        return count

    def finish(self, size: int) -> None:
        assert size == len(self.content)


@pytest.mark.parametrize("data", [(), ((0, 5),), ((7, 9),), ((1, 3), (200_000, 200_003)), ((299_999, 300_000),)])
def test_a_pipe_gets_zeros(data: holes.Ranges, rng: random.Random) -> None:
    inner = Collected(rng)
    outlet = WithHoles(inner, 300_000, data)
    expected = bytearray(300_000)
    content = rng.randbytes(sum(stop - start for start, stop in data))
    left = memoryview(content)
    at = 0
    for start, stop in data:
        expected[start:stop] = content[at : at + stop - start]
        at += stop - start
    while len(left):
        left = left[outlet.write(left) :]
    outlet.finish(len(content))
    assert inner.content == expected
