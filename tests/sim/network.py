"""The clock and the nodes: a heap of (time, sequence, function, argument), hosts with sockets, routers.

`Network.run` takes the earliest entry, sets the clock to it and calls it. All delivery goes over the heap, so nothing
that an endpoint does comes back to it within the same call.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from tests.sim.endpoints import Endpoint
from tests.sim.link import Link
from tests.sim.train import Train
from udpsend.wire.datagram import Address

if TYPE_CHECKING:
    from tests.sim.nat import Gateway, NatKind

LAN_DELAY = 0.0001
LOOPBACK_DELAY = 0.00002
MAX_STEPS_WITHOUT_TIME = 100_000  # an endpoint whose timer is always due would stop the clock for ever


E = TypeVar("E", bound=Endpoint)


class SimulationStuck(AssertionError):
    """Time does not go on, or the bound of steps is passed: an endpoint spins."""


class Network:
    """Everything of one run. The same seed and the same calls give the same run."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = 0.0
        self.steps = 0
        self._heap: list[tuple[float, int, Callable[[Any], object], Any]] = []
        self._sequence = count()
        self.internet = Router(self, "internet")

    def random_bytes(self, name: str) -> Callable[[int], bytes]:
        """A source of its own for each name, so that one party's draws do not shift another's."""
        return Random(f"{self.seed}/{name}").randbytes

    def random(self, name: str) -> Random:
        return Random(f"{self.seed}/{name}")

    def host(self, name: str) -> Host:
        return Host(self, name)

    def gateway(
        self, name: str, public: str, nat: NatKind | None = None, *, above: Router | None = None, **link: Any
    ) -> Gateway:
        """A home router with the address `public` on the internet (or behind `above`, as with carriers' NATs)."""
        from tests.sim.nat import Gateway

        gateway = Gateway(self, name, public, nat)
        gateway.connect(above or self.internet, **link)
        return gateway

    def cable(
        self, a: Host, a_ip: str, b: Host, b_ip: str, *, back: dict[str, Any] | None = None, **link: Any
    ) -> tuple[Link, Link]:
        """Joins two hosts. Returns the links a to b and b to a; `back` says what differs in the second."""
        there = Link(self, f"{a.name}>{b.name}", b.receive, **link)
        here = Link(self, f"{b.name}>{a.name}", a.receive, **{**link, **(back or {})})
        a.add_interface(a_ip, there)
        b.add_interface(b_ip, here)
        return there, here

    def call_with(self, time: float, function: Callable[[Any], object], argument: Any) -> None:
        heappush(self._heap, (time, next(self._sequence), function, argument))

    def at(self, time: float, function: Callable[[], object]) -> None:
        """Calls `function` at the virtual time `time`."""
        self.call_with(max(time, self.now), lambda _: function(), None)

    def after(self, delay: float, function: Callable[[], object]) -> None:
        self.at(self.now + delay, function)

    def run(
        self, until: Callable[[], bool] | None = None, *, seconds: float = 60.0, max_steps: int = 20_000_000
    ) -> bool:
        """Goes on until `until()` is true (asked after each step), nothing is left to do, or `seconds` of virtual time
        have passed. Returns whether `until()` is true (True without one). Raises SimulationStuck."""
        heap = self._heap
        end = self.now + seconds
        last_step = self.steps + max_steps
        still = 0
        while True:
            if until is not None and until():
                return True
            if not heap or heap[0][0] > end:
                if until is None or heap:
                    self.now = max(self.now, end)
                return until is None
            time, _, function, argument = heappop(heap)
            still = still + 1 if time <= self.now else 0
            self.steps += 1
            if still > MAX_STEPS_WITHOUT_TIME or self.steps > last_step:
                raise SimulationStuck(f"stuck at {self.now:.6f} s after {self.steps} steps, seed {self.seed}")
            if time > self.now:
                self.now = time
            function(argument)


