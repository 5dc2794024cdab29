"""The virtual network: hosts, routers, NATs and links in virtual time; a seed replays a run.

    net = Network(seed)
    a, b = net.host("a"), net.host("b")

One cable, both directions alike (what transfer tests need); or differently, by `back`:

    there, back = net.cable(a, "10.0.0.1", b, "10.0.0.2", delay=0.05, rate=1e6, queue=64e3, loss=0.01)
    there, back = net.cable(a, "10.0.0.1", b, "10.0.0.2", delay=0.05, rate=1e6, back={"rate": 1e5})

Local networks behind NATs, on the internet:

    home = net.gateway("home", "203.0.113.1", PORT_RESTRICTED, delay=0.02)   # to net.internet and back
    home.attach(a, "192.168.1.10")                                          # 0.1 ms each way unless told
    net.internet.attach(b, "198.51.100.7", delay=0.03)

Endpoints are objects with the five verbs. A socket drives one after each stimulus as the real driver does
(stimulus, events, datagrams_to_send until it yields nothing, next_timer). One socket has all addresses of its host:

    socket = a.bind(4000, lambda address: Connection(..., now=net.now, random_bytes=net.random_bytes("a")), gro=True)
    socket.on_event = lambda event: ...         # also kept in socket.events
    socket.endpoint.close(); socket.drive()     # after touching an endpoint from outside
    net.run(until=lambda: done, seconds=30)     # -> bool: whether `until` came true
    net.run(seconds=1.5)                        # to an instant
    net.at(2.0, lambda: setattr(there, "rate", 5e5)); there.outage(3.0, 2.0)   # changes while it runs

Link parameters (keywords of cable, attach, gateway; attributes of Link that may be changed at any time):

    delay          seconds, one way                                    rate       UDP payload bytes/s; None: unbounded
    queue          bytes that wait for the rate, drop-tail             loss       probability for each datagram
    bursts         GilbertElliott(enter, leave, ...)                   duplicate  probability for each datagram
    jitter         seconds: 0 to this is added to each datagram        ordered    jitter does not reorder (default True)
    reorder        probability of being held back by reorder_delay     mtu        bytes of an IP packet (larger: drop)
    down           True: all is dropped                                merge_within  see below

Counters of a link: offered, delivered, bytes_delivered, dropped (Counter: queue, loss, burst, mtu, outage), duplicated,
reordered, max_queue (bytes), max_queueing_delay, mean_queueing_delay. Routers: dropped (no route, nat filter, nat
unmapped, nat hairpin, firewall). Hosts: dropped (no route, no socket).

Speed: a Transmit of n datagrams is one Train and one heap event for each link as long as nothing separates them.
Queue, loss, bursts and MTU only shorten it; jitter, duplication and reordering separate it. A train that takes longer
than `merge_within` seconds (1 ms) at the link's rate comes out in pieces of that length, 0 means singly; a piece
arrives when its last byte does. A socket with gro=True passes what arrives as one piece on as Arrivals of many
datagrams, gro=False as one Arrival for each. Rate, delay and jitter keep the order of what was sent earlier.
"""

from __future__ import annotations

from tests.sim.endpoints import ConnectionEndpoint, Endpoint, Recorder, Reflector
from tests.sim.link import GilbertElliott, Link
from tests.sim.nat import (
    ADDRESS_RESTRICTED,
    FULL_CONE,
    MASQUERADE_OPEN,
    PORT_RESTRICTED,
    SYMMETRIC,
    SYMMETRIC_RANDOM,
    Depends,
    Gateway,
    NatKind,
    Ports,
)
from tests.sim.network import Host, Network, Router, SimulationStuck, Socket
from tests.sim.train import Train

__all__ = [
    "ADDRESS_RESTRICTED",
    "FULL_CONE",
    "MASQUERADE_OPEN",
    "PORT_RESTRICTED",
    "SYMMETRIC",
    "SYMMETRIC_RANDOM",
    "ConnectionEndpoint",
    "Depends",
    "Endpoint",
    "Gateway",
    "GilbertElliott",
    "Host",
    "Link",
    "NatKind",
    "Network",
    "Ports",
    "Recorder",
    "Reflector",
    "Router",
    "SimulationStuck",
    "Socket",
    "Train",
]
