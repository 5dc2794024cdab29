"""What the program is compared with, without encryption: a plain copy, one TCP connection, and the network itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from .network import free_port
from .packages import Unavailable, debian_program
from .process import wait_for_all
from .tool import Command, Place, Sample, Tool, race


def first_line(*argv: str) -> str:
    """The first line that a command prints, for the versions."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
    return next(iter(done.stdout.splitlines()), "").strip()


class Copy(Tool):
    """The ceiling: no network at all."""

    name = "cp"
    about = "a copy on the same file system: no network, nothing encrypted"

    def missing(self) -> str | None:
        return None if shutil.which("cp") else "no cp here"

    def version(self) -> str:
        return first_line("cp", "--version")

    def transfer(self, place: Place) -> Sample:
        return race(place, None, ["cp", "--reflink=never", place.source, place.destination])


class Socat(Tool):
    """One plain TCP connection, in blocks of 64 KiB (the default of 8 KiB is slower)."""

    name = "socat"
    about = "plain TCP, nothing encrypted"

    def missing(self) -> str | None:
        return None if shutil.which("socat") else "needs socat (Debian package socat)"

    def version(self) -> str:
        lines = subprocess.run(["socat", "-V"], capture_output=True, text=True, timeout=30).stdout.splitlines()
        return next((line for line in lines if line.startswith("socat version")), "socat").split(" on ")[0]

    def transfer(self, place: Place) -> Sample:
        where = f"{place.network.address('receiver')}:{free_port()}"
        host, port = where.split(":")
        return race(
            place,
            ["socat", "-u", "-b65536", f"TCP-LISTEN:{port},bind={host},reuseaddr", f"CREATE:{place.destination}"],
            ["socat", "-u", "-b65536", f"OPEN:{place.source},rdonly", f"TCP:{where},retry=500,interval=0.01"],
        )


class Iperf(Tool):
    """What TCP moves from memory to memory: nothing read, nothing written, nothing encrypted."""

    name = "iperf3"
    about = "TCP from memory to memory, its own clock: the ceiling of the network"
    delivers = False

    def __init__(self) -> None:
        self._program = Path()
        self._env: dict[str, str] = {}

    def missing(self) -> str | None:
        try:
            self._program, self._env = debian_program("iperf3", "iperf3", "libiperf0", "libsctp1")
        except Unavailable as error:
            return str(error)
        return None

    def version(self) -> str:
        env = {**os.environ, **self._env}
        done = subprocess.run([self._program, "--version"], capture_output=True, text=True, timeout=30, env=env)
        return done.stdout.split(" (")[0].strip()

    def transfer(self, place: Place) -> Sample:
        host, port = place.network.address("receiver"), str(free_port())
        server = place.start("receiver", [self._program, "-s", "-1", "-B", host, "-p", port, "--forceflush"], self._env)
        report = place.scratch / "report.json"
        report.unlink(missing_ok=True)
        try:
            server.wait_for_text("Server listening", time.monotonic() + 10)
            size = str(place.source.stat().st_size)
            client: Command = [self._program, "-c", host, "-p", port, "-n", size, "-J", "--logfile", report]
            used = race(place, None, client, self._env).sender
        except BaseException:
            server.terminate()
            raise
        received = wait_for_all([server], time.monotonic() + 10)[0]
        ended = json.loads(report.read_text())["end"]["sum_received"]
        return Sample(ended["seconds"], used, received)
