"""The TURN client against coturn on loopback, over UDP, TCP and TLS, and against servers that refuse, lie and fall
silent."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aioice import stun
from hypothesis import given
from hypothesis import strategies as st

from tests.servers import (
    LOOPBACK,
    PATIENCE,
    _program,
    accepts_tcp,
    free_port,
    free_ports,
    make_certificates,
    running,
    trusting,
    wait_until,
)
from udpsend.errors import BadPacket, UsageError
from udpsend.net import clock
from udpsend.net.portable import PortableSocket
from udpsend.net.relayed import MAX_QUEUE, RelayedSocket, connect_relay
from udpsend.net.udp import UdpEndpoint
from udpsend.punching.relay import MAX_CHANNELS, MAX_TRIES, Allocated, RelayLost, TurnClient
from udpsend.punching.relay_frames import pack_channel_data, parse_channel_data_untrusted, split_stream_untrusted
from udpsend.punching.relay_url import parse_relay_url
from udpsend.relaying import Relaying
from udpsend.wire.datagram import Address, Arrival, Transmit
from udpsend.wire.relayed import is_through_relay, peer_behind_relay, through_relay

USER, PASSWORD, SECRET = "me", "s3cret", "shared"
PEER: Address = ("192.0.2.7", 4000)
RELAYED: Address = ("192.0.2.1", 50000)


@dataclass(frozen=True)
class Coturn:
    port: int
    tls_port: int
    ca: Path


@contextlib.contextmanager
def turn_server(directory: Path, *authentication: str) -> Iterator[Coturn]:
    """coturn that relays on loopback, to loopback."""
    program = _program("turnserver", "coturn")
    ca = make_certificates(directory)
    port, tls_port = free_ports(2)
    command = [program, "-n", "-L", LOOPBACK, "-E", LOOPBACK, "-p", str(port), "--tls-listening-port", str(tls_port)]
    command += ["--allow-loopback-peers", "--no-cli", "--realm", "example.org", *authentication]
    command += ["--cert", str(directory / "server.pem"), "--pkey", str(directory / "server.key")]
    command += ["--pidfile", str(directory / "turn.pid"), "--userdb", str(directory / "db"), "--log-file", "stdout"]
    with running(command, lambda: accepts_tcp(port) and accepts_tcp(tls_port), directory / "turn.log"):
        yield Coturn(port, tls_port, ca)


@pytest.fixture(scope="module")
def coturn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coturn]:
    with turn_server(tmp_path_factory.mktemp("turn"), "--lt-cred-mech", "--user", f"{USER}:{PASSWORD}") as server:
        yield server


class Loop:
    """What the driver does for a relay, and a peer that is written to."""

    def __init__(self, url: str) -> None:
        self.calls: list[Callable[[], None]] = []
        self.told: list[tuple[Address | None, str]] = []
        self.arrived: list[Arrival] = []
        self.endpoint = UdpEndpoint(LOOPBACK)
        self.relaying = Relaying(
            url, LOOPBACK, self.endpoint, self.calls.append, lambda address, why: self.told.append((address, why))
        )

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *_: object) -> None:
        self.relaying.close()
        self.endpoint.close()

    def until(self, condition: Callable[[], object], what: str) -> None:
        def turn() -> object:
            while self.calls:
                self.calls.pop(0)()
            for reader in select.select(self.endpoint.sockets, [], [], 0.005)[0]:
                while (arrival := reader.receive()) is not None:
                    self.arrived.append(arrival)
            self.relaying.turn(clock.now(), lambda arrival, now: self.arrived.append(arrival))
            return condition()

        wait_until(turn, what)

    def allocate(self) -> Address:
        self.until(lambda: self.told, "an outcome")
        address, why = self.told[0]
        assert address is not None, why
        return address


def urls(server: Coturn) -> list[str]:
    who = f"{USER}:{PASSWORD}@{LOOPBACK}"
    return [
        f"turn:{who}:{server.port}",
        f"turn:{who}:{server.port}?transport=tcp",
        f"turns:{who}:{server.tls_port}{trusting(server.ca)}",
    ]


@pytest.mark.parametrize("way", [0, 1, 2], ids=["udp", "tcp", "tls"])
def test_datagrams_both_ways(coturn: Coturn, way: int) -> None:
    with Loop(urls(coturn)[way]) as loop, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        relayed = loop.allocate()
        peer.bind((LOOPBACK, 0))
        peer.settimeout(PATIENCE)
        behind = through_relay(peer.getsockname())
        got: list[bytes] = []

        def ask() -> bool:
            # Until the channel is bound, or the server has permitted the peer, a datagram may be lost.
            loop.endpoint.send(Transmit([b"question"], 8, 8, behind))
            if select.select([peer], [], [], 0.02)[0]:
                got.append(peer.recv(100))
            return bool(got)

        loop.until(ask, "the question")
        assert got == [b"question"]
        for size in (0, 1, 2, 3, 1400):
            peer.sendto(bytes(size), relayed)
        loop.until(lambda: len(loop.arrived) == 5, "five answers")
        assert [arrival.address for arrival in loop.arrived] == [behind] * 5
        assert [arrival.stride for arrival in loop.arrived] == [0, 1, 2, 3, 1400]
        train = bytes(range(256)) * 10
        loop.endpoint.send(Transmit([train], 1000, len(train), behind))
        while b"question" in (first := peer.recv(2000)):
            continue
        assert first + peer.recv(2000) + peer.recv(2000) == train


def test_a_second_peer_behind_the_same_address_comes_in_by_another_port(coturn: Coturn) -> None:
    """What a symmetric NAT does: the permission is for the address, and the answer goes to the port that was seen."""
    with Loop(urls(coturn)[0]) as loop, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        relayed = loop.allocate()
        loop.endpoint.send(Transmit([b"x"], 1, 1, through_relay((LOOPBACK, 9))))
        stranger.bind((LOOPBACK, 0))

        def knock() -> bool:
            stranger.sendto(b"knock", relayed)
            return bool(loop.arrived)

        loop.until(knock, "the stranger")
        assert loop.arrived[0].address == through_relay(stranger.getsockname())


def test_shared_secret(tmp_path: Path) -> None:
    with turn_server(tmp_path, "--use-auth-secret", "--static-auth-secret", SECRET) as server:
        with Loop(f"turn:{LOOPBACK}:{server.port}?secret={SECRET}") as loop:
            assert loop.allocate()[0] == LOOPBACK
        with Loop(f"turn:{LOOPBACK}:{server.port}?secret=another") as loop:
            loop.until(lambda: loop.told, "an outcome")
            assert loop.told == [(None, "it does not accept the user and password")]


def test_wrong_password(coturn: Coturn) -> None:
    with Loop(f"turn:{USER}:wrong@{LOOPBACK}:{coturn.port}") as loop:
        loop.until(lambda: loop.told, "an outcome")
        assert loop.told == [(None, "it does not accept the user and password")]
        assert loop.endpoint.relay is None


@pytest.mark.parametrize("scheme", ["turns:{}@127.0.0.1:{}", "turn:{}@127.0.0.1:{}?transport=tcp"])
def test_nobody_there(scheme: str) -> None:
    with Loop(scheme.format(f"{USER}:{PASSWORD}", free_port())) as loop:
        loop.until(lambda: loop.told, "an outcome")
        assert loop.told[0][0] is None
        assert "cannot be reached" in loop.told[0][1]


def test_a_name_that_cannot_be_one() -> None:
    """It was said that the relay does not speak MQTT."""
    with Loop(f"turn:{USER}:{PASSWORD}@relay..example") as loop:
        loop.until(lambda: loop.told, "an outcome")
        assert loop.told == [(None, "it cannot be reached (its name cannot be resolved)")]


def test_of_a_relay_that_was_left_nothing_is_heard() -> None:
    """Another one may have been connected to meanwhile."""
    with Loop(f"turn:{USER}:{PASSWORD}@{LOOPBACK}:{free_port()}?transport=tcp") as loop:
        wait_until(lambda: loop.calls)
        loop.relaying.close()
        loop.endpoint.relay = later = PortableSocket(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 2048, 1)
        loop.calls.pop()()
        assert loop.told == []
        assert loop.endpoint.relay is later
        later.close()


def test_a_certificate_that_nobody_vouches_for(coturn: Coturn) -> None:
    with Loop(f"turns:{USER}:{PASSWORD}@{LOOPBACK}:{coturn.tls_port}") as loop:
        loop.until(lambda: loop.told, "an outcome")
        assert "cannot be reached (its certificate cannot be trusted (" in loop.told[0][1]


@pytest.mark.parametrize("farewell", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100])
def test_a_stream_that_ends_or_is_no_turn(farewell: bytes) -> None:
    with (
        socket.create_server((LOOPBACK, 0)) as listener,
        Loop(f"turn:a:b@{LOOPBACK}:{listener.getsockname()[1]}?transport=tcp") as loop,
    ):
        connected, _ = listener.accept()
        connected.sendall(farewell)
        connected.close()
        loop.until(lambda: loop.told, "an outcome")
        assert loop.told == [(None, "it has hung up")]
        assert loop.endpoint.relay is None


class Wrapping:
    """A machine that has nothing to say, and to which nothing that comes is a peer's."""

    def wrap(self, payload: bytes, peer: Address, now: float) -> bytes:
        return payload

    def __getattr__(self, name: str) -> Any:
        return lambda *_: () if name == "messages_to_send" else None


