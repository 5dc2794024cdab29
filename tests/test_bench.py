"""The benchmark measures what it says: content checked, both sides weighed, failures shown and not averaged away."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.bench import bars, flat, memory, packages, report, rounds
from tools.bench.network import Loopback, Side
from tools.bench.ours import Floor
from tools.bench.peers import Copy, Socat
from tools.bench.process import BenchError, Running, Usage, wait_for_all
from tools.bench.quiet import Patience
from tools.bench.ssh import Rsync, Scp
from tools.bench.tool import Command, Place, Sample, Tool, race

SIZE = 1_000_003
PATIENCE = 20.0


@pytest.fixture
def place(tmp_path: Path) -> Place:
    work = tmp_path / "with blanks in it"
    for name in ("scratch", "to"):
        (work / name).mkdir(parents=True)
    source = work / "source.bin"
    memory.write_random(source, SIZE)
    return Place(Loopback(), source, work / "scratch", work / "to", limit=PATIENCE)


@pytest.mark.parametrize(
    "tool",
    [Copy(), Socat(), Scp(), Rsync(), Floor(65_507, 4), Floor(1_472, 44), Floor(1_472, 176)],
    ids=lambda tool: tool.name,
)
def test_a_tool_moves_the_file_and_both_sides_are_weighed(tool: Tool, place: Place) -> None:
    missing = tool.missing()
    if missing is not None:
        pytest.skip(missing)
    with tool.session(place):
        sample = tool.transfer(place)
    assert memory.same_content(place.source, place.destination)
    assert sample.seconds > 0
    for used in filter(None, (sample.sender, sample.receiver)):
        assert used.cpu > 0
        assert used.peak > 0


def test_a_peak_is_the_commands_own_and_not_its_starters(tmp_path: Path) -> None:
    ballast = bytearray(200_000_000)
    running = Running(["sleep", "0"], tmp_path / "log")
    (used,) = wait_for_all([running], time.monotonic() + PATIENCE)
    assert used.peak < 20_000_000 < len(ballast)


def test_usage_includes_children_that_were_waited_for(tmp_path: Path) -> None:
    child = f"{shlex.quote(sys.executable)} -c 'bytearray(100_000_000)'"
    running = Running(["sh", "-c", f"{child}; true"], tmp_path / "log")
    (used,) = wait_for_all([running], time.monotonic() + PATIENCE)
    assert used.peak > 100_000_000


def test_a_command_that_fails_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    running = Running(["sh", "-c", "echo no such luck; exit 3"], tmp_path / "log")
    with pytest.raises(BenchError, match="exit code 3; no such luck"):
        wait_for_all([running], time.monotonic() + PATIENCE)


def test_what_does_not_end_is_ended(tmp_path: Path) -> None:
    running = Running(["sleep", "1000"], tmp_path / "log")
    with pytest.raises(BenchError, match="not done in time: sleep"):
        wait_for_all([running], time.monotonic() + 0.05)
    assert running.descriptor == -1


def test_same_content_sees_a_single_byte_and_a_missing_one(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(bytes(3_000_000))
    other.write_bytes(bytes(2_999_999) + b"x")
    assert not memory.same_content(one, other)
    other.write_bytes(bytes(2_999_999))
    assert not memory.same_content(one, other)
    shutil.copy(one, other)
    assert memory.same_content(one, other)


def test_the_table_has_medians_and_ratios_within_a_round() -> None:
    made = report.new_report("loopback", 10**9)
    for name, seconds in (("scp", (4.0, 8.0, 2.0)), ("ours", (1.0, 4.0, 1.0))):
        samples: list[report.SampleRow | None] = [
            report.sample_row(Sample(each, Usage(0.5, 10_000_000), Usage(0.25, 20_000_000)), 10**9) for each in seconds
        ]
        made["tools"].append({"name": name, "about": "", "version": "1", "samples": samples, "failures": []})
    made["tools"][1]["samples"][2] = None
    made["tools"][1]["failures"].append("it fell over")
    shown = report.table(made)
    (row,) = [line for line in shown.splitlines() if line.startswith("| ours")]
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "ours",
        "625",
        "250-1,000",
        "2.50",
        "0.50 / 0.25",
        "10 / 20",
        "3.00",
    ]
    assert "ours failed: it fell over" in shown


def test_the_floor_knows_what_each_step_takes(place: Place) -> None:
    parts = Floor(1_472, 44).parts(place)
    assert set(parts["send"]) == {"read", "BLAKE3", "AEAD", "sendmsg", "loop"}
    assert set(parts["receive"]) == {"write", "BLAKE3", "AEAD", "recvmsg", "loop"}
    assert all(spent > 0 for side in parts.values() for spent in side.values())


@pytest.mark.parametrize("last", ["sender", "receiver"])
def test_a_staged_race_starts_one_end_when_the_other_has_come_to_rest(last: Side, place: Place, tmp_path: Path) -> None:
    place.staged, place.watch = last, "said"
    started = {side: tmp_path / side for side in ("sender", "receiver")}
    waits = 'while [ ! -e "$1" ]; do sleep 0.05; done; '
    commands: dict[str, Command] = {
        side: ["sh", "-c", f'{"" if side == last else waits}touch "$0"; echo said', own, started[last]]
        for side, own in started.items()
    }
    sample = race(place, commands["receiver"], commands["sender"])
    assert sample.said is not None
    assert sample.said <= sample.seconds


def test_a_disturbed_transfer_is_made_again_while_there_is_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, spent = [0.0], [0.0]
    monkeypatch.setattr("tools.bench.quiet.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("tools.bench.quiet.busy", lambda: spent[0])
    foreign = iter([5.0, 0.0, 5.0])

    def transfer() -> Sample:
        clock[0] += 1.0
        spent[0] += 1.0 + next(foreign)
        return Sample(clock[0], Usage(0.5, 1), Usage(0.5, 1))

    patience = Patience()
    monkeypatch.setattr(Patience, "wait_for_quiet", lambda _: None)
    patience.left = 1.5
    sample, others = patience.undisturbed(transfer)
    assert (sample.seconds, others, patience.left) == (2.0, 0.0, 0.5)
    patience.left = 0.0
    sample, others = patience.undisturbed(transfer)
    assert sample.seconds == 3.0
    assert others > 0


def test_what_a_registry_has_not_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDPSEND_BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(packages, "_fetch", _refuse)
    with pytest.raises(packages.Unavailable, match="no such package"):
        packages.python_environment("nothing", "no-such-package")
    assert not (tmp_path / "nothing" / ".complete").exists()


def _refuse(*_: object) -> None:
    raise packages.Unavailable("no such package")


def test_what_was_fetched_once_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDPSEND_BENCH_CACHE", str(tmp_path))
    fetched: list[object] = []
    monkeypatch.setattr(packages, "_fetch", lambda argv, _: fetched.append(argv))
    first = packages.python_environment("tool", "package")
    count = len(fetched)
    assert packages.python_environment("tool", "package") == first == tmp_path / "tool" / "bin"
    assert len(fetched) == count > 0


def _report(network: str, size: int, *tools: tuple[str, float, float]) -> report.Report:
    """Tools with their seconds and CPU seconds, one round each."""
    made = report.new_report(network, size)
    for name, seconds, cpu in tools:
        sample = Sample(seconds, Usage(cpu, 60_000_000), Usage(cpu, 70_000_000), said=seconds / 2)
        row = report.sample_row(sample, size)
        made["tools"].append({"name": name, "about": "", "version": "", "samples": [row], "failures": []})
    return made


def test_bars_are_met_or_missed() -> None:
    figures = bars.Figures()
    figures.reports["loopback"] = _report(
        "loopback", 10**9, ("floor", 1, 1), ("udpsend", 1, 1.75), ("udpsend-stock", 2, 2), ("scp", 4, 2)
    )
    figures.small = _report("loopback", 1024, ("udpsend", 0.5, 0.5))
    figures.flat = [_report("loopback", size, ("udpsend", 1, size * 1e-9)) for size in (10**9, 10**10)]
    rows = {what: (measured, verdict) for what, _, measured, verdict in bars.bars(figures)}
    assert rows["loopback: udpsend against scp"] == ("4.00 x", "met")
    assert rows["loopback: udpsend against socat"] == ("not measured", "")
    cpu = rows["loopback: CPU of the sender against the floor"]
    assert cpu == ("1.75 x (1.25 without start and end)", "**missed**")
    assert rows["loopback: socket buffers of a stock host against these"] == ("0.50 x", "**missed**")
    assert rows["1 KiB, from the second end's start to 'verified'"] == ("0.25 s", "met")
    memory_row = rows["loopback, 1,000,000,000 bytes: peak memory of a process"]
    assert memory_row == ("70 MB", "**missed**")
    flat = rows["CPU per GB of the sender at 10,000,000,000 bytes against 1,000,000,000"]
    assert flat == ("0 %", "met")


def test_a_round_notes_what_fails_and_goes_on(tmp_path: Path) -> None:
    class Broken(Copy):
        name = "broken"

        def transfer(self, place: Place) -> Sample:
            raise BenchError("it fell over")

    work = rounds.Workplace(tmp_path, SIZE, time.monotonic() + PATIENCE)
    tools = [Broken(), Copy()]
    with work.open(), rounds.prepared(tools, work, Loopback()) as (made, ready):
        rounds.run(ready, work, 2)
    broken, good = made["tools"]
    assert broken["samples"] == [None, None]
    assert broken["failures"] == ["it fell over"] * 2
    assert [sample is not None for sample in good["samples"]] == [True, True]
    assert list(tmp_path.iterdir()) == []


def test_a_large_file_is_taken_back_while_it_grows(tmp_path: Path) -> None:
    try:
        with flat._tmpfs(tmp_path, 0):
            pass
    except BenchError as error:  # not root, or in a container
        pytest.skip(str(error))

    class Weigher(Copy):
        most = 0

        def transfer(self, place: Place) -> Sample:
            with open(place.destination, "wb") as file:
                for _ in range(1500):
                    file.write(bytes(1 << 20))
                    self.most = max(self.most, os.fstat(file.fileno()).st_blocks * 512)
                    while os.fstat(file.fileno()).st_blocks * 512 > 3 << 28:
                        time.sleep(0.01)
            return Sample(1.0, Usage(1.0, 1), None)

    weigher, scratch = Weigher(), tmp_path / "scratch"
    scratch.mkdir()
    row: report.ToolRow = {"name": "", "about": "", "version": "", "samples": [], "failures": []}
    flat.transfer(rounds.Ready(weigher, Place(Loopback(), tmp_path, scratch), row), 1500 << 20, Patience())
    assert 1 << 29 <= weigher.most <= (3 << 28) + (1 << 20)
    assert list(scratch.iterdir()) == []


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    target = tmp_path / "bench.json"
    options = ["--tools", "cp", "--size", "1M", "--rounds", "2", "--directory", str(tmp_path), "--json", str(target)]
    done = subprocess.run(
        [sys.executable, "-m", "tools.bench", *options], capture_output=True, text=True, timeout=60, check=True
    )
    assert "| cp " in done.stdout
    assert '"size": 1048576' in target.read_text()
    assert list(tmp_path.glob("udpsend-bench-*")) == []
