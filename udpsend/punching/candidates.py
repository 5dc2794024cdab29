"""Which addresses this host has, whether the peer is on it, and how direct a path to an address is.

1. `gather_host_candidates` lists the addresses of the interfaces; STUN adds the reflexive ones (session).
2. `same_host_token` goes to the peer with them; equal tokens mean one network stack: loopback works.
3. `path_kind` ranks each address of the peer.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket  # noqa: TID251 - to ask the system for a source
import uuid
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from udpsend.events import PathKind
from udpsend.net.interfaces import interfaces
from udpsend.wire.candidate import MAX_CANDIDATES, Candidate, CandidateType
from udpsend.wire.datagram import Address
from udpsend.wire.relayed import is_through_relay, through_relay

# Of the candidates that a peer takes, some are left for what STUN and port mapping find.
MAX_HOST_CANDIDATES = MAX_CANDIDATES - 4

_ELSEWHERE = ("192.0.2.1", "2001:db8::1")  # addresses for documentation, which only a default route leads to

# Python's is_private also counts the documentation and benchmark networks, which nobody's LAN uses.
_LOCAL_NETWORKS = tuple(
    map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10"))
)
# Interfaces that lead to containers and virtual machines of this host: their addresses rarely help a peer.
_VIRTUAL = ("docker", "br-", "veth", "virbr", "lxc", "lxd", "vmnet", "vboxnet", "cni", "podman")


def gather_host_candidates(ports: Mapping[int, int], bind: str | None = None) -> list[Candidate]:
    """Candidates of the interfaces, best first, at most MAX_HOST_CANDIDATES. `ports` gives the local port of each IP
    version that is in use (keys 4 and 6). `bind` restricts to one address. Those that the default routes start from
    come before others, of which there may be any number. IPv6 link-local ones are left out: a peer cannot know our
    zone."""
    if not ports.keys() <= {4, 6}:
        raise ValueError("ports are given by IP version, 4 or 6")
    only = None if bind is None or ip_address(bind).is_unspecified else ip_address(bind)
    sources = set(filter(None, map(source_towards, _ELSEWHERE)))
    found: dict[Address, tuple[int, Candidate]] = {}
    for address, interface in _addresses({"127.0.0.1", "::1", bind or "::1", *sources}):
        ip = ip_address(address)
        port = ports.get(ip.version)
        if port is None or not _usable(ip) or (only is not None and ip != only):
            continue
        candidate = Candidate(CandidateType.LOOPBACK if ip.is_loopback else CandidateType.HOST, (str(ip), port))
        found.setdefault(candidate.address, (_rank(ip, interface, str(ip) in sources), candidate))
    ranked = sorted(found.values(), key=lambda entry: entry[0])
    return [candidate for _, candidate in ranked[:MAX_HOST_CANDIDATES]]


def _addresses(known: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each with the name of its interface; those that are `known` anyway where the system does not list any."""
    try:
        found = interfaces()
    except OSError:
        yield from ((address, "") for address in known)
        return
    for interface in found:
        yield from ((address, interface.name) for address in interface.addresses)


def _usable(ip: IPv4Address | IPv6Address) -> bool:
    if ip.is_unspecified or ip.is_multicast or (ip.version == 6 and ip.is_link_local):
        return False
    return not ip.is_loopback or str(ip) in ("127.0.0.1", "::1")


def _rank(ip: IPv4Address | IPv6Address, interface: str, is_default: bool) -> int:
    """Lower goes first; what is beyond the cap is left out."""
    if ip.is_loopback:
        return ip.version - 4
    if is_default:
        return 3
    if interface.startswith(_VIRTUAL):
        return 8
    if ip.version == 6:
        return 6 if is_local(ip) else 5
    return 7 if ip.is_link_local else 4


def source_towards(target: str, bind: str | None = None) -> str | None:
    """The source of what goes to this address; nothing is sent for it."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((bind or "", 0))
            probe.connect((target, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return None


def same_host_token(salt: bytes) -> str:
    """Equal on two processes that share boot, network stack and salt, and else not; says nothing about the host to
    those who do not know the salt."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot:
            # Containers share the boot and not the stack: loopback does not lead from one to the other.
            identity = boot.read() + os.readlink("/proc/self/ns/net")
    except OSError:
        identity = f"{uuid.getnode()}"
    return hmac.new(salt, b"udpsend same host" + identity.encode(), hashlib.sha256).hexdigest()[:32]


def is_local(ip: IPv4Address | IPv6Address) -> bool:
    """Of a network that the internet does not route."""
    return any(ip in network for network in _LOCAL_NETWORKS)


def addresses_through_relay(local_candidates: Sequence[Candidate], peer: Iterable[Address]) -> list[Address]:
    """The peer's addresses by way of our relay, if we have one, as far as it can lead there."""
    if not any(candidate.type is CandidateType.RELAYED for candidate in local_candidates):
        return []
    reachable = [address for address in sorted(peer) if ":" not in address[0]]
    return [through_relay(address) for address in reachable if not ip_address(address[0]).is_loopback]


def path_kind(
    local_candidates: Sequence[Candidate], remote_address: Address, same_host: bool, relays: Container[Address] = ()
) -> PathKind:
    """How direct a path to `remote_address` is, judged from this side's own candidates and from the addresses of the
    peer that are a relay's."""
    if remote_address in relays or is_through_relay(remote_address[0]):
        return PathKind.RELAYED
    ip = ip_address(remote_address[0].partition("%")[0])
    if ip.is_loopback:
        return PathKind.THIS_HOST
    own = [ip_address(c.address[0]) for c in local_candidates if c.type is CandidateType.HOST]
    if same_host and ip in own:
        return PathKind.THIS_HOST
    if is_local(ip):
        return PathKind.LOCAL_NETWORK
    # A LAN with public addresses: interfaces do not tell their prefix to everybody, these are the usual ones.
    neighbourhood = ip_network((ip, 64 if ip.version == 6 else 24), strict=False)
    if any(address in neighbourhood for address in own):
        return PathKind.LOCAL_NETWORK
    return PathKind.IPV6 if ip.version == 6 else PathKind.INTERNET
