"""Addresses behind our own relay: how `a peer, by way of the TURN server` is written as an address.

Everything that sends and receives names the other end by one address. What goes by way of the relay gets an address
out of the dummy prefix of RFC 9780, which is never on any wire, with the peer's IPv4 address in its last four bytes.
"""

from __future__ import annotations

import ipaddress

from udpsend.wire.datagram import Address

_PREFIX = ipaddress.IPv6Network("100:0:0:1::/64")
_START = "100:"  # of every address in it, however the zeros are written


def through_relay(peer: Address) -> Address:
    """The address of an IPv4 peer as it is reached through our relay."""
    return str(_PREFIX.network_address + int(ipaddress.IPv4Address(peer[0]))), peer[1]


def is_through_relay(host: str) -> bool:
    return host.startswith(_START) and ipaddress.ip_address(host) in _PREFIX


def peer_behind_relay(address: Address) -> Address:
    """The peer's own address; any other address as it is."""
    if not is_through_relay(address[0]):
        return address
    return str(ipaddress.IPv4Address(int(ipaddress.IPv6Address(address[0])) & 0xFFFFFFFF)), address[1]
