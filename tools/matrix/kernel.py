"""`python -m tools.matrix.kernel`: what part of a link udpsend gets beside one TCP flow of this kernel, in real time.

python -m tools.matrix.kernel --against cubic,bbr --buffer 1,4 --seconds 60 --runs 3 --background

Linux, root, `ip` and `nft`, /dev/net/tun. Three namespaces: alice sends to bob through a router that is the bottleneck
(`wan.py`). Both flows start together; the bytes that pass the bottleneck count from when both are there. A run takes
`--seconds` and five more, and some tenths of a processor.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import IO, Any

from tools.matrix import numbers
from tools.netlab import Host, Lab, LabError, Port, Topology, missing_requirements

WAN = Topology(
    "wan",
    "alice sends to bob through a bottleneck",
    (
        Host("alice", (Port("eth0", "left", ("10.10.1.2/24",)),), gateway="10.10.1.1"),
        Host(
            "router",
            (Port("lan", "left", ("10.10.1.1/24",)), Port("wan", "right", ("10.10.2.1/24",))),
            forwards=True,
        ),
        Host("bob", (Port("eth0", "right", ("10.10.2.2/24",)),), gateway="10.10.2.1"),
    ),
)
CODE = "4821-marble-otter"
TCP_PORT = 6000
BEGUN = 10_000  # bytes
PATIENCE = 30.0  # seconds until both flows are there
UDPSEND = [sys.executable, "-m", "udpsend"]
_SILENT: dict[str, Any] = {"stdout": subprocess.DEVNULL}


def _start(lab: Lab, host: str, argv: list[Any], until: str) -> IO[bytes]:
    """Its output, after the line that has `until` in it."""
    process = lab.run(host, argv, stdout=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if until in line.decode():
            return process.stdout
    raise LabError(f"{argv} on {host} did not start")


def _passed(reports: IO[bytes]) -> Iterator[tuple[float, dict[str, int]]]:
    for line in reports:
        facts = json.loads(line)
        yield facts["time"], facts["passed"]


def share(
    megabits: float, round_trip: float, buffer: float, against: str, words: list[str], seconds: float
) -> tuple[float, float]:
    """(udpsend's part of what passed, what passed of the link's rate). Raises LabError."""
    queue = buffer * megabits * 1e6 / 8 * round_trip
    here = Path(__file__)
    with Lab(WAN) as lab, tempfile.TemporaryDirectory(prefix="udpsend-share-") as directory:
        link = [str(megabits), str(round_trip * 500), str(queue), "10.10.1"]
        reports = _start(lab, "router", [sys.executable, here.with_name("wan.py"), *link], "READY")
        bob = lab.address("bob")
        _start(lab, "bob", [*UDPSEND, "serve", "-q", "--host", bob], "mqtt://")
        flow = [sys.executable, str(here.with_name("tcp.py"))]
        _start(lab, "bob", [*flow, "recv", str(TCP_PORT)], "READY")
        other = lab.run("alice", [*flow, "send", bob, str(TCP_PORT), against])
        source = Path(directory) / "zeros"
        with source.open("wb") as file:
            for _ in range(int(2 * (seconds + PATIENCE) * megabits / 8) + 1):
                file.write(bytes(1_000_000))  # a file of holes would be sent in no time
        meet = ["--code", CODE, "--broker", f"mqtt://{bob}:1883", "--stun", f"{bob}:3478", "--no-port-mapping", "-q"]
        lab.run("bob", [*UDPSEND, "recv", "--yes", "-o", directory, "--rename", *meet], **_SILENT)
        lab.run("alice", [*UDPSEND, "send", source, *meet, *words], **_SILENT)
        began: tuple[float, dict[str, int]] | None = None
        meeting = 0  # TCP before the flow: the broker's
        deadline = time.monotonic() + PATIENCE
        for now, passed in _passed(reports):
            udp, tcp = passed.get("udp", 0), passed.get("tcp", 0)
            if not meeting and udp > BEGUN:
                meeting = tcp
                other.send_signal(signal.SIGUSR1)
            elif began is None and meeting and tcp > meeting + BEGUN:
                began = now, passed
            elif began is None and now > deadline:
                raise LabError("one of the two flows did not start")
            elif began is not None and now >= began[0] + seconds:
                ours, theirs = udp - began[1]["udp"], tcp - began[1]["tcp"]
                return ours / (ours + theirs), (ours + theirs) / (now - began[0]) / (megabits * 1e6 / 8)
    raise LabError("the bottleneck ended")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.matrix.kernel", description=__doc__)
    parser.add_argument("--against", default="cubic,bbr", help="congestion controls of this kernel")
    parser.add_argument("--buffer", type=numbers, default=(1.0, 4.0), help="bandwidth-delay products")
    parser.add_argument("--rate", type=float, default=50.0, help="Mbit/s")
    parser.add_argument("--rtt", type=float, default=40.0, help="ms")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--background", action="store_true")
    options = parser.parse_args()
    if (missing := missing_requirements()) is not None:
        print(missing, file=sys.stderr)
        return 1
    words = ["--background"] if options.background else []
    print("| beside | buffer BDP | udpsend's share %, median (runs) | of the link % |\n|---|---|---|---|")
    for against, buffer in product(options.against.split(","), options.buffer):
        runs = [
            share(options.rate, options.rtt / 1e3, buffer, against, words, options.seconds) for _ in range(options.runs)
        ]
        shares = sorted(100 * ours for ours, _ in runs)
        shown = ", ".join(f"{ours:.0f}" for ours in shares)
        used = statistics.median(100 * both for _, both in runs)
        print(f"| {against} | {buffer:g} | {statistics.median(shares):.0f} ({shown}) | {used:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
