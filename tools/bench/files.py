"""`python -m tools.bench files`: many small files, pipes, resuming, and kill -9 of either side; prints a table.

Sizes and numbers are options, since the whole of it takes an hour: what was measured stands in the table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import memory
from .compare import byte_count
from .network import Loopback
from .ours import Udpsend, new_code
from .process import BenchError
from .ssh import Scp
from .tool import Command, Place, Sample, Tool, race

BLOCK = 4096  # bytes of each of the many files
IN_DIRECTORY = 1000
MOVING = 1.0  # bar: seconds from both sides having met until bytes move
TWICE = 0.01  # bar: of all bytes, sent again after kills
SLOWER = 1.25  # bar: pipes beside files
PEAK = 100e6  # bar: bytes of memory with many files
SLOW = 400e6  # bytes per second: so that what is to be killed at 95 % is not over before
MIDST = 0.9  # of the kills come when the content moves, the others while the two start and meet
BOUND = 120.0  # seconds that an attempt may take
# Both ends of a transfer as a program: an event is a line of JSON.
_PEER = """
import json, mmap, sys, time
import udpsend
from udpsend.config import Config
from udpsend.errors import UdpsendError
from udpsend.files.sink import Sink
role, code, path, limit, counter = sys.argv[1:]
if counter:  # what has reached this process, in memory that survives it
    with open(counter, "r+b") as file:
        reached = mmap.mmap(file.fileno(), 8)
    original = Sink.write
    def write(sink, offset, size):
        new = original(sink, offset, size)
        reached[:] = sink.received.to_bytes(8, "little")
        return new
    Sink.write = write
def tell(event):
    fields = {name: getattr(event, name) for name in ("already", "done") if hasattr(event, name)}
    print(json.dumps({"event": type(event).__name__, "at": time.monotonic(), **fields}), flush=True)
config = Config(brokers=(), stun_servers=(), bind="127.0.0.1", timeout=60, limit=float(limit) or None)
try:
    getattr(udpsend, role)(*((path,) if role == "send" else (code, path)), config=config, on_event=tell,
        **({"code": code} if role == "send" else {}))
except (UdpsendError, KeyboardInterrupt) as error:
    sys.exit(str(error) or "stopped")
"""


@dataclass(frozen=True, slots=True)
class Row:
    what: str
    figure: str
    bar: str
    holds: bool


class TarOverSsh(Scp):
    """`tar c | ssh tar x`."""

    name = "tar over ssh"
    about = "tar through SSH with ChaCha20-Poly1305"
    _programs = ("tar", "ssh", "ssh-keygen", "/usr/sbin/sshd")

    def _command(self, place: Place, port: int) -> Command:
        address = self._target(place).partition(":")[0]
        here = shlex.join(["tar", "-C", os.fspath(place.source.parent), "-c", place.source.name])
        client = shlex.join(["ssh", *(os.fspath(word) for word in self._client(place)), "-p", str(port), address])
        there = shlex.quote(f"tar -C {shlex.quote(os.fspath(place.directory))} -x")
        return ["sh", "-c", f"{here} | {client} {there}"]


class Pipes(Udpsend):
    """Standard input to standard output."""

    def transfer(self, place: Place) -> Sample:
        code = new_code()
        mine = [os.fspath(word) for word in self._command]
        receive = shlex.join([*mine, "recv", "--code", code, "--yes", "-o", "-", *self._peer_options])
        send = shlex.join([*mine, "send", "-", "--code", code, "--no-qr", *self._peer_options])
        return race(place, ["sh", "-c", f"{receive} > {place.destination}"], ["sh", "-c", f"{send} < {place.source}"])


def make_many(root: Path, count: int) -> None:
    """So many files of 4 KiB."""
    content = random.Random(count).randbytes(BLOCK + count)
    for number in range(count):
        directory = root / f"{number // IN_DIRECTORY:04d}"
        if number % IN_DIRECTORY == 0:
            directory.mkdir(parents=True)
        (directory / f"{number % IN_DIRECTORY:03d}.dat").write_bytes(content[number : number + BLOCK])


def is_same_tree(one: Path, other: Path) -> bool:
    return subprocess.run(["diff", "-rq", one, other], capture_output=True, check=False).returncode == 0


def is_same(one: Path, other: Path) -> bool:
    return is_same_tree(one, other) if one.is_dir() else other.exists() and memory.same_content(one, other)


def best_of(tool: Tool, source: Path, rounds: int) -> Sample:
    """The quickest of some transfers, each checked. Raises BenchError."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=source.parent) as scratch:
        place = Place(Loopback(), source, Path(scratch), limit=600)
        with tool.session(place):
            samples = [checked(tool, place) for _ in range(rounds)]
    return min(samples, key=lambda sample: sample.seconds)


