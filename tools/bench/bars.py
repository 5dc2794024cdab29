"""The figures that the project wants to reach, beside what a run of `compare` has measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .report import Key, Report, median_of, ratio, row_of

CPU_BAR = 1.5
MEMORY_BAR = 64.0  # MB
SMALL_BAR = 0.4  # seconds
FLAT_BAR = 0.10
STOCK_BAR = 0.85

_SIDES: tuple[tuple[str, Key], ...] = (("sender", "sender_cpu"), ("receiver", "receiver_cpu"))
_PEAKS: tuple[Key, ...] = ("sender_peak", "receiver_peak")

# network -> what it is compared with -> how many times its rate
RATE_BARS = {
    "loopback": {"scp": 3.0, "socat": 0.55},
    "veth": {"scp": 3.0, "magic-wormhole": 4.0, "socat": 0.5},
    "card": {"scp": 3.0},
    "off": {"scp": 1.0},
}
LONG_BAR = 3.5
_OFF_VARIANTS = ("udpsend", "udpsend-no-offload", "udpsend-portable")


@dataclass(slots=True)
class Figures:
    """The reports of one run."""

    reports: dict[str, Report] = field(default_factory=dict)
    """By network."""
    small: Report | None = None
    long: Report | None = None
    flat: list[Report] = field(default_factory=list)
    """The usual size, then the large one."""


def _row(what: str, bar: str, value: float | None, is_met: bool, digits: int = 2, unit: str = "") -> list[str]:
    if value is None:
        return [what, bar, "not measured", ""]
    return [what, bar, f"{value:.{digits}f}{unit}", "met" if is_met else "**missed**"]


def _at_least(what: str, bar: float, value: float | None) -> list[str]:
    return _row(what, f"{bar:g} x", value, value is not None and value >= bar, unit=" x")


def _at_most(what: str, bar: float, value: float | None, unit: str = "", digits: int = 2) -> list[str]:
    return _row(what, f"at most {bar:g}{unit}", value, value is not None and value <= bar, digits, unit)


def _rates(figures: Figures) -> Iterator[list[str]]:
    for key, peers in RATE_BARS.items():
        report = figures.reports.get(key)
        if report is None:
            continue
        for mine in _OFF_VARIANTS if key == "off" else ("udpsend",):
            for peer, bar in peers.items():
                value = ratio(row_of(report, mine), row_of(report, peer))
                yield _at_least(f"{report['network']}: {mine} against {peer}", bar, value)
    if figures.long is not None:
        value = ratio(row_of(figures.long, "udpsend"), row_of(figures.long, "scp"))
        yield _at_least(
            f"{figures.long['network']}, {figures.long['size']:,} bytes: udpsend against scp", LONG_BAR, value
        )


def _start_up(figures: Figures, key: Key) -> float | None:
    """CPU seconds that a transfer of next to nothing takes."""
    if figures.small is None:
        return None
    per_gb = median_of(row_of(figures.small, "udpsend"), key)
    return per_gb * figures.small["size"] / 1e9 if per_gb is not None else None


def _cpu(figures: Figures) -> Iterator[list[str]]:
    for network, report in figures.reports.items():
        if network == "off":
            continue  # no trains arrive there
        for side, key in _SIDES:
            value = ratio(row_of(report, "udpsend"), row_of(report, "floor"), key)
            row = _at_most(f"{report['network']}: CPU of the {side} against the floor", CPU_BAR, value, " x")
            start, floor = _start_up(figures, key), median_of(row_of(report, "floor"), key)
            if value is not None and start is not None and floor:
                row[2] += f" ({value - start * 1e9 / report['size'] / floor:.2f} without start and end)"
            yield row


def _memory(figures: Figures) -> Iterator[list[str]]:
    for report in (*figures.reports.values(), *figures.flat):
        row = row_of(report, "udpsend")
        peaks = [median_of(row, key) for key in _PEAKS]
        most = max((peak for peak in peaks if peak is not None), default=None)
        yield _at_most(
            f"{report['network']}, {report['size']:,} bytes: peak memory of a process", MEMORY_BAR, most, " MB", 0
        )


def _flatness(figures: Figures) -> Iterator[list[str]]:
    if len(figures.flat) < 2:
        return
    usual, large = (row_of(report, "udpsend") for report in figures.flat)
    for side, key in _SIDES:
        one, other = median_of(usual, key), median_of(large, key)
        value = other / one - 1 if one and other is not None else None
        what = f"CPU per GB of the {side} at {figures.flat[1]['size']:,} bytes against {figures.flat[0]['size']:,}"
        met = value is not None and abs(value) <= FLAT_BAR
        yield _row(what, "within 10 %", value * 100 if value is not None else None, met, 0, " %")


def _others(figures: Figures) -> Iterator[list[str]]:
    for report in figures.reports.values():
        stock = row_of(report, "udpsend-stock")
        if stock is not None:
            value = ratio(stock, row_of(report, "udpsend"))
            yield _at_least(f"{report['network']}: socket buffers of a stock host against these", STOCK_BAR, value)
    if figures.small is not None:
        value = median_of(row_of(figures.small, "udpsend"), "said")
        yield _at_most("1 KiB, from the second end's start to 'verified'", SMALL_BAR, value, " s")


def bars(figures: Figures) -> list[list[str]]:
    """Rows: what, the bar, what was measured, and whether it was met."""
    parts = (_rates, _cpu, _memory, _flatness, _others)
    return [row for part in parts for row in part(figures)]