class Router:
    """Forwards by exact address, everything else upwards. With no delay of its own."""

    def __init__(self, network: Network, name: str) -> None:
        self.network = network
        self.name = name
        self.routes: dict[str, Link] = {}
        self.up: Link | None = None
        self.down: Link | None = None
        self.above: Router | None = None
        self.dropped: Counter[str] = Counter()

    def attach(self, host: Host, ip: str, **link: Any) -> tuple[Link, Link]:
        """Gives `host` an interface here. Returns the links from the host and to the host."""
        link.setdefault("delay", LAN_DELAY)
        from_host = Link(self.network, f"{host.name}>{self.name}/{ip}", self.from_inside, **link)
        to_host = Link(self.network, f"{self.name}>{host.name}/{ip}", host.receive, **link)
        host.add_interface(ip, from_host)
        self.add_route(ip, to_host)
        return from_host, to_host

    def connect(self, above: Router, **link: Any) -> tuple[Link, Link]:
        """Places this router behind another. Returns the links up and down."""
        self.above = above
        self.up = Link(self.network, f"{self.name}>{above.name}", above.from_inside, **link)
        self.down = Link(self.network, f"{above.name}>{self.name}", self.from_outside, **link)
        for ip in self.announced():
            above.add_route(ip, self.down)
        return self.up, self.down

    def announced(self) -> list[str]:
        """The addresses that the router above sends here."""
        return list(self.routes)

    def add_route(self, ip: str, link: Link) -> None:
        self.routes[ip] = link
        if self.above is not None and self.down is not None and ip in self.announced():
            self.above.add_route(ip, self.down)

    def from_inside(self, train: Train) -> None:
        self._forward(train, self.routes.get(train.destination[0], self.up))

    def from_outside(self, train: Train) -> None:
        self._forward(train, self.routes.get(train.destination[0]))

    def _forward(self, train: Train, link: Link | None) -> None:
        if train.ttl < 64:
            train = train.one_hop_on()
        if link is None:
            self.drop(train, "no route")
        elif train.ttl <= 0:
            self.drop(train, "ttl")
        else:
            link.send(train)

    def drop(self, train: Train, cause: str) -> None:
        self.dropped[cause] += len(train.datagrams)


class Host:
    """Addresses, each with the link that leads away from it, and sockets by port."""

    def __init__(self, network: Network, name: str) -> None:
        self.network = network
        self.name = name
        self.interfaces: dict[str, tuple[IPv4Network | IPv6Network, Link]] = {}
        self.sockets: dict[int, Socket[Any]] = {}
        self.dropped: Counter[str] = Counter()
        self.loopback = Link(network, f"{name}>lo", self.receive, delay=LOOPBACK_DELAY, mtu=65_536)

    def add_interface(self, ip: str, link: Link) -> None:
        prefix = 64 if ":" in ip else 24
        self.interfaces[ip] = (ip_network(f"{ip}/{prefix}", strict=False), link)

    def bind(self, port: int, factory: Callable[[Address], E], *, gro: bool = False) -> Socket[E]:
        """A socket on all addresses of this host. `factory` gets its first address; the endpoint is driven at once."""
        first = next(iter(self.interfaces), "127.0.0.1")
        socket = Socket(self, port, factory((first, port)), gro)
        self.sockets[port] = socket
        socket.drive()
        return socket

    def source_for(self, destination: Address) -> tuple[str, Link] | None:
        """The address and link for it: loopback for oneself, else the interface on whose network it is, else the first
        of the family."""
        ip = destination[0]
        if ip in self.interfaces or ip == "::1" or ip.startswith("127."):
            return ip, self.loopback
        target = ip_address(ip)
        first: tuple[str, Link] | None = None
        for own, (network, link) in self.interfaces.items():
            if network.version == target.version:
                if target in network:
                    return own, link
                first = first or (own, link)
        return first

    def send(self, port: int, destination: Address, datagrams: Sequence[bytes], ttl: int = 0) -> None:
        route = self.source_for(destination)
        if route is None:
            self.dropped["no route"] += len(datagrams)
            return
        source, link = route
        link.send(Train.of((source, port), destination, datagrams, ttl or 64))

    def receive(self, train: Train) -> None:
        socket = self.sockets.get(train.destination[1])
        if socket is None:
            self.dropped["no socket"] += len(train.datagrams)
        else:
            socket.receive(train)


