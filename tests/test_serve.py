"""The embedded rendezvous server: the responder's bytes, the broker's bounds, ports, and its absence."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import threading

import pytest
from aioice import stun
from hypothesis import given
from hypothesis import strategies as st

from tests.servers import LOOPBACK, Mailman, accepts_tcp, wait_until
from udpsend.errors import UsageError
from udpsend.rendezvous.mqtt import open_mqtt
from udpsend.serve import broker, server
from udpsend.serve.responder import MAX_REQUEST_SIZE, respond_untrusted
from udpsend.serve.server import Server

V4 = ("192.0.2.7", 40000)
V6 = ("2001:db8::7", 40001)
CLASSIC = bytes.fromhex("0001 0000") + bytes(range(16))
MODERN = bytes.fromhex("0001 0000 2112a442") + bytes(range(12))


# The responder, without a socket.


def test_golden_answers() -> None:
    assert respond_untrusted(CLASSIC, V4) == bytes.fromhex(
        "0101 000c 000102030405060708090a0b0c0d0e0f  0001 0008 0001 9c40 c0000207"
    )
    assert respond_untrusted(CLASSIC, V4, ("192.0.2.1", 3478)) == bytes.fromhex(
        "0101 0018 000102030405060708090a0b0c0d0e0f  0001 0008 0001 9c40 c0000207  0004 0008 0001 0d96 c0000201"
    )
    assert respond_untrusted(MODERN, V4) == bytes.fromhex(
        "0101 000c 2112a442 000102030405060708090a0b  0020 0008 0001 bd52 e112a645"
    )
    assert respond_untrusted(MODERN, V6) == bytes.fromhex(
        "0101 0018 2112a442 000102030405060708090a0b  0020 0014 0002 bd53 0113a9fa 0001020304050607 08090a0c"
    )


@pytest.mark.parametrize("source", [V4, V6])
@pytest.mark.parametrize("has_fingerprint", [False, True])
def test_another_implementation_reads_the_answer(source: tuple[str, int], has_fingerprint: bool) -> None:
    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    request.attributes["SOFTWARE"] = "odd"
    if has_fingerprint:
        request.add_fingerprint()
    answer = stun.parse_message(respond_untrusted(bytes(request), source) or b"")  # checks the fingerprint
    assert answer.message_class == stun.Class.RESPONSE
    assert answer.transaction_id == request.transaction_id
    assert answer.attributes["XOR-MAPPED-ADDRESS"] == source
    assert ("FINGERPRINT" in answer.attributes) == has_fingerprint


def test_what_is_not_understood_is_named() -> None:
    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    request.attributes["CHANGE-REQUEST"] = 6
    answer = respond_untrusted(bytes(request), V4)
    assert answer is not None
    assert answer[:2] == b"\x01\x11"
    assert answer[20:] == bytes.fromhex("0009 0004 00000414  000a 0002 0003 0000")


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        MODERN[:19],
        b"\x01\x01" + MODERN[2:],  # a response
        b"\x00\x03" + MODERN[2:],  # Allocate
        MODERN[:3] + b"\x04" + MODERN[4:],  # shorter than it says
        MODERN + b"abcd",  # longer than it says
        MODERN[:3] + b"\x04" + MODERN[4:] + b"\x80\x22\x00\x08",  # an attribute that ends beyond the end
        MODERN[:3] + b"\x02" + MODERN[4:] + b"\x80\x22",  # half an attribute
        MODERN[:3] + b"\x08" + MODERN[4:] + bytes.fromhex("8028 0004 00000000"),  # a wrong fingerprint
        MODERN[:3] + b"\x40" + MODERN[4:] + bytes.fromhex("80ff 0000") * 16 + b"\x80\x22\x00\x00",
        struct.pack("!HH", 1, MAX_REQUEST_SIZE - 16)
        + MODERN[4:]  # too long, and nothing else is wrong with it
        + struct.pack("!HH", 0x80FF, MAX_REQUEST_SIZE - 20)
        + bytes(MAX_REQUEST_SIZE - 20),
    ],
)
def test_what_gets_no_answer(datagram: bytes) -> None:
    assert respond_untrusted(datagram, V4) is None


@given(body=st.binary(max_size=100), head=st.sampled_from([CLASSIC, MODERN]), source=st.sampled_from([V4, V6]))
def test_any_request_is_answered_by_at_most_three_times_its_size(
    body: bytes, head: bytes, source: tuple[str, int]
) -> None:
    request = head[:2] + len(body).to_bytes(2) + head[4:] + body
    for answer in (respond_untrusted(request, source), respond_untrusted(body, source)):
        assert answer is None or len(answer) <= 3 * len(request)


# The server.


def test_start_and_stop_leave_nothing_behind() -> None:
    before = set(threading.enumerate())
    for _ in range(3):
        instance = Server(LOOPBACK, 0, 0)
        instance.start()
        assert accepts_tcp(instance.mqtt_port)
        assert instance.stun_port
        instance.stop()
        instance.stop()
        assert not accepts_tcp(instance.mqtt_port)
    assert set(threading.enumerate()) == before
    Server(LOOPBACK, 0, 0).stop()


def test_all_addresses_have_one_port() -> None:
    with Server("localhost", 0, 0) as instance:
        addresses = {entry[4][0] for entry in socket.getaddrinfo("localhost", 0)}
        for address in addresses & {LOOPBACK, "::1"}:
            assert accepts_tcp(instance.mqtt_port, str(address))


def test_ports_that_are_taken() -> None:
    with Server(LOOPBACK, 0, 0) as first:
        with pytest.raises(UsageError, match=f"Port {first.mqtt_port} is taken.*--mqtt-port"):
            Server(LOOPBACK, first.mqtt_port, 0).start()
        with pytest.raises(UsageError, match=f"Port {first.stun_port} is taken.*--stun-port"):
            Server(LOOPBACK, 0, first.stun_port).start()


def test_addresses_that_are_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no address of this machine"):
        Server("192.0.2.1", 0, 0).start()

    def fail(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(UsageError, match="no address of this machine"):
        Server("nowhere.invalid", 0, 0).start()


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "udpsend.serve.broker", raising=False)
    monkeypatch.setitem(sys.modules, "amqtt.broker", None)
    monkeypatch.setattr(sys, "executable", "/my programs/udpsend/bin/python")
    with pytest.raises(UsageError, match=r"\n'/my programs/udpsend/bin/python' -m pip install 'udpsend\[serve\]'$"):
        Server(LOOPBACK, 0, 0).start()


def test_the_module_is_imported_without_amqtt() -> None:
    code = "import sys, udpsend.serve.server; sys.exit('amqtt' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# What a client can cost the broker.


class RawClient:
    """A client that says what it likes."""

    def __init__(self, port: int, client_id: bytes = b"") -> None:
        self.socket = socket.create_connection((LOOPBACK, port), timeout=20)
        self.socket.sendall(packet(0x10, b"\x00\x04MQTT\x04\x02\x00\x00" + text(client_id)))
        assert self.receive() == b"\x20\x02\x00\x00"

    def send(self, kind: int, body: bytes) -> None:
        self.socket.sendall(packet(kind, body))

    def receive(self, size: int = 4096) -> bytes:
        return self.socket.recv(size)

    def is_dropped(self) -> bool:
        with contextlib.suppress(ConnectionError):
            while self.receive():
                pass
        return True

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def text(data: bytes) -> bytes:
    return len(data).to_bytes(2) + data


def packet(kind: int, body: bytes) -> bytes:
    length, encoded = len(body), b""
    while True:
        length, digit = divmod(length, 128)
        encoded += bytes([digit | (0x80 if length else 0)])
        if not length:
            return bytes([kind]) + encoded + body


def subscribe(client: RawClient, *topics: bytes) -> bytes:
    client.send(0x82, b"\x00\x01" + b"".join(text(topic) + b"\x02" for topic in topics))
    return client.receive()


def test_topics() -> None:
    with Server(LOOPBACK, 0, 0) as instance, RawClient(instance.mqtt_port) as client:
        topics = [b"udpsend/1/x", b"#", b"udpsend/#", b"udpsend/+/x", b"other", b"$SYS/x", b"udpsend"]
        assert subscribe(client, *topics) == bytes.fromhex("9009 0001 00 808080808080")
        client.send(0x30, text(b"other") + b"not passed on")
        client.send(0x30, text(b"udpsend/1/x") + b"passed on")
        assert client.receive() == packet(0x30, text(b"udpsend/1/x") + b"passed on")


def test_subscriptions_are_limited() -> None:
    with Server(LOOPBACK, 0, 0) as instance, RawClient(instance.mqtt_port) as client:
        granted = subscribe(client, *[b"udpsend/1/%d" % number for number in range(100)])[4:]
        assert granted == bytes(broker.MAX_SUBSCRIPTIONS) + b"\x80" * (100 - broker.MAX_SUBSCRIPTIONS)


def test_nothing_is_retained() -> None:
    with Server(LOOPBACK, 0, 0) as instance:
        with RawClient(instance.mqtt_port) as client:
            client.send(0x31, text(b"udpsend/1/x") + b"retain me")
            client.send(0xC0, b"")
            assert client.receive() == b"\xd0\x00"
        with RawClient(instance.mqtt_port) as client:
            assert subscribe(client, b"udpsend/1/x")[4:] == b"\x00"
            client.send(0xC0, b"")
            assert client.receive() == b"\xd0\x00"


@pytest.mark.parametrize(
    "data",
    [
        packet(0x30, text(b"udpsend/1/x") + bytes(broker.MAX_PACKET_SIZE)),
        b"\x30\xff\xff\xff\x7f",
        b"\x30\xff\xff\xff\xff",
        b"\x82\x05\x00\x01\x7f\xff\x00",  # a topic that ends beyond the packet
        b"\x30\x02\x00\xff",
        b"\xf0\x00",
        packet(0x30, text(b"udpsend/#") + b"x"),
    ],
)
def test_bad_packets_end_the_connection_and_nothing_else(data: bytes) -> None:
    with Server(LOOPBACK, 0, 0) as instance, RawClient(instance.mqtt_port) as friend:
        assert subscribe(friend, b"udpsend/1/x")
        with RawClient(instance.mqtt_port) as client:
            client.socket.sendall(data)
            client.socket.shutdown(socket.SHUT_WR)
            assert client.is_dropped()
        friend.send(0xC0, b"")
        assert friend.receive() == b"\xd0\x00"


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"GET / HTTP/1.1\r\n\r\n", bytes(1000), b"\xff" * 1000, packet(0x10, b"x")]
)
def test_what_is_no_client(data: bytes) -> None:
    with Server(LOOPBACK, 0, 0) as instance:
        with socket.create_connection((LOOPBACK, instance.mqtt_port), timeout=20) as stranger:
            stranger.sendall(data)
            stranger.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                assert stranger.recv(100) == b""
        with RawClient(instance.mqtt_port):
            pass


def test_silent_clients_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "IDLE_TIMEOUT", 0.05)
    with Server(LOOPBACK, 0, 0) as instance, RawClient(instance.mqtt_port) as client:
        assert client.is_dropped()
    monkeypatch.setattr(broker, "CONNECT_TIMEOUT", 0.05)
    with Server(LOOPBACK, 0, 0) as instance, socket.create_connection((LOOPBACK, instance.mqtt_port), 20) as stranger:
        assert stranger.recv(1) == b""


def test_clients_that_do_not_read_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "MAX_UNREAD", 20_000)
    monkeypatch.setattr(broker, "BYTE_BURST", 1e9)
    monkeypatch.setattr(broker, "PACKET_BURST", 1e9)
    with Server(LOOPBACK, 0, 0) as instance:
        lazy = socket.socket()
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect((LOOPBACK, instance.mqtt_port))
        lazy.sendall(packet(0x10, b"\x00\x04MQTT\x04\x02\x00\x00" + text(b"lazy")))
        lazy.sendall(packet(0x82, b"\x00\x01" + text(b"udpsend/1/x") + b"\x00"))
        with lazy, RawClient(instance.mqtt_port) as client:
            message = packet(0x30, text(b"udpsend/1/x") + bytes(8000))
            sessions = instance._broker._broker.sessions
            wait_until(lambda: "lazy" in sessions)
            for _ in range(4000):
                if "lazy" not in sessions:
                    break
                client.socket.sendall(message)
            wait_until(lambda: "lazy" not in sessions, "the end of a client that does not read")


def test_a_client_is_slowed_down_and_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "PACKET_BURST", 5.0)
    monkeypatch.setattr(broker, "PACKETS_PER_SECOND", 50.0)
    with Server(LOOPBACK, 0, 0) as instance, RawClient(instance.mqtt_port) as client:
        client.socket.sendall(b"\xc0\x00" * 30)
        answers = b""
        while len(answers) < 60:
            answers += client.receive()
        assert answers == b"\xd0\x00" * 30


def test_connections_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "MAX_CONNECTIONS", 2)
    with (
        Server(LOOPBACK, 0, 0) as instance,
        RawClient(instance.mqtt_port),
        RawClient(instance.mqtt_port),
        socket.create_connection((LOOPBACK, instance.mqtt_port), timeout=20) as third,
    ):
        assert third.recv(1) == b""


def test_stop_does_not_wait_for_clients() -> None:
    man = Mailman()
    with Server(LOOPBACK, 0, 0) as instance:
        boxes = open_mqtt([f"mqtt://{LOOPBACK}:{instance.mqtt_port}"], "udpsend/1/x", man.on_message, man.on_state)
        try:
            man.wait_until_up()
            with RawClient(instance.mqtt_port) as client:
                instance.stop()
                assert client.is_dropped()
            wait_until(lambda: not man.is_up)
        finally:
            boxes[0].close()


def test_answers_of_the_responder_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ANSWERS_PER_SECOND", 3.0)
    with (
        Server(LOOPBACK, 0, 0) as instance,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(20)
        for _ in range(50):
            client.sendto(MODERN, (LOOPBACK, instance.stun_port))
        for _ in range(3):
            assert client.recv(100)
        assert instance.stun_answers < 50
