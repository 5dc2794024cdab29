"""Home routers: NAT of each kind of RFC 4787 for IPv4, a stateful firewall for IPv6 (RFC 6092)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from tests.sim.network import Router
from tests.sim.train import Train
from udpsend.wire.datagram import Address

if TYPE_CHECKING:
    from tests.sim.network import Network


class Depends(Enum):
    """On what of the outside address mapping or filtering depends (RFC 4787, sections 4.1 and 5)."""

    NOTHING = "endpoint-independent"
    ADDRESS = "address-dependent"
    ADDRESS_AND_PORT = "address- and port-dependent"

    def part_of(self, address: Address) -> tuple[str | int, ...]:
        match self:
            case Depends.NOTHING:
                return ()
            case Depends.ADDRESS:
                return (address[0],)
            case Depends.ADDRESS_AND_PORT:
                return address


class Ports(Enum):
    """How a new mapping gets its port."""

    PRESERVED = "preserved"  # the inside port where it is free, else the next
    SEQUENTIAL = "sequential"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class NatKind:
    mapping: Depends
    filtering: Depends
    ports: Ports = Ports.PRESERVED
    hairpin: bool = True
    lifetime: float = 120.0
    """Seconds after the last datagram from inside (RFC 4787, REQ-5)."""
    inbound_refreshes: bool = False
    """Whether datagrams from outside keep a mapping alive (REQ-6)."""
    strays: bool = False
    """A Linux host that masquerades and whose own firewall lets strays in: what comes from an address that was not yet
    written to takes that place in the connection table, and what is written there then leaves from another port, and so
    does what is written anywhere else from then on."""


STRAY_LIFETIME = 30.0


FULL_CONE = NatKind(Depends.NOTHING, Depends.NOTHING)
ADDRESS_RESTRICTED = NatKind(Depends.NOTHING, Depends.ADDRESS)
PORT_RESTRICTED = NatKind(Depends.NOTHING, Depends.ADDRESS_AND_PORT)
MASQUERADE_OPEN = NatKind(Depends.NOTHING, Depends.ADDRESS_AND_PORT, strays=True)
SYMMETRIC = NatKind(Depends.ADDRESS_AND_PORT, Depends.ADDRESS_AND_PORT, Ports.SEQUENTIAL)
SYMMETRIC_RANDOM = NatKind(Depends.ADDRESS_AND_PORT, Depends.ADDRESS_AND_PORT, Ports.RANDOM)


@dataclass(slots=True)
class Mapping:
    inside: Address
    outside: Address
    used: float
    contacted: dict[tuple[str | int, ...], float] = field(default_factory=dict)
    """What of the outside was sent to, as far as filtering looks at it, and when last."""


class Gateway(Router):
    """Hosts attached to it see each other directly; IPv4 from elsewhere sees one address of it, IPv6 sees theirs.

    `nat` None forwards IPv4 untranslated. `firewall` filters IPv6 (and IPv4 without NAT) from outside by what was
    sent to from inside; None lets all in.
    """

    def __init__(self, network: Network, name: str, public: str, nat: NatKind | None) -> None:
        super().__init__(network, name)
        self.public = public
        self.nat = nat
        self.firewall: Depends | None = Depends.ADDRESS_AND_PORT
        self.mappings: dict[tuple[Address, tuple[str | int, ...]], Mapping] = {}
        self._by_port: dict[int, Mapping] = {}
        self._sessions: dict[tuple[Address, tuple[str | int, ...]], float] = {}
        self._strays: dict[tuple[Address, int], float] = {}
        self._flows: dict[tuple[Address, Address], Mapping] = {}
        self._next_port = 20_000
        self._random = network.random(f"nat/{name}")

    def announced(self) -> list[str]:
        if self.nat is None:
            return list(self.routes)
        return [self.public, *(ip for ip in self.routes if ":" in ip)]

    def from_inside(self, train: Train) -> None:
        if train.destination[0] in self.routes:
            self.routes[train.destination[0]].send(train)
        elif self.up is None:
            self.drop(train, "no route")
        elif self.nat is None or ":" in train.destination[0]:
            if self.firewall is not None:
                self._sessions[train.source, self.firewall.part_of(train.destination)] = self.network.now
            self.up.send(train)
        elif train.ttl <= 1:
            self.drop(train, "ttl")
        else:
            if train.ttl < 64:
                train = train.one_hop_on()
            translated = train.with_source(self._mapped(train.source, train.destination, self.nat))
            if train.destination[0] != self.public:
                self.up.send(translated)
            elif self.nat.hairpin:
                self._translate_in(translated, self.nat)  # with the outside source (REQ-9)
            else:
                self.drop(train, "nat hairpin")

    def from_outside(self, train: Train) -> None:
        if self.nat is not None and ":" not in train.destination[0]:
            self._translate_in(train, self.nat)
            return
        if self.firewall is not None:
            used = self._sessions.get((train.destination, self.firewall.part_of(train.source)))
            lifetime = self.nat.lifetime if self.nat else 120.0
            if used is None or self.network.now - used > lifetime:
                self.drop(train, "firewall")
                return
        super().from_outside(train)

    def forget(self) -> None:
        """Loses all state, as on a restart."""
        self.mappings.clear()
        self._by_port.clear()
        self._sessions.clear()
        self._flows.clear()
        self._strays.clear()

    def _mapped(self, inside: Address, destination: Address, nat: NatKind) -> Address:
        now = self.network.now
        key = (inside, nat.mapping.part_of(destination))
        mapping = self.mappings.get(key)
        if nat.strays:
            mapping = self._flows.get((inside, destination), mapping)
            if self._is_taken(destination, mapping):
                self.mappings.pop(key, None)
                mapping = None
        if mapping is not None and now - mapping.used > nat.lifetime:
            self._expire(key, mapping)
            mapping = None
        if mapping is None:
            mapping = Mapping(inside, (self.public, self._free_port(inside[1], nat)), now)
            self.mappings[key] = mapping
            self._by_port[mapping.outside[1]] = mapping
        if nat.strays:
            self._flows[inside, destination] = mapping
        mapping.used = now
        mapping.contacted[nat.filtering.part_of(destination)] = now
        return mapping.outside

    def _is_taken(self, destination: Address, mapping: Mapping | None) -> bool:
        """Whether a stray from there has the place that this mapping would have."""
        if mapping is None or destination in mapping.contacted:
            return False
        taken = self._strays.get((destination, mapping.outside[1]), -math.inf)
        return self.network.now - taken < STRAY_LIFETIME

    def _translate_in(self, train: Train, nat: NatKind) -> None:
        now = self.network.now
        mapping = self._by_port.get(train.destination[1])
        if mapping is None or train.destination[0] != self.public or now - mapping.used > nat.lifetime:
            self.drop(train, "nat unmapped")
            return
        contacted = mapping.contacted.get(nat.filtering.part_of(train.source))
        if contacted is None or now - contacted > nat.lifetime:
            self._strays[train.source, train.destination[1]] = now
            self.drop(train, "nat filter")
            return
        if nat.inbound_refreshes:
            mapping.used = mapping.contacted[nat.filtering.part_of(train.source)] = now
        self.routes[mapping.inside[0]].send(train.with_destination(mapping.inside))

    def _expire(self, key: tuple[Address, tuple[str | int, ...]], mapping: Mapping) -> None:
        del self.mappings[key]
        self._by_port.pop(mapping.outside[1], None)

    def _free_port(self, inside_port: int, nat: NatKind) -> int:
        if nat.ports is Ports.PRESERVED and inside_port not in self._by_port:
            return inside_port
        while True:
            if nat.ports is Ports.RANDOM:
                port = self._random.randrange(1024, 65_536)
            else:
                port = self._next_port
                self._next_port = self._next_port + 1 if self._next_port < 65_535 else 20_000
            if port not in self._by_port:
                return port
