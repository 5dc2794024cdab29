"""Port mapping with miniupnpd of Debian in a home router: a host outside of it can then write first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.netlab_fixtures import (
    MQTT_PORT,
    STUN_PORT,
    laboratory,
    start_coturn,
    start_miniupnpd,
    start_mosquitto,
    udpsend,
)
from tools.netlab import internet
from tools.netlab.topology import MAPPED_ADDRESS

CODE = "4821-marble-otter"
MAP = """
import json, sys, threading
from udpsend.punching.gateway import find_gateway
from udpsend.punching.portmap import PortMapper
gateway = find_gateway()
assert gateway is not None
done = threading.Event()
def mapped(mapping):
    print(json.dumps([mapping.protocol, *mapping.address]), flush=True)
    done.set()
def failed(why):
    print(json.dumps(why), flush=True)
    done.set()
mapper = PortMapper(gateway, 5555, mapped, failed)
done.wait(20)
sys.stdin.readline()
mapper.close()
"""


@pytest.mark.parametrize(("pcp", "upnp", "protocol"), [(True, False, "PCP"), (False, True, "UPnP")])
def test_mapping_is_made_and_deleted(tmp_path: Path, pcp: bool, upnp: bool, protocol: str) -> None:
    with laboratory(internet("symmetric-random", "none", port_mapping=("pcp", "upnp"))) as lab:
        daemon = start_miniupnpd(lab, "router-a", tmp_path, pcp=pcp, upnp=upnp)
        process = lab.run(
            "alice",
            [sys.executable, "-c", MAP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        told = process.stdout.readline().decode()
        assert told.startswith(f'["{protocol}", "{MAPPED_ADDRESS}", '), told + daemon.printed()
        rules = lab.output("router-a", ["nft", "list", "table", "inet", "upnp"])
        assert "10.1.0.70:5555" in rules
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.wait(20) == 0
        assert "10.1.0.70:5555" not in lab.output("router-a", ["nft", "list", "table", "inet", "upnp"])


def test_a_mapping_opens_what_no_punching_could(tmp_path: Path) -> None:
    """Both NATs are symmetric with random ports. One of the routers maps a port."""
    source = tmp_path / "source.bin"
    source.write_bytes(bytes(100_000))
    target = tmp_path / "received"
    target.mkdir()
    with laboratory(internet("symmetric-random", "symmetric-random", port_mapping=("pcp", "upnp"))) as lab:
        start_mosquitto(lab, "server", tmp_path)
        start_coturn(lab, "server", tmp_path)
        start_miniupnpd(lab, "router-a", tmp_path, pcp=True, upnp=True)
        server = lab.address("server")
        options = ("--broker", f"mqtt://{server}:{MQTT_PORT}", "--stun", f"{server}:{STUN_PORT}", "-v")
        receiver = udpsend(lab, "bob", tmp_path / "recv.log", "recv", CODE, "--yes", "-o", str(target), *options)
        sender = udpsend(lab, "alice", tmp_path / "send.log", "send", str(source), "--code", CODE, "--no-qr", *options)
        told = sender.finish()
        assert f"port mapping by PCP: {MAPPED_ADDRESS}:" in told
        assert f"Direct path: internet, through NAT, {MAPPED_ADDRESS}:" in receiver.finish()
    assert (target / source.name).read_bytes() == source.read_bytes()
