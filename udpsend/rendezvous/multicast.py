"""The local network and this host as a mailbox: IPv4 multicast to GROUP, which routers do not pass on (TTL 1).

    0..3    b"UDPS"
    4       1, the version
    5..20   SHA-256 of "udpsend lan 1 " and the topic, cut to 16 bytes
    21..    the message, at most 8 KiB

1. One socket, bound to the group's address, so that nothing that was sent to this host alone comes in. Several
   processes on one host may bind it, and each receives all.
2. It joins the group on every interface, loopback included, by number, so that no route is needed: two peers on one
   host meet without any network. The interfaces are looked at again every few seconds: Wi-Fi may come later.
3. A message goes out on each interface, with that interface's address; the kernel hands it to the others on this host.
4. What comes is counted against a limit after its topic was compared, so that other pairs cost this one nothing.

A VPN may be an interface on which nothing of this is wanted: `interfaces`, or the environment variable
UDPSEND_LAN_INTERFACES (addresses with commas between), restricts it to the interfaces with these addresses.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Sequence

from udpsend.errors import BadPacket
from udpsend.rendezvous.mailbox import (
    BURST,
    CLOSE_TIMEOUT,
    MAX_MESSAGE_SIZE,
    MAX_MESSAGES_PER_SECOND,
    OnMessage,
    OnState,
    RateLimit,
)

NAME = "local network"
ENVIRONMENT = "UDPSEND_LAN_INTERFACES"

# The site-local block of RFC 2365 is free to use; "U" and "D". The port is below those that Linux gives out by itself.
GROUP = "239.255.85.68"
PORT = 28557

MAGIC = b"UDPS\x01"
TOPIC_SIZE = 16
OVERHEAD = len(MAGIC) + TOPIC_SIZE
MAX_INTERFACES = 32
RESCAN = 5.0  # seconds
BURST_PER_WAKE = 64  # datagrams read before looking at anything else

IP_MULTICAST_ALL = 49  # Linux: 0 asks for the groups that this socket joined, not for those that others did
LINUX = sys.platform == "linux"


def frame(topic: str, message: bytes) -> bytes:
    """The datagram that carries `message`."""
    return MAGIC + _topic_hash(topic) + message


def parse_frame_untrusted(topic: str, datagram: bytes) -> bytes:
    """The message of a datagram with our topic. Raises BadPacket."""
    if not datagram.startswith(MAGIC):
        raise BadPacket("not of udpsend")
    if not OVERHEAD < len(datagram) <= OVERHEAD + MAX_MESSAGE_SIZE:
        raise BadPacket("size")
    if datagram[len(MAGIC) : OVERHEAD] != _topic_hash(topic):
        raise BadPacket("another topic")
    return datagram[OVERHEAD:]


def _topic_hash(topic: str) -> bytes:
    return hashlib.sha256(b"udpsend lan 1 " + topic.encode()).digest()[:TOPIC_SIZE]


def open_multicast(
    topic: str, on_message: OnMessage, on_state: OnState, interfaces: Sequence[str] | None = None
) -> MulticastMailbox:
    """The mailbox on the interfaces with these addresses; None: on all. Never raises for what the network lacks."""
    return MulticastMailbox(topic, on_message, on_state, _restricted(interfaces))


def _restricted(interfaces: Sequence[str] | None) -> frozenset[str] | None:
    """The addresses that both the caller and the environment allow; None: all."""
    listed = frozenset(part.strip() for part in os.environ.get(ENVIRONMENT, "").split(",") if part.strip())
    if interfaces is None:
        return listed or None
    return frozenset(interfaces) & listed if listed else frozenset(interfaces)


class MulticastMailbox:
    def __init__(self, topic: str, on_message: OnMessage, on_state: OnState, allowed: frozenset[str] | None) -> None:
        self.name = NAME
        self._topic = topic
        self._on_message = on_message
        self._on_state = on_state
        self._allowed = allowed
        self._state: bool | None = None
        self._joined: dict[int, str] = {}  # address by number of interface
        self._limit = RateLimit(MAX_MESSAGES_PER_SECOND, BURST)
        self._sending = threading.Lock()
        self._socket: socket.socket | None = None
        self._closed = threading.Event()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="udpsend-lan", daemon=True)
        self._thread.start()

    def publish(self, message: bytes) -> None:
        """Goes out before this returns: a datagram to a socket that does not block."""
        datagram = frame(self._topic, message)
        with self._sending:
            if self._socket is None or len(message) > MAX_MESSAGE_SIZE:
                return
            for index, address in self._joined.items():
                # An interface may be down or gone, its queue full, a firewall in the way: the message is lost there.
                with contextlib.suppress(OSError):
                    self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, _on_interface(index, address))
                    self._socket.sendto(datagram, (GROUP, PORT))

    def renew(self) -> None:
        """It looks at the interfaces every RESCAN seconds anyway."""

    def close(self) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self._wake_writer.send(b"\0")
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSE_TIMEOUT)

    # All below: on the mailbox's thread.

    def _run(self) -> None:
        with self._wake_reader, self._wake_writer:
            while not self._closed.is_set():
                try:
                    with _open_socket() as opened, selectors.DefaultSelector() as selector:
                        self._serve(opened, selector)
                except OSError as error:
                    self._report(False, error.strerror or str(error))
                    self._closed.wait(RESCAN)
                finally:
                    with self._sending:
                        self._socket = None
                        self._joined.clear()

    def _serve(self, opened: socket.socket, selector: selectors.BaseSelector) -> None:
        selector.register(opened, selectors.EVENT_READ)
        selector.register(self._wake_reader, selectors.EVENT_READ)
        rescan = 0.0
        while not self._closed.is_set():
            now = time.monotonic()
            if now >= rescan:
                self._join_all(opened)
                rescan = now + RESCAN
            for key, _ in selector.select(rescan - now):
                if key.fileobj is opened:
                    self._receive(opened)

    def _join_all(self, opened: socket.socket) -> None:
        """Joins the group where it is not joined yet, and forgets interfaces that went away."""
        found = _interfaces(self._allowed)
        problem = f"no interface with {'an IPv4' if self._allowed is None else 'an allowed'} address"
        joined: dict[int, str] = {}
        for index, address in found.items():
            if self._joined.get(index) != address:
                try:
                    opened.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, _membership(index, address))
                except OSError as error:
                    if error.errno != errno.EADDRINUSE:  # joined before, by another address of the interface
                        problem = error.strerror or str(error)
                        continue
            joined[index] = address
        with self._sending:
            self._joined, self._socket = joined, opened
        self._report(bool(joined), "" if joined else problem)

    def _receive(self, opened: socket.socket) -> None:
        for _ in range(BURST_PER_WAKE):
            try:
                datagram = opened.recv(OVERHEAD + MAX_MESSAGE_SIZE + 1)
            except BlockingIOError:
                return
            try:
                message = parse_frame_untrusted(self._topic, datagram)
            except BadPacket:
                continue
            if self._limit.take(time.monotonic()) and not self._closed.is_set():
                self._on_message(message)

    def _report(self, up: bool, detail: str) -> None:
        if up != self._state and not self._closed.is_set():
            self._state = up
            self._on_state(self.name, up, detail)


def _open_socket() -> socket.socket:
    """Bound to the group, in company. Raises OSError."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT") and not LINUX:  # BSD and macOS want it; Linux would ask for the same user
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if LINUX:
            opened.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        opened.bind(("" if sys.platform == "win32" else GROUP, PORT))
        opened.setblocking(False)
    except BaseException:
        opened.close()
        raise
    return opened


def _interfaces(allowed: frozenset[str] | None) -> dict[int, str]:
    """An IPv4 address of each interface by its number, loopback first."""
    import ifaddr  # slow

    found: dict[int, str] = {}
    for adapter in ifaddr.get_adapters():
        for entry in adapter.ips:
            address = entry.ip
            if isinstance(address, str) and adapter.index is not None and (allowed is None or address in allowed):
                found.setdefault(adapter.index, address)
    in_order = sorted(found.items(), key=lambda item: not item[1].startswith("127."))
    return dict(in_order[:MAX_INTERFACES])


def _membership(index: int, address: str) -> bytes:
    return socket.inet_aton(GROUP) + _on_interface(index, address)[-8 if LINUX else -4 :]


def _on_interface(index: int, address: str) -> bytes:
    """`struct ip_mreqn` on Linux, where a number says more than an address; elsewhere the address alone."""
    if LINUX:
        return struct.pack("@4s4si", bytes(4), socket.inet_aton(address), index)
    return socket.inet_aton(address)