def test_a_stream_that_takes_nothing_does_not_grow() -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        connected = connect_relay(
            LOOPBACK, listener.getsockname()[1], is_stream=True, is_secure=False, ca=None, bind=LOOPBACK
        )
        relay = RelayedSocket(connected, Wrapping(), is_stream=True)
        data = bytes(60_000)
        for _ in range(400):
            relay.send(Transmit([data], len(data), len(data), through_relay(PEER)))
        assert relay.counters["relay queue full"] > 0
        assert len(relay._out) <= MAX_QUEUE + len(data)
        relay.close()


def test_a_flood_from_the_relay_leaves_the_loop_its_turn() -> None:
    """The loop has more to do than to read what no peer has sent: Ctrl-C and timers wait for it."""
    flooding, connected = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    relay = RelayedSocket(connected, Wrapping(), is_stream=False)
    with flooding, connected:
        flooding.send(b"1")
        flooding.send(b"2")
        assert relay.receive() is None
        assert connected.recv(10) == b"2", "it waits for the next turn"


# The client alone, in virtual time.


class Server:
    """The other end of a client's messages: what is asked of it, and well-formed answers."""

    def __init__(self, *, is_stream: bool = False) -> None:
        self.now = 0.0
        self.numbers = iter(range(1 << 30))
        self.client = TurnClient(USER, PASSWORD, 0.0, self.random_bytes, is_stream=is_stream)
        self.key = hashlib.md5(f"{USER}:realm:{PASSWORD}".encode(), usedforsecurity=False).digest()

    def random_bytes(self, size: int) -> bytes:
        return next(self.numbers).to_bytes(size)

    def requests(self) -> list[stun.Message]:
        return [stun.parse_message(message) for message in self.client.messages_to_send()]

    def refuse(self, request: stun.Message, code: int, nonce: bytes = b"n1") -> None:
        attributes = {"ERROR-CODE": (code, "no"), "REALM": "realm", "NONCE": nonce}
        self.deliver(stun.Message(request.message_method, stun.Class.ERROR, request.transaction_id, attributes))

    def grant(self, request: stun.Message, **attributes: Any) -> None:
        named = {name.replace("_", "-"): value for name, value in attributes.items()}
        answer = stun.Message(request.message_method, stun.Class.RESPONSE, request.transaction_id, named)
        answer.add_message_integrity(self.key)
        self.deliver(answer)

    def deliver(self, message: stun.Message) -> tuple[bytes, Address] | None:
        return self.client.message_received(bytes(message), self.now)

    def allocate(self, lifetime: int = 600) -> None:
        self.refuse(self.requests()[0], 401)
        (request,) = self.requests()
        assert request.check_message_integrity(self.key)
        self.grant(request, LIFETIME=lifetime, XOR_RELAYED_ADDRESS=RELAYED)
        assert self.client.next_event() == Allocated(RELAYED)

    def bind(self, peer: Address = PEER) -> None:
        assert self.client.wrap(b"first", peer, self.now) is not None
        (request,) = self.requests()
        assert request.attributes["XOR-PEER-ADDRESS"] == peer
        self.grant(request)

    def run_to(self, time: float) -> None:
        while (timer := self.client.next_timer()) is not None and timer <= time:
            self.now = timer
            self.client.timer_expired(timer)


