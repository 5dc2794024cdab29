"""One way to ask a router for a port mapping each: PCP or NAT-PMP over UDP, UPnP IGD over HTTP. Both block, and both
speak to the gateway alone, from the address that it knows this host by.

The PyPI packages for this do not fit: `miniupnpc` (UPnP alone, parsing in C) goes wherever the router's description
leads it, and those for NAT-PMP are no longer kept. The binary protocols take a page (`pcp.py`), UPnP three calls
(`igd.py`).
"""

from __future__ import annotations

import http.client
import re
import secrets
import socket
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from msgspec import Struct

from udpsend.errors import BadPacket
from udpsend.punching import igd, pcp
from udpsend.punching.gateway import Gateway
from udpsend.wire.datagram import Address

LIFETIME = 600  # seconds asked for: what a killed process leaves behind is gone after ten minutes
RESENDS = (0.0, 0.15, 0.4, 0.8)  # a router on the local network answers in milliseconds
PATIENCE = 1.2  # seconds for one exchange of datagrams
HTTP_TIMEOUT = 2.0  # seconds
MAX_PORT_TRIES = 4  # of external ports, where a router does not choose itself

T = TypeVar("T")


class PortMapError(Exception):
    """No mapping. The text says why."""


class PortMapping(Struct, frozen=True):
    protocol: str
    """`PCP`, `NAT-PMP` or `UPnP`."""
    address: Address
    """Where this host can be reached from outside of the router."""
    lifetime: int
    """Seconds; 0 means for good, until it is deleted."""


class RouterPorts(Struct, frozen=True):
    pcp: int = pcp.PORT
    ssdp: int = igd.SSDP_PORT


class Mapper(Protocol):
    """One protocol, towards one router, for one port."""

    def obtain(self) -> PortMapping:
        """A new mapping, or the same one for longer. Raises PortMapError."""

    def release(self) -> None:
        """Raises PortMapError."""


class PcpMapper:
    """PCP, or NAT-PMP if the router says that it knows nothing else."""

    def __init__(self, gateway: Gateway, port: int, ports: RouterPorts) -> None:
        self._gateway = gateway
        self._port = port
        self._router = (gateway.address, ports.pcp)
        self._nonce = secrets.token_bytes(pcp.NONCE_SIZE)
        self._external = port
        self._is_nat_pmp = False

    def obtain(self) -> PortMapping:
        if not self._is_nat_pmp:
            request = pcp.pack_pcp_map(self._gateway.own, self._port, self._nonce, LIFETIME, self._external)
            try:
                granted = self._ask(request, lambda data: pcp.parse_pcp_map_untrusted(data, self._port, self._nonce))
            except pcp.OnlyNatPmp:
                self._is_nat_pmp = True
            else:
                return self._granted("PCP", granted.host or "", granted)
        host = self._ask(pcp.pack_nat_pmp_address(), pcp.parse_nat_pmp_address_untrusted)
        request = pcp.pack_nat_pmp_map(self._port, LIFETIME, self._external)
        return self._granted("NAT-PMP", host, self._ask(request, self._parse_nat_pmp))

    def release(self) -> None:
        if self._is_nat_pmp:
            self._ask(pcp.pack_nat_pmp_map(self._port, 0), lambda data: None)
        else:
            self._ask(pcp.pack_pcp_map(self._gateway.own, self._port, self._nonce, 0), lambda data: None)

    def _parse_nat_pmp(self, data: bytes) -> pcp.Granted:
        return pcp.parse_nat_pmp_map_untrusted(data, self._port)

    def _granted(self, protocol: str, host: str, granted: pcp.Granted) -> PortMapping:
        self._external = granted.port  # a renewal asks for the same one
        return PortMapping(protocol, (host, granted.port), granted.lifetime)

    def _ask(self, request: bytes, parse: Callable[[bytes], T]) -> T:
        """What `parse` makes of the answer. Raises PortMapError, and OnlyNatPmp."""
        try:
            return _exchange(self._router, self._gateway.own, request, parse)
        except pcp.OnlyNatPmp:
            raise
        except (BadPacket, OSError) as error:
            raise _no_mapping("PCP", error) from error


