"""A relay where nothing else leads through: two symmetric NATs, UDP blocked between the two sides, and a network that
lets no UDP out at all. coturn is the relay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.netlab_fixtures import MQTT_PORT, STUN_PORT, laboratory, start_coturn, start_mosquitto, udpsend
from tools.netlab import Lab, internet
from tools.netlab.servers import relay_url

CODE = "4821-marble-otter"
SIZE = 2_000_000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


def transfer(lab: Lab, source: Path, directory: Path, relays: tuple[str, str]) -> tuple[str, str]:
    """alice sends to bob, each with the options for a relay that are given. What both printed."""
    server = lab.address("server")
    common = ["--broker", f"mqtt://{server}:{MQTT_PORT}", "--stun", f"{server}:{STUN_PORT}", "-v"]
    alice, bob = (common + ([f"--relay={relay}"] if relay else []) for relay in relays)
    target = directory / "received"
    target.mkdir()
    receiver = udpsend(lab, "bob", directory / "recv.log", "recv", CODE, "--yes", "-o", str(target), *bob)
    sender = udpsend(lab, "alice", directory / "send.log", "send", str(source), "--code", CODE, "--no-qr", *alice)
    printed = sender.finish(), receiver.finish()
    assert (target / source.name).read_bytes() == source.read_bytes()
    return printed


@pytest.mark.parametrize("with_relay", ["alice", "bob"])
def test_two_symmetric_nats_and_one_relay(tmp_path: Path, source: Path, with_relay: str) -> None:
    with laboratory(internet("symmetric-random", "symmetric-random")) as lab:
        start_mosquitto(lab, "server", tmp_path)
        start_coturn(lab, "server", tmp_path)
        relays = (relay_url(lab), "") if with_relay == "alice" else ("", relay_url(lab))
        for printed in transfer(lab, source, tmp_path, relays):
            assert "Path: relayed" in printed
            assert "s3cret" not in printed


def test_a_direct_path_is_taken_where_there_is_one(tmp_path: Path, source: Path) -> None:
    with laboratory(internet("masquerade", "masquerade")) as lab:
        start_mosquitto(lab, "server", tmp_path)
        start_coturn(lab, "server", tmp_path)
        for printed in transfer(lab, source, tmp_path, (relay_url(lab), relay_url(lab))):
            assert "Direct path: internet, through NAT" in printed


def test_udp_blocked_between_the_two(tmp_path: Path, source: Path) -> None:
    with laboratory(internet("masquerade", "masquerade")) as lab:
        start_mosquitto(lab, "server", tmp_path)
        start_coturn(lab, "server", tmp_path)
        for rule in (
            "add table inet block",
            "add chain inet block forward { type filter hook forward priority 0; }",
            "add rule inet block forward ip saddr 192.0.2.0/26 ip daddr 198.51.100.0/26 drop",
            "add rule inet block forward ip saddr 198.51.100.0/26 ip daddr 192.0.2.0/26 drop",
        ):
            lab.output("core", ["nft", rule])
        for printed in transfer(lab, source, tmp_path, ("", relay_url(lab))):
            assert "Path: relayed" in printed


def test_no_udp_out_on_both_sides(tmp_path: Path, source: Path) -> None:
    """Each side reaches its relay by TCP alone, and the two relayed addresses talk to each other."""
    with laboratory(internet("masquerade", "masquerade")) as lab:
        start_mosquitto(lab, "server", tmp_path)
        start_coturn(lab, "server", tmp_path)
        for router in ("router-a", "router-b"):
            rules = "add chain inet lab no_udp { type filter hook forward priority 1; meta l4proto udp drop; }"
            lab.output(router, ["nft", rules])
        over_tcp = relay_url(lab, "?transport=tcp")
        for printed in transfer(lab, source, tmp_path, (over_tcp, over_tcp)):
            assert "Path: relayed" in printed