def checked(tool: Tool, place: Place) -> Sample:
    """A transfer into a new directory. Raises BenchError."""
    with tempfile.TemporaryDirectory(prefix="to-", dir=place.scratch) as to:
        place.directory = Path(to)
        sample = tool.transfer(place)
        if not is_same(place.source, place.destination):
            raise BenchError(f"{tool.name}: what arrived is not what was sent")
    return sample


def many_files(work: Path, count: int, rounds: int) -> Iterator[Row]:
    make_many(work / "many", count)
    mine = best_of(Udpsend("udpsend", "", {}), work / "many", rounds)
    peak = max(mine.sender.peak, mine.receiver.peak if mine.receiver is not None else 0)
    tar = TarOverSsh()
    if tar.missing() is not None:
        raise BenchError(f"tar over ssh {tar.missing()}")
    other = best_of(tar, work / "many", rounds).seconds
    what, figure = f"{count:,} files of 4 KiB", f"{mine.seconds:.2f} s"
    yield Row(what, figure, f"tar over ssh: {other:.2f} s", mine.seconds <= other)
    yield Row("memory meanwhile, larger side", f"{peak / 1e6:.0f} MB", f"{PEAK / 1e6:.0f} MB", peak < PEAK)


def pipes(work: Path, size: int, rounds: int) -> Iterator[Row]:
    source = work / "piped.bin"
    memory.write_random(source, size)
    with memory.WarmPool(size):
        direct = best_of(Udpsend("udpsend", "", {}), source, rounds)
        piped = best_of(Pipes("pipes", "", {}), source, rounds)
    ratio = piped.seconds / direct.seconds
    figure = f"{piped.seconds:.2f} s, files {direct.seconds:.2f} s"
    yield Row(f"{size / 2**30:.2g} GiB through pipes", figure, f"{ratio:.2f} of {SLOWER:.2f}", ratio <= SLOWER)


