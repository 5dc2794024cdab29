"""Symmetric NATs, and hosts that masquerade and let strays in, in virtual time: which ways there are around them, how
long they take, and how many packets."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec.structs import replace

from tests.sim import (
    ADDRESS_RESTRICTED,
    MASQUERADE_OPEN,
    PORT_RESTRICTED,
    SYMMETRIC,
    SYMMETRIC_RANDOM,
    Depends,
    Host,
    NatKind,
    Network,
    Ports,
    Recorder,
    Reflector,
    Socket,
    Train,
)
from udpsend.config import Role
from udpsend.errors import BadPacket
from udpsend.punching.behaviour import (
    MappingBehaviour,
    NatBehaviour,
    Routers,
    judge_behaviour,
    parse_behaviour_untrusted,
    search_apart,
)
from udpsend.punching.deadline import Deadline
from udpsend.punching.hard import FAN_SOCKETS, MAX_SEARCH, PORTS, Fan, PortSearch, Target, choose_method
from udpsend.punching.path import PathValidated, PunchFailed, SocketsWanted
from udpsend.punching.puncher import Puncher
from udpsend.wire.candidate import Candidate, CandidateType
from udpsend.wire.datagram import Address

STUN = ("198.51.100.7", "198.51.100.8")
BUSY_EASY = NatKind(Depends.NOTHING, Depends.ADDRESS_AND_PORT, Ports.RANDOM)


@dataclass
class Peer:
    """A host that knows its NAT from two reflectors."""

    net: Network
    host: Host
    role: Role
    gateway: Any
    socket: Socket[Any] = field(init=False)
    candidates: list[Candidate] = field(init=False)
    behaviour: NatBehaviour = field(init=False)
    puncher: Puncher = field(init=False)
    path_at: float | None = None
    failed: bool = False
    local: int = 0

    routers: int = 1

    def discover(self) -> None:
        self.socket = self.host.bind(4000, Recorder)
        seen: dict[str, Address | None] = {}
        for server in STUN:
            self.socket.endpoint.queue([b"who am I"], (server, 3478))
            self.socket.drive()
            self.net.run(seconds=0.2)
            host, port = self.socket.endpoint.received[-1][2].decode().split()
            seen[server] = (host, int(port))
        self.candidates = [Candidate(CandidateType.HOST, (ip, 4000)) for ip in self.host.interfaces]
        judged = replace(judge_behaviour(self.candidates, seen), routers=Routers(self.routers, are_all=True))
        self.behaviour = search_apart(judged, 4000, self.socket.spare)
        reflexive = {address for address in seen.values() if address is not None}
        self.candidates += [Candidate(CandidateType.SERVER_REFLEXIVE, address) for address in sorted(reflexive)]

    def start(self, peer: Peer, hold: float) -> None:
        now = self.net.now
        self.puncher = Puncher(bytes(32), self.role, now, self.net.random_bytes(self.host.name), False, hold=hold)
        self.puncher.add_local_candidates(self.candidates, now)
        self.puncher.add_remote_candidates(peer.candidates, now)
        self.puncher.set_behaviours(self.behaviour, peer.behaviour, now)
        self.socket.on_event = self._on_event
        self.socket.replace(self.puncher)

    def hear_word(self) -> None:
        self.puncher.peer_opened(self.net.now)
        self.socket.drive()

    def hear_another_word(self) -> None:
        self.puncher.peer_spoke(self.net.now)
        self.socket.drive()

    @property
    def ended(self) -> bool:
        return self.path_at is not None or self.failed

    def _on_event(self, event: object) -> None:
        match event:
            case SocketsWanted(count):
                self.puncher.sockets_opened(self.socket.open_more(count), self.net.now)
            case PathValidated(path):
                self.path_at = self.net.now
                self.local = path.local
            case PunchFailed():
                self.failed = True


def two_homes(seed: int, first: NatKind, second: NatKind) -> tuple[Network, Peer, Peer]:
    net = Network(seed)
    for address in STUN:
        server = net.host(address)
        net.internet.attach(server, address)
        server.bind(3478, Reflector)
    peers: list[Peer] = []
    for number, (kind, role) in enumerate(((first, Role.SENDER), (second, Role.RECEIVER)), 1):
        gateway = net.gateway(f"home{number}", f"203.0.{number}.1", kind, delay=0.025)
        host = net.host(f"host{number}")
        gateway.attach(host, f"192.168.{number}.10")
        peer = Peer(net, host, role, gateway)
        peer.discover()
        peers.append(peer)
    return net, peers[0], peers[1]


def behind_two_layers(seed: int, routers: int) -> tuple[Network, Peer, Peer]:
    """A home router behind a carrier's NAT that lets strays in, and such a host on the other side. The first side
    believes that so many `routers` of its own translate."""
    net, _, b = two_homes(seed, MASQUERADE_OPEN, MASQUERADE_OPEN)
    carrier = net.gateway("carrier", "203.0.3.1", MASQUERADE_OPEN, delay=0.025)
    home = net.gateway("inner", "100.64.0.2", PORT_RESTRICTED, above=carrier)
    host = net.host("inside")
    home.attach(host, "192.168.9.10")
    a = Peer(net, host, Role.SENDER, home, routers=routers)
    a.discover()
    return net, a, b


def punch(net: Network, a: Peer, b: Peer, *, hold: float = 0.0, word: float | None = None) -> float | None:
    """a starts and then b; seconds until both have a path, or None. `word`: delay of the mailbox."""
    a.start(b, hold)
    net.run(seconds=0.05)
    b.start(a, hold)
    start = net.now
    if word is not None:
        net.after(word - 0.05, b.hear_word)
        net.after(word, a.hear_word)
    net.run(until=lambda: a.ended and b.ended, seconds=30)
    if a.path_at is None or b.path_at is None:
        assert a.path_at is b.path_at
        return None
    return max(a.path_at, b.path_at) - start


def times(seed: int, runs: int, first: NatKind, second: NatKind) -> list[float]:
    taken = []
    for number in range(runs):
        net, a, b = two_homes(seed + number, first, second)
        seconds = punch(net, a, b)
        assert seconds is not None, f"seed {seed + number}"
        for peer in (a, b):
            assert peer.puncher.tally.sent <= 4096
            assert peer.puncher.tally.size <= 1_000_000
            assert peer.puncher.tally.to_one_unheard <= 32
        taken.append(seconds)
    return taken


@pytest.mark.parametrize("easy", [PORT_RESTRICTED, BUSY_EASY])
@pytest.mark.parametrize("swap", [False, True])
def test_random_ports_against_an_easy_nat(seed: int, easy: NatKind, swap: bool) -> None:
    kinds = (easy, SYMMETRIC_RANDOM) if swap else (SYMMETRIC_RANDOM, easy)
    taken = times(seed, 10, *kinds)
    assert statistics.median(taken) < 5.0


@pytest.mark.parametrize("swap", [False, True])
def test_sequential_ports_are_predicted(seed: int, swap: bool) -> None:
    kinds = (PORT_RESTRICTED, SYMMETRIC) if swap else (SYMMETRIC, PORT_RESTRICTED)
    taken = times(seed, 10, *kinds)
    assert max(taken) < 1.5


def test_sequential_ports_of_a_busy_nat_are_found_with_the_fan(seed: int) -> None:
    net, a, b = two_homes(seed, SYMMETRIC, PORT_RESTRICTED)
    a.gateway._next_port += 700  # others behind it were busy since it was asked
    seconds = punch(net, a, b)
    assert seconds is not None
    assert seconds < 6.0


def test_the_fan_is_not_opened_where_plain_punching_works(seed: int) -> None:
    net, a, b = two_homes(seed, SYMMETRIC_RANDOM, ADDRESS_RESTRICTED)
    seconds = punch(net, a, b)
    assert seconds is not None
    assert seconds < 1.0
    assert a.puncher.tally.sent < 50
    assert not any(isinstance(event, SocketsWanted) for event in a.socket.events)


def test_the_path_is_on_the_socket_that_won_and_nothing_else_is_needed(seed: int) -> None:
    net, a, b = two_homes(seed, SYMMETRIC_RANDOM, PORT_RESTRICTED)
    assert punch(net, a, b) is not None
    assert a.local > 0
    assert b.local == b.behaviour.local > 0
    assert a.puncher.path is not None
    assert b.puncher.path is not None
    for peer in (a, b):
        peer.socket.keep(peer.local)
    for sender, receiver, address in ((a, b, a.puncher.path.address), (b, a, b.puncher.path.address)):
        recorder = Recorder()
        receiver.socket.replace(recorder)
        sender.host.send(sender.socket.port, address, [b"data"])
        net.run(seconds=1.0)
        assert recorder.received


@pytest.mark.parametrize("drift", [(0, 0), (3, 0), (0, 17), (25, 12)])
def test_two_sequential_nats_cross_whatever_others_took(seed: int, drift: tuple[int, int]) -> None:
    net, a, b = two_homes(seed, SYMMETRIC, SYMMETRIC)
    for peer, taken in zip((a, b), drift, strict=True):
        peer.gateway._next_port += taken
    seconds = punch(net, a, b, hold=1.0, word=0.1)
    assert seconds is not None
    assert seconds < 3.0
    assert max(a.puncher.tally.sent, b.puncher.tally.sent) < 700


def test_two_symmetric_nats_fail_in_time_and_without_a_search(seed: int) -> None:
    net, a, b = two_homes(seed, SYMMETRIC_RANDOM, SYMMETRIC_RANDOM)
    start = net.now
    assert punch(net, a, b) is None
    assert net.now - start < 12.1
    assert a.puncher.tally.sent < 200


@pytest.mark.parametrize(("hard", "bar"), [(SYMMETRIC, 3.0), (SYMMETRIC_RANDOM, 10.0)])
def test_the_search_of_a_host_that_lets_strays_in(seed: int, hard: NatKind, bar: float) -> None:
    """What comes from the fan with full TTL would take the place of its own answers."""
    taken = []
    for number in range(20):
        net, a, b = two_homes(seed + number, MASQUERADE_OPEN, hard)
        seconds = punch(net, a, b, hold=1.0, word=0.1)
        assert seconds is not None, f"seed {seed + number}"
        taken.append(seconds)
    assert statistics.median(taken) < bar


@pytest.mark.parametrize("second", [MASQUERADE_OPEN, PORT_RESTRICTED])
def test_openers_and_a_word_prevent_the_early_packet_race(seed: int, second: NatKind) -> None:
    for number in range(20):
        net, a, b = two_homes(seed + number, MASQUERADE_OPEN, second)
        seconds = punch(net, a, b, hold=1.0, word=0.1)
        assert seconds is not None, f"seed {seed + number}"
        assert seconds < 1.0


@pytest.mark.parametrize("swap", [False, True])
def test_openers_cross_all_routers_of_the_own_side(seed: int, swap: bool) -> None:
    for number in range(20):
        net, a, b = behind_two_layers(seed + number, routers=2)
        first, second = (b, a) if swap else (a, b)
        seconds = punch(net, first, second, hold=1.0, word=0.1)
        assert seconds is not None, f"seed {seed + number}"
        assert seconds < 1.0


def test_openers_that_cross_one_router_of_two_do_not_help(seed: int) -> None:
    net, a, b = behind_two_layers(seed, routers=1)
    assert punch(net, a, b, hold=1.0, word=0.1) is None


def test_openers_go_further_once_it_is_known_how_far() -> None:
    outside = Candidate(CandidateType.SERVER_REFLEXIVE, ("203.0.113.1", 4000))
    puncher = Puncher(bytes(32), Role.SENDER, 0.0, bytes, False, hold=1.0)
    puncher.add_remote_candidates([outside], 0.0)
    assert [transmit.ttl for transmit in puncher.datagrams_to_send(0.0)] == [2]
    for routers, ttls in ((1, []), (2, [3]), (2, []), (1, [])):
        known = NatBehaviour(MappingBehaviour.INDEPENDENT, ("203.0.113.2", 4000), routers=Routers(routers))
        puncher.set_behaviours(known, NatBehaviour(), 0.1)
        assert [transmit.ttl for transmit in puncher.datagrams_to_send(0.1)] == ttls


def test_without_openers_a_stray_breaks_the_mapping(seed: int) -> None:
    net, a, b = two_homes(seed, MASQUERADE_OPEN, MASQUERADE_OPEN)
    assert punch(net, a, b) is None


def test_without_the_peers_word_the_hold_ends(seed: int) -> None:
    net, a, b = two_homes(seed, PORT_RESTRICTED, PORT_RESTRICTED)
    seconds = punch(net, a, b, hold=1.0)
    assert seconds is not None
    assert 2.0 < seconds < 3.0


def test_with_other_words_of_the_peer_the_hold_ends_sooner(seed: int) -> None:
    net, a, b = two_homes(seed, PORT_RESTRICTED, PORT_RESTRICTED)
    for peer in (a, b):
        net.after(0.2, peer.hear_another_word)
    seconds = punch(net, a, b, hold=1.0)
    assert seconds is not None
    assert 1.2 < seconds < 2.0


def test_openers_do_not_reach_the_other_home(seed: int) -> None:
    net, a, b = two_homes(seed, PORT_RESTRICTED, PORT_RESTRICTED)
    came: list[Train] = []
    b.gateway.down.tap = came.append
    a.start(b, hold=1.0)
    net.run(seconds=0.9)
    assert came == []
    assert net.internet.dropped["ttl"] == 1


# the methods by themselves


def test_a_search_visits_each_port_once() -> None:
    for seed in (bytes(8), bytes(range(8)), b"\xff" * 8):
        search = PortSearch(NatBehaviour(MappingBehaviour.DEPENDENT), ("203.0.113.1", 5000), 0, 0, 0.0, seed)
        ports = [search.take(0.0)[0][1] for _ in range(MAX_SEARCH)]
        assert len(set(ports)) == MAX_SEARCH
        assert min(ports) >= 65_536 - PORTS
        assert max(ports) < 65_536
        assert search.due == float("inf")


def test_a_search_starts_with_the_next_ports_if_they_are_in_order() -> None:
    peer = NatBehaviour(MappingBehaviour.DEPENDENT, ("203.0.113.1", 65_530), True)
    search = PortSearch(peer, ("203.0.113.1", 65_530), 0, 1, 0.0, bytes(8))
    last = [65_531, 65_532, 65_533, 65_534, 65_535]
    targets = [search.take(0.0) for _ in range(10)]
    assert [port for (_, port), _, _ in targets] == last + last
    assert [local for _, local, _ in targets] == [0] * 5 + [1] * 5  # to the main socket, and to the fan
    assert all(search.take(0.0)[0][1] < 65_536 for _ in range(1000))


def test_who_calls_late_is_given_what_was_due_meanwhile_but_for_a_long_pause() -> None:
    search = PortSearch(NatBehaviour(MappingBehaviour.DEPENDENT), ("203.0.113.1", 5000), 0, 0, 0.0, bytes(8))
    taken: list[Target] = []
    for milliseconds in (*range(1000, 2000, 11), 5000):
        now, before = milliseconds / 1000, len(taken)
        while search.due <= now:
            taken.append(search.take(now))
        assert len(taken) - before <= 9
    assert len(taken) == pytest.approx(990 / 2.5 + 8, abs=2)


def test_a_fan_with_fewer_sockets_than_wanted_goes_round_and_ends() -> None:
    fan = Fan(("203.0.113.1", 5000), 0.0, 0.0, (2, 3, 0))
    assert fan.sockets_wanted == FAN_SOCKETS
    assert fan.take(1.0) is None
    assert fan.due == float("inf")
    fan.sockets_opened([3, 4], 1.0)
    used = []
    while fan.due < float("inf"):
        target = fan.take(fan.due)
        assert target is not None
        used.append(target[1:])
    assert used == [(3, 2), (4, 2), (3, 3), (4, 3), (3, 0), (4, 0)]


def test_no_method_without_sockets_or_for_two_of_a_kind() -> None:
    hard = NatBehaviour(MappingBehaviour.DEPENDENT, ("203.0.113.1", 5000))
    easy = NatBehaviour(MappingBehaviour.INDEPENDENT, ("203.0.113.2", 5000))
    assert choose_method(Role.SENDER, hard, hard, 0, 0.0, bytes) is None
    assert choose_method(Role.SENDER, easy, easy, 0, 0.0, bytes) is None
    assert choose_method(Role.SENDER, hard, NatBehaviour(), 0, 0.0, bytes) is None
    assert isinstance(choose_method(Role.SENDER, hard, easy, 0, 0.0, bytes), Fan)
    assert isinstance(choose_method(Role.SENDER, easy, hard, 0, 0.0, bytes), PortSearch)


# behaviours

HOST = [Candidate(CandidateType.HOST, ("192.0.2.5", 4000))]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({}, NatBehaviour()),
        ({"a": None, "b": None}, NatBehaviour(MappingBehaviour.SILENT)),
        ({"a": ("203.0.113.1", 1), "b": None}, NatBehaviour(MappingBehaviour.UNKNOWN, ("203.0.113.1", 1))),
        ({"a": ("192.0.2.5", 4000)}, NatBehaviour(MappingBehaviour.NONE, ("192.0.2.5", 4000))),
        ({"a": ("2001:db8::1", 1), "b": ("2001:db8::1", 1)}, NatBehaviour(MappingBehaviour.SILENT)),
        (
            {"a": ("203.0.113.1", 7), "b": ("203.0.113.1", 7)},
            NatBehaviour(MappingBehaviour.INDEPENDENT, ("203.0.113.1", 7)),
        ),
        (
            {"a": ("203.0.113.1", 8), "b": ("203.0.113.1", 7)},
            NatBehaviour(MappingBehaviour.DEPENDENT, ("203.0.113.1", 8), True),
        ),
        (
            {"a": ("203.0.113.1", 800), "b": ("203.0.113.1", 7)},
            NatBehaviour(MappingBehaviour.DEPENDENT, ("203.0.113.1", 800), False),
        ),
        (
            {"a": ("203.0.113.1", 8), "b": ("203.0.113.2", 7)},
            NatBehaviour(MappingBehaviour.DEPENDENT, ("203.0.113.1", 8), False),
        ),
    ],
)
def test_what_servers_say_tells_the_mapping(seen: dict[str, Address | None], expected: NatBehaviour) -> None:
    found = judge_behaviour(HOST, seen)
    assert found == expected
    assert parse_behaviour_untrusted(found.to_json()) == found


@pytest.mark.parametrize("mapping", MappingBehaviour)
@pytest.mark.parametrize("port", [4000, 4001])
def test_a_search_has_a_socket_of_its_own_where_ports_are_kept(mapping: MappingBehaviour, port: int) -> None:
    judged = NatBehaviour(mapping, ("203.0.113.1", port))
    is_apart = mapping is MappingBehaviour.INDEPENDENT and port == 4000
    apart = NatBehaviour(mapping, ("203.0.113.1", 5000), local=3)
    assert search_apart(judged, 4000, lambda: (3, 5000)) == (apart if is_apart else judged)
    assert search_apart(judged, 4000, lambda: None) == judged


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "independent",
        ["independent"],
        ["magic", None, 0, False],
        ["dependent", "224.0.0.1", 5, False],
        ["dependent", "127.0.0.1", 5, False],
        ["dependent", "203.0.113.1", 0, False],
        ["dependent", "203.0.113.1", 70_000, False],
        ["dependent", "2001:db8::1", 5, False],
        ["dependent", "203.0.113.1", 5, 1],
        ["dependent", 5, 5, False],
    ],
)
def test_what_is_no_behaviour_is_refused(value: object) -> None:
    with pytest.raises(BadPacket):
        parse_behaviour_untrusted(value)


# how long to look


def give_up_at(own: NatBehaviour, peer: NatBehaviour, *candidates: Candidate, has_more: bool = False) -> float:
    """Of a puncher that hears nothing; the candidates are the peer's, known from the start."""
    puncher = Puncher(bytes(32), Role.SENDER, 0.0, bytes, False, 11.5, has_more=has_more)
    puncher.add_local_candidates([Candidate(CandidateType.HOST, ("192.168.1.5", 4000))], 0.0)
    puncher.add_local_candidates([Candidate(CandidateType.HOST, ("2001:db8::5", 4000))], 0.0)
    puncher.add_remote_candidates([Candidate(CandidateType.LOOPBACK, ("::1", 4000)), *candidates], 0.0)
    puncher.set_behaviours(own, peer, 0.0)
    now = 0.0
    while puncher.unfinished:
        puncher.datagrams_to_send(now)
        timer = puncher.next_timer()
        assert timer is not None
        now = max(now, timer)
        puncher.timer_expired(now)
    return now


