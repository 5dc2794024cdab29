"""Asks a STUN server for this side's address as the internet sees it, on the very socket that will carry the file.

1. The server's name is resolved, in a thread of its own that is not waited for for ever. That is no time of the
   server's, and a server that is not found has not been asked: it is none that does not answer.
2. IPv4: pystun3's `stun_test` (RFC 3489) runs on `_SocketFacade`, which looks like a socket to it: what it sends goes
   out through the driver, what it receives is what the driver saw arrive with its transaction id.
3. Where pystun3 gets no answer, or none that it can read, and for IPv6: a Binding request of RFC 8489 in aioice's
   codec, sent again after 0.25, 0.5, 1 ... seconds. A late answer to step 2 still counts.

The driver reads the socket and hands in every datagram that looks like STUN (`datagram_received`), because peers may
be probing on the same socket already. An answer is known by its transaction id, which only the server has seen;
everything else is ignored. What pystun3 2.0.0 cannot do, and what is done about it here:

- it sends up to four times to a silent server     the facade sends as often as the time of step 2 allows
- it reads attributes as if never padded, and      it is only given answers whose attributes are whole multiples of
  every address as IPv4                            four bytes and whose MAPPED-ADDRESS is IPv4
- KeyError on unknown message types, ValueError    it is only given Binding responses to its own request, and every
  on truncated ones                                exception of it is an answer that it could not read
- its tables are empty until get_nat_type ran      `_initialize()` is called first
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from udpsend.errors import BadPacket, UsageError
from udpsend.wire.datagram import Address

DEFAULT_PORT = 3478
DEFAULT_TIMEOUT = 3.0  # seconds
RESOLVE_TIMEOUT = 11.0  # seconds; where the first name server is dead it is 5 for a look-up, and 10 where it is alone

RFC3489_SHARE = 0.5  # seconds for step 2 (at most a third of the whole): five times a typical round trip
RFC3489_RESEND = 0.25  # seconds
RFC8489_RESEND = 0.25  # first of a doubling series; RFC 8489 (6.2.1) says 0.5 where nothing is known of the round trip

MAX_ANSWER_SIZE = 1500
MAX_WAITING = 16  # answers that were not read yet; a server sends one per request

BINDING_RESPONSE = 0x0101
HEADER_SIZE = 20
MAPPED_ADDRESS = 0x0001
FAMILY_IPV4 = 1

_HOPELESS = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EBADF}


class StunError(Exception):
    """The server told no address: it is silent, not to be found, or does not make sense. The text says which."""


class NotAsked(StunError):
    """Nothing was sent: the server has no address, or its name could not be resolved."""


def parse_stun_server(text: str) -> tuple[str, int]:
    """(host, port) of `host`, `host:port`, `[IPv6]` or `[IPv6]:port`. Raises UsageError."""
    host, port = text, str(DEFAULT_PORT)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise _bad_server(text)
        port = rest[1:] or port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not host or not host.isprintable() or " " in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise _bad_server(text)
    return host, int(port)


def _bad_server(text: str) -> UsageError:
    return UsageError(f"{text!r} is no STUN server: give HOST:PORT, for example stun.example.org:3478.")


class StunClient:
    """One server asked over one socket. `query` blocks, so it runs in a thread; the driver keeps reading the socket."""

    def __init__(self, server: str, send: Callable[[bytes, Address], None], family: int = socket.AF_INET) -> None:
        """`send` is the driver's: thread-safe, to the numeric address given. `family` is that of the socket.
        Raises UsageError if `server` is not HOST:PORT."""
        self.server = server
        self._host, self._port = parse_stun_server(server)
        self._send = send
        self.family = socket.AddressFamily(family)
        self._answers: queue.Queue[bytes] = queue.Queue(MAX_WAITING)
        self._transactions: set[bytes] = set()

    def datagram_received(self, data: bytes) -> bool:
        """From the driver, on any thread. Keeps an answer to a request of ours, which only who saw that can give, and
        drops anything else. Whether it was one."""
        is_answer = HEADER_SIZE <= len(data) <= MAX_ANSWER_SIZE and bytes(data[4:HEADER_SIZE]) in self._transactions
        if is_answer:
            with contextlib.suppress(queue.Full):
                self._answers.put_nowait(bytes(data))
        return is_answer

    def query(self, timeout: float = DEFAULT_TIMEOUT) -> Address:
        """Our address as the server sees it, `timeout` seconds after its name is resolved at the latest. Raises
        StunError."""
        server = self._resolve()
        deadline = time.monotonic() + timeout
        address = None
        if self.family == socket.AF_INET:
            share = min(RFC3489_SHARE, timeout / 3)
            address = self._ask_with_pystun3(server, min(deadline, time.monotonic() + share))
        return address or self._ask_with_aioice(server, deadline)

    def _resolve(self) -> Address:
        try:
            ip = ipaddress.ip_address(self._host)
        except ValueError:
            return _resolve_name(self._host, self._port, self.family)
        if (ip.version == 6) != (self.family == socket.AF_INET6):
            raise NotAsked(f"no IPv{4 if ip.version == 6 else 6} address")
        return (self._host, self._port)

    def transmit(self, request: bytes, server: Address) -> None:
        """Sends a request and remembers its transaction id."""
        self._transactions.add(request[4:HEADER_SIZE])
        try:
            self._send(request, server)
        except OSError as error:
            if error.errno in _HOPELESS:
                raise StunError(f"cannot be sent to: {error.strerror}") from error

    def next_answer(self, until: float) -> bytes | None:
        """The next answer to any of our requests, or None at `until`."""
        try:
            return self._answers.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return None

    def _ask_with_pystun3(self, server: Address, deadline: float) -> Address | None:
        import stun  # only the peers need it, and later

        facade = _SocketFacade(self, server, deadline)
        stun._initialize()
        try:
            result: dict[str, Any] = stun.stun_test(facade, *server, "", 0)
            return checked_address_untrusted(result["ExternalIP"], result["ExternalPort"], socket.AF_INET)
        except StunError:
            raise
        except Exception:  # pystun3 raises what its arithmetic on hostile bytes raises; step 3 follows
            return None

    def _ask_with_aioice(self, server: Address, deadline: float) -> Address:
        before = time.monotonic()
        from aioice import stun  # slow, and pystun3 is often enough

        # Not the server's time: 2.4 s on two processors that thirty other peers used, and the answer was there.
        deadline += time.monotonic() - before
        request = bytes(stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST))
        resend, wait, problem = time.monotonic(), RFC8489_RESEND, "no answer"
        while (now := time.monotonic()) < deadline:
            if now >= resend:
                self.transmit(request, server)
                resend, wait = now + wait, wait * 2
            answer = self.next_answer(min(resend, deadline))
            if answer is None:
                continue
            try:
                return _read_answer_untrusted(answer, answer[4:HEADER_SIZE] == request[4:HEADER_SIZE], self.family)
            except BadPacket as error:
                problem = f"an answer that makes no sense ({error})"
        raise StunError(problem)


class _SocketFacade:
    """What `stun_test` needs of a socket: `sendto` and `recvfrom`, with timeouts of their own."""

    def __init__(self, client: StunClient, server: Address, deadline: float) -> None:
        self._client = client
        self._server = server
        self._deadline = deadline

    def sendto(self, data: bytes, address: Address) -> int:
        if time.monotonic() >= self._deadline:
            raise TimeoutError  # not caught by stun_test: ends its four tries
        self._client.transmit(data, self._server)
        return len(data)

    def recvfrom(self, size: int) -> tuple[bytes, Address]:
        """The next answer that pystun3 can read. An exception in here makes it send again."""
        answer = self._client.next_answer(min(self._deadline, time.monotonic() + RFC3489_RESEND))
        if answer is not None and _is_readable_by_pystun3(answer):
            return answer, self._server
        if answer is not None:
            self._client.datagram_received(answer)  # step 3 looks at it again
            self._deadline = 0.0  # and asking the old way again would only cost time
        raise TimeoutError


def _is_readable_by_pystun3(answer: bytes) -> bool:
    """A Binding response of attributes that need no padding, with an IPv4 MAPPED-ADDRESS."""
    if int.from_bytes(answer[:2]) != BINDING_RESPONSE or int.from_bytes(answer[2:4]) != len(answer) - HEADER_SIZE:
        return False
    position, mapped = HEADER_SIZE, False
    while position < len(answer):
        kind, length = (
            int.from_bytes(answer[position : position + 2]),
            int.from_bytes(answer[position + 2 : position + 4]),
        )
        if position + 4 + length > len(answer) or length % 4:
            return False
        if kind == MAPPED_ADDRESS:
            if length != 8 or answer[position + 5] != FAMILY_IPV4:
                return False
            mapped = True
        position += 4 + length
    return mapped


def _read_answer_untrusted(answer: bytes, is_rfc8489: bool, family: int) -> Address:
    """The address in a Binding response. `is_rfc8489`: it answers a request with the magic cookie; XOR-MAPPED-ADDRESS
    in an answer to any other may have been made with something else. Raises BadPacket."""
    from aioice import stun

    try:
        message = stun.parse_message(answer)
    except Exception as error:  # ValueError where it checks, struct.error and others where it does not
        raise BadPacket("unreadable") from error
    if message.message_method != stun.Method.BINDING or message.message_class != stun.Class.RESPONSE:
        raise BadPacket(f"error {message.error_code}" if message.error_code else "no Binding response")
    names = ("XOR-MAPPED-ADDRESS", "MAPPED-ADDRESS") if is_rfc8489 else ("MAPPED-ADDRESS",)
    for name in names:
        if name in message.attributes:
            host, port = message.attributes[name]
            return checked_address_untrusted(host, port, family)
    raise BadPacket("no address")


def checked_address_untrusted(host: str | None, port: int | None, family: int) -> Address:
    """The address if somebody could be reached there. Raises BadPacket."""
    try:
        ip = ipaddress.ip_address(host or "")
    except ValueError as error:
        raise BadPacket("no address") from error
    if (ip.version == 6) != (family == socket.AF_INET6):
        raise BadPacket("address of the other family")
    if ip.is_multicast or ip.is_unspecified or (ip.version == 4 and ip.is_reserved):
        raise BadPacket("address that nobody has")
    if not port or not 0 < port < 65536:
        raise BadPacket("port")
    return (str(ip), port)


def _resolve_name(host: str, port: int, family: socket.AddressFamily) -> Address:
    """As `look_up`. Raises NotAsked, after RESOLVE_TIMEOUT at the latest: the thread that looks is then left behind."""
    found: queue.SimpleQueue[Address | None] = queue.SimpleQueue()
    threading.Thread(
        target=lambda: found.put(look_up(host, port, family)), name="udpsend-stun-name", daemon=True
    ).start()
    try:
        address = found.get(timeout=RESOLVE_TIMEOUT)
    except queue.Empty:
        raise NotAsked("its name could not be resolved in time") from None
    if address is None:
        raise NotAsked(f"its name has no {'IPv6' if family == socket.AF_INET6 else 'IPv4'} address")
    return address


def look_up(host: str, port: int, family: socket.AddressFamily) -> Address | None:
    """The first address of `host` in `family`. Blocks, without a network for half a minute."""
    try:
        entries = socket.getaddrinfo(host, port, family, socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return None
    return (str(entries[0][4][0]), port) if entries else None
