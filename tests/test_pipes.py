"""Streams and texts, end to end: real processes with pipes, which meet by multicast on the loopback interface."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

import udpsend
from udpsend import events
from udpsend.config import Config
from udpsend.errors import UsageError

BOUND = 60  # seconds that a process may take
OPTIONS = ("--bind", "127.0.0.1", "--broker", "none", "--stun", "none", "--no-port-mapping", "--timeout", "30")
RUN = "import sys; from udpsend.cli import main; sys.exit(main())"
RINGS = 64 << 20  # bytes that all buffers between the two pipes hold, at most

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def code(seed: int) -> str:
    return f"{random.Random(f'{seed} {os.getpid()}').randrange(10_000):04}-{os.urandom(4).hex()}"


@pytest.fixture
def start(code: str) -> Iterator[Start]:
    """Starts `udpsend` with words, the code and options; standard streams are as `subprocess.Popen` takes them."""
    environment = {**os.environ, "UDPSEND_LAN_INTERFACES": "127.0.0.1", "UDPSEND_CODE": code}
    started: list[subprocess.Popen[bytes]] = []

    def run(
        *words: str, stdin: int | IO[bytes] = subprocess.DEVNULL, stdout: int | IO[bytes] = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", RUN, *words, *OPTIONS]
        started.append(
            subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, env=environment, bufsize=0)
        )
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[bytes], status: int) -> tuple[bytes, str]:
    out, err = process.communicate(timeout=BOUND)
    assert process.returncode == status, err.decode()
    return out or b"", err.decode()


def feed(process: subprocess.Popen[bytes], content: bytes) -> threading.Thread:
    """Write into its standard input, in a thread, until it is closed on one side."""
    pipe = process.stdin
    assert pipe is not None
    process.stdin = None  # `communicate` leaves it alone

    def write() -> None:
        view = memoryview(content)
        try:
            with pipe:
                while len(view):
                    view = view[pipe.write(view[:100_000]) :]
        except BrokenPipeError:
            pass

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("size", [0, 1, 5_000_011])
def test_from_pipe_to_pipe(start: Start, seed: int, size: int) -> None:
    content = random.Random(seed).randbytes(size)
    sender = start("send", "-", stdin=subprocess.PIPE)
    feed(sender, content)
    out, err = ended(start("recv", "-y", "-o", "-"), 0)
    assert out == content
    assert "Received stdin" in err
    assert "verified" in ended(sender, 0)[0].decode()


def test_from_pipe_to_directory(start: Start, seed: int, tmp_path: Path) -> None:
    content = random.Random(seed).randbytes(3_000_000)
    sender = start("send", "-", "--name", "a.bin", stdin=subprocess.PIPE)
    feed(sender, content)
    ended(start("recv", "-y", "-o", str(tmp_path)), 0)
    ended(sender, 0)
    assert os.listdir(tmp_path) == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == content
    assert not (tmp_path / "a.bin").stat().st_mode & 0o111


def test_a_file_that_exists_is_not_replaced_by_a_stream(start: Start, tmp_path: Path) -> None:
    (tmp_path / "stdin").write_bytes(b"old")
    for policy, says in ((), "exists already: "), (("--skip-existing",), "leaves out only what has the same size"):
        sender = start("send", "-")
        assert says in ended(start("recv", "-y", "-o", str(tmp_path), *policy), 7)[1]
        ended(sender, 1)
    assert (tmp_path / "stdin").read_bytes() == b"old"


def test_from_file_to_pipe(start: Start, seed: int, tmp_path: Path) -> None:
    content = random.Random(seed).randbytes(20_000_000)
    (tmp_path / "f").write_bytes(content)
    sender = start("send", str(tmp_path / "f"))
    assert ended(start("recv", "-y", "-o", "-"), 0)[0] == content
    ended(sender, 0)


def test_what_goes_to_a_pipe_is_not_promised_to_go_on(start: Start, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(RINGS + (16 << 20)))
    sender = start("send", str(tmp_path / "f"))
    receiver = start("recv", "-y", "-o", "-")
    assert receiver.stdout is not None
    assert receiver.stdout.read(1)
    sender.send_signal(signal.SIGINT)
    assert "cannot be resumed: begin anew" in ended(sender, 130)[1]
    ended(receiver, 6)


def test_several_files_do_not_go_to_a_pipe(start: Start, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"x")
    sender = start("send", str(tmp_path / "d"))
    out, err = ended(start("recv", "-y", "-o", "-"), 2)
    assert out == b""
    assert "not one file" in err
    ended(sender, 1)


def test_a_slow_reader_holds_the_writer(start: Start) -> None:
    """Nothing is read of the receiver's output until the sender's input has not been taken any further for a while:
    what lies between is bounded, and so is the memory of both."""
    piece = bytes(range(256)) * 4096
    total = 2 * RINGS
    sender = start("send", "-", stdin=subprocess.PIPE)
    receiver = start("recv", "-y", "-o", "-")
    written = 0
    moved = threading.Event()
    pipe = sender.stdin
    assert pipe is not None
    sender.stdin = None

    def write() -> None:
        nonlocal written
        with pipe:
            while written < total:
                view = memoryview(piece)[written % len(piece) :]
                written += pipe.write(view)
                moved.set()

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    assert moved.wait(BOUND)
    while moved.wait(3.0):  # until nothing moves
        moved.clear()
    assert written < RINGS
    out = receiver.stdout
    assert out is not None
    read = 0
    while part := out.read(1 << 20):
        assert part == (piece * 2)[read % len(piece) :][: len(part)]
        read += len(part)
        if read == total // 2:
            peaks = [peak_memory(process.pid) for process in (sender, receiver)]
            assert max(peaks) < 160e6
    assert read == total
    ended(receiver, 0)
    ended(sender, 0)


def peak_memory(process: int) -> int:
    """Bytes."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def test_a_reader_that_leaves(start: Start) -> None:
    sender = start("send", "-", stdin=subprocess.PIPE)
    feed(sender, bytes(80 << 20))
    receiver = start("recv", "-y", "-o", "-")
    assert receiver.stdout is not None
    assert receiver.stdout.read(1)
    receiver.stdout.close()
    receiver.stdout = None
    assert "its reader has ended" in ended(receiver, 7)[1]
    assert "its reader has ended" in ended(sender, 1)[1]


