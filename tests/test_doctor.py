"""`udpsend doctor` on loopback: what it finds there, what it concludes, how it is shown, and two of them as a pair."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli_library import HOSTILE, assert_harmless
from tests.servers import LOOPBACK, PATIENCE, UdpServer, coturn, free_port
from tests.test_relay import turn_server
from udpsend import doctor
from udpsend.cli import doctor_report, main
from udpsend.config import Config
from udpsend.doctor import examination, stun_probe
from udpsend.doctor import nat as nat_examination
from udpsend.doctor.diagnosis import (
    Behaviour,
    Diagnosis,
    Lifetime,
    Mtu,
    Nat,
    Place,
    PortMappingFound,
    Ports,
    System,
)
from udpsend.doctor.outlook import ORDINARY, PEERS, Chance, kind_in_plain_words, prospects, works_with_ordinary_nats
from udpsend.doctor.pair import PairReport
from udpsend.doctor.places import NoAnswer, examine_broker, examine_relay, resolve
from udpsend.doctor.stun_probe import Question, StunProbe, parse_answer_untrusted
from udpsend.doctor.system import examine_mtu, examine_system
from udpsend.errors import BadPacket, PeerNeverCame, UdpsendError, UsageError
from udpsend.events import PathKind
from udpsend.rendezvous import mailboxes
from udpsend.serve.server import Server

CODE = "4821-marble-otter"
HOST: tuple[str, int] = ("10.1.0.70", 5000)
OUTSIDE: tuple[str, int] = ("203.0.113.5", 5000)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(LOOPBACK, 0, 0)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def config(server: Server) -> Config:
    return Config(
        brokers=(f"mqtt://{LOOPBACK}:{server.mqtt_port}",),
        stun_servers=(f"{LOOPBACK}:{server.stun_port}",),
        lan=False,
        bind=LOOPBACK,
        timeout=PATIENCE,
    )


def options(config: Config) -> list[str]:
    return ["--broker", *config.brokers, "--stun", *config.stun_servers, "--no-lan", "--bind", LOOPBACK]


# What it finds.


def test_diagnosis_of_loopback(config: Config) -> None:
    found = doctor.diagnose(config)
    assert [place.name for place in found.brokers] == list(config.brokers)
    assert found.brokers[0].seconds is not None
    assert found.stun_servers[0].seconds is not None
    assert found.ipv4.mapping is Behaviour.NONE
    assert found.ipv4.public == found.ipv4.local
    assert found.ipv4.ports is Ports.KEPT
    assert not found.ipv6.is_open_to_udp
    assert found.port_mapping.address is None
    assert found.mtu.interface is not None
    assert found.mtu.path == 1280  # more is not answered by the embedded server
    assert found.system.receive_buffer > 0
    assert works_with_ordinary_nats(found)
    assert json.loads(json.dumps(found.to_json()))["ipv4"]["mapping"] == "none"


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nat_examination, "DEFAULT_TIMEOUT", 0.1)
    closed = free_port()
    found = doctor.diagnose(
        Config(brokers=(f"mqtt://{LOOPBACK}:{closed}",), stun_servers=(f"{LOOPBACK}:{closed}",), bind=LOOPBACK)
    )
    assert found.brokers[0].seconds is None
    assert found.brokers[0].detail == "refused"  # the name is there already
    assert found.stun_servers[0] == Place(f"{LOOPBACK}:{closed}", None, "no answer")
    assert not works_with_ordinary_nats(found)


@pytest.mark.parametrize("wrong", [Config(brokers=("http://a",), bind=LOOPBACK), Config((), ("a:x",), bind=LOOPBACK)])
def test_what_is_no_server_is_wrong_usage(wrong: Config) -> None:
    with pytest.raises(UsageError):
        doctor.diagnose(wrong)


def test_offload_and_buffers_of_this_host() -> None:
    system = examine_system(LOOPBACK)
    assert system.segmentation in (True, False, None)
    assert (system.segmentation is None) == (system.coalescing is None)
    assert system.addresses == ()


def test_mtu_without_a_server_that_answers() -> None:
    assert examine_mtu(None, LOOPBACK) == Mtu()


def test_a_broker_that_hangs_up() -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:

        def hang_up() -> None:
            while True:
                try:
                    listener.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=hang_up, daemon=True).start()
        place = examine_broker(f"mqtt://{LOOPBACK}:{listener.getsockname()[1]}")
        listener.shutdown(socket.SHUT_RDWR)
    assert place.seconds is None


def test_a_relay_is_tried(tmp_path: Path) -> None:
    with turn_server(tmp_path, "--lt-cred-mech", "--user", "me:s3cret") as turn:
        good = examine_relay(f"turn:me:s3cret@{LOOPBACK}:{turn.port}", LOOPBACK)
        bad = examine_relay(f"turn:me:wrong@{LOOPBACK}:{turn.port}?transport=tcp", LOOPBACK)
    assert good.seconds is not None
    assert good.name == f"turn:{LOOPBACK}:{turn.port}"
    assert (bad.seconds, bad.detail) == (None, "it does not accept the user and password")


def test_names_are_resolved_in_order() -> None:
    assert resolve([f"{LOOPBACK}:1", "[::1]:2"], socket.AF_INET) == [(LOOPBACK, 1), NoAnswer.NO_ADDRESS]


def stun_answer(request: bytes, mapped: tuple[str, int], other: tuple[str, int] | None = None) -> bytes:
    def attribute(kind: int, address: tuple[str, int]) -> bytes:
        return struct.pack("!HHBBH4s", kind, 8, 0, 1, address[1], socket.inet_aton(address[0]))

    attributes = attribute(1, mapped) + (attribute(0x802C, other) if other else b"")
    return struct.pack("!HH", 0x0101, len(attributes)) + request[4:20] + attributes


def test_a_lost_answer_is_asked_for_again() -> None:
    lost = [True]

    def answer(request: bytes) -> list[bytes]:
        return [] if lost and lost.pop() else [stun_answer(request, OUTSIDE)]

    with UdpServer(answer) as server, StunProbe(socket.AF_INET, LOOPBACK) as probe:
        (found,) = probe.ask([Question((LOOPBACK, server.port))])
    assert found is not None
    assert found.mapped == OUTSIDE
    assert len(server.received) == 2


def test_a_server_has_the_time_that_a_session_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers after two seconds, of a clock that goes on where the probe waits."""
    now = 0.0
    asked: list[bytes] = []

    def arrived(probe: StunProbe, wait: float) -> list[tuple[bytes, tuple[str, int]]]:
        nonlocal now
        now += wait + 0.001  # or rounding keeps it just before what is waited for
        return [(stun_answer(asked[0], OUTSIDE), HOST)] if now >= 2.0 else []

    monkeypatch.setattr(stun_probe, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(StunProbe, "send", lambda probe, data, address: asked.append(data))
    monkeypatch.setattr(StunProbe, "_arrived", arrived)
    nat, _ = nat_examination.examine_nat(socket.AF_INET, [(LOOPBACK, 3478)], LOOPBACK)
    assert nat.public == OUTSIDE


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: b"",
        lambda request: request,
        lambda request: stun_answer(bytes(20), OUTSIDE),
        lambda request: stun_answer(request, OUTSIDE)[:-3],
        lambda request: stun_answer(request, (OUTSIDE[0], 0)),
        lambda request: stun_answer(request, ("224.0.0.1", 5000)),
        lambda request: stun_answer(request, ("255.255.255.255", 5000)),
        lambda request: request[:20] + bytes(1400),
    ],
)
def test_answers_that_are_none(answer: object) -> None:
    assert callable(answer)
    with UdpServer(lambda request: [answer(request) or b"\1"]) as server, StunProbe(socket.AF_INET, LOOPBACK) as probe:
        assert probe.ask([Question((LOOPBACK, server.port))], 0.1) == [None]


