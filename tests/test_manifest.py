"""The manifest: its forms, what is refused, and what its identity binds."""

from __future__ import annotations

import json
import struct
import unicodedata
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from udpsend.errors import BadPacket
from udpsend.files import entries
from udpsend.files.byte_space import ByteSpace, EntrySet, unpack_set_untrusted
from udpsend.files.entries import MAX_RANGES, MAX_SIZE, MAX_VERSION, Directory, Entry, File, Link, Sparse
from udpsend.files.manifest import MAX_PAGE, PAGE, Announced, Manifest, Skipped, parse_manifest_untrusted

TIME = 1_790_000_000_123_456_789
ENTRY = File("report.pdf", 1_048_576, 0o644, TIME, 77)
TREE: tuple[Entry, ...] = (
    Directory("photos", 0o755, TIME),
    File("a.txt", 5, 0o600, TIME, 0),
    File("photos/b", 7, 0o600, TIME, 0),
    Directory("photos/sub", 0o700, TIME),
    Link("photos/last", "sub/c", TIME),
    File("photos/sub/c", 1, 0o600, TIME, 0),
)


def offer(*entries: object) -> dict[str, Any]:
    return {"entries": list(entries)}


def file(**changes: Any) -> list[Any]:
    values = {"kind": "f", "path": "a", "size": 1, "mode": 0o600, "mtime": 5, "version": 9} | changes
    return list(values.values())


def parsed(value: object) -> Manifest:
    manifest = parse_manifest_untrusted(value)
    assert isinstance(manifest, Manifest)
    return manifest


def pages(*texts: bytes) -> bytes:
    return b"".join(struct.pack("!I", len(page)) + page for page in map(zlib.compress, texts))


def test_golden_form() -> None:
    assert json.dumps(Manifest(TREE).to_json()) == (
        '{"entries": [["d", "photos", 493, 1790000000123456789], ["f", "a.txt", 5, 384, 1790000000123456789, 0], '
        '["f", "photos/b", 7, 384, 1790000000123456789, 0], ["d", "photos/sub", 448, 1790000000123456789], '
        '["l", "photos/last", "sub/c", 1790000000123456789], '
        '["f", "photos/sub/c", 1, 384, 1790000000123456789, 0]]}'
    )
    assert Manifest((ENTRY,)).identity == "cb38827f4270a65670ef185385d5e2db2207f2e780e0db6c69b40e03ddfa5992"


@given(st.integers(0, MAX_SIZE), st.integers(0, 0o777), st.integers(-(1 << 62), 1 << 62), st.integers(0, MAX_VERSION))
def test_round_trip(size: int, mode: int, mtime_ns: int, version: int) -> None:
    manifest = Manifest((File("é.txt", size, mode, mtime_ns, version),), [Skipped("x", "is a pipe")], 3)
    again = parsed(json.loads(json.dumps(manifest.to_json())))
    assert again == manifest
    assert again.entries == manifest.entries
    assert (again.size, again.name, again.skipped, again.skipped_count) == (size, "é.txt", manifest.skipped, 3)


def test_identity_binds_everything() -> None:
    changes: list[dict[str, Any]] = [{"path": "x"}, {"size": 1}, {"mtime_ns": 1}, {"mode": 0}, {"version": 1}]
    others = [Manifest((replace(ENTRY, **change),)).identity for change in changes]
    assert len({Manifest((ENTRY,)).identity, *others}) == 6


