"""The relay of a session, where one was asked for: connect in a thread, allocate, tell the candidate, keep it alive."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from socket import socket

from udpsend.net import clock
from udpsend.net.relayed import RelayedSocket, connect_relay
from udpsend.net.udp import UdpEndpoint
from udpsend.punching.relay import Allocated, RelayLost, TurnClient
from udpsend.punching.relay_url import parse_relay_url
from udpsend.unreachable import describe
from udpsend.wire.datagram import Address, Arrival

MAX_PENDING = 256  # arrivals taken in one turn


class Relaying:
    """`on_address(address, why_not)` is called in the loop: the relayed address, or None and a reason."""

    def __init__(
        self,
        url: str,
        bind: str | None,
        endpoint: UdpEndpoint,
        call_soon: Callable[[Callable[[], None]], None],
        on_address: Callable[[Address | None, str], None],
    ) -> None:
        """Raises UsageError if `url` is not a relay's."""
        self._url = parse_relay_url(url)
        self.name = self._url.name
        self._bind = bind
        self._endpoint = endpoint
        self._call_soon = call_soon
        self._on_address = on_address
        self._client: TurnClient | None = None
        self._socket: RelayedSocket | None = None
        self.is_over = False
        """It was closed, or has failed: nothing more is heard of it."""
        threading.Thread(target=self._connect, name="udpsend-relay", daemon=True).start()

    def _connect(self) -> None:
        url = self._url
        try:
            connected = connect_relay(
                url.host, url.port, is_stream=url.is_stream, is_secure=url.is_secure, ca=url.ca, bind=self._bind
            )
        except OSError as error:
            reason = f"it cannot be reached ({describe(error)})"
            self._call_soon(lambda: self._drop(reason))
            return
        self._call_soon(lambda: self._connected(connected))

    def _connected(self, connected: socket) -> None:
        if self.is_over:
            connected.close()
            return
        user, password = self._url.credentials(time.time())
        is_stream = self._url.is_stream
        self._client = TurnClient(user, password, clock.now(), secrets.token_bytes, is_stream=is_stream)
        self._socket = RelayedSocket(connected, self._client, is_stream=is_stream)
        self._endpoint.relay = self._socket

    def turn(self, now: float, received: Callable[[Arrival, float], None]) -> None:
        """Once in each turn of the loop. `received` takes what came through the relay and no select would show."""
        if self._socket is None or self._client is None:
            return
        self._socket.turn(now)
        for _ in range(MAX_PENDING):
            arrival = self._socket.receive() if self._socket.has_pending else None
            if arrival is None:
                break
            received(arrival, now)
        while (event := self._client.next_event()) is not None:
            match event:
                case Allocated(address):
                    self._on_address(address, "")
                case RelayLost(reason):
                    self._drop(reason)
                    return
        if self._socket.is_closed:
            self._drop("it has hung up")

    def _drop(self, reason: str) -> None:
        if not self.is_over:
            self.close()
            self._on_address(None, reason)

    def close(self) -> None:
        """Gives the allocation back."""
        self.is_over = True
        self._endpoint.relay = None
        if self._socket is not None:
            self._socket.close()
        self._socket = None