@given(st.binary(max_size=80), st.integers(0, 60))
def test_the_parser_raises_nothing_but_bad_packet(junk: bytes, position: int) -> None:
    valid = stun_answer(bytes(4) + b"\x21\x12\xa4\x42" + bytes(12), OUTSIDE, ("203.0.113.6", 3479))
    for data in (junk, valid[:position] + junk, valid[:position] + junk + valid[position + len(junk) :]):
        try:
            parse_answer_untrusted(data)
        except BadPacket:
            continue


def test_a_server_that_ignores_the_wish_for_another_address_tells_no_filtering() -> None:
    """It answers CHANGE-REQUEST from where it was asked."""
    with UdpServer(lambda request: [stun_answer(request, OUTSIDE, ("127.0.0.9", 9))]) as server:
        found, _ = nat_examination.examine_nat(socket.AF_INET, [(LOOPBACK, server.port)], LOOPBACK)
    assert found.filtering is Behaviour.NOT_TOLD


def test_one_server_that_translates_does_not_tell_the_mapping() -> None:
    with UdpServer(lambda request: [stun_answer(request, OUTSIDE)]) as server:
        found, _ = nat_examination.examine_nat(socket.AF_INET, [(LOOPBACK, server.port)], LOOPBACK)
    assert found.mapping is Behaviour.NOT_TOLD
    assert found.public == OUTSIDE


