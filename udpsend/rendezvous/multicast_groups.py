"""One multicast group for each IP version: how its socket is opened, joined to interfaces, sent to and read.

    IPv4    239.255.85.68             site-local block of RFC 2365, TTL 1
    IPv6    ff12::7564:7073:656e:64   link-local and transient (RFC 4291, section 2.7), 1 hop

Both at the port 28557. Interfaces go by their number, since neither a route nor an address says enough: so two peers
meet on one host, and on a link where hosts have only the addresses that they gave themselves.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping

from udpsend.net.interfaces import interfaces

LINUX = sys.platform == "linux"

# "U" and "D" in the one, "udpsend" in the other. The port is below those that Linux gives out by itself.
GROUP = "239.255.85.68"
GROUP_IPV6 = "ff12::7564:7073:656e:64"
PORT = 28557
MAX_INTERFACES = 32

# Linux: 0 asks for the groups that this socket joined, not for those that others did.
IP_MULTICAST_ALL = 49
IPV6_MULTICAST_ALL = 29
# RFC 3542; Python 3.11 has no names for them on every system
IPV6_RECVPKTINFO = getattr(socket, "IPV6_RECVPKTINFO", 49)
IPV6_PKTINFO = getattr(socket, "IPV6_PKTINFO", 50)


class Group(ABC):
    """An open socket. `joined` has an address of each interface by its number."""

    family: socket.AddressFamily

    def __init__(self) -> None:
        """Raises OSError."""
        self.joined: dict[int, str] = {}
        self.socket = socket.socket(self.family, socket.SOCK_DGRAM)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "SO_REUSEPORT") and not LINUX:  # BSD wants it; Linux would ask for the same user
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._set_up()
            self.socket.setblocking(False)
        except BaseException:
            self.socket.close()
            raise

    def join(self, interfaces: Mapping[int, str]) -> str:
        """Joins where it has not joined yet, and forgets interfaces that went away. What went wrong last, or ''."""
        problem, joined = "", {}
        for index, address in interfaces.items():
            if self.joined.get(index) != address:
                try:
                    self._join(index, address)
                except OSError as error:
                    if error.errno != errno.EADDRINUSE:  # joined before, by another address of the interface
                        problem = error.strerror or str(error)
                        continue
            joined[index] = address
        self.joined = joined
        return problem

    def send(self, datagram: bytes) -> None:
        """On every interface. One may be down or gone, its queue full, a firewall in the way: it is lost there."""
        for index, address in self.joined.items():
            try:
                self._send(datagram, index, address)
            except OSError:
                continue

    @abstractmethod
    def receive(self, size: int) -> bytes | None:
        """A datagram that came to the group, at most `size` bytes of it; None: it came to this host alone. Raises
        OSError, also BlockingIOError."""

    @abstractmethod
    def _set_up(self) -> None: ...

    @abstractmethod
    def _join(self, index: int, address: str) -> None: ...

    @abstractmethod
    def _send(self, datagram: bytes, index: int, address: str) -> None: ...


class IPv4Group(Group):
    """Bound to the group's address, so that nothing that was sent to this host alone comes in."""

    family = socket.AF_INET

    def _set_up(self) -> None:
        if LINUX:
            self.socket.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        self.socket.bind(("" if sys.platform == "win32" else GROUP, PORT))

    def receive(self, size: int) -> bytes | None:
        return self.socket.recv(size)

    def _join(self, index: int, address: str) -> None:
        membership = socket.inet_aton(GROUP) + _on_interface(index, address)[-8 if LINUX else -4 :]
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)

    def _send(self, datagram: bytes, index: int, address: str) -> None:
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, _on_interface(index, address))
        self.socket.sendto(datagram, (GROUP, PORT))


class IPv6Group(Group):
    """A link-local group cannot be bound to on all links at once; the kernel tells what came to another address."""

    family = socket.AF_INET6

    def _set_up(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if LINUX:
            self.socket.setsockopt(socket.IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0)
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 1)
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
        self.socket.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
        self.socket.bind(("::", PORT))

    def receive(self, size: int) -> bytes | None:
        datagram, ancillary, _, _ = self.socket.recvmsg(size, socket.CMSG_SPACE(20))
        group = ipaddress.IPv6Address(GROUP_IPV6).packed
        came_to_it = any(data[:16] == group for _, kind, data in ancillary if kind == IPV6_PKTINFO)
        return datagram if came_to_it else None

    def _join(self, index: int, address: str) -> None:
        membership = ipaddress.IPv6Address(GROUP_IPV6).packed + struct.pack("@I", index)
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)

    def _send(self, datagram: bytes, index: int, address: str) -> None:
        self.socket.sendto(datagram, (GROUP_IPV6, PORT, 0, index))


def interfaces_by_version(allowed: frozenset[str] | None) -> dict[socket.AddressFamily, dict[int, str]]:
    """An address of each interface by its number, loopback first; of those that have one of the `allowed` addresses."""
    found: dict[socket.AddressFamily, dict[int, str]] = {socket.AF_INET: {}, socket.AF_INET6: {}}
    for interface in interfaces():
        if interface.number is None or (allowed is not None and allowed.isdisjoint(interface.addresses)):
            continue
        for address in interface.addresses:
            of_version = found[socket.AF_INET6 if ":" in address else socket.AF_INET]
            if ":" in address or allowed is None or address in allowed:
                of_version.setdefault(interface.number, address)
    return {family: _loopback_first(by_index) for family, by_index in found.items()}


def _loopback_first(by_index: dict[int, str]) -> dict[int, str]:
    in_order = sorted(by_index.items(), key=lambda item: not ipaddress.ip_address(item[1]).is_loopback)
    return dict(in_order[:MAX_INTERFACES])


def _on_interface(index: int, address: str) -> bytes:
    """`struct ip_mreqn` on Linux, where a number says more than an address; elsewhere the address alone."""
    if LINUX:
        return struct.pack("@4s4si", bytes(4), socket.inet_aton(address), index)
    return socket.inet_aton(address)
