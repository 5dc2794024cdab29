"""What a broker's URL says, and which URLs lead to the same broker.

    mqtt[s]://[user:password@]host[:port][?ca=FILE]
    ws[s]://[user:password@]host[:port][/path][?ca=FILE]        path: /mqtt

`ca` is a PEM file with the certificates to trust instead of the system's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from udpsend.config import without_credentials
from udpsend.errors import UsageError

DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 8083, "wss": 8084}
DEFAULT_PATH = "/mqtt"
MAX_URL_LENGTH = 2048  # characters


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    scheme: str
    host: str
    port: int
    path: str = DEFAULT_PATH
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: Path | None = None

    @property
    def is_secure(self) -> bool:
        return self.scheme in ("mqtts", "wss")

    @property
    def is_websocket(self) -> bool:
        return self.scheme in ("ws", "wss")

    @property
    def netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def name(self) -> str:
        """The URL without user and password, to be shown."""
        path = self.path if self.is_websocket and self.path != DEFAULT_PATH else ""
        return f"{self.scheme}://{self.netloc}{path}"


def parse_broker_url(url: str) -> BrokerUrl:
    """Raises UsageError, whose text never holds the password."""
    if len(url) > MAX_URL_LENGTH or not url.isprintable() or " " in url:
        raise UsageError("A broker URL has spaces or control characters in it, or is too long.")
    shown = without_credentials(url)
    try:
        parts = urlsplit(url)
        host, port, options = parts.hostname, parts.port, dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:
        raise _bad_url(shown, "its port, host or options make no sense") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise _bad_url(shown, "it does not begin with mqtts://, wss://, mqtt:// or ws://")
    if not host or port == 0:
        raise _bad_url(shown, "it names no host" if not host else "0 is no port")
    is_websocket = parts.scheme in ("ws", "wss")
    if parts.fragment or set(options) - {"ca"} or (parts.path not in ("", "/") and not is_websocket):
        raise _bad_url(shown, "only ?ca=FILE may follow the address (and a path, for WebSocket)")
    ca = Path(options["ca"]).expanduser() if "ca" in options else None
    if ca is not None and parts.scheme not in ("mqtts", "wss"):
        raise _bad_url(shown, "?ca=FILE is for mqtts:// and wss:// only")
    return BrokerUrl(
        scheme=parts.scheme,
        host=host,
        port=port or DEFAULT_PORTS[parts.scheme],
        path=parts.path if parts.path not in ("", "/") else DEFAULT_PATH,
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        ca=ca,
    )


def _bad_url(shown: str, why: str) -> UsageError:
    return UsageError(f"{shown!r} is no broker URL: {why}.\nGive for example mqtts://broker.example.org:8883.")


def group_by_host(urls: Iterable[BrokerUrl]) -> list[list[BrokerUrl]]:
    """The URLs of each host in order of preference: those with TLS, then plain ones, else as given."""
    groups: dict[str, list[BrokerUrl]] = {}
    for url in urls:
        group = groups.setdefault(url.host, [])
        if url not in group:
            group.append(url)
    return [sorted(group, key=lambda url: not url.is_secure) for group in groups.values()]
