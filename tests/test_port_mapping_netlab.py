"""Port mapping with miniupnpd of Debian in a home router: a host outside of it can then write first."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netlab_fixtures import MQTT_PORT, STUN_PORT, Started, laboratory, start_coturn, start_mosquitto, udpsend
from tools.netlab import Lab, internet

CODE = "4821-marble-otter"
# miniupnpd does nothing behind an address that is reserved for documentation, as all of the laboratory's are. So the
# router gets one more, which exists inside of the laboratory only.
OUTSIDE = "44.128.0.2"
# The tables that miniupnpd fills. What it maps passes the laboratory's own table by `ct status dnat`.
TABLES = """
table inet upnp {
    chain miniupnpd { }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
    chain prerouting {
        type nat hook prerouting priority dstnat;
        jump prerouting_miniupnpd
    }
}
"""
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


def start_miniupnpd(lab: Lab, router: str, directory: Path, *, pcp: bool, upnp: bool) -> Started:
    program = shutil.which("miniupnpd", path="/usr/sbin:/usr/bin:/sbin")
    if program is None:
        pytest.skip("needs miniupnpd (Debian package miniupnpd-nftables)")
    subprocess.run(
        lab.on(router, ["nft", "-f", "-"]), input=TABLES, text=True, check=True, capture_output=True, timeout=30
    )
    lab.output(router, ["ip", "address", "add", f"{OUTSIDE}/32", "dev", "wan"])
    lab.output("core", ["ip", "route", "add", f"{OUTSIDE}/32", "via", "192.0.2.2"])
    settings = directory / "miniupnpd.conf"
    settings.write_text(
        f"ext_ifname=wan\next_ip={OUTSIDE}\nlistening_ip=lan\n"
        f"enable_natpmp={'yes' if pcp else 'no'}\nenable_upnp={'yes' if upnp else 'no'}\n"
        "upnp_table_name=upnp\nupnp_nat_table_name=upnp\nupnp_forward_chain=miniupnpd\n"
        "upnp_nat_chain=prerouting_miniupnpd\nupnp_nat_postrouting_chain=postrouting_miniupnpd\n"
        f"lease_file={directory / 'leases'}\nsystem_uptime=yes\nsecure_mode=yes\n"
        "uuid=00000000-0000-0000-0000-000000000001\nallow 1024-65535 10.0.0.0/8 1024-65535\n"
        "deny 0-65535 0.0.0.0/0 0-65535\n"
    )
    server = Started(
        lab,
        router,
        [program, "-d", "-f", str(settings), "-P", str(directory / "miniupnpd.pid")],
        directory / "miniupnpd.log",
    )
    server.wait_for_text("Listening for" if pcp else "HTTP listening on port")
    return server


@pytest.mark.parametrize(("pcp", "upnp", "protocol"), [(True, False, "PCP"), (False, True, "UPnP")])
def test_mapping_is_made_and_deleted(tmp_path: Path, pcp: bool, upnp: bool, protocol: str) -> None:
    with laboratory(internet("symmetric-random", "none")) as lab:
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
        assert told.startswith(f'["{protocol}", "{OUTSIDE}", '), told + daemon.printed()
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
    with laboratory(internet("symmetric-random", "symmetric-random")) as lab:
        start_mosquitto(lab, "server", tmp_path)
        start_coturn(lab, "server", tmp_path)
        start_miniupnpd(lab, "router-a", tmp_path, pcp=True, upnp=True)
        server = lab.address("server")
        options = ("--broker", f"mqtt://{server}:{MQTT_PORT}", "--stun", f"{server}:{STUN_PORT}", "-v")
        receiver = udpsend(lab, "bob", tmp_path / "recv.log", "recv", CODE, "--yes", "-o", str(target), *options)
        sender = udpsend(lab, "alice", tmp_path / "send.log", "send", str(source), "--code", CODE, "--no-qr", *options)
        told = sender.finish()
        assert f"port mapping by PCP: {OUTSIDE}:" in told
        assert f"Direct path: internet, through NAT, {OUTSIDE}:" in receiver.finish()
    assert (target / source.name).read_bytes() == source.read_bytes()
