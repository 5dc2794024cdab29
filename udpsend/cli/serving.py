"""`udpsend serve`: start the embedded server, print the options that bring peers to it, wait for the end."""

from __future__ import annotations

import shlex
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from udpsend.cli.quantity import address_text
from udpsend.cli.terminal import Terminal

# For each way to say "all addresses", one elsewhere (RFC 5737, RFC 3849).
ELSEWHERE = {"": "192.0.2.1", "0.0.0.0": "192.0.2.1", "::": "2001:db8::1"}  # noqa: S104


def run_server(terminal: Terminal, host: str, mqtt_port: int, stun_port: int) -> None:
    """Serve until Ctrl-C (KeyboardInterrupt is passed on) or SIGTERM. Raises UsageError if it cannot start."""
    from udpsend.serve.server import Server

    with _end_on_sigterm() as ended:
        server = Server(host, mqtt_port, stun_port)
        server.start()
        try:
            _tell_options(terminal, host, server.mqtt_port, server.stun_port)
            ended.wait()
        finally:
            server.stop()


def _tell_options(terminal: Terminal, host: str, mqtt_port: int, stun_port: int) -> None:
    reachable = _reachable_address(host)
    broker, stun = f"mqtt://{address_text((reachable, mqtt_port))}", address_text((reachable, stun_port))
    terminal.note(f"Serving on {host or 'all addresses'}.")
    terminal.note(f"Peers that can reach {reachable} add to 'udpsend send' and 'udpsend recv':")
    terminal.result(f"    {shlex.join(['--broker', broker, '--stun', stun])}", even_if_quiet=True)
    terminal.note("or set")
    terminal.result(f"    export UDPSEND_BROKER={shlex.quote(broker)} UDPSEND_STUN={shlex.quote(stun)}")
    terminal.note("Anybody who reaches these ports can use them. Ctrl-C stops.")


def _reachable_address(host: str) -> str:
    """The address that peers use: `host`, or where it means all of them, the one that a packet outwards would carry."""
    elsewhere = ELSEWHERE.get(host)
    if elsewhere is None:
        return host
    family = socket.AF_INET6 if ":" in elsewhere else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((elsewhere, 9))  # UDP: chooses a route, sends nothing
        except OSError:
            return "::1" if family == socket.AF_INET6 else "127.0.0.1"
        return str(probe.getsockname()[0])


@contextmanager
def _end_on_sigterm() -> Iterator[threading.Event]:
    """SIGTERM is how a service is stopped, and no failure; Ctrl-C comes as KeyboardInterrupt."""
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield ended
    finally:
        signal.signal(signal.SIGTERM, previous)
