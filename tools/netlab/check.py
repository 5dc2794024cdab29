"""Proves that each kind of NAT does what its description says.

A host behind the router asks three addresses of a server (two ports of one address, one of another) from one socket and
compares how it was seen: mapping behaviour. Then a fresh socket asks the first address alone to have all three answer:
filtering behaviour. Last, two sockets of it write to each other's outside addresses: hairpinning. The method of
RFC 5780, without its limits, since the server is ours.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .lab import Lab, LabError
from .nat import NAT_KINDS, Behaviour, NatKind, Ports
from .topology import internet

_PROBE = Path(__file__).with_name("probe.py")


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured at a kind of NAT."""

    mapping: Behaviour
    filtering: Behaviour
    ports: Ports
    hairpin: bool

    def agrees_with(self, kind: NatKind) -> bool:
        # Without translation, outside addresses are inside ones.
        return self == Found(kind.mapping, kind.filtering, kind.ports, kind.hairpin or not kind.translates)


_BLOCKED = Found(Behaviour.BLOCKED, Behaviour.BLOCKED, Ports.KEPT, hairpin=False)


def measure(kind: NatKind) -> Found:
    """Builds a network with such a router and measures. Raises LabError if only some of it comes through."""
    with Lab(internet(kind.name, "none")) as lab:
        first, second = lab.address("server", 0), lab.address("server", 1)
        addresses = [f"{first}:4001", f"{first}:4002", f"{second}:4001"]
        server = lab.run("server", [sys.executable, _PROBE, "answer", *addresses], stdout=subprocess.PIPE)
        assert server.stdout is not None
        if server.stdout.readline() != b"READY\n":
            raise LabError("the probe's server did not start")
        asked = json.loads(lab.output("alice", [sys.executable, _PROBE, "ask", *addresses]))
        if not asked["admitted"] and not any(asked["mappings"]):
            return _BLOCKED
        found = _judge(lab.address("alice"), asked["port"], asked["mappings"], set(asked["admitted"]))
        return replace(found, hairpin=asked["hairpin"])


def _judge(inside: str, port: int, mappings: list[list[Any] | None], admitted: set[int]) -> Found:
    if any(mapping is None for mapping in mappings) or 0 not in admitted:
        raise LabError(f"no answer came through: {mappings}, {sorted(admitted)}")
    first, same_address, other_address = mappings
    assert first is not None
    if first == same_address == other_address:
        mapping = Behaviour.NONE if first == [inside, port] else Behaviour.ENDPOINT_INDEPENDENT
    elif first == same_address:
        mapping = Behaviour.ADDRESS_DEPENDENT
    else:
        mapping = Behaviour.ADDRESS_AND_PORT_DEPENDENT
    if 2 in admitted:
        filtering = Behaviour.NONE if mapping is Behaviour.NONE else Behaviour.ENDPOINT_INDEPENDENT
    elif 1 in admitted:
        filtering = Behaviour.ADDRESS_DEPENDENT
    else:
        filtering = Behaviour.ADDRESS_AND_PORT_DEPENDENT
    seen = [mapping[1] for mapping in mappings if mapping is not None]
    if seen[0] == port:
        ports = Ports.KEPT
    else:
        ports = Ports.SEQUENTIAL if [p - seen[0] for p in seen] == [0, 1, 2] else Ports.RANDOM
    return Found(mapping, filtering, ports, hairpin=False)


def main() -> int:
    """Prints a line per kind; 1 if any is not what it says."""
    wrong = 0
    for kind in NAT_KINDS.values():
        found = measure(kind)
        agrees = found.agrees_with(kind)
        wrong += not agrees
        behaviour = f"mapping {found.mapping.value:26} filtering {found.filtering.value:26} port {found.ports.value:10}"
        hairpin = "hairpin" if found.hairpin else "no hairpin"
        print(f"{kind.name:20} {behaviour} {hairpin:10} {'as described' if agrees else 'DIFFERS'}", flush=True)
    return 1 if wrong else 0
