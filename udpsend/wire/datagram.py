"""The unit of I/O: a train, a buffer of equal datagrams of which the last may be shorter. A record travels as one.

Every datagram of ours opens with a header of 16 bytes (`packets.py`). Trains keep headers and payloads apart, so that
one AEAD call covers the payloads of many datagrams, and the kernel interleaves them on the way:

    Transmit.views   header 0 | payload 0 | header 1 | payload 1 | ...    a sendmsg with UDP_SEGMENT for each 64 KB
    Arrival          headers: all 16-byte openings, payloads: the rest    a recvmsg with UDP_GRO for each of those

A single datagram is the train of length one; a datagram shorter than 16 bytes has an empty payload. The first byte
tells what it is, after RFC 7983.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

Address = tuple[str, int]
"""Numeric host without brackets, and port. IPv6 if the host contains a colon."""

HEADER_SIZE = 16
MAX_DATAGRAM_SIZE = 65_507  # the largest UDP payload over IPv4; what one call cuts with UDP_SEGMENT shares its limit
MAX_SEGMENTS = 64  # datagrams that one call cuts: UDP_MAX_SEGMENTS of kernels before 6.9
MAX_CALLS = 4  # for one train: 1 GiB on loopback took 2.34 s with one, 2.09 with two, 1.98 with four, 1.99 with eight
MAX_TRAIN_SIZE = MAX_CALLS * MAX_DATAGRAM_SIZE
MAX_DATAGRAMS = 255  # of a train: the header has a byte for them


class Transmit(Struct):
    """`size` bytes in `views` to `address`, cut into datagrams of `segment_size`: two views for each, where one call
    does not take all of them. They are only valid until the next train is asked for."""

    views: Sequence[memoryview | bytes]
    segment_size: int
    size: int
    address: Address
    local: int = 0
    """Which of our sockets, where punching has opened more; 0 is the one of the session."""
    ttl: int = 0
    """Hops; 0 for the system's default."""

    def datagrams(self) -> Iterator[bytes]:
        data = b"".join(self.views)
        return (data[i : i + self.segment_size] for i in range(0, len(data), self.segment_size))


def datagrams_per_call(size: int) -> int:
    """How many of this size leave in one call."""
    return min(MAX_SEGMENTS, MAX_DATAGRAM_SIZE // size)


class Arrival(Struct):
    """`count` datagrams of `stride` bytes (the last may be shorter) from `address`.

    headers   at least count * HEADER_SIZE bytes: the opening of each datagram
    payloads  the rest of each datagram, end to end
    The views are only valid until the next train is received.
    """

    headers: memoryview
    payloads: memoryview
    stride: int
    count: int
    address: Address
    local: int = 0
    """Which of our sockets received it, as in Transmit."""

    @classmethod
    def of(cls, datagrams: Sequence[bytes | memoryview], address: Address) -> Arrival:
        """The train of these datagrams; all but the last must be equally long."""
        headers = b"".join(d[:HEADER_SIZE] for d in datagrams)
        payloads = b"".join(d[HEADER_SIZE:] for d in datagrams)
        return cls(memoryview(headers), memoryview(payloads), len(datagrams[0]), len(datagrams), address)

    @classmethod
    def in_slots(
        cls, headers: memoryview, payloads: memoryview, stride: int, first: int, count: int, size: int, address: Address
    ) -> Arrival:
        """The train of `count` datagrams, `size` bytes in all, that lies in the slots from `first` on: each has
        HEADER_SIZE bytes of `headers`, and what a datagram of `stride` bytes has beyond that of `payloads`."""
        payload, last = stride - HEADER_SIZE, first + count - 1
        rest = size - (count - 1) * stride  # may be less than a header: a stranger's, that was joined to ours
        return cls(
            headers[first * HEADER_SIZE : last * HEADER_SIZE + min(rest, HEADER_SIZE)],
            payloads[first * payload : last * payload + max(0, rest - HEADER_SIZE)],
            stride if count > 1 else size,
            count,
            address,
        )

    def first_datagram(self) -> bytes:
        """The first datagram in one piece, for the kinds that never come as trains."""
        return bytes(self.headers[:HEADER_SIZE]) + bytes(self.payloads[: self.stride - HEADER_SIZE])

    def rest(self) -> Arrival:
        """All datagrams but the first."""
        headers, payloads = self.headers[HEADER_SIZE:], self.payloads[max(0, self.stride - HEADER_SIZE) :]
        return Arrival(headers, payloads, self.stride, self.count - 1, self.address, self.local)

    def datagrams(self) -> Iterator[bytes]:
        """Each datagram in one piece, for the kinds of which offload merged what was sent singly."""
        step = max(0, self.stride - HEADER_SIZE)
        for index in range(self.count):
            header = self.headers[index * HEADER_SIZE : (index + 1) * HEADER_SIZE]
            yield bytes(header) + bytes(self.payloads[index * step : (index + 1) * step])

    def first_byte(self) -> int:
        return self.headers[0] if len(self.headers) else -1


def ip_overhead(host: str) -> int:
    """Bytes of the IP and UDP headers in front of a datagram to there."""
    return 48 if ":" in host else 28


def is_stun(first_byte: int) -> bool:
    """RFC 7983: STUN takes 0 to 3."""
    return 0 <= first_byte <= 3