def test_lifetime_where_the_server_cannot_write_to_another_port() -> None:
    with UdpServer(lambda request: [stun_answer(request, OUTSIDE)]) as server:
        found = nat_examination.measure_lifetime((LOOPBACK, server.port), LOOPBACK, 1.0)
    assert "RESPONSE-PORT" in found.detail


def test_lifetime_without_a_nat(tmp_path: Path) -> None:
    with coturn(tmp_path) as port:
        found = nat_examination.measure_lifetime((LOOPBACK, port), LOOPBACK, 0.5)
    assert found.dead is None
    assert found.detail or found.alive == 0.5


@pytest.mark.parametrize(
    ("seen", "ports"),
    [
        ([5000, 5000], Ports.KEPT),
        ([6000, 6000], Ports.CHANGED),
        ([6000], Ports.NOT_TOLD),
        ([6000, 6001, 6003], Ports.SEQUENTIAL),
        ([6000, 6000, 6001], Ports.SEQUENTIAL),
        ([6000, 5990], Ports.RANDOM),
        ([6000, 6016], Ports.SEQUENTIAL),
        ([6000, 6017], Ports.RANDOM),
        ([6000, 61000, 12], Ports.RANDOM),
    ],
)
def test_how_ports_are_chosen(seen: list[int], ports: Ports) -> None:
    assert nat_examination._ports(5000, seen) is ports


# What it concludes.


def behind(mapping: Behaviour, filtering: Behaviour = Behaviour.NOT_TOLD, ports: Ports = Ports.RANDOM) -> Diagnosis:
    return Diagnosis(ipv4=Nat(HOST, OUTSIDE, mapping, filtering, ports))


EIM, APDM = Behaviour.ENDPOINT_INDEPENDENT, Behaviour.ADDRESS_AND_PORT_DEPENDENT
YES, SLOW, NO = Chance.YES, Chance.SLOW, Chance.NO


@pytest.mark.parametrize(
    ("diagnosis", "chances"),
    [
        (behind(Behaviour.NONE, Behaviour.NONE), [YES] * 6),
        (behind(Behaviour.NONE, APDM), [YES] * 5 + [SLOW]),
        (behind(EIM, EIM), [YES] * 6),
        (behind(EIM, Behaviour.ADDRESS_DEPENDENT), [YES] * 6),
        (behind(EIM, APDM), [YES] * 5 + [SLOW]),
        (behind(EIM), [YES] * 5 + [SLOW]),
        (behind(APDM, APDM), [YES, YES, SLOW, YES, SLOW, NO]),
        (behind(Behaviour.DEPENDENT), [YES, YES, SLOW, YES, SLOW, NO]),
        (behind(APDM, APDM, Ports.SEQUENTIAL), [YES, YES, YES, YES, YES, SLOW]),
        (Diagnosis(), [NO] * 6),
        (Diagnosis(system=System(("10.1.0.70",))), [YES] + [NO] * 5),
    ],
)
def test_with_whom_a_direct_path_would_work(diagnosis: Diagnosis, chances: list[Chance]) -> None:
    table = prospects(diagnosis)
    assert [prospect.peer for prospect in table] == list(PEERS)
    assert [prospect.chance for prospect in table] == chances
    expected = chances[PEERS.index(ORDINARY)] is not NO
    assert works_with_ordinary_nats(diagnosis) is expected


