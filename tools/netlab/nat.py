"""The kinds of NAT that a laboratory's router can have, each with its behaviour in the words of RFC 4787.

A router has two interfaces, `lan` and `wan`. A kind is an nftables ruleset for it, or options of the NAT in user space
(`usernat.py`), and the behaviour that the self-check must find. What `masquerade` shows is endpoint-independent mapping
as long as no two connections want the same outside port: Linux keeps the port where it can, and only a clash shows that
its mappings are per connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Behaviour(Enum):
    """How far a mapping or a filter depends on the other end (RFC 4787, sections 4.1 and 5)."""

    NONE = "none"
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"
    BLOCKED = "blocked"


class Ports(Enum):
    """How a new mapping gets its port on the outside."""

    KEPT = "kept"
    SEQUENTIAL = "sequential"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class NatKind:
    """What a router does to UDP between its `lan` and its `wan` interface."""

    name: str
    about: str
    mapping: Behaviour
    """NONE where addresses are not translated: the hosts behind such a router have public addresses."""
    filtering: Behaviour
    """NONE where everything from outside is let in."""
    ruleset: str
    """For `nft -f`."""
    ports: Ports = Ports.KEPT
    hairpin: bool = False
    """Whether hosts behind it reach each other at their outside addresses."""
    userspace: tuple[str, ...] = ()
    """Options for `usernat.py`, if that does the translation."""
    settings: tuple[str, ...] = ()
    """For `sysctl` in the router's namespace."""

    @property
    def translates(self) -> bool:
        return self.mapping is not Behaviour.NONE


# A home router: its own ports are closed and silent to the outside, and only answers come in. The silent drop matters
# to hole punching: a peer's early packet leaves no trace in the connection table and cannot take the place of our own.
# Counters: what went from the inside out, and what came in to the inside.
_CLOSED_INPUT = """
    chain input {
        type filter hook input priority filter; policy drop;
        iifname { "lan", "lo" } accept
        ct state established,related accept
        meta l4proto ipv6-icmp accept
    }
"""

_FORWARD_ANSWERS_ONLY = """
    counter out { }
    counter in { }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state invalid drop
        iifname "lan" oifname "wan" counter name out accept
        iifname "wan" oifname "lan" ct state established,related counter name in accept
        iifname "wan" oifname "lan" ct status dnat counter name in accept
    }
"""

_FORWARD_ALL = """
    counter out { }
    counter in { }
    chain forward {
        type filter hook forward priority filter; policy accept;
        iifname "lan" oifname "wan" counter name out accept
        iifname "wan" oifname "lan" counter name in accept
    }
"""


def _table(*chains: str) -> str:
    return "table inet lab {" + "".join(chains) + "}\n"


def _masquerade(flags: str = "", protocol: str = "") -> str:
    return f"""
table ip lab_nat {{
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        oifname "wan" {protocol} masquerade {flags}
    }}
}}
"""


def _remembered_masquerade(inbound: str) -> str:
    """Masquerading that also remembers, for two minutes, which inside port has gone out, and to which addresses.

    The map is by the inside port, which the masquerading keeps: so one inside host per port number.
    """
    return f"""
table ip lab_nat {{
    map mappings {{ type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout 2m; size 4096; }}
    set addresses {{ type ipv4_addr . inet_service; flags dynamic,timeout; timeout 2m; size 4096; }}
    chain remember {{
        type filter hook postrouting priority srcnat - 10;
        oifname "wan" ip protocol udp update @mappings {{ udp sport : ip saddr . udp sport }}
        oifname "wan" ip protocol udp update @addresses {{ ip daddr . udp sport }}
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        {inbound}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        oifname "wan" masquerade
    }}
}}
"""


# What the NAT in user space leaves to the kernel: TCP, which masquerades, and two passes for each UDP packet, which the
# connection table is not to see.
_AROUND_USERSPACE = """
    counter out { }
    counter in { }
    chain untracked {
        type filter hook prerouting priority raw;
        meta l4proto udp notrack
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        iifname "nat0" oifname "wan" counter name out accept
        iifname "nat0" oifname "lan" counter name in accept
        iifname "lan" accept
        iifname "wan" oifname "nat0" accept
        iifname "wan" oifname "lan" ct state established,related accept
    }
"""

_NO_UDP = """
    chain forward {
        type filter hook forward priority filter; policy drop;
        meta l4proto udp drop
        iifname "lan" oifname "wan" accept
        iifname "wan" oifname "lan" ct state established,related accept
    }
"""

_SHORT_LIVED = ("net.netfilter.nf_conntrack_udp_timeout=5", "net.netfilter.nf_conntrack_udp_timeout_stream=5")