class Socket(Generic[E]):
    """A port of a host, and the driver of the endpoint behind it."""

    def __init__(self, host: Host, port: int, endpoint: E, gro: bool) -> None:
        self.host = host
        self.port = port
        self.endpoint = endpoint
        self.gro = gro
        self.events: list[object] = []
        self.on_event: Callable[[Any], object] | None = None
        self.datagrams_sent = 0
        self._network = host.network
        self._timer_at = math.inf
        self._driving = False
        self._more: dict[int, int] = {}
        self._last_local = self._spare = 0

    def open_more(self, count: int) -> list[int]:
        """Further ports: the number of each, as in `Transmit.local` and `Arrival.local`."""
        port = 30_000 + len(self.host.sockets)
        for _ in range(count):
            while port in self.host.sockets:
                port += 1
            self.host.sockets[port] = self
            self._last_local += 1
            self._more[self._last_local] = port
        return list(self._more)[-count:]

    def spare(self) -> tuple[int, int]:
        """Number and port of a further one, the same until `keep`."""
        if self._spare not in self._more:
            (self._spare,) = self.open_more(1)
        return self._spare, self._more[self._spare]

    def keep(self, local: int) -> None:
        """All ports but that of number `local` (the first, if there is none) are closed."""
        kept = self._more.get(local, self.port)
        for port in {self.port, *self._more.values()} - {kept}:
            del self.host.sockets[port]
        self.port = kept
        self._more = {local: kept} if local else {}

    def receive(self, train: Train) -> None:
        port = train.destination[1]
        local = next((n for n, more in self._more.items() if more == port), 0) if self._more else 0
        for arrival in train.arrivals(self.gro):
            arrival.local = local
            self.endpoint.datagram_received(arrival, self._network.now)
            self.drive()

    def drive(self) -> None:
        """What follows each stimulus. Call it after touching the endpoint from outside."""
        if self._driving:
            return  # on_event touched the endpoint: the loop below goes on anyway
        self._driving = True
        try:
            self._take_events()
            for transmit in self.endpoint.datagrams_to_send(self._network.now):
                datagrams = list(transmit.datagrams())
                self.datagrams_sent += len(datagrams)
                port = self._more.get(transmit.local, self.port)
                self.host.send(port, transmit.address, datagrams, transmit.ttl)
            self._take_events()
        finally:
            self._driving = False
        self._schedule()

    def replace(self, endpoint: Endpoint) -> None:
        """Another endpoint takes over the socket."""
        self.endpoint = cast(E, endpoint)
        self.drive()

    def _take_events(self) -> None:
        while (event := self.endpoint.next_event()) is not None:
            self.events.append(event)
            if self.on_event is not None:
                self.on_event(event)

    def _schedule(self) -> None:
        """One pending wake-up: an earlier timer gets another, a later one is seen when the pending one comes."""
        timer = self.endpoint.next_timer()
        if timer is not None and timer < self._timer_at:
            self._timer_at = max(timer, self._network.now)
            self._network.call_with(self._timer_at, self._wake, self._timer_at)

    def _wake(self, scheduled: float) -> None:
        if scheduled != self._timer_at:
            return  # superseded by an earlier one
        self._timer_at = math.inf
        timer = self.endpoint.next_timer()
        if timer is not None and timer <= self._network.now:
            self.endpoint.timer_expired(self._network.now)
            self.drive()
        else:
            self._schedule()
