"""The rows of the matrix: which networks there are, and what must come of each pair of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

from .topology import Topology, carrier, home, internet, internet6, lan, layers

ORDINARY = ("none", "firewall", "full-cone", "address-restricted", "masquerade", "masquerade-open", "port-restricted")
SEARCH_BAR = 10.0  # seconds; whoever has so much time searches ports
_TRANSLATED = "internet, through NAT"
_LAN = "local network"
_RELAYED = "relayed"


@dataclass(frozen=True, slots=True)
class Row:
    """A pair of networks. `kind` of path that is expected, or None for an honest refusal, within `bar` seconds."""

    name: str
    topology: Callable[[], Topology]
    kind: str | None
    bar: float
    hosts: tuple[str, str] = ("alice", "bob")
    """The sender's and the receiver's."""
    with_relay: bool = False
    """The sender names one."""

    @property
    def is_patient(self) -> bool:
        """Waits for seconds, and does nothing meanwhile: many of them may run at once."""
        return self.kind is None or self.bar >= SEARCH_BAR


def _internet(nat_a: str, nat_b: str, kind: str | None, bar: float, **more: Any) -> Row:
    words = "".join(f", {name.replace('_', ' ')} {value}" for name, value in more.items())
    return Row(f"{nat_a} / {nat_b}{words}", lambda: internet(nat_a, nat_b, **more), kind, bar)


def _mapped(*protocols: str) -> Row:
    """Neither punching nor a search leads through these two: what comes up is the mapping."""
    nat = "symmetric-random"
    name = f"{nat} mapped by {' or '.join(protocols)} / {nat}"
    return Row(name, lambda: internet(nat, nat, port_mapping=protocols), _TRANSLATED, 1.5)


def _relayed(nat_a: str, nat_b: str) -> Row:
    return Row(f"{nat_a} with a relay / {nat_b}", lambda: internet(nat_a, nat_b), _RELAYED, 3.0, with_relay=True)


def _open_layers() -> Topology:
    """Strays get into the carrier's NAT, and into the other side's own."""
    return layers("masquerade", "masquerade-open", "masquerade-open")


def _rows() -> Iterator[Row]:
    for nat_a, nat_b in combinations_with_replacement(ORDINARY, 2):
        yield _internet(nat_a, nat_b, _TRANSLATED, 1.5)
    for nat in (*ORDINARY, "short-lived"):
        yield _internet(nat, "symmetric-sequential", _TRANSLATED, 3.0)
        yield _internet(nat, "symmetric-random", _TRANSLATED, SEARCH_BAR)
    yield _internet("symmetric-random", "masquerade", _TRANSLATED, SEARCH_BAR)
    yield _internet("symmetric-sequential", "symmetric-sequential", _TRANSLATED, 3.0)
    yield _internet("symmetric-sequential", "symmetric-random", None, 12.0)
    yield _internet("symmetric-random", "symmetric-random", None, 12.0)
    yield _mapped("pcp")
    yield _mapped("upnp")
    yield _relayed("symmetric-random", "symmetric-random")
    yield _internet("short-lived", "short-lived", _TRANSLATED, 1.5)
    yield _internet("masquerade-5s", "masquerade", _TRANSLATED, 1.5)
    yield _internet("masquerade", "udp-blocked", None, 12.0)
    yield _internet("masquerade", "masquerade", _TRANSLATED, 1.5, same_private=True)
    yield _internet("masquerade", "port-restricted", _TRANSLATED, 1.5, mtu=1280)
    yield Row("two layers / masquerade", layers, _TRANSLATED, 1.5)
    yield Row("two layers, the outer open / masquerade-open", _open_layers, _TRANSLATED, 1.5)
    yield Row("two layers / symmetric-random", lambda: layers(other="symmetric-random"), _TRANSLATED, SEARCH_BAR)
    yield Row("same host, no server", lan, "this host", 0.5, hosts=("alice", "alice"))
    yield Row("one LAN, no server", lan, _LAN, 0.5)
    yield Row("one NAT, one LAN", home, _LAN, 0.5)
    yield Row("one NAT with hairpin, one LAN", lambda: home("hairpin"), _LAN, 0.5)
    yield Row("one carrier with hairpin", carrier, _TRANSLATED, 1.5)
    yield Row("one carrier without hairpin", lambda: carrier("port-restricted"), None, 12.0)
    yield Row("IPv6 only, firewalls", internet6, "internet, IPv6", 1.5)


ROWS = {row.name: row for row in _rows()}
