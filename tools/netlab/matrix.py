"""Every pair of networks, tried a number of times: whether there is a path, of which kind, and how long it takes.

1. `ROWS` says which networks there are and what must come of each: the kind of path and the bar for its time, or none.
2. For each row a laboratory is built, with `udpsend serve` at both addresses of the server, and `peer.py` runs on alice
   and bob, fresh processes each time.
3. Time to path is counted from the moment at which a side knows the other (`PeerMet`) to the path; the slower side.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

from .lab import Lab, LabError
from .topology import Topology, carrier, home, internet, internet6, lan, layers

CONTENT_SIZE = 10_000
PATIENCE = 60.0  # seconds for one transfer; what hangs counts as failed
ORDINARY = ("none", "firewall", "full-cone", "address-restricted", "masquerade", "masquerade-open", "port-restricted")
_TRANSLATED = "internet, through NAT"
_LAN = "local network"


@dataclass(frozen=True, slots=True)
class Row:
    """A pair of networks. `kind` of path that is expected, or None for an honest refusal, within `bar` seconds."""

    name: str
    topology: Callable[[], Topology]
    kind: str | None
    bar: float


def _internet(nat_a: str, nat_b: str, kind: str | None, bar: float, **more: Any) -> Row:
    words = "".join(f", {name.replace('_', ' ')} {value}" for name, value in more.items())
    return Row(f"{nat_a} / {nat_b}{words}", lambda: internet(nat_a, nat_b, **more), kind, bar)


def _rows() -> Iterator[Row]:
    for nat_a, nat_b in combinations_with_replacement(ORDINARY, 2):
        yield _internet(nat_a, nat_b, _TRANSLATED, 1.5)
    for nat in (*ORDINARY, "short-lived"):
        yield _internet(nat, "symmetric-sequential", _TRANSLATED, 3.0)
        yield _internet(nat, "symmetric-random", _TRANSLATED, 10.0)
    yield _internet("symmetric-random", "masquerade", _TRANSLATED, 10.0)
    yield _internet("symmetric-sequential", "symmetric-sequential", _TRANSLATED, 3.0)
    yield _internet("symmetric-sequential", "symmetric-random", None, 12.0)
    yield _internet("symmetric-random", "symmetric-random", None, 12.0)
    yield _internet("short-lived", "short-lived", _TRANSLATED, 1.5)
    yield _internet("masquerade-5s", "masquerade", _TRANSLATED, 1.5)
    yield _internet("masquerade", "udp-blocked", None, 12.0)
    yield _internet("masquerade", "masquerade", _TRANSLATED, 1.5, same_private=True)
    yield _internet("masquerade", "port-restricted", _TRANSLATED, 1.5, mtu=1280)
    yield Row("two layers", layers, _TRANSLATED, 1.5)
    yield Row("two layers / symmetric-random", lambda: layers(other="symmetric-random"), _TRANSLATED, 10.0)
    yield Row("one LAN, no server", lan, _LAN, 0.5)
    yield Row("one NAT, one LAN", home, _LAN, 0.5)
    yield Row("one NAT with hairpin, one LAN", lambda: home("hairpin"), _LAN, 0.5)
    yield Row("one carrier with hairpin", carrier, _TRANSLATED, 1.5)
    yield Row("one carrier without hairpin", lambda: carrier("port-restricted"), None, 12.0)
    yield Row("IPv6 only, firewalls", internet6, "internet, IPv6", 1.5)


ROWS = {row.name: row for row in _rows()}


@dataclass(slots=True)
class Result:
    """What came of the runs of a row."""

    row: Row
    runs: int = 0
    expected: int = 0
    """Runs with the path that was expected, or without one if none was."""
    seconds: list[float] = field(default_factory=list)
    probes: list[int] = field(default_factory=list)
    """Datagrams that the busier side sent until the path or the end of punching."""
    others: Counter[str] = field(default_factory=Counter)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds) if self.seconds else float("inf")

    @property
    def is_good(self) -> bool:
        return self.runs == self.expected and self.median <= self.row.bar

    def line(self) -> str:
        seconds = f"{self.median:6.2f} s (max {max(self.seconds):5.2f})" if self.seconds else "     -             "
        probes = f"{max(self.probes):5d}" if self.probes else "    -"
        others = "; ".join(f"{count} x {what}" for what, count in self.others.items())
        verdict = "" if self.is_good else "  <-- NOT AS IT SHOULD BE"
        path = self.row.kind or "no direct path"
        return f"{self.row.name:48} {self.expected:2d}/{self.runs:2d} {path:22} {seconds} {probes} {others}{verdict}"


def run_row(row: Row, runs: int, directory: Path) -> Result:
    """Builds the row's laboratory and tries `runs` times. Raises LabError."""
    result = Result(row)
    source = directory / "content"
    source.write_bytes(os.urandom(CONTENT_SIZE))
    with Lab(row.topology()) as lab:
        options = start_servers(lab)
        for _ in range(runs):
            _add(result, *_transfer(lab, source, directory, options))
    return result


