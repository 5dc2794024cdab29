"""MQTT mailboxes against mosquitto, against the embedded broker, and against brokers that misbehave."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.servers import (
    LOOPBACK,
    Mailman,
    Mosquitto,
    free_port,
    free_ports,
    make_certificates,
    mosquitto,
    slow_look_ups,
    trusting,
    wait_until,
)
from udpsend.errors import BadPacket, UsageError
from udpsend.rendezvous import broker_connection, broker_mailbox, mqtt
from udpsend.rendezvous.broker_mailbox import BrokerMailbox
from udpsend.rendezvous.broker_url import BrokerUrl, group_by_host, parse_broker_url
from udpsend.rendezvous.mailbox import Mailbox, RateLimit
from udpsend.rendezvous.messages import MAX_MESSAGE_SIZE
from udpsend.rendezvous.mqtt import open_mqtt
from udpsend.rendezvous.mqtt_packets import MAX_PACKET_SIZE, PacketFilter
from udpsend.serve.server import Server

TOPIC = "udpsend/1/test"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path_factory.mktemp("mosquitto")) as server:
        yield server


@contextlib.contextmanager
def mailbox(*urls: str, topic: str = TOPIC) -> Iterator[tuple[Mailbox, Mailman]]:
    man = Mailman()
    (box,) = open_mqtt(urls, topic, man.on_message, man.on_state)
    try:
        yield box, man
    finally:
        box.close()
        assert isinstance(box, BrokerMailbox)
        wait_until(lambda: not box._thread.is_alive(), "the end of the mailbox's thread")


# Real brokers.


@pytest.mark.parametrize("kind", ["tcp", "tls", "ws", "wss"])
def test_messages_cross_mosquitto(broker: Mosquitto, kind: str) -> None:
    url = getattr(broker, kind)
    with mailbox(url) as (a, man_a), mailbox(broker.tcp) as (b, man_b):
        man_a.wait_until_up()
        man_b.wait_until_up()
        largest = bytes(range(256)) * (MAX_MESSAGE_SIZE // 256)
        a.publish(b"one")
        a.publish(largest)
        b.publish(b"two")
        man_b.wait_for(b"one")
        man_b.wait_for(largest)
        man_a.wait_for(b"two")
        assert man_a.states == [(url.split("?")[0], True, "")]
        assert b"one" not in man_a.messages  # MQTT 5: not one's own


@pytest.mark.parametrize("kind", ["tcp", "tls", "ws", "wss"])
def test_a_renewed_mailbox_comes_up_again(broker: Mosquitto, kind: str) -> None:
    with mailbox(getattr(broker, kind)) as (a, man_a), mailbox(broker.tcp) as (_, man_b):
        man_a.wait_until_up()
        man_b.wait_until_up()
        a.renew()
        wait_until(lambda: [up for _, up, _ in man_a.states] == [True, False, True], "the second connection")
        assert man_a.states[1][2] == "connecting anew", "nobody else has hung up"
        a.publish(b"again")
        man_b.wait_for(b"again")


def test_a_mailbox_that_waits_for_its_next_attempt_is_renewed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network is back, and the pause has become half a minute."""
    monkeypatch.setattr(broker_mailbox, "FIRST_BACKOFF", 1000.0)
    ports = free_ports(4)
    with mailbox(f"mqtt://{LOOPBACK}:{ports[0]}") as (a, man):
        wait_until(lambda: man.states)
        with mosquitto(tmp_path, ports=ports):
            a.renew()
            man.wait_until_up()


def test_messages_cross_the_embedded_broker() -> None:
    with Server(LOOPBACK, 0, 0) as server:
        url = f"mqtt://{LOOPBACK}:{server.mqtt_port}"
        with mailbox(url) as (a, man_a), mailbox(url) as (b, man_b), mailbox(url, topic=TOPIC + "2") as (_, man_c):
            for man in (man_a, man_b, man_c):
                man.wait_until_up()
            a.publish(b"one")
            b.publish(b"two" * 2000)
            man_b.wait_for(b"one")
            man_a.wait_for(b"two" * 2000)
            assert not man_c.messages
        assert server.mqtt_bytes > 6000


