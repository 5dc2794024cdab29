"""The laboratory itself: kinds of NAT behave as they say, labs do not disturb each other, nothing is left behind."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.netlab_fixtures import laboratory
from tools.netlab import NAT_KINDS, Lab, LabError, internet, lan, missing_requirements, pair
from tools.netlab.check import measure

pytestmark = pytest.mark.skipif(missing_requirements() is not None, reason=str(missing_requirements()))


def namespaces_of(lab: Lab) -> list[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if lab.namespace("") in line]


@pytest.mark.parametrize("name", sorted(NAT_KINDS))
def test_a_kind_of_nat_behaves_as_described(name: str) -> None:
    found = measure(NAT_KINDS[name])
    assert found.agrees_with(NAT_KINDS[name]), found


def test_up_and_down_may_be_repeated_and_leave_nothing() -> None:
    lab = Lab(pair())
    lab.down()
    lab.up()
    lab.up()
    sleeper = lab.run("alice", ["sleep", "60"])
    assert len(namespaces_of(lab)) == 2
    lab.down()
    lab.down()
    assert sleeper.returncode == -9
    assert namespaces_of(lab) == []


def test_two_labs_at_once_have_the_same_addresses_and_different_networks() -> None:
    with laboratory(pair()) as one, laboratory(pair(9000)) as other:
        assert one.address("alice") == other.address("alice")
        assert one.namespace("alice") != other.namespace("alice")
        assert "mtu 1500" in one.output("alice", ["ip", "link", "show", "eth0"])
        assert "mtu 9000" in other.output("alice", ["ip", "link", "show", "eth0"])


def test_a_lan_has_no_way_out() -> None:
    with laboratory(lan()) as lab:
        assert "default" not in lab.output("alice", ["ip", "route", "show"])
        with pytest.raises(LabError, match="unreachable"):
            lab.output("alice", ["ip", "route", "get", "198.51.100.130"])


def test_private_addresses_are_not_routed_between_homes() -> None:
    with laboratory(internet()) as lab:
        with pytest.raises(LabError):
            lab.output("core", ["ip", "route", "get", lab.address("bob")])
        assert "via 198.51.100.129" in lab.output("server", ["ip", "route", "get", "192.0.2.2"])


def test_counters_tell_what_passed() -> None:
    with laboratory(internet()) as lab:
        before = lab.interface_bytes("server", "eth0")
        assert lab.packet_counters("router-a") == {"in": (0, 0), "out": (0, 0)}
        script = "import socket; socket.socket(2, 2).sendto(bytes(1000), ('198.51.100.130', 9))"
        lab.output("alice", [sys.executable, "-c", script])
        packets, size = lab.packet_counters("router-a")["out"]
        assert (packets, size) == (1, 1028)
        assert lab.interface_bytes("server", "eth0").received_bytes >= before.received_bytes + 1000
