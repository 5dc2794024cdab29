"""STUN clients against our responder, coturn, servers that do not do what they should, and hostile ones."""

from __future__ import annotations

import contextlib
import ipaddress
import queue
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import SimpleNamespace

import aioice.stun
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.servers import LOOPBACK, UdpServer, coturn, has_ipv6, slow_look_ups
from udpsend.errors import BadPacket, UsageError
from udpsend.punching.behaviour import MappingBehaviour, judge_behaviour
from udpsend.rendezvous import stun as stun_module
from udpsend.rendezvous.stun import StunClient, StunError, parse_stun_server
from udpsend.rendezvous.stun_round import StunRound
from udpsend.serve.responder import MAGIC_COOKIE, respond_untrusted
from udpsend.serve.server import Server
from udpsend.wire.datagram import Address, is_stun

DEBIAN_CONFIGURATION = Path("/etc/turnserver.conf")


class Driver:
    """One socket, read by one thread, which hands what looks like STUN to the clients: what the real driver does."""

    def __init__(self, family: socket.AddressFamily = socket.AF_INET) -> None:
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind(("::1" if family == socket.AF_INET6 else LOOPBACK, 0))
        self.socket.settimeout(0.05)
        self.address = self.socket.getsockname()[:2]
        self.family = family
        self.clients: list[StunClient] = []
        self.sent: list[bytes] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def send(self, data: bytes, address: tuple[str, int]) -> None:
        self.sent.append(data)
        self.socket.sendto(data, address)

    def client(self, server: str) -> StunClient:
        self.clients.append(StunClient(server, self.send, self.family))
        return self.clients[-1]

    def _read(self) -> None:
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                data = self.socket.recv(2048)
                if data and is_stun(data[0]):
                    for client in self.clients:
                        client.datagram_received(data)

    def close(self) -> None:
        self._stopping = True
        self._thread.join()
        self.socket.close()


@pytest.fixture
def driver() -> Iterator[Driver]:
    driver = Driver()
    yield driver
    driver.close()


def ask(driver: Driver, port: int, timeout: float = 20.0) -> Address:
    return driver.client(f"{LOOPBACK}:{port}").query(timeout)


def has_cookie(request: bytes) -> bool:
    return request[4:8] == MAGIC_COOKIE.to_bytes(4)


def response(request: bytes, *attributes: tuple[int, bytes], kind: int = 0x0101, length: int | None = None) -> bytes:
    body = b"".join(
        struct.pack("!HH", type_, len(value)) + value + bytes(-len(value) % 4) for type_, value in attributes
    )
    return struct.pack("!HH", kind, len(body) if length is None else length) + request[4:20] + body


def mapped(host: str, port: int, family: int = 1) -> bytes:
    return struct.pack("!xBH", family, port) + ipaddress.ip_address(host).packed


def xored(request: bytes, host: str, port: int) -> bytes:
    packed = ipaddress.ip_address(host).packed
    return struct.pack("!xBH", 1, port ^ 0x2112) + bytes(a ^ b for a, b in zip(packed, request[4:8], strict=True))


# The four servers.


def test_our_server(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stun_module, "RFC3489_SHARE", 6.0)  # this machine may be busy
    with Server(LOOPBACK, 0, 0) as server:
        assert ask(driver, server.stun_port) == driver.address
        assert server.stun_answers == 1
    assert not any(map(has_cookie, driver.sent)), "pystun3 could have read the answer"


def test_coturn_without_configuration(driver: Driver, tmp_path: Path) -> None:
    with coturn(tmp_path) as port:
        assert ask(driver, port) == driver.address


def test_coturn_as_debian_ships_it(driver: Driver, tmp_path: Path) -> None:
    """`no-stun-backward-compatibility` stands in its file: it does not answer RFC 3489."""
    with coturn(tmp_path, DEBIAN_CONFIGURATION) as port:
        assert ask(driver, port) == driver.address


def test_a_server_that_answers_with_xor_mapped_address_only(driver: Driver) -> None:
    def answer(request: bytes) -> list[bytes]:
        # To RFC 3489's transaction id it XORs with what stands where the cookie should: an address that is wrong.
        return [response(request, (0x8022, b"odd length here"), (0x0020, xored(request, *driver.address)))]

    with UdpServer(answer) as server:
        assert ask(driver, server.port) == driver.address
        assert [has_cookie(request) for request in server.received] == [False, True]


def test_a_server_that_knows_rfc_8489_only(driver: Driver) -> None:
    def answer(request: bytes) -> list[bytes]:
        return [response(request, (0x0020, xored(request, *driver.address)))] if has_cookie(request) else []

    with UdpServer(answer) as server:
        assert ask(driver, server.port) == driver.address


def test_a_silent_server_takes_no_more_than_its_time_while_another_serves(driver: Driver) -> None:
    with UdpServer(lambda request: []) as silent, Server(LOOPBACK, 0, 0) as server:
        failures: list[str] = []

        def ask_the_silent_one() -> None:
            with pytest.raises(StunError) as caught:
                ask(driver, silent.port, timeout=1.0)
            failures.append(str(caught.value))

        thread = threading.Thread(target=ask_the_silent_one)
        thread.start()
        assert ask(driver, server.stun_port) == driver.address
        thread.join(20)
        assert failures == ["no answer"]
        # The timers allow 2 + 3; a machine under load leaves some out. pystun3 alone would have sent 4 in no time.
        kinds = [has_cookie(request) for request in silent.received]
        assert set(kinds) == {False, True}
        assert len(kinds) <= 5


