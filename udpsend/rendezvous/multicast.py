"""The local network and this host as a mailbox: multicast to a group of our own (`multicast_groups.py`), over IPv4 and
IPv6, which routers do not pass on.

    0..3    b"UDPS"
    4       1, the version
    5..20   SHA-256 of "udpsend lan 1 " and the topic, cut to 16 bytes
    21..    the message, at most 8 KiB

1. A socket for each IP version that the host has. Several processes on one host may have one, and each receives all.
2. It joins the group on every interface, loopback included, by number, so that no route is needed: two peers on one
   host meet without any network. The interfaces are looked at again every few seconds: Wi-Fi may come later.
3. A message goes out on each interface, over both versions; the kernel hands it to the others on this host. Who gets it
   twice takes it once (`machine.py`).
4. What comes is counted against a limit after its topic was compared, so that other pairs cost this one nothing.

A VPN may be an interface on which nothing of this is wanted: `interfaces`, or the environment variable
UDPSEND_LAN_INTERFACES (addresses with commas between), restricts it to the interfaces with these addresses.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Sequence

from udpsend.errors import BadPacket
from udpsend.rendezvous.mailbox import (
    BURST,
    CLOSE_TIMEOUT,
    LOCAL_NETWORK,
    MAX_MESSAGES_PER_SECOND,
    OnMessage,
    OnState,
    RateLimit,
)
from udpsend.rendezvous.messages import MAX_MESSAGE_SIZE
from udpsend.rendezvous.multicast_groups import Group, IPv4Group, IPv6Group, interfaces_by_version

ENVIRONMENT = "UDPSEND_LAN_INTERFACES"

MAGIC = b"UDPS\x01"
TOPIC_SIZE = 16
OVERHEAD = len(MAGIC) + TOPIC_SIZE
RESCAN = 5.0  # seconds
BURST_PER_WAKE = 64  # datagrams read before looking at anything else


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
        self.name = LOCAL_NETWORK
        self._topic = topic
        self._on_message = on_message
        self._on_state = on_state
        self._allowed = allowed
        self._state: bool | None = None
        self._groups: list[Group] = []
        self._limit = RateLimit(MAX_MESSAGES_PER_SECOND, BURST)
        self._sending = threading.Lock()
        self._closed = threading.Event()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="udpsend-lan", daemon=True)
        self._thread.start()

    def publish(self, message: bytes) -> None:
        """Goes out before this returns: a datagram to a socket that does not block."""
        datagram = frame(self._topic, message)
        with self._sending:
            if len(message) <= MAX_MESSAGE_SIZE:
                for group in self._groups:
                    group.send(datagram)

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
                groups: list[Group] = []
                try:
                    groups = open_groups()
                    with selectors.DefaultSelector() as selector:
                        self._serve(groups, selector)
                except OSError as error:
                    self._report(False, error.strerror or str(error))
                    self._closed.wait(RESCAN)
                finally:
                    with self._sending:
                        self._groups = []
                    for group in groups:
                        group.socket.close()

    def _serve(self, groups: list[Group], selector: selectors.BaseSelector) -> None:
        for group in groups:
            selector.register(group.socket, selectors.EVENT_READ, group)
        selector.register(self._wake_reader, selectors.EVENT_READ)
        rescan = 0.0
        while not self._closed.is_set():
            now = time.monotonic()
            if now >= rescan:
                self._join_all(groups)
                rescan = now + RESCAN
            for key, _ in selector.select(rescan - now):
                if isinstance(key.data, Group):
                    self._receive(key.data)

    def _join_all(self, groups: list[Group]) -> None:
        found = interfaces_by_version(self._allowed)
        problems = [""]
        with self._sending:
            problems += [group.join(found[group.family]) for group in groups]
            self._groups = groups
        is_up = any(group.joined for group in groups)
        nowhere = f"no interface with an{' allowed' if self._allowed is not None else ''} address"
        self._report(is_up, "" if is_up else max(problems) or nowhere)

    def _receive(self, group: Group) -> None:
        for _ in range(BURST_PER_WAKE):
            try:
                datagram = group.receive(OVERHEAD + MAX_MESSAGE_SIZE + 1)
            except BlockingIOError:
                return
            if datagram is None:
                continue
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


def open_groups() -> list[Group]:
    """One for each IP version that this host has. Raises OSError if it has neither."""
    groups: list[Group] = []
    problem: OSError | None = None
    for kind in (IPv4Group, IPv6Group):
        try:
            groups.append(kind())
        except OSError as error:
            problem = problem or error
    if not groups and problem is not None:
        raise problem
    return groups
