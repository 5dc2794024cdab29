"""Networks as data: which hosts there are, what joins them, and who routes.

Ports on the same segment are joined: two by one veth pair, more by a bridge. Each address exists only inside namespaces
(documentation, shared and private ranges: RFC 5737, 3849, 6598 and 1918).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
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
    port_mapping: tuple[str, ...] = ()
    """The protocols by which a router maps ports, of `pcp` (with NAT-PMP) and `upnp`; its address for that is
    MAPPED_ADDRESS."""


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
_SERVER = Host(
    "server",
    (Port("eth0", "servers", ("198.51.100.130/26", "198.51.100.131/26")),),
    gateway="198.51.100.129",
)


def _core(*sites: tuple[str, str]) -> Host:
    """The router between the servers and sites, given as segment and network (its first three numbers and a dot)."""
    return Host(
        "core",
        (
            *(Port(f"site{number}", segment, (f"{net}1/26",)) for number, (segment, net) in enumerate(sites)),
            Port("servers", "servers", ("198.51.100.129/26",)),
        ),
        forwards=True,
        routes=(*((f"{net}64/26", f"via {net}2") for _, net in sites), *_NO_PRIVATE_ROUTES),
    )


def _router(name: str, kind: str, lan: Port, wan: str, net: str, number: int = 2) -> Host:
    """Its address on the segment `wan` is `net` and `number`, and its gateway there has number 1."""
    ports = (Port("lan", lan.segment, lan.addresses), Port("wan", wan, (f"{net}{number}/26",)))
    return Host(name, ports, gateway=f"{net}1", nat=kind, forwards=True)


def _site(host: str, router: str, kind: str, private: str, public: str, routed: str) -> tuple[Host, Host]:
    """A host behind a router. `private`, `public`, `routed`: the first three numbers of a network, with a dot."""
    inside = private if NAT_KINDS[kind].translates else routed
    segment = f"lan-{host}"
    return (
        Host(host, (Port("eth0", segment, (f"{inside}70/26",)),), gateway=f"{inside}65"),
        _router(router, kind, Port("lan", segment, (f"{inside}65/26",)), f"wan-{host}", public),
    )


# miniupnpd does nothing behind an address that is reserved for documentation, as all of the laboratory's are. So a
# router that maps ports has one more, which exists inside of the laboratory only.
MAPPED_ADDRESS = "44.128.0.2"


def _with_port_mapping(router: Host, core: Host, protocols: tuple[str, ...]) -> tuple[Host, Host]:
    """The router maps ports, and the core knows the way to its further address."""
    lan, wan = router.ports
    public = wan.addresses[0].split("/")[0]
    wan = replace(wan, addresses=(*wan.addresses, f"{MAPPED_ADDRESS}/32"))
    router = replace(router, ports=(lan, wan), port_mapping=protocols)
    return router, replace(core, routes=(*core.routes, (f"{MAPPED_ADDRESS}/32", f"via {public}")))


def internet(
    nat_a: str = "masquerade",
    nat_b: str = "masquerade",
    *,
    same_private: bool = False,
    mtu: int = 1500,
    port_mapping: tuple[str, ...] = (),
) -> Topology:
    """alice and bob behind a router each, at two providers, and a server with two public addresses.

    Every path between two of them crosses the `core` router, so that a packet of small TTL can pass the own router and
    die before the other one, as on the internet. `same_private`: both homes use the same addresses inside. `mtu` is
    that of the providers' lines. `port_mapping`: the protocols by which alice's router maps ports.
    """
    alice, router_a = _site("alice", "router-a", nat_a, "10.1.0.", "192.0.2.", "192.0.2.")
    private = "10.1.0." if same_private else "10.2.0."
    bob, router_b = _site("bob", "router-b", nat_b, private, "198.51.100.", "198.51.100.")
    core = _core(("wan-alice", "192.0.2."), ("wan-bob", "198.51.100."))
    if port_mapping:
        router_a, core = _with_port_mapping(router_a, core, port_mapping)
    return Topology(
        "internet",
        f"alice behind {nat_a}, bob behind {nat_b}, a public server",
        (alice, router_a, bob, router_b, core, _SERVER),
        {"wan-alice": mtu, "wan-bob": mtu},
    )


def layers(inner: str = "masquerade", outer: str = "port-restricted", other: str = "masquerade") -> Topology:
    """alice behind a home router behind her carrier's NAT; bob behind one NAT."""
    alice, router_a = _site("alice", "router-a", inner, "10.1.0.", "100.64.1.", "100.64.1.")
    carrier_lan = Port("lan", "wan-alice", ("100.64.1.1/26",))
    carrier_a = _router("carrier-a", outer, carrier_lan, "wan-carrier", "192.0.2.")
    bob, router_b = _site("bob", "router-b", other, "10.2.0.", "198.51.100.", "198.51.100.")
    core = _core(("wan-carrier", "192.0.2."), ("wan-bob", "198.51.100."))
    about = f"alice behind {inner} behind {outer}, bob behind {other}, a public server"
    return Topology("layers", about, (alice, router_a, carrier_a, bob, router_b, core, _SERVER))