def test_who_asked_no_server_is_not_told_that_none_answers() -> None:
    assert prospects(Diagnosis())[-1].why == "no STUN server was asked"
    silent = Diagnosis(stun_servers=(Place("stun.example", None),))
    assert prospects(silent)[-1].why == "no STUN server answers: UDP does not get out"


def test_what_could_not_be_asked_is_not_called_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    numeric = socket.getaddrinfo
    monkeypatch.setattr(nat_examination, "DEFAULT_TIMEOUT", 0.1)
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **more: fail() if host == "stun.invalid" else numeric(host, *rest, **more),
    )
    config = Config(brokers=(), stun_servers=("stun.invalid:3478",), port_mapping=False)
    unresolved = doctor.diagnose(config)
    assert unresolved.stun_servers[0].detail == "its name cannot be resolved"
    # The address of an interface of this host that leads nowhere else: 127.0.0.1 has no way to the internet.
    away = Config(brokers=(), stun_servers=("198.51.100.7:3478",), port_mapping=False, bind=LOOPBACK)
    unrouted = doctor.diagnose(away)
    assert unrouted.stun_servers[0].detail == "this host has no way there"
    for found, why in (
        (unresolved, "the name of no STUN server can be resolved"),
        (unrouted, "this host has no way to a STUN server"),
    ):
        text = "\n".join([*doctor_report.lines(found), *doctor_report.picture(found, unicode=False)])
        assert why in text
        assert "UDP" not in text
        assert prospects(found)[-1].why == why


