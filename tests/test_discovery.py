"""Where this side can be reached: who is asked for it, and how often."""

from __future__ import annotations

import contextlib
import errno
import secrets
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import udpsend
from tests.servers import wait_until
from udpsend import discovery as discovery_module
from udpsend import relaying
from udpsend.config import Config
from udpsend.discovery import Discovery
from udpsend.events import PublicAddress
from udpsend.net.udp import UdpEndpoint
from udpsend.punching import portmap as portmap_module
from udpsend.punching.behaviour import NatBehaviour, Routers
from udpsend.punching.gateway import Gateway
from udpsend.punching.mappers import PortMapping
from udpsend.rendezvous.code import generate_code
from udpsend.rendezvous.multicast import MulticastMailbox
from udpsend.rendezvous.stun_round import StunRound
from udpsend.wire.candidate import Candidate, CandidateType


class _Lone:
    """A discovery without a session, and without the loop that makes its calls."""

    def __init__(self, *servers: socket.socket) -> None:
        self.endpoint = UdpEndpoint("127.0.0.1")
        self.candidates: list[list[Candidate]] = []
        self.behaviours: list[NatBehaviour] = []
        names = tuple(f"127.0.0.1:{server.getsockname()[1]}" for server in servers)
        self.discovery = Discovery(
            Config(brokers=(), stun_servers=names, bind="127.0.0.1", port_mapping=False),
            self.endpoint,
            lambda call: None,
            lambda event: None,
            lambda candidates, are_all: self.candidates.append(list(candidates)),
            self.behaviours.append,
        )
        self.discovery.start()

    def close(self) -> None:
        self.discovery.close()
        self.endpoint.close()


@pytest.fixture
def lone() -> Iterator[_Lone]:
    made = _Lone()
    yield made
    made.close()


@pytest.fixture
def asked(lone: _Lone, monkeypatch: pytest.MonkeyPatch) -> list[Sequence[int]]:
    """The rounds of questions to the STUN servers after the first."""
    rounds: list[Sequence[int]] = []
    monkeypatch.setattr(lone.discovery._stun, "ask", rounds.append)
    return rounds


def test_a_peer_that_wants_many_punchings_has_stun_servers_asked_once(lone: _Lone, asked: list[Sequence[int]]) -> None:
    for _ in range(200):
        lone.discovery.again()
    assert asked == []
    assert len(lone.candidates) == 200, "each punching has this side's addresses"


def test_what_is_known_of_the_nat_is_told_of_each_punching(lone: _Lone) -> None:
    assert len(lone.behaviours) == 1, "there is no server to wait for"
    lone.discovery.again()
    assert len(lone.behaviours) == 2
    assert lone.behaviours[0] == lone.behaviours[1]


def test_after_a_while_servers_are_asked_again(lone: _Lone, asked: list[Sequence[int]]) -> None:
    lone.discovery._asked_stun -= discovery_module.STUN_FRESH + 1
    lone.discovery.again()
    assert len(asked) == 1
    lone.discovery.again()
    assert len(asked) == 1


HOME = Candidate(CandidateType.HOST, ("10.1.0.70", 4000))
AWAY = Candidate(CandidateType.HOST, ("10.2.0.70", 4000))


