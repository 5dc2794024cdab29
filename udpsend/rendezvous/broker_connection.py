"""The byte stream to a broker: TCP, then TLS, ready for paho-mqtt, which speaks WebSocket and MQTT over it.

1. `resolve` has the name looked up, `connect` tries its addresses in turn, `start_tls` checks the certificate. The last
   two tell `hold` each socket before they wait for it, so that another thread can end the waiting, and leave no socket
   open where they fail.
2. `HandshakeSocket` lies under paho's WebSocket, whose own timeouts are per byte: the handshake as a whole gets a
   deadline and a size.
3. `FilteredStream` lies between paho and everything else: only packets that pass the filter come up.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from udpsend.errors import BadPacket
from udpsend.net.names import AddressInfo, look_up
from udpsend.net.segments import keep_segments_small
from udpsend.rendezvous.broker_url import BrokerUrl
from udpsend.rendezvous.mqtt_packets import PacketFilter
from udpsend.unreachable import refusal

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike

MAX_ADDRESSES = 4  # of one name that are tried
READ_SIZE = 16_384  # the largest TLS record, so that none is left half read
MAX_HANDSHAKE_SIZE = 16_384
MAX_FRAME_BUFFER = 1 << 20  # of a WebSocket frame, which paho keeps until its end

Hold = Callable[[socket.socket], None]


def resolve(url: BrokerUrl) -> Sequence[AddressInfo]:
    """The first addresses of the broker's name. Takes as long as the system's resolver does, which is no time of the
    broker's: where the first name server is dead, it is 5 s for each look-up. Raises OSError."""
    return look_up(url.host, url.port, socket.SOCK_STREAM)[:MAX_ADDRESSES]


def connect(addresses: Sequence[AddressInfo], deadline: float, hold: Hold) -> socket.socket:
    """A TCP connection. Raises OSError, soon after `deadline` at the latest."""
    failure: OSError = TimeoutError()
    for index, (family, kind, protocol, _, address) in enumerate(addresses):
        share = (deadline - time.monotonic()) / (len(addresses) - index)
        if share <= 0:
            break
        connection = socket.socket(family, kind, protocol)
        try:
            hold(connection)
            connection.settimeout(share)
            keep_segments_small(connection)
            connection.connect(address)
            # Small messages follow one another: Nagle's algorithm and a delayed acknowledgement would cost 40 ms each.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


def start_tls(
    connection: socket.socket, url: BrokerUrl, context: ssl.SSLContext | None, deadline: float, hold: Hold
) -> ssl.SSLSocket:
    """TLS over `connection`, which belongs to the result or is closed. `context` None: the system's certificates.
    Raises OSError."""
    tls = (context or ssl.create_default_context()).wrap_socket(
        connection, server_hostname=url.host, do_handshake_on_connect=False
    )
    try:
        hold(tls)
        tls.settimeout(max(0.001, deadline - time.monotonic()))
        tls.do_handshake()
    except ConnectionResetError as error:  # a plain port, for which our hello was nonsense
        tls.close()
        raise ssl.SSLEOFError("hung up") from error
    except BaseException:
        tls.close()
        raise
    return tls


class HandshakeSocket:
    """A socket that until its first `setblocking`, which paho does after the handshake, obeys `deadline`."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline: float | None = deadline
        self._received = 0

    def recv(self, size: int) -> bytes:
        if self._deadline is not None:
            self._connection.settimeout(max(0.001, self._deadline - time.monotonic()))
        data = self._connection.recv(size)
        self._received += len(data)
        if self._deadline is not None and self._received > MAX_HANDSHAKE_SIZE:
            raise ConnectionResetError("its WebSocket handshake does not end")
        return data

    def send(self, buffer: bytes | bytearray) -> int:
        return self._connection.send(buffer)

    def settimeout(self, timeout: float) -> None:
        """paho's 5 seconds per byte: not taken over."""

    def setblocking(self, flag: bool) -> None:
        self._deadline = None
        self._connection.setblocking(flag)

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        self._connection.close()


class FilteredStream:
    """What paho takes for its socket: bytes of whole packets that passed the filter."""

    refusal = ""
    """Why the broker let nobody in, where it says so after the handshake, as TLS 1.3 does; paho keeps no reasons."""

    def __init__(self, stream: SocketLike, passed: PacketFilter) -> None:
        self._stream = stream
        self._passed = passed

    def recv(self, buffer_size: int) -> bytes:
        if not self._passed:
            try:
                data = self._stream.recv(READ_SIZE)
            except ssl.SSLError as error:
                self.refusal = refusal(error)
                raise
            if not data:
                return b""
            if len(getattr(self._stream, "_readbuffer", b"")) > MAX_FRAME_BUFFER:
                raise ConnectionResetError("a WebSocket frame that is too long")
            try:
                self._passed.feed_untrusted(data, time.monotonic())
            except BadPacket as error:
                raise ConnectionResetError(str(error)) from error
        if not self._passed:
            raise BlockingIOError
        return self._passed.take(buffer_size)

    def has_buffered(self) -> bool:
        return bool(self._passed)

    def send(self, buffer: bytes | bytearray) -> int:
        try:
            return self._stream.send(buffer)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError:  # who has hung up may have said why, and that it did is read after that
            return len(buffer)

    def setblocking(self, flag: bool) -> None:
        self._stream.setblocking(flag)

    def fileno(self) -> int:
        return self._stream.fileno()

    def close(self) -> None:
        self._stream.close()
