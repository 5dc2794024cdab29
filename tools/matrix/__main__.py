"""`python -m tools.matrix`: the whole matrix, one line for each cell, and what misses a bar.

python -m tools.matrix --rate 10,100 --rtt 20 --loss 0,1 --buffer 1 --seconds 12 --jobs 2
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from itertools import product

from tools.matrix import numbers
from tools.matrix.cell import Cell, Result, measure
from udpsend.config import Config

RATES = (10.0, 100.0, 500.0, 1000.0)
ROUND_TRIPS = (1.0, 20.0, 100.0, 200.0)
LOSSES = (0.0, 0.1, 1.0, 3.0)
BUFFERS = (0.5, 1.0, 4.0)
CONFIGS = {"bbr": Config(), "cubic": Config(congestion="cubic"), "background": Config(background=True)}
GOODPUT_BAR = 0.9
DELAY_BAR = 1.25


def _job(job: tuple[Cell, int, float | None, str]) -> tuple[Cell, Result]:
    cell, seed, seconds, name = job
    return cell, measure(cell, seed=seed, seconds=seconds, options={"config": CONFIGS[name]})


def _verdict(cell: Cell, result: Result) -> str:
    misses = []
    if cell.buffer >= 1 and result.goodput < GOODPUT_BAR:
        misses.append("goodput")
    if cell.buffer >= 4 and result.delay > DELAY_BAR:
        misses.append("delay")
    return ", ".join(misses)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.matrix", description=__doc__)
    parser.add_argument("--rate", type=numbers, default=RATES, help="Mbit/s")
    parser.add_argument("--rtt", type=numbers, default=ROUND_TRIPS, help="ms")
    parser.add_argument("--loss", type=numbers, default=LOSSES, help="percent")
    parser.add_argument("--buffer", type=numbers, default=BUFFERS, help="bandwidth-delay products")
    parser.add_argument("--seconds", type=float, default=None, help="virtual seconds for each cell")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--congestion", choices=tuple(CONFIGS), default="bbr")
    options = parser.parse_args()
    cells = [
        Cell(rate, rtt / 1e3, loss / 1e2, buffer)
        for rate, rtt, loss, buffer in product(options.rate, options.rtt, options.loss, options.buffer)
    ]
    print(
        "| Mbit/s | RTT ms | loss % | buffer BDP | goodput % (from 1 s) | delay, RTTs (mean) | sent again % | misses |"
    )
    print("|---|---|---|---|---|---|---|---|")
    missed = 0
    with ProcessPoolExecutor(options.jobs) as pool:
        for cell, r in pool.map(_job, [(cell, options.seed, options.seconds, options.congestion) for cell in cells]):
            verdict = _verdict(cell, r)
            missed += bool(verdict)
            print(
                f"| {cell.megabits:g} | {cell.rtt * 1e3:g} | {cell.loss * 1e2:g} | {cell.buffer:g} "
                f"| {r.goodput * 100:.1f} ({r.goodput_early * 100:.1f}) | {r.delay:.2f} ({r.delay_mean:.2f}) "
                f"| {r.retransmitted * 100:.1f} | {verdict} |",
                flush=True,
            )
    print(f"\n{len(cells)} cells, {missed} miss a bar.")


if __name__ == "__main__":
    main()
