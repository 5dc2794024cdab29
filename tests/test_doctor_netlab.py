"""`udpsend doctor` behind real NATs: each kind is told as what it is, and a pair tries its path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.netlab_fixtures import MQTT_PORT, STUN_PORT, laboratory, start_coturn, start_mosquitto, udpsend
from tools.netlab import NAT_KINDS, Lab, internet
from tools.netlab.topology import layers

KINDS = ("none", "firewall", "full-cone", "address-restricted", "masquerade", "hairpin", "symmetric-random")


def options(lab: Lab) -> tuple[str, ...]:
    first, second = lab.address("server", 0), lab.address("server", 1)
    stun = ("--stun", f"{first}:{STUN_PORT}", "--stun", f"{second}:{STUN_PORT}")
    return ("--broker", f"mqtt://{first}:{MQTT_PORT}", *stun, "--no-lan")


def examine(lab: Lab, directory: Path, *more: str) -> dict[str, Any]:
    doctor = udpsend(lab, "alice", directory / "doctor.log", "doctor", "--json", "-q", *options(lab), *more)
    found = json.loads(doctor.finish())
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_nat(tmp_path: Path, kind: str) -> None:
    with laboratory(internet(kind, "none")) as lab:
        start_mosquitto(lab, "server", tmp_path)
        start_coturn(lab, "server", tmp_path)
        found = examine(lab, tmp_path)
    assert found["ipv4"]["mapping"] == NAT_KINDS[kind].mapping.value
    assert found["ipv4"]["filtering"] == NAT_KINDS[kind].filtering.value
    assert found["ipv4"]["hairpin"] is (NAT_KINDS[kind].hairpin if NAT_KINDS[kind].translates else None)
    assert found["direct_path"] is True
    assert found["mtu"] == {"interface": 1500, "path": 1500}
    assert all(place["seconds"] is not None for place in found["brokers"] + found["stun_servers"])


def test_lifetime_of_a_mapping(tmp_path: Path) -> None:
    with laboratory(internet("masquerade", "none")) as lab:
        start_mosquitto(lab, "server", tmp_path)
        start_coturn(lab, "server", tmp_path)
        timeouts = [f"net.netfilter.nf_conntrack_udp_timeout{which}=3" for which in ("", "_stream")]
        lab.output("router-a", ["sysctl", "-q", "-w", *timeouts])
        lifetime = examine(lab, tmp_path, "--lifetime", "8")["ipv4"]["lifetime"]
    # The kernel's clean-up runs behind its clock, and lookups do not: from 3 s on it is gone.
    assert lifetime["dead"] is not None
    assert lifetime["dead"] >= 3
    assert lifetime["alive"] < lifetime["dead"]


def test_a_home_router_behind_a_carriers(tmp_path: Path) -> None:
    with laboratory(layers("masquerade", "masquerade-open")) as lab:
        start_mosquitto(lab, "server", tmp_path)
        start_coturn(lab, "server", tmp_path)
        assert examine(lab, tmp_path)["ipv4"]["routers"] == 2
        printed = udpsend(lab, "alice", tmp_path / "doctor.log", "doctor", *options(lab)).finish()
    assert "2 routers, one behind the other" in printed


def test_udp_that_does_not_get_out(tmp_path: Path) -> None:
    with laboratory(internet("masquerade", "none")) as lab:
        start_mosquitto(lab, "server", tmp_path)
        rules = "add chain inet lab no_udp { type filter hook forward priority 1; meta l4proto udp drop; }"
        lab.output("router-a", ["nft", rules])
        log = tmp_path / "doctor.log"
        printed = udpsend(lab, "alice", log, "doctor", *options(lab)).finish(5)
    assert "1 of 1 brokers" in printed
    assert "UDP does not get out" in printed


def test_a_pair_behind_two_nats(tmp_path: Path) -> None:
    with laboratory(internet("masquerade", "masquerade")) as lab:
        start_mosquitto(lab, "server", tmp_path)
        start_coturn(lab, "server", tmp_path)
        words = ("doctor", "--code", "4821-marble-otter", *options(lab))
        doctors = [udpsend(lab, host, tmp_path / f"{host}.log", *words) for host in ("alice", "bob")]
        for doctor in doctors:
            printed = doctor.finish()
            assert "The pair has a direct path after" in printed
            assert "This side has an ordinary NAT, the other an ordinary NAT." in printed


def test_a_pair_without_a_direct_path(tmp_path: Path) -> None:
    with laboratory(internet("symmetric-random", "symmetric-random")) as lab:
        start_mosquitto(lab, "server", tmp_path)
        start_coturn(lab, "server", tmp_path)
        words = ("doctor", "--code", "4821-marble-otter", *options(lab))
        doctors = [udpsend(lab, host, tmp_path / f"{host}.log", *words) for host in ("alice", "bob")]
        nat = "a symmetric NAT with random ports"
        for doctor in doctors:
            printed = doctor.finish(5)
            assert f"was found: this side has {nat}, the other {nat}. Two symmetric NATs cannot meet." in printed
