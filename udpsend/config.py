"""What a caller may choose. One frozen value, the same for the library and the command line."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

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


class Role(Enum):
    """Which end of the transfer this is. The sender is SPAKE2's side A and decides between paths."""

    SENDER = "sender"
    RECEIVER = "receiver"

    @property
    def other(self) -> Role:
        return Role.RECEIVER if self is Role.SENDER else Role.SENDER


@dataclass(frozen=True, slots=True)
class Config:
    """How to find the other side and how to reach it. Every field has a default that works on most networks."""

    brokers: tuple[str, ...] = DEFAULT_BROKERS
    """MQTT brokers, as `mqtt://`, `mqtts://`, `ws://` or `wss://` URLs (with `user:password@` where needed). All are
    tried at once; those to the same host are alternatives, tried in the order given."""

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
    """Seconds to wait for the other side to come."""

    offload: bool = True
    """Use UDP_SEGMENT and UDP_GRO where the system has them."""

    max_datagram_size: int | None = None
    """Bytes of the largest UDP payload to send; None means that path MTU search decides."""

    congestion: Literal["bbr", "cubic"] = "bbr"
    """How the sender finds its rate: by a model of the path, or by losses as TCP does."""

    limit: float | None = None
    """Bytes per second that the sender does not exceed."""

    background: bool = False
    """Yield to everybody else on the path (LEDBAT++, in place of `congestion`)."""