@pytest.mark.parametrize("count", [PAGE, PAGE + 1, 3 * PAGE + 17])
def test_many_entries_go_in_pages(count: int) -> None:
    manifest = Manifest(File(f"file {n}", n, 0o600, n, 0) for n in range(count))
    value = manifest.to_json()
    packed = manifest.pack()
    if count > PAGE:
        assert value == {"packed": len(packed), "count": count, "size": count * (count - 1) // 2}
        assert isinstance(parse_manifest_untrusted(value), Announced)
    else:
        assert parse_manifest_untrusted(value) == manifest
    again = Manifest.unpack_untrusted(packed)
    assert again == manifest
    assert again.pack() == packed
    assert (len(again), again.size, again.files) == (count, manifest.size, count)
    assert again[count - 1].path == f"file {count - 1}"
    assert [entry.size for entry in again] == list(range(count))


def test_what_was_skipped_beside_many_entries_is_told() -> None:
    entries = (File(f"file {n}", n, 0o600, n, 0) for n in range(PAGE + 1))
    manifest = Manifest(entries, [Skipped("x", "is a pipe")], 3)
    announced = parse_manifest_untrusted(json.loads(json.dumps(manifest.to_json())))
    assert isinstance(announced, Announced)
    again = announced.unpack_untrusted(manifest.pack())
    assert again == manifest
    assert (again.skipped, again.skipped_count) == (manifest.skipped, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"\0\0\0\5",
        b"\0\0\0\5abcde",
        pages(b"{}"),
        pages(b"[]"),
        pages(b"[1]"),
        pages(b"[" * 10_000),
        pages(b'[["f","a",1,1,1,1]]', b'[["f","b",1,1,1,1]]'),
        pages(json.dumps([["f", f"{n}", 1, 1, 1, 1] for n in range(PAGE + 1)]).encode()),
        pages(b" " * (MAX_PAGE + 1)),
        pages(b'[["f","../a",1,1,1,1]]'),
        struct.pack("!I", 40) + zlib.compress(b'[["f","a",1,1,1,1]]') + bytes(20),
    ],
    ids=lambda data: repr(data[:30]),
)
def test_bad_pages_are_refused(data: bytes) -> None:
    with pytest.raises(BadPacket):
        Manifest.unpack_untrusted(data)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        "x",
        {"entries": []},
        {"entries": "x"},
        {"packed": 0, "count": 1, "size": 1},
        {"packed": 1 << 40, "count": 1, "size": 1},
        {"packed": 1, "count": 1 << 40, "size": 1},
        {"packed": 1, "count": 1, "size": -1},
        {"entries": [file()], "skipped": 1},
        {"entries": [file()], "skipped": [["a"]]},
        {"entries": [file()], "skipped": [["a", "b"]] * 1000},
        {"entries": [file()], "skipped": [["a", "b" * 201]]},
        {"entries": [file()], "skipped": [["a" * 4097, "b"]]},
        {"entries": [file()], "skipped_count": True},
        offer(1),
        offer([]),
        offer(file(), file()),
        offer(*(file(path=f"{n}") for n in range(PAGE + 1))),
        offer(file(path=1)),
        offer(file(path="../x")),
        offer(file(path="a/b")),
        offer(file(size=-1)),
        offer(file(size=MAX_SIZE + 1)),
        offer(file(size=MAX_SIZE), file(path="b", size=MAX_SIZE)),
        offer(file(size=True)),
        offer(file(size=1.0)),
        offer(file(size="1")),
        offer(file(mode=0o4755)),
        offer(file(mode=0o1000)),
        offer(file(mode=-1)),
        offer(file(mtime=1 << 63)),
        offer(file(mtime=-(1 << 63))),
        offer(file(mtime=None)),
        offer(file(version=-1)),
        offer(file(version=1 << 48)),
        offer(file(kind="x")),
        offer(file(kind=None)),
        offer([*file(), 1]),
        offer(["s", *file()[1:]]),
        offer(["s", *file(size=9)[1:], [[1, 10]]]),
        offer(["s", *file(size=9)[1:], [[0, 9]]]),
        offer(["s", *file(size=9)[1:], [[-1, 3]]]),
        offer(["s", *file(size=9)[1:], [[2, 2]]]),
        offer(["s", *file(size=9)[1:], [[3, 2]]]),
        offer(["s", *file(size=9)[1:], [[4, 6], [1, 2]]]),
        offer(["s", *file(size=9)[1:], [[1, 3], [3, 4]]]),
        offer(["s", *file(size=9)[1:], [[1, 3], [2, 4]]]),
        offer(["s", *file(size=9)[1:], [[1, 3, 5]]]),
        offer(["s", *file(size=9)[1:], [1]]),
        offer(["s", *file(size=0)[1:], []]),
        offer(["s", *file(size=1 << 61)[1:], [[2 * n, 2 * n + 1] for n in range(MAX_RANGES + 1)]]),
        offer(*(["s", *file(path=f"{n}", size=MAX_SIZE // 3)[1:], []] for n in range(4))),
        offer(["d", "x", 0o4755, 1]),
        offer(["d", "x", 0o755]),
        offer(file()[:5]),
        offer(["l", "x", "y", 1 << 63]),
        offer(["l", "x", 1, 1]),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_refused(value: object) -> None:
    with pytest.raises(BadPacket):
        parse_manifest_untrusted(value)


def test_holes_are_not_in_the_byte_space() -> None:
    sparse = Sparse("b", 1 << 40, 0o600, TIME, 7, ((10, 12), (1 << 20, (1 << 20) + 3)))
    manifest = Manifest(
        (File("a", 4, 0o600, TIME, 0), sparse, Sparse("c", 9, 0o600, TIME, 0, ()), File("d", 1, 0, 0, 0))
    )
    told = json.dumps(manifest.to_json())
    assert ', ["s", "b", 1099511627776, 384, 1790000000123456789, 7, [[10, 12], [1048576, 1048579]]], ' in told
    again = Manifest.unpack_untrusted(manifest.pack())
    assert again == parsed(json.loads(told)) == manifest
    assert (again.size, again.full_size, again.holes, again.files) == (10, (1 << 40) + 14, (1 << 40) + 4, 4)
    space = ByteSpace(again)
    assert list(space.pieces(0, 10)) == [(0, 0, 4), (1, 10, 2), (1, 1 << 20, 3), (3, 0, 1)]
    assert list(space.pieces(5, 7)) == [(1, 11, 1), (1, 1 << 20, 1)]
    assert list(space.ranges()) == [(0, 0, 0, 4), (1, 10, 4, 6), (1, 1 << 20, 6, 9), (3, 0, 9, 10)]


DIRECTORY = ["d", "d", 0o755, 1]


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([file(path="d/a")], "is in something that is no directory of the offer"),
        ([file(path="d"), file(path="d/a")], "is in something that is no directory of the offer"),
        ([DIRECTORY, ["l", "d/l", ".", 1], file(path="d/l/a")], "is in something that is no directory of the offer"),
        ([DIRECTORY, file(path="d/a"), file(path="b")], "comes out of order"),
        ([DIRECTORY, DIRECTORY], "is there twice"),
        ([DIRECTORY, file(path="d")], "is there twice"),
        ([DIRECTORY, file(path="d/a"), file(path="d/a")], "is there twice"),
        ([DIRECTORY, ["d", "e", 1, 1], file(path="e/a"), file(path="d/a")], "comes out of order"),
    ],
    ids=lambda value: repr(value)[-60:],
)
def test_what_is_no_tree_is_refused(entries: list[object], reason: str) -> None:
    with pytest.raises(BadPacket, match=reason):
        parse_manifest_untrusted(offer(*entries))


@pytest.mark.parametrize(
    ("path", "target", "allowed"),
    [
        ("a", "d", True),
        ("a", "d/c", True),
        ("d/a", "x/y", True),
        ("d/a", ".", True),
        ("d/a", "../d", True),
        ("d/a", "..", False),
        ("d/a", "../b", False),
        ("a", "b", False),
        ("a", ".", False),
        ("a", "", False),
        ("a", "..", False),
        ("a", "../b", False),
        ("a", "../d", False),
        ("a", "/etc/passwd", False),
        ("d/a", "../../b", False),
        ("d/a", "../../d", False),
        ("d/a", "../b/../../c", False),
        ("d/a", "b/..", False),
        ("d/a", "b//c", False),
        ("d/a", "./b", False),
        ("d/a", "b/", False),
        ("d/a", "b\0c", False),
        ("d/a", "C:\\x", False),
        ("d/a", "x" * 5000, False),
    ],
)
def test_links_stay_in_the_tree(path: str, target: str, allowed: bool) -> None:
    value = offer(["d", "d", 0o755, 1], ["l", path, target, 1])
    if allowed:
        assert parsed(value).links == 1
    else:
        with pytest.raises(BadPacket, match="its name is that of a link"):
            parse_manifest_untrusted(value)


@pytest.mark.parametrize(
    ("one", "two"), [("README", "readme"), ("é", "e\u0301"), ("straße", "STRASSE"), ("Å", "\u212b")]
)
def test_twins_are_found(one: str, two: str) -> None:
    manifest = parsed(offer(["d", "d", 1, 1], file(path=f"d/{one}"), file(path="d/x"), file(path=f"d/{two}")))
    assert manifest.twins == [(f"d/{one}", f"d/{two}")]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40))))