RANDOM = NatBehaviour(MappingBehaviour.DEPENDENT, ("203.0.113.1", 5000))
ORDERED = NatBehaviour(MappingBehaviour.DEPENDENT, ("203.0.113.3", 5000), True)
EASY = NatBehaviour(MappingBehaviour.INDEPENDENT, ("203.0.113.2", 5000))
SILENT = NatBehaviour(MappingBehaviour.SILENT)
OUTSIDE = Candidate(CandidateType.SERVER_REFLEXIVE, ("203.0.113.9", 4000))


@pytest.mark.parametrize(
    ("own", "peer", "seconds"),
    [
        (RANDOM, RANDOM, 5.0),
        (RANDOM, ORDERED, 5.0),
        (SILENT, EASY, 5.0),
        (EASY, SILENT, 5.0),
        (EASY, EASY, 5.0),  # one outside address: no hairpin, or it had come up
        (ORDERED, NatBehaviour(MappingBehaviour.DEPENDENT, ("203.0.113.4", 5000), True), 11.5),
        (EASY, RANDOM, 11.5),
        (NatBehaviour(), EASY, 11.5),
    ],
)
def test_where_nothing_can_come_up_it_is_said_soon(own: NatBehaviour, peer: NatBehaviour, seconds: float) -> None:
    assert give_up_at(own, peer, OUTSIDE) == seconds


