"""`python -m tools.netlab list | up | down | run | check | matrix | changes`: the laboratory from the command line.

python -m tools.netlab up internet --nat masquerade --nat symmetric-random
python -m tools.netlab run alice -- ping -c1 198.51.100.130
python -m tools.netlab down
"""

from __future__ import annotations

import argparse
import atexit
import os
import sys

from . import changes, check, matrix
from .changes import CHANGES
from .lab import PREFIX, Lab, LabError, destroy, missing_requirements, tags
from .nat import NAT_KINDS
from .topology import TOPOLOGIES, by_name


def _list() -> None:
    print("Topologies:")
    for name, build in TOPOLOGIES.items():
        topology = build()
        print(f"  {name:20} {topology.about}: {', '.join(host.name for host in topology.hosts)}")
    print("Kinds of NAT:")
    for kind in NAT_KINDS.values():
        print(f"  {kind.name:20} {kind.about}")
        print(f"  {'':20} mapping {kind.mapping.value}, filtering {kind.filtering.value}")
    print("Up now:", ", ".join(tags()) if os.geteuid() == 0 else "(only root can see)")


def _up(name: str, tag: str, nats: list[str], mtu: int) -> None:
    choices: dict[str, object] = {}
    if name == "internet":
        choices = dict(zip(("nat_a", "nat_b"), nats, strict=False))
    elif name == "pair":
        choices = {"mtu": mtu}
    lab = Lab(by_name(name, **choices), tag)
    lab.up()
    # This one stays after the command: `down` takes it away.
    atexit.unregister(lab.down)
    for host in lab.topology.hosts:
        addresses = " ".join(address for port in host.ports for address in port.addresses)
        print(f"{lab.namespace(host.name):40} {addresses}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.netlab", description="networks in one machine")
    parser.add_argument("--tag", default="cli", help="name of the lab, for several at once (letters and digits)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the topologies, the kinds of NAT, and the labs that are up")
    up = commands.add_parser("up", help="make a lab that stays until `down`")
    up.add_argument("topology", choices=sorted(TOPOLOGIES))
    up.add_argument("--nat", action="append", default=[], choices=sorted(NAT_KINDS), help="alice's, then bob's")
    up.add_argument("--mtu", type=int, default=1500, help="of the topology `pair`")
    commands.add_parser("down", help="remove the lab")
    run = commands.add_parser("run", help="run a command on a host of the lab")
    run.add_argument("host")
    run.add_argument("argv", nargs="+", metavar="COMMAND")
    commands.add_parser("check", help="prove the behaviour of every kind of NAT")
    every = commands.add_parser("matrix", help="transfers between all pairs of networks: path and time to path")
    every.add_argument("--runs", type=int, default=3, help="of each pair")
    every.add_argument(
        "--pairs", nargs="+", default=[], metavar="WORDS", help="only rows with one of these in their names"
    )
    every.add_argument("--jobs", type=int, default=1, help="laboratories that work at once; six times as many may wait")
    during = commands.add_parser("changes", help="transfers during which something happens to the network")
    during.add_argument("names", nargs="*", metavar="NAME", help="only these: " + ", ".join(CHANGES))
    return parser.parse_args()


def main() -> int:
    chosen = _arguments()
    if chosen.command == "list":
        _list()
        return 0
    missing = missing_requirements()
    if missing is not None:
        print(f"netlab: {missing}", file=sys.stderr)
        return 2
    try:
        if chosen.command == "up":
            _up(chosen.topology, chosen.tag, chosen.nat, chosen.mtu)
        elif chosen.command == "down":
            destroy(chosen.tag)
        elif chosen.command == "check":
            return check.main()
        elif chosen.command == "matrix":
            return matrix.main(chosen.runs, chosen.pairs, chosen.jobs)
        elif chosen.command == "changes":
            return changes.main(chosen.names)
        else:
            namespace = f"{PREFIX}-{chosen.tag}-{chosen.host}"
            os.execvp("ip", ["ip", "netns", "exec", namespace, *chosen.argv])  # noqa: S606 - the user's own command
    except LabError as error:
        print(f"netlab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
