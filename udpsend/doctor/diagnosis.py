"""What was found, as values. `Diagnosis.to_json` is what `udpsend doctor --json` prints."""

from __future__ import annotations

from enum import Enum
from typing import Any

from msgspec import Struct, field, to_builtins

from udpsend.wire.datagram import Address


class Behaviour(Enum):
    """How far a NAT's mapping or filtering depends on the other end (RFC 4787, sections 4.1 and 5)."""

    NONE = "none"
    """Addresses are not translated; as filtering: everything is let in."""
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"
    DEPENDENT = "address- or address-and-port-dependent"
    NOT_TOLD = "not told"


class Ports(Enum):
    """How a NAT chooses outside ports."""

    KEPT = "kept"
    CHANGED = "changed, the same for all"
    SEQUENTIAL = "one after the other"
    RANDOM = "at random"
    NOT_TOLD = "not told"


class Place(Struct, frozen=True):
    """A broker or a STUN server. `seconds` until it could be used; None: not at all, and `detail` says why."""

    name: str
    seconds: float | None
    detail: str = ""


class Lifetime(Struct, frozen=True):
    """Idle seconds: a mapping was still there after `alive`, and gone after `dead`."""

    alive: float | None = None
    dead: float | None = None
    detail: str = ""


class Nat(Struct, frozen=True):
    """What is between this host and the internet, for one address family."""

    local: Address | None = None
    public: Address | None = None
    """None: no STUN server answered, or none could be asked."""
    mapping: Behaviour = Behaviour.NOT_TOLD
    filtering: Behaviour = Behaviour.NOT_TOLD
    ports: Ports = Ports.NOT_TOLD
    hairpin: bool | None = None
    lifetime: Lifetime | None = None
    routers: int = 1
    """That may translate, at least: with two, a carrier's NAT behind the one at home."""
    not_asked: str = ""
    """Why no STUN server could be asked, so that nothing is known of what is in the way; else empty."""

    @property
    def is_open_to_udp(self) -> bool:
        return self.public is not None

    @property
    def is_symmetric(self) -> bool:
        return self.mapping in (
            Behaviour.ADDRESS_DEPENDENT,
            Behaviour.ADDRESS_AND_PORT_DEPENDENT,
            Behaviour.DEPENDENT,
        )


class PortMappingFound(Struct, frozen=True):
    protocol: str = ""
    address: Address | None = None
    detail: str = ""


class System(Struct, frozen=True):
    """This host: its addresses, and what its sockets do."""

    addresses: tuple[str, ...] = ()
    receive_buffer: int = 0
    """Of all sockets that share the port."""
    send_buffer: int = 0
    buffer_wanted: int = 0
    segmentation: bool | None = None
    """UDP_SEGMENT: a train leaves in one call. None: the system does not have it."""
    coalescing: bool | None = None
    """UDP_GRO: it arrives as one."""


class Mtu(Struct, frozen=True):
    """IP packet sizes: what the interface takes, and the largest that a server answered, which is a lower bound, since
    servers have limits of their own. None where nothing told."""

    interface: int | None = None
    path: int | None = None


class Diagnosis(Struct, frozen=True):
    brokers: tuple[Place, ...] = ()
    stun_servers: tuple[Place, ...] = ()
    system: System = field(default_factory=System)
    ipv4: Nat = field(default_factory=Nat)
    ipv6: Nat = field(default_factory=Nat)
    port_mapping: PortMappingFound = field(default_factory=PortMappingFound)
    mtu: Mtu = field(default_factory=Mtu)
    relay: Place | None = None
    """None: no relay was asked for."""

    def to_json(self) -> dict[str, Any]:
        """Names as here; behaviours as RFC 4787 calls them."""
        found = to_builtins(self)
        assert isinstance(found, dict)  # noqa: S101 - of a Struct
        return found