def test_first_a_send_indication_and_then_channel_data() -> None:
    server = Server()
    assert server.client.wrap(b"early", PEER, 0.0) is None
    server.allocate()
    wrapped = server.client.wrap(b"hello", PEER, 0.0)
    assert wrapped is not None
    indication = stun.parse_message(wrapped)
    assert indication.attributes == {"XOR-PEER-ADDRESS": PEER, "DATA": b"hello"}
    server.grant(server.requests()[0])
    assert server.client.wrap(b"hello", PEER, 0.0) == bytes.fromhex("40000005") + b"hello"
    assert server.client.message_received(bytes.fromhex("40000002") + b"ab??", 0.0) == (b"ab", PEER)


def test_stream_pads_channel_data() -> None:
    server = Server(is_stream=True)
    server.allocate()
    server.bind()
    assert server.client.wrap(b"hello", PEER, 0.0) == bytes.fromhex("40000005") + b"hello" + bytes(3)


def test_requests_are_repeated_over_udp_and_then_given_up() -> None:
    server = Server()
    server.run_to(100.0)
    sent = server.requests()
    assert len(sent) == 1 + MAX_TRIES
    assert len({request.transaction_id for request in sent}) == 1
    assert server.client.next_event() == RelayLost("it does not answer")
    assert server.client.next_timer() is None


