"""Rounds: each tool moves the file once, in turn, into memory that is warm; then again.

Turns, so that a slow moment of the machine does not hit one tool alone. Whatever arrives is compared with what was
sent. What fails is noted and does not end the run.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import memory, network
from .process import BenchError
from .quiet import Patience
from .report import Report, SampleRow, ToolRow, new_report, sample_row
from .tool import Place, Sample, Tool

_SLOWEST = 10e6  # bytes per second: what is slower than this is stopped


@dataclass(frozen=True, slots=True)
class Ready:
    """A tool whose servers run."""

    tool: Tool
    place: Place
    row: ToolRow


@dataclass(slots=True)
class Workplace:
    """A file to send, in a directory that goes away; `deadline` is monotonic seconds."""

    directory: Path
    size: int
    deadline: float
    patience: Patience = field(default_factory=Patience)
    source: Path = field(init=False)

    def __post_init__(self) -> None:
        self.source = self.directory / "source.bin"

    @contextlib.contextmanager
    def open(self) -> Iterator[Workplace]:
        with tempfile.TemporaryDirectory(prefix="udpsend-bench-", dir=self.directory) as made:
            self.source = Path(made) / "source.bin"
            memory.write_random(self.source, self.size)
            with memory.WarmPool(self.size):
                yield self


def usable(tools: Sequence[Tool]) -> list[Tool]:
    """Those that can run here. The others are named on standard error."""
    found = []
    for tool in tools:
        missing = tool.missing()
        if missing is None:
            found.append(tool)
        else:
            print(f"bench: without {tool.name}: {missing}", file=sys.stderr)
    return found


@contextlib.contextmanager
def prepared(tools: Sequence[Tool], work: Workplace, joined: network.Network) -> Iterator[tuple[Report, list[Ready]]]:
    """An empty report, and the tools with their servers started."""
    report = new_report(joined.description, work.size)
    ready: list[Ready] = []
    with contextlib.ExitStack() as stack:
        for tool in tools:
            row: ToolRow = {
                "name": tool.name,
                "about": tool.about,
                "version": tool.version(),
                "samples": [],
                "failures": [],
            }
            report["tools"].append(row)
            scratch = Path(tempfile.mkdtemp(prefix=f"{tool.name}-", dir=work.source.parent))
            place = Place(joined, work.source, scratch, limit=30 + work.size / _SLOWEST)
            try:
                stack.enter_context(tool.session(place))
            except BenchError as error:
                row["failures"].append(str(error))
                print(f"bench: {tool.name} does not start: {error}", file=sys.stderr)
            else:
                ready.append(Ready(tool, place, row))
        yield report, ready


@contextlib.contextmanager
def destination(place: Place, size: int) -> Iterator[None]:
    """A new directory for what arrives; afterwards both files are compared."""
    place.directory = Path(tempfile.mkdtemp(prefix="to-", dir=place.scratch.parent))
    try:
        memory.warm(place.destination, size)
        yield
    finally:
        shutil.rmtree(place.directory)


def transfer_once(ready: Ready, work: Workplace) -> SampleRow:
    """One transfer into a new directory, checked afterwards. Raises BenchError."""

    def transfer() -> Sample:
        with contextlib.suppress(FileNotFoundError):  # of a transfer that was disturbed
            ready.place.destination.unlink()
        return ready.tool.transfer(ready.place)

    with destination(ready.place, work.size):
        sample, others = work.patience.undisturbed(transfer)
        if ready.tool.delivers and not memory.same_content(ready.place.source, ready.place.destination):
            raise BenchError("what arrived is not what was sent")
    return sample_row(sample, work.size, others)


def run(ready: Sequence[Ready], work: Workplace, rounds: int) -> None:
    """All rounds, or as many as fit before the deadline, into the rows of the report."""
    for number in range(rounds):
        if time.monotonic() > work.deadline:
            print(f"bench: {number} rounds only: the time is up", file=sys.stderr)
            return
        for each in ready:
            row, name = each.row, each.tool.name
            try:
                measured = transfer_once(each, work)
            except BenchError as error:
                row["samples"].append(None)
                row["failures"].append(str(error))
                print(f"round {number + 1}  {name:20} FAILED: {error}", file=sys.stderr)
            else:
                row["samples"].append(measured)
                print(f"round {number + 1}  {name:20} {measured['rate']:8,.0f} MB/s", file=sys.stderr)
