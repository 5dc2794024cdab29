"""udpsend as a tool among others: two commands and a rendezvous server of its own, nothing but the private network."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .network import free_port
from .peers import first_line
from .process import BenchError
from .tool import Command, Place, Sample, race


def _program() -> str:
    """The `udpsend` of this interpreter's environment, or the one on the path."""
    beside = Path(sys.executable).with_name("udpsend")
    return str(beside) if beside.exists() else shutil.which("udpsend") or str(beside)


def _package() -> Path:
    """Where the package is."""
    import udpsend

    return Path(udpsend.__file__).parent


class Udpsend:
    """The program with a choice of environment and options."""

    def __init__(self, name: str, about: str, env: Mapping[str, str], options: tuple[str, ...] = ()) -> None:
        self.name = name
        self.about = about
        self._env = env
        self._options = options
        self._peer_options: list[str] = []

    def missing(self) -> str | None:
        return None if Path(_program()).exists() else "udpsend is not installed in this environment"

    def version(self) -> str:
        return first_line(_program(), "--version")

    @contextmanager
    def session(self, place: Place) -> Iterator[None]:
        # As pip does when it installs; a source tree in an environment that writes no bytecode would compile each time.
        subprocess.run([sys.executable, "-m", "compileall", "-q", _package()], check=False, timeout=60)
        host = place.network.address("receiver")
        mqtt_port, stun_port = free_port(), free_port(socket.SOCK_DGRAM)
        ports = ["--mqtt-port", str(mqtt_port), "--stun-port", str(stun_port)]
        server = place.start("receiver", [_program(), "serve", "--host", host, *ports])
        try:
            server.wait_for_text(f"mqtt://{host}:{mqtt_port}", time.monotonic() + 20)
            meet = ["--broker", f"mqtt://{host}:{mqtt_port}", "--stun", f"{host}:{stun_port}", "--no-lan"]
            self._peer_options = [*meet, *self._options]
            yield
        finally:
            server.terminate()

    def transfer(self, place: Place) -> Sample:
        # The nameplate makes it a code of the usual kind, which is not slowed down on purpose.
        code = f"{secrets.randbelow(10_000):04d}-bench-{secrets.token_hex(4)}"
        receive: Command = [_program(), "recv", "--code", code, "--yes", "-o", place.directory, *self._peer_options]
        send: Command = [_program(), "send", place.source, "--code", code, "--no-qr", *self._peer_options]
        sample = race(place, receive, send, self._env)
        if not place.destination.exists():
            raise BenchError("udpsend ended well and the file is not there")
        return sample


UDPSEND_VARIANTS = (
    Udpsend("udpsend", "datagrams as large as the path lets through", {}),
    Udpsend("udpsend-1452", "datagrams of 1,452 bytes at most, as on the internet", {"UDPSEND_MAX_DATAGRAM": "1452"}),
    Udpsend(
        "udpsend-no-offload",
        "1,452 bytes and the portable path, a system call for each datagram",
        {"UDPSEND_MAX_DATAGRAM": "1452"},
        ("--no-offload",),
    ),
)