def test_where_there_is_no_ip_version_in_common_it_is_said_soon() -> None:
    deadline = Deadline(0.0, 11.5, has_more=False)
    deadline.candidates_known([OUTSIDE], 0.0, own=True)
    assert deadline.at(is_heard=False) == 11.5
    deadline.candidates_known([Candidate(CandidateType.HOST, ("2001:db8::9", 4000))], 0.0, own=False)
    assert deadline.at(is_heard=False) == 5.0
    assert deadline.at(is_heard=True) == 11.5


@pytest.mark.parametrize(
    "further",
    [
        Candidate(CandidateType.MAPPED, ("203.0.113.9", 4001)),
        Candidate(CandidateType.RELAYED, ("203.0.113.9", 4001)),
        Candidate(CandidateType.HOST, ("2001:db8::9", 4001)),
    ],
)
def test_where_something_else_may_come_up_it_is_waited_for(further: Candidate) -> None:
    assert give_up_at(RANDOM, RANDOM, OUTSIDE, further) == 11.5
    assert give_up_at(RANDOM, RANDOM, OUTSIDE, has_more=True) == 11.5


def test_candidates_that_come_late_have_their_time() -> None:
    deadline = Deadline(0.0, 11.5, has_more=False)
    deadline.behaviours_known(RANDOM, RANDOM)
    for now, until in ((2.0, 5.0), (4.5, 6.5), (11.0, 11.5)):
        deadline.candidates_known([OUTSIDE], now, own=True)
        assert deadline.at(is_heard=False) == until
        assert deadline.at(is_heard=True) == 11.5


def test_a_nomination_prolongs_the_wait_within_bounds_and_never_shortens_it() -> None:
    deadline = Deadline(0.0, 11.5, has_more=True)
    for now, until in ((1.0, 11.5), (11.0, 13.0), (12.5, 14.5), (14.4, 15.5), (15.4, 15.5)):
        deadline.nominated(now)
        assert deadline.at(is_heard=True) == until
