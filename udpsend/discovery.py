"""Where this side can be reached, found while the session runs: each address is a candidate, told as it is known.

1. The interfaces, at once.
2. STUN servers, on the session's own socket; from what they see also what the NAT does. The first answer shows a
   host on the internet: how many routers on the way there may translate.
3. A port mapping from the router.
4. A relay, where one was asked for.

2 to 4 work in threads of their own and are not waited for. It starts over where this host has other addresses than
before: who waits for the other side may come home meanwhile, or have begun without a network (`look_around`); and
where a path has died (`again`). What the servers said a moment ago holds, however often somebody asks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from socket import AF_INET6
from typing import TYPE_CHECKING

from msgspec.structs import replace

from udpsend import events
from udpsend.config import Config
from udpsend.net import clock
from udpsend.net.udp import UdpEndpoint
from udpsend.punching.behaviour import NatBehaviour, Routers, judge_behaviour, search_apart
from udpsend.punching.candidates import gather_host_candidates
from udpsend.punching.gateway import Gateway, find_gateway
from udpsend.punching.hops import routers_that_translate
from udpsend.rendezvous.stun_round import Seen, StunRound
from udpsend.wire.candidate import Candidate, CandidateType
from udpsend.wire.datagram import Address, Arrival

if TYPE_CHECKING:  # what most sessions do without is imported where it is used: 60 ms of start-up
    from udpsend.punching.mappers import PortMapping
    from udpsend.punching.portmap import PortMapper
    from udpsend.relaying import Relaying

KEEP_ALIVE = 15.0  # seconds; most NATs remember for 30 at least
LOOK_INTERVAL = 5.0  # seconds; as often as multicast looks at the interfaces
STUN_FRESH = 3.0  # seconds; a NAT may have forgotten by then, and who waited longer asks again when the other is there


class Discovery:
    """All callbacks are called in the loop, which `call_soon` leads to."""

    def __init__(
        self,
        config: Config,
        endpoint: UdpEndpoint,
        call_soon: Callable[[Callable[[], None]], None],
        emit: Callable[[events.Event], None],
        on_candidates: Callable[[list[Candidate], bool], None],
        on_behaviour: Callable[[NatBehaviour], None],
    ) -> None:
        """`on_candidates` is given what was found, and whether these are all that there are."""
        self._config = config
        self._endpoint = endpoint
        self._call_soon = call_soon
        self._emit = emit
        self._on_candidates = on_candidates
        self._on_behaviour = on_behaviour
        self._stun = StunRound(
            config.stun_servers, endpoint.send_datagram, call_soon, self._address_known, self._nat_known
        )
        self._asked_stun = 0.0
        self._seen: Seen | None = None  # by the servers of the latest round, until it is judged,
        self._judged: Seen | None = None  # and from then on
        self._routers: Routers | None = Routers()  # None while they are being counted
        self._is_counted = False
        self._hosts = gather_host_candidates(endpoint.ports, config.bind)
        self._looked = clock.now()
        self.candidates = [*self._hosts]
        """All that are known."""
        self._gateway: Gateway | None = None
        self._port_mapper: PortMapper | None = None
        self._relaying: Relaying | None = None
        self.is_complete = False
        """The STUN servers have said what they will."""
        self._lasting: list[Candidate] = []  # found once, and good for as long as the session lives

    def start(self) -> None:
        """Raises UsageError for a STUN server or a relay that is not written as one."""
        self._ask_stun_servers()
        self._map_port()
        self._connect_relay()

    def again(self) -> None:
        """Another path is looked for, maybe since the other side says so: it may say so two hundred times at once."""
        hosts = self._look()
        if self._is_here(hosts) and clock.now() - self._asked_stun <= STUN_FRESH:
            self._on_candidates(self.candidates, True)
            self._tell_behaviour()
        else:
            self._start_over(hosts)

    def look_around(self, now: float) -> bool:
        """While the other side is waited for: whether this host has moved."""
        return now - self._looked >= LOOK_INTERVAL and self._has_moved(now)

    def refresh(self, now: float) -> bool:
        """The other side is there: is what it is told still true? Whether this host has moved."""
        if self._has_moved(now):
            return True
        if now - self._asked_stun > STUN_FRESH:
            self._ask_stun_servers()
        return False

    def _has_moved(self, now: float) -> bool:
        self._looked = now
        hosts = self._look()
        if self._is_here(hosts):
            return False
        self._start_over(hosts)
        return True

    def keep_alive(self, now: float) -> None:
        """While people carry texts: what they say of our addresses has to stay true."""
        if now - self._asked_stun > KEEP_ALIVE:
            self._ask_stun_servers()

    def stun_received(self, datagram: bytes, address: Address) -> None:
        is_answer = self._stun.datagram_received(datagram)  # anybody may send what looks like one
        if is_answer and not self._is_counted and ":" not in address[0]:
            self._count_routers(address[0])

    def turn(self, now: float, received: Callable[[Arrival, float], None]) -> None:
        """Once in each turn of the loop. `received` takes what came through the relay and no select would show."""
        if self._relaying is not None:
            self._relaying.turn(now, received)

    def close(self) -> None:
        """Blocks for a second at most, for the router."""
        if self._relaying is not None:
            self._relaying.close()
        if self._port_mapper is not None:
            self._port_mapper.close()

    def _look(self) -> list[Candidate]:
        try:
            return gather_host_candidates(self._endpoint.ports, self._config.bind)
        except OSError:  # the system has no descriptor left to ask it with: hundreds of sockets may search for a port
            return self._hosts

    def _is_here(self, hosts: list[Candidate]) -> bool:
        """These are the addresses that it had, in whatever order the system lists them. The port is another one where a
        path was found by a search: a peer may bring that about, and is not to have the servers asked by it."""
        return {one.address[0] for one in hosts} == {one.address[0] for one in self._hosts}

    def _start_over(self, hosts: list[Candidate]) -> None:
        if not self._is_here(hosts) or (self._relaying is not None and self._relaying.is_over):
            # An allocation belongs to the address from which it was asked for.
            self._forget(CandidateType.RELAYED)
            self._connect_relay()
        self._hosts = hosts
        self._is_counted = False
        self._map_port()
        self.candidates = hosts + self._lasting
        self._on_candidates(self.candidates, True)
        self._ask_stun_servers()

    def _found(self, candidate: Candidate) -> None:
        if candidate not in self.candidates:  # servers are asked again and again
            self.candidates.append(candidate)
            self._on_candidates([candidate], False)

    def _ask_stun_servers(self) -> None:
        self._asked_stun, self._judged = clock.now(), None
        families = self._endpoint.families
        if self._config.bind is None:  # of a version that this host does not have, silence would say nothing
            has = {candidate.is_ipv6 for candidate in self.candidates if candidate.type is CandidateType.HOST}
            families = [family for family in families if (family == AF_INET6) in has]
        self._stun.ask(families)

    def _address_known(self, public: events.PublicAddress) -> None:
        self._emit(public)
        if public.address is not None:
            self._found(Candidate(CandidateType.SERVER_REFLEXIVE, public.address))

    def _nat_known(self, seen: Seen) -> None:
        self._seen = seen
        self._settle()

    def _count_routers(self, target: str) -> None:
        self._is_counted = True
        self._routers = None
        bind = self._config.bind

        def count() -> None:
            routers = routers_that_translate(target, bind)
            self._call_soon(lambda: self._routers_known(routers))

        threading.Thread(target=count, name="udpsend-hops", daemon=True).start()

    def _routers_known(self, routers: Routers) -> None:
        self._routers = routers
        self._settle()

    def _settle(self) -> None:
        if self._seen is not None and self._routers is not None:
            self._judged, self._seen = self._seen, None
            self.is_complete = True
            self._tell_behaviour()

    def _tell_behaviour(self) -> None:
        if self._judged is not None and self._routers is not None:
            behaviour = replace(judge_behaviour(self.candidates, self._judged), routers=self._routers)
            self._on_behaviour(search_apart(behaviour, self._endpoint.ports.get(4, 0), self._endpoint.spare))

    def _map_port(self) -> None:
        port = self._endpoint.ports.get(4)
        gateway = find_gateway(self._config.bind) if self._config.port_mapping and port else None
        if gateway == self._gateway:
            return
        self._gateway = gateway
        if self._port_mapper is not None:
            # The router of a network that was left may be silent for a second.
            threading.Thread(target=self._port_mapper.close, name="udpsend-unmap", daemon=True).start()
            self._port_mapper = None
            self._forget(CandidateType.MAPPED)
        if gateway is None or port is None:
            return

        from udpsend.punching.portmap import PortMapper

        def take(mapping: PortMapping) -> None:
            if gateway == self._gateway:  # not that of a network that was left
                self._port_mapped(mapping)

        def on_mapping(mapping: PortMapping) -> None:
            self._call_soon(lambda: take(mapping))

        def on_failure(why: str) -> None:
            self._call_soon(lambda: self._emit(events.PortMapped("", None, why)))

        self._port_mapper = PortMapper(gateway, port, on_mapping, on_failure)

    def _port_mapped(self, mapping: PortMapping) -> None:
        self._emit(events.PortMapped(mapping.protocol, mapping.address))
        self._found_to_last(Candidate(CandidateType.MAPPED, mapping.address))

    def _connect_relay(self) -> None:
        """Raises UsageError."""
        if self._config.relay is None:
            return
        from udpsend.relaying import Relaying

        if self._relaying is not None:
            self._relaying.close()
        relay, bind = self._config.relay, self._config.bind
        self._relaying = Relaying(relay, bind, self._endpoint, self._call_soon, self._relay_known)

    def _relay_known(self, address: Address | None, why_not: str) -> None:
        if self._relaying is not None:
            self._emit(events.RelayReady(self._relaying.name, address, why_not))
        self._forget(CandidateType.RELAYED)
        if address is not None:
            self._found_to_last(Candidate(CandidateType.RELAYED, address))

    def _found_to_last(self, candidate: Candidate) -> None:
        self._lasting.append(candidate)
        self._found(candidate)

    def _forget(self, kind: CandidateType) -> None:
        self._lasting = [candidate for candidate in self._lasting if candidate.type is not kind]