def test_requests_are_sent_once_over_a_stream() -> None:
    server = Server(is_stream=True)
    server.run_to(100.0)
    assert len(server.requests()) == 1
    assert server.client.next_event() == RelayLost("it does not answer")


def test_allocation_and_channels_are_refreshed_while_they_are_used() -> None:
    server = Server()
    server.allocate()
    server.bind()
    server.bind(("192.0.2.8", 1))
    kinds: list[str] = []
    for minute in range(1, 31):
        server.client.wrap(b"in use", PEER, server.now)
        server.run_to(60.0 * minute)
        for request in {request.transaction_id: request for request in server.requests()}.values():
            kinds.append(
                f"{request.message_method.name} {request.attributes.get('XOR-PEER-ADDRESS', ('',))[0]}".strip()
            )
            server.grant(request, LIFETIME=600)
    assert kinds.count("REFRESH") in (5, 6)
    assert kinds.count(f"CHANNEL_BIND {PEER[0]}") in (6, 7)
    assert "CHANNEL_BIND 192.0.2.8" not in kinds
    assert server.client.next_event() is None


def test_a_channel_that_ran_out_keeps_its_number() -> None:
    server = Server()
    server.allocate()
    server.bind()
    server.run_to(250.0)
    server.requests()
    server.client.wrap(b"again", PEER, server.now)
    assert [request.attributes.get("CHANNEL-NUMBER") for request in server.requests()] == [0x4000]


def test_a_channel_that_is_bound_when_it_has_run_out_refreshes_no_allocation() -> None:
    """The host slept meanwhile. The allocation, of which the answer says nothing, would have expired."""
    server = Server()
    server.allocate()
    server.client.wrap(b"x", PEER, 0.0)
    (request,) = server.requests()
    server.now = 250.0
    server.client.timer_expired(server.now)
    server.requests()
    server.grant(request)
    server.run_to(300.0)
    assert [request.message_method.name for request in server.requests()] == ["REFRESH"]


def test_a_stale_nonce_is_replaced() -> None:
    server = Server()
    server.allocate()
    server.client.wrap(b"x", PEER, 0.0)
    (request,) = server.requests()
    server.refuse(request, 438, b"n2")
    (again,) = server.requests()
    assert again.attributes["NONCE"] == b"n2"
    assert again.attributes["XOR-PEER-ADDRESS"] == PEER


@pytest.mark.parametrize("code", [401, 438])
def test_a_server_that_is_never_content(code: int) -> None:
    server = Server()
    server.refuse(server.requests()[0], 401)
    for _ in range(10):
        requests = server.requests()
        if not requests:
            break
        server.refuse(requests[0], code)
    assert isinstance(server.client.next_event(), RelayLost)


