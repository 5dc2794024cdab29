"""With whom a direct path would work: one's own network against those that a peer may be in.

The arithmetic behind `SLOW`: against one side that maps at random and one that keeps its mapping but filters by port,
either has to meet a port of the other by trying many; where both map at random, nobody can.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

from udpsend.doctor.diagnosis import Behaviour, Diagnosis, Nat, Ports


class Chance(Enum):
    YES = "yes"
    SLOW = "likely, after some seconds of trying ports"
    NO = "no"


class PeerKind(Struct, frozen=True):
    """A network that the other side may be in. `filters_ports` and `symmetric` are what decides."""

    name: str
    filters_ports: bool
    symmetric: bool


PEERS = (
    PeerKind("on the same local network", False, False),
    PeerKind("public address, no firewall", False, False),
    PeerKind("public address behind a firewall", True, False),
    PeerKind("home router that lets in who was written to (full cone, address-restricted)", False, False),
    PeerKind("ordinary home router (port-restricted)", True, False),
    PeerKind("symmetric NAT (many mobile and company networks)", True, True),
)
SAME_NETWORK, ORDINARY = PEERS[0], PEERS[4]


class Prospect(Struct, frozen=True):
    peer: PeerKind
    chance: Chance
    why: str = ""


def prospects(diagnosis: Diagnosis) -> list[Prospect]:
    """A line per kind of peer, over IPv4; IPv6 and port mappings are counted where this side has them."""
    return [_prospect(diagnosis, peer) for peer in PEERS]


def works_with_ordinary_nats(diagnosis: Diagnosis) -> bool:
    return _prospect(diagnosis, ORDINARY).chance is not Chance.NO


def _prospect(diagnosis: Diagnosis, peer: PeerKind) -> Prospect:
    own = diagnosis.ipv4
    if peer is SAME_NETWORK:
        is_alone = not (diagnosis.system.addresses or own.is_open_to_udp or diagnosis.ipv6.is_open_to_udp)
        return Prospect(peer, Chance.NO, "this host has no address") if is_alone else Prospect(peer, Chance.YES)
    if not own.is_open_to_udp:
        if diagnosis.ipv6.is_open_to_udp:
            return Prospect(peer, Chance.YES, "only if both have IPv6")
        asked = "answers: UDP does not get out" if diagnosis.stun_servers else "was asked"
        return Prospect(peer, Chance.NO, own.not_asked or f"no STUN server {asked}")
    if diagnosis.port_mapping.address is not None and _is_outermost(diagnosis):
        return Prospect(peer, Chance.YES, "the router maps a port")
    if not own.is_symmetric:
        if not peer.symmetric or not _filters_ports(own):
            return Prospect(peer, Chance.YES)
        return Prospect(peer, Chance.SLOW)
    if not peer.filters_ports:
        return Prospect(peer, Chance.YES)
    if not peer.symmetric:
        return Prospect(peer, Chance.YES if own.ports is Ports.SEQUENTIAL else Chance.SLOW)
    if own.ports is Ports.SEQUENTIAL:
        return Prospect(peer, Chance.SLOW, "this side's ports can be predicted")
    return Prospect(peer, Chance.NO, "both sides' ports are unknown to the other")


def _filters_ports(own: Nat) -> bool:
    return own.filtering not in (Behaviour.NONE, Behaviour.ENDPOINT_INDEPENDENT, Behaviour.ADDRESS_DEPENDENT)


def _is_outermost(diagnosis: Diagnosis) -> bool:
    """The mapping is made by the NAT that the internet sees, and not by one behind another."""
    mapped, public = diagnosis.port_mapping.address, diagnosis.ipv4.public
    return mapped is not None and public is not None and mapped[0] == public[0]


def kind_in_plain_words(nat: Nat) -> str:
    """One line for people who have not read RFC 4787."""
    if not nat.is_open_to_udp:
        return nat.not_asked or "no STUN server answers"
    if nat.mapping is Behaviour.NONE:
        if nat.filtering is Behaviour.NONE:
            return "no NAT and no firewall: anybody can reach this host"
        if nat.filtering is Behaviour.NOT_TOLD:
            return "no NAT; perhaps a firewall"
        return "no NAT, a firewall: only those who were written to can answer"
    if nat.is_symmetric:
        return "a symmetric NAT: another outside port for each destination, the hard kind"
    if nat.mapping is Behaviour.NOT_TOLD:
        return "a NAT; which kind, one server alone cannot tell"
    return {
        Behaviour.ENDPOINT_INDEPENDENT: "an easy NAT: one outside port for all, open to everybody (full cone)",
        Behaviour.ADDRESS_DEPENDENT: "an easy NAT: one outside port for all, open to hosts that were written to",
        Behaviour.ADDRESS_AND_PORT_DEPENDENT: "an easy NAT: one outside port for all, open to answers alone "
        "(port-restricted, as most home routers)",
    }.get(nat.filtering, "an easy NAT: one outside port for all")
