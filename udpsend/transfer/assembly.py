"""Inbound: trains of datagrams -> whole sealed records.

1. The usual train is one whole record: one comparison of all its headers with what they must be, and no copy.
2. Anything else (receive offload that merged or split trains, loss, reordering) is taken in runs: consecutive
   fragments of one record, again compared as a whole. A run that is a record is taken where it lies; others are copied
   and kept until their record is complete.
3. Records that do not complete are forgotten, oldest first: their content comes again in other records.

Nothing is authentic yet here but the tag, which everybody on the path can read. Memory is bounded by MAX_PARTIALS
records and MAX_KEPT bytes of them, and no record is larger than a train.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from msgspec import Struct, field

from udpsend.errors import BadPacket
from udpsend.wire.datagram import HEADER_SIZE, MAX_DATAGRAMS, MAX_TRAIN_SIZE, Arrival
from udpsend.wire.packets import (
    KIND_RECORD,
    Header,
    RecordHeaders,
    number_untrusted,
    pack_headers,
    parse_header_untrusted,
)

MAX_PARTIALS = 64
MAX_KEPT = 16 * MAX_TRAIN_SIZE


class SealedRecord(Struct, frozen=True):
    """A complete record, not authenticated. `ciphertext` may be a view that lives as long as its train."""

    number: int
    header: bytes
    ciphertext: memoryview


class _Partial(Struct):
    count: int
    runs: dict[int, bytes] = field(default_factory=dict)  # first fragment -> payloads, not overlapping
    have: int = 0  # bit i: fragment i is here
    size: int = 0  # bytes of all runs

    def add(self, first: int, length: int, payload: memoryview, payload_size: int) -> None:
        run = ((1 << length) - 1) << first
        if not self.have & run:
            self.runs[first] = bytes(payload)
            self.size += len(payload)
        else:  # part of it is here: take what is new
            for i in range(length):
                if not self.have >> (first + i) & 1:
                    self.runs[first + i] = new = bytes(payload[i * payload_size : (i + 1) * payload_size])
                    self.size += len(new)
        self.have |= run


class Assembly:
    """`is_known(number)` tells whether a record has been received already: its fragments are duplicates."""

    def __init__(self, tag: bytes, is_known: Callable[[int], bool], drops: Counter[str]) -> None:
        self._tag = tag
        self._expected = RecordHeaders(tag)
        self.opening = self._expected.opening
        self._is_known = is_known
        self._drops = drops
        self._partials: dict[int, _Partial] = {}
        self._kept = 0  # bytes of them
        self.datagrams = 0
        """Of records that were not complete when they came; a duplicate of a fragment counts, of a record not."""

    def add_untrusted(self, arrival: Arrival) -> list[SealedRecord]:
        """The records that this train completes. Raises BadPacket when it is a single datagram that is none of ours, or
        one record that is too long."""
        count = arrival.count
        headers = bytes(arrival.headers[: count * HEADER_SIZE])  # views are compared item by item, bytes at once
        if not headers.startswith(self.opening):
            if count > 1:  # what a stranger sent may have come together with ours
                return self._add_runs_untrusted(arrival)
            parse_header_untrusted(headers)
            raise BadPacket("tag")
        if len(headers) == count * HEADER_SIZE and count <= MAX_DATAGRAMS:
            number = number_untrusted(headers)
            header = self._expected.set(number, count)
            if self._expected.buffer.startswith(headers):
                if len(arrival.payloads) > MAX_TRAIN_SIZE:
                    raise BadPacket("record too long")
                if not self._is_known(number):
                    self.datagrams += count
                return [SealedRecord(number, header, arrival.payloads)]
        parse_header_untrusted(headers)
        return self._add_runs_untrusted(arrival)

    def _add_runs_untrusted(self, arrival: Arrival) -> list[SealedRecord]:
        complete = []
        payload_size = arrival.stride - HEADER_SIZE
        at = 0
        while at < arrival.count:
            try:
                header = parse_header_untrusted(arrival.headers[at * HEADER_SIZE :])
                if header.tag != self._tag or header.kind != KIND_RECORD:
                    raise BadPacket("tag")
            except BadPacket as error:
                self._drops[str(error)] += 1
                at += 1
                continue
            length = self._run_length(arrival, at, header)
            payload = arrival.payloads[at * payload_size : (at + length) * payload_size]
            record = self._keep(header, length, payload, payload_size)
            if record is not None:
                complete.append(record)
            at += length
        return complete

    def _run_length(self, arrival: Arrival, at: int, header: Header) -> int:
        """How many datagrams from `at` are consecutive fragments of this record: all that could be, or a part of those
        that are."""
        length = min(header.count - header.index, arrival.count - at)
        last = header.index + length
        expected = pack_headers(KIND_RECORD, self._tag, header.number, header.index, last, header.count)
        start = at * HEADER_SIZE
        came = bytes(arrival.headers[start : start + len(expected)])
        while length > 1 and came[: length * HEADER_SIZE] != expected[: length * HEADER_SIZE]:
            length //= 2
        return length

    def _keep(self, header: Header, length: int, payload: memoryview, payload_size: int) -> SealedRecord | None:
        if self._is_known(header.number):
            self._drops["duplicate"] += length
            return None
        self.datagrams += length
        if length == header.count and len(payload) <= MAX_TRAIN_SIZE:  # all of it, where it lies
            return SealedRecord(header.number, header.pack(), payload)
        partial = self._partials.get(header.number)
        if partial is None:
            if len(self._partials) >= MAX_PARTIALS:
                self._drop_oldest()
            partial = self._partials[header.number] = _Partial(header.count)
        elif partial.count != header.count:
            self._drops["fragment count"] += length
            return None
        before = partial.size
        partial.add(header.index, length, payload, payload_size)
        self._kept += partial.size - before
        if partial.size > MAX_TRAIN_SIZE:
            self._forget(header.number)
            self._drops["record too long"] += 1
            return None
        if partial.have != (1 << header.count) - 1:
            while self._kept > MAX_KEPT:
                self._drop_oldest()
            return None
        self._forget(header.number)
        ciphertext = b"".join(partial.runs[index] for index in sorted(partial.runs))
        aad = Header(KIND_RECORD, self._tag, header.number, 0, header.count).pack()
        return SealedRecord(header.number, aad, memoryview(ciphertext))

    def _drop_oldest(self) -> None:
        self._forget(next(iter(self._partials)))
        self._drops["incomplete record"] += 1

    def _forget(self, number: int) -> None:
        self._kept -= self._partials.pop(number).size