def start_servers(lab: Lab) -> list[str]:
    """`udpsend serve` at each address of the server, if there is one; the options for the peers."""
    if "server" not in (host.name for host in lab.topology.hosts):
        return []
    options = []
    for number in (0, 1):
        address = lab.address("server", number)
        program = [sys.executable, "-m", "udpsend", "serve", "--host", address]
        server = lab.run("server", program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert server.stdout is not None
        if not server.stdout.readline():
            raise LabError(f"udpsend serve did not start on {address}")
        named = f"[{address}]" if ":" in address else address
        options += ["--stun", f"{named}:3478", *(["--broker", f"mqtt://{named}:1883"] if number == 0 else [])]
    return options


Report = dict[str, dict[str, Any]]


def _transfer(lab: Lab, source: Path, directory: Path, options: list[str]) -> tuple[Report, Report]:
    """What each side said, by event; `end` is the last."""
    target = directory / "received"
    target.mkdir(exist_ok=True)
    peer = [sys.executable, "-m", "tools.netlab.peer"]
    processes = [
        lab.run(host, [*peer, side, path, *options], stdout=subprocess.PIPE)
        for host, side, path in (("bob", "recv", target), ("alice", "send", source))
    ]
    receiver, sender = (_report(process) for process in processes)
    return sender, receiver


def _report(process: subprocess.Popen[bytes]) -> Report:
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
    said = [json.loads(line) for line in output.splitlines()]
    report: Report = {entry["event"]: entry for entry in said}
    report["end"] = said[-1] if said else {"event": "nothing"}
    return report


def _add(result: Result, sender: Report, receiver: Report) -> None:
    result.runs += 1
    ends = {report["end"]["event"] for report in (sender, receiver)}
    kinds = {report["PathFound"]["kind"] for report in (sender, receiver) if "PathFound" in report}
    if result.row.kind is None:
        good = "NoDirectPath" in ends and not kinds
        times = [report["end"]["seconds"] for report in (sender, receiver) if report["end"]["event"] == "NoDirectPath"]
    else:
        good = ends == {"Verified"} and kinds == {result.row.kind}
        times = [report["PathFound"]["seconds"] for report in (sender, receiver) if "PathFound" in report]
    result.expected += good
    if good:
        result.seconds.append(max(times))
    else:
        result.others[", ".join(sorted(ends | kinds))] += 1
    sent = [r["Statistics"]["counters"].get("probes, sent") for r in (sender, receiver) if "Statistics" in r]
    result.probes += [int(max(sent))] if sent and None not in sent else []


def main(runs: int, wanted: list[str]) -> int:
    """Prints a line per row whose name has one of `wanted` in it (all rows if there are none). 1 if a row is not as it
    should be."""
    wrong = 0
    for row in ROWS.values():
        if wanted and not any(words in row.name for words in wanted):
            continue
        with tempfile.TemporaryDirectory(prefix="udpsend-matrix-") as directory:
            result = run_row(row, runs, Path(directory))
        wrong += not result.is_good
        print(result.line(), flush=True)
    return 1 if wrong else 0
