"""A laboratory of networks in one machine: hosts, routers and NATs as network namespaces. Linux, root, `ip` and `nft`.

    from tools.netlab import Lab, internet
    with Lab(internet("masquerade", "masquerade")) as lab:
        process = lab.run("alice", ["udpsend", "send", "file"])

In order: `topology` says as data which hosts there are and what joins them, `nat` which kinds of NAT a router can have,
`lab` makes namespaces of a topology and takes them away again, `check` proves with `probe` that each kind of NAT does
what its name says. `python -m tools.netlab` is the same from the command line.
"""

from __future__ import annotations

from .lab import Lab, LabError, missing_requirements
from .nat import NAT_KINDS, Behaviour, NatKind
from .topology import TOPOLOGIES, Host, Port, Topology, internet, lan, pair

__all__ = [
    "NAT_KINDS",
    "TOPOLOGIES",
    "Behaviour",
    "Host",
    "Lab",
    "LabError",
    "NatKind",
    "Port",
    "Topology",
    "internet",
    "lan",
    "missing_requirements",
    "pair",
]
