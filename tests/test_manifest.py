"""The manifest: its JSON form, what is refused, and what its identity binds."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udpsend.errors import BadPacket
from udpsend.files.manifest import MAX_SIZE, Entry, Manifest, parse_manifest_untrusted

ENTRY = Entry("report.pdf", 1_048_576, 0o644, 1_790_000_000_123_456_789)


def offer(**changes: Any) -> dict[str, Any]:
    return {"entries": [{"path": "a", "size": 1, "mode": 0o600, "mtime_ns": 5} | changes]}


def test_golden_form() -> None:
    assert json.dumps(Manifest((ENTRY,)).to_json()) == (
        '{"entries": [{"path": "report.pdf", "size": 1048576, "mode": 420, "mtime_ns": 1790000000123456789}]}'
    )
    assert Manifest((ENTRY,)).identity == "582ffeeea8602300191714e8a24c80b2cd4a0cecc05031c69b66669cdf5ee0c0"


@settings(deadline=None, print_blob=True)
@given(st.integers(0, MAX_SIZE), st.integers(0, 0o777), st.integers(-(1 << 62), 1 << 62))
def test_round_trip(size: int, mode: int, mtime_ns: int) -> None:
    manifest = Manifest((Entry("é.txt", size, mode, mtime_ns),))
    parsed = parse_manifest_untrusted(json.loads(json.dumps(manifest.to_json())))
    assert parsed == manifest
    assert (parsed.size, parsed.name) == (size, "é.txt")


def test_identity_binds_path_size_and_time_and_not_the_mode() -> None:
    identity = Manifest((ENTRY,)).identity
    assert Manifest((replace(ENTRY, mode=0o600),)).identity == identity
    others = [replace(ENTRY, path="x"), replace(ENTRY, size=1), replace(ENTRY, mtime_ns=1)]
    assert len({identity, *(Manifest((entry,)).identity for entry in others)}) == 4


def test_later_versions_may_add_keys() -> None:
    value = offer(kind="file", owner="x") | {"more": 1}
    assert parse_manifest_untrusted(value).entries[0].path == "a"


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        "x",
        {"entries": []},
        {"entries": "x"},
        {"entries": [1]},
        {"entries": [{}]},
        {"entries": offer()["entries"] * 2},
        offer(path=1),
        offer(path="../x"),
        offer(path="a/b"),
        offer(size=-1),
        offer(size=MAX_SIZE + 1),
        offer(size=True),
        offer(size=1.0),
        offer(size="1"),
        offer(mode=0o4755),
        offer(mode=0o1000),
        offer(mode=-1),
        offer(mtime_ns=1 << 63),
        offer(mtime_ns=-(1 << 63)),
        offer(mtime_ns=None),
        offer(kind="directory"),
        offer(kind="symlink"),
        offer(kind=None),
    ],
    ids=repr,
)
def test_refused(value: object) -> None:
    with pytest.raises(BadPacket):
        parse_manifest_untrusted(value)
