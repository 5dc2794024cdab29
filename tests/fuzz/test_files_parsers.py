"""Fuzzing of what files/ parses: manifests and names from the other side, and damaged journals."""

from __future__ import annotations

import contextlib
import json
import struct
import zlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from udpsend.errors import BadPacket
from udpsend.files.entries import MAX_SIZE, File
from udpsend.files.journal import make_header, make_line, parse_journal
from udpsend.files.manifest import Manifest, parse_manifest_untrusted
from udpsend.files.names import check_path_untrusted

scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20))
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
fields = values | st.sampled_from(["f", "d", "l", "a", "b", "a/b", ".", "..", 0, 1, 0o644])
entries = st.lists(fields, max_size=7)
keys = st.sampled_from(["entries", "packed", "count", "size", "skipped", "skipped_count"])
offers = st.dictionaries(keys, values | st.lists(entries | values, max_size=3), max_size=6)


def check(manifest: Manifest) -> None:
    assert 0 <= manifest.size <= MAX_SIZE
    for entry in manifest:
        assert "/".join(check_path_untrusted(entry.path)) == entry.path


@given(values | offers)
def test_any_value_is_a_manifest_or_a_bad_packet(value: Any) -> None:
    with contextlib.suppress(BadPacket):
        manifest = parse_manifest_untrusted(value)
        if isinstance(manifest, Manifest):
            check(manifest)
            assert parse_manifest_untrusted(json.loads(json.dumps(manifest.to_json()))) == manifest


@given(st.integers(0, 6), values)
def test_one_field_of_a_good_manifest_exchanged(index: int, value: Any) -> None:
    form: dict[str, Any] = Manifest((File("a", 5, 0o644, 1, 0),)).to_json()
    form["entries"][0][index : index + 1] = [value]
    with contextlib.suppress(BadPacket):
        manifest = parse_manifest_untrusted(form)
        assert isinstance(manifest, Manifest)
        check(manifest)


@given(
    st.lists(st.binary(max_size=30) | st.lists(entries, max_size=3).map(lambda e: json.dumps(e).encode()), max_size=3)
)
def test_any_bytes_are_pages_or_a_bad_packet(texts: list[bytes]) -> None:
    data = b"".join(struct.pack("!I", len(page)) + page for page in map(zlib.compress, texts))
    for damaged in (data, data[:-1], data[:7] + b"x" + data[8:]):
        with contextlib.suppress(BadPacket):
            check(Manifest.unpack_untrusted(damaged))


@given(st.text() | values)
def test_any_value_is_a_path_or_a_bad_packet(value: Any) -> None:
    try:
        components = check_path_untrusted(value)
    except BadPacket:
        return
    assert "/".join(components) == value
    assert not {"", ".", ".."} & set(components)


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.text("present 0123456789\n", max_size=30).map(make_line),
            st.tuples(st.integers(-5, 1 << 70), st.integers(-5, 1 << 70)).map(
                lambda r: make_line(f"present {r[0]} {r[1]}")
            ),
        ),
        max_size=8,
    ),
    st.integers(0, 1 << 62),
)
def test_any_journal_vouches_for_no_more_than_the_file(lines: list[bytes], size: int) -> None:
    data = make_header("id") + b"".join(lines)
    found = parse_journal(data, "id", size)
    present, sound = found.present, found.sound
    assert sound <= len(data)
    assert all(0 <= start < stop <= size for start, stop in present)
    assert parse_journal(data[:sound], "id", size) == found
