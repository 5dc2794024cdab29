"""What happens to a network while a file is on its way, and whether the transfer survives it.

For each of `CHANGES`: a laboratory whose lines carry 5 MB/s, a transfer of 30 MB, the change when a third of it has
arrived, and the outcome: verified or not, how long it took beyond the undisturbed time, how many paths there were, and
how much was sent beyond the content. The sender is stopped while the change is made, so that it always comes in the
midst of the transfer, however slow the machine is.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .lab import Lab
from .servers import Started, start_servers
from .topology import Topology, internet

CONTENT_SIZE = 30_000_000
RATE = "40mbit"
SPEED = 5e6  # bytes per second
PATIENCE = 180.0
OUTAGE = 30.0
SLEEP = 130.0  # a router that masquerades has forgotten a stream after 120
_BLOCK = """
table inet outage {
    chain everything {
        type filter hook forward priority -400; policy drop;
    }
}
"""


def _rebind(lab: Lab) -> None:
    """alice's NAT restarts: all mappings are gone, and the next ones have other ports."""
    lab.signal("router-a", "usernat", signal.SIGUSR1)


def _new_address(lab: Lab) -> None:
    """alice gets another address from her router."""
    for words in ("address del 10.1.0.70/26", "address add 10.1.0.80/26"):
        lab.output("alice", ["ip", *words.split(), "dev", "eth0"])
    lab.output("alice", ["ip", "route", "replace", "default", "via", "10.1.0.65"])


def _outage(lab: Lab) -> None:
    """Nothing passes alice's router."""
    lab.output("router-a", ["nft", "-f", "-"], _BLOCK)


def _end_of_outage(lab: Lab) -> None:
    lab.output("router-a", ["nft", "delete", "table", "inet", "outage"])


def _sleep(lab: Lab) -> None:
    """bob's computer sleeps."""
    lab.signal("bob", "tools.netlab.peer", signal.SIGSTOP)


def _wake(lab: Lab) -> None:
    lab.signal("bob", "tools.netlab.peer", signal.SIGCONT)


def _no_broker(lab: Lab) -> None:
    """The broker and the STUN servers are gone for good."""
    for program in ("mosquitto", "turnserver"):
        lab.signal("server", program, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Change:
    """`bar`: seconds that it may take beyond the undisturbed time and beyond what the change `lasts`."""

    name: str
    happens: Callable[[Lab], None]
    topology: Callable[[], Topology]
    bar: float
    lasts: float = 0.0
    ends: Callable[[Lab], None] | None = None


_PORT_RESTRICTED = "port-restricted"
CHANGES = {
    change.name: change
    for change in (
        Change("nat-rebinds", _rebind, lambda: internet(_PORT_RESTRICTED, _PORT_RESTRICTED), 15.0),
        Change("hard-nat-rebinds", _rebind, lambda: internet("symmetric-sequential", "masquerade"), 15.0),
        Change("new-address", _new_address, lambda: internet(_PORT_RESTRICTED, "masquerade"), 15.0),
        Change("outage-30s", _outage, lambda: internet(), 15.0, OUTAGE, _end_of_outage),
        Change("sleep-130s", _sleep, lambda: internet(), 15.0, SLEEP, _wake),
        Change("broker-gone", _no_broker, lambda: internet("masquerade", _PORT_RESTRICTED), 5.0),
    )
}


@dataclass(frozen=True, slots=True)
class Outcome:
    change: Change
    ends: tuple[str, str]
    """The last event of sender and receiver."""
    extra_seconds: float
    paths: int
    extra_bytes: int

    @property
    def is_good(self) -> bool:
        return self.ends == ("Verified", "Verified") and self.extra_seconds <= self.change.bar

    def line(self) -> str:
        verdict = "" if self.is_good else "  <-- NOT AS IT SHOULD BE"
        return (
            f"{self.change.name:20} {self.ends[0]:14} {self.ends[1]:14} {self.extra_seconds:6.1f} s more "
            f"(bar {self.change.bar:.0f}), {self.paths} paths, {self.extra_bytes / 1e6:5.2f} MB more{verdict}"
        )


def run_change(change: Change, directory: Path, size: int = CONTENT_SIZE) -> Outcome:
    """Raises LabError."""
    source, target = directory / "content", directory / "received"
    source.write_bytes(os.urandom(size))
    target.mkdir()
    with Lab(change.topology()) as lab:
        for router in ("router-a", "router-b"):
            words = f"qdisc add dev wan root tbf rate {RATE} burst 64k latency 100ms"
            lab.output(router, ["tc", *words.split()])
        options = [*start_servers(lab, directory), "--mark", str(size // 3)]
        peer = [sys.executable, "-m", "tools.netlab.peer"]
        receiver = Started(lab, "bob", [*peer, "recv", target, *options], directory / "recv.log")
        sender = Started(lab, "alice", [*peer, "send", source, *options], directory / "send.log")
        sender.wait_for_text('"Underway"')
        start = time.monotonic()
        lab.signal("alice", "tools.netlab.peer", signal.SIGSTOP)
        change.happens(lab)
        lab.signal("alice", "tools.netlab.peer", signal.SIGCONT)
        if change.ends is not None:
            time.sleep(change.lasts)
            change.ends(lab)
        said, heard = (_lines(end.finish(patience=PATIENCE)) for end in (sender, receiver))
        seconds = time.monotonic() - start
    counters = next(entry["counters"] for entry in said if entry["event"] == "Statistics")
    return Outcome(
        change,
        (said[-1]["event"], heard[-1]["event"]),
        seconds - change.lasts - (size - size // 3) / SPEED,
        sum(entry["event"] == "PathFound" for entry in said),
        int(counters.get("bytes sent", 0)) - size,
    )


def _lines(printed: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]


def main(wanted: list[str]) -> int:
    """Prints a line per change. 1 if one is not survived as it should be."""
    wrong = 0
    for change in CHANGES.values():
        if wanted and change.name not in wanted:
            continue
        with tempfile.TemporaryDirectory(prefix="udpsend-changes-") as directory:
            outcome = run_change(change, Path(directory))
        wrong += not outcome.is_good
        print(outcome.line(), flush=True)
    return 1 if wrong else 0
