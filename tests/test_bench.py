"""The benchmark measures what it says: content checked, both sides weighed, failures shown and not averaged away."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.bench import memory, report
from tools.bench.network import Loopback
from tools.bench.peers import Copy, Scp, Socat
from tools.bench.process import BenchError, Running, Usage, wait_for_all
from tools.bench.tool import Place, Sample, Tool

SIZE = 1_000_003
PATIENCE = 20.0


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for name in ("scratch", "to"):
        (tmp_path / name).mkdir()
    source = tmp_path / "source.bin"
    memory.write_random(source, SIZE)
    return Place(Loopback(), source, tmp_path / "scratch", tmp_path / "to", limit=PATIENCE)


@pytest.mark.parametrize("tool", [Copy(), Socat(), Scp()], ids=lambda tool: tool.name)
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
    child = f"{sys.executable} -c 'bytearray(100_000_000)'"
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


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    target = tmp_path / "bench.json"
    options = ["--tools", "cp", "--size", "1M", "--rounds", "2", "--directory", str(tmp_path), "--json", str(target)]
    done = subprocess.run(
        [sys.executable, "-m", "tools.bench", *options], capture_output=True, text=True, timeout=60, check=True
    )
    assert "| cp " in done.stdout
    assert '"size": 1048576' in target.read_text()
    assert list(tmp_path.glob("udpsend-bench-*")) == []