def test_who_comes_into_another_network_tells_its_addresses_in_place_of_the_old_ones(
    lone: _Lone, asked: list[Sequence[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = [HOME]
    monkeypatch.setattr(discovery_module, "gather_host_candidates", lambda ports, bind: list(here))
    now = lone.discovery._looked
    assert not lone.discovery.look_around(now + 1), "it looks every few seconds"
    assert lone.discovery.look_around(now + 5), "it had none of its addresses before"
    assert not lone.discovery.look_around(now + 10)
    here[:] = [AWAY]
    assert lone.discovery.look_around(now + 15)
    assert lone.candidates == [[HOME], [AWAY]]
    assert len(asked) == 2, "the servers see another address, too"


@pytest.mark.parametrize("word", ["refresh", "again"])
def test_an_address_that_came_just_now_is_told(
    lone: _Lone, asked: list[Sequence[int]], monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    """However short ago the servers were asked."""
    monkeypatch.setattr(discovery_module, "gather_host_candidates", lambda ports, bind: [HOME])
    if word == "refresh":
        assert lone.discovery.refresh(lone.discovery._asked_stun)
    else:
        lone.discovery.again()
    assert lone.candidates == [[HOME]]
    assert len(asked) == 1


def test_who_has_moved_when_the_other_side_comes_reaches_the_mailboxes_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connections to them may be those of the network that was left."""
    renewed: list[MulticastMailbox] = []
    monkeypatch.setenv("UDPSEND_LAN_INTERFACES", "127.0.0.1")
    monkeypatch.setattr(Discovery, "refresh", lambda discovery, now: True)
    monkeypatch.setattr(MulticastMailbox, "renew", lambda mailbox: renewed.append(mailbox))
    (tmp_path / "there").mkdir()
    code, config = generate_code(secrets.token_bytes), Config(bind="127.0.0.1", brokers=(), stun_servers=(), timeout=20)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(udpsend.send, text="moved", code=code, config=config)
        udpsend.receive(code, tmp_path / "there", config=config)
        sent.result(20)
    assert len(set(renewed)) == 2


def test_another_port_is_no_other_network(
    lone: _Lone, asked: list[Sequence[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes of a search for a path, which the other side can begin as often as it likes."""
    host, port = lone.discovery.candidates[0].address
    moved = [Candidate(CandidateType.LOOPBACK, (host, port + 1))]
    monkeypatch.setattr(discovery_module, "gather_host_candidates", lambda ports, bind: moved)
    lone.discovery.again()
    assert asked == []


def test_who_has_no_ipv4_is_not_told_that_no_udp_gets_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers have IPv4 addresses, and nothing can be sent there."""
    loopback = Candidate(CandidateType.LOOPBACK, ("127.0.0.1", 4000))
    home = [loopback, Candidate(CandidateType.HOST, ("2001:db8::9", 4000))]
    monkeypatch.setattr(discovery_module, "gather_host_candidates", lambda ports, bind: home)
    asked: list[Sequence[int]] = []
    monkeypatch.setattr(StunRound, "ask", lambda _, families: asked.append(families))
    with contextlib.closing(UdpEndpoint()) as endpoint:
        config = Config(brokers=(), stun_servers=(), port_mapping=False)
        Discovery(config, endpoint, lambda _: None, lambda _: None, lambda *_: None, lambda _: None).start()
    assert asked == [[socket.AF_INET6]]


def test_what_servers_say_again_is_no_further_candidate(lone: _Lone) -> None:
    """While people carry texts they are asked every 15 s, for days if need be."""
    known = len(lone.discovery.candidates)
    for _ in range(3):
        lone.discovery._address_known(PublicAddress("stun.example", ("203.0.113.7", 4000)))
    assert len(lone.discovery.candidates) == known + 1
    assert lone.candidates == [[Candidate(CandidateType.SERVER_REFLEXIVE, ("203.0.113.7", 4000))]]


def test_a_system_that_cannot_be_asked_does_not_end_the_session(
    lone: _Lone, asked: list[Sequence[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object) -> list[Candidate]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(discovery_module, "gather_host_candidates", exhausted)
    assert not lone.discovery.look_around(lone.discovery._looked + 6)
    assert not lone.discovery.refresh(lone.discovery._asked_stun)
    lone.discovery.again()
    assert asked == []


def test_another_router_is_asked_for_a_mapping_and_the_old_one_is_told_no_more(
    lone: _Lone, asked: list[Sequence[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, here = [Gateway("10.1.0.65", "10.1.0.70")], [HOME]
    mappers: list[Gateway] = []
    closed: list[Gateway] = []

    class Mapper:
        def __init__(self, gateway: Gateway, *_: object) -> None:
            self.gateway = gateway
            mappers.append(gateway)

        def close(self) -> None:
            closed.append(self.gateway)

    monkeypatch.setattr(portmap_module, "PortMapper", Mapper)
    monkeypatch.setattr(discovery_module, "find_gateway", lambda bind: gateway[0])
    monkeypatch.setattr(discovery_module, "gather_host_candidates", lambda ports, bind: list(here))
    discovery = lone.discovery
    discovery._config = replace(discovery._config, port_mapping=True)
    discovery.look_around(discovery._looked + 6)
    discovery._port_mapped(PortMapping("PCP", ("203.0.113.1", 7000), 600))
    here.append(AWAY)
    discovery.look_around(discovery._looked + 6)
    assert Candidate(CandidateType.MAPPED, ("203.0.113.1", 7000)) in lone.candidates[-1]
    gateway[0], here[:] = Gateway("10.2.0.65", "10.2.0.70"), [AWAY]
    discovery.look_around(discovery._looked + 6)
    assert lone.candidates[-1] == [AWAY]
    assert [one.address for one in mappers] == ["10.1.0.65", "10.2.0.65"]
    wait_until(lambda: [one.address for one in closed] == ["10.1.0.65"])


def test_a_relay_is_connected_to_anew_where_the_old_one_is_of_no_use(
    lone: _Lone, asked: list[Sequence[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another address, or because it was lost; and not as often as a path is looked for."""
    here = [HOME]
    made: list[Relay] = []

    class Relay:
        name = "turn:relay.example"

        def __init__(self, url: str, bind: str | None, endpoint: object, call_soon: object, on_address: Any) -> None:
            self.tell = on_address
            self.is_over = False
            made.append(self)

        def close(self) -> None:
            self.is_over = True

    monkeypatch.setattr(relaying, "Relaying", Relay)
    monkeypatch.setattr(discovery_module, "gather_host_candidates", lambda ports, bind: list(here))
    discovery = lone.discovery
    discovery._config = replace(discovery._config, relay="turn:a:b@relay.example")
    discovery.look_around(discovery._looked + 6)
    made[0].tell(("203.0.113.9", 5000), "")
    discovery._asked_stun -= discovery_module.STUN_FRESH + 1
    discovery.again()
    assert len(made) == 1
    here[:] = [AWAY]
    discovery.look_around(discovery._looked + 6)
    assert [relay.is_over for relay in made] == [True, False]
    assert lone.candidates[-1] == [AWAY]
    made[1].tell(("203.0.113.9", 6000), "")
    relayed = Candidate(CandidateType.RELAYED, ("203.0.113.9", 6000))
    assert lone.candidates[-1] == [relayed]
    made[1].close()
    made[1].tell(None, "it has hung up")
    discovery._asked_stun -= discovery_module.STUN_FRESH + 1
    discovery.again()
    assert len(made) == 3
    assert lone.candidates[-1] == [AWAY]


def test_who_was_not_asked_has_no_routers_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's datagram that looks like STUN: nothing is sent to where it says that it comes from."""
    counted: list[str] = []

    def count(target: str, bind: str | None) -> Routers:
        counted.append(target)
        return Routers(1, True)

    monkeypatch.setattr(discovery_module, "routers_that_translate", count)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        lone = _Lone(server)
        try:
            lone.discovery.stun_received(b"\1\1\0\0" + bytes(16), ("203.0.113.66", 66))
            assert not lone.discovery._is_counted
            request = server.recv(2000)
            lone.discovery.stun_received(b"\1\1\0\0" + request[4:20], ("203.0.113.7", 3478))
            wait_until(lambda: counted)
            assert counted == ["203.0.113.7"]
        finally:
            lone.close()
