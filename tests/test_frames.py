"""Frames: golden bytes, every form there and back, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from udpsend.errors import BadPacket
from udpsend.wire.frames import (
    DATA_HEADER_SIZE,
    MAX_ACK_RANGES,
    MAX_REASON,
    PING_FRAME,
    Ack,
    Close,
    CloseCode,
    Frames,
    pack_ack,
    pack_challenge,
    pack_close,
    pack_control,
    pack_data_header_into,
    pack_response,
    parse_frames_untrusted,
)

VECTORS = json.loads((Path(__file__).parent / "vectors" / "wire.json").read_text())
U64 = st.integers(0, (1 << 64) - 1)


def parse(record: bytes) -> Frames:
    return parse_frames_untrusted(memoryview(record))


def pack_data(offset: int, data: bytes) -> bytes:
    record = bytearray(DATA_HEADER_SIZE) + data
    pack_data_header_into(memoryview(record), offset)
    return bytes(record)


BUILT: dict[str, tuple[bytes, Frames]] = {
    "PING": (PING_FRAME, Frames(ack_eliciting=True)),
    "PADDING": (PING_FRAME + bytes(3), Frames(ack_eliciting=True)),
    "ACK of one range": (
        pack_ack(Ack(((7, 9),), 0.000_025, 3, 65_536)),
        Frames(ack=Ack(((7, 9),), 0.000_025, 3, 65_536)),
    ),
    "ACK of two ranges": (
        pack_ack(Ack(((1 << 40, (1 << 40) + 2), (0, 5)), 1.5, 1 << 33, 0)),
        Frames(ack=Ack(((1 << 40, (1 << 40) + 2), (0, 5)), 1.5, 1 << 33, 0)),
    ),
    "CONTROL": (pack_control(258, b"hello"), Frames(ack_eliciting=True, control=((258, b"hello"),))),
    "DATA": (
        pack_data(1 << 32, b"content"),
        Frames(ack_eliciting=True, data_offset=1 << 32, data=memoryview(b"content")),
    ),
    "CHALLENGE": (pack_challenge(bytes(range(8))), Frames(ack_eliciting=True, challenge=bytes(range(8)))),
    "RESPONSE": (pack_response(bytes(range(8))), Frames(ack_eliciting=True, response=bytes(range(8)))),
    "CLOSE done": (pack_close(Close(CloseCode.DONE, "")), Frames(close=Close(CloseCode.DONE, ""))),
    "CLOSE with a text": (
        pack_close(Close(CloseCode.LOCAL_FILE, "No space — 空き")),
        Frames(close=Close(CloseCode.LOCAL_FILE, "No space — 空き")),
    ),
    "ACK and CONTROL": (
        pack_ack(Ack(((0, 0),), 0.0, 1, 1)) + pack_control(0, b"x"),
        Frames(ack_eliciting=True, ack=Ack(((0, 0),), 0.0, 1, 1), control=((0, b"x"),)),
    ),
}


@pytest.mark.parametrize("vector", VECTORS["frames"], ids=lambda vector: vector["name"])
def test_golden(vector: dict[str, Any]) -> None:
    packed, frames = BUILT[vector["name"]]
    assert packed.hex() == vector["bytes"]
    assert parse(packed) == frames


def test_every_frame_has_a_golden() -> None:
    assert [vector["name"] for vector in VECTORS["frames"]] == list(BUILT)


@given(
    st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 1 << 30)), min_size=1, max_size=MAX_ACK_RANGES),
    st.integers(0, 0xFFFFFFFF),
    U64,
    U64,
)
def test_acks_there_and_back(steps: list[tuple[int, int]], delay: int, datagrams: int, window: int) -> None:
    ranges, at = [], 0
    for gap, length in steps:
        ranges.append((at + gap, at + gap + length))
        at += gap + length + 2
    ack = parse(pack_ack(Ack(tuple(reversed(ranges)), delay / 1e6, datagrams, window))).ack
    assert ack is not None
    assert ack.ranges == tuple(reversed(ranges))
    assert ack.delay == pytest.approx(delay / 1e6, abs=1.1e-6)
    assert (ack.datagrams, ack.window) == (datagrams, window)


def test_an_ack_says_the_newest_ranges_and_the_longest_delay_that_fit() -> None:
    ranges = tuple((i, i) for i in range(200, 0, -2))
    ack = parse(pack_ack(Ack(ranges, 1e9, 0, 0))).ack
    assert ack is not None
    assert ack.ranges == ranges[:MAX_ACK_RANGES]
    assert ack.delay == pytest.approx(4294.967295)


@given(U64, st.binary(max_size=2000))
def test_data_there_and_back(offset: int, content: bytes) -> None:
    frames = parse(pack_data(offset, content))
    assert frames.data_offset == offset
    assert frames.data is not None
    assert bytes(frames.data) == content


@given(st.lists(st.tuples(U64, st.binary(max_size=100)), max_size=5), st.integers(0, 9))
def test_several_frames(pieces: list[tuple[int, bytes]], padding: int) -> None:
    record = b"".join(pack_control(offset, data) for offset, data in pieces) + bytes(padding)
    frames = parse(record)
    assert list(frames.control) == pieces
    assert frames.ack_eliciting == bool(pieces)


@given(st.text(max_size=600), st.sampled_from(CloseCode))
@example("x" + "é" * 200, CloseCode.FAILED)
def test_texts_of_close_are_cut(text: str, code: CloseCode) -> None:
    close = parse(pack_close(Close(code, text))).close
    assert close is not None
    assert close.code == code
    shown = text.encode()[:MAX_REASON].decode(errors="ignore")
    assert close.reason == shown


def test_an_unknown_close_is_a_failure() -> None:
    assert parse(b"\7\x63\0\0").close == Close(CloseCode.FAILED, "")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"\x08", "unknown frame"),
        (b"\xff", "unknown frame"),
        (b"\2", "short frame"),
        (pack_ack(Ack(((7, 9),), 0, 0, 0))[:-1], "short frame"),
        (b"\2" + bytes(20) + b"\0", "ack range count"),
        (b"\2" + bytes(20) + b"\x21" + bytes(33 * 16), "ack range count"),
        (pack_ack(Ack(((9, 7),), 0, 0, 0)), "ack ranges"),
        (pack_ack(Ack(((7, 9), (6, 6)), 0, 0, 0)), "ack ranges"),
        (pack_ack(Ack(((7, 9), (8, 8)), 0, 0, 0)), "ack ranges"),
        (pack_ack(Ack(((7, 9), (11, 12)), 0, 0, 0)), "ack ranges"),
        (b"\3" + bytes(9), "short frame"),
        (pack_control(0, b"hello")[:-1], "short frame"),
        (b"\4" + bytes(7), "unknown frame|short frame"),
        (b"\5" + bytes(7), "short frame"),
        (b"\6", "short frame"),
        (b"\7\0", "short frame"),
        (b"\7\0\0\5abc", "short frame"),
    ],
)
def test_what_is_refused(record: bytes, reason: str) -> None:
    with pytest.raises(BadPacket, match=reason):
        parse(record)


def test_an_empty_record_says_nothing() -> None:
    assert parse(b"") == Frames()