def _userspace(
    name: str,
    about: str,
    mapping: Behaviour,
    filtering: Behaviour,
    ports: Ports = Ports.KEPT,
    *,
    hairpin: bool = False,
    lifetime: float = 120.0,
) -> NatKind:
    words = {
        Behaviour.ENDPOINT_INDEPENDENT: "none",
        Behaviour.ADDRESS_DEPENDENT: "address",
        Behaviour.ADDRESS_AND_PORT_DEPENDENT: "port",
    }
    options = ["--mapping", words[mapping], "--filtering", words[filtering], "--ports", ports.value]
    options += ["--lifetime", str(lifetime), *(["--hairpin"] if hairpin else [])]
    ruleset = _table(_CLOSED_INPUT, _AROUND_USERSPACE) + _masquerade(protocol="ip protocol tcp")
    return NatKind(name, about, mapping, filtering, ruleset, ports, hairpin, tuple(options))


_KINDS = (
    NatKind(
        "none",
        "a plain router: public addresses, everything passes",
        Behaviour.NONE,
        Behaviour.NONE,
        _table(_FORWARD_ALL),
    ),
    NatKind(
        "firewall",
        "public addresses behind a stateful firewall: only answers come in",
        Behaviour.NONE,
        Behaviour.ADDRESS_AND_PORT_DEPENDENT,
        _table(_CLOSED_INPUT, _FORWARD_ANSWERS_ONLY),
    ),
    NatKind(
        "full-cone",
        "one outside port per inside port, open to everybody while it is in use",
        Behaviour.ENDPOINT_INDEPENDENT,
        Behaviour.ENDPOINT_INDEPENDENT,
        _table(_CLOSED_INPUT, _FORWARD_ANSWERS_ONLY)
        + _remembered_masquerade('iifname "wan" dnat ip to udp dport map @mappings'),
    ),
    NatKind(
        "address-restricted",
        "one outside port per inside port, open to the addresses that were written to",
        Behaviour.ENDPOINT_INDEPENDENT,
        Behaviour.ADDRESS_DEPENDENT,
        _table(_CLOSED_INPUT, _FORWARD_ANSWERS_ONLY)
        + _remembered_masquerade('iifname "wan" ip saddr . udp dport @addresses dnat ip to udp dport map @mappings'),
    ),
    NatKind(
        "masquerade",
        "Linux masquerading in a home router: the port is kept where it is free, only answers come in",
        Behaviour.ENDPOINT_INDEPENDENT,
        Behaviour.ADDRESS_AND_PORT_DEPENDENT,
        _table(_CLOSED_INPUT, _FORWARD_ANSWERS_ONLY) + _masquerade(),
    ),
    NatKind(
        "masquerade-open",
        "the same on a host of virtual machines or containers, which answers strangers itself",
        Behaviour.ENDPOINT_INDEPENDENT,
        Behaviour.ADDRESS_AND_PORT_DEPENDENT,
        _table(_FORWARD_ANSWERS_ONLY) + _masquerade(),
    ),
    NatKind(
        "symmetric-random",
        "masquerading with a new random port for each destination",
        Behaviour.ADDRESS_AND_PORT_DEPENDENT,
        Behaviour.ADDRESS_AND_PORT_DEPENDENT,
        _table(_CLOSED_INPUT, _FORWARD_ANSWERS_ONLY) + _masquerade("random,fully-random"),
        Ports.RANDOM,
    ),
    _userspace(
        "port-restricted",
        "one random outside port per inside port, open to the addresses and ports that were written to",
        Behaviour.ENDPOINT_INDEPENDENT,
        Behaviour.ADDRESS_AND_PORT_DEPENDENT,
        Ports.RANDOM,
    ),
    _userspace(
        "hairpin",
        "the same, and hosts behind it reach each other at their outside addresses",
        Behaviour.ENDPOINT_INDEPENDENT,
        Behaviour.ADDRESS_AND_PORT_DEPENDENT,
        Ports.RANDOM,
        hairpin=True,
    ),
    _userspace(
        "symmetric-sequential",
        "the next outside port for each destination",
        Behaviour.ADDRESS_AND_PORT_DEPENDENT,
        Behaviour.ADDRESS_AND_PORT_DEPENDENT,
        Ports.SEQUENTIAL,
    ),
    _userspace(
        "short-lived",
        "port-restricted, and forgets a mapping that was not written from for 5 s",
        Behaviour.ENDPOINT_INDEPENDENT,
        Behaviour.ADDRESS_AND_PORT_DEPENDENT,
        Ports.RANDOM,
        lifetime=5.0,
    ),
    NatKind(
        "masquerade-5s",
        "Linux masquerading that forgets what was silent for 5 s",
        Behaviour.ENDPOINT_INDEPENDENT,
        Behaviour.ADDRESS_AND_PORT_DEPENDENT,
        _table(_CLOSED_INPUT, _FORWARD_ANSWERS_ONLY) + _masquerade(),
        settings=_SHORT_LIVED,
    ),
    NatKind(
        "udp-blocked",
        "masquerading for TCP, and no UDP at all",
        Behaviour.BLOCKED,
        Behaviour.BLOCKED,
        _table(_CLOSED_INPUT, _NO_UDP) + _masquerade(),
    ),
)

NAT_KINDS = {kind.name: kind for kind in _KINDS}
