"""Home routers for tests of port mapping, on loopback: what they answer is given by functions, so that they can lie."""

from __future__ import annotations

import http.server
import re
import struct
import threading
from dataclasses import dataclass, field

from tests.servers import LOOPBACK
from udpsend.punching.gateway import Gateway
from udpsend.punching.mappers import RouterPorts

EXTERNAL = "203.0.113.7"
GATEWAY = Gateway(LOOPBACK, LOOPBACK)
SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:{version}"
CLOSED = 9  # nobody listens there


def pcp_answer(
    request: bytes, *, port: int = 40000, lifetime: int = 600, result: int = 0, host: str = EXTERNAL
) -> bytes:
    """A PCP router's answer to a MAP request."""
    nonce, protocol, internal = struct.unpack_from("!12sB3xH", request, 24)
    packed = bytes(10) + b"\xff\xff" + bytes(map(int, host.split(".")))
    header = struct.pack("!BBBBII12x", 2, 0x81, 0, result, lifetime if request[4:8] != bytes(4) else 0, 1)
    return header + struct.pack("!12sB3xHH16s", nonce, protocol, internal, port, packed)


def nat_pmp_answer(request: bytes, *, port: int = 40001, lifetime: int = 600, result: int = 0) -> bytes:
    """The answer of a router that knows NAT-PMP alone, to whatever it is asked."""
    if request[0] != 0:
        return struct.pack("!BBHI", 0, 0x80 | request[1], 1, 1)
    if request[1] == 0:
        return struct.pack("!BBHI4B", 0, 0x80, result, 1, *map(int, EXTERNAL.split(".")))
    return struct.pack("!BBHI2sHI", 0, 0x81, result, 1, request[4:6], port, lifetime)


@dataclass
class IgdRouter:
    """A UPnP router: its HTTP half. `search_answer` is what its SSDP half says."""

    version: int = 1
    errors: dict[str, list[int]] = field(default_factory=dict)
    """By action: UPnP errors to answer with, one after the other, before it succeeds."""
    description: str | None = None
    external: str = EXTERNAL
    calls: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def __enter__(self) -> IgdRouter:
        router = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                router.answer(self, 200, router.description_text())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                action = self.headers["SOAPAction"].strip('"').split("#")[1]
                router.calls.append((action, dict(re.findall(r"<(New\w+)>([^<]*)<", body))))
                router.answer(self, *router.result(action))

            def log_message(self, format: str, *arguments: object) -> None:
                return

        self._server = http.server.ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def search_answer(self, request: bytes) -> list[bytes]:
        assert request.startswith(b"M-SEARCH * HTTP/1.1\r\n")
        return [self.location(f"http://{LOOPBACK}:{self.port}/root.xml")]

    @staticmethod
    def location(url: str) -> bytes:
        kind = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
        return f"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: {kind}\r\nLocation: {url}\r\n\r\n".encode()

    def description_text(self) -> str:
        if self.description is not None:
            return self.description
        service = f"<serviceType>{SERVICE.format(version=self.version)}</serviceType><controlURL>/ctl</controlURL>"
        return (
            '<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device><deviceList><device>'
            f"<serviceList><service>{service}</service></serviceList></device></deviceList></device></root>"
        )

    def result(self, action: str) -> tuple[int, str]:
        if self.errors.get(action):
            code = self.errors[action].pop(0)
            return 500, f"<Envelope><Body><Fault><errorCode>{code}</errorCode></Fault></Body></Envelope>"
        results = {
            "GetExternalIPAddress": f"<NewExternalIPAddress>{self.external}</NewExternalIPAddress>",
            "AddAnyPortMapping": "<NewReservedPort>45678</NewReservedPort>",
        }
        return 200, f"<Envelope><Body><R>{results.get(action, '')}</R></Body></Envelope>"

    @staticmethod
    def answer(handler: http.server.BaseHTTPRequestHandler, status: int, text: str) -> None:
        handler.send_response(status)
        handler.end_headers()
        handler.wfile.write(text.encode())


def ports(pcp: int = CLOSED, ssdp: int = CLOSED) -> RouterPorts:
    return RouterPorts(pcp, ssdp)
