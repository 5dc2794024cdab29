"""Frames: what a record says once it is opened. A record is one DATA frame, or one or more of the others.

    0x00 PADDING   the rest of the record says nothing
    0x01 PING      only asks to be acknowledged
    0x02 ACK       delay u32 µs | datagrams u64 | window u64 | n u8 | n times: first u64, last u64   newest range first
    0x03 CONTROL   offset u64 | length u16 | bytes         a piece of the control stream
    0x04 DATA      offset u64 | bytes to the record's end   a piece of the transfer's byte space
    0x05 CHALLENGE 8 bytes        0x06 RESPONSE 8 bytes     path validation (RFC 9000, 8.2)
    0x07 CLOSE     code u8 | length u16 | UTF-8 text        the end, at once

Integers are big endian. `datagrams` counts all that came with the session's tag, whether or not their record was
completed (but not what comes when it is), so that the sender knows loss in datagrams. `window` is how many bytes may
wait at the receiver, which bounds what is in flight (transfer/peer_window.py); 0: nothing may be.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from msgspec import Struct

from udpsend.errors import BadPacket

PADDING, PING, ACK, CONTROL, DATA, CHALLENGE, RESPONSE, CLOSE = range(8)

MAX_ACK_RANGES = 32
MAX_REASON = 400  # bytes of a CLOSE text

_ACK = struct.Struct("!BIQQB")
_RANGE = struct.Struct("!QQ")
_CONTROL = struct.Struct("!BQH")
_DATA = struct.Struct("!BQ")
_CLOSE = struct.Struct("!BBH")

CONTROL_HEADER_SIZE = _CONTROL.size
DATA_HEADER_SIZE = _DATA.size
PING_FRAME = bytes([PING])


class CloseCode(IntEnum):
    """Why a side ended the transfer."""

    DONE = 0
    FAILED = 1
    REFUSED = 2
    CANCELLED = 3
    LOCAL_FILE = 4


class Ack(Struct, frozen=True):
    ranges: tuple[tuple[int, int], ...]
    """(first, last) record numbers, both included, newest first, not touching."""
    delay: float
    """Seconds between the arrival of the newest record and this acknowledgement."""
    datagrams: int
    window: int


class Close(Struct, frozen=True):
    code: CloseCode
    reason: str


class Frames(Struct):
    """One opened record."""

    ack_eliciting: bool = False
    ack: Ack | None = None
    control: tuple[tuple[int, bytes], ...] = ()
    data_offset: int = 0
    data: memoryview | None = None
    challenge: bytes | None = None
    response: bytes | None = None
    close: Close | None = None


def pack_ack(ack: Ack) -> bytes:
    delay = min(int(ack.delay * 1e6), 0xFFFFFFFF)
    ranges = ack.ranges[:MAX_ACK_RANGES]
    head = _ACK.pack(ACK, delay, ack.datagrams, ack.window, len(ranges))
    return head + b"".join(_RANGE.pack(first, last) for first, last in ranges)


def pack_control(offset: int, data: bytes) -> bytes:
    return _CONTROL.pack(CONTROL, offset, len(data)) + data


def pack_data_header_into(record: memoryview, offset: int) -> None:
    _DATA.pack_into(record, 0, DATA, offset)


def pack_challenge(token: bytes) -> bytes:
    return bytes([CHALLENGE]) + token


def pack_response(token: bytes) -> bytes:
    return bytes([RESPONSE]) + token


def pack_close(close: Close) -> bytes:
    reason = close.reason.encode()[:MAX_REASON].decode(errors="ignore").encode()  # no part of a character
    return _CLOSE.pack(CLOSE, close.code, len(reason)) + reason


def parse_frames_untrusted(record: memoryview) -> Frames:
    """All frames of an opened record; `data` is a view into it. Raises BadPacket.

    The record was sealed by the peer, so what is wrong here is the peer's fault and not a stranger's."""
    frames = Frames()
    if len(record) >= DATA_HEADER_SIZE and record[0] == DATA:  # the common case, first
        frames.ack_eliciting = True
        frames.data_offset = _DATA.unpack_from(record)[1]
        frames.data = record[DATA_HEADER_SIZE:]
        return frames
    try:
        _parse_small_untrusted(record, frames)
    except (struct.error, IndexError) as error:
        raise BadPacket("short frame") from error
    return frames


def _parse_small_untrusted(record: memoryview, frames: Frames) -> None:
    at, end = 0, len(record)
    control: list[tuple[int, bytes]] = []
    while at < end:
        kind = record[at]
        if kind == PADDING:
            break
        frames.ack_eliciting |= kind not in (ACK, CLOSE)
        if kind == PING:
            at += 1
        elif kind == ACK:
            frames.ack, at = _parse_ack_untrusted(record, at)
        elif kind == CONTROL:
            _, offset, length = _CONTROL.unpack_from(record, at)
            at += _CONTROL.size
            control.append((offset, _take_untrusted(record, at, length)))
            at += length
        elif kind == CHALLENGE:
            frames.challenge = _take_untrusted(record, at + 1, 8)
            at += 9
        elif kind == RESPONSE:
            frames.response = _take_untrusted(record, at + 1, 8)
            at += 9
        elif kind == CLOSE:
            _, code, length = _CLOSE.unpack_from(record, at)
            at += _CLOSE.size
            reason = _take_untrusted(record, at, min(length, MAX_REASON)).decode(errors="replace")
            at += length
            known = CloseCode(code) if code <= max(CloseCode) else CloseCode.FAILED
            frames.close = Close(known, reason)
        else:
            raise BadPacket("unknown frame")
    frames.control = tuple(control)


def _take_untrusted(record: memoryview, at: int, length: int) -> bytes:
    data = bytes(record[at : at + length])
    if len(data) != length:
        raise BadPacket("short frame")
    return data


def _parse_ack_untrusted(record: memoryview, at: int) -> tuple[Ack, int]:
    _, delay, datagrams, window, count = _ACK.unpack_from(record, at)
    at += _ACK.size
    if not 1 <= count <= MAX_ACK_RANGES:
        raise BadPacket("ack range count")
    ranges = []
    above: int | None = None
    for _ in range(count):
        first, last = _RANGE.unpack_from(record, at)
        at += _RANGE.size
        if first > last or (above is not None and last >= above - 1):
            raise BadPacket("ack ranges")
        above = first
        ranges.append((first, last))
    return Ack(tuple(ranges), delay / 1e6, datagrams, window), at
