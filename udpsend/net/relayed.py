"""A connection to a relay as one more socket of the endpoint: what goes to addresses behind the relay leaves by it, and
what comes from there carries such addresses. The protocol is the machine's (`RelayMachine`, a TURN client).

`connect_relay` blocks, so it runs in a thread. A stream (TCP, TLS) takes what it can, the rest waits in a bounded queue
behind which datagrams are dropped, as in any router.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from udpsend.errors import BadPacket
from udpsend.net import clock
from udpsend.net.carrier import LOST, Carrier
from udpsend.net.names import look_up
from udpsend.net.segments import keep_segments_small
from udpsend.wire.datagram import Address, Arrival, Transmit
from udpsend.wire.relayed import peer_behind_relay, through_relay

CONNECT_TIMEOUT = 5.0  # seconds
READ_SIZE = 65_536  # bytes; no datagram is longer
MAX_QUEUE = 262_144  # bytes that wait for a stream; 0.2 s at 10 Mbit/s

_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class RelayMachine(Protocol):
    def messages_to_send(self) -> Iterable[bytes]: ...

    def wrap(self, payload: bytes, peer: Address, now: float) -> bytes | None: ...

    def message_received(self, data: bytes, now: float) -> tuple[bytes, Address] | None: ...

    def split_untrusted(self, buffer: bytearray) -> Iterator[bytes]: ...

    def next_timer(self) -> float | None: ...

    def timer_expired(self, now: float) -> None: ...

    def farewell(self) -> bytes | None: ...


def connect_relay(
    host: str, port: int, *, is_stream: bool, is_secure: bool, ca: Path | None, bind: str | None
) -> socket.socket:
    """Connected, and through the TLS handshake. Raises OSError (which ssl.SSLError is)."""
    kind = socket.SOCK_STREAM if is_stream else socket.SOCK_DGRAM
    problem: OSError = OSError("it has no address")
    for family, _, _, _, address in look_up(host, port, kind):
        connecting = socket.socket(family, kind)
        try:
            connecting.settimeout(CONNECT_TIMEOUT)
            if bind is not None:
                connecting.bind((bind, 0))
            if is_stream:
                keep_segments_small(connecting)
            connecting.connect(address)
            if is_stream:
                connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if is_secure:
                context = ssl.create_default_context(cafile=ca)
                return context.wrap_socket(connecting, server_hostname=host)
        except OSError as error:
            connecting.close()
            problem = error
        else:
            return connecting
    raise problem


class RelayedSocket(Carrier):
    def __init__(self, connected: socket.socket, machine: RelayMachine, *, is_stream: bool) -> None:
        super().__init__(connected)
        self.is_closed = False
        """The relay has hung up: nothing more goes or comes this way."""
        self._machine = machine
        self._is_stream = is_stream
        self._in = bytearray()
        self._out = bytearray()

    @property
    def has_pending(self) -> bool:
        """There is more to receive, which no select would show."""
        return super().has_pending or (isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0)

    def send(self, transmit: Transmit) -> None:
        """To an address behind the relay."""
        now, peer = clock.now(), peer_behind_relay(transmit.address)
        for datagram in transmit.datagrams():
            frame = self._machine.wrap(datagram, peer, now)
            if frame is None:
                self.counters["relay not ready"] += 1
            elif len(self._out) > MAX_QUEUE:
                self.counters["relay queue full"] += 1
            else:
                self._write(frame)
        self._say()

    def receive(self) -> Arrival | None:
        """As `Carrier.receive`. It reads once, and is None also where that brought nothing of a peer's: a relay that
        floods must not keep the loop here."""
        if not self._pending and (data := self._read()) is not None:
            now = clock.now()
            for frame in self._frames(data):
                came = self._machine.message_received(frame, now)
                if came is not None:
                    self._pending.append(Arrival.of([came[0]], through_relay(came[1])))
            self._say()
        return self._pending.popleft() if self._pending else None

    def turn(self, now: float) -> None:
        """Once in each turn of the loop: what is due, and what could not be written before."""
        timer = self._machine.next_timer()
        if timer is not None and now >= timer:
            self._machine.timer_expired(now)
        self._say()

    def close(self) -> None:
        last = self._machine.farewell()
        if last is not None:
            self._write(last)
        super().close()

    def _say(self) -> None:
        for message in self._machine.messages_to_send():
            self._write(message)
        if self._out:
            self._flush()

    def _frames(self, data: bytes) -> list[bytes]:
        if not self._is_stream:
            return [data]
        self._in += data
        try:
            return list(self._machine.split_untrusted(self._in))
        except BadPacket:
            self._hung_up()
            return []

    def _read(self) -> bytes | None:
        if self.is_closed:
            return None
        try:
            data = self.sock.recv(READ_SIZE)
        except _NOT_NOW:
            return None
        except OSError as error:
            if self._is_stream or error.errno not in LOST:
                self._hung_up()
            return None
        if not data and self._is_stream:
            self._hung_up()
            return None
        return data

    def _write(self, frame: bytes) -> None:
        if self._is_stream:
            self._out += frame
            self._flush()
            return
        try:
            self.sock.send(frame)
        except OSError as error:
            self.counters[type(error).__name__] += 1

    def _flush(self) -> None:
        try:
            while self._out and not self.is_closed:
                del self._out[: self.sock.send(self._out)]
        except _NOT_NOW:
            return
        except OSError:
            self._hung_up()

    def _hung_up(self) -> None:
        self.is_closed = True
        self._out.clear()