class IgdMapper:
    """UPnP. After a failure the service is looked for anew: a router that restarts may move it."""

    def __init__(self, gateway: Gateway, port: int, ports: RouterPorts) -> None:
        self._gateway = gateway
        self._port = port
        self._ports = ports
        self._service: igd.Service | None = None
        self._external = port

    def obtain(self) -> PortMapping:
        try:
            host = pcp.check_host_untrusted(self._call("GetExternalIPAddress", {}).get("NewExternalIPAddress", ""))
            lifetime = self._add(LIFETIME)
        except (BadPacket, OSError, http.client.HTTPException) as error:
            self._service = None
            raise _no_mapping("UPnP", error) from error
        return PortMapping("UPnP", (host, self._external), lifetime)

    def release(self) -> None:
        try:
            self._call("DeletePortMapping", self._arguments())
        except (BadPacket, OSError, http.client.HTTPException) as error:
            raise _no_mapping("UPnP", error) from error

    def _find_service(self) -> igd.Service:
        router = self._gateway.address
        search = igd.pack_search(router)
        location = _exchange(
            (router, self._ports.ssdp),
            self._gateway.own,
            search,
            lambda data: igd.parse_search_answer_untrusted(data, router),
        )
        status, text = self._request(location, "GET", b"", {})
        if status != 200:
            raise BadPacket(f"HTTP status {status}")
        return igd.parse_description_untrusted(text, location, router)

    def _add(self, lifetime: int) -> int:
        """Maps a port; the lifetime that it got."""
        client: dict[str, str | int] = {
            "NewInternalPort": self._port,
            "NewInternalClient": self._gateway.own,
            "NewEnabled": 1,
            "NewPortMappingDescription": "udpsend",
            "NewLeaseDuration": lifetime,
        }
        chooses = self._service is not None and self._service.chooses_port
        for _ in range(MAX_PORT_TRIES):
            try:
                answer = self._call("AddAnyPortMapping" if chooses else "AddPortMapping", self._arguments() | client)
            except igd.ActionFailed as error:
                if error.code == igd.ONLY_PERMANENT and lifetime:
                    return self._add(0)
                if error.code != igd.CONFLICT or chooses:
                    raise
                self._external = 1024 + secrets.randbelow(64512)
                continue
            if chooses:
                reserved = answer.get("NewReservedPort", "")
                self._external = pcp.check_port_untrusted(int(reserved) if re.fullmatch("[0-9]{1,5}", reserved) else 0)
            return lifetime
        raise BadPacket("it has no external port to give")

    def _arguments(self) -> dict[str, str | int]:
        return {"NewRemoteHost": "", "NewExternalPort": self._external, "NewProtocol": "UDP"}

    def _call(self, action: str, arguments: dict[str, str | int]) -> dict[str, str]:
        self._service = self._service or self._find_service()
        body, headers = igd.pack_action(self._service.kind, action, arguments)
        return igd.parse_action_answer_untrusted(*self._request(self._service.control, "POST", body, headers))

    def _request(self, url: igd.Url, method: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(
            self._gateway.address, url.port, timeout=HTTP_TIMEOUT, source_address=(self._gateway.own, 0)
        )
        try:
            connection.request(method, url.path, body or None, headers | {"Connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read(igd.MAX_TEXT_SIZE + 1)
        finally:
            connection.close()


def _exchange(router: Address, own: str, request: bytes, parse: Callable[[bytes], T]) -> T:
    """Sends `request` until `parse` takes an answer, which may come from the router alone. What is no answer is passed
    over; what is one and says no is raised. Raises TimeoutError after PATIENCE, and OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.bind((own, 0))
        asking.connect(router)
        started = time.monotonic()
        resends = list(RESENDS)
        while (now := time.monotonic() - started) < PATIENCE:
            if resends and now >= resends[0]:
                resends.pop(0)
                asking.send(request)
            asking.settimeout(max(0.001, (resends[0] if resends else PATIENCE) - now))
            try:
                return parse(asking.recv(4096))
            except (pcp.RouterRefused, pcp.OnlyNatPmp):
                raise
            except (TimeoutError, BadPacket):
                continue
    raise TimeoutError


def _no_mapping(protocol: str, error: Exception) -> PortMapError:
    match error:
        case TimeoutError():
            return PortMapError(f"no answer to {protocol}")
        case ConnectionRefusedError():
            why = "the router does not speak it"
        case _:
            why = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return PortMapError(f"{protocol}: {why}")
