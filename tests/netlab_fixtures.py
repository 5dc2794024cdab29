"""Glue between the tests and `tools.netlab`: a laboratory or a skip, the servers on it, and udpsend on its hosts."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from tools.netlab import Lab, Topology, missing_requirements

PROGRAM = (sys.executable, "-m", "udpsend")
# Bounds what hangs; nothing is expected to take anywhere near it.
PATIENCE = 20.0
MQTT_PORT = 1883
STUN_PORT = 3478


@cache
def _why_not() -> str | None:
    return missing_requirements()


@contextmanager
def laboratory(topology: Topology) -> Iterator[Lab]:
    """The topology as namespaces, or a skip with the reason."""
    reason = _why_not()
    if reason is not None:
        pytest.skip(reason)
    with Lab(topology) as lab:
        yield lab


class Started:
    """A command on a host of a lab; what it prints goes to a file."""

    def __init__(self, lab: Lab, host: str, argv: list[str], log: Path) -> None:
        self._log = log
        self._what = f"{' '.join(argv)} on {host}"
        with open(log, "wb") as output:
            self._process = lab.run(host, argv, stdout=output, stderr=subprocess.STDOUT)

    def printed(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for_text(self, text: str) -> None:
        """Until it has printed `text`."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.printed():
            ended = self._process.poll() is not None
            assert not ended, f"{self._what} ended:\n{self.printed()}"
            assert time.monotonic() < deadline, f"{self._what} never said {text!r}:\n{self.printed()}"
            time.sleep(0.01)

    def finish(self, expected: int = 0) -> str:
        """Waits for its end with this exit code; what it has printed."""
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self._what} does not end:\n{self.printed()}")
        assert code == expected, f"{self._what} ended with {code}:\n{self.printed()}"
        return self.printed()


def udpsend(lab: Lab, host: str, log: Path, *arguments: str) -> Started:
    """udpsend on a host. `log` is the file for its output."""
    return Started(lab, host, [*PROGRAM, *arguments], log)


def start_mosquitto(lab: Lab, host: str, directory: Path) -> Started:
    """mosquitto on the host's first address, for anybody."""
    program = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
    if program is None:
        pytest.skip("needs mosquitto (Debian package mosquitto)")
    settings = directory / "mosquitto.conf"
    settings.write_text(f"listener {MQTT_PORT} {lab.address(host)}\nallow_anonymous true\nuser root\n")
    server = Started(lab, host, [program, "-v", "-c", str(settings)], directory / "mosquitto.log")
    server.wait_for_text("running")
    return server


def start_coturn(lab: Lab, host: str, directory: Path) -> Started:
    """coturn on both of the host's addresses, for STUN alone."""
    program = shutil.which("turnserver")
    if program is None:
        pytest.skip("needs turnserver (Debian package coturn)")
    listening = [word for number in (0, 1) for word in ("--listening-ip", lab.address(host, number))]
    options = ["--listening-port", str(STUN_PORT), "--stun-only", "--no-cli", "--no-tls", "--no-dtls"]
    files = ["--log-file", "stdout", "--pidfile", str(directory / "coturn.pid"), "--userdb", str(directory / "turndb")]
    server = Started(lab, host, [program, "-n", "-v", *listening, *options, *files], directory / "coturn.log")
    server.wait_for_text(f"UDP listener opened on: {lab.address(host)}:{STUN_PORT}")
    return server
