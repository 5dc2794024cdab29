"""`python -m tools.bench`: measure, print the table, write JSON where asked.

python -m tools.bench --size 1G --rounds 5 --json bench.json
python -m tools.bench --network veth --gso off --gro on --tools udpsend,scp
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.netlab import missing_requirements

from . import memory, network
from .ours import UDPSEND_VARIANTS
from .peers import Copy, Scp, Socat
from .process import BenchError
from .report import Report, SampleRow, ToolRow, new_report, sample_row, table
from .tool import Place, Tool

TOOLS: dict[str, Tool] = {tool.name: tool for tool in (*UDPSEND_VARIANTS, Scp(), Socat(), Copy())}
DEFAULT_TOOLS = "udpsend-1452,udpsend,scp,socat,cp"
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SLOWEST = 10e6  # bytes per second: what is slower than this is stopped


def _size(text: str) -> int:
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    try:
        return round(float(number) * _UNITS[unit])
    except (ValueError, KeyError):
        raise argparse.ArgumentTypeError("a number of bytes, or one with K, M or G (powers of 1,024)") from None


def _tools(text: str) -> list[Tool]:
    try:
        return [TOOLS[name] for name in text.split(",")]
    except KeyError as unknown:
        raise argparse.ArgumentTypeError(f"no tool {unknown}; there are {', '.join(TOOLS)}") from None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description="udpsend beside others, file to file")
    parser.add_argument("--size", type=_size, default=_size("1G"), help="of the file, such as 1G (default)")
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


def _usable(tools: Sequence[Tool]) -> list[Tool]:
    usable = []
    for tool in tools:
        missing = tool.missing()
        if missing is None:
            usable.append(tool)
        else:
            print(f"bench: without {tool.name}: {missing}", file=sys.stderr)
    return usable


def _transfer_once(tool: Tool, place: Place, size: int) -> SampleRow:
    """One transfer into a new directory, checked afterwards. Raises BenchError."""
    place.directory = Path(tempfile.mkdtemp(prefix="to-", dir=place.source.parent))
    try:
        memory.warm(place.destination, size)
        sample = tool.transfer(place)
        if not memory.same_content(place.source, place.destination):
            raise BenchError("what arrived is not what was sent")
    finally:
        shutil.rmtree(place.directory)
    return sample_row(sample, size)


def _note(tool: Tool, place: Place, row: ToolRow, size: int, number: int) -> None:
    """One transfer into the report, and a line for those who wait."""
    try:
        measured = _transfer_once(tool, place, size)
    except BenchError as error:
        row["samples"].append(None)
        row["failures"].append(str(error))
        print(f"round {number + 1}  {tool.name:20} FAILED: {error}", file=sys.stderr)
        return
    row["samples"].append(measured)
    print(f"round {number + 1}  {tool.name:20} {measured['rate']:8,.0f} MB/s", file=sys.stderr)


def _measure(tools: Sequence[Tool], report: Report, joined: network.Network, chosen: argparse.Namespace) -> None:
    size = chosen.size
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="udpsend-bench-", dir=chosen.directory)))
        source = work / "source.bin"
        memory.write_random(source, size)
        stack.enter_context(memory.WarmPool(size))
        ready: list[tuple[Tool, Place, ToolRow]] = []
        for tool, row in zip(tools, report["tools"], strict=True):
            scratch = work / tool.name
            scratch.mkdir()
            place = Place(joined, source, scratch, limit=30 + size / _SLOWEST)
            try:
                stack.enter_context(tool.session(place))
            except BenchError as error:
                row["failures"].append(str(error))
                print(f"bench: {tool.name} does not start: {error}", file=sys.stderr)
            else:
                ready.append((tool, place, row))
        for number in range(chosen.rounds):
            if time.monotonic() - begin > chosen.seconds:
                print(f"bench: {number} rounds only: the time is up", file=sys.stderr)
                break
            for tool, place, row in ready:
                _note(tool, place, row, size, number)


def main() -> int:
    chosen = _arguments()
    tools = _usable(chosen.tools)
    try:
        with _network(chosen) as joined:
            report = new_report(joined.description, chosen.size)
            for tool in tools:
                report["tools"].append(
                    {"name": tool.name, "about": tool.about, "version": tool.version(), "samples": [], "failures": []}
                )
            _measure(tools, report, joined, chosen)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(table(report))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if any(tool["failures"] for tool in report["tools"]) else 0


if __name__ == "__main__":
    sys.exit(main())
