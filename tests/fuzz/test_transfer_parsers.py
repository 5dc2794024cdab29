"""Arbitrary bytes at every parser of the transfer: BadPacket or a value, nothing else; and at a whole connection."""

from __future__ import annotations

import json
from collections import Counter
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transfers import SECRET, MemoryFile, Rogue
from udpsend.config import Role
from udpsend.errors import BadPacket
from udpsend.sealing.keys import derive_keys
from udpsend.sealing.seal import Opener
from udpsend.transfer.assembly import Assembly
from udpsend.transfer.connection import Connection
from udpsend.transfer.control_stream import ControlReceiver
from udpsend.transfer.liveness import IDLE_TIMEOUT
from udpsend.transfer.messages import (
    OfferReceived,
    parse_digest_untrusted,
    parse_hashes_untrusted,
    parse_ranges_untrusted,
)
from udpsend.wire.candidate import parse_candidate_untrusted
from udpsend.wire.datagram import Arrival
from udpsend.wire.frames import pack_control, parse_frames_untrusted
from udpsend.wire.packets import KIND_RECORD, parse_header_untrusted
from udpsend.wire.ranges import RangeSet

PEER = ("10.0.0.9", 9)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
first_bytes = st.sampled_from([bytes([kind]) for kind in range(10)])
framelike = st.lists(st.builds(lambda a, b: a + b, first_bytes, st.binary(max_size=40)), max_size=6).map(b"".join)


@given(st.binary(max_size=40))
def test_headers(data: bytes) -> None:
    try:
        header = parse_header_untrusted(data)
    except BadPacket:
        return
    assert header.pack() == data[:16]


@given(framelike | st.binary(max_size=200))
@settings(max_examples=500)
def test_frames(record: bytes) -> None:
    try:
        frames = parse_frames_untrusted(memoryview(record))
    except BadPacket:
        return
    if frames.ack is not None:
        flat = [number for first, last in reversed(frames.ack.ranges) for number in (first, last)]
        assert flat == sorted(flat)


@given(st.lists(st.tuples(st.integers(0, 100) | st.integers(0, 1 << 64), st.binary(max_size=50)), max_size=10))
def test_control_stream(pieces: list[tuple[int, bytes]]) -> None:
    receiver = ControlReceiver()
    for offset, data in pieces:
        try:
            messages = receiver.add_untrusted(offset, data)
        except BadPacket:
            return
        assert all(isinstance(message["type"], str) for message in messages)


@given(json_values, st.integers(0, 1000))
def test_messages(value: Any, size: int) -> None:
    for parse in (
        lambda: parse_ranges_untrusted(value, size),
        lambda: parse_hashes_untrusted({"type": "hashes", "first": size, "hashes": value}),
        lambda: parse_hashes_untrusted({"type": "hashes", "first": value, "hashes": "AAAA" * 32}),
        lambda: parse_digest_untrusted({"type": "finished", "digest": value}),
        lambda: parse_candidate_untrusted(value),
    ):
        try:
            parse()
        except BadPacket:
            continue


@given(st.binary(max_size=16), st.binary(max_size=100))
def test_sealed_records(header: bytes, ciphertext: bytes) -> None:
    opener = Opener(derive_keys(SECRET, Role.SENDER, "traffic").receive)
    try:
        opener.open_untrusted(0, header, ciphertext)
    except BadPacket:
        return
    raise AssertionError("opened what nobody sealed")


TAG = b"sevenby"
ourlike = st.builds(
    lambda kind, tag, rest: bytes([kind]) + tag + rest,
    st.sampled_from((KIND_RECORD, KIND_RECORD, 0xE1)),
    st.sampled_from((TAG, TAG, b"another")),
    st.binary(min_size=8, max_size=30)
    | st.builds(lambda n, i: bytes(5) + bytes([n, i, 3]), st.integers(0, 3), st.integers(0, 3)),
)


@given(st.lists(st.lists(ourlike, min_size=1, max_size=6), max_size=10))
@settings(max_examples=300)
def test_trains(trains: list[list[bytes]]) -> None:
    assembly = Assembly(TAG, lambda number: number == 2, Counter())
    for train in trains:
        stride = max(map(len, train[:-1]), default=len(train[-1]))
        datagrams = [datagram.ljust(stride, b"\0") for datagram in train[:-1]] + [train[-1][:stride]]
        try:
            records = assembly.add_untrusted(Arrival.of(datagrams, PEER))
        except BadPacket:
            continue
        for record in records:
            assert len(record.header) == 16


def settle(connection: Connection, now: float) -> None:
    for _ in range(50):
        trains = list(connection.datagrams_to_send(now))
        event = connection.next_event()
        if isinstance(event, OfferReceived) and connection.receiver is not None:
            connection.receiver.accept(MemoryFile(bytearray(50)), 50, RangeSet())
        if event is None and not trains:
            return


@given(st.sampled_from(Role), st.lists(framelike | st.binary(max_size=60), max_size=8), st.booleans())
@settings(max_examples=300)
def test_a_peer_that_seals_anything(role: Role, records: list[bytes], offered: bool) -> None:
    """Never an exception, never a stop: it goes on or ends with an error."""
    connection = Connection(role, SECRET, PEER, 0.0, Random(1).randbytes)
    rogue = Rogue(role.other)
    if role is Role.SENDER:
        connection.offer(MemoryFile(bytes(50)), 50, {})
    elif offered:
        data = json.dumps({"type": "offer", "manifest": {}}).encode()
        rogue.says(connection, pack_control(0, len(data).to_bytes(4) + data))
    now = 1.0
    for record in records:
        settle(connection, now)
        rogue.says(connection, record, now=now)
        timer = connection.next_timer()
        if timer is not None:
            now = max(now, timer)
            connection.timer_expired(now)
    for _ in range(10 * int(IDLE_TIMEOUT)):
        settle(connection, now)
        timer = connection.next_timer()
        if timer is None:
            return
        now = max(now, timer)
        connection.timer_expired(now)
    raise AssertionError("with nobody there any more it ends")
