"""Thousands of small transfers over links as bad as they come. Every one ends verified, in bounded time and memory.

Each case is made of one seed, which a failure shows: `UDPSEND_SEED=... pytest tests/test_transfer_random.py` runs that
case alone. Without it every run takes other seeds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from random import Random, SystemRandom
from typing import Any

import pytest

from tests.transfers import NumberWatch, Transfer, assert_flight_adds_up, transfer
from udpsend.transfer.assembly import MAX_PARTIALS
from udpsend.transfer.sent_records import MAX_LOST

BATCHES = 20
CASES = 100  # in each
MAX_SECONDS = 120.0  # virtual; of 50,000 cases the slowest took 50
MAX_STEPS = 400_000  # of the simulator


@dataclass
class Case:
    size: int
    link: dict[str, Any]
    back: dict[str, Any]
    options: dict[str, Any]
    hash_time: float
    gro: bool
    present: tuple[tuple[int, int], ...]
    outage: tuple[float, float] | None
    shrink_at: float | None
    """When the link's MTU drops to 1280."""


def logarithmic(random: Random, low: float, high: float) -> float:
    return float(low * (high / low) ** random.random())


def sometimes(random: Random, probability: float, high: float) -> float:
    return random.uniform(0, high) if random.random() < probability else 0.0


def make_link(random: Random) -> dict[str, Any]:
    return {
        "delay": logarithmic(random, 1e-5, 0.3),
        "rate": logarithmic(random, 2e4, 1e8) if random.random() < 0.8 else None,
        "queue": logarithmic(random, 3000, 300_000),
        "loss": sometimes(random, 0.5, 0.25),
        "duplicate": sometimes(random, 0.3, 0.3),
        "jitter": sometimes(random, 0.3, 0.1),
        "ordered": random.random() < 0.5,
        "reorder": sometimes(random, 0.3, 0.3),
        "reorder_delay": logarithmic(random, 1e-4, 0.2),
        "merge_within": random.choice((0.001, 0.0)),
    }


def make_case(seed: int) -> Case:
    random = Random(seed)
    size = int(logarithmic(random, 1, 200_000))
    link = make_link(random)
    mtu = random.choice((1280, 1420, 1500, 1500, 9000, 65_535))
    link["mtu"] = mtu
    back = make_link(random) if random.random() < 0.3 else {}
    if back:
        back["mtu"] = mtu
    ceiling = random.choice((mtu, 1500, 65_535)) - 28
    for way in (link, back or link):
        way["queue"] = max(way["queue"], 3 * min(mtu, ceiling))  # no real queue holds less
    present: list[tuple[int, int]] = []
    if random.random() < 0.2:
        cuts = sorted(random.sample(range(size + 1), min(size + 1, 2 * random.randrange(1, 6))))
        present = list(zip(cuts[::2], cuts[1::2], strict=False))
    return Case(
        size,
        link,
        back,
        {
            "max_datagram_size": ceiling,
            "receive_buffer": int(logarithmic(random, 16_000, 4e6)),
            "round_trip": random.choice((None, 0.001, 0.5)),
        },
        sometimes(random, 0.5, 0.2),
        random.random() < 0.5,
        tuple(present),
        (random.uniform(0, 2), random.uniform(0.1, 3)) if random.random() < 0.15 else None,
        random.uniform(0, 2) if random.random() < 0.1 else None,
    )


def start(seed: int, case: Case) -> Transfer:
    running = transfer(
        seed,
        case.size,
        gro=case.gro,
        present=case.present,
        options=case.options,
        hash_time=case.hash_time,
        back=case.back,
        **case.link,
    )
    for link in (running.there, running.back):
        if case.outage is not None:
            link.outage(*case.outage)
        if case.shrink_at is not None:
            running.network.at(case.shrink_at, lambda link=link: setattr(link, "mtu", 1280))  # type: ignore[misc]
    return running


def run_case(seed: int) -> Transfer:
    case = make_case(seed)
    running = start(seed, case)
    sent, answered = NumberWatch(running.there), NumberWatch(running.back)
    sender, receiver = running.sender, running.receiver

    def over() -> bool:
        assert sender.connection.flight.recovery.sent.bytes_in_flight >= 0
        return bool(sender.closed and receiver.closed)

    assert running.network.run(over, seconds=MAX_SECONDS, max_steps=MAX_STEPS), "never ends"
    running.assert_verified()
    left = case.size - sum(stop - start for start, stop in case.present)
    probes = 8 * case.options["max_datagram_size"]  # of the path MTU
    assert sum(sent.sizes) <= 5 * left + 40_000 + probes, (sum(sent.sizes), left)
    assert sum(answered.sizes) <= 2 * left + 40_000
    for connection in (sender.connection, receiver.connection):
        assert_bounded(connection)
    return running


def assert_bounded(connection: Any) -> None:
    """Nothing that is remembered grows with the transfer."""
    assert_flight_adds_up(connection)
    assert len(connection.flight.recovery.sent._lost) <= MAX_LOST
    assert len(connection._assembly._partials) <= MAX_PARTIALS
    assert not connection._events
    assert connection._out.control.backlog < 1000


def seeds(batch: int) -> list[int]:
    if given := os.environ.get("UDPSEND_SEED"):
        return [int(given)] if batch == 0 else []
    random = SystemRandom()
    return [random.randrange(1 << 32) for _ in range(CASES)]


@pytest.mark.parametrize("batch", range(BATCHES))
def test_bad_links(batch: int) -> None:
    for seed in seeds(batch):
        try:
            run_case(seed)
        except Exception as error:
            raise AssertionError(f"replay with UDPSEND_SEED={seed}: {error}\n{make_case(seed)}") from error


def test_the_same_seed_is_the_same_run() -> None:
    first, second = run_case(7), run_case(7)
    assert first.network.now == second.network.now
    assert first.sender.connection.counters() == second.sender.connection.counters()


@pytest.mark.parametrize(
    ("seed", "most"),
    [
        pytest.param(2733767312, 150_000, id="an outage"),  # 367,507, of a file of 47,293: a train at each timeout
        pytest.param(973827062, 40_000, id="a queue of three datagrams"),  # 90,984, of 5,864: records of five
    ],
)
def test_what_was_sent_again_and_again(seed: int, most: int) -> None:
    assert run_case(seed).sender.connection.flight.bytes_sent < most