@pytest.mark.parametrize("code", [300, 400, 403, 437, 442, 486, 508, 699])
def test_refusals(code: int) -> None:
    server = Server()
    server.refuse(server.requests()[0], code)
    event = server.client.next_event()
    assert isinstance(event, RelayLost)
    assert event.reason


@pytest.mark.parametrize(("realm", "nonce"), [(32_756, 32_760), (764, 1), (1, 764)])
@pytest.mark.parametrize("is_stream", [False, True])
def test_a_realm_or_a_nonce_that_no_request_holds(realm: int, nonce: int, is_stream: bool) -> None:
    server = Server(is_stream=is_stream)
    (request,) = server.requests()
    attributes = {"ERROR-CODE": (401, ""), "REALM": "r" * realm, "NONCE": bytes(nonce)}
    server.deliver(stun.Message(request.message_method, stun.Class.ERROR, request.transaction_id, attributes))
    assert isinstance(server.client.next_event(), RelayLost)
    assert server.requests() == []


def test_a_lost_allocation_is_told() -> None:
    server = Server()
    server.allocate()
    server.run_to(300.0)
    server.refuse(server.requests()[0], 437)
    assert server.client.next_event() == RelayLost("it does not know our allocation any more")
    assert server.client.wrap(b"x", PEER, 0.0) is None
    assert server.client.farewell() is None


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_server_that_falls_silent_under_several_requests(is_stream: bool) -> None:
    """All of them are overdue at once, as they are after a machine has slept."""
    server = Server(is_stream=is_stream)
    server.allocate()
    server.run_to(300.0)
    for port in range(1, 4):
        server.client.wrap(b"x", (PEER[0], port), server.now)
    for _ in range(10):
        server.now += 100.0
        server.client.timer_expired(server.now)
    assert server.client.next_event() == RelayLost("it does not answer")
    assert server.client.next_timer() is None


def test_answers_without_integrity_do_not_count() -> None:
    server = Server()
    server.refuse(server.requests()[0], 401)
    (request,) = server.requests()
    forged = {"XOR-RELAYED-ADDRESS": RELAYED, "LIFETIME": 600}
    server.deliver(stun.Message(request.message_method, stun.Class.RESPONSE, request.transaction_id, forged))
    server.key = bytes(16)
    server.grant(request, LIFETIME=600, XOR_RELAYED_ADDRESS=RELAYED)
    assert server.client.next_event() is None
    assert server.client.drops["integrity"] == 2


@pytest.mark.parametrize("address", [("::1", 5), ("0.0.0.0", 5), ("224.0.0.1", 5), ("192.0.2.1", 0)])  # noqa: S104
def test_relayed_addresses_of_no_use(address: Address) -> None:
    server = Server()
    server.refuse(server.requests()[0], 401)
    server.grant(server.requests()[0], LIFETIME=600, XOR_RELAYED_ADDRESS=address)
    assert server.client.next_event() == RelayLost("it gives no IPv4 address")


@pytest.mark.parametrize("lifetime", [0, 1, 2**32 - 1])
def test_lifetimes_are_bounded(lifetime: int) -> None:
    server = Server()
    server.allocate(lifetime)
    timer = server.client.next_timer()
    assert timer is not None
    assert 30 <= timer <= 300


def test_channels_are_bounded() -> None:
    server = Server()
    server.allocate()
    wrapped = [server.client.wrap(b"x", ("192.0.2.7", port), 0.0) for port in range(1, MAX_CHANNELS + 10)]
    assert sum(one is not None for one in wrapped) == MAX_CHANNELS


def test_farewell_ends_the_allocation() -> None:
    server = Server()
    server.allocate()
    last = server.client.farewell()
    assert last is not None
    message = stun.parse_message(last)
    assert message.message_method is stun.Method.REFRESH
    assert message.attributes["LIFETIME"] == 0
    assert server.client.next_timer() is None


@given(st.binary(max_size=120), st.integers(0, 120))
def test_hostile_messages_change_nothing(junk: bytes, position: int) -> None:
    server = Server()
    server.allocate()
    server.bind()
    attributes = {"XOR-PEER-ADDRESS": PEER, "DATA": b"data"}
    valid = bytes(stun.Message(stun.Method.DATA, stun.Class.INDICATION, bytes(12), attributes))
    for data in (junk, valid[:position] + junk, b"\x40\x00" + junk, b"\x40\x01" + junk):
        came = server.client.message_received(data, 0.0)
        assert came is None or isinstance(came[0], bytes)
    assert server.client.next_event() is None