def test_ctrl_c_does_not_wait_for_the_examinations(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    examined: list[bool] = []

    def interrupted(*_: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(examination, "examine_broker", lambda url: examined.append(ended.wait(20)))
    monkeypatch.setattr(examination, "_examine_family", interrupted)
    with pytest.raises(KeyboardInterrupt):
        doctor.diagnose(Config(("mqtt://127.0.0.1:9",), (), bind=LOOPBACK, port_mapping=False))
    assert not examined, "it was waited for"
    ended.set()


def test_a_port_mapping_opens_a_symmetric_nat_unless_there_is_another_behind_it() -> None:
    nat = Nat(HOST, OUTSIDE, APDM, APDM, Ports.RANDOM)
    outermost = Diagnosis(ipv4=nat, port_mapping=PortMappingFound("PCP", (OUTSIDE[0], 7000)))
    inner = Diagnosis(ipv4=nat, port_mapping=PortMappingFound("PCP", ("100.64.3.4", 7000)))
    assert {prospect.chance for prospect in prospects(outermost)} == {YES}
    assert NO in {prospect.chance for prospect in prospects(inner)}


# How it is shown.

FULL = Diagnosis(
    (Place("mqtts://a:8883", 0.05), Place("mqtt://b:1883", None, HOSTILE)),
    (Place("c:3478", 0.02, "IPv4"),),
    System(("10.1.0.70", "2001:db8::1"), 212_992, 212_992, 8 << 20, True, False),
    Nat(HOST, OUTSIDE, EIM, APDM, Ports.KEPT, True, Lifetime(30, 60)),
    Nat(("2001:db8::1", 9), ("2001:db8::1", 9), Behaviour.NONE),
    PortMappingFound("PCP", (OUTSIDE[0], 7000)),
    Mtu(1500, 1492),
)


def test_the_report_has_it_all() -> None:
    text = "\n".join(doctor_report.lines(FULL))
    for part in (
        "mqtts://a:8883: 50 ms",
        "10.1.0.70:5000 here, 203.0.113.5:5000 outside; ports kept",
        "mapping endpoint-independent, filtering address-and-port-dependent, hairpinning yes",
        "between 30 and 60 s",
        "PCP, 203.0.113.5:7000",
        "1500 bytes at the interface, at least 1492 on the way",
        "net.core.rmem_max=8388608",
        "sending works, receiving does not work",
        "[2001:db8::1]:9",
    ):
        assert part in text
    assert all(peer.name in text for peer in PEERS)


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("diagnosis", [FULL, Diagnosis(), behind(APDM), behind(Behaviour.NONE)])
def test_the_picture(diagnosis: Diagnosis, unicode: bool) -> None:
    rows = doctor_report.picture(diagnosis, unicode=unicode)
    assert any("this host" in row and "the internet" in row for row in rows)
    assert ("router" in "".join(rows)) == (diagnosis.ipv4.mapping is not Behaviour.NONE)
    assert all(len(row) < 100 for row in rows)
    assert unicode or "".join(rows).isascii()


@pytest.mark.parametrize("mapping", list(Behaviour))
@pytest.mark.parametrize("filtering", list(Behaviour))
def test_every_kind_has_plain_words(mapping: Behaviour, filtering: Behaviour) -> None:
    assert kind_in_plain_words(Nat(HOST, OUTSIDE, mapping, filtering))


def test_what_the_network_said_is_escaped(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "diagnose", lambda config, lifetime: FULL)
    assert main(["doctor", *options(config)]) == 0
    assert_harmless(capsys.readouterr().out)


def test_the_command_prints_json(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", *options(config)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["direct_path"] is True
    assert found["brokers"][0]["seconds"] > 0
    assert found["ipv4"]["public"][0] == LOOPBACK


def test_the_command_ends_with_5_where_no_direct_path_would_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--broker", "none", "--stun", "none", "--bind", LOOPBACK]) == 5
    told = capsys.readouterr().out
    assert "no STUN server was asked" in told
    assert "not asked through" in told
    assert "lets no UDP through" not in told


@pytest.mark.parametrize("wrong", ["0", "-1", "nan", "1e9", "x"])
def test_lifetimes_that_are_none(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--lifetime", wrong, "--broker", "none", "--stun", "none", "--bind", LOOPBACK]) == 2
    assert "Traceback" not in capsys.readouterr().err


# Two of them.


def try_both(config: Config, codes: tuple[str, str]) -> list[PairReport | UdpsendError]:
    ends: list[PairReport | UdpsendError] = []

    def run(code: str) -> None:
        try:
            ends.append(doctor.try_pair(code, config))
        except UdpsendError as error:
            ends.append(error)

    threads = [threading.Thread(target=run, args=(code,), daemon=True) for code in codes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * PATIENCE)
    return ends


def test_a_pair_finds_its_path_and_sends_nothing(config: Config) -> None:
    ends = try_both(config, (CODE, CODE))
    assert len(ends) == 2
    for end in ends:
        assert isinstance(end, PairReport), end
        assert end.path.kind is PathKind.THIS_HOST
        assert end.path.address[0] == LOOPBACK
        assert end.this_side
        assert end.other_side


def test_a_pair_of_one(config: Config) -> None:
    alone = Config(brokers=config.brokers, stun_servers=(), lan=False, bind=LOOPBACK, timeout=0.5)
    with pytest.raises(PeerNeverCame):
        doctor.try_pair(CODE, alone)


def test_where_one_mailbox_cannot_be_opened_those_before_it_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = threading.Event()

    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(mailboxes, "open_mqtt", lambda *_: [SimpleNamespace(close=closed.set)])
    monkeypatch.setattr(mailboxes, "open_multicast", no_thread)
    with pytest.raises(RuntimeError):
        doctor.try_pair(CODE, Config(brokers=(), stun_servers=(), bind=LOOPBACK))
    assert closed.wait(PATIENCE)


def test_of_a_pair_nobody_is_called_the_sender(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """What of it sends is not known, and nothing is sent."""
    assert main(["doctor", "--code", "4821-marble-otter", "--timeout", "0.5", *options(config)]) == 3
    told = capsys.readouterr().err
    assert "Trying the pair: run the same command on the other machine" in told
    assert "sender" not in told