def test_a_set_of_entries_against_a_model(steps: list[tuple[bool, int]]) -> None:
    entries, model = EntrySet(41), set()
    for is_added, number in steps:
        if is_added:
            entries.add(number)
            model.add(number)
        else:
            entries.remove(number)
            model.discard(number)
    assert [number for number in range(41) if number in entries] == sorted(model)
    assert len(entries) == len(model)
    assert bool(entries) == bool(model)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.data())
def test_byte_space(sizes: list[int], data: st.DataObject) -> None:
    manifest = Manifest(File(f"{n}", size, 0, 0, 0) for n, size in enumerate(sizes))
    left_out = EntrySet(len(sizes))
    for number in data.draw(st.sets(st.integers(0, len(sizes) - 1))):
        left_out.add(number)
    left_out = unpack_set_untrusted(left_out.pack(), len(sizes))
    wanted = [(n, at) for n, size in enumerate(sizes) if n not in left_out for at in range(size)]
    space = ByteSpace(manifest, left_out)
    assert space.size == len(wanted)
    start = data.draw(st.integers(0, space.size))
    stop = data.draw(st.integers(start, space.size))
    pieces = list(space.pieces(start, stop))
    assert [(n, at + i) for n, at, length in pieces for i in range(length)] == wanted[start:stop]
    assert all(length for _, _, length in pieces)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"x", zlib.compress(b""), zlib.compress(bytes(3)), zlib.compress(bytes(1 << 20))),
        zlib.compress(b"\0\x04"),  # the eleventh of ten
    ],
)
def test_bad_sets_are_refused(data: bytes) -> None:
    with pytest.raises(BadPacket):
        unpack_set_untrusted(data, 10)


