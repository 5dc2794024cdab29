"""What a caller may choose. One frozen value, the same for the library and the command line."""

from __future__ import annotations

import math
import re
from enum import Enum
from functools import cache
from typing import Literal

from msgspec import Struct, ValidationError, convert
from msgspec.structs import FieldInfo, asdict, fields

from udpsend.errors import UsageError

# All hosts are used at once, so that none is a point of failure. Where only the web passes, the last one is left, the
# only one with WebSocket at port 443; both sides are there in any case, whatever the other's network lets through.
DEFAULT_BROKERS = (
    "mqtts://broker.emqx.io:8883",
    "wss://broker.emqx.io:8084",
    "mqtt://broker.emqx.io:1883",
    "mqtts://broker.hivemq.com:8883",
    "wss://broker.hivemq.com:8884",
    "mqtt://broker.hivemq.com:1883",
    "mqtts://test.mosquitto.org:8886",
    "wss://test.mosquitto.org:8081",
    "mqtt://test.mosquitto.org:1883",
    "wss://mqtt.eclipseprojects.io:443",
)
DEFAULT_STUN_SERVERS = ("stun.l.google.com:19302", "stun.cloudflare.com:3478")

# Bytes: the base of a path MTU search over IPv6 (RFC 8899), and the largest UDP payload over IPv4.
SMALLEST_DATAGRAM, LARGEST_DATAGRAM = 1200, 65507
LONGEST_TIMEOUT = 7 * 86400.0  # seconds
SLOWEST_LIMIT = 1000.0  # bytes per second: a datagram each second


class Role(Enum):
    """Which end of the transfer this is. The sender is SPAKE2's side A and decides between paths."""

    SENDER = "sender"
    RECEIVER = "receiver"

    @property
    def other(self) -> Role:
        return Role.RECEIVER if self is Role.SENDER else Role.SENDER


class Config(Struct, frozen=True):
    """How to find the other side and how to reach it. Every field has a default that works on most networks. Raises
    UsageError for values that cannot be; what is wrong with a server or an address is found when it is used."""

    brokers: tuple[str, ...] = DEFAULT_BROKERS
    """MQTT brokers, as `mqtt://`, `mqtts://`, `ws://` or `wss://` URLs (with `user:password@` where needed). All are
    tried at once; those to the same host are alternatives, tried in the order given, plain ones last."""

    stun_servers: tuple[str, ...] = DEFAULT_STUN_SERVERS
    """STUN servers as `host:port`, all asked at once."""

    lan: bool = True
    """Also meet by multicast on the local network and on this host."""

    port_mapping: bool = True
    """Ask the default gateway for a port mapping (PCP, NAT-PMP, UPnP) if this host has a private address. Off by itself
    where `bind` is an address that the gateway does not know."""

    relay: str | None = None
    """A TURN server to go through if there is no direct path, as `turn:user:password@host` or `turns:` (see
    `punching/relay_url.py`). One side's is enough. None: never relayed."""

    bind: str | None = None
    """The local address to use; None means all."""

    timeout: float = 600.0
    """Seconds to wait for the other side to come, up to a week."""

    offload: bool = True
    """Use UDP_SEGMENT and UDP_GRO where the system has them."""

    max_datagram_size: int | None = None
    """Bytes of the largest UDP payload to send, 1200 to 65507; None means that path MTU search decides."""

    congestion: Literal["bbr", "cubic"] = "bbr"
    """How the sender finds its rate: by a model of the path, or by losses as TCP does."""

    limit: float | None = None
    """Bytes per second that the sender does not exceed, at least 1000; the receiver's is told to it."""

    background: bool = False
    """Yield to everybody else on the path (LEDBAT++, in place of `congestion`); the receiver's wish is told to the
    sender."""

    def __post_init__(self) -> None:
        for field in _fields():
            try:
                convert(getattr(self, field.name), field.type)
            except ValidationError as error:
                reason = str(error)
                raise UsageError(f"{field.name} is of the wrong type: {reason[0].lower()}{reason[1:]}.") from error
        size, limit = self.max_datagram_size, self.limit
        if not 0 < self.timeout <= LONGEST_TIMEOUT:  # nor NaN
            raise UsageError(f"timeout is {self.timeout:g}: it has to be seconds, more than 0 and at most a week.")
        if size is not None and not SMALLEST_DATAGRAM <= size <= LARGEST_DATAGRAM:
            raise UsageError(
                f"max_datagram_size is {size:g}: it has to be {SMALLEST_DATAGRAM} to {LARGEST_DATAGRAM} bytes, or None."
            )
        if limit is not None and not SLOWEST_LIMIT <= limit < math.inf:
            raise UsageError(f"limit is {limit:g}: it has to be bytes per second, 1000 or more, or None for no limit.")
        if self.congestion not in ("bbr", "cubic"):
            raise UsageError(f"congestion is {self.congestion!r}: it has to be 'bbr' or 'cubic'.")

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """All fields, without the passwords of URLs: what is logged is read by others."""
        shown = asdict(self)
        shown["brokers"] = tuple(without_credentials(url) for url in self.brokers)
        shown["relay"] = None if self.relay is None else "..."
        return list(shown.items())

    def __repr__(self) -> str:
        return f"Config({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


def without_credentials(url: str) -> str:
    """A URL as it may be shown. Of what is none, too: user and password are typed into it all the same."""
    return re.sub(r"(?s)^([a-z]+://)?.*@", r"\1...@", url)


@cache
def _fields() -> tuple[FieldInfo, ...]:
    """Those whose values can be of another type; what `congestion` is not is said with what it can be."""
    return tuple(field for field in fields(Config) if field.name != "congestion")