def home(nat: str = "masquerade") -> Topology:
    """alice and bob on one local network behind one NAT."""
    gateway = "10.1.0.65"
    hosts = tuple(
        Host(name, (Port("eth0", "lan", (f"10.1.0.{number}/26",)),), gateway=gateway)
        for name, number in (("alice", 70), ("bob", 71))
    )
    router = _router("router", nat, Port("lan", "lan", (f"{gateway}/26",)), "wan", "192.0.2.")
    about = f"alice and bob on one network behind {nat}, a public server"
    return Topology("home", about, (*hosts, router, _core(("wan", "192.0.2.")), _SERVER))


def carrier(nat: str = "hairpin") -> Topology:
    """alice and bob behind a router each, both behind one carrier's NAT: they meet at its outside address or not."""
    hosts: list[Host] = []
    for name, router, net, number in (("alice", "router-a", "10.1.0.", 2), ("bob", "router-b", "10.2.0.", 3)):
        segment = f"lan-{name}"
        hosts += [
            Host(name, (Port("eth0", segment, (f"{net}70/26",)),), gateway=f"{net}65"),
            _router(router, "masquerade", Port("lan", segment, (f"{net}65/26",)), "street", "100.64.1.", number),
        ]
    outer = _router("carrier", nat, Port("lan", "street", ("100.64.1.1/26",)), "wan", "192.0.2.")
    about = f"alice and bob behind masquerade each, both behind one {nat}, a public server"
    return Topology("carrier", about, (*hosts, outer, _core(("wan", "192.0.2.")), _SERVER))


def internet6(nat_a: str = "firewall", nat_b: str = "firewall") -> Topology:
    """As `internet`, with IPv6 and no IPv4 at all. The kinds are those that do not translate."""
    net = "2001:db8:"

    def site(host: str, router: str, kind: str, number: int) -> tuple[Host, Host]:
        inside, outside = f"{net}{number}1::", f"{net}{number}::"
        ports = (Port("lan", f"lan-{host}", (f"{inside}1/64",)), Port("wan", f"wan-{host}", (f"{outside}2/64",)))
        return (
            Host(host, (Port("eth0", f"lan-{host}", (f"{inside}70/64",)),), gateway=f"{inside}1"),
            Host(router, ports, gateway=f"{outside}1", nat=kind, forwards=True),
        )

    core = Host(
        "core",
        (
            Port("site0", "wan-alice", (f"{net}1::1/64",)),
            Port("site1", "wan-bob", (f"{net}2::1/64",)),
            Port("servers", "servers", (f"{net}9::1/64",)),
        ),
        forwards=True,
        routes=((f"{net}11::/64", f"via {net}1::2"), (f"{net}21::/64", f"via {net}2::2")),
    )
    server = Host("server", (Port("eth0", "servers", (f"{net}9::130/64", f"{net}9::131/64")),), gateway=f"{net}9::1")
    hosts = (*site("alice", "router-a", nat_a, 1), *site("bob", "router-b", nat_b, 2), core, server)
    return Topology("internet6", f"alice behind {nat_a}, bob behind {nat_b}, IPv6 only", hosts)


TOPOLOGIES: dict[str, Callable[..., Topology]] = {
    "pair": pair,
    "lan": lan,
    "internet": internet,
    "layers": layers,
    "home": home,
    "carrier": carrier,
    "internet6": internet6,
}


def by_name(name: str, **choices: Any) -> Topology:
    """The topology `name`. Raises KeyError for an unknown one."""
    return TOPOLOGIES[name](**choices)
