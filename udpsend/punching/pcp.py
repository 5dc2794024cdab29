"""PCP (RFC 6887) and NAT-PMP (RFC 6886): requests for port mappings <-> bytes. Sans-IO.

    PCP MAP      2 | opcode 1 | 2 reserved | lifetime 4 | client's address 16           24 bytes, then
                 nonce 12 | protocol 1 | 3 reserved | internal port 2 | external port 2 | external address 16
      answer     2 | 0x81 | reserved | result | lifetime 4 | epoch 4 | 12 reserved      24 bytes, then as above
    NAT-PMP      0 | opcode 0                                       which external address?
      answer     0 | 0x80 | result 2 | epoch 4 | address 4
                 0 | opcode 1 | 2 reserved | internal port 2 | external port 2 | lifetime 4
      answer     0 | 0x81 | result 2 | epoch 4 | internal port 2 | external port 2 | lifetime 4

Both are spoken on the same port of the router; one that only knows NAT-PMP answers PCP with version 0. A lifetime of 0
asks for the end of a mapping.
"""

from __future__ import annotations

import ipaddress
import struct

from msgspec import Struct

from udpsend.errors import BadPacket

PORT = 5351
NONCE_SIZE = 12
MAX_ANSWER_SIZE = 1100  # RFC 6887, section 7

PCP_VERSION, NAT_PMP_VERSION = 2, 0
UDP = 17
_MAP, _ANSWER = 1, 0x80
_PCP_HEADER = struct.Struct("!BBHI16s")
_PCP_ANSWER = struct.Struct("!BBBBII12x")
_PCP_MAP = struct.Struct("!12sB3xHH16s")
_NAT_PMP_ADDRESS = struct.Struct("!BBHI4s")
_NAT_PMP_MAP = struct.Struct("!BBHHHI")
_NAT_PMP_MAPPED = struct.Struct("!BBHIHHI")

_PCP_RESULTS = {
    1: "it speaks another version",
    2: "it does not permit that",
    4: "it does not know port mappings",
    7: "its network is down",
    8: "it has no room for another mapping",
    11: "it has no external port to give",
    12: "another router is between it and this host",
    13: "it limits the mappings of one host",
}
_NAT_PMP_RESULTS = {
    1: "it speaks another version",
    2: "it does not permit that",
    3: "its network is down",
    4: "it has no room for another mapping",
    5: "it does not know port mappings",
}


class RouterRefused(BadPacket):
    """The router answered, and said no. The text says why, for the user."""


class OnlyNatPmp(BadPacket):
    """The router answers PCP with version 0."""


class Granted(Struct, frozen=True):
    """An external port, for `lifetime` seconds. `host` is None where the answer does not tell it (NAT-PMP)."""

    host: str | None
    port: int
    lifetime: int


def pack_pcp_map(client: str, port: int, nonce: bytes, lifetime: int, external_port: int = 0) -> bytes:
    """A request of the host `client` (IPv4) for its UDP port `port`; `external_port` is a wish."""
    any_address = ipaddress.IPv6Address("::ffff:0.0.0.0").packed
    header = _PCP_HEADER.pack(PCP_VERSION, _MAP, 0, lifetime, ipaddress.IPv6Address(f"::ffff:{client}").packed)
    return header + _PCP_MAP.pack(nonce, UDP, port, external_port, any_address)


def parse_pcp_map_untrusted(data: bytes, port: int, nonce: bytes) -> Granted:
    """The answer to the request with this nonce for this internal port. Raises BadPacket, also as RouterRefused and
    OnlyNatPmp."""
    if len(data) > MAX_ANSWER_SIZE or len(data) < 4:
        raise BadPacket("size")
    if data[0] == NAT_PMP_VERSION and data[1] & _ANSWER:
        raise OnlyNatPmp("version 0")
    if data[0] != PCP_VERSION or data[1] != _ANSWER | _MAP or len(data) < _PCP_ANSWER.size:
        raise BadPacket("no answer to a PCP MAP request")
    _, _, _, result, lifetime, _ = _PCP_ANSWER.unpack_from(data)
    if len(data) < _PCP_ANSWER.size + _PCP_MAP.size:
        raise BadPacket("size")
    theirs, protocol, internal, external, packed = _PCP_MAP.unpack_from(data, _PCP_ANSWER.size)
    if theirs != nonce or protocol != UDP or internal != port:
        raise BadPacket("answer to another request")
    if result:
        raise RouterRefused(_PCP_RESULTS.get(result, f"it answers with PCP error {result}"))
    mapped = ipaddress.IPv6Address(packed).ipv4_mapped
    if mapped is None:
        raise BadPacket("external address")
    return Granted(check_host_untrusted(str(mapped)), check_port_untrusted(external), lifetime)


def pack_nat_pmp_address() -> bytes:
    return bytes((NAT_PMP_VERSION, 0))


def pack_nat_pmp_map(port: int, lifetime: int, external_port: int = 0) -> bytes:
    return _NAT_PMP_MAP.pack(NAT_PMP_VERSION, _MAP, 0, port, external_port, lifetime)


def parse_nat_pmp_address_untrusted(data: bytes) -> str:
    """The router's external address. Raises BadPacket, also as RouterRefused."""
    _check_nat_pmp_untrusted(data, 0, _NAT_PMP_ADDRESS.size)
    return check_host_untrusted(str(ipaddress.IPv4Address(_NAT_PMP_ADDRESS.unpack_from(data)[4])))


def parse_nat_pmp_map_untrusted(data: bytes, port: int) -> Granted:
    """The answer to a request for this internal port. Raises BadPacket, also as RouterRefused."""
    _check_nat_pmp_untrusted(data, _MAP, _NAT_PMP_MAPPED.size)
    _, _, _, _, internal, external, lifetime = _NAT_PMP_MAPPED.unpack_from(data)
    if internal != port:
        raise BadPacket("answer to another request")
    return Granted(None, check_port_untrusted(external), lifetime)


def _check_nat_pmp_untrusted(data: bytes, opcode: int, size: int) -> None:
    if not 4 <= len(data) <= MAX_ANSWER_SIZE or data[0] != NAT_PMP_VERSION or data[1] != _ANSWER | opcode:
        raise BadPacket("no answer to this NAT-PMP request")
    result = int.from_bytes(data[2:4])
    if result:
        raise RouterRefused(_NAT_PMP_RESULTS.get(result, f"it answers with NAT-PMP error {result}"))
    if len(data) < size:
        raise BadPacket("size")


def check_host_untrusted(text: str) -> str:
    """An IPv4 address at which somebody could be reached. Raises BadPacket."""
    try:
        ip = ipaddress.IPv4Address(text.strip())
    except ValueError as error:
        raise BadPacket("external address") from error
    # Not is_reserved or is_private: the router's outside may itself be behind a carrier's NAT.
    if ip.is_multicast or ip.is_unspecified or ip.is_loopback or ip.is_link_local or int(ip) >= 0xF0000000:
        raise BadPacket("external address")
    return str(ip)


def check_port_untrusted(port: int) -> int:
    if not 0 < port < 65536:
        raise BadPacket("external port")
    return port
