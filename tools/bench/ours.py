"""udpsend as a tool among others: two commands and a rendezvous server of its own, nothing but the private network.

And `Floor`: the trains of udpsend without its protocol, the least that their CPU time can be.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from .network import free_port
from .peers import first_line
from .process import BenchError
from .tool import Command, Place, Sample, Tool, race

STOCK_BUFFER = 212_992  # net.core.rmem_max and wmem_max of a Linux that nobody has tuned
# `udpsend` on a system that has neither offload nor sendmmsg.
_PORTABLE = """
import sys
from udpsend.net import udp
from udpsend.net.portable import PortableSocket
udp._carrier = lambda sock, offload: PortableSocket(sock)
from udpsend.cli import main
sys.exit(main())
"""


def _program() -> str:
    """The `udpsend` of this interpreter's environment, or the one on the path."""
    beside = Path(sys.executable).with_name("udpsend")
    return str(beside) if beside.exists() else shutil.which("udpsend") or str(beside)


def _package() -> Path:
    """Where the package is."""
    import udpsend

    return Path(udpsend.__file__).parent


def new_code() -> str:
    """The nameplate makes it one of the usual kind, which is not slowed down on purpose."""
    return f"{secrets.randbelow(10_000):04d}-bench-{secrets.token_hex(4)}"


@contextmanager
def stock_buffers() -> Iterator[None]:
    """Lowers what the kernel grants a socket to what it grants on a stock host. It holds for the whole machine."""
    settings = [Path("/proc/sys/net/core", name) for name in ("rmem_max", "wmem_max")]
    before = [setting.read_text() for setting in settings]
    try:
        for setting in settings:
            setting.write_text(str(STOCK_BUFFER))
        yield
    finally:
        for setting, text in zip(settings, before, strict=True):
            setting.write_text(text)


class Udpsend(Tool):
    """The program with a choice of environment and options."""

    def __init__(
        self, name: str, about: str, env: Mapping[str, str], options: tuple[str, ...] = (), *, is_portable: bool = False
    ) -> None:
        self.name = name
        self.about = about
        self._env = env
        self._options = options
        self._command: Command = [sys.executable, "-c", _PORTABLE] if is_portable else [_program()]
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
        code = new_code()
        receive: Command = [*self._command, "recv", "--code", code, "--yes", "-o", place.directory, *self._peer_options]
        send: Command = [*self._command, "send", place.source, "--code", code, "--no-qr", *self._peer_options]
        sample = race(place, receive, send, self._env)
        if not place.destination.exists():
            raise BenchError("udpsend ended well and the file is not there")
        return sample


class StockUdpsend(Udpsend):
    """The program on a host whose socket buffers nobody has tuned."""

    def __init__(self) -> None:
        super().__init__("udpsend-stock", f"with net.core.rmem_max and wmem_max of {STOCK_BUFFER:,}", {})

    def missing(self) -> str | None:
        return super().missing() or (None if os.access("/proc/sys/net/core/rmem_max", os.W_OK) else "needs root")

    def transfer(self, place: Place) -> Sample:
        with stock_buffers():
            return super().transfer(place)


class Floor(Tool):
    """`floor.py` on both sides, with trains of `count` datagrams of `datagram` bytes."""

    name = "floor"

    def __init__(self, datagram: int, count: int) -> None:
        self.about = f"the same trains ({count} x {datagram:,} bytes) without a protocol; CPU of the loop alone"
        self._shape = ["--datagram", str(datagram), "--count", str(count)]

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        import blake3
        import cryptography

        return f"cryptography {cryptography.__version__}, blake3 {blake3.__version__}"

    def transfer(self, place: Place) -> Sample:
        return self._run(place)[0]

    def parts(self, place: Place) -> dict[str, dict[str, float]]:
        """Microseconds of each step for a train, by side. Raises BenchError."""
        return self._run(place, "--parts")[1]

    def _run(self, place: Place, *options: str) -> tuple[Sample, dict[str, dict[str, float]]]:
        program: Command = [sys.executable, Path(__file__).with_name("floor.py")]
        where = f"{place.network.address('receiver')}:{free_port(socket.SOCK_DGRAM)}"
        shared: Command = [
            "--size",
            str(place.source.stat().st_size),
            "--address",
            where,
            *self._shape,
            *options,
            "--report",
        ]
        reports = {side: place.scratch / f"{side}.json" for side in ("receive", "send")}
        for report in reports.values():
            report.unlink(missing_ok=True)
        sample = race(
            place,
            [*program, "receive", place.destination, *shared, reports["receive"]],
            [*program, "send", place.source, *shared, reports["send"]],
        )
        told = {side: json.loads(report.read_text()) for side, report in reports.items()}
        if told["send"]["digest"] != told["receive"]["digest"]:
            raise BenchError("the floor's hashes differ")
        if sample.receiver is None:
            raise BenchError("nobody received")
        weighed = replace(
            sample,
            sender=replace(sample.sender, cpu=told["send"]["cpu"]),
            receiver=replace(sample.receiver, cpu=told["receive"]["cpu"]),
        )
        return weighed, {side: report["parts"] for side, report in told.items()}


UDPSEND_VARIANTS = (
    Udpsend("udpsend", "datagrams as large as the path lets through", {}),
    Udpsend("udpsend-1452", "datagrams of 1,452 bytes at most, as on the internet", {"UDPSEND_MAX_DATAGRAM": "1452"}),
    Udpsend(
        "udpsend-no-offload",
        "1,452 bytes, sendmmsg and recvmmsg in place of offload",
        {"UDPSEND_MAX_DATAGRAM": "1452"},
        ("--no-offload",),
    ),
    Udpsend(
        "udpsend-portable",
        "the code for other systems: one system call for each datagram",
        {},
        is_portable=True,
    ),
    StockUdpsend(),
)
