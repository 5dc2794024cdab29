"""Which brokers, STUN servers and relays can be used, and how fast: each asked the way a session asks it."""

from __future__ import annotations

import contextlib
import queue
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from enum import Enum
from ipaddress import ip_address

from udpsend.doctor.diagnosis import Place
from udpsend.net import clock
from udpsend.net.udp import UdpEndpoint
from udpsend.relaying import Relaying
from udpsend.rendezvous.broker_url import parse_broker_url
from udpsend.rendezvous.mqtt import open_mqtt
from udpsend.rendezvous.stun import RESOLVE_TIMEOUT, look_up, parse_stun_server
from udpsend.wire.datagram import Address

BROKER_TIMEOUT = 9.0 + RESOLVE_TIMEOUT  # seconds; what its mailbox takes to give up
RELAY_TIMEOUT = 8.0  # seconds
POLL = 0.05  # seconds


class NoAnswer(Enum):
    """Why a STUN server told nothing. Of what is found over IPv4 and IPv6 the first here says most."""

    SILENT = "no answer"
    NO_WAY = "this host has no way there"
    NO_NAME = "its name cannot be resolved"
    NO_ADDRESS = "no address to ask"


def examine_broker(url: str) -> Place:
    """Connects, subscribes to a topic that nobody else knows, and leaves."""
    import paho.mqtt.client  # noqa: F401 - slow, and not to be counted as the broker's time

    changes: queue.SimpleQueue[tuple[bool, str]] = queue.SimpleQueue()
    topic = f"udpsend/1/doctor-{secrets.token_hex(8)}"
    name, started = parse_broker_url(url).name, time.monotonic()
    (mailbox,) = open_mqtt([url], topic, lambda message: None, lambda _, up, detail: changes.put((up, detail)))
    try:
        up, detail = changes.get(timeout=BROKER_TIMEOUT)
    except queue.Empty:
        return Place(name, None, "no answer")
    finally:
        threading.Thread(target=mailbox.close, daemon=True).start()
    return Place(name, time.monotonic() - started if up else None, detail.removeprefix(f"{name}: "))


def examine_relay(url: str, bind: str | None) -> Place:
    """Has an address allocated, and gives it back."""
    calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    outcome: list[tuple[Address | None, str]] = []
    endpoint, started = UdpEndpoint(bind), time.monotonic()
    relaying = Relaying(url, bind, endpoint, calls.put, lambda address, why: outcome.append((address, why)))
    try:
        while not outcome and time.monotonic() < started + RELAY_TIMEOUT:
            with contextlib.suppress(queue.Empty):
                calls.get(timeout=POLL if endpoint.relay is None else 0.0)()
            if endpoint.relay is not None and select.select([endpoint.relay], [], [], POLL)[0]:
                endpoint.relay.receive()
            relaying.turn(clock.now(), lambda arrival, now: None)
    finally:
        relaying.close()
        endpoint.close()
    address, why = outcome[0] if outcome else (None, "no answer")
    return Place(relaying.name, time.monotonic() - started if address is not None else None, why)


def resolve(servers: Sequence[str], family: socket.AddressFamily) -> list[Address | NoAnswer]:
    """The address of each STUN server, in order, or why there is none in this family within RESOLVE_TIMEOUT."""
    wanted = [parse_stun_server(server) for server in servers]
    resolved: dict[int, Address] = {}

    def find(index: int, host: str, port: int) -> None:
        address = look_up(host, port, family)
        if address is not None:
            resolved[index] = address

    threads = [
        threading.Thread(target=find, args=(index, host, port), daemon=True)
        for index, (host, port) in enumerate(wanted)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + RESOLVE_TIMEOUT
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    reasons = [NoAnswer.NO_ADDRESS if _is_numeric(host) else NoAnswer.NO_NAME for host, _ in wanted]
    return [resolved.get(index, why_not) for index, why_not in enumerate(reasons)]


def _is_numeric(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
