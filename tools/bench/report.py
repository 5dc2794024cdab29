"""What was measured, as a table for people and as JSON for programs.

Rates are in MB/s of 10^6 bytes, CPU seconds are per 10^9 bytes of the file, memory in MB of 10^6 bytes. Each figure is
the median of its samples. A ratio compares the two transfers of the same round, so that a slow moment of the machine
hits both; the median of those is shown.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypedDict

from .tool import Sample


class SampleRow(TypedDict):
    """One transfer, in the units of the table; None where it failed or there is no such process."""

    seconds: float
    said: float | None
    rate: float
    sender_cpu: float
    receiver_cpu: float | None
    sender_peak: float
    receiver_peak: float | None
    others: float
    """The share of all processors that other programs had meanwhile."""


Key = Literal["seconds", "said", "rate", "sender_cpu", "receiver_cpu", "sender_peak", "receiver_peak", "others"]


class ToolRow(TypedDict):
    """All transfers of one tool; `samples` has None where a round failed."""

    name: str
    about: str
    version: str
    samples: list[SampleRow | None]
    failures: list[str]


class Report(TypedDict):
    """One run of the benchmark."""

    date: str
    machine: dict[str, str]
    network: str
    size: int
    tools: list[ToolRow]


def sample_row(sample: Sample, size: int, others: float = 0.0) -> SampleRow:
    per_gb = 1e9 / max(size, 1)
    receiver = sample.receiver
    return {
        "seconds": sample.seconds,
        "said": sample.said,
        "rate": size / sample.seconds / 1e6,
        "sender_cpu": sample.sender.cpu * per_gb,
        "receiver_cpu": receiver.cpu * per_gb if receiver else None,
        "sender_peak": sample.sender.peak / 1e6,
        "receiver_peak": receiver.peak / 1e6 if receiver else None,
        "others": others,
    }


def machine() -> dict[str, str]:
    """Where it was measured."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        receive_buffer = Path("/proc/sys/net/core/rmem_max").read_text().strip()
    except (OSError, StopIteration):
        model, receive_buffer = platform.processor(), "unknown"
    return {
        "cpu": f"{os.cpu_count()} x {model}",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "net.core.rmem_max": receive_buffer,
        # Of the minute before: above about 0.3 something else was running, and the figures are worth less.
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def new_report(network: str, size: int) -> Report:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"date": now, "machine": machine(), "network": network, "size": size, "tools": []}


def _present(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _median(values: Sequence[float | None], digits: int) -> str:
    present = _present(values)
    return f"{statistics.median(present):,.{digits}f}" if present else "-"


def _pair(sender: str, receiver: str) -> str:
    return sender if receiver == "-" else f"{sender} / {receiver}"


def row_of(report: Report, name: str) -> ToolRow | None:
    return next((tool for tool in report["tools"] if tool["name"] == name), None)


def ratio(tool: ToolRow | None, base: ToolRow | None, what: Key = "rate") -> float | None:
    """The median of what `tool` has for each that `base` has in the same round."""
    if tool is None or base is None:
        return None
    both = [
        mine_has / base_has
        for mine, its in zip(tool["samples"], base["samples"], strict=False)
        if mine and its and (mine_has := mine[what]) is not None and (base_has := its[what])
    ]
    return statistics.median(both) if both else None


def median_of(tool: ToolRow | None, what: Key) -> float | None:
    present = _present([sample[what] for sample in tool["samples"] if sample]) if tool else []
    return statistics.median(present) if present else None


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def where_and_when(report: Report) -> str:
    where = report["machine"]
    return f"{report['date']}; {where['cpu']}; {where['system']}; Python {where['python']}; load {where['load']}"


def _cells(tool: ToolRow, bases: Sequence[ToolRow | None]) -> list[str]:
    done = [sample for sample in tool["samples"] if sample is not None]
    rates = [sample["rate"] for sample in done]
    spread = f"{min(rates):,.0f}-{max(rates):,.0f}" if rates else "failed"
    return [
        tool["name"],
        _median(rates, 0),
        spread,
        _median([sample["seconds"] for sample in done], 2),
        _pair(_median([s["sender_cpu"] for s in done], 2), _median([s["receiver_cpu"] for s in done], 2)),
        _pair(_median([s["sender_peak"] for s in done], 0), _median([s["receiver_peak"] for s in done], 0)),
        *(f"{times:.2f}" if (times := ratio(tool, base)) is not None else "-" for base in bases),
    ]


def rates(report: Report, bases: Sequence[str] = ("scp",)) -> str:
    """What each tool moved, and how many times what the `bases` did."""
    against = [row_of(report, base) for base in bases]
    heads = ["tool", "MB/s", "from-to", "seconds", "CPU s/GB, send / receive", "peak MB, send / receive"]
    heads += [f"x {base}" for base in bases]
    return markdown([heads, *(_cells(tool, against) for tool in report["tools"])])


def headline(report: Report) -> str:
    rounds = max((len(tool["samples"]) for tool in report["tools"]), default=0)
    return f"{report['size']:,} bytes, {report['network']}, {rounds} interleaved rounds"


def disturbance(reports: Sequence[Report]) -> str:
    """How much of the machine others had, over all samples."""
    shares = [
        sample["others"] for report in reports for tool in report["tools"] for sample in tool["samples"] if sample
    ]
    if not shares:
        return "no samples"
    return (
        f"other programs had {statistics.median(shares):.0%} of the processors (median), {max(shares):.0%} at the most"
    )


def failures(report: Report) -> list[str]:
    return [f"{tool['name']} failed: {text}" for tool in report["tools"] for text in tool["failures"]]


def table(report: Report) -> str:
    """The report in Markdown."""
    title = f"{headline(report)}, medians; whole commands, warm memory"
    known = [f"{tool['name']}: {tool['about']} ({tool['version']})" for tool in report["tools"]]
    return "\n".join([title, where_and_when(report), "", rates(report), "", *known, *failures(report)])
