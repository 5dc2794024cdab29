"""Asks all STUN servers at once, on the session's own socket, in threads; and again when another path is looked for.

Answers come by `call_soon`, in the loop of the driver. `on_known` is called when nothing more is to be expected that
would matter: two servers at different addresses have answered for IPv4, or all have or are silent.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence

from udpsend.events import PublicAddress
from udpsend.rendezvous.stun import NotAsked, StunClient, StunError, parse_stun_server
from udpsend.wire.datagram import Address

ENOUGH = 2  # answers that tell what a NAT does

Seen = dict[str, Address | None]
"""By the name of the server: this side's IPv4 address as it saw it, or None if it did not answer. Who could not be
asked is not there."""


class StunRound:
    def __init__(
        self,
        servers: Sequence[str],
        send: Callable[[bytes, Address], None],
        call_soon: Callable[[Callable[[], None]], None],
        on_address: Callable[[PublicAddress], None],
        on_known: Callable[[Seen], None],
    ) -> None:
        self._servers = servers
        self._send = send
        self._call_soon = call_soon
        self._on_address = on_address
        self._on_known = on_known
        self._clients: list[StunClient] = []
        self._number = 0

    def ask(self, families: Sequence[int]) -> None:
        """Another round; answers to earlier ones are not looked at any more. Raises UsageError."""
        self._number += 1
        self._seen: Seen = {}
        self._known = False
        self._clients = [StunClient(server, self._send, family) for family in families for server in self._servers]
        self._waiting = sum(client.family == socket.AF_INET for client in self._clients)
        for client in self._clients:
            query = (client, self._number)
            threading.Thread(target=self._query, args=query, name="udpsend-stun", daemon=True).start()
        self._settle()

    def datagram_received(self, datagram: bytes) -> bool:
        """Whatever looks like STUN, from the driver. Whether it is an answer to what was asked in this round."""
        return any(client.datagram_received(datagram) for client in self._clients)

    def _query(self, client: StunClient, number: int) -> None:
        was_asked = True
        try:
            public = PublicAddress(client.server, client.query())
        except StunError as error:
            public = PublicAddress(client.server, None, str(error))
            was_asked = not isinstance(error, NotAsked)
        self._call_soon(lambda: self._answered(public, client.family, was_asked, number))

    def _answered(self, public: PublicAddress, family: int, was_asked: bool, number: int) -> None:
        if number != self._number:
            return
        self._on_address(public)
        if family == socket.AF_INET:
            self._waiting -= 1
            host = parse_stun_server(public.server)[0]  # two ports of one host are one server
            if was_asked:
                self._seen[host] = public.address or self._seen.get(host)
            self._settle()

    def _settle(self) -> None:
        answers = sum(address is not None for address in self._seen.values())
        if not self._known and (self._waiting == 0 or answers >= ENOUGH):
            self._known = True
            self._on_known(self._seen)
