"""Fuzzing of what files/ parses: manifests and names from the other side, and damaged journals."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from udpsend.errors import BadPacket
from udpsend.files.journal import make_header, make_line, parse_journal
from udpsend.files.manifest import MAX_SIZE, Entry, Manifest, parse_manifest_untrusted
from udpsend.files.names import check_path_untrusted

scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20))
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from(["path", "size", "mode", "mtime_ns", "kind", "entries"])
entries = st.dictionaries(keys, values | st.sampled_from(["a", "file", 0, 1, 0o644]), max_size=6)


@settings(deadline=None, print_blob=True)
@given(values | st.fixed_dictionaries({"entries": st.lists(entries | values, max_size=2)}))
def test_any_value_is_a_manifest_or_a_bad_packet(value: Any) -> None:
    try:
        manifest = parse_manifest_untrusted(value)
    except BadPacket:
        return
    assert len(manifest.entries) == 1
    assert 0 <= manifest.size <= MAX_SIZE
    assert check_path_untrusted(manifest.name) == (manifest.name,)
    assert parse_manifest_untrusted(json.loads(json.dumps(manifest.to_json()))) == manifest


@settings(deadline=None, print_blob=True)
@given(keys, values)
def test_one_field_of_a_good_manifest_exchanged(key: str, value: Any) -> None:
    form: dict[str, Any] = Manifest((Entry("a", 5, 0o644, 1),)).to_json()
    form["entries"][0][key] = value
    with contextlib.suppress(BadPacket):
        assert check_path_untrusted(parse_manifest_untrusted(form).name)


@settings(deadline=None, print_blob=True)
@given(st.text() | values)
def test_any_value_is_a_path_or_a_bad_packet(value: Any) -> None:
    try:
        components = check_path_untrusted(value)
    except BadPacket:
        return
    assert "/".join(components) == value
    assert not {"", ".", ".."} & set(components)


@settings(deadline=None, print_blob=True)
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
    present, sound = parse_journal(data, "id", size)
    assert sound <= len(data)
    assert all(0 <= start < stop <= size for start, stop in present)
    assert parse_journal(data[:sound], "id", size) == (present, sound)