def test_ipv6() -> None:
    if not has_ipv6():
        pytest.skip("no IPv6 on this machine")
    driver = Driver(socket.AF_INET6)
    try:
        with Server("::1", 0, 0) as server:
            assert driver.client(f"[::1]:{server.stun_port}").query() == driver.address
        assert all(map(has_cookie, driver.sent)), "pystun3 does not know IPv6"
    finally:
        driver.close()


# Answers that are late, lost, or not for us.


def test_a_late_answer_to_the_first_kind_of_request_counts(driver: Driver) -> None:
    first: list[bytes] = []

    def answer(request: bytes) -> list[bytes]:
        if not has_cookie(request):
            first.append(request)
            return []
        return [response(first[0], (0x0001, mapped(*driver.address)))]

    with UdpServer(answer) as server:
        assert ask(driver, server.port) == driver.address


def test_the_time_that_importing_takes_is_not_the_servers(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    class SlowToImport(MetaPathFinder):
        """`aioice.stun` takes a minute, as it may on a busy machine, and the answer comes meanwhile."""

        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == "aioice.stun":
                monkeypatch.setattr(stun_module, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 60.0))

    def answer(request: bytes) -> list[bytes]:
        return [response(request, (0x0001, mapped(*driver.address)), (0x8022, b"odd length here"))]

    monkeypatch.delattr(aioice, "stun")
    monkeypatch.delitem(sys.modules, "aioice.stun")
    monkeypatch.setattr(sys, "meta_path", [SlowToImport(), *sys.meta_path])
    with UdpServer(answer) as server:
        assert ask(driver, server.port) == driver.address


def test_a_lost_request_is_sent_again(driver: Driver) -> None:
    seen: list[bytes] = []

    def answer(request: bytes) -> list[bytes]:
        seen.append(request)
        return [respond_untrusted(request, driver.address) or b""] if len(seen) == 2 else []

    with UdpServer(answer) as server:
        assert ask(driver, server.port) == driver.address
        assert seen[0] == seen[1]


def test_datagrams_of_others_are_ignored(driver: Driver) -> None:
    """Peers' probes, strangers' answers, another client's answer: none of them ends or upsets a query."""

    def answer(request: bytes) -> list[bytes]:
        other = request[:4] + bytes(reversed(request[4:20])) + request[20:]
        strangers = [b"", b"\x00", bytes(20), b"\x01\x01", response(other, (0x0001, mapped("203.0.113.9", 9)))]
        return [*filter(None, strangers), response(request, (0x0001, mapped(*driver.address)))]

    with UdpServer(answer) as server:
        assert ask(driver, server.port) == driver.address


def test_padding_does_not_confuse(driver: Driver) -> None:
    """pystun3 would go on reading in the middle of what follows an attribute of odd length."""

    def answer(request: bytes) -> list[bytes]:
        return [response(request, (0x8022, b"abc"), (0x0001, mapped(*driver.address)))]

    with UdpServer(answer) as server:
        assert ask(driver, server.port) == driver.address


# Hostile servers: each answer to each request is this.

HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "an unknown message type": lambda r: response(r, (0x0001, mapped("203.0.113.9", 9)), kind=0x0133),
    "a request": lambda r: r,
    "an error": lambda r: response(r, (0x0009, b"\x00\x00\x04\x01"), kind=0x0111),
    "an error without a code": lambda r: response(r, kind=0x0111),
    "nothing in it": lambda r: response(r),
    "a length that is too long": lambda r: response(r, (0x0001, mapped("203.0.113.9", 9)), length=1000),
    "a length that is too short": lambda r: response(r, (0x0001, mapped("203.0.113.9", 9)), length=4),
    "a truncated attribute": lambda r: response(r, (0x0001, mapped("203.0.113.9", 9)))[:-3],
    "an attribute longer than all": lambda r: response(r)[:2] + b"\x00\x04" + r[4:20] + b"\x00\x01\xff\xff",
    "unknown attributes": lambda r: response(r, *[(0x7F00 + n, bytes(n)) for n in range(40)]),
    "hundreds of empty attributes": lambda r: response(r, *[(0x7777, b"")] * 300),
    "an empty MAPPED-ADDRESS": lambda r: response(r, (0x0001, b"")),
    "a MAPPED-ADDRESS without a family": lambda r: response(r, (0x0001, mapped("203.0.113.9", 9, family=7))),
    "an IPv6 address for IPv4": lambda r: response(r, (0x0001, mapped("2001:db8::1", 9, family=2))),
    "port 0": lambda r: response(r, (0x0001, mapped("203.0.113.9", 0))),
    "0.0.0.0": lambda r: response(r, (0x0001, mapped("0.0.0.0", 9))),  # noqa: S104
    "a multicast address": lambda r: response(r, (0x0001, mapped("224.0.0.1", 9))),
    "the broadcast address": lambda r: response(r, (0x0001, mapped("255.255.255.255", 9))),
    "a wrong FINGERPRINT": lambda r: (
        response(r, (0x0020, xored(r, "203.0.113.9", 9)), (0x8028, bytes(4))) if has_cookie(r) else response(r)
    ),
    "a datagram of 2,000 bytes": lambda r: response(r, (0x8022, bytes(1968)), (0x0001, mapped("203.0.113.9", 9))),
}