class Peer:
    """One end as a process of its own, its events as they come."""

    def __init__(self, role: str, code: str, path: Path, limit: float = 0.0, counter: Path | None = None) -> None:
        """`counter` is a file of 8 bytes in which the receiver counts what it has."""
        self._log = path.parent / f"{code}-{role}.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PEER, role, code, path, str(limit), counter or ""],
                env={**os.environ, "UDPSEND_LAN_INTERFACES": "127.0.0.1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def text(self) -> str:
        return self._log.read_text(errors="replace")

    def events(self) -> list[dict[str, Any]]:
        lines = [line for line in self.text().splitlines(keepends=True) if line.startswith("{")]
        return [json.loads(line) for line in lines if line.endswith("}\n")]

    def wait_for(self, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first such event. Raises BenchError."""
        deadline = time.monotonic() + BOUND
        while (found := next(filter(what, self.events()), None)) is None:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise BenchError(f"this did not come: {self.text()[-500:]}")
            time.sleep(0.01)
        return found

    def forget(self) -> None:
        """Its log is not wanted any more."""
        self._log.unlink()

    def end(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def wait(self) -> int:
        try:
            return self.process.wait(BOUND)
        finally:
            self.process.kill()
            self.process.wait()


def both(source: Path, here: Path, limit: float = 0.0, counter: Path | None = None) -> tuple[Peer, Peer]:
    """(receiver, sender) with a new code."""
    code = new_code()
    return Peer("receive", code, here, limit, counter), Peer("send", code, source, limit)


def resume(work: Path, size: int, share: float = 0.95) -> Iterator[Row]:
    source, here = work / "large.bin", work / "resumed"
    memory.write_random(source, size)
    here.mkdir()
    receiver, sender = both(source, here, min(SLOW, size / 3))  # of the last twentieth, too, somebody is told
    receiver.wait_for(lambda event: event.get("done", 0) >= share * size)
    for peer in (receiver, sender):
        peer.end(signal.SIGKILL)
        peer.wait()
    receiver, sender = both(source, here)
    met = receiver.wait_for(lambda event: event["event"] == "PeerMet")
    accepted = receiver.wait_for(lambda event: event["event"] == "Accepted")
    moving = receiver.wait_for(lambda event: event["event"] == "Progress" and event["done"] > accepted["already"])
    if receiver.wait() or sender.wait() or not memory.same_content(source, here / source.name):
        raise BenchError(f"resuming failed: {receiver.text()[-300:]} {sender.text()[-300:]}")
    seconds = moving["at"] - met["at"]
    share = accepted["already"] / size
    figure = f"{seconds:.2f} s (with {share:.1%} there)"
    yield Row(f"resume {size / 2**30:.3g} GiB, met to moving", figure, f"{MOVING:.0f} s", seconds <= MOVING)


def kills(work: Path, size: int, number: int, seed: int) -> Iterator[Row]:
    """Kill one side at a random moment, stop the other, and go on, `number` times; then let it end. What had reached
    the receiver, and was not there in its next attempt, is sent twice; what was on the way is not counted."""
    rng = random.Random(seed)
    source, here, counter = work / "killed.bin", work / "survived", work / "counter"
    memory.write_random(source, size)
    here.mkdir()
    held = twice = done = moved = tracebacks = 0
    while True:
        is_last = done == number
        counter.write_bytes(bytes(8))
        receiver, sender = both(source, here, 0.0 if is_last else max(size / number, 1e6), counter)
        if not is_last:
            if rng.random() < MIDST:
                receiver.wait_for(lambda event: event["event"] == "Accepted")
            time.sleep(rng.uniform(0.0, 0.8))
            victim, other = rng.sample([receiver, sender], 2)
            victim.end(signal.SIGKILL)
            victim.wait()
            # Before its first event it is Python that starts, and would say where it was interrupted.
            other.end(signal.SIGINT if other.events() else signal.SIGKILL)
            done += 1
        for peer in (receiver, sender):
            peer.wait()
            tracebacks += "Traceback" in peer.text()
        for event in receiver.events():
            if event["event"] == "Accepted":
                moved += 1
                twice += max(held - event["already"], 0)
                held = event["already"]
        held = max(held, int.from_bytes(counter.read_bytes(), "little"))
        if (here / source.name).exists():
            break
        if is_last:
            raise BenchError(f"the last attempt failed: {receiver.text()[-300:]} {sender.text()[-300:]} (seed {seed})")
        for peer in (receiver, sender):
            peer.forget()
    good = memory.same_content(source, here / source.name)
    print(f"bench: seed {seed}, {moved} attempts got as far as moving", file=sys.stderr)
    result = f"{'verified' if good else 'DIFFERENT'}, {tracebacks} tracebacks"
    yield Row(f"{done:,} kill -9, {size / 2**30:.2g} GiB", result, "verified, none", good and not tracebacks)
    yield Row("reached it and was sent again", f"{twice / size:.2%}", f"{TWICE:.0%}", twice <= TWICE * size)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench files", description="many files, and going on")
    parser.add_argument("--files", type=int, default=100_000, help="how many of 4 KiB (default 100000; 0: none)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the best counts (default 3)")
    parser.add_argument("--pipe", type=byte_count, default=byte_count("1G"), help="through pipes (default 1G; 0: none)")
    parser.add_argument("--resume", type=byte_count, default=byte_count("4G"), help="to resume (default 4G; 0: none)")
    parser.add_argument("--kills", type=int, default=100, help="of either side (default 100; 0: none)")
    parser.add_argument("--killed", type=byte_count, default=byte_count("1G"), help="size meanwhile (default 1G)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 30), help="of the moments of the kills")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="a tmpfs (default /dev/shm)")  # noqa: S108
    chosen = parser.parse_args(arguments)
    parts: list[tuple[int, Callable[[Path], Iterator[Row]]]] = [
        (chosen.files, lambda work: many_files(work, chosen.files, chosen.rounds)),
        (chosen.pipe, lambda work: pipes(work, chosen.pipe, chosen.rounds)),
        (chosen.resume, lambda work: resume(work, chosen.resume)),
        (chosen.kills, lambda work: kills(work, chosen.killed, chosen.kills, chosen.seed)),
    ]
    failed = False
    for is_wanted, part in parts:
        if not is_wanted:
            continue
        with tempfile.TemporaryDirectory(prefix="udpsend-files-", dir=chosen.directory) as work:
            try:
                for row in part(Path(work)):
                    verdict = "held" if row.holds else "MISSED"
                    print(f"{row.what:34} {row.figure:32} {row.bar:28} {verdict}", flush=True)
            except BenchError as error:
                failed = True
                print(f"bench: {error}", file=sys.stderr)
    return 1 if failed else 0
