"""The socket of a session, on as many address families as the host has. Picks the platform's way to carry trains.

While punching goes on there may be more sockets for IPv4, each with a number; one of them may take the place of the
first, and the rest go (`open_more`, `keep`).
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import sys

from udpsend.errors import UsageError
from udpsend.net.carrier import DESCRIPTORS_LEFT, Carrier
from udpsend.net.portable import PortableSocket
from udpsend.wire.datagram import MAX_DATAGRAM_SIZE, Address, Transmit, ip_overhead
from udpsend.wire.relayed import is_through_relay

BUFFER_SIZE = 8 << 20  # asked for; the kernel gives up to net.core.rmem_max
SMALLEST_BUFFER = 64 << 10  # that is asked for
IP_MTU = 14  # linux/in.h
IPV6_MTU = 24
ETHERNET_MTU = 1500  # where the system does not tell
SMALL_BUFFER = 2048  # for the sockets of punching: there are hundreds, and a probe has 80 bytes
RELAYED_DATAGRAM_SIZE = 1400  # with the relay's frame around it, it passes an Ethernet


class UdpEndpoint:
    """Sockets for IPv4 and IPv6, or the one of `bind`. Raises UsageError if that address is none of this host's."""

    def __init__(self, bind: str | None = None, *, offload: bool = True) -> None:
        self.sockets: list[Carrier] = []
        """All that may have something to read. Another list after each change."""
        self._more: dict[int, Carrier] = {}
        self._relay: Carrier | None = None
        self._last_local = self._spare = 0
        self._bind = bind
        self._offload = offload
        if bind is not None:
            self._open(_family(bind), bind)
        else:
            self._open(socket.AF_INET, "")
            with contextlib.suppress(OSError):  # no IPv6 on this host
                self._open(socket.AF_INET6, "")
        self._by_version = {sock.family == socket.AF_INET6: sock for sock in self.sockets}

    def _open(self, family: socket.AddressFamily, host: str) -> None:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            _enlarge_buffers(sock)
            sock.bind((host, 0))
        except OSError as error:
            sock.close()
            if host:
                raise UsageError(f"--bind {host}: this host has no such address ({error.strerror}).") from error
            raise
        self.sockets.append(_carrier(sock, self._offload))

    @property
    def ports(self) -> dict[int, int]:
        """IP version -> local port."""
        return {6 if is_ipv6 else 4: sock.sock.getsockname()[1] for is_ipv6, sock in self._by_version.items()}

    @property
    def families(self) -> list[socket.AddressFamily]:
        return [socket.AF_INET6 if is_ipv6 else socket.AF_INET for is_ipv6 in self._by_version]

    @property
    def relay(self) -> Carrier | None:
        """Carries what goes to addresses behind a relay (`wire/relayed.py`). Whoever sets it closes it."""
        return self._relay

    @relay.setter
    def relay(self, relay: Carrier | None) -> None:
        self._relay = relay
        self._list_sockets()

    def _list_sockets(self) -> None:
        relays = [] if self._relay is None else [self._relay]
        self.sockets = [*self._by_version.values(), *self._more.values(), *relays]

    def send(self, transmit: Transmit) -> None:
        if self._relay is not None and is_through_relay(transmit.address[0]):
            self._relay.send(transmit)
            return
        if transmit.local or transmit.ttl:
            self._send_specially(transmit)
            return
        sock = self._by_version.get(":" in transmit.address[0])
        if sock is not None:
            sock.send(transmit)

    def _send_specially(self, transmit: Transmit) -> None:
        """From a socket of its own, or with a TTL of its own."""
        is_ipv6 = ":" in transmit.address[0]
        sock = self._more.get(transmit.local) or self._by_version.get(is_ipv6)
        if sock is None:
            return
        if not transmit.ttl:
            sock.send(transmit)
            return
        level, option = (
            (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS) if is_ipv6 else (socket.IPPROTO_IP, socket.IP_TTL)
        )
        usual = sock.sock.getsockopt(level, option)
        sock.sock.setsockopt(level, option, transmit.ttl)
        try:
            sock.send(transmit)
        finally:
            sock.sock.setsockopt(level, option, usual)

    def open_more(self, count: int) -> list[int]:
        """More sockets for IPv4: the number of each, for `Transmit.local`. Fewer where the system has no more."""
        if False not in self._by_version:
            return []
        opened: list[int] = []
        for _ in range(count):
            try:
                sock = self._another()
            except OSError:  # no more descriptors or ports
                for local in opened[-DESCRIPTORS_LEFT:]:
                    self._more.pop(local).close()
                del opened[-DESCRIPTORS_LEFT:]
                break
            self._last_local += 1
            self._more[self._last_local] = small = PortableSocket(sock, SMALL_BUFFER, 1)
            small.local = self._last_local
            opened.append(self._last_local)
        self._list_sockets()
        return opened

    def spare(self) -> tuple[int, int] | None:
        """Number and port of a further socket for IPv4, the same until `keep`; None where the system has no more."""
        if self._spare not in self._more:
            self._spare = next(iter(self.open_more(1)), 0)
        sock = self._more.get(self._spare)
        return None if sock is None else (self._spare, sock.sock.getsockname()[1])

    def _another(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.bind((self._bind or "", 0))
        except OSError:
            sock.close()
            raise
        return sock

    def keep(self, local: int) -> None:
        """The session goes on with the IPv4 socket of this number, if there is one; all others for IPv4 are closed."""
        winner = self._more.pop(local, None)
        going = [*self._more.values()]
        self._more.clear()
        if winner is not None:
            going.append(self._by_version[False])
            _enlarge_buffers(winner.sock)
            self._by_version[False] = carrier = _carrier(winner.sock, self._offload)
            carrier.local = local
        self._list_sockets()
        for sock in going:
            sock.close()

    def send_datagram(self, data: bytes, address: Address) -> None:
        """One datagram, from any thread. Raises OSError."""
        sock = self._by_version.get(":" in address[0])
        if sock is not None:
            sock.sock.sendto(data, address)

    def max_datagram_size(self, address: Address) -> int:
        """The largest UDP payload that the interface towards `address` takes."""
        if is_through_relay(address[0]):
            return RELAYED_DATAGRAM_SIZE
        family, mtu = _family(address[0]), 0
        level, option = (socket.IPPROTO_IPV6, IPV6_MTU) if family == socket.AF_INET6 else (socket.IPPROTO_IP, IP_MTU)
        if sys.platform == "linux":  # elsewhere these numbers mean other things
            with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect(address)
                mtu = probe.getsockopt(level, option)
        return min(MAX_DATAGRAM_SIZE, (mtu or ETHERNET_MTU) - ip_overhead(address[0]))

    @property
    def receive_buffer(self) -> int:
        """Bytes that may safely wait to be received, on whatever path."""
        return min(sock.receive_buffer for sock in self._by_version.values())

    def room(self, address: Address, opening: bytes | None = None) -> int:
        """The same for the path to there. What comes and begins with `opening`, if that is given, comes fast: there is
        to be more room for it where the kernel grants little."""
        sock = self._by_version.get(":" in address[0])
        if sock is None or is_through_relay(address[0]):
            return self.receive_buffer
        if opening is not None:
            sock.widen(opening)
        return sock.receive_buffer

    def counters(self) -> dict[str, float]:
        return {f"socket, {what}": n for sock in self.sockets for what, n in sock.counters.items()}

    def close(self) -> None:
        self.relay = None
        for sock in self.sockets:
            sock.close()


def _enlarge_buffers(sock: socket.socket) -> None:
    """Linux gives what it allows; BSD and macOS refuse what is more than that."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        size = BUFFER_SIZE
        while size >= SMALLEST_BUFFER:
            try:
                sock.setsockopt(socket.SOL_SOCKET, option, size)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                size //= 2
            else:
                break


def _family(host: str) -> socket.AddressFamily:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError as error:
        raise UsageError(f"{host!r} is no IP address.") from error
    return socket.AF_INET6 if version == 6 else socket.AF_INET


def _carrier(sock: socket.socket, offload: bool) -> Carrier:
    if sys.platform == "linux":
        from udpsend.net.linux import LinuxSocket

        try:
            return LinuxSocket(sock, offload=offload)
        except OSError:  # a kernel before 5.0
            pass
    return PortableSocket(sock)
