"""The rendezvous server of `udpsend serve`: an MQTT broker and a STUN responder, in one thread with one asyncio loop.

1. `start` opens the sockets in the caller's thread, so that a port that is taken is an error there.
2. The thread runs the broker (`broker.py`, amqtt) on the TCP sockets and the responder (`responder.py`) on the UDP
   ones, until `stop`.

It knows neither codes nor keys nor files: it passes on sealed messages, and tells askers their own address.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import shlex
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, cast

from udpsend.errors import UsageError
from udpsend.rendezvous.mailbox import RateLimit
from udpsend.serve.responder import respond_untrusted

ANSWERS_PER_SECOND = 5000.0  # of the responder in all, so that it is a poor mirror
START_TIMEOUT = 10.0  # seconds
STOP_TIMEOUT = 5.0  # seconds
BACKLOG = 128
EPHEMERAL_TRIES = 16  # for a port that is free on all addresses


class Server:
    """Serves from `start` to `stop`, or inside `with`."""

    def __init__(self, host: str, mqtt_port: int, stun_port: int) -> None:
        """`host`: the address or name to listen on, "" for all addresses. A port of 0 is chosen by the system; after
        `start` the attributes tell which."""
        self.host = host
        self.mqtt_port = mqtt_port
        self.stun_port = stun_port
        self.stun_answers = 0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    @property
    def mqtt_bytes(self) -> int:
        """Bytes that the broker has received from all clients."""
        return self._broker.bytes_received

    def start(self) -> None:
        """Returns when both services answer. Raises UsageError: amqtt is missing, a port is taken, no such address."""
        try:
            from udpsend.serve.broker import EmbeddedBroker  # amqtt is an extra
        except ImportError as error:
            # By this Python's pip: the one in PATH is another's where udpsend has an environment of its own (pipx).
            raise UsageError(
                "The rendezvous server needs the package amqtt, which is not installed:\n"
                f"{shlex.quote(sys.executable)} -m pip install 'udpsend[serve]'"
            ) from error
        with ExitStack() as opened:
            listeners, self.mqtt_port = _open(self.host, self.mqtt_port, socket.SOCK_STREAM, "--mqtt-port")
            for listener in listeners:
                opened.enter_context(listener)
            responders, self.stun_port = _open(self.host, self.stun_port, socket.SOCK_DGRAM, "--stun-port")
            opened.pop_all()
        self._broker = EmbeddedBroker(listeners)
        self._failure: BaseException | None = None
        started = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(listeners, responders, started), name="udpsend-serve", daemon=True
        )
        self._thread.start()
        started.wait(START_TIMEOUT)
        if self._failure is not None:
            self.stop()
            raise self._failure

    def stop(self) -> None:
        """Ends both services and waits for it. May be called more than once."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._loop is not None and self._stopping is not None and thread.is_alive():
            try:
                self._loop.call_soon_threadsafe(self._stopping.set)
            except RuntimeError:  # the loop ended between the two lines
                return
        thread.join(STOP_TIMEOUT)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self, listeners: list[socket.socket], responders: list[socket.socket], started: threading.Event) -> None:
        with ExitStack() as opened:
            for connection in (*listeners, *responders):
                opened.enter_context(connection)
            try:
                asyncio.run(self._serve(responders, started))
            except Exception as error:  # shown by `start`, which waits for it
                self._failure = error
            finally:
                started.set()

    async def _serve(self, responders: list[socket.socket], started: threading.Event) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        limit = RateLimit(ANSWERS_PER_SECOND, ANSWERS_PER_SECOND)
        await self._broker.start()
        transports = [
            (await self._loop.create_datagram_endpoint(lambda: _Responder(self, limit), sock=responder))[0]
            for responder in responders
        ]
        started.set()
        await self._stopping.wait()
        for transport in transports:
            transport.close()
        await self._broker.stop()


class _Responder(asyncio.DatagramProtocol):
    def __init__(self, server: Server, limit: RateLimit) -> None:
        self._server = server
        self._limit = limit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)
        host, port = transport.get_extra_info("sockname")[:2]
        self._local = None if ipaddress.ip_address(host).is_unspecified else (host, port)

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        answer = respond_untrusted(data, (source[0], source[1]), self._local)
        if answer is not None and self._limit.take(time.monotonic()):
            self._server.stun_answers += 1
            self._transport.sendto(answer, source)


def _open(host: str, port: int, kind: socket.SocketKind, option: str) -> tuple[list[socket.socket], int]:
    """Sockets on all addresses of `host`, with one port. Raises UsageError."""
    try:
        found = socket.getaddrinfo(host or None, port, type=kind, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"{host!r} is no address of this machine: give --host an address to listen on.") from error
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    for tries_left in reversed(range(EPHEMERAL_TRIES if port == 0 else 1)):
        try:
            return _bind_all(addresses, port, kind)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and tries_left:
                continue
            if error.errno == errno.EADDRINUSE:
                problem = f"Port {port} is taken by another program: stop it, or choose another with {option}."
            elif error.errno == errno.EACCES:
                problem = f"Port {port} is not allowed to this user: choose one above 1023 with {option}."
            else:
                problem = f"{host!r} is no address of this machine ({error.strerror}): see --host."
            raise UsageError(problem) from error
    raise AssertionError("unreachable")


def _bind_all(
    addresses: Sequence[tuple[socket.AddressFamily, Any]], port: int, kind: socket.SocketKind
) -> tuple[list[socket.socket], int]:
    """Raises OSError, and leaves no socket open then."""
    opened: list[socket.socket] = []
    unsupported: OSError | None = None
    try:
        for family, address in addresses:
            try:
                bound = socket.socket(family, kind)
            except OSError as error:  # a kernel without IPv6 resolves its addresses all the same
                unsupported = error
                continue
            opened.append(bound)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                # For the connections too, which asyncio leaves as they are where the listener names no protocol.
                bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                bound.bind((address[0], port, *address[2:]))
            except OSError as error:
                if len(addresses) == 1 or error.errno != errno.EADDRNOTAVAIL:
                    raise
                opened.pop().close()  # IPv6 is switched off on this machine
                unsupported = error
                continue
            if kind == socket.SOCK_STREAM:
                bound.listen(BACKLOG)
            bound.setblocking(False)
            port = bound.getsockname()[1]
        if not opened:
            raise unsupported or OSError(errno.EADDRNOTAVAIL, "no address")
    except OSError:
        for bound in opened:
            bound.close()
        raise
    return opened, port
