"""`python -m tools.bench compare`: udpsend beside everything that people use today, in one run, on four networks.

1. Whatever is not on this machine is fetched (`packages.py`); what cannot be had is named and left out.
2. On each network all tools move the same file in turn, round after round (`rounds.py`), the floor among them.
3. On loopback a file of 1 KiB, with one end waiting already; and udpsend alone with 1 and with 20 GiB (`flat.py`).
4. What was measured is set beside the bars of the project (`bars.py`) and printed, with the rows where it loses.

Everything happens in network namespaces without a way out, so it needs root. It takes about a quarter of an hour;
`--networks`, `--rounds`, `--size` and `--without` cut it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NoReturn

from tools.netlab import missing_requirements
from tools.netlab.lab import LabError

from . import flat, network, rounds
from .bars import Figures, bars
from .ours import UDPSEND_VARIANTS, Floor
from .peers import Copy, Iperf, Socat
from .process import BenchError
from .quiet import Patience
from .report import Key, Report, disturbance, failures, headline, markdown, median_of, rates, where_and_when
from .ssh import Rsync, Scp
from .tool import Tool
from .wormholes import MagicWormhole, WormholeWilliam

PEERS: tuple[Tool, ...] = (Copy(), Socat(), Iperf(), Scp(), Rsync(), MagicWormhole(), WormholeWilliam())
TOOLS: dict[str, Tool] = {tool.name: tool for tool in (*UDPSEND_VARIANTS, *PEERS)}
BASES = ("scp", "magic-wormhole", "socat")
# Not to be had from a registry that this can use; said rather than left out in silence.
NOT_HAD = "croc: neither Debian 12 nor PyPI nor npm has it, so it is not compared"
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SMALL = 1024
_CPU: tuple[Key, ...] = ("sender_cpu", "receiver_cpu")
_FLAT_ROUNDS = 3
_LONG_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Setting:
    """A network, the trains that udpsend sends there, and who takes part."""

    key: str
    datagram: int
    count: int
    tools: str
    """Names of TOOLS."""

    def open(self) -> AbstractContextManager[network.Network]:
        match self.key:
            case "loopback":
                return network.own_loopback()
            case "veth":
                return network.veth(1500, None, None)
            case "card":
                return network.veth(1500, gso=False, gro=True)
            case _:
                return network.veth(1500, gso=False, gro=False)


SETTINGS = (
    Setting(
        "loopback",
        65507,
        4,
        "udpsend udpsend-1452 udpsend-stock cp socat iperf3 scp rsync magic-wormhole wormhole-william",
    ),
    Setting("veth", 1472, 176, "udpsend udpsend-stock socat iperf3 scp rsync magic-wormhole wormhole-william"),
    Setting("card", 1472, 176, "udpsend socat iperf3 scp magic-wormhole"),
    Setting("off", 1472, 176, "udpsend udpsend-no-offload udpsend-portable socat iperf3 scp magic-wormhole"),
)


@dataclass(slots=True)
class Result:
    """Everything that one run has measured."""

    figures: Figures = field(default_factory=Figures)
    patience: Patience = field(default_factory=Patience)
    parts: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """Network -> side -> step of the floor -> microseconds for a train."""


def byte_count(text: str) -> int:
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    try:
        return round(float(number) * _UNITS[unit])
    except (ValueError, KeyError):
        raise argparse.ArgumentTypeError("a number of bytes, or one with K, M or G (powers of 1,024)") from None


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    about = "udpsend beside everything else, on four networks"
    parser = argparse.ArgumentParser(prog="python -m tools.bench compare", description=about)
    parser.add_argument("--size", type=byte_count, default=byte_count("1G"), help="of the file (default 1G)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each tool moves it (default 5)")
    keys = ",".join(setting.key for setting in SETTINGS)
    parser.add_argument("--networks", type=_words, default=_words(keys), help=f"default {keys}")
    parser.add_argument("--without", type=_words, default=[], metavar="TOOLS", help="leave these out")
    parser.add_argument("--large", type=byte_count, default=byte_count("20G"), help="for flatness; 0 for none")
    parser.add_argument("--long", type=byte_count, default=0, metavar="SIZE", help="also this size on veth, as 4G")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="a tmpfs (default /dev/shm)")  # noqa: S108
    parser.add_argument("--seconds", type=float, default=840.0, help="no new round after so long (default 840)")
    parser.add_argument("--patience", type=float, default=0.0, help="seconds to wait for a quiet machine (default 0)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every sample there")
    chosen = parser.parse_args(argv)
    unknown = [key for key in chosen.networks if key not in keys.split(",")]
    if unknown:
        parser.error(f"no network {', '.join(unknown)}; there are {keys}")
    return chosen


@contextlib.contextmanager
def _prepared(
    tools: Sequence[Tool], work: rounds.Workplace, joined: network.Network
) -> Iterator[tuple[Report, list[rounds.Ready]]]:
    with rounds.prepared(tools, work, joined) as prepared:
        print(f"bench: {headline(prepared[0]).rpartition(',')[0]}", file=sys.stderr)
        yield prepared


def _take_part(setting: Setting, without: Sequence[str]) -> list[Tool]:
    named = [TOOLS[name] for name in setting.tools.split() if name not in without]
    return [Floor(setting.datagram, setting.count), *rounds.usable(named)]


def _compare_on(setting: Setting, chosen: argparse.Namespace, work: rounds.Workplace, result: Result) -> None:
    """All rounds on one network, then the steps of its floor."""
    tools = _take_part(setting, chosen.without)
    with setting.open() as joined, _prepared(tools, work, joined) as (report, ready):
        result.figures.reports[setting.key] = report
        rounds.run(ready, work, chosen.rounds)
        for each in ready:
            if isinstance(each.tool, Floor):
                with rounds.destination(each.place, work.size):
                    result.parts[setting.key] = each.tool.parts(each.place)


def _small(chosen: argparse.Namespace, result: Result) -> None:
    """1 KiB from one end to the other that waits already."""
    work = rounds.Workplace(chosen.directory, _SMALL, time.monotonic() + 120, result.patience)
    named = [TOOLS[name] for name in ("udpsend", "socat", "scp", "magic-wormhole", "wormhole-william")]
    tools = rounds.usable([tool for tool in named if tool.name not in chosen.without])
    with network.own_loopback() as joined, work.open(), _prepared(tools, work, joined) as (report, ready):
        for each in ready:
            each.place.staged = "sender"
            each.place.watch = "verified" if each.tool.name == "udpsend" else ""
        result.figures.small = report
        rounds.run(ready, work, chosen.rounds)


def _flat(chosen: argparse.Namespace, result: Result) -> None:
    """udpsend alone, small and large."""
    work = rounds.Workplace(chosen.directory, chosen.size, time.monotonic() + 600, result.patience)
    tools = rounds.usable([TOOLS["udpsend"]])
    for size, times in ((chosen.size, _FLAT_ROUNDS), (chosen.large, 1)):
        with network.own_loopback() as joined, work.open(), _prepared(tools, work, joined) as (report, ready):
            report["size"] = size
            result.figures.flat.append(report)
            for each in ready:
                each.place.limit = 60 + size / 50e6
                try:
                    each.row["samples"] += [flat.transfer(each, size, result.patience) for _ in range(times)]
                except BenchError as error:
                    each.row["failures"].append(str(error))


def _long(chosen: argparse.Namespace, result: Result) -> None:
    """A longer file on veth, where the start weighs less."""
    work = rounds.Workplace(chosen.directory, chosen.long, time.monotonic() + 600, result.patience)
    tools = rounds.usable([TOOLS[name] for name in ("udpsend", "socat", "scp") if name not in chosen.without])
    with network.veth(1500, None, None) as joined, work.open(), _prepared(tools, work, joined) as (report, ready):
        result.figures.long = report
        rounds.run(ready, work, min(chosen.rounds, _LONG_ROUNDS))


def _small_table(report: Report) -> str:
    rows = [["tool", "seconds to the end", "to 'verified'", "CPU s, send / receive"]]
    for tool in report["tools"]:
        spent = [median_of(tool, key) for key in _CPU]
        seconds, said = median_of(tool, "seconds"), median_of(tool, "said")
        rows.append(
            [
                tool["name"],
                f"{seconds:.2f}" if seconds is not None else "failed",
                f"{said:.2f}" if said is not None else "-",
                " / ".join(f"{each * report['size'] / 1e9:.2f}" if each is not None else "-" for each in spent),
            ]
        )
    return markdown(rows)


def _parts_table(parts: dict[str, dict[str, dict[str, float]]]) -> str:
    steps = sorted({step for sides in parts.values() for side in sides.values() for step in side} - {"loop"})
    rows = [["floor, µs for a train", *steps, "loop"]]
    for key, sides in parts.items():
        for side, spent in sides.items():
            cells = [f"{spent[step]:.1f}" if step in spent else "-" for step in (*steps, "loop")]
            rows.append([f"{key}, {side}", *cells])
    return markdown(rows)


def _document(result: Result) -> str:
    figures = result.figures
    every = [*figures.reports.values(), *filter(None, (figures.small, figures.long)), *figures.flat]
    if not every:
        return "nothing was measured"
    blocks = [
        f"{where_and_when(every[0])}; {disturbance(every)}",
        markdown([["what", "bar", "measured", ""], *bars(figures)]),
    ]
    for report in (*figures.reports.values(), *([figures.long] if figures.long else [])):
        blocks += [f"**{headline(report)}**, medians", rates(report, BASES)]
    if figures.small is not None:
        blocks += [
            "**1 KiB, the receiver waits already**, loopback, from the sender's start",
            _small_table(figures.small),
        ]
    for report in figures.flat:
        blocks += [f"**{report['size']:,} bytes, udpsend alone**", rates(report, ())]
    if result.parts:
        blocks.append(_parts_table(result.parts))
    known = {tool["name"]: f"{tool['about']} ({tool['version']})" for report in every for tool in report["tools"]}
    blocks.append("\n".join(f"- {name}: {text}" for name, text in known.items()) + f"\n- {NOT_HAD}")
    failed = {text.partition("\n")[0] for report in every for text in failures(report)}
    return "\n\n".join([*blocks, *sorted(failed)]) + "\n"


def _end(number: int, frame: object) -> NoReturn:
    """So that what is switched for the whole machine is switched back, and what was measured is shown."""
    raise KeyboardInterrupt


def main(argv: Sequence[str]) -> int:
    chosen = _arguments(argv)
    missing = missing_requirements()
    if missing is not None:
        print(f"bench: compare needs networks of its own: {missing}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, _end)
    result = Result(patience=Patience(chosen.patience))
    work = rounds.Workplace(chosen.directory, chosen.size, time.monotonic() + chosen.seconds, result.patience)
    try:
        _small(chosen, result)
        if chosen.large:
            _flat(chosen, result)
        with work.open():
            for setting in SETTINGS:
                if setting.key not in chosen.networks:
                    continue
                try:
                    _compare_on(setting, chosen, work, result)
                except LabError as error:  # ethtool, which switches offloads, is a package of its own
                    print(f"bench: {setting.key} is left out: {error}", file=sys.stderr)
        if chosen.long:
            _long(chosen, result)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("bench: ended early", file=sys.stderr)
    text = _document(result)
    print(text)
    if chosen.markdown is not None:
        chosen.markdown.write_text(text)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(asdict(result), indent=2) + "\n")
    every = [*result.figures.reports.values(), *result.figures.flat]
    return 1 if not every or any(failures(report) for report in every) else 0