def test_a_text_is_shown_and_makes_no_file(start: Start, tmp_path: Path) -> None:
    sender = start("send", "--text", "red \x1b[31m\nsecond \u202eline\tx")
    out, _ = ended(start("recv", "-y", "-o", str(tmp_path)), 0)
    lines = out.decode().splitlines()
    assert lines[:2] == ["red \\x1b[31m", "second \\u202eline    x"]
    assert lines[2].startswith("Received a message: ")
    assert lines[2].endswith("verified")
    ended(sender, 0)
    assert os.listdir(tmp_path) == []


def test_a_text_that_cannot_be_shown(start: Start) -> None:
    sender = start("send", "--text", "hi")
    with open("/dev/full", "wb") as full:
        _, err = ended(start("recv", "-y", stdout=full), 7)
    assert "Cannot show the message on standard output: No space left on device" in err
    out, err = ended(sender, 1)
    assert "verified" not in out.decode()
    assert "Cannot show the message" in err


def test_a_text_that_nobody_reads(start: Start) -> None:
    sender = start("send", "--text", "hi")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended(start("recv", "-y", stdout=writing), 0)
    finally:
        os.close(writing)
    ended(sender, 0)


def test_a_text_into_a_pipe_comes_as_it_is(start: Start) -> None:
    sender = start("send", "--text", "a\x1b\n")
    assert ended(start("recv", "-y", "-o", "-"), 0)[0] == b"a\x1b\n"
    ended(sender, 0)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["send"], "Nothing to send"),
        (["send", "-", "f"], "goes alone"),
        (["send", "f", "--text", "t"], "goes alone"),
        (["send", "-", "--exclude", "*.tmp"], "--exclude is for files"),
        (["send", "--text", "x", "--gitignore"], "--gitignore is for files"),
        (["send", "-", "--verify"], "nothing can be asked"),
        (["send", "-", "--manual"], "nothing can be asked"),
        (["send", "f", "--name", "n"], "--name is for standard input"),
        (["send", "-", "--name", "a/b"], "This name cannot be taken"),
        (["send", "--text", "x" * 65_537], "longer than 64 KiB"),
        (["recv", "-o", "-", "--overwrite"], "meets no files"),
    ],
)
def test_what_makes_no_sense(start: Start, words: list[str], says: str) -> None:
    assert says in ended(start(*words), 2)[1]


def test_library(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDPSEND_LAN_INTERFACES", "127.0.0.1")
    config = Config(brokers=(), stun_servers=(), bind="127.0.0.1", port_mapping=False, timeout=30)
    told: list[events.Event] = []
    got: list[events.Verified] = []
    sending = threading.Thread(target=lambda: got.append(udpsend.send(text="grüße", code=code, config=config)))
    sending.start()
    received = udpsend.receive(code, config=config, on_event=told.append)
    sending.join(BOUND)
    assert [event.text for event in told if isinstance(event, events.TextReceived)] == ["grüße"]
    assert next(event for event in told if isinstance(event, events.Offered)).is_text
    assert received.path is None
    assert got[0].digest == received.digest
    assert got[0].size == received.size == 7


def test_library_refuses() -> None:
    with pytest.raises(UsageError):
        udpsend.send()
    with pytest.raises(UsageError):
        udpsend.send("f", text="t")
    with pytest.raises(UsageError):
        udpsend.send(text="\udc80")
    with pytest.raises(UsageError):
        udpsend.receive("code", stream=1, overwrite=True)
