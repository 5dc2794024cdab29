"""Where this side can be reached: who is asked for it, and how often."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import pytest

from udpsend import discovery as discovery_module
from udpsend.config import Config
from udpsend.discovery import Discovery
from udpsend.net.udp import UdpEndpoint
from udpsend.punching.behaviour import NatBehaviour
from udpsend.wire.candidate import Candidate


class _Lone:
    """A discovery without a session: its calls are made by `run`."""

    def __init__(self, *servers: socket.socket) -> None:
        self.endpoint = UdpEndpoint("127.0.0.1")
        self.calls: deque[Callable[[], None]] = deque()
        self.candidates: list[list[Candidate]] = []
        self.behaviours: list[NatBehaviour] = []
        names = tuple(f"127.0.0.1:{server.getsockname()[1]}" for server in servers)
        self.discovery = Discovery(
            Config(brokers=(), stun_servers=names, bind="127.0.0.1", port_mapping=False),
            self.endpoint,
            self.calls.append,
            lambda event: None,
            lambda candidates: self.candidates.append(list(candidates)),
            self.behaviours.append,
        )
        self.discovery.start()

    def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            while self.calls:
                self.calls.popleft()()
            time.sleep(0.01)

    def close(self) -> None:
        self.discovery.close()
        self.endpoint.close()


def _asked(server: socket.socket) -> int:
    count = 0
    server.setblocking(False)
    with suppress(BlockingIOError):
        while server.recv(2000):
            count += 1
    return count


def test_a_peer_that_wants_many_punchings_has_stun_servers_asked_once() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        lone = _Lone(silent)
        try:
            for _ in range(200):
                lone.discovery.again()
            lone.run(1.0)
            assert 1 <= _asked(silent) <= 6, "one round, with what is sent again"
            assert len(lone.candidates) == 200, "each punching has this side's addresses"
        finally:
            lone.close()


def test_what_is_known_of_the_nat_is_told_of_each_punching() -> None:
    lone = _Lone()
    try:
        assert len(lone.behaviours) == 1, "there is no server to wait for"
        lone.discovery.again()
        assert len(lone.behaviours) == 2
        assert lone.behaviours[0] == lone.behaviours[1]
    finally:
        lone.close()


def test_after_a_while_servers_are_asked_again() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        lone = _Lone(silent)
        try:
            lone.run(0.1)
            before = _asked(silent)
            lone.discovery._asked_stun -= discovery_module.STUN_FRESH + 1
            lone.discovery.again()
            lone.run(0.2)
            assert before == 1
            assert _asked(silent) >= 1
        finally:
            lone.close()


def test_who_was_not_asked_has_no_routers_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's datagram that looks like STUN: nothing is sent to where it says that it comes from."""
    counted: list[str] = []

    def count(target: str, bind: str | None) -> tuple[int, bool]:
        counted.append(target)
        return 1, True

    monkeypatch.setattr(discovery_module, "routers_that_translate", count)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        lone = _Lone(server)
        try:
            lone.discovery.stun_received(b"\1\1\0\0" + bytes(16), ("203.0.113.66", 66))
            lone.run(0.1)
            assert counted == []
            request = server.recv(2000)
            lone.discovery.stun_received(b"\1\1\0\0" + request[4:20], ("203.0.113.7", 3478))
            lone.run(0.1)
            assert counted == ["203.0.113.7"]
        finally:
            lone.close()