@pytest.mark.parametrize("what", list(HOSTILE))
def test_hostile_answers_cost_time_only(driver: Driver, what: str) -> None:
    with UdpServer(lambda request: [HOSTILE[what](request)] * 20) as server, pytest.raises(StunError):
        ask(driver, server.port, timeout=0.3)


@given(data=st.binary(max_size=120), is_response=st.booleans())
def test_any_answer_raises_bad_packet_only(data: bytes, is_response: bool) -> None:
    if is_response:
        data = b"\x01\x01" + len(data).to_bytes(2) + bytes(16) + data
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(BadPacket):
            stun_module._read_answer_untrusted(data, True, family)


@given(attributes=st.lists(st.tuples(st.sampled_from([1, 4, 5, 32, 0x8022, 77]), st.binary(max_size=12)), max_size=6))
def test_pystun3_survives_what_it_is_given(attributes: list[tuple[int, bytes]]) -> None:
    """Whatever passes for readable gives an address or a StunError."""
    client: StunClient

    def send(request: bytes, _: tuple[str, int]) -> None:
        client.datagram_received(response(request, *attributes))

    client = StunClient(f"{LOOPBACK}:1", send)
    address = client._ask_with_pystun3((LOOPBACK, 1), time.monotonic() + 0.05)
    if address is not None:
        assert ipaddress.ip_address(address[0]).version == 4
        assert 0 < address[1] < 65536


def test_a_flood_of_answers_is_bounded(driver: Driver) -> None:
    def answer(request: bytes) -> list[bytes]:
        return [HOSTILE["nothing in it"](request)] * 300

    with UdpServer(answer) as server, pytest.raises(StunError):
        ask(driver, server.port, timeout=0.5)
    assert driver.clients[0]._answers.qsize() <= stun_module.MAX_WAITING
    assert len(driver.sent) <= 4


# Names and networks.


def test_names_are_resolved_in_bounded_time(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        hanging.wait(20)
        return []

    monkeypatch.setattr(stun_module, "RESOLVE_TIMEOUT", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with pytest.raises(StunError, match="resolved in time"):
        driver.client("stun.invalid").query(0.1)
    hanging.set()


def test_the_time_that_its_name_takes_is_not_the_servers(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_look_ups(monkeypatch, 1.2)
    with Server(LOOPBACK, 0, 0) as server:
        assert driver.client(f"localhost:{server.stun_port}").query(1.0) == driver.address


def test_a_server_that_is_not_found_is_none_that_lets_nothing_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was not asked, so nothing is known of what is in the way: 'silent' would have both sides give up early."""

    def fail(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    known: list[dict[str, tuple[str, int] | None]] = []
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    asked = StunRound(["a.invalid", "b.invalid"], lambda *_: None, calls.put, lambda public: None, known.append)
    asked.ask([socket.AF_INET])
    for _ in range(2):
        calls.get(timeout=20)()
    assert known == [{}]
    assert judge_behaviour([], known[0]).mapping is MappingBehaviour.UNKNOWN


def test_a_name_without_an_address(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(StunError, match="no IPv4 address"):
        driver.client("stun.invalid").query(1.0)


def test_localhost_by_name(driver: Driver) -> None:
    with Server(LOOPBACK, 0, 0) as server:
        assert driver.client(f"localhost:{server.stun_port}").query() == driver.address


def test_a_network_that_is_not_there_fails_at_once() -> None:
    def send(*_: object) -> None:
        raise OSError(101, "Network is unreachable")

    with pytest.raises(StunError, match="unreachable"):
        StunClient(f"{LOOPBACK}:9", send).query(1000.0)


def test_the_wrong_family_fails_at_once(driver: Driver) -> None:
    with pytest.raises(StunError, match="IPv4"):
        driver.client("[2001:db8::1]").query(1000.0)


def test_servers() -> None:
    assert parse_stun_server("stun.example.org") == ("stun.example.org", 3478)
    assert parse_stun_server("stun.example.org:19302") == ("stun.example.org", 19302)
    assert parse_stun_server("[2001:db8::1]:5") == ("2001:db8::1", 5)
    assert parse_stun_server("[2001:db8::1]") == ("2001:db8::1", 3478)
    assert parse_stun_server("2001:db8::1") == ("2001:db8::1", 3478)


@pytest.mark.parametrize(
    "text", ["", ":3478", "h:", "h:0", "h:65536", "h:x", "[::1", "[::1]x", "a b:1", "a\n:1", "h:-1"]
)
def test_servers_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="STUN server"):
        StunClient(text, lambda data, address: None)
