"""The congestion control over whole connections in the simulator: a part of `make matrix`, and what changes on the way.

Runs have fixed seeds: they are judged, not searched for faults (tests/test_transfer_random.py does that)."""

from __future__ import annotations

from statistics import mean
from typing import Any

import pytest

from tests.sim import GilbertElliott, Link
from tools.matrix.cell import Cell, measure
from tools.matrix.flows import Flow, single
from tools.matrix.share import BACKGROUND, BBR, CUBIC, share
from udpsend.config import Config

GOODPUT = 0.9
DELAY = 1.25  # base round trips
MEGABYTE = 1e6


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        (Cell(10, 0.001, 0.01, 4), 8),  # holds less than a datagram
        (Cell(10, 0.020, 0.0, 1), 8),
        (Cell(10, 0.020, 0.03, 1), 8),
        (Cell(10, 0.100, 0.01, 4), 12),
        (Cell(10, 0.200, 0.0, 1), 12),
        (Cell(10, 0.200, 0.03, 4), 12),
        (Cell(100, 0.001, 0.0, 4), 4),
        (Cell(100, 0.020, 0.001, 4), 5),
        (Cell(100, 0.100, 0.001, 1), 7),
    ],
    ids=str,
)
def test_goodput_and_delay(cell: Cell, seconds: float) -> None:
    result = measure(cell, seconds=seconds)
    assert result.goodput >= GOODPUT
    if cell.buffer >= 4:
        assert result.delay <= DELAY
    assert result.retransmitted <= cell.loss + 0.03


@pytest.mark.parametrize("seed", [2, 3, 5])
def test_a_path_that_holds_less_than_a_datagram_and_loses_many(seed: int) -> None:
    result = measure(Cell(10, 0.001, 0.03, 4), seed=seed, seconds=8)
    assert result.goodput >= GOODPUT
    assert result.delay <= DELAY


@pytest.mark.parametrize(
    ("rtt", "buffer", "seeds"),
    [
        (0.020, 1, 1),
        (0.040, 1, 1),  # what is lost at the start is not taken for imposed: with that 85 %
        (0.040, 4, 2),
        (0.020, 4, 3),
    ],
)
def test_share_with_cubic(rtt: float, buffer: float, seeds: int) -> None:
    """In the mean: next to a deep buffer single runs are 33 to 42 %."""
    cell = Cell(10, rtt, 0, buffer)
    runs = [share(cell, BBR, seed=seed) for seed in range(1, seeds + 1)]
    assert 0.35 <= mean(ours for ours, _ in runs) <= 0.65
    assert min(both for _, both in runs) >= 0.95


@pytest.mark.parametrize("buffer", [1, 4])
def test_background_yields_to_cubic(buffer: float) -> None:
    ours, both = share(Cell(10, 0.020, 0, buffer), BACKGROUND, seconds=20)
    assert ours < 0.1
    assert both >= 0.9


def test_background_yields_to_bbr() -> None:
    ours, _ = share(Cell(10, 0.040, 0, 2), BACKGROUND, BBR, seconds=20)
    assert ours < 0.25  # BBR leaves the queue empty: there is less to yield to


def test_two_of_a_kind_share() -> None:
    ours, both = share(Cell(10, 0.040, 0, 2), BBR, BBR, seconds=30)
    assert 0.3 <= ours <= 0.7
    assert both >= 0.9


@pytest.mark.parametrize("config", [CUBIC, BACKGROUND], ids=["cubic", "background"])
def test_the_others_fill_a_clean_path_too(config: Config) -> None:
    assert measure(Cell(10, 0.020, 0, 1), options={"config": config}).goodput >= 0.85


@pytest.mark.parametrize("config", [BBR, CUBIC, BACKGROUND], ids=["bbr", "cubic", "background"])
def test_a_limit_is_kept_and_used(config: Config) -> None:
    limited = Config(congestion=config.congestion, background=config.background, limit=0.2 * MEGABYTE)
    network, flow, _ = single(1, {"config": limited}, delay=0.02, rate=2 * MEGABYTE, queue=100e3)
    network.run(seconds=5)
    start = flow.flight.bytes_sent
    network.run(seconds=5)
    assert 0.95 <= (flow.flight.bytes_sent - start) / 5 / (0.2 * MEGABYTE) <= 1.01


# what changes on the way


class Running:
    """One flow at 20 Mbit/s and 40 ms, with a buffer of one BDP unless told."""

    rate = 2.5 * MEGABYTE

    def __init__(self, *, buffer: float = 1, **link: Any) -> None:
        self.link: Link
        self.flow: Flow
        queue = buffer * self.rate * 0.04
        self.network, self.flow, self.link = single(1, delay=0.02, rate=self.rate, queue=queue, **link)

    def goodput(self, start: float, stop: float) -> float:
        """Of the rate at first."""
        self.network.run(seconds=start - self.network.now)
        received = self.flow.received
        self.network.run(seconds=stop - start)
        return (self.flow.received - received) / (stop - start) / self.rate


@pytest.mark.parametrize(
    ("impairment", "least"),
    [
        ({"jitter": 0.01}, 0.9),
        ({"jitter": 0.04}, 0.8),
        ({"jitter": 0.01, "ordered": False}, 0.9),
        ({"reorder": 0.01, "reorder_delay": 0.002}, 0.9),
        ({"reorder": 0.05, "reorder_delay": 0.01}, 0.9),
        ({"bursts": GilbertElliott(0.002, 0.2)}, 0.9),
        ({"bursts": GilbertElliott(0.001, 0.1), "jitter": 0.005}, 0.8),
    ],
    ids=str,
)
def test_impaired(impairment: dict[str, Any], least: float) -> None:
    assert Running(**impairment).goodput(2, 8) >= least


@pytest.mark.parametrize("buffer", [1, 4])
def test_rate_halves_and_doubles(buffer: float) -> None:
    running = Running(buffer=buffer)
    running.network.at(4, lambda: setattr(running.link, "rate", running.rate / 2))
    running.network.at(9, lambda: setattr(running.link, "rate", running.rate * 2))
    assert running.goodput(2, 4) >= 0.9
    assert running.goodput(5, 9) >= 0.9 / 2
    assert running.goodput(12, 15) >= 0.85 * 2


def test_outage() -> None:
    running = Running()
    running.link.outage(4, 2)
    assert running.goodput(2, 4) >= 0.9
    sent = running.flow.flight.datagrams_sent
    running.network.run(seconds=1.9)
    in_flight = 4 * running.rate * 0.04 / 1472
    assert running.flow.flight.datagrams_sent - sent <= in_flight + 20  # no more than a window, then a few probes
    assert running.goodput(7, 9) >= 0.9
    assert running.flow.retransmitted <= 0.05