@given(st.lists(st.binary(max_size=30), max_size=6), st.integers(1, 9))
def test_a_stream_is_split_wherever_it_is_cut(payloads: list[bytes], step: int) -> None:
    stream = b"".join(pack_channel_data(0x4000 + i, payload, True) for i, payload in enumerate(payloads))
    buffer, found = bytearray(), []
    for start in range(0, len(stream), step):
        buffer += stream[start : start + step]
        found += [parse_channel_data_untrusted(frame) for frame in split_stream_untrusted(buffer)]
    assert found == [(0x4000 + i, payload) for i, payload in enumerate(payloads)]
    assert not buffer


@pytest.mark.parametrize("size", [0, 4, 256, 1400])
def test_stun_messages_of_any_length_between_channel_data(size: int) -> None:
    message = b"\x00\x17" + size.to_bytes(2) + bytes(16) + b"x" * size
    data = pack_channel_data(0x4001, b"payload", is_stream=True)
    assert list(split_stream_untrusted(bytearray(message + data + message))) == [message, data, message]


@pytest.mark.parametrize("first", [0x80, 0xC0, 0xFF])
def test_what_is_no_turn_is_no_frame(first: int) -> None:
    with pytest.raises(BadPacket, match="no TURN"):
        list(split_stream_untrusted(bytearray([first, 0, 0, 0])))


@given(st.binary(min_size=1, max_size=60))
def test_splitting_raises_nothing_but_bad_packet(junk: bytes) -> None:
    try:
        list(split_stream_untrusted(bytearray(junk)))
    except BadPacket:
        return


@given(st.ip_addresses(v=4), st.integers(1, 65535))
def test_addresses_behind_a_relay(ip: Any, port: int) -> None:
    behind = through_relay((str(ip), port))
    assert is_through_relay(behind[0])
    assert peer_behind_relay(behind) == (str(ip), port)
    assert peer_behind_relay((str(ip), port)) == (str(ip), port)


# URLs.


@pytest.mark.parametrize(
    ("url", "name", "user", "password"),
    [
        ("turn:u:p@h", "turn:h:3478", "u", "p"),
        ("turn://u:p@h:1", "turn:h:1", "u", "p"),
        ("turns:u:p%40q@h", "turns:h:5349", "u", "p@q"),
        ("turn:a@b:p@h:5?transport=tcp", "turn:h:5", "a@b", "p"),
        ("turn:u:p@[2001:db8::1]:7", "turn:[2001:db8::1]:7", "u", "p"),
        ("turn:u:p@[2001:db8::1]", "turn:[2001:db8::1]:3478", "u", "p"),
    ],
)
def test_urls(url: str, name: str, user: str, password: str) -> None:
    parsed = parse_relay_url(url)
    assert parsed.name == name
    assert parsed.credentials(0.0) == (user, password)
    assert "password" not in repr(parsed)


def test_credentials_of_a_shared_secret() -> None:
    """As the draft of the REST API has it: base64(HMAC-SHA1(secret, "timestamp:user"))."""
    user, password = parse_relay_url("turn:h?secret=north").credentials(1_000_000_000.5)
    assert user == "1000086400:udpsend"
    expected = hmac.new(b"north", user.encode(), hashlib.sha1).digest()
    assert base64.b64decode(password) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "turn:",
        "turn:h",
        "turn:u@h",
        "http://u:p@h",
        "turn:u:p@h:0",
        "turn:u:p@h:99999",
        "turn:u:p@h:x",
        "turn:u:p@h/path",
        "turn:u:p@h?transport=sctp",
        "turn:u:p@h?ca=x",
        "turns:u:p@h?transport=udp",
        "turn:u:p@h?other=1",
        "turn:u:p@[::1",
        "turn:u:p@[::1]x",
        "turn:u:p@h ?",
        "turn:u:s3cret@h:bad\n",
        "turn:u:p@" + "h" * 3000,
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_relay_url(url)
    assert "s3cret" not in str(caught.value)