def nested(count: int, name: str, depth: int = 15) -> list[list[Any]]:
    """Directories of names of 250 characters, one in the other, and so many files in the last."""
    paths = ["/".join(chr(97 + level) * 250 for level in range(stop)) for stop in range(1, depth + 1)]
    return [["d", path, 0o755, 1] for path in paths] + [file(path=f"{paths[-1]}/{n:03}{name}") for n in range(count)]


def test_long_paths_are_not_looked_at_for_each_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four million of them take 16 MB compressed, and took minutes; 3 MB of long names did."""
    looked_at: list[str] = []
    category = unicodedata.category

    def counted(character: str) -> str:
        looked_at.append(character)
        return category(character)

    monkeypatch.setattr(unicodedata, "category", counted)
    parsed(offer(*nested(500, "x" * 240)))
    assert len(looked_at) < 1000
    parsed(offer(*nested(500, "\u200d" + "x" * 50)))  # a character that is no control, and does not print
    assert len(looked_at) < 500 * 100
    with pytest.raises(BadPacket, match="is too long"):
        parsed(offer(*nested(2, "é" * 40, depth=16)))


def test_names_and_paths_that_memory_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MB compressed could be 3 GB of names in one directory, or of paths of directories."""
    monkeypatch.setattr(entries, "MAX_HELD", 1 << 19)
    wide = "\U0001f600" + "x" * 240  # four bytes of memory for each character
    parsed(offer(*nested(400, wide)))
    parsed(
        offer(*(["d", str(n), 0o755, 1] for n in range(4)), *(file(path=f"{n // 200}/{n}{wide}") for n in range(800)))
    )
    with pytest.raises(BadPacket, match="in a directory with too many long names"):
        parsed(offer(*(file(path=f"{n}{wide}") for n in range(800))))
    with pytest.raises(BadPacket, match="one directory too many"):
        parsed(offer(*nested(0, ""), *(["d", f"{nested(0, '')[-1][1]}/{n}", 0o755, 1] for n in range(300))))
