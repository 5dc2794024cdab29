"""What the benchmark asks of a tool, and the clock that is the same for all.

A tool is started once per benchmark (`session`: servers that a person would have running already), then makes one
transfer at a time. The clock runs from the moment before the first command of the transfer is started until the last
one has ended: start-up, key exchange, and verification included. Receiver and sender are started together, unless the
place is `staged`: then the first one has come to rest before the clock starts, and the second one is started.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .network import Network, Side
from .process import Running, Usage, wait_for_all

Command = Sequence[str | os.PathLike[str]]


@dataclass(frozen=True, slots=True)
class Sample:
    """One transfer."""

    seconds: float
    sender: Usage
    receiver: Usage | None
    """None where one process does both."""
    said: float | None = None
    """Seconds until the command that was started last had printed the words of `Place.watch`."""


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
    staged: Side | None = None
    """The side that is started last, when the other one waits already. None: both are started together."""
    watch: str = ""
    """Words whose appearance is timed, if not empty."""
    _logs: int = 0

    @property
    def destination(self) -> Path:
        """Where the file must be in the end."""
        return self.directory / self.source.name

    def log(self) -> Path:
        """A fresh name for a command's output."""
        self._logs += 1
        return self.scratch / f"{self._logs}.log"

    def start(self, side: Side, argv: Command, env: Mapping[str, str] | None = None) -> Running:
        """Starts a command on a side."""
        return Running(self.network.on(side, argv), self.log(), env)


class Tool(ABC):
    """A way to move a file."""

    name: str
    about: str
    delivers = True
    """Whether there is a file afterwards whose content can be compared."""

    @abstractmethod
    def missing(self) -> str | None:
        """Why it cannot run here, or None."""

    @abstractmethod
    def version(self) -> str: ...

    @contextmanager
    def session(self, place: Place) -> Iterator[None]:
        """Servers of the tool, if it has any, for as long as the benchmark runs."""
        yield

    @abstractmethod
    def transfer(self, place: Place) -> Sample:
        """Moves `place.source` to `place.destination`. Raises BenchError."""


def race(place: Place, receiver: Command | None, sender: Command, env: Mapping[str, str] | None = None) -> Sample:
    """Starts both commands, waits for both, and has the sample. Raises BenchError."""
    commands: dict[Side, Command] = {"sender": sender}
    if receiver is not None:
        commands["receiver"] = receiver
    begin = time.monotonic()
    running: dict[Side, Running] = {}
    try:
        for side in sorted(commands, key=lambda side: (side == place.staged, side)):
            if place.staged is not None and running:
                next(iter(running.values())).wait_until_idle(begin + place.limit)
                begin = time.monotonic()
            running[side] = place.start(side, commands[side], env)
    except BaseException:
        for process in running.values():
            process.terminate()
        raise
    last = next(reversed(running.values()))
    said = last.when_said(place.watch, begin + place.limit) - begin if place.watch else None
    usages = dict(zip(running, wait_for_all(list(running.values()), begin + place.limit), strict=True))
    end = max(process.ended or begin for process in running.values())
    return Sample(end - begin, usages["sender"], usages.get("receiver"), said)
