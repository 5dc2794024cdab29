"""What a relay's URL says.

    turn:[USER:PASSWORD@]HOST[:PORT][?transport=tcp][&secret=SECRET]
    turns:[USER:PASSWORD@]HOST[:PORT][?secret=SECRET][&ca=FILE]

`turn:` is UDP to port 3478 unless `transport` says otherwise, `turns:` is TLS over TCP to port 5349. With `secret`
(what coturn calls use-auth-secret) user and password are made of it, good for a day. `ca` is a PEM file with the
certificates to trust instead of the system's.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass, field
from hashlib import sha1
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from udpsend.errors import UsageError

DEFAULT_PORTS = {"turn": 3478, "turns": 5349}
MAX_URL_LENGTH = 2048  # characters
SECRET_LIFETIME = 86_400  # seconds


@dataclass(frozen=True, slots=True)
class RelayUrl:
    scheme: str
    host: str
    port: int
    is_stream: bool
    user: str = ""
    password: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    ca: Path | None = None

    @property
    def is_secure(self) -> bool:
        return self.scheme == "turns"

    @property
    def name(self) -> str:
        """Without user, password and secret, to be shown."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}:{host}:{self.port}"

    def credentials(self, unix_time: float) -> tuple[str, str]:
        """User and password for now."""
        if not self.secret:
            return self.user, self.password
        user = f"{int(unix_time) + SECRET_LIFETIME}:{self.user or 'udpsend'}"
        return user, base64.b64encode(hmac.new(self.secret.encode(), user.encode(), sha1).digest()).decode()


def parse_relay_url(url: str) -> RelayUrl:
    """Raises UsageError, whose text holds neither password nor secret."""
    if len(url) > MAX_URL_LENGTH or not url.isprintable() or " " in url:
        raise UsageError("The relay's URL has spaces or control characters in it, or is too long.")
    scheme, _, rest = url.partition(":")
    if scheme not in DEFAULT_PORTS:
        raise _bad_url("it does not begin with turn: or turns:")
    place, _, query = rest.removeprefix("//").partition("?")
    credentials, _, place = place.rpartition("@")
    try:
        options = dict(parse_qsl(query, strict_parsing=bool(query)))
        host, port = _host_and_port(place, DEFAULT_PORTS[scheme])
    except ValueError:
        raise _bad_url("its host, port or options make no sense") from None
    user, _, password = credentials.partition(":")
    transport = options.get("transport", "tcp" if scheme == "turns" else "udp")
    if set(options) - {"transport", "secret", "ca"} or transport not in ("udp", "tcp"):
        raise _bad_url("only transport=tcp, secret=... and ca=FILE may follow the '?'")
    if scheme == "turns" and transport == "udp":
        raise _bad_url("turns: is TLS over TCP")
    if "ca" in options and scheme != "turns":
        raise _bad_url("ca=FILE is for turns: only")
    if not (user and password) and not options.get("secret"):
        raise _bad_url("a relay wants USER:PASSWORD@ or ?secret=")
    return RelayUrl(
        scheme,
        host,
        port,
        transport == "tcp",
        unquote(user),
        unquote(password),
        options.get("secret", ""),
        Path(options["ca"]).expanduser() if "ca" in options else None,
    )


def _host_and_port(place: str, default: int) -> tuple[str, int]:
    """Raises ValueError."""
    if place.startswith("["):
        host, bracket, port = place[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise ValueError(place)
        port = port[1:]
    else:
        host, _, port = place.partition(":")
    number = int(port) if port else default
    if not host or not 0 < number < 65536 or "/" in host:
        raise ValueError(place)
    return host, number


def _bad_url(why: str) -> UsageError:
    return UsageError(f"That is no relay's URL: {why}.\nGive for example turn:user:password@turn.example.org:3478.")
