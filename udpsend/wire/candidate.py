"""Candidates: the addresses at which a peer may be reached (RFC 8445, section 5.1)."""

from __future__ import annotations

import ipaddress
from enum import Enum

from msgspec import Struct

from udpsend.errors import BadPacket
from udpsend.wire.datagram import Address
from udpsend.wire.json import JSON
from udpsend.wire.relayed import is_through_relay

MAX_CANDIDATES = 16  # a peer cannot make us send to more places than this


class CandidateType(Enum):
    LOOPBACK = "loopback"  # only of use to a peer on the same host
    HOST = "host"
    MAPPED = "mapped"  # a port mapping that the router was asked for
    SERVER_REFLEXIVE = "srflx"
    PEER_REFLEXIVE = "prflx"
    RELAYED = "relay"


class Candidate(Struct, frozen=True):
    type: CandidateType
    address: Address

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.address[0]

    def to_json(self) -> list[JSON]:
        return [self.type.value, *self.address]


def parse_candidate_untrusted(value: object) -> Candidate:
    """A candidate from its JSON form `[type, host, port]`. Raises BadPacket.

    Multicast, broadcast and unspecified addresses and port 0 are no candidates: a peer must not aim our probes there.
    Nor is the prefix that stands for our own relay here: it would lead to whatever the relay reaches. Nor are IPv4
    addresses written as IPv6, which would be any of these in disguise.
    """
    match value:
        case [str(kind), str(host), int(port)] if not isinstance(port, bool):
            pass
        case _:
            raise BadPacket("candidate form")
    try:
        candidate_type = CandidateType(kind)
        ip = ipaddress.ip_address(host)
    except ValueError as error:
        raise BadPacket("candidate value") from error
    if ip.is_multicast or ip.is_unspecified or host == "255.255.255.255" or "%" in host or is_through_relay(str(ip)):
        raise BadPacket("candidate address")
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        raise BadPacket("candidate address")
    if not 0 < port < 65536:
        raise BadPacket("candidate port")
    if ip.is_loopback != (candidate_type is CandidateType.LOOPBACK):
        raise BadPacket("candidate type")
    return Candidate(candidate_type, (str(ip), port))
