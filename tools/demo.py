"""`make demo`: a rendezvous server, a sender and a receiver, as three processes on loopback, and a real file.

1. Start `udpsend serve` on 127.0.0.1 with ports of the system's choice, and read from it the options for peers.
2. Write a file of random bytes; start `udpsend recv` for a directory and `udpsend send` for the file.
3. Show what both write, each on a terminal of its own so that both draw their progress bar.
4. Compare SHA-256 of the file and of what arrived, in this process, with nothing of udpsend.

Nothing leaves the machine: no other server is asked, no multicast, and both peers are bound to 127.0.0.1.
The exit code is 0 only if both commands succeeded and the hashes are equal.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import pty
import secrets
import selectors
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

MEGABYTE = 1_000_000
BLOCK = 1 << 20
SECONDS = 300.0  # after which the demonstration has failed
SECONDS_TO_STOP = 10.0
SECONDS_BETWEEN_STATES = 1.0  # of a bar, where this output is no terminal
UDPSEND = (sys.executable, "-m", "udpsend")


class Peer:
    """A command on a terminal of its own, whose output comes in lines and in states of a line that is drawn again."""

    def __init__(self, name: str, arguments: list[str], columns: int) -> None:
        self.name = name
        self.state = ""
        self._pending = ""
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            [*UDPSEND, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env=environment(),
        )
        os.close(theirs)

    def read(self) -> list[str] | None:
        """The lines that were finished, None at the end; `state` is the line that is being drawn."""
        try:
            part = os.read(self.ours, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            part = b""
        if not part:
            return None
        *lines, rest = (self._pending + part.decode("utf-8", "replace")).replace("\r\n", "\n").split("\n")
        self._pending = rest if "\r" not in rest else "\r" + rest.rpartition("\r")[2]
        drawn = [state for state in rest.split("\r") if state.strip()]
        self.state = drawn[-1].rstrip() if drawn and "\r" in rest else ""  # without it: the beginning of a line
        return [line.rpartition("\r")[2].rstrip() for line in lines]


class Screen:
    """Lines above, and below them the current state of each peer's bar."""

    def __init__(self, peers: list[Peer]) -> None:
        self._peers = peers
        self._is_terminal = sys.stdout.isatty()
        self._drawn = 0
        self._told: dict[str, float] = {}

    def line(self, peer: Peer, text: str) -> None:
        self._erase()
        print(f"{peer.name} | {text}")

    def draw(self) -> None:
        states = [peer for peer in self._peers if peer.state]
        if self._is_terminal:
            self._erase()
            for peer in states:
                print(f"{peer.name} | {peer.state}")
            self._drawn = len(states)
        else:
            now = time.monotonic()
            for peer in states:
                if now - self._told.get(peer.name, 0.0) >= SECONDS_BETWEEN_STATES:
                    self._told[peer.name] = now
                    print(f"{peer.name} | {peer.state}")
        sys.stdout.flush()

    def _erase(self) -> None:
        if self._drawn:
            print(f"\x1b[{self._drawn}F\x1b[J", end="")
            self._drawn = 0


def environment() -> dict[str, str]:
    """This process's, without what would change how the peers meet."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UDPSEND_")}
    return {**kept, "PYTHONIOENCODING": "utf-8"}


def write_random_file(path: Path, size: int) -> str:
    """`size` random bytes; returns their SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for offset in range(0, size, BLOCK):
            block = os.urandom(min(BLOCK, size - offset))
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def start_server() -> tuple[subprocess.Popen[str], list[str]]:
    """The server, and the options for peers that it prints first on standard output."""
    server = subprocess.Popen(
        [*UDPSEND, "serve", "-q", "--host", "127.0.0.1", "--mqtt-port", "0", "--stun-port", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert server.stdout is not None
    options = shlex.split(server.stdout.readline())
    if not options:
        raise SystemExit("The rendezvous server did not start; its complaint stands above.")
    return server, options


def stop(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def show_until_both_end(peers: list[Peer]) -> bool:
    """Whether both ended within SECONDS."""
    screen = Screen(peers)
    deadline = time.monotonic() + SECONDS
    with selectors.DefaultSelector() as selector:
        for peer in peers:
            selector.register(peer.ours, selectors.EVENT_READ, peer)
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(timeout=0.5):
                lines = key.data.read()
                if lines is None:
                    selector.unregister(key.fileobj)
                    continue
                for line in lines:
                    screen.line(key.data, line)
            screen.draw()
        return not selector.get_map()


def demonstrate(directory: Path, size: int) -> bool:
    source, target = directory / "random.bin", directory / "received"
    target.mkdir()
    print(f"Writing {size / MEGABYTE:.0f} MB of random bytes to {source}", flush=True)
    expected = write_random_file(source, size)

    server, options = start_server()
    peers: list[Peer] = []
    try:
        print(f"Rendezvous server: udpsend serve    ({shlex.join(options)})", flush=True)
        common = [*options, "--no-lan", "--bind", "127.0.0.1", "--timeout", "60"]
        code = f"{secrets.randbelow(10_000):04d}-demo-{secrets.token_hex(4)}"
        columns = max(60, min(shutil.get_terminal_size().columns, 110) - len("send | ") - 1)
        peers.append(Peer("recv", ["recv", code, "--yes", "-o", str(target), *common], columns))
        peers.append(Peer("send", ["send", str(source), "--code", code, "--no-qr", *common], columns))
        ended = show_until_both_end(peers)
    finally:
        for peer in peers:
            stop(peer.process)
            os.close(peer.ours)
        stop(server)
    if not ended:
        print(f"FAILED: not done after {SECONDS:.0f} seconds")
        return False

    for peer in peers:
        if peer.process.returncode != 0:
            print(f"FAILED: {peer.name} ended with exit code {peer.process.returncode}")
            return False
    arrived = target / source.name
    actual = sha256_of(arrived) if arrived.is_file() else "there is no such file"
    print(f"SHA-256 of what was sent:     {expected}")
    print(f"SHA-256 of what was received: {actual}")
    print("The two are equal." if actual == expected else "FAILED: the two differ.")
    return actual == expected


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description="Send a file between two processes on loopback.")
    parser.add_argument("--megabytes", type=int, default=256, help="size of the file [256]")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="udpsend-demo-") as directory:
            return 0 if demonstrate(Path(directory), arguments.megabytes * MEGABYTE) else 1
    except KeyboardInterrupt:
        print("Stopped.")
        return 130
    except OSError as error:
        print(f"FAILED: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
