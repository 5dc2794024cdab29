"""Asks the router for a port mapping, renews it while the session lives, and has it taken away at the end.

1. PCP, which most routers of today speak. One that knows only NAT-PMP says so, and is asked that way.
2. If there is no answer, or a no: UPnP IGD.
3. `on_mapping` is called with the external address, and again if it changes.
4. At half of the lifetime granted the mapping is renewed. `close` has it deleted.

All of it in a thread that nobody waits for. Every answer is untrusted, and a mapping only ever adds a candidate, which
is probed like any other.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from udpsend.punching.gateway import Gateway
from udpsend.punching.mappers import LIFETIME, IgdMapper, Mapper, PcpMapper, PortMapError, PortMapping, RouterPorts
from udpsend.wire.datagram import Address

MIN_RENEWAL = 15.0  # seconds between two requests, however short a lifetime is granted
MAX_RENEWAL = 1800.0  # seconds
CLOSE_TIMEOUT = 1.0  # seconds


class PortMapper:
    """`on_mapping` and `on_failure` are called from the mapper's thread, never after `close` has been called."""

    def __init__(
        self,
        gateway: Gateway,
        port: int,
        on_mapping: Callable[[PortMapping], None],
        on_failure: Callable[[str], None],
        ports: RouterPorts | None = None,
    ) -> None:
        self._gateway = gateway
        self._port = port
        self._ports = ports or RouterPorts()
        self._on_mapping = on_mapping
        self._on_failure = on_failure
        self._closed = threading.Event()
        self._has_mapping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="udpsend-portmap", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Has the mapping deleted, within CLOSE_TIMEOUT seconds; else it ends with its lifetime. Where there is none
        yet, the router's silence is not waited for: what it still grants is deleted by the thread, if that lives."""
        self._closed.set()
        if self._has_mapping.is_set():
            self._thread.join(CLOSE_TIMEOUT)

    def _run(self) -> None:
        try:
            mapper, mapping = self._find()
        except PortMapError as error:
            if not self._closed.is_set():
                self._on_failure(str(error))
            return
        self._has_mapping.set()
        try:
            self._keep(mapper, mapping)
        finally:
            with contextlib.suppress(PortMapError):  # then it ends with its lifetime
                mapper.release()

    def _find(self) -> tuple[Mapper, PortMapping]:
        problems = []
        for kind in (PcpMapper, IgdMapper):
            mapper: Mapper = kind(self._gateway, self._port, self._ports)
            if self._closed.is_set():
                break
            try:
                return mapper, mapper.obtain()
            except PortMapError as error:
                problems.append(str(error))
        raise PortMapError("; ".join(problems))

    def _keep(self, mapper: Mapper, mapping: PortMapping) -> None:
        told: Address | None = None
        while not self._closed.is_set():
            if mapping.address != told:
                told = mapping.address
                self._on_mapping(mapping)
            lifetime = mapping.lifetime or LIFETIME
            if self._closed.wait(min(MAX_RENEWAL, max(MIN_RENEWAL, lifetime / 2))):
                return
            try:
                mapping = mapper.obtain()
            except PortMapError:
                continue  # asked again at the same pace: it may have been restarting