def test_user_and_password(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("ann:secret@1\n")
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto_passwd is not installed (Debian package mosquitto)")
    subprocess.run(["mosquitto_passwd", "-U", str(passwords)], check=True)
    with mosquitto(tmp_path, f"allow_anonymous false\npassword_file {passwords}") as server:
        with mailbox(f"mqtt://ann:secret%401@{LOOPBACK}:{server.tcp_port}") as (box, man):
            man.wait_until_up()
            assert "secret" not in box.name + json.dumps(man.states)
        with mailbox(f"mqtt://ann:wrong@{LOOPBACK}:{server.tcp_port}") as (_, man):
            wait_until(lambda: man.states)
            assert man.states[0][1] is False
            assert "it does not accept the user and password (not authori" in man.states[0][2]
        with mailbox(server.tcp) as (_, man):
            wait_until(lambda: man.states)
            assert "it wants a user and a password (not authori" in man.states[0][2]


def test_goes_on_when_the_broker_comes_back(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        with mosquitto(tmp_path) as server:
            ports = (server.tcp_port, server.tls_port, server.ws_port, server.wss_port)
            a, man_a = stack.enter_context(mailbox(server.tcp))
            _, man_b = stack.enter_context(mailbox(server.tls))
            man_a.wait_until_up()
            man_b.wait_until_up()
        wait_until(lambda: not man_a.is_up and not man_b.is_up)
        a.publish(b"into the void")
        with mosquitto(tmp_path, ports=ports):
            man_a.wait_until_up()
            man_b.wait_until_up()
            a.publish(b"after")
            man_b.wait_for(b"after")
            assert [up for _, up, _ in man_a.states] == [True, False, True]
            assert man_b.messages == [b"after"]


@pytest.mark.parametrize("server", ["mosquitto", "embedded"])
def test_close_sends_what_was_published(broker: Mosquitto, server: str) -> None:
    with contextlib.ExitStack() as stack:
        urls = (broker.tcp, broker.tls)
        if server == "embedded":
            urls = (f"mqtt://{LOOPBACK}:{stack.enter_context(Server(LOOPBACK, 0, 0)).mqtt_port}",) * 2
        _, man = stack.enter_context(mailbox(urls[0]))
        man.wait_until_up()
        for round_ in range(5):
            with mailbox(urls[1]) as (leaving, man_leaving):
                man_leaving.wait_until_up()
                for number in range(20):
                    leaving.publish(b"bye %d %d" % (round_, number))
            for number in range(20):
                man.wait_for(b"bye %d %d" % (round_, number))


def test_nothing_is_retained_and_what_is_retained_is_not_taken(broker: Mosquitto) -> None:
    from paho.mqtt import publish

    topic = "udpsend/1/retained"
    publish.single(topic, b"old", qos=1, retain=True, hostname=LOOPBACK, port=broker.tcp_port)
    with mailbox(broker.tcp, topic=topic) as (_, man), mailbox(broker.tcp, topic=topic) as (other, man_other):
        man.wait_until_up()
        man_other.wait_until_up()
        other.publish(b"new")
        man.wait_for(b"new")
        assert man.messages == [b"new"]


@pytest.mark.parametrize("server", ["mosquitto", "embedded"])
def test_strangers_messages_do_not_cost_the_connection(broker: Mosquitto, server: str) -> None:
    """Messages that are too long, and a flood."""
    from paho.mqtt import publish

    with contextlib.ExitStack() as stack:
        port = broker.tcp_port
        if server == "embedded":
            port = stack.enter_context(Server(LOOPBACK, 0, 0)).mqtt_port
        a, man_a = stack.enter_context(mailbox(f"mqtt://{LOOPBACK}:{port}"))
        _, man_b = stack.enter_context(mailbox(f"mqtt://{LOOPBACK}:{port}"))
        man_a.wait_until_up()
        man_b.wait_until_up()
        lengths = [MAX_MESSAGE_SIZE + 1, MAX_PACKET_SIZE] + ([1_000_000] if server == "mosquitto" else [])
        flood = [(TOPIC, bytes(length), 0, False) for length in lengths] + [(TOPIC, b"x", 0, False)] * 100
        publish.multiple(list(flood), hostname=LOOPBACK, port=port)
        a.publish(b"friend")
        man_b.wait_for(b"friend")
        wait_until(lambda: man_b.messages.count(b"x") == 100)
        assert set(man_b.messages) == {b"friend", b"x"}
        assert [up for _, up, _ in man_b.states] == [True]


def test_a_strangers_message_that_paho_cannot_read_does_not_cost_the_connection(broker: Mosquitto) -> None:
    """U+FEFF is a character like others to MQTT and to the broker, and an error to paho."""
    from paho.mqtt.client import Client, MQTTv5
    from paho.mqtt.enums import CallbackAPIVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    stranger = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
    properties.UserProperty = ("\ufeff", "")
    with mailbox(broker.tcp) as (a, man_a), mailbox(broker.tcp) as (_, man_b):
        man_a.wait_until_up()
        man_b.wait_until_up()
        stranger.connect(LOOPBACK, broker.tcp_port)
        stranger.loop_start()
        stranger.publish(TOPIC, b"stranger", 1, properties=properties).wait_for_publish(10)
        stranger.disconnect()
        stranger.loop_stop()
        a.publish(b"friend")
        man_b.wait_for(b"friend")
        assert man_b.messages == [b"friend"]
        assert [up for _, up, _ in man_b.states] == [True]


# Which URL is used.


def test_tls_first_and_plain_only_where_tls_fails(broker: Mosquitto, tmp_path: Path) -> None:
    with mailbox(broker.tcp, broker.tls) as (box, man):
        man.wait_until_up()
        assert man.states == [(box.name, True, "")]
        assert box.name.startswith("mqtts://")
    dead = f"mqtts://{LOOPBACK}:{free_port()}"
    with mailbox(broker.tcp, dead) as (box, man):
        man.wait_until_up()
        assert man.states == [(dead, True, f"through {broker.tcp}")]
    make_certificates(tmp_path)
    untrusted = f"mqtts://{LOOPBACK}:{broker.tls_port}{trusting(tmp_path / 'ca.pem')}"
    with mailbox(untrusted) as (_, man):
        wait_until(lambda: man.states)
        assert "certificate cannot be trusted" in man.states[0][2]


def test_a_certificate_for_another_name_is_not_trusted(broker: Mosquitto) -> None:
    with mailbox(broker.tls.replace(LOOPBACK, "localhost")) as (_, man):
        wait_until(lambda: man.states)
        assert man.states[0][1] is False
        assert "certificate cannot be trusted" in man.states[0][2]


@contextlib.contextmanager
def tcp_server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Each connection is given to `serve` in turn, then closed."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        stopping = threading.Event()

        def run() -> None:
            while True:
                connection, _ = listener.accept()
                with connection:
                    if stopping.is_set():
                        return
                    connection.settimeout(20)
                    with contextlib.suppress(OSError):
                        serve(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stopping.set()
            socket.create_connection(listener.getsockname()).close()
            thread.join(25)


def until_closed(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def websocket_server(frames: bytes) -> Callable[[socket.socket], object]:
    """Accepts the WebSocket handshake, then sends `frames`."""

    def serve(connection: socket.socket) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            part = connection.recv(4096)
            if not part:
                return
            request += part
        key = request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
        accept = base64.b64encode(hashlib.sha1(key + WEBSOCKET_GUID).digest())  # noqa: S324
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + frames
        )
        until_closed(connection)

    return serve


def sending(data: bytes) -> Callable[[socket.socket], object]:
    return lambda connection: connection.sendall(data)


WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONNACK_5 = bytes.fromhex("2003000000")
HOSTILE: dict[str, tuple[str, Callable[[socket.socket], object]]] = {
    "closes at once": ("mqtt", lambda connection: None),
    "closes after reading": ("mqtt", lambda connection: connection.recv(1)),
    "speaks HTTP": ("mqtt", sending(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
    "sends zeros": ("mqtt", sending(bytes(100_000))),
    "sends ones": ("mqtt", sending(b"\xff" * 100_000)),
    "truncated CONNACK": ("mqtt", sending(b"\x20\x7f\x00")),
    "empty CONNACK": ("mqtt", sending(b"\x20\x00")),
    "malformed properties": ("mqtt", sending(bytes.fromhex("2008000005ffffffffff"))),
    "unknown reason": ("mqtt", sending(bytes.fromhex("200300fe00"))),
    "accepts, then garbage": ("mqtt", sending(CONNACK_5 + b"\x33\x05\xff\xff\xff\xff\xff")),
    "grants what was not asked for": ("mqtt", sending(CONNACK_5 + bytes.fromhex("9004123400 00"))),
    "refuses to subscribe": ("mqtt", sending(CONNACK_5 + bytes.fromhex("9004000100 80"))),
    "no TLS": ("mqtts", sending(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
    "truncated TLS": ("wss", sending(b"\x16\x03\x03")),
    "never ends a WebSocket handshake": ("ws", sending(b"HTTP/1.1 101 x" + b"x" * 60_000)),
    "a WebSocket answer without a key": ("ws", sending(b"HTTP/1.1 101 x\r\nSec-WebSocket-Accept\r\n\r\n")),
    "no WebSocket": ("ws", sending(b"HTTP/1.1 404 Not Found\r\n\r\n")),
    "a flood of PINGRESP": ("mqtt", sending(b"\xd0\x00" * 1_000_000)),
    "a frame of 2^62 bytes": ("ws", websocket_server(b"\x82\x7f\x40" + bytes(7) + (b"\x30\x7f" + bytes(127)) * 20_000)),
    "frames of garbage": ("ws", websocket_server(b"\x82\x05\xff\xff\xff\xff\xff")),
    "a close frame": ("ws", websocket_server(b"\x88\x00" + b"\x82\x02\xf0\x00")),
}


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 302 Found\r\nLocation: http://portal.example/\r\n\r\n"])
def test_what_speaks_no_mqtt_is_called_that(answer: bytes) -> None:
    """A port that wants TLS, or a network that asks to log in first."""

    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(answer)

    with tcp_server(serve) as port, mailbox(f"mqtt://{LOOPBACK}:{port}") as (_, man):
        wait_until(lambda: man.states)
        assert "does not speak MQTT" in man.states[0][2]


@pytest.mark.parametrize("starts", [-2, 1])
def test_a_certificate_of_another_time_is_a_question_of_the_clock(tmp_path: Path, starts: int) -> None:
    """It has expired, or will be valid tomorrow: or this computer's clock is wrong."""
    ca = make_certificates(tmp_path, starts=datetime.timedelta(days=starts))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")

    def serve(connection: socket.socket) -> None:
        context.wrap_socket(connection, server_side=True).recv(1)

    with tcp_server(serve) as port, mailbox(f"mqtts://{LOOPBACK}:{port}{trusting(ca)}") as (_, man):
        wait_until(lambda: man.states)
        assert "is the clock of this computer right?" in man.states[0][2]


def test_a_certificate_of_an_unknown_issuer_may_be_of_ones_own(broker: Mosquitto) -> None:
    with mailbox(broker.tls.partition("?")[0]) as (_, man):
        wait_until(lambda: man.states)
        assert "name its issuer by ?ca=FILE" in man.states[0][2]


@pytest.mark.parametrize(
    ("version", "says"),
    [
        (ssl.TLSVersion.TLSv1_3, "it wants a certificate of its clients, and udpsend has none"),
        (ssl.TLSVersion.TLSv1_2, "it refused TLS (handshake failure)"),
    ],
)
def test_a_broker_that_wants_certificates_of_its_clients_is_not_blamed(
    tmp_path: Path, version: ssl.TLSVersion, says: str
) -> None:
    ca = make_certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ca))
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    context.maximum_version, context.verify_mode = version, ssl.CERT_REQUIRED

    def serve(connection: socket.socket) -> None:
        context.wrap_socket(connection, server_side=True)

    with tcp_server(serve) as port, mailbox(f"mqtts://{LOOPBACK}:{port}?ca={ca}") as (_, man):
        wait_until(lambda: man.states)
        assert man.states[0][2] == f"mqtts://{LOOPBACK}:{port}: {says}"


def test_what_a_broker_said_before_it_hung_up_is_heard() -> None:
    """TLS 1.3 says it after the handshake, when this side may find that nothing can be sent any more."""

    class HungUp:
        def send(self, buffer: bytes) -> int:
            raise ssl.SSLEOFError

        def recv(self, size: int) -> bytes:
            error = ssl.SSLError()
            error.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
            raise error

    stream = broker_connection.FilteredStream(HungUp(), PacketFilter(RateLimit(1, 1)))  # type: ignore[arg-type]
    assert stream.send(b"CONNECT") == 7
    with pytest.raises(ssl.SSLError):
        stream.recv(1)
    assert "certificate of its clients" in stream.refusal


def test_old_tls_is_not_called_none() -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(bytes.fromhex("1503010002 0246"))  # fatal, protocol_version

    with tcp_server(serve) as port, mailbox(f"mqtts://{LOOPBACK}:{port}") as (_, man):
        wait_until(lambda: man.states)
        assert "no TLS that is still safe" in man.states[0][2]


def test_a_plain_port_speaks_no_tls(broker: Mosquitto) -> None:
    with mailbox(f"mqtts://{LOOPBACK}:{broker.tcp_port}") as (_, man):
        wait_until(lambda: man.states)
        assert "does not speak TLS there" in man.states[0][2]


@pytest.mark.parametrize("behaviour", list(HOSTILE))
def test_hostile_brokers_cost_one_report(behaviour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_mailbox, "FIRST_BACKOFF", 0.01)
    scheme, misbehave = HOSTILE[behaviour]
    connections: list[int] = []

    def serve(connection: socket.socket) -> None:
        connections.append(1)
        misbehave(connection)

    with tcp_server(serve) as port, mailbox(f"{scheme}://{LOOPBACK}:{port}") as (box, man):
        wait_until(lambda: len(connections) >= 4, "a fourth attempt")
        box.publish(b"dropped")
        assert [up for _, up, _ in man.states] == [False]
        assert man.states[0][2]
        assert not man.messages


def test_silent_brokers_do_not_hold_up_close() -> None:
    """However far the connection has come: in TLS, in the WebSocket handshake, waiting for CONNACK."""
    reached = [threading.Event() for _ in range(3)]

    def silent(event: threading.Event) -> Callable[[socket.socket], None]:
        def serve(connection: socket.socket) -> None:
            connection.recv(1)
            event.set()
            until_closed(connection)

        return serve

    for scheme, event in zip(("mqtts", "ws", "mqtt"), reached, strict=True):
        with tcp_server(silent(event)) as port, mailbox(f"{scheme}://{LOOPBACK}:{port}") as (_, man):
            assert event.wait(20)
            assert not man.states
        # `mailbox` has waited for the end of the thread.


def test_a_broker_that_falls_silent_does_not_hold_up_close() -> None:
    """It grants the subscription, and never confirms what is published."""
    published = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(CONNACK_5)
        subscribe = connection.recv(4096)
        connection.sendall(b"\x90\x04" + subscribe[2:4] + b"\x00\x00")
        connection.recv(1)
        published.set()
        until_closed(connection)

    with tcp_server(serve) as port, mailbox(f"mqtt://{LOOPBACK}:{port}") as (box, man):
        man.wait_until_up()
        box.publish(b"bye")
        assert published.wait(20)


def test_a_name_that_cannot_be_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with mailbox("mqtts://broker.invalid") as (_, man):
        wait_until(lambda: man.states)
        assert man.states == [
            ("mqtts://broker.invalid:8883", False, "mqtts://broker.invalid:8883: its name cannot be resolved")
        ]


def test_a_name_that_is_still_looked_up_does_not_hold_up_close(monkeypatch: pytest.MonkeyPatch) -> None:
    looking, ended = threading.Event(), threading.Event()
    answered: list[bool] = []

    def hang(*_: object, **__: object) -> list[object]:
        looking.set()
        answered.append(ended.wait(20))
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(broker_mailbox, "CLOSE_TIMEOUT", 60.0)
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with mailbox("mqtt://broker.invalid") as (box, _):
        assert looking.wait(20)
        box.close()
        assert not answered, "it was waited for"
        ended.set()


def test_the_time_that_its_name_takes_is_not_the_brokers(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that is dead costs 5 s for each look-up, before the next one is asked."""
    monkeypatch.setattr(mqtt, "CONNECT_TIMEOUT", 1.0)
    slow_look_ups(monkeypatch, 1.2)
    with mailbox(broker.tcp) as (_, man):
        wait_until(lambda: man.states, "a word of the broker's")
        assert man.states[0][1], man.states


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell another size, or none")
def test_packets_on_the_way_to_a_broker_and_back_pass_any_tunnel() -> None:
    """Also where what is too long is dropped without a word."""
    sizes: list[int] = []

    def serve(connection: socket.socket) -> None:
        sizes.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))

    with tcp_server(serve) as port, mailbox(f"mqtt://{LOOPBACK}:{port}") as (_, man):
        wait_until(lambda: man.states)
    assert sizes[0] <= 1220, "what it told the broker, which told 65,495 itself"


def test_a_broker_far_away_has_its_time_for_each_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a line that is full a round trip takes 2 s, and there are several."""

    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        time.sleep(0.9)
        connection.sendall(CONNACK_5)
        subscribe = connection.recv(4096)
        time.sleep(0.9)
        connection.sendall(b"\x90\x04" + subscribe[2:4] + b"\x00\x00")
        until_closed(connection)

    monkeypatch.setattr(mqtt, "SESSION_TIMEOUT", 1.5)
    monkeypatch.setattr(mqtt, "TICK", 0.05)
    with tcp_server(serve) as port, mailbox(f"mqtt://{LOOPBACK}:{port}") as (_, man):
        wait_until(lambda: man.states, "a word of the broker's")
        assert man.states[0][1], man.states


def test_each_step_of_reaching_a_broker_has_its_time(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    connect, start_tls = broker_connection.connect, broker_connection.start_tls

    def slow_tcp(*words: Any) -> Any:
        connected = connect(*words)
        time.sleep(1.5)
        return connected

    def slow_tls(*words: Any) -> Any:
        connected = start_tls(*words)
        time.sleep(1.5)
        return connected

    monkeypatch.setattr(mqtt, "CONNECT_TIMEOUT", 1.5)
    monkeypatch.setattr(mqtt, "connect", slow_tcp)
    monkeypatch.setattr(mqtt, "start_tls", slow_tls)
    with mailbox(broker.wss) as (_, man):
        wait_until(lambda: man.states, "a word of the broker's")
        assert man.states[0][1], man.states


def test_mqtt_5_is_tried_first_and_3_1_1_where_it_is_not_known() -> None:
    levels: list[int] = []

    def serve(connection: socket.socket) -> None:
        connect = connection.recv(4096)
        levels.append(connect[8])
        connection.sendall(bytes.fromhex("20020001") if connect[8] == 5 else bytes.fromhex("20020000"))
        if connect[8] == 5:
            return
        subscribe = connection.recv(4096)
        connection.sendall(b"\x90\x03" + subscribe[2:4] + b"\x00")
        until_closed(connection)

    with tcp_server(serve) as port, mailbox(f"mqtt://{LOOPBACK}:{port}") as (_, man):
        man.wait_until_up()
        assert levels == [5, 4]
        assert len(man.states) == 1


# URLs.


def test_urls() -> None:
    assert parse_broker_url("mqtts://broker.example.org") == BrokerUrl("mqtts", "broker.example.org", 8883)
    assert parse_broker_url("mqtt://[::1]:1884").netloc == "[::1]:1884"
    assert parse_broker_url("ws://h").port == 8083
    assert parse_broker_url("wss://h:443/x/y").path == "/x/y"
    full = parse_broker_url("wss://a%40b:p%2Fw@h/mqtt?ca=/x/ca.pem")
    assert (full.user, full.password, full.ca, full.port) == ("a@b", "p/w", Path("/x/ca.pem"), 8084)
    assert full.name == "wss://h:8084"
    assert "p/w" not in repr(full)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "broker.example.org",
        "http://broker.example.org",
        "mqtt://",
        "mqtt://:1883",
        "mqtt://h:0",
        "mqtt://h:99999",
        "mqtt://h:x",
        "mqtt://h/path",
        "mqtt://[::1",
        "mqtts://h?insecure=1",
        "mqtts://h?ca",
        "mqtt://h?ca=/tmp/x",
        "mqtts://h#x",
        "mqtts://h/\r\nX: y",
        "ws://h/a b",
        "mqtt://" + "h" * 3000,
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(UsageError):
        parse_broker_url(url)


@pytest.mark.parametrize("url", ["mqtt://ann:secret@h:x", "ann:secret@h:1883"])
def test_errors_do_not_show_passwords(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_broker_url(url)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=60), st.sampled_from(["mqtt://", "wss://", "ws://u:p@", ""]))
def test_parsing_a_url_raises_usage_errors_only(text: str, prefix: str) -> None:
    with contextlib.suppress(UsageError):
        parse_broker_url(prefix + text)


def test_ca_files_that_cannot_be_read(tmp_path: Path) -> None:
    man = Mailman()
    with pytest.raises(UsageError, match="not there"):
        open_mqtt([f"mqtts://{LOOPBACK}{trusting(tmp_path / 'none')}"], TOPIC, man.on_message, man.on_state)
    (tmp_path / "bad").write_text("no certificate")
    with pytest.raises(UsageError, match="PEM"):
        open_mqtt([f"mqtts://{LOOPBACK}{trusting(tmp_path / 'bad')}"], TOPIC, man.on_message, man.on_state)


def test_grouping() -> None:
    urls = [parse_broker_url(u) for u in ("mqtt://a", "ws://b", "wss://a", "mqtts://a", "mqtt://a", "mqtts://b")]
    groups = [[url.name for url in group] for group in group_by_host(urls)]
    assert groups == [["wss://a:8084", "mqtts://a:8883", "mqtt://a:1883"], ["mqtts://b:8883", "ws://b:8083"]]


# The filter.


def publish_packet(payload: bytes) -> bytes:
    rest = b"\x00\x01t" + payload
    length, encoded = len(rest), b""
    while True:
        length, digit = divmod(length, 128)
        encoded += bytes([digit | (0x80 if length else 0)])
        if not length:
            return b"\x30" + encoded + rest


@given(st.lists(st.integers(0, 3 * MAX_PACKET_SIZE), max_size=6), st.integers(1, 20_000))
def test_packets_pass_whole_or_not_at_all(sizes: list[int], step: int) -> None:
    packets = [publish_packet(bytes(size)) for size in sizes]
    stream = b"".join(packets)
    passed = PacketFilter(RateLimit(1000, 1000))
    for start in range(0, len(stream), step):
        passed.feed_untrusted(stream[start : start + step], 0.0)
    expected = [packet for packet in packets if len(packet) <= MAX_PACKET_SIZE]
    assert passed.take(1 << 30) == b"".join(expected)


def test_messages_of_another_qos_than_was_asked_for_are_skipped() -> None:
    """paho would keep each of QoS 2 until the broker releases it."""
    packet = publish_packet(b"x")
    passed = PacketFilter(RateLimit(10, 10))
    for qos in (1, 2, 3):
        passed.feed_untrusted(bytes([packet[0] | qos << 1]) + packet[1:], 0.0)
    passed.feed_untrusted(bytes([packet[0] | 8]) + packet[1:] + packet, 0.0)
    assert passed.take(1 << 20) == bytes([packet[0] | 8]) + packet[1:] + packet


def test_too_many_messages_are_skipped() -> None:
    passed = PacketFilter(RateLimit(10, 10))
    passed.feed_untrusted(publish_packet(b"x") * 100 + b"\xd0\x00", 0.0)
    assert passed.take(1 << 20) == publish_packet(b"x") * 10 + b"\xd0\x00"
    passed.feed_untrusted(publish_packet(b"x") * 100, 1.0)
    assert len(passed) == 10 * len(publish_packet(b"x"))


@given(st.binary(max_size=200))
def test_any_bytes_raise_bad_packet_only(data: bytes) -> None:
    with contextlib.suppress(BadPacket):
        PacketFilter(RateLimit(10, 10)).feed_untrusted(data, 0.0)
