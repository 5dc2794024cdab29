"""What the benchmark asks of a tool, and the clock that is the same for all.

A tool is started once per benchmark (`session`: servers that a person would have running already), then makes one
transfer at a time. The clock runs from the moment before the first command of the transfer is started until the last
one has ended: start-up, key exchange, and verification included. Receiver and sender are started together.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from .network import Network
from .process import Running, Usage, wait_for_all

Command = Sequence[str | os.PathLike[str]]


@dataclass(frozen=True, slots=True)
class Sample:
    """One transfer."""

    seconds: float
    sender: Usage
    receiver: Usage | None
    """None where one process does both."""


@dataclass(slots=True)
class Place:
    """Where a tool works."""

    network: Network
    source: Path
    scratch: Path
    """A directory of the tool's own, for keys, settings and logs."""
    directory: Path = field(default=Path())
    """An empty directory for the received file, a new one for each transfer."""
    limit: float = 120.0
    """Seconds that a transfer may take."""
    _logs: int = 0

    @property
    def destination(self) -> Path:
        """Where the file must be in the end."""
        return self.directory / self.source.name

    def log(self) -> Path:
        """A fresh name for a command's output."""
        self._logs += 1
        return self.scratch / f"{self._logs}.log"

    def start(self, side: str, argv: Command, env: Mapping[str, str] | None = None) -> Running:
        """Starts a command on a side."""
        return Running(self.network.on("sender" if side == "sender" else "receiver", argv), self.log(), env)


class Tool(Protocol):
    """A way to move a file."""

    name: str
    about: str

    def missing(self) -> str | None:
        """Why it cannot run here, or None."""

    def version(self) -> str: ...

    @contextmanager
    def session(self, place: Place) -> Iterator[None]:
        """Servers of the tool, for as long as the benchmark runs."""

    def transfer(self, place: Place) -> Sample:
        """Moves `place.source` to `place.destination`. Raises BenchError."""


def race(place: Place, receiver: Command | None, sender: Command, env: Mapping[str, str] | None = None) -> Sample:
    """Starts both commands, waits for both, and has the sample. Raises BenchError."""
    begin = time.monotonic()
    processes = [place.start("receiver", receiver, env)] if receiver is not None else []
    try:
        processes.append(place.start("sender", sender, env))
    except BaseException:
        for process in processes:
            process.terminate()
        raise
    usages = wait_for_all(processes, begin + place.limit)
    end = max(process.ended or begin for process in processes)
    return Sample(end - begin, usages[-1], usages[0] if receiver is not None else None)
