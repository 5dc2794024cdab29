"""The journal: what it vouches for after torn writes, damage, and many gaps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpsend.errors import LocalFileError
from udpsend.files import journal as journal_module
from udpsend.files.digests import Digests
from udpsend.files.journal import Journal, make_header, make_line, parse_journal
from udpsend.wire.ranges import RangeSet

IDENTITY = "ab" * 32
SIZE = 10_000
NAME = ".x.udpsend-journal"

ranges_strategy = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)), max_size=20)


def written(ranges: list[tuple[int, int]]) -> bytes:
    return make_header(IDENTITY) + b"".join(make_line(f"present {a} {b}") for a, b in ranges)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_golden_lines() -> None:
    assert make_header("00" * 32) == b"%s udpsend-journal 1 %s\n" % (b"ecf5a1e6", b"00" * 32)
    assert make_line("present 0 67108864") == b"0a554b96 present 0 67108864\n"


@given(ranges_strategy)
def test_reads_what_was_written(ranges: list[tuple[int, int]]) -> None:
    data = written(ranges)
    found = parse_journal(data, IDENTITY, SIZE)
    assert (found.present, found.sound) == (RangeSet(ranges), len(data))


@given(ranges_strategy, st.data())
def test_a_torn_journal_vouches_for_its_whole_lines(ranges: list[tuple[int, int]], data: st.DataObject) -> None:
    whole = written(ranges)
    cut = data.draw(st.integers(0, len(whole)))
    torn = whole[:cut] + bytes(data.draw(st.integers(0, 50)))  # a block that was never written reads as zeros
    found = parse_journal(torn, IDENTITY, SIZE)
    present, sound = found.present, found.sound
    lines = whole[:cut].count(b"\n")
    assert sound == sum(len(line) for line in whole.splitlines(keepends=True)[:lines])
    assert present == RangeSet(ranges[: max(0, lines - 1)])


@given(ranges_strategy.filter(bool), st.data())
def test_a_damaged_byte_costs_the_lines_from_there_on(ranges: list[tuple[int, int]], data: st.DataObject) -> None:
    whole = bytearray(written(ranges))
    place = data.draw(st.integers(0, len(whole) - 1))
    before = whole.count(b"\n", 0, place)
    whole[place] ^= data.draw(st.integers(1, 255))
    present = parse_journal(bytes(whole), IDENTITY, SIZE).present
    assert present == RangeSet(ranges[: max(0, before - 1)])


@given(st.binary(max_size=300))
def test_never_raises(data: bytes) -> None:
    found = parse_journal(data, IDENTITY, SIZE)
    assert (found.present, found.sound) == (RangeSet(), 0)
    parse_journal(make_header(IDENTITY) + data, IDENTITY, SIZE)


def test_vouches_for_nothing_of_another_manifest_and_nothing_beyond_the_file() -> None:
    data = written([(0, 100), (9_000, 20_000), (30_000, 40_000), (50, 20)])
    other = parse_journal(data, "cd" * 32, SIZE)
    assert (other.present, other.written, other.sound) == (RangeSet(), RangeSet(), 0)
    assert list(other.stale) == [(0, 100), (9_000, SIZE)]
    assert list(parse_journal(data, IDENTITY, SIZE).present) == [(0, 100), (9_000, SIZE)]
    assert not parse_journal(make_line("present 0 10") + data, IDENTITY, SIZE).present


def test_skips_lines_of_later_versions() -> None:
    data = make_header(IDENTITY) + make_line("block 0 abc") + make_line("present 1 2 3") + make_line("present 4 5")
    found = parse_journal(data, IDENTITY, SIZE)
    assert (found.present, found.sound) == (RangeSet([(4, 5)]), len(data))


def test_goes_on_after_a_torn_line(tmp_path: Path, directory: int) -> None:
    first = Journal(directory, NAME, IDENTITY, SIZE)
    first.record([(0, 100)])
    first.close()
    with open(tmp_path / NAME, "ab") as file:
        file.write(b"12345678 present 100 2")
    second = Journal(directory, NAME, IDENTITY, SIZE)
    assert list(second.present) == [(0, 100)]
    second.record([(0, 100), (150, 200)])
    second.close()
    third = Journal(directory, NAME, IDENTITY, SIZE)
    assert list(third.present) == [(0, 100), (150, 200)]
    third.close()
    assert (tmp_path / NAME).read_bytes() == written([(0, 100), (150, 200)])
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


def test_another_identity_starts_anew(tmp_path: Path, directory: int) -> None:
    first = Journal(directory, NAME, IDENTITY, SIZE)
    first.record([(0, 100)])
    first.close()
    second = Journal(directory, NAME, "cd" * 32, SIZE)
    assert not second.present
    assert list(second.stale) == [(0, 100)]
    second.close()
    assert (tmp_path / NAME).read_bytes() == make_header("cd" * 32) + make_line("stale 0 100")


def test_what_was_written_is_believed_until_the_system_starts_again(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Journal(directory, NAME, IDENTITY, SIZE)
    first.record([(0, 100)], [(0, bytes(32))])
    first.note([(0, 150), (200, 300)])
    first.note([(0, 150), (200, 300)])
    first.close()
    assert (tmp_path / NAME).read_bytes().count(b"\n") == 5
    second = Journal(directory, NAME, IDENTITY, SIZE)
    assert (list(second.present), list(second.usable)) == ([(0, 100)], [(0, 150), (200, 300)])
    assert second.checked == {0: bytes(32)}
    second.close()
    monkeypatch.setattr(journal_module, "boot_id", lambda: "another")
    third = Journal(directory, NAME, IDENTITY, SIZE)
    assert list(third.usable) == list(third.present) == [(0, 100)]
    third.close()


def test_records_only_what_is_new(tmp_path: Path, directory: int) -> None:
    journal = Journal(directory, NAME, IDENTITY, SIZE)
    journal.record([(0, 10), (20, 30)])
    journal.record([(0, 10), (20, 30)])
    journal.record([(0, 40)])
    journal.close()
    assert (tmp_path / NAME).read_bytes() == written([(0, 10), (20, 30), (10, 20), (30, 40)])


def test_is_written_anew_when_it_says_little(tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "COMPACT_LINES", 20)
    journal = Journal(directory, NAME, IDENTITY, SIZE)
    for i in range(200):
        journal.record([(0, i + 1)])
        assert len((tmp_path / NAME).read_bytes().splitlines()) <= 22
        assert list(parse_journal((tmp_path / NAME).read_bytes(), IDENTITY, SIZE).present) == [(0, i + 1)]
    journal.close()
    assert os.listdir(tmp_path) == [NAME]


def test_a_failed_write_is_not_vouched_for(tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(directory, NAME, IDENTITY, SIZE)
    real = os.pwrite

    def half(fd: int, data: bytes, offset: int) -> int:
        if len(data) < 10:
            raise OSError(28, "No space left on device")
        return real(fd, data[: len(data) - 9], offset)

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(OSError, match="No space"):
        journal.record([(0, 100)])
    assert not journal.present
    assert not parse_journal((tmp_path / NAME).read_bytes(), IDENTITY, SIZE).present
    monkeypatch.setattr(os, "pwrite", real)
    journal.record([(5, 6)])
    journal.close()
    assert list(parse_journal((tmp_path / NAME).read_bytes(), IDENTITY, SIZE).present) == [(5, 6)]


def test_planted_files_are_not_written_through(tmp_path: Path, directory: int) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / NAME).symlink_to("victim")
    with pytest.raises(LocalFileError, match="in the way"):
        Journal(directory, NAME, IDENTITY, SIZE)
    (tmp_path / NAME).unlink()
    os.mkfifo(tmp_path / NAME)
    with pytest.raises(LocalFileError, match="in the way"):
        Journal(directory, NAME, IDENTITY, SIZE)
    (tmp_path / NAME).unlink()
    os.link(victim, tmp_path / NAME)
    Journal(directory, NAME, IDENTITY, SIZE).close()
    assert victim.read_bytes() == b"precious"
    assert victim.stat().st_nlink == 1


def test_is_written_anew_with_what_was_not_flushed(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "COMPACT_LINES", 5)
    journal = Journal(directory, NAME, IDENTITY, SIZE)
    journal.note([(500, 600)])
    for i in range(20):
        journal.record([(0, i + 1)])
    journal.close()
    again = Journal(directory, NAME, IDENTITY, SIZE)
    assert (list(again.present), list(again.usable)) == ([(0, 20)], [(0, 20), (500, 600)])
    again.doubt_written()
    again.close()
    last = Journal(directory, NAME, IDENTITY, SIZE)
    assert list(last.usable) == list(last.present) == [(0, 20)]
    last.close()


@given(st.lists(st.tuples(st.integers(0, 40), st.one_of(st.none(), st.binary(min_size=32, max_size=32))), max_size=60))
def test_digests_are_a_dict_in_less_memory(steps: list[tuple[int, bytes | None]]) -> None:
    digests, model = Digests(), dict[int, bytes]()
    for index, digest in steps:
        if digest is not None:
            digests[index] = model[index] = digest
        else:
            assert digests.pop(index, None) == model.pop(index, None)
        assert digests == model
        assert list(digests) == sorted(model)
        assert len(digests) == len(model)
