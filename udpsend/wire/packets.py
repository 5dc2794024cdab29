"""The header of our datagrams: 16 bytes in clear, authenticated as associated data of the record they carry.

    0       kind     0xE0 record, 0xE1 probe (outside all ranges that RFC 7983 gives to others)
    1..7    tag      secret of the session and direction: what a stranger cannot guess is not looked at further
    8..13   number   of the record, big endian, never used twice with one key
    14      index    of this fragment in its record
    15      count    of fragments in the record, 1 to 255

A record's ciphertext is cut into equal payloads (the last may be shorter). The associated data is the header of
fragment 0, so count, number and kind are authenticated, and so is the order of fragments, by the ciphertext itself.
"""

from __future__ import annotations

import struct

from msgspec import Struct

from udpsend.errors import BadPacket
from udpsend.wire.datagram import HEADER_SIZE, MAX_DATAGRAMS

KIND_RECORD = 0xE0
KIND_PROBE = 0xE1
TAG_SIZE = 7
MAX_NUMBER = (1 << 48) - 1

_HEADER = struct.Struct("!B7sHIBB")
assert _HEADER.size == HEADER_SIZE  # noqa: S101 - a fact of this file, checked once

_INDEXES = bytes(range(MAX_DATAGRAMS))
_COLUMNS = [bytes([value]) * MAX_DATAGRAMS for value in range(256)]
OPENING_SIZE = NUMBER = 8  # kind and tag; where the number begins
_NUMBER_SIZE = 6
INDEX, COUNT = 14, 15


class Header(Struct, frozen=True):
    kind: int
    tag: bytes
    number: int
    index: int
    count: int

    def pack(self) -> bytes:
        return _HEADER.pack(self.kind, self.tag, self.number >> 32, self.number & 0xFFFFFFFF, self.index, self.count)


def pack_headers(kind: int, tag: bytes, number: int, first: int, last: int, count: int) -> bytearray:
    """The headers of fragments `first` to `last` - 1 of one record, end to end: a handful of operations for any
    number of them. Written by the sender, and compared as a whole by the receiver."""
    headers = bytearray(_HEADER.pack(kind, tag, number >> 32, number & 0xFFFFFFFF, 0, count) * (last - first))
    headers[INDEX::HEADER_SIZE] = _INDEXES[first:last]
    return headers


class RecordHeaders:
    """The headers of whole records of one direction, end to end, rewritten in place: from one record to the next only
    a byte of the number changes, and seldom more. For both ends: the sender sends them, the receiver compares."""

    def __init__(self, tag: bytes) -> None:
        self.buffer = pack_headers(KIND_RECORD, tag, 0, 0, MAX_DATAGRAMS, 0)
        self.opening = bytes(self.buffer[:NUMBER])
        """What the header of each datagram of this direction begins with."""
        self._number = self._count = 0

    def set(self, number: int, count: int) -> bytes:
        """Make them those of record `number` of `count` fragments. Returns the first: the associated data."""
        if count != self._count:
            self._count = count
            self.buffer[COUNT::HEADER_SIZE] = _COLUMNS[count]
        if number >> 8 != self._number >> 8:
            for i, value in enumerate(number.to_bytes(_NUMBER_SIZE)):
                self.buffer[NUMBER + i :: HEADER_SIZE] = _COLUMNS[value]
        else:
            self.buffer[INDEX - 1 :: HEADER_SIZE] = _COLUMNS[number & 0xFF]
        self._number = number
        return bytes(self.buffer[:HEADER_SIZE])


def number_untrusted(header: bytes | memoryview) -> int:
    """That of a header which is there in full."""
    return int.from_bytes(header[NUMBER : NUMBER + _NUMBER_SIZE])


def fragment_untrusted(header: memoryview) -> tuple[int, int]:
    """(index, count), if it is a record's, in a header that is there in full."""
    return header[INDEX], header[COUNT]


def begins_record(headers: memoryview, count: int, most: int) -> bool:
    """Whether `count` datagrams that open with these headers look like the first ones of a record of at most `most`."""
    last = (count - 1) * HEADER_SIZE
    return (
        count < headers[COUNT] <= most
        and headers[INDEX] == 0
        and headers[last + INDEX] == count - 1
        and headers[0] == KIND_RECORD
        and headers[:INDEX] == headers[last : last + INDEX]
    )


def parse_header_untrusted(data: bytes | memoryview) -> Header:
    """The header at the start of a datagram. Raises BadPacket."""
    if len(data) < HEADER_SIZE:
        raise BadPacket("short header")
    kind, tag, high, low, index, count = _HEADER.unpack_from(data)
    if not index < count:
        raise BadPacket("fragment index")
    return Header(kind, tag, high << 32 | low, index, count)
