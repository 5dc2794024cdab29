"""Which addresses are offered, who is on this host, how direct an address is."""

from __future__ import annotations

import errno
from dataclasses import dataclass

import ifaddr
import pytest

from udpsend.errors import BadPacket
from udpsend.events import PathKind
from udpsend.punching import candidates as candidates_module
from udpsend.punching.candidates import MAX_HOST_CANDIDATES, gather_host_candidates, path_kind, same_host_token
from udpsend.wire.candidate import Candidate, CandidateType, parse_candidate_untrusted

LOOPBACK, HOST = CandidateType.LOOPBACK, CandidateType.HOST


@dataclass
class Ip:
    ip: str | tuple[str, int, int]


@dataclass
class Adapter:
    name: str
    ips: list[Ip]
    index: int = 1


@pytest.fixture
def adapters(monkeypatch: pytest.MonkeyPatch) -> list[Adapter]:
    found: list[Adapter] = [
        Adapter("docker0", [Ip("172.17.0.1")]),
        Adapter("eth0", [Ip("192.168.1.10"), Ip(("fd00::9", 0, 0)), Ip(("fe80::1", 0, 2)), Ip(("2001:db8::9", 0, 0))]),
        Adapter("eth1", [Ip("169.254.3.4"), Ip("192.168.1.10")]),
        Adapter("lo", [Ip(("::1", 0, 0)), Ip("127.0.0.1"), Ip("127.0.1.1")]),
    ]
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: found)
    monkeypatch.setattr(candidates_module, "source_towards", lambda target: None)
    return found


def hosts(candidates: list[Candidate]) -> list[str]:
    return [candidate.address[0] for candidate in candidates]


def test_best_first_each_once_with_the_port_of_its_family(adapters: list[Adapter]) -> None:
    candidates = gather_host_candidates({4: 4000, 6: 6000})
    assert candidates == [
        Candidate(LOOPBACK, ("127.0.0.1", 4000)),
        Candidate(LOOPBACK, ("::1", 6000)),
        Candidate(HOST, ("192.168.1.10", 4000)),
        Candidate(HOST, ("2001:db8::9", 6000)),
        Candidate(HOST, ("fd00::9", 6000)),
        Candidate(HOST, ("169.254.3.4", 4000)),
        Candidate(HOST, ("172.17.0.1", 4000)),
    ]
    assert [parse_candidate_untrusted(candidate.to_json()) for candidate in candidates] == candidates


@pytest.mark.parametrize("bind", [None, "10.9.9.9"])
def test_without_a_list_of_interfaces_there_are_the_sources_of_the_routes(
    monkeypatch: pytest.MonkeyPatch, bind: str | None
) -> None:
    """Android refuses netlink, and so may systemd."""

    def refuse() -> list[Adapter]:
        raise PermissionError(errno.EACCES, "Permission denied")

    sources = {"192.0.2.1": "192.168.1.10", "2001:db8::1": None}
    monkeypatch.setattr(ifaddr, "get_adapters", refuse)
    monkeypatch.setattr(candidates_module, "source_towards", sources.get)
    found = hosts(gather_host_candidates({4: 4000, 6: 6000}, bind))
    assert found == (["127.0.0.1", "::1", "192.168.1.10"] if bind is None else [bind])


@pytest.mark.parametrize("host", ["100:0:0:1::7f00:1", "0100:0000:0000:0001:0:0:a00:1", "100:0:0:1::"])
def test_a_peer_does_not_name_what_our_relay_reaches(host: str) -> None:
    """Such an address is ours alone: it would send probes by way of our relay, to its own host, say."""
    for kind in ("host", "srflx", "relay"):
        with pytest.raises(BadPacket, match="candidate address"):
            parse_candidate_untrusted([kind, host, 4000])


@pytest.mark.parametrize(
    "host",
    [
        "224.0.0.1",
        "ff02::1",
        "0.0.0.0",  # noqa: S104
        "::",
        "255.255.255.255",
        "fe80::1%eth0",
        "::ffff:127.0.0.1",
        "::ffff:224.0.0.1",
    ],
)
def test_a_peer_aims_no_probes_where_nobody_or_everybody_is(host: str) -> None:
    with pytest.raises(BadPacket, match="candidate address"):
        parse_candidate_untrusted(["host", host, 4000])


