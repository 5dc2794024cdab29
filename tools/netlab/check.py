"""Proves that each kind of NAT does what its description says.

A host behind the router asks three addresses of a server (two ports of one address, one of another) from one socket and
compares how it was seen: mapping behaviour. Then a fresh socket asks the first address alone to have all three answer:
filtering behaviour. The method of RFC 5780, without its limits, since the server is ours.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .lab import Lab, LabError
from .nat import NAT_KINDS, Behaviour, NatKind
from .topology import internet

_PROBE = Path(__file__).with_name("probe.py")


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured at a kind of NAT."""

    mapping: Behaviour
    filtering: Behaviour
    keeps_port: bool

    def agrees_with(self, kind: NatKind) -> bool:
        return (self.mapping, self.filtering) == (kind.mapping, kind.filtering)


def measure(kind: NatKind) -> Found:
    """Builds a network with such a router and measures. Raises LabError if nothing comes through at all."""
    with Lab(internet(kind.name, "none")) as lab:
        first, second = lab.address("server", 0), lab.address("server", 1)
        addresses = [f"{first}:4001", f"{first}:4002", f"{second}:4001"]
        server = lab.run("server", [sys.executable, _PROBE, "answer", *addresses], stdout=subprocess.PIPE)
        assert server.stdout is not None
        if server.stdout.readline() != b"READY\n":
            raise LabError("the probe's server did not start")
        asked = json.loads(lab.output("alice", [sys.executable, _PROBE, "ask", *addresses]))
        return _judge(lab.address("alice"), asked["port"], asked["mappings"], set(asked["admitted"]))


def _judge(inside: str, port: int, mappings: list[list[str | int] | None], admitted: set[int]) -> Found:
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
    return Found(mapping, filtering, keeps_port=first[1] == port)


def main() -> int:
    """Prints a line per kind; 1 if any is not what it says."""
    wrong = 0
    for kind in NAT_KINDS.values():
        found = measure(kind)
        agrees = found.agrees_with(kind)
        wrong += not agrees
        port = "keeps the port" if found.keeps_port else "another port"
        verdict = "as described" if agrees else f"DIFFERS: described as {kind.mapping.value} / {kind.filtering.value}"
        print(
            f"{kind.name:20} mapping {found.mapping.value:28} filtering {found.filtering.value:28} {port:15} {verdict}"
        )
    return 1 if wrong else 0
