"""Probes: what punching says, 48 bytes under the seal, so 80 bytes on the wire whatever the type.

    0       type         1 request, 2 response, 3 nominate, 4 nominated, 5 confirm
    1       flags        bit 0: the one who sends this has validated the address it sends to
    2       generation   of the nomination, from 1; 0 in requests and responses
    3       kind         of the nominated path: index into PathKind, as the nominating side sees it
    4..11   transaction  chosen by the request, echoed by its response
    12..27  observed     response: the address from which the request came; IPv4 as ::ffff:a.b.c.d
    28..29  port         of it
    30..47  zero         so that no type is longer than another: a probe cannot be amplified

The header in front (`packets.py`) is of kind PROBE, index 0, count 1. Later versions may append: what follows byte 47
is ignored, and so are flags that are not known.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from ipaddress import IPv6Address, ip_address

from msgspec import Struct

from udpsend.errors import BadPacket
from udpsend.events import PathKind
from udpsend.wire.datagram import Address

BODY_SIZE = 48
TRANSACTION_SIZE = 8

_FLAG_VALIDATED = 1
_KINDS = tuple(PathKind)
_BODY = struct.Struct("!BBBB8s16sH18x")
assert _BODY.size == BODY_SIZE  # noqa: S101 - a fact of this file, checked once


class ProbeType(IntEnum):
    REQUEST = 1
    RESPONSE = 2
    NOMINATE = 3
    NOMINATED = 4
    CONFIRM = 5


class Probe(Struct, frozen=True):
    type: ProbeType
    validated: bool = False
    generation: int = 0
    kind: PathKind = PathKind.INTERNET
    transaction: bytes = bytes(TRANSACTION_SIZE)
    observed: Address | None = None
    """Where the request came from. Told to whoever can use it; nothing is made of it here."""

    def pack(self) -> bytes:
        host, port = (_pack_host(self.observed[0]), self.observed[1]) if self.observed else (bytes(16), 0)
        flags = _FLAG_VALIDATED if self.validated else 0
        return _BODY.pack(self.type, flags, self.generation, _KINDS.index(self.kind), self.transaction, host, port)


def parse_probe_untrusted(body: bytes | memoryview) -> Probe:
    """The probe in an opened body. Raises BadPacket."""
    if len(body) < BODY_SIZE:
        raise BadPacket("short probe")
    number, flags, generation, kind, transaction, host, port = _BODY.unpack_from(body)
    try:
        probe_type = ProbeType(number)
    except ValueError:
        raise BadPacket("probe type") from None
    if kind >= len(_KINDS):
        raise BadPacket("path kind")
    if (probe_type >= ProbeType.NOMINATE) != (generation > 0):
        raise BadPacket("generation")
    observed = (_unpack_host(host), port) if port else None
    return Probe(probe_type, bool(flags & _FLAG_VALIDATED), generation, _KINDS[kind], transaction, observed)


def _pack_host(host: str) -> bytes:
    ip = ip_address(host.partition("%")[0])
    return ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed


def _unpack_host(packed: bytes) -> str:
    ip = IPv6Address(packed)
    return str(ip.ipv4_mapped or ip)
