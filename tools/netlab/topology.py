"""Networks as data: which hosts there are, what joins them, and who routes.

Ports on the same segment are joined: two by one veth pair, more by a bridge. Each address exists only inside namespaces
(documentation and private ranges, RFC 5737 and RFC 1918).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .nat import NAT_KINDS


@dataclass(frozen=True, slots=True)
class Port:
    """One network interface of a host."""

    interface: str
    segment: str
    addresses: tuple[str, ...]
    """With prefix length; the first one is what `Lab.address` gives."""


@dataclass(frozen=True, slots=True)
class Host:
    """One network namespace."""

    name: str
    ports: tuple[Port, ...]
    gateway: str | None = None
    nat: str | None = None
    """The kind of NAT (a key of NAT_KINDS); its host has the ports `lan` and `wan`."""
    forwards: bool = False
    routes: tuple[tuple[str, str], ...] = ()
    """Further routes: destination, and `via ADDRESS` or a type such as `blackhole`."""


@dataclass(frozen=True, slots=True)
class Topology:
    """Hosts, and the size of a packet on their segments."""

    name: str
    about: str
    hosts: tuple[Host, ...]
    mtu: dict[str, int] = field(default_factory=dict)
    """Bytes, by segment; 1500 where not given."""

    def host(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    def segments(self) -> dict[str, list[tuple[Host, Port]]]:
        """Segment -> the ports on it."""
        joined: dict[str, list[tuple[Host, Port]]] = {}
        for host in self.hosts:
            for port in host.ports:
                joined.setdefault(port.segment, []).append((host, port))
        return joined


def pair(mtu: int = 1500) -> Topology:
    """alice and bob, joined by one veth pair."""
    return Topology(
        "pair",
        "alice and bob joined by one veth pair",
        (
            Host("alice", (Port("eth0", "wire", ("10.9.0.1/24",)),)),
            Host("bob", (Port("eth0", "wire", ("10.9.0.2/24",)),)),
        ),
        {"wire": mtu},
    )


def lan() -> Topology:
    """alice, bob and a third host on one bridge: no router, no server, no way out."""
    return Topology(
        "lan",
        "alice, bob and carol on one bridge; no server, no router",
        tuple(
            Host(name, (Port("eth0", "bridge", (f"10.7.0.{number}/24",)),))
            for number, name in enumerate(("alice", "bob", "carol"), 1)
        ),
    )


# A provider's router has no way to private addresses, as on the internet: what is sent there is lost without a word.
_NO_PRIVATE_ROUTES = tuple((net, "blackhole") for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))


def _site(host: str, router: str, kind: str, private: str, public: str, routed: str) -> tuple[Host, Host]:
    """A host behind a router. `private`, `public`, `routed`: the first three numbers of a network, with a dot."""
    inside = private if NAT_KINDS[kind].translates else routed
    segment = f"lan-{host}"
    return (
        Host(host, (Port("eth0", segment, (f"{inside}70/26",)),), gateway=f"{inside}65"),
        Host(
            router,
            (Port("lan", segment, (f"{inside}65/26",)), Port("wan", f"wan-{host}", (f"{public}2/26",))),
            gateway=f"{public}1",
            nat=kind,
            forwards=True,
        ),
    )


def internet(nat_a: str = "masquerade", nat_b: str = "masquerade") -> Topology:
    """alice and bob behind a router each, at two providers, and a server with two public addresses.

    Every path between two of them crosses the `core` router, so that a packet of small TTL can pass the own router and
    die before the other one, as on the internet.
    """
    alice, router_a = _site("alice", "router-a", nat_a, "10.1.0.", "192.0.2.", "192.0.2.")
    bob, router_b = _site("bob", "router-b", nat_b, "10.2.0.", "198.51.100.", "198.51.100.")
    core = Host(
        "core",
        (
            Port("site-a", "wan-alice", ("192.0.2.1/26",)),
            Port("site-b", "wan-bob", ("198.51.100.1/26",)),
            Port("servers", "servers", ("198.51.100.129/26",)),
        ),
        forwards=True,
        routes=(
            ("192.0.2.64/26", "via 192.0.2.2"),
            ("198.51.100.64/26", "via 198.51.100.2"),
            *_NO_PRIVATE_ROUTES,
        ),
    )
    server = Host(
        "server",
        (Port("eth0", "servers", ("198.51.100.130/26", "198.51.100.131/26")),),
        gateway="198.51.100.129",
    )
    return Topology(
        "internet",
        f"alice behind {nat_a}, bob behind {nat_b}, a public server",
        (alice, router_a, bob, router_b, core, server),
    )


TOPOLOGIES: dict[str, Callable[..., Topology]] = {"pair": pair, "lan": lan, "internet": internet}


def by_name(name: str, **choices: Any) -> Topology:
    """The topology `name`. Raises KeyError for an unknown one."""
    return TOPOLOGIES[name](**choices)
