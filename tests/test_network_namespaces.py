"""The program between real network stacks: on a LAN with nothing but multicast, and through two Linux NATs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.netlab_fixtures import MQTT_PORT, STUN_PORT, laboratory, start_coturn, start_mosquitto, udpsend
from tools.netlab import Lab, internet, lan
from udpsend.errors import NoDirectPath

CODE = "4821-marble-otter"
LAN_SIZE = 3_000_001
INTERNET_SIZE = 20_000_000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(os.urandom(LAN_SIZE))
    return path


def transfer(lab: Lab, source: Path, directory: Path, options: tuple[str, ...]) -> tuple[str, str]:
    """alice sends to bob. What sender and receiver printed; the content has been compared."""
    target = directory / "received"
    target.mkdir()
    receiver = udpsend(lab, "bob", directory / "recv.log", "recv", CODE, "--yes", "-o", str(target), *options)
    sender = udpsend(lab, "alice", directory / "send.log", "send", str(source), "--code", CODE, "--no-qr", *options)
    printed = sender.finish(), receiver.finish()
    assert (target / source.name).read_bytes() == source.read_bytes()
    return printed


def test_lan_without_any_server_by_multicast_alone(tmp_path: Path, source: Path) -> None:
    with laboratory(lan()) as lab:
        for printed in transfer(lab, source, tmp_path, ("--broker", "none", "--stun", "none")):
            assert "Direct path: local network, 10.7.0." in printed


def test_who_has_no_network_yet_when_the_commands_start(tmp_path: Path, source: Path) -> None:
    addresses = {"alice": "10.7.0.1/24", "bob": "10.7.0.2/24"}
    options = ("--broker", "none", "--stun", "none")
    target = tmp_path / "received"
    target.mkdir()
    with laboratory(lan()) as lab:
        for host in addresses:
            lab.output(host, ["ip", "address", "flush", "dev", "eth0"])
        receiver = udpsend(lab, "bob", tmp_path / "recv.log", "recv", CODE, "--yes", "-v", "-o", str(target), *options)
        sender = udpsend(lab, "alice", tmp_path / "send.log", "send", str(source), "--code", CODE, "-v", *options)
        for started in (receiver, sender):
            started.wait_for_text("mailbox local network: up")
        for host, address in addresses.items():
            lab.output(host, ["ip", "address", "add", address, "dev", "eth0"])
        for started in (receiver, sender):
            assert "Direct path: local network, 10.7.0." in started.finish()


def meeting_options(lab: Lab) -> tuple[str, ...]:
    server = lab.address("server")
    return ("--broker", f"mqtt://{server}:{MQTT_PORT}", "--stun", f"{server}:{STUN_PORT}")


def start_embedded_server(lab: Lab, directory: Path) -> tuple[str, ...]:
    """`udpsend serve` on the server; the options for the peers."""
    ports = ("--mqtt-port", str(MQTT_PORT), "--stun-port", str(STUN_PORT))
    server = udpsend(lab, "server", directory / "serve.log", "serve", "--host", lab.address("server"), *ports)
    server.wait_for_text(f"mqtt://{lab.address('server')}:{MQTT_PORT}")
    return meeting_options(lab)


def cross_two_nats(lab: Lab, source: Path, directory: Path, options: tuple[str, ...]) -> None:
    """The transfer, and the proof by the counters that it went from NAT to NAT."""
    source.write_bytes(os.urandom(INTERNET_SIZE))
    before = lab.interface_bytes("server", "eth0")
    printed = transfer(lab, source, directory, options)
    after = lab.interface_bytes("server", "eth0")
    for text, other_router in zip(printed, ("198.51.100.2:", "192.0.2.2:"), strict=True):
        assert f"Direct path: internet, through NAT, {other_router}" in text
    through_server = after.received_bytes + after.sent_bytes - before.received_bytes - before.sent_bytes
    assert through_server < INTERNET_SIZE / 100
    assert lab.packet_counters("router-a")["out"][1] > INTERNET_SIZE
    assert lab.packet_counters("router-b")["in"][1] > INTERNET_SIZE


def test_two_masquerading_nats_with_mosquitto_and_coturn(tmp_path: Path, source: Path) -> None:
    with laboratory(internet("masquerade", "masquerade")) as lab:
        start_mosquitto(lab, "server", tmp_path)
        start_coturn(lab, "server", tmp_path)
        cross_two_nats(lab, source, tmp_path, meeting_options(lab))


def test_two_masquerading_nats_with_the_embedded_server(tmp_path: Path, source: Path) -> None:
    with laboratory(internet("masquerade", "masquerade")) as lab:
        cross_two_nats(lab, source, tmp_path, start_embedded_server(lab, tmp_path))


def test_two_symmetric_nats_are_said_to_have_no_direct_path(tmp_path: Path, source: Path) -> None:
    with laboratory(internet("symmetric-random", "symmetric-random")) as lab:
        options = start_embedded_server(lab, tmp_path)
        receiver = udpsend(lab, "bob", tmp_path / "recv.log", "recv", CODE, "--yes", "-o", str(tmp_path), *options)
        sender = udpsend(lab, "alice", tmp_path / "send.log", "send", str(source), "--code", CODE, "--no-qr", *options)
        assert "no direct path" in sender.finish(NoDirectPath.exit_code)
        assert "no direct path" in receiver.finish(NoDirectPath.exit_code)
