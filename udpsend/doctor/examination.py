"""All examinations, side by side."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from msgspec.structs import replace

from udpsend.config import Config
from udpsend.doctor.diagnosis import Diagnosis, Mtu, Nat, Place
from udpsend.doctor.nat import examine_nat, measure_lifetime
from udpsend.doctor.places import NoAnswer, examine_broker, examine_relay, resolve
from udpsend.doctor.stun_probe import Answer
from udpsend.doctor.system import examine_mtu, examine_port_mapping, examine_system
from udpsend.punching.candidates import source_towards
from udpsend.punching.hops import routers_that_translate
from udpsend.punching.relay_url import parse_relay_url
from udpsend.rendezvous.broker_url import parse_broker_url
from udpsend.rendezvous.stun import parse_stun_server
from udpsend.wire.datagram import Address

MAX_PARALLEL = 16


def diagnose(config: Config, *, lifetime: float | None = None) -> Diagnosis:
    """Takes up to ten seconds, and ten more where names are hard to resolve; with `lifetime`, the longest idle time to
    try, as long as that and a little.

    Asks the brokers, STUN servers and the router of `config`, and nobody else. Raises UsageError for a URL, server or
    address that is not written as one."""
    for url in config.brokers:
        parse_broker_url(url)
    for server in config.stun_servers:
        parse_stun_server(server)
    if config.relay is not None:
        parse_relay_url(config.relay)
    system = examine_system(config.bind)
    pool = ThreadPoolExecutor(MAX_PARALLEL, thread_name_prefix="udpsend-doctor")
    try:
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
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # after Ctrl-C nobody waits for the rest


def _examine_family(
    family: socket.AddressFamily, config: Config, lifetime: float | None
) -> tuple[Nat, list[Answer | NoAnswer], Mtu]:
    """The answers are in the order of the servers."""
    if config.bind is not None and (":" in config.bind) != (family == socket.AF_INET6):
        return Nat(), [NoAnswer.NO_ADDRESS] * len(config.stun_servers), Mtu()
    addresses = resolve(config.stun_servers, family)
    there = [(index, address) for index, address in enumerate(addresses) if not isinstance(address, NoAnswer)]
    nat, answers = examine_nat(family, [address for _, address in there], config.bind)
    found: list[Answer | NoAnswer] = [one if isinstance(one, NoAnswer) else NoAnswer.SILENT for one in addresses]
    for (index, address), answer in zip(there, answers, strict=True):
        found[index] = answer or (NoAnswer.SILENT if source_towards(address[0], config.bind) else NoAnswer.NO_WAY)
    server = _first(addresses, found)
    mtu = examine_mtu(server, config.bind)
    if lifetime is not None and server is not None:
        nat = replace(nat, lifetime=measure_lifetime(server, config.bind, lifetime))
    if family == socket.AF_INET and server is not None:
        nat = replace(nat, routers=routers_that_translate(server[0], config.bind).count)
    if server is None:
        nat = replace(nat, not_asked=_why_not_asked([one for one in found if isinstance(one, NoAnswer)]))
    return nat, found, mtu


def _why_not_asked(reasons: Sequence[NoAnswer]) -> str:
    """Empty where one was asked."""
    if not reasons:
        return "no STUN server was asked"
    if NoAnswer.SILENT in reasons:
        return ""
    if NoAnswer.NO_WAY in reasons:
        return "this host has no way to a STUN server"
    return "the name of no STUN server can be resolved" if NoAnswer.NO_NAME in reasons else "no STUN server to ask"


def _first(addresses: Sequence[Address | NoAnswer], answers: Sequence[Answer | NoAnswer]) -> Address | None:
    told = (at for at, answer in zip(addresses, answers, strict=True) if isinstance(answer, Answer))
    return next((at for at in told if not isinstance(at, NoAnswer)), None)


def _stun_places(
    servers: Sequence[str], answers: Sequence[Answer | NoAnswer], answers6: Sequence[Answer | NoAnswer]
) -> tuple[Place, ...]:
    places = []
    for server, answer, answer6 in zip(servers, answers, answers6, strict=True):
        both = (("IPv4", answer), ("IPv6", answer6))
        seconds = [one.seconds for _, one in both if isinstance(one, Answer)]
        reasons = {one for _, one in both if isinstance(one, NoAnswer)}
        families = " and ".join(name for name, one in both if isinstance(one, Answer))
        why_not = next((reason.value for reason in NoAnswer if reason in reasons), "")
        places.append(Place(server, min(seconds, default=None), families or why_not))
    return tuple(places)
