"""Punching, in virtual time: which networks let a path through, which path it is, how long it takes, and that both
sides always say the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import combinations_with_replacement, pairwise
from typing import Any

import pytest

from tests.sim import (
    ADDRESS_RESTRICTED,
    FULL_CONE,
    PORT_RESTRICTED,
    SYMMETRIC,
    SYMMETRIC_RANDOM,
    Host,
    NatKind,
    Network,
    Recorder,
    Reflector,
    Router,
    Socket,
    Train,
)
from udpsend.config import Role
from udpsend.events import PathKind
from udpsend.punching.channel import PROBE_SIZE
from udpsend.punching.deadline import PUNCH_TIMEOUT
from udpsend.punching.path import Path, PathValidated, PunchFailed
from udpsend.punching.puncher import Puncher
from udpsend.wire.candidate import Candidate, CandidateType
from udpsend.wire.datagram import Address, Arrival
from udpsend.wire.packets import KIND_PROBE, parse_header_untrusted

SECRET = bytes(range(32))
STUN = "198.51.100.7"


@dataclass
class Peer:
    """A host with one socket, which first asks the reflector for its address as a session asks STUN."""

    net: Network
    host: Host
    role: Role
    port: int = 4000
    same_host: bool = False
    socket: Socket[Any] = field(init=False)
    candidates: list[Candidate] = field(default_factory=list)
    puncher: Puncher = field(init=False)
    path_at: float = -1.0

    def discover(self, stun: bool = True) -> None:
        self.socket = self.host.bind(self.port, Recorder)
        if self.same_host:
            self.candidates.append(Candidate(CandidateType.LOOPBACK, ("127.0.0.1", self.port)))
        self.candidates += [Candidate(CandidateType.HOST, (ip, self.port)) for ip in self.host.interfaces]
        if stun:
            while not self.socket.endpoint.received:
                self.socket.endpoint.queue([b"who am I"], (STUN, 3478))
                self.socket.drive()
                self.net.run(until=lambda: bool(self.socket.endpoint.received), seconds=0.2)
            host, port = self.socket.endpoint.received[0][2].decode().split()
            self.candidates.append(Candidate(CandidateType.SERVER_REFLEXIVE, (host, int(port))))

    def start(self, remote: list[Candidate], secret: bytes = SECRET, hold: float = 0.0) -> None:
        net, name = self.net, f"{self.host.name}:{self.port}"
        self.puncher = Puncher(secret, self.role, net.now, net.random_bytes(name), self.same_host, hold=hold)
        self.puncher.add_local_candidates(self.candidates, net.now)
        self.puncher.add_remote_candidates(remote, net.now)
        self.socket.on_event = self._on_event
        self.socket.replace(self.puncher)

    def _on_event(self, event: PathValidated | PunchFailed) -> None:
        if isinstance(event, PathValidated):
            self.path_at = self.net.now

    @property
    def path(self) -> Path | None:
        return self.puncher.path

    @property
    def done(self) -> bool:
        return bool(self.socket.events)


@dataclass
class Pair:
    net: Network
    a: Peer
    b: Peer

    def punch(self, *, later: float = 0.0, seconds: float = 20.0) -> float:
        """Both start (b `later`); returns how long it took after both had."""
        start = self.net.now + later
        self.a.start(self.b.candidates)
        if later:
            self.net.run(seconds=later)
        self.b.start(self.a.candidates)
        self.net.run(until=lambda: self.a.done and self.b.done, seconds=seconds)
        self.net.run(seconds=1.0)  # nothing more may come of it
        self.check_agreement()
        return max(self.a.path_at, self.b.path_at) - start

    def check_agreement(self) -> None:
        assert len(self.a.socket.events) <= 1
        assert len(self.b.socket.events) <= 1
        assert (self.a.path is None) == (self.b.path is None), (self.a.socket.events, self.b.socket.events)
        if self.a.path and self.b.path:
            assert self.a.path.kind is self.b.path.kind
            self.check_path(self.a, self.b.path)
            self.check_path(self.b, self.a.path)

    def check_path(self, sender: Peer, seen: Path) -> None:
        """What `sender` sends to its path arrives from the path of the other."""
        receiver = self.b if sender is self.a else self.a
        recorder = Recorder()
        receiver.socket.replace(recorder)
        assert sender.path
        for _ in range(100):
            sender.host.send(sender.port, sender.path.address, [b"data"])
            self.net.run(seconds=0.01)
        self.net.run(seconds=1.0)
        receiver.socket.replace(receiver.puncher)
        sources = {source for _, source, datagram in recorder.received if datagram == b"data"}
        assert sources == {seen.address}

    @property
    def kind(self) -> PathKind | None:
        return self.a.path.kind if self.a.path else None


def with_reflector(seed: int) -> Network:
    net = Network(seed)
    stun = net.host("stun")
    net.internet.attach(stun, STUN)
    stun.bind(3478, Reflector)
    return net


def behind_nats(seed: int, first: NatKind | None, second: NatKind | None, **link: Any) -> Pair:
    """Two homes with 25 ms to the internet: 50 ms from one to the other. None is a host on the internet itself."""
    net = with_reflector(seed)
    link.setdefault("delay", 0.025)
    peers = []
    for number, (kind, role) in enumerate(((first, Role.SENDER), (second, Role.RECEIVER)), 1):
        host = net.host(f"host{number}")
        if kind is None:
            net.internet.attach(host, f"198.18.{number}.9", **link)
        else:
            net.gateway(f"home{number}", f"203.0.113.{number}", kind, **link).attach(host, f"192.168.{number}.10")
        peer = Peer(net, host, role)
        peer.discover()
        peers.append(peer)
    return Pair(net, *peers)


def on_one_lan(seed: int, **link: Any) -> Pair:
    net = Network(seed)
    lan = Router(net, "lan")
    a, b = net.host("a"), net.host("b")
    lan.attach(a, "192.168.1.10", **link)
    lan.attach(b, "192.168.1.11", **link)
    pair = Pair(net, Peer(net, a, Role.SENDER), Peer(net, b, Role.RECEIVER))
    pair.a.discover(stun=False)
    pair.b.discover(stun=False)
    return pair


KINDS: dict[str, NatKind | None] = {
    "open": None,
    "full cone": FULL_CONE,
    "address-restricted": ADDRESS_RESTRICTED,
    "port-restricted": PORT_RESTRICTED,
    "symmetric": SYMMETRIC,
    "symmetric, random": SYMMETRIC_RANDOM,
}
# Only the port that a symmetric NAT takes for the other NAT would help, and nobody knows it.
HOPELESS = [
    ("port-restricted", "symmetric"),
    ("port-restricted", "symmetric, random"),
    ("symmetric", "symmetric"),
    ("symmetric", "symmetric, random"),
    ("symmetric, random", "symmetric, random"),
]
COMBINATIONS = list(combinations_with_replacement(KINDS, 2))


@pytest.mark.parametrize(("first", "second"), [c for c in COMBINATIONS if c not in HOPELESS])
@pytest.mark.parametrize("swap", [False, True])
def test_nats_that_can_be_punched(seed: int, first: str, second: str, swap: bool) -> None:
    kinds = (KINDS[second], KINDS[first]) if swap else (KINDS[first], KINDS[second])
    pair = behind_nats(seed, *kinds)
    assert pair.punch() < 1.0
    assert pair.kind is PathKind.INTERNET


@pytest.mark.parametrize(("first", "second"), HOPELESS)
def test_nats_that_cannot_be_punched_fail_in_time(seed: int, first: str, second: str) -> None:
    pair = behind_nats(seed, KINDS[first], KINDS[second])
    start = pair.net.now
    pair.punch()
    assert pair.net.now - start <= 13.1
    for peer in (pair.a, pair.b):
        (event,) = peer.socket.events
        assert isinstance(event, PunchFailed)
        assert event.tried == 2


def test_lan_within_300_milliseconds(seed: int) -> None:
    pair = on_one_lan(seed, delay=0.0005)
    assert pair.punch() < 0.3
    assert pair.kind is PathKind.LOCAL_NETWORK
    assert pair.a.path is not None
    assert pair.a.path.address == ("192.168.1.11", 4000)
    assert pair.a.path.round_trip == pytest.approx(0.002)


def same_host(seed: int) -> Pair:
    net = with_reflector(seed)
    host = net.host("one")
    net.gateway("home", "203.0.113.1", PORT_RESTRICTED, delay=0.01).attach(host, "192.168.1.10")
    pair = Pair(net, Peer(net, host, Role.SENDER, 4000, True), Peer(net, host, Role.RECEIVER, 4001, True))
    pair.a.discover()
    pair.b.discover()
    return pair


def test_same_host_before_all_else(seed: int) -> None:
    pair = same_host(seed)
    assert pair.punch() < 0.1
    assert pair.kind is PathKind.THIS_HOST


def test_loopback_candidates_of_another_host_are_not_probed(seed: int) -> None:
    pair = on_one_lan(seed)
    pair.b.candidates.insert(0, Candidate(CandidateType.LOOPBACK, ("127.0.0.1", 4000)))
    pair.punch()
    assert pair.kind is PathKind.LOCAL_NETWORK
    assert pair.a.host.loopback.offered == 0


@pytest.mark.parametrize("hairpin", [False, True])
def test_lan_behind_one_nat_before_hairpin(seed: int, hairpin: bool) -> None:
    pair = one_home(seed, hairpin)
    assert pair.punch() < 0.3
    assert pair.kind is PathKind.LOCAL_NETWORK


def one_home(seed: int, hairpin: bool) -> Pair:
    net = with_reflector(seed)
    kind = NatKind(PORT_RESTRICTED.mapping, PORT_RESTRICTED.filtering, hairpin=hairpin)
    home = net.gateway("home", "203.0.113.1", kind, delay=0.01)
    a, b = net.host("a"), net.host("b")
    home.attach(a, "192.168.1.10")
    home.attach(b, "192.168.1.11")
    pair = Pair(net, Peer(net, a, Role.SENDER), Peer(net, b, Role.RECEIVER))
    pair.a.discover()
    pair.b.discover()
    return pair


def test_hairpin_where_hosts_may_not_talk_to_each_other(seed: int) -> None:
    """A guest network: the access point isolates its clients, only their mapped addresses meet."""
    pair = one_home(seed, hairpin=True)
    pair.b.candidates = [c for c in pair.b.candidates if c.type is CandidateType.SERVER_REFLEXIVE]
    pair.a.candidates = [c for c in pair.a.candidates if c.type is CandidateType.SERVER_REFLEXIVE]
    assert pair.punch() < 1.0
    assert pair.kind is PathKind.INTERNET


def test_ipv6_before_nat(seed: int) -> None:
    net = with_reflector(seed)
    peers = []
    for number, role in ((1, Role.SENDER), (2, Role.RECEIVER)):
        host = net.host(f"host{number}")
        home = net.gateway(f"home{number}", f"203.0.113.{number}", PORT_RESTRICTED, delay=0.005 * number)
        home.attach(host, f"192.168.{number}.10")
        home.attach(host, f"2001:db8:{number}::9", delay=0.02)  # slower, and still better
        peers.append(Peer(net, host, role))
        peers[-1].discover()
    pair = Pair(net, *peers)
    assert pair.punch() < 1.0
    assert pair.kind is PathKind.IPV6


def test_the_faster_of_two_that_are_equally_direct(seed: int) -> None:
    """Both have a cable besides the LAN, and another network sits in front: patience lasts until the cable has been
    measured, and the cable wins."""
    pair = on_one_lan(seed, delay=0.02)
    pair.net.cable(pair.a.host, "10.9.0.1", pair.b.host, "10.9.0.2", delay=0.001)
    for peer, ip in ((pair.a, "10.9.0.1"), (pair.b, "10.9.0.2")):
        peer.candidates.append(Candidate(CandidateType.HOST, (ip, 4000)))
    pair.punch()
    assert pair.a.path is not None
    assert pair.a.path.address[0] == "10.9.0.2"


def test_loss_of_20_percent(seed: int) -> None:
    for run in range(100):
        pair = behind_nats(seed + run, PORT_RESTRICTED, PORT_RESTRICTED, delay=0.025, loss=0.106)  # two links each way
        assert pair.punch() < 10
        assert pair.kind is PathKind.INTERNET, f"seed {seed + run}"


def test_bad_links_of_all_sorts_never_disagree(seed: int) -> None:
    """Loss so high that nominations fail and are withdrawn: whatever comes of it, it is the same on both sides."""
    kinds = [kind for kind in KINDS.values() if kind is not None]
    succeeded = 0
    for run in range(300):
        chance = Network(seed + run).random("test")
        pair = behind_nats(
            seed + run,
            chance.choice(kinds),
            chance.choice(kinds),
            loss=chance.choice((0.0, 0.1, 0.3)),
            jitter=chance.choice((0.0, 0.03)),
            ordered=chance.random() < 0.5,
            duplicate=chance.choice((0.0, 0.3)),
        )
        pair.punch(later=chance.choice((0.0, 0.3)))
        succeeded += pair.kind is PathKind.INTERNET
    assert succeeded > 100


@pytest.mark.parametrize("late", [Role.SENDER, Role.RECEIVER])
def test_one_side_starts_five_seconds_later(seed: int, late: Role) -> None:
    pair = behind_nats(seed, PORT_RESTRICTED, PORT_RESTRICTED)
    if late is Role.SENDER:
        pair.a, pair.b = pair.b, pair.a
    assert pair.punch(later=5.0) < 1.0
    assert pair.kind is PathKind.INTERNET


def test_candidates_that_come_later(seed: int) -> None:
    pair = behind_nats(seed, PORT_RESTRICTED, PORT_RESTRICTED)
    a, b = pair.a, pair.b
    a.start([])
    b.start([])
    pair.net.run(seconds=1.0)
    assert a.socket.datagrams_sent == b.socket.datagrams_sent == 1  # the question to the reflector
    for peer, remote in ((a, b.candidates), (b, a.candidates)):
        for candidate in remote:
            pair.net.run(seconds=0.3)
            peer.puncher.add_remote_candidates([candidate], pair.net.now)
            peer.puncher.add_remote_candidates([candidate], pair.net.now)
            peer.socket.drive()
    assert pair.net.run(until=lambda: a.done and b.done, seconds=1.0)
    pair.check_agreement()
    assert pair.kind is PathKind.INTERNET


def test_peer_reflexive_address_is_learned(seed: int) -> None:
    pair = behind_nats(seed, SYMMETRIC, FULL_CONE)
    pair.punch()
    assert pair.b.path is not None
    assert pair.b.path.address not in [c.address for c in pair.a.candidates]
    assert pair.b.path.address[0] == "203.0.113.1"  # a's home, from another port


@pytest.mark.parametrize("blocked", ["to a", "to b"])
def test_half_open_path_is_never_validated(seed: int, blocked: str) -> None:
    pair = on_one_lan(seed)
    peer = pair.a if blocked == "to a" else pair.b
    (address,) = peer.host.interfaces
    lan_link = peer.host.interfaces[address][1].deliver.__self__.routes[address]  # type: ignore[attr-defined]
    lan_link.down = True
    pair.punch()
    assert [type(event) for event in pair.a.socket.events + pair.b.socket.events] == [PunchFailed, PunchFailed]


def test_path_that_dies_after_its_validation_is_replaced(seed: int) -> None:
    """The LAN breaks at the moment of the nomination: the sender withdraws it, and both end on the other path."""
    pair = on_one_lan(seed, delay=0.005)
    net = pair.net
    there, back = net.cable(pair.a.host, "2001:db8:7::1", pair.b.host, "2001:db8:8::2", delay=0.05)
    for peer, ip in ((pair.a, "2001:db8:7::1"), (pair.b, "2001:db8:8::2")):
        peer.candidates.append(Candidate(CandidateType.HOST, (ip, 4000)))
    lan_links = [host.interfaces[ip][1] for host, ip in ((pair.a.host, "192.168.1.10"), (pair.b.host, "192.168.1.11"))]
    pair.a.start(pair.b.candidates)
    pair.b.start(pair.a.candidates)
    assert net.run(until=lambda: pair.a.puncher._nomination.generation == 1, seconds=1)
    for link in lan_links:
        link.down = True
    assert net.run(until=lambda: pair.a.done and pair.b.done)
    pair.check_agreement()
    assert pair.kind is PathKind.IPV6
    assert there.delivered
    assert back.delivered


def test_receiver_repeats_until_confirmed(seed: int) -> None:
    """The CONFIRM is lost: the side that decides has its path, the other repeats NOMINATED until it has it, too."""
    pair = on_one_lan(seed)
    link = pair.a.host.interfaces["192.168.1.10"][1]
    pair.a.start(pair.b.candidates)
    pair.b.start(pair.a.candidates)
    assert pair.net.run(until=lambda: pair.b.puncher._nomination.generation == 1, seconds=1)
    link.outage(pair.net.now, 0.5)
    assert pair.net.run(until=lambda: pair.a.done, seconds=1)
    assert not pair.b.done
    assert pair.net.run(until=lambda: pair.b.done, seconds=2)
    pair.check_agreement()


def test_strangers_and_replays_cost_nothing_and_learn_nothing(seed: int) -> None:
    """A stranger who sees all probes sends them again from elsewhere, and garbage with and without the right tag."""
    pair = behind_nats(seed, FULL_CONE, FULL_CONE)
    net = pair.net
    stranger = net.host("stranger")
    net.internet.attach(stranger, "198.18.66.6")
    captured: list[Train] = []
    home = net.internet.routes["203.0.113.2"]

    def on_probe(train: Train) -> None:
        datagram = train.datagrams[0]
        if train.source[0] == "198.18.66.6" or datagram[0] != KIND_PROBE:
            return
        captured.append(train)
        forged = datagram[:20] + bytes([datagram[20] ^ 1]) + datagram[21:]
        unnumbered = datagram[:8] + bytes([0, 0, 0, 1, 0, 0]) + datagram[14:]
        for attack in (
            datagram,
            forged,
            unnumbered,
            bytes([KIND_PROBE]) + bytes(14) + b"\1" + bytes(64),
            b"\xe1",
            datagram + bytes(1200),
        ):
            net.after(0.03, partial(stranger.send, 9, train.destination, [attack]))

    home.tap = on_probe
    assert pair.punch() < 1.0
    assert captured
    assert stranger.dropped["no socket"] == 0  # nothing was ever sent to the stranger
    drops = pair.b.puncher.drops
    assert drops["replayed"] >= len(captured)
    assert drops["forged"] >= len(captured)
    assert drops["not of this session"] >= len(captured)
    assert drops["probe size"] >= 2 * len(captured)


def test_probe_passed_on_first_from_a_forged_address_is_not_amplified(seed: int) -> None:
    """A stranger on the way holds the true probes back and sends them from the address of a victim: to the victim go at
    most three datagrams for each, and none is longer."""
    pair = behind_nats(seed, FULL_CONE, FULL_CONE)
    net = pair.net
    victim = net.host("victim")
    to_victim = net.internet.attach(victim, "198.18.66.6")[1]
    link = net.internet.routes["203.0.113.2"]
    passed_on = 0
    deliver = link.deliver

    def divert(train: Train) -> None:
        nonlocal passed_on
        passed_on += len(train.datagrams)
        deliver(train.with_source(("198.18.66.6", 9)))

    link.deliver = divert
    pair.punch()
    assert pair.kind is None
    assert passed_on > 10
    assert 0 < to_victim.offered <= 3 * passed_on
    assert to_victim.bytes_delivered == to_victim.delivered * PROBE_SIZE


def test_another_secret_never_meets(seed: int) -> None:
    pair = on_one_lan(seed)
    pair.a.start(pair.b.candidates)
    pair.b.start(pair.a.candidates, bytes(32))
    pair.net.run(seconds=20)
    assert isinstance(pair.a.socket.events[0], PunchFailed)
    assert pair.a.socket.events[0].heard == 0
    assert pair.a.puncher.drops["not of this session"] > 10


def test_reflected_probes_are_not_the_peers(seed: int) -> None:
    net = Network(seed)
    a = Puncher(SECRET, Role.SENDER, 0.0, net.random_bytes("a"), False)
    a.add_remote_candidates([Candidate(CandidateType.HOST, ("192.168.1.11", 4000))], 0.0)
    (probe,) = a.datagrams_to_send(0.0)
    a.datagram_received(Arrival.of(list(probe.datagrams()), probe.address), 0.01)
    assert a.drops["not of this session"] == 1
    assert not a.datagrams_to_send(0.01)


def test_probes_to_silence_are_paced_and_bounded(seed: int) -> None:
    """The most that a peer can make us send: 16 candidates where nobody answers."""
    net = Network(seed)
    a = Puncher(SECRET, Role.SENDER, 0.0, net.random_bytes("a"), False)
    a.add_remote_candidates([Candidate(CandidateType.HOST, ("10.0.0.9", port)) for port in range(1, 100)], 0.0)
    now, sent = 0.0, list[tuple[float, Address]]()
    while (timer := a.next_timer()) is not None:
        assert timer >= now
        now = timer
        a.timer_expired(now)
        sent += [(now, transmit.address) for transmit in a.datagrams_to_send(now)]
        assert len(sent) < 1000
    assert now == PUNCH_TIMEOUT
    assert len({address for _, address in sent}) == 16
    assert len(sent) <= 16 * 28, "as docs/protocol.md says"
    assert min(b[0] - a[0] for a, b in pairwise(sent)) > 0.0049
    assert isinstance(a.next_event(), PunchFailed)
    assert a.next_event() is None


def test_merged_probes_are_all_read(seed: int) -> None:
    """Offload may merge what the peer sent singly."""
    net = Network(seed)
    a = Puncher(SECRET, Role.SENDER, 0.0, net.random_bytes("a"), False)
    b = Puncher(SECRET, Role.RECEIVER, 0.0, net.random_bytes("b"), False)
    a.add_remote_candidates([Candidate(CandidateType.HOST, ("10.0.0.9", port)) for port in (1, 2, 3)], 0.0)
    probes = [d for now in (0.0, 0.01, 0.02) for t in a.datagrams_to_send(now) for d in t.datagrams()]
    assert [parse_header_untrusted(p).number for p in probes] == [0, 1, 2]
    b.datagram_received(Arrival.of(probes, ("10.0.0.1", 5)), 0.03)
    answers = b.datagrams_to_send(0.03)
    assert len(answers) == 4  # three responses, one request of its own


def test_silent_after_the_path_but_for_answers(seed: int) -> None:
    pair = on_one_lan(seed)
    pair.punch()
    sent = pair.a.socket.datagrams_sent + pair.b.socket.datagrams_sent
    assert pair.a.puncher.next_timer() is None
    pair.net.run(seconds=100)
    assert pair.a.socket.datagrams_sent + pair.b.socket.datagrams_sent == sent


@pytest.mark.parametrize("host", ["10.0.0.9", "2001:db8::9"])
def test_an_address_that_is_only_told_gets_three_times_what_the_peer_said(host: str, seed: int) -> None:
    net = Network(seed)
    a = Puncher(SECRET, Role.SENDER, 0.0, net.random_bytes("a"), False)
    a.credit = 500
    a.add_remote_candidates([Candidate(CandidateType.HOST, (host, 7))], 0.0)
    size = PROBE_SIZE + (48 if ":" in host else 28)
    now, sent = 0.0, 0
    while (timer := a.next_timer()) is not None:
        now = timer
        a.timer_expired(now)
        sent += len(a.datagrams_to_send(now))
        assert sent <= 3 * a.credit // size
        if sent == 3 * 500 // size:
            a.credit = 700
    assert sent == 3 * 700 // size
    assert a.tally.to_one_unheard == sent


def test_who_has_said_nothing_gets_no_opener_either(seed: int) -> None:
    a = Puncher(SECRET, Role.SENDER, 0.0, Network(seed).random_bytes("a"), False, hold=1.0)
    a.credit = 0
    a.add_remote_candidates([Candidate(CandidateType.SERVER_REFLEXIVE, ("203.0.113.9", 7))], 0.0)
    while (timer := a.next_timer()) is not None:
        a.timer_expired(timer)
        assert not a.datagrams_to_send(timer)
