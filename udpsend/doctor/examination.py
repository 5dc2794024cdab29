"""All examinations, side by side."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from msgspec.structs import replace

from udpsend.config import Config
from udpsend.doctor.diagnosis import Diagnosis, Mtu, Nat, Place
from udpsend.doctor.nat import examine_nat, measure_lifetime
from udpsend.doctor.places import examine_broker, examine_relay, resolve
from udpsend.doctor.stun_probe import Answer
from udpsend.doctor.system import examine_mtu, examine_port_mapping, examine_system
from udpsend.punching.hops import routers_that_translate
from udpsend.punching.relay_url import parse_relay_url
from udpsend.rendezvous.broker_url import parse_broker_url
from udpsend.rendezvous.stun import parse_stun_server
from udpsend.wire.datagram import Address

MAX_PARALLEL = 16


def diagnose(config: Config, *, lifetime: float | None = None) -> Diagnosis:
    """Takes up to ten seconds; with `lifetime`, the longest idle time to try, as long as that and a little.

    Asks the brokers, STUN servers and the router of `config`, and nobody else. Raises UsageError for a URL, server or
    address that is not written as one."""
    for url in config.brokers:
        parse_broker_url(url)
    for server in config.stun_servers:
        parse_stun_server(server)
    if config.relay is not None:
        parse_relay_url(config.relay)
    system = examine_system(config.bind)
    with ThreadPoolExecutor(MAX_PARALLEL, thread_name_prefix="udpsend-doctor") as pool:
        brokers = [pool.submit(examine_broker, url) for url in config.brokers]
        mapping = pool.submit(examine_port_mapping, config)
        relay = pool.submit(examine_relay, config.relay, config.bind) if config.relay is not None else None
        ipv6 = pool.submit(_examine_family, socket.AF_INET6, config, None)
        nat, answers, mtu = pool.submit(_examine_family, socket.AF_INET, config, lifetime).result()
        nat6, answers6, mtu6 = ipv6.result()
        return Diagnosis(
            tuple(future.result() for future in brokers),
            _stun_places(config.stun_servers, answers, answers6),
            system,
            nat,
            nat6,
            mapping.result(),
            mtu if mtu.interface is not None else mtu6,
            relay.result() if relay is not None else None,
        )


def _examine_family(
    family: socket.AddressFamily, config: Config, lifetime: float | None
) -> tuple[Nat, list[Answer | None], Mtu]:
    """The answers are in the order of the servers."""
    if config.bind is not None and (":" in config.bind) != (family == socket.AF_INET6):
        return Nat(), [None] * len(config.stun_servers), Mtu()
    addresses = resolve(config.stun_servers, family)
    there = [(index, address) for index, address in enumerate(addresses) if address is not None]
    nat, answers = examine_nat(family, [address for _, address in there], config.bind)
    in_order: list[Answer | None] = [None] * len(addresses)
    for (index, _), answer in zip(there, answers, strict=True):
        in_order[index] = answer
    server = _first(addresses, in_order)
    mtu = examine_mtu(server, config.bind)
    if lifetime is not None and server is not None:
        nat = replace(nat, lifetime=measure_lifetime(server, config.bind, lifetime))
    if family == socket.AF_INET and server is not None:
        nat = replace(nat, routers=routers_that_translate(server[0], config.bind)[0])
    return nat, in_order, mtu


def _first(addresses: Sequence[Address | None], answers: Sequence[Answer | None]) -> Address | None:
    return next((at for at, answer in zip(addresses, answers, strict=True) if answer is not None), None)


def _stun_places(
    servers: Sequence[str], answers: Sequence[Answer | None], answers6: Sequence[Answer | None]
) -> tuple[Place, ...]:
    places = []
    for server, answer, answer6 in zip(servers, answers, answers6, strict=True):
        told = [one for one in (answer, answer6) if one is not None]
        families = " and ".join(name for name, one in (("IPv4", answer), ("IPv6", answer6)) if one is not None)
        places.append(Place(server, min((one.seconds for one in told), default=None), families or "no answer"))
    return tuple(places)
