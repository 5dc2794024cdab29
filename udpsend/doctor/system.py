"""This host itself: addresses, socket buffers, offload, the sizes of packets, and the router's port mappings."""

from __future__ import annotations

import queue
import select
import socket
import time

from udpsend.config import Config
from udpsend.doctor.diagnosis import Mtu, PortMappingFound, System
from udpsend.doctor.stun_probe import Question, StunProbe
from udpsend.net.carrier import ENOUGH, Carrier
from udpsend.net.portable import PortableSocket
from udpsend.net.udp import UdpEndpoint
from udpsend.punching.candidates import gather_host_candidates
from udpsend.punching.gateway import find_gateway
from udpsend.punching.mappers import PortMapping
from udpsend.punching.portmap import PortMapper
from udpsend.wire.candidate import CandidateType
from udpsend.wire.datagram import Address, Transmit, ip_overhead

MAPPING_TIMEOUT = 8.0  # seconds
OFFLOAD_TIMEOUT = 1.0  # seconds
TRAIN = 8  # datagrams of the loopback try
SEGMENT = 1200  # bytes of each
NOBODY = bytes(8)  # what opens no record: the sockets are only counted
# IP packets: jumbo, Ethernet, PPPoE, tunnels, IPv6's least
SIZES = (9000, 1500, 1492, 1480, 1460, 1420, 1400, 1360, 1280)


def examine_system(bind: str | None) -> System:
    endpoint = UdpEndpoint(bind)
    try:
        first = endpoint.sockets[0]
        first.widen(NOBODY)
        candidates = gather_host_candidates(endpoint.ports, bind)
        addresses = tuple(one.address[0] for one in candidates if one.type is CandidateType.HOST)
        to_send = first.sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2
        to_receive = first.receive_buffer
    finally:
        endpoint.close()
    segmentation, coalescing = _try_offload()
    return System(addresses, to_receive, to_send, ENOUGH, segmentation, coalescing)


def _try_offload() -> tuple[bool | None, bool | None]:
    """Whether a train over loopback leaves in one call, and comes in one."""
    sender, receiver = UdpEndpoint("127.0.0.1"), UdpEndpoint("127.0.0.1")
    try:
        sock = sender.sockets[0]
        if type(sock) is PortableSocket:
            return None, None
        data = bytes(TRAIN * SEGMENT)
        sender.send(Transmit([data], SEGMENT, len(data), ("127.0.0.1", receiver.ports[4])))
        trains = _trains(receiver.sockets[0])
    finally:
        sender.close()
        receiver.close()
    came = sum(trains)
    return bool(getattr(sock, "offload", False)) and came == TRAIN, came == TRAIN and len(trains) == 1


def _trains(sock: Carrier) -> list[int]:
    """Datagrams of each train that arrives, until all have."""
    trains: list[int] = []
    deadline = time.monotonic() + OFFLOAD_TIMEOUT
    while sum(trains) < TRAIN and select.select([sock], [], [], max(0.0, deadline - time.monotonic()))[0]:
        arrival = sock.receive()
        if arrival is not None:
            trains.append(arrival.count)
    return trains


def examine_mtu(server: Address | None, bind: str | None) -> Mtu:
    """`server`: a STUN server that answers. Requests of several sizes show which arrive; answers are short."""
    if server is None:
        return Mtu()
    endpoint = UdpEndpoint(bind)
    try:
        family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
        interface = endpoint.max_datagram_size(server) + ip_overhead(server[0])
    finally:
        endpoint.close()
    sizes = [size for size in SIZES if size <= interface]
    try:
        with StunProbe(family, bind) as probe:
            answers = probe.ask([Question(server, size=size) for size in sizes])
    except OSError:
        return Mtu(interface)
    carried = [size for size, answer in zip(sizes, answers, strict=True) if answer is not None]
    return Mtu(interface, max(carried, default=None))


def examine_port_mapping(config: Config) -> PortMappingFound:
    """Has a port mapped, and unmapped again."""
    if not config.port_mapping:
        return PortMappingFound(detail="switched off")
    gateway = find_gateway(config.bind)
    if gateway is None:
        return PortMappingFound(detail="not asked for: no private address behind a default gateway")
    outcome: queue.SimpleQueue[PortMapping | str] = queue.SimpleQueue()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wanting:
        wanting.bind((gateway.own, 0))
        mapper = PortMapper(gateway, wanting.getsockname()[1], outcome.put, outcome.put)
        try:
            found = outcome.get(timeout=MAPPING_TIMEOUT)
        except queue.Empty:
            return PortMappingFound(detail="no answer")
        finally:
            mapper.close()
    if isinstance(found, str):
        return PortMappingFound(detail=found)
    return PortMappingFound(found.protocol, found.address)
