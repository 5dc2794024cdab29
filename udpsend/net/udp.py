"""The socket of a session, on as many address families as the host has. Picks the platform's way to carry trains."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import sys

from udpsend.errors import UsageError
from udpsend.net.portable import PortableSocket
from udpsend.wire.datagram import MAX_TRAIN_SIZE, Address, Transmit

BUFFER_SIZE = 8 << 20  # asked for; the kernel gives up to net.core.rmem_max
IP_MTU = 14  # linux/in.h
IPV6_MTU = 24
UDP_OVERHEAD = {socket.AF_INET: 28, socket.AF_INET6: 48}


class UdpEndpoint:
    """Sockets for IPv4 and IPv6, or the one of `bind`. Raises UsageError if that address is none of this host's."""

    def __init__(self, bind: str | None = None, *, offload: bool = True) -> None:
        self.sockets: list[PortableSocket] = []
        if bind is not None:
            self._open(_family(bind), bind, offload)
        else:
            self._open(socket.AF_INET, "", offload)
            with contextlib.suppress(OSError):  # no IPv6 on this host
                self._open(socket.AF_INET6, "", offload)
        self._by_version = {sock.family == socket.AF_INET6: sock for sock in self.sockets}

    def _open(self, family: socket.AddressFamily, host: str, offload: bool) -> None:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_SIZE)
            sock.bind((host, 0))
        except OSError as error:
            sock.close()
            if host:
                raise UsageError(f"--bind {host}: this host has no such address ({error.strerror}).") from error
            raise
        self.sockets.append(_carrier(sock, offload))

    @property
    def ports(self) -> dict[int, int]:
        """IP version -> local port."""
        return {6 if sock.family == socket.AF_INET6 else 4: sock.sock.getsockname()[1] for sock in self.sockets}

    def send(self, transmit: Transmit) -> None:
        sock = self._by_version.get(":" in transmit.address[0])
        if sock is not None:
            sock.send(transmit)

    def send_datagram(self, data: bytes, address: Address) -> None:
        """One datagram, from any thread. Raises OSError."""
        sock = self._by_version.get(":" in address[0])
        if sock is not None:
            sock.sock.sendto(data, address)

    def max_datagram_size(self, address: Address) -> int:
        """The largest UDP payload that the interface towards `address` takes."""
        family = _family(address[0])
        level, option = (socket.IPPROTO_IPV6, IPV6_MTU) if family == socket.AF_INET6 else (socket.IPPROTO_IP, IP_MTU)
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect(address)
                mtu = probe.getsockopt(level, option)
        except OSError:  # another system, which does not tell: what Ethernet takes
            mtu = 1500
        return min(MAX_TRAIN_SIZE, mtu - UDP_OVERHEAD[family])

    @property
    def receive_buffer(self) -> int:
        """Bytes that may safely wait in a socket: half of what the kernel grants, since it counts its own overhead."""
        return min(sock.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) for sock in self.sockets) // 2

    def counters(self) -> dict[str, float]:
        return {f"socket, {what}": n for sock in self.sockets for what, n in sock.counters.items()}

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


def _family(host: str) -> socket.AddressFamily:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError as error:
        raise UsageError(f"{host!r} is no IP address.") from error
    return socket.AF_INET6 if version == 6 else socket.AF_INET


def _carrier(sock: socket.socket, offload: bool) -> PortableSocket:
    if offload and sys.platform == "linux":
        from udpsend.net.linux import LinuxSocket

        try:
            return LinuxSocket(sock)
        except OSError:  # a kernel before 5.0
            pass
    return PortableSocket(sock)
