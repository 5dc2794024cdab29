"""`python -m tools.bench`: measure, print the table, write JSON where asked. `compare` is all of it at once.

python -m tools.bench compare --markdown figures.md
python -m tools.bench files --kills 1000
python -m tools.bench --size 1G --rounds 5 --json bench.json
python -m tools.bench --network veth --gso off --gro on --tools udpsend,scp
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tools.netlab import missing_requirements

from . import compare, files, network
from .compare import TOOLS, byte_count
from .process import BenchError
from .report import table
from .rounds import Workplace, prepared, run, usable
from .tool import Tool

DEFAULT_TOOLS = "udpsend-1452,udpsend,scp,socat,cp"


def _tools(text: str) -> list[Tool]:
    try:
        return [TOOLS[name] for name in text.split(",")]
    except KeyError as unknown:
        raise argparse.ArgumentTypeError(f"no tool {unknown}; there are {', '.join(TOOLS)}") from None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description="udpsend beside others, file to file")
    parser.add_argument("--size", type=byte_count, default=byte_count("1G"), help="of the file, such as 1G (default)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each tool moves it (default 3)")
    parser.add_argument("--tools", type=_tools, default=_tools(DEFAULT_TOOLS), help=f"default {DEFAULT_TOOLS}")
    parser.add_argument("--network", choices=("loopback", "veth"), default="loopback")
    parser.add_argument("--mtu", type=int, default=1500, help="of the veth pair")
    parser.add_argument("--gso", choices=("on", "off"), help="segmentation offload of the devices (veth)")
    parser.add_argument("--gro", choices=("on", "off"), help="receive offload of the devices (veth)")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="a tmpfs (default /dev/shm)")  # noqa: S108
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    parser.add_argument("--seconds", type=float, default=900.0, help="no new round after so long (default 900)")
    return parser.parse_args()


@contextlib.contextmanager
def _network(chosen: argparse.Namespace) -> Iterator[network.Network]:
    if chosen.network == "loopback":
        yield network.Loopback()
        return
    missing = missing_requirements()
    if missing is not None:
        raise BenchError(f"no veth network here: {missing}")
    switches = {"on": True, "off": False, None: None}
    with network.veth(chosen.mtu, switches[chosen.gso], switches[chosen.gro]) as joined:
        yield joined


def main() -> int:
    if sys.argv[1:2] == ["compare"]:
        return compare.main(sys.argv[2:])
    if sys.argv[1:2] == ["files"]:
        return files.main(sys.argv[2:])
    chosen = _arguments()
    tools = usable(chosen.tools)
    work = Workplace(chosen.directory, chosen.size, time.monotonic() + chosen.seconds)
    try:
        with _network(chosen) as joined, work.open(), prepared(tools, work, joined) as (report, ready):
            run(ready, work, chosen.rounds)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(table(report))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if any(tool["failures"] for tool in report["tools"]) else 0


if __name__ == "__main__":
    sys.exit(main())
