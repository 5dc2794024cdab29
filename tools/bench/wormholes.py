"""magic-wormhole and its sibling in Go, with a mailbox and a transit relay of their own.

Both sides start with the same code, so that neither waits for a person. The mailbox server and the relay run on the
receiver's side and are not weighed: other people's machines do that work. The relay carries nothing, since the peers
reach each other. Both programs would ask public servers if they could, and magic-wormhole would choose another of the
host's addresses over loopback, so they run in namespaces without a way out only.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .network import free_port
from .packages import Unavailable, debian_program, python_environment
from .peers import first_line
from .process import BenchError
from .tool import Command, Place, Sample, Tool, race

_PACKAGES = ("magic-wormhole", "magic-wormhole-mailbox-server", "magic-wormhole-transit-relay")


def _code() -> str:
    return f"{secrets.randbelow(1000)}-bench-{secrets.token_hex(4)}"


class MagicWormhole(Tool):
    """The Python original."""

    name = "magic-wormhole"
    about = "SPAKE2 and NaCl SecretBox over TCP, in Python"
    _relay_port = 0  # any

    def __init__(self) -> None:
        self._bin = Path()
        self._env: dict[str, str] = {}

    def missing(self) -> str | None:
        try:
            self._bin = python_environment("magic-wormhole", *_PACKAGES)
        except Unavailable as error:
            return str(error)
        return None

    def version(self) -> str:
        return first_line(str(self._bin / "wormhole"), "--version")

    @contextmanager
    def session(self, place: Place) -> Iterator[None]:
        if place.network.has_way_out:
            raise BenchError("needs a namespace of its own (root)")
        host = place.network.address("receiver")
        mailbox, relay = free_port(), self._relay_port or free_port()
        twist, scratch = self._bin / "twist", place.scratch
        started = []
        try:
            databases = [f"--channel-db={scratch}/channels.sqlite", f"--usage-db={scratch}/usage.sqlite"]
            endpoint = f"--port=tcp:{mailbox}:interface={host}"
            started.append(place.start("receiver", [twist, "wormhole-mailbox", endpoint, *databases]))
            started.append(place.start("receiver", [twist, "transitrelay", f"--port=tcp:{relay}:interface={host}"]))
            for server in started:
                server.wait_for_text("Starting reactor", time.monotonic() + 30)
            self._env = self._environment(host, mailbox, relay, scratch)
            yield
        finally:
            for server in started:
                server.terminate()

    def _environment(self, host: str, mailbox: int, relay: int, scratch: Path) -> dict[str, str]:
        return {
            "WORMHOLE_RELAY_URL": f"ws://{host}:{mailbox}/v1",
            "WORMHOLE_TRANSIT_HELPER": f"tcp:{host}:{relay}",
            "HOME": os.fspath(scratch),
        }

    def transfer(self, place: Place) -> Sample:
        code = _code()
        sample = race(place, self._receive(place, code), self._send(place, code), self._env)
        if not place.destination.exists():
            raise BenchError(f"{self.name} ended well and the file is not there")
        return sample

    def _receive(self, place: Place, code: str) -> Command:
        wormhole = self._bin / "wormhole"
        return [wormhole, "receive", "--hide-progress", "--accept-file", "-o", place.directory, code]

    def _send(self, place: Place, code: str) -> Command:
        return [self._bin / "wormhole", "send", "--hide-progress", "--no-qr", "--code", code, place.source]


class WormholeWilliam(MagicWormhole):
    """The same protocol in Go; it asks on standard input and writes where it is.

    It knows one relay, by name, and sends nothing before it has reached that: so the name is that of the relay here, in
    a mount namespace of the command's own.
    """

    name = "wormhole-william"
    about = "the protocol of magic-wormhole, in Go"

    _relay_port = 4001

    def __init__(self) -> None:
        super().__init__()
        self._program = Path()
        self._program_env: Mapping[str, str] = {}

    def missing(self) -> str | None:
        try:
            self._program, self._program_env = debian_program("wormhole-william", "wormhole-william")
        except Unavailable as error:
            return str(error)
        return super().missing()  # the mailbox server

    def version(self) -> str:
        return first_line(os.fspath(self._program), "--version")

    def _environment(self, host: str, mailbox: int, relay: int, scratch: Path) -> dict[str, str]:
        self._url = f"ws://{host}:{mailbox}/v1"
        self._hosts = scratch / "hosts"
        self._hosts.write_text(f"127.0.0.1 localhost\n{host} transit.magic-wormhole.io\n")
        return {**self._program_env, "HOME": os.fspath(scratch)}

    def _receive(self, place: Place, code: str) -> Command:
        answering = 'cd "$1" && shift && echo y | "$@"'
        command: Command = [self._program, "receive", "--relay-url", self._url, "--hide-progress", code]
        return self._with_hosts(["sh", "-c", answering, "sh", place.directory, *command])

    def _send(self, place: Place, code: str) -> Command:
        chosen = ["--relay-url", self._url, "--hide-progress", "--code", code]
        return self._with_hosts([self._program, "send", *chosen, place.source])

    def _with_hosts(self, command: Command) -> Command:
        mounting = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", mounting, "sh", self._hosts, *command]
