"""The router that this host sends everything through, and the address it knows this host by. Asks the system."""

from __future__ import annotations

import ipaddress
import socket
import struct

from msgspec import Struct

from udpsend.punching.candidates import source_towards

ROUTES = "/proc/net/route"  # of this network namespace; other systems have none, and then no gateway is known
_UP_AND_GATEWAY = 0x3
# A host with a public address needs no port mapping, and its provider's router is not to be bothered.
_BEHIND_A_NAT = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))  # RFC 1918, RFC 6598
)


class Gateway(Struct, frozen=True):
    """Both IPv4."""

    address: str
    own: str


def find_gateway(bind: str | None = None) -> Gateway | None:
    """The default gateway, if this host (or its address `bind`) is on a private network behind it."""
    try:
        with open(ROUTES, encoding="ascii") as table:
            router = default_gateway(table.read())
    except (OSError, ValueError):
        return None
    if router is None or (own := source_towards(router, bind)) is None or not is_behind_nat(own):
        return None
    return Gateway(router, own)


def is_behind_nat(own: str) -> bool:
    """Of a network that hosts behind a NAT have."""
    return any(ipaddress.ip_address(own) in network for network in _BEHIND_A_NAT)


def default_gateway(table: str) -> str | None:
    """Of the default routes in the text of /proc/net/route the one with the lowest metric. Addresses in it are
    hexadecimal numbers in the byte order of the host."""
    routes: list[tuple[int, str]] = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8:
            continue
        destination, gateway, flags, mask = (int(fields[i], 16) for i in (1, 2, 3, 7))
        if destination == mask == 0 and gateway and flags & _UP_AND_GATEWAY == _UP_AND_GATEWAY:
            routes.append((int(fields[6]), socket.inet_ntoa(struct.pack("=I", gateway))))
    return min(routes)[1] if routes else None
