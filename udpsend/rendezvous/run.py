"""One handshake run as the machine keeps it, and the bounded set of them: who, how far, what is to be said when.

A run belongs to one instance of the other role. A stranger can invent as many instances as it likes, so there are at
most MAX_RUNS, a newcomer displaces only a run that is silent and got nowhere, and a rate limit bounds the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from math import inf

from msgspec import Struct, field

from udpsend.errors import BadPacket
from udpsend.rendezvous.handshake import Handshake
from udpsend.rendezvous.mailbox import RateLimit
from udpsend.rendezvous.messages import Kind
from udpsend.rendezvous.repeat import Repeat
from udpsend.wire.json import JSON

MAX_RUNS = 16
ANSWER_SPACING = 0.25  # between the answers that repetitions provoke
DISPLACED_AFTER = 3.0  # of silence; a run on a slow broker takes two round trips, well below a second
REPLACED_AFTER = 10.0  # of silence: twice the time between two repetitions of the other side
DORMANT_AFTER = 60.0  # of silence: they are gone, or come back with a hello
# SPAKE2 in Python takes about 8 ms for a run: a flood of them costs at most a tenth of one core.
WORK_BURST = 24.0
WORK_PER_SECOND = 12.0


class Stage(Enum):
    EXCHANGING = "exchanging PAKE messages"
    CONFIRMING = "confirmation sent"
    FAILED = "confirmation failed"


class Run(Struct):
    peer: bytes
    handshake: Handshake
    heard: float
    stage: Stage = Stage.EXCHANGING
    peer_pake: bytes = b""
    peer_pake_heard: float = -inf
    told: dict[str, JSON] = field(default_factory=dict)
    # What we said last in this run, and say again as long as it is asked for.
    kind: Kind = Kind.PAKE
    body: bytes = b""
    commitment: bytes = b""
    repeat: Repeat = field(default_factory=Repeat)

    def say(self, kind: Kind, body: bytes, now: float, commitment: bytes = b"") -> None:
        self.kind, self.body, self.commitment = kind, body, commitment
        self.repeat.at_once(now)

    def take_pake_untrusted(self, pake: bytes, commitment: bytes, now: float) -> None:
        self.handshake.finish_pake_untrusted(pake, commitment)
        self.peer_pake, self.peer_pake_heard, self.heard = pake, now, now

    def answer_again(self, now: float) -> None:
        self.repeat.provoked(now, ANSWER_SPACING)


class Runs:
    """The runs by instance of the other side."""

    def __init__(self) -> None:
        self._runs: dict[bytes, Run] = {}
        self._work = RateLimit(WORK_PER_SECOND, WORK_BURST)

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs.values())

    def get(self, peer: bytes) -> Run | None:
        return self._runs.get(peer)

    def add(self, run: Run) -> None:
        self._runs[run.peer] = run

    def keep_only(self, run: Run) -> None:
        self._runs = {run.peer: run}

    def make_room_untrusted(self, now: float) -> None:
        """Before a new run. Raises BadPacket if there is no room or too much was done lately."""
        displaced = None
        if len(self._runs) >= MAX_RUNS:
            displaced = min((run for run in self if run.stage is Stage.EXCHANGING), key=lambda r: r.heard, default=None)
            if displaced is None or displaced.heard + DISPLACED_AFTER > now:
                raise BadPacket("too many runs")
        self.spend_untrusted(now)
        if displaced is not None:
            del self._runs[displaced.peer]

    def spend_untrusted(self, now: float) -> None:
        """Before a SPAKE2 computation that a stranger asked for. Raises BadPacket if there were too many lately."""
        if not self._work.take(now):
            raise BadPacket("too much work")

    def last_heard_of_open_runs(self) -> float | None:
        return max((run.heard for run in self if run.stage is not Stage.FAILED), default=None)
