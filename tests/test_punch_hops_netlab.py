"""How many routers translate on the way out, asked in networks where it is known."""

from __future__ import annotations

import sys

import pytest

from tests.netlab_fixtures import laboratory
from tools.netlab import Topology, internet
from tools.netlab.topology import layers

ASK = """from udpsend.punching.hops import routers_that_translate
found = routers_that_translate("198.51.100.130", None)
print(found.count, found.are_all)"""


@pytest.mark.parametrize(
    ("topology", "told"),
    [
        (internet("masquerade"), "1 True"),
        (internet("none"), "1 True"),
        (layers("masquerade", "masquerade-open"), "2 True"),
        # The ICMP of routers further on does not come back through this one.
        (layers("port-restricted", "masquerade"), "1 False"),
        (internet("udp-blocked"), "1 False"),
    ],
    ids=["home", "public", "two layers", "silent", "blocked"],
)
def test_routers_are_counted(topology: Topology, told: str) -> None:
    with laboratory(topology) as lab:
        assert lab.output("alice", [sys.executable, "-c", ASK]).strip() == told


def test_no_way_out() -> None:
    with laboratory(internet()) as lab:
        lab.output("alice", ["ip", "route", "del", "default"])
        assert lab.output("alice", [sys.executable, "-c", ASK]).strip() == "1 False"
