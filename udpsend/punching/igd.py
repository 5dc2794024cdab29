"""UPnP Internet Gateway Device: the texts of SSDP, device description and SOAP <-> values. Sans-IO.

1. `pack_search` asks the router whether it is one; `parse_search_answer_untrusted` takes the URL of its description.
2. `parse_description_untrusted` finds the service that maps ports, and the URL at which it is controlled.
3. `pack_action` and `parse_action_answer_untrusted` are one call of it each way.

The router is a stranger: its texts are bounded in size, document types (and with them entities) are refused, and every
URL has to lead back to the router itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from msgspec import Struct

from udpsend.errors import BadPacket

SSDP_PORT = 1900
MAX_TEXT_SIZE = 65536

_DEVICE = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"  # a version 2 answers to it, too
# Best first: AddAnyPortMapping came with the second version.
_SERVICES = tuple(
    f"urn:schemas-upnp-org:service:{name}" for name in ("WANIPConnection:2", "WANIPConnection:1", "WANPPPConnection:1")
)

CONFLICT = 718  # another host has this external port
ONLY_PERMANENT = 725


class ActionFailed(BadPacket):
    """The router answered with a UPnP error."""

    def __init__(self, code: int) -> None:
        super().__init__(f"it answers with UPnP error {code}")
        self.code = code


class Url(Struct, frozen=True):
    """An http:// URL at the router."""

    port: int
    path: str


class Service(Struct, frozen=True):
    kind: str
    control: Url

    @property
    def chooses_port(self) -> bool:
        """It gives another external port where the one asked for is taken."""
        return self.kind == _SERVICES[0]


def pack_search(router: str) -> bytes:
    """The search that goes to the router alone (UPnP Device Architecture 1.1, section 1.3.2)."""
    return (
        f'M-SEARCH * HTTP/1.1\r\nHOST: {router}:{SSDP_PORT}\r\nMAN: "ssdp:discover"\r\nMX: 1\r\nST: {_DEVICE}\r\n\r\n'
    ).encode()


def parse_search_answer_untrusted(data: bytes, router: str) -> Url:
    """Where the description is. Raises BadPacket."""
    if len(data) > 4096 or not data.startswith(b"HTTP/1.1 200"):
        raise BadPacket("no answer to a search")
    location = re.search(rb"^location:[ \t]*(\S+)[ \t]*\r?$", data, re.IGNORECASE | re.MULTILINE)
    if location is None or b"InternetGatewayDevice" not in data:
        raise BadPacket("no answer of a gateway")
    return _url_untrusted(location[1].decode("latin-1"), router)


def parse_description_untrusted(text: bytes, location: Url, router: str) -> Service:
    """The best service for port mappings. Raises BadPacket."""
    root = _parse_xml_untrusted(text)
    base = f"http://{router}:{location.port}{location.path}"
    found: dict[str, str] = {}
    for element in root.iter():
        name = _name(element)
        if name == "URLBase" and element.text:
            base = element.text.strip()
        if name == "service":
            fields = {_name(child): (child.text or "").strip() for child in element}
            found.setdefault(fields.get("serviceType", ""), fields.get("controlURL", ""))
    for kind in _SERVICES:
        if kind in found:
            return Service(kind, _url_untrusted(_join_untrusted(base, found[kind]), router))
    raise BadPacket("no service for port mappings")


def pack_action(kind: str, action: str, arguments: Mapping[str, str | int]) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a call."""
    inner = "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in arguments.items())
    body = (
        '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
        f'<u:{action} xmlns:u="{kind}">{inner}</u:{action}></s:Body></s:Envelope>'
    )
    return body.encode(), {"Content-Type": 'text/xml; charset="utf-8"', "SOAPAction": f'"{kind}#{action}"'}


def parse_action_answer_untrusted(status: int, text: bytes) -> dict[str, str]:
    """The results of a call. Raises BadPacket, also as ActionFailed."""
    if status not in (200, 500):
        raise BadPacket(f"HTTP status {status}")
    fields = {_name(element): (element.text or "").strip() for element in _parse_xml_untrusted(text).iter()}
    if "errorCode" in fields or status != 200:
        code = fields.get("errorCode", "")
        raise ActionFailed(int(code) if re.fullmatch(r"[0-9]{1,5}", code) else 0)
    return fields


def _parse_xml_untrusted(text: bytes) -> ElementTree.Element:
    if len(text) > MAX_TEXT_SIZE or b"<!DOCTYPE" in text or b"<!ENTITY" in text or b"\0" in text:
        raise BadPacket("unwelcome XML")  # NUL: an encoding in which the words above would not be seen
    try:
        return ElementTree.fromstring(text.strip(b"\r\n\t "))  # noqa: S314 - bounded, and without entities
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise BadPacket("no XML") from error


def _name(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _join_untrusted(base: str, url: str) -> str:
    try:
        return urljoin(base, url)
    except ValueError as error:
        raise BadPacket("URL") from error


def _url_untrusted(url: str, router: str) -> Url:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError as error:
        raise BadPacket("URL") from error
    if parts.scheme != "http" or host != router:
        raise BadPacket("URL of another host")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii() or not path.isprintable() or " " in path:
        raise BadPacket("URL")
    return Url(port, path)