@pytest.mark.parametrize(("port", "is_taken"), [(-1, False), (0, False), (1, True), (65_535, True), (65_536, False)])
def test_ports_of_candidates(port: int, is_taken: bool) -> None:
    if is_taken:
        assert parse_candidate_untrusted(["host", "10.0.0.1", port]).address == ("10.0.0.1", port)
    else:
        with pytest.raises(BadPacket, match="candidate port"):
            parse_candidate_untrusted(["host", "10.0.0.1", port])


def test_one_family_and_one_address(adapters: list[Adapter]) -> None:
    assert hosts(gather_host_candidates({4: 1})) == ["127.0.0.1", "192.168.1.10", "169.254.3.4", "172.17.0.1"]
    assert hosts(gather_host_candidates({4: 1, 6: 2}, "192.168.1.10")) == ["192.168.1.10"]
    assert hosts(gather_host_candidates({6: 2}, "2001:DB8::9")) == ["2001:db8::9"]
    assert hosts(gather_host_candidates({6: 2}, "::")) == ["::1", "2001:db8::9", "fd00::9"]


def test_many_addresses_leave_room_for_what_stun_finds(adapters: list[Adapter]) -> None:
    adapters.append(Adapter("eth2", [Ip(f"10.0.0.{n}") for n in range(1, 100)]))
    candidates = gather_host_candidates({4: 4000, 6: 6000})
    assert len(candidates) == MAX_HOST_CANDIDATES < 16
    assert hosts(candidates)[:3] == ["127.0.0.1", "::1", "192.168.1.10"]


def test_what_the_default_routes_start_from_is_never_left_out(
    adapters: list[Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first twelve in the order of the system were offered: of a host with many tunnels its address on the local
    network was not among them, and none of IPv6."""
    adapters.insert(0, Adapter("tun0", [Ip(f"10.0.0.{n}") for n in range(1, 100)]))
    adapters[2].ips.append(Ip(("2001:db8::a", 0, 0)))
    sources = {"192.0.2.1": "192.168.1.10", "2001:db8::1": "2001:db8::a"}
    monkeypatch.setattr(candidates_module, "source_towards", sources.get)
    assert hosts(gather_host_candidates({4: 4000, 6: 6000}))[:5] == [
        *("127.0.0.1", "::1", "192.168.1.10", "2001:db8::a", "10.0.0.1"),
    ]


def test_families_are_ip_versions() -> None:
    with pytest.raises(ValueError, match="IP version"):
        gather_host_candidates({2: 4000, 10: 4000})


def test_this_host_really() -> None:
    """Reads the interfaces of this machine; sends nothing."""
    assert "127.0.0.1" in hosts(gather_host_candidates({4: 4000}))


def test_same_host_token() -> None:
    token = same_host_token(b"salt")
    assert token == same_host_token(b"salt")
    assert token != same_host_token(b"pepper")
    assert len(token) == 32


def test_same_host_token_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", missing)
    assert same_host_token(b"salt") == same_host_token(b"salt")


OWN = [
    Candidate(LOOPBACK, ("127.0.0.1", 1)),
    Candidate(HOST, ("192.168.1.10", 1)),
    Candidate(HOST, ("198.51.100.9", 1)),
    Candidate(HOST, ("2001:db8:1::9", 1)),
    Candidate(CandidateType.SERVER_REFLEXIVE, ("203.0.113.1", 1)),
]


@pytest.mark.parametrize(
    ("host", "same_host", "kind"),
    [
        ("127.0.0.1", True, PathKind.THIS_HOST),
        ("::1", True, PathKind.THIS_HOST),
        ("192.168.1.10", True, PathKind.THIS_HOST),
        ("192.168.1.10", False, PathKind.LOCAL_NETWORK),  # the same private address in another home
        ("192.168.77.1", False, PathKind.LOCAL_NETWORK),
        ("fd12::1", False, PathKind.LOCAL_NETWORK),
        ("fe80::1%eth0", False, PathKind.LOCAL_NETWORK),
        ("198.51.100.77", False, PathKind.LOCAL_NETWORK),  # a campus: public addresses side by side
        ("198.51.101.77", False, PathKind.INTERNET),
        ("2001:db8:1::77", False, PathKind.LOCAL_NETWORK),
        ("2001:db8:2::77", False, PathKind.IPV6),
        ("203.0.113.1", True, PathKind.INTERNET),  # hairpin
        ("203.0.113.77", False, PathKind.INTERNET),
        ("100.64.0.9", False, PathKind.INTERNET),
    ],
)
def test_path_kind(host: str, same_host: bool, kind: PathKind) -> None:
    assert path_kind(OWN, (host, 9), same_host) is kind
