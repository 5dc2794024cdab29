"""Headers: golden bytes, every form there and back, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpsend.errors import BadPacket
from udpsend.wire.datagram import HEADER_SIZE, MAX_DATAGRAMS, Arrival, Transmit, is_stun
from udpsend.wire.packets import (
    KIND_PROBE,
    KIND_RECORD,
    MAX_NUMBER,
    Header,
    RecordHeaders,
    number_untrusted,
    pack_headers,
    parse_header_untrusted,
)

VECTORS = json.loads((Path(__file__).parent / "vectors" / "wire.json").read_text())

headers = st.tuples(
    st.sampled_from((KIND_RECORD, KIND_PROBE)),
    st.binary(min_size=7, max_size=7),
    st.integers(0, MAX_NUMBER),
    st.integers(1, MAX_DATAGRAMS).flatmap(lambda count: st.tuples(st.integers(0, count - 1), st.just(count))),
).map(lambda fields: Header(fields[0], fields[1], fields[2], *fields[3]))


@pytest.mark.parametrize("vector", VECTORS["headers"], ids=lambda vector: vector["name"])
def test_golden(vector: dict[str, str | int]) -> None:
    tag = bytes.fromhex(str(vector["tag"]))
    header = Header(int(vector["kind"]), tag, int(vector["number"]), int(vector["index"]), int(vector["count"]))
    golden = bytes.fromhex(str(vector["bytes"]))
    assert header.pack() == golden
    assert parse_header_untrusted(golden) == header
    assert len(golden) == HEADER_SIZE


@given(headers)
def test_there_and_back(header: Header) -> None:
    assert parse_header_untrusted(header.pack() + b"payload") == header


@given(headers, st.data())
def test_many_at_once_are_the_single_ones_end_to_end(header: Header, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, header.count - 1))
    last = data.draw(st.integers(first + 1, header.count))
    together = pack_headers(header.kind, header.tag, header.number, first, last, header.count)
    single = [Header(header.kind, header.tag, header.number, i, header.count).pack() for i in range(first, last)]
    assert together == b"".join(single)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "short header"),
        (bytes(15), "short header"),
        (bytes(16), "fragment index"),
        (bytes(14) + b"\1\1", "fragment index"),
        (b"\xff" * 16, "fragment index"),
    ],
)
def test_what_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadPacket, match=reason):
        parse_header_untrusted(data)


@given(st.lists(st.binary(min_size=40, max_size=40), max_size=10), st.binary(min_size=1, max_size=40))
def test_trains_keep_their_datagrams(full: list[bytes], last: bytes) -> None:
    datagrams = [*full, last]
    transmit = Transmit(datagrams, len(datagrams[0]), sum(map(len, datagrams)), ("10.0.0.1", 1))
    assert list(transmit.datagrams()) == datagrams
    arrival = Arrival.of(datagrams, ("10.0.0.1", 1))
    assert (arrival.count, arrival.stride) == (len(datagrams), len(datagrams[0]))
    if len(last) >= HEADER_SIZE:
        assert list(arrival.datagrams()) == datagrams
        assert arrival.first_datagram() == datagrams[0]


def test_first_bytes_tell_the_kinds_apart() -> None:
    """RFC 7983: STUN 0 to 3, DTLS 20 to 63, TURN channels 64 to 79, RTP 128 to 191; QUIC takes 64 to 127 and up to 223
    (RFC 9443)."""
    assert [first for first in range(256) if is_stun(first)] == [0, 1, 2, 3]
    assert KIND_RECORD > 223
    assert KIND_PROBE > 223
    assert Arrival.of([b""], ("10.0.0.1", 1)).first_byte() == -1
    assert Arrival.of([b"\7"], ("10.0.0.1", 1)).first_byte() == 7


@given(st.lists(st.tuples(st.integers(0, MAX_NUMBER), st.integers(1, MAX_DATAGRAMS)), min_size=1, max_size=20))
def test_headers_rewritten_in_place_are_those_packed_anew(records: list[tuple[int, int]]) -> None:
    tag = b"secret!"
    headers = RecordHeaders(tag)
    followed = [((number + 1) % 256, count) for number, count in records]
    for number, count in [step for pair in zip(records, followed, strict=True) for step in pair]:
        first = headers.set(number, count)
        packed = pack_headers(KIND_RECORD, tag, number, 0, count, count)
        assert headers.buffer[: len(packed)] == packed
        assert first == packed[:HEADER_SIZE]
        assert first.startswith(headers.opening)
        assert number_untrusted(first) == number
