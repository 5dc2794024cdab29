"""One cell of the matrix: one flow over one kind of link, measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.sim import Train
from tools.matrix.flows import single
from udpsend.transfer.congestion.bbr import Bbr
from udpsend.transfer.congestion.bbr_model import State

MIN_QUEUE = 10 * 1472  # no device has less, and a queue must hold a datagram while another is being sent
STEADY = (State.DOWN, State.CRUISE, State.PROBE_RTT)


@dataclass(frozen=True, slots=True)
class Cell:
    megabits: float
    """Of UDP payload."""
    rtt: float
    loss: float
    buffer: float
    """In bandwidth-delay products."""

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self.megabits * 1e6 / 8

    @property
    def bdp(self) -> float:
        return self.rate * self.rtt

    def link(self) -> dict[str, Any]:
        queue = max(self.buffer * self.bdp, MIN_QUEUE)
        return {"delay": self.rtt / 2, "rate": self.rate, "queue": queue, "loss": self.loss}

    def __str__(self) -> str:
        return f"{self.megabits:g} Mbit/s, {self.rtt * 1e3:g} ms, {self.loss * 100:g} %, {self.buffer:g} BDP"


@dataclass(frozen=True, slots=True)
class Result:
    goodput: float
    """Of rate x (1 - loss), after the first two seconds."""
    goodput_early: float
    """The same after the first second."""
    delay: float
    """95th percentile of the time in the queue while the flow did not probe, in base round trips."""
    delay_mean: float
    """Over everything."""
    retransmitted: float


def seconds_for(cell: Cell) -> float:
    """Virtual seconds: some cycles and at least one ProbeRTT; less of the fast links, whose seconds take minutes."""
    if cell.rtt <= 0.02:
        return 8.0 if cell.megabits < 500 else 6.5
    return 12.0 if cell.megabits < 500 else 9.0


def measure(
    cell: Cell,
    *,
    seed: int = 1,
    seconds: float | None = None,
    options: dict[str, Any] | None = None,
    changes: dict[str, Any] | None = None,
) -> Result:
    """`options` are keywords of Connection, `changes` further ones of the link."""
    network, flow, there = single(seed, options, **{**cell.link(), **(changes or {})})
    congestion = flow.flight.congestion
    delays: list[float] = []
    steady: list[float] = []

    def tap(_: Train) -> None:
        if network.now >= 1.0:
            delay = there.backlog / cell.rate
            delays.append(delay)
            if isinstance(congestion, Bbr) and congestion.state in STEADY:
                steady.append(delay)

    there.tap = tap
    end = seconds or seconds_for(cell)
    network.run(seconds=1.0)
    after_one = flow.received
    network.run(seconds=1.0)
    after_two = flow.received
    network.run(seconds=end - 2)
    possible = cell.rate * (1 - cell.loss)
    steady = sorted(steady or delays)
    return Result(
        (flow.received - after_two) / (end - 2) / possible,
        (flow.received - after_one) / (end - 1) / possible,
        (steady[int(len(steady) * 0.95)] if steady else 0.0) / cell.rtt,
        sum(delays) / (len(delays) or 1) / cell.rtt,
        flow.retransmitted,
    )
