"""Every pair of networks, tried a number of times: whether there is a path, of which kind, and how long it takes.

1. `rows.py` says which networks there are and what must come of each: the kind of path and the bar for its time, or
   none.
2. For each row laboratories are built, with the servers of `servers.py`, and `peer.py` runs on alice and bob, fresh
   processes each time.
3. Time to path is counted from the moment at which a side knows the other (`PeerMet`) to the path; the slower side.
   Probes are counted at the side that sent more.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .lab import Lab
from .rows import ROWS, Row
from .servers import relay_url, start_servers

CONTENT_SIZE = 10_000
PATIENCE = 60.0  # seconds for one transfer; what hangs counts as failed
SHARE = 5  # runs in one laboratory
PATIENT = 6  # laboratories at once of rows that do nothing but wait, for each of the others

# For one punching and side.
MAX_PROBES = 4096
MAX_BYTES = 1_000_000  # with the headers of IP and UDP
MAX_UNHEARD = 32  # probes to one address that never answered; a search sends one to each of many ports

Report = dict[str, dict[str, Any]]


@dataclass(slots=True)
class Result:
    """What came of the runs of a row."""

    row: Row
    runs: int = 0
    expected: int = 0
    """Runs with the path that was expected, or without one if none was."""
    seconds: list[float] = field(default_factory=list)
    probes: int = 0
    size: int = 0
    unheard: int = 0
    """The most that one side sent: probes, bytes, and probes to one address that never answered."""
    others: Counter[str] = field(default_factory=Counter)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds) if self.seconds else float("inf")

    @property
    def is_expected(self) -> bool:
        """But for the time."""
        is_bounded = self.probes <= MAX_PROBES and self.size <= MAX_BYTES and self.unheard <= MAX_UNHEARD
        return self.runs == self.expected and is_bounded

    @property
    def is_good(self) -> bool:
        return self.is_expected and self.median <= self.row.bar

    def line(self) -> str:
        seconds = f"{self.median:6.2f} {max(self.seconds):6.2f}" if self.seconds else f"{'-':>6} {'-':>6}"
        sent = f"{self.probes:5d} {self.size / 1000:5.0f} {self.unheard:7d}"
        others = "; ".join(f"{count} x {what}" for what, count in self.others.items())
        verdict = "" if self.is_good else "  <-- NOT AS IT SHOULD BE"
        path = self.row.kind or "no direct path"
        runs = f"{self.expected:2d}/{self.runs:2d}"
        return f"{self.row.name:48} {runs} {path:22} {seconds} {self.row.bar:5.1f} {sent} {others}{verdict}"

    def add(self, other: Result) -> None:
        self.runs += other.runs
        self.expected += other.expected
        self.seconds += other.seconds
        self.probes = max(self.probes, other.probes)
        self.size = max(self.size, other.size)
        self.unheard = max(self.unheard, other.unheard)
        self.others += other.others


_SENT = f"{'probes':>5} {'kB':>4} {'unheard':>7}"
HEADING = f"{'networks':48} {'runs':5} {'path':22} {'median':>6} {'worst':>6} {'bar':>5} {_SENT}"


def run_row(row: Row, runs: int, directory: Path) -> Result:
    """Builds the row's laboratory and tries `runs` times. Raises LabError."""
    result = Result(row)
    source = directory / "content"
    source.write_bytes(os.urandom(CONTENT_SIZE))
    with Lab(row.topology()) as lab:
        servers = start_servers(lab, directory)
        relay = ["--relay", relay_url(lab)] if row.with_relay else []
        for _ in range(runs):
            _add(result, *_transfer(lab, row.hosts, source, directory, servers, relay))
    return result


def _transfer(
    lab: Lab, hosts: tuple[str, str], source: Path, directory: Path, servers: list[str], relay: list[str]
) -> tuple[Report, Report]:
    """What each side said, by event; `end` is the last."""
    target = directory / "received"
    target.mkdir(exist_ok=True)
    peer = [sys.executable, "-m", "tools.netlab.peer"]
    processes = [
        lab.run(host, [*peer, side, path, *servers, *more], stdout=subprocess.PIPE)
        for host, side, path, more in ((hosts[1], "recv", target, []), (hosts[0], "send", source, relay))
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
    for report in (sender, receiver):
        counters = report["Statistics"]["counters"] if "Statistics" in report else {}
        result.probes = max(result.probes, int(counters.get("probes, sent", 0)))
        result.size = max(result.size, int(counters.get("probes, bytes sent", 0)))
        result.unheard = max(result.unheard, int(counters.get("probes, most to one unheard", 0)))


def run_rows(rows: Sequence[Row], runs: int, jobs: int) -> Iterator[Result]:
    """In their order, as they are done. `jobs` laboratories work at once, and PATIENT times as many wait."""
    with ThreadPoolExecutor(jobs) as busy, ThreadPoolExecutor(PATIENT * jobs) as patient:
        pools = [(row, patient if row.is_patient else busy) for row in rows]
        shares = [(row, [pool.submit(_share, row, count) for count in _shares(runs)]) for row, pool in pools]
        for row, futures in shares:
            result = Result(row)
            for future in futures:
                result.add(future.result())
            yield result


def _shares(runs: int) -> Iterator[int]:
    return (min(SHARE, runs - done) for done in range(0, runs, SHARE))


def _share(row: Row, runs: int) -> Result:
    with tempfile.TemporaryDirectory(prefix="udpsend-matrix-") as directory:
        return run_row(row, runs, Path(directory))


def main(runs: int, wanted: list[str], jobs: int) -> int:
    """Prints a line per row whose name has one of `wanted` in it (all rows if there are none). 1 if a row is not as it
    should be."""
    rows = [row for row in ROWS.values() if not wanted or any(words in row.name for words in wanted)]
    print(HEADING, flush=True)
    wrong = 0
    for result in run_rows(rows, runs, jobs):
        wrong += not result.is_good
        print(result.line(), flush=True)
    print(f"{len(rows) - wrong} of {len(rows)} rows as they should be")
    return 1 if wrong else 0
