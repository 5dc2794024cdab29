"""The loop between a session and the world: datagrams in, timers, calls from other threads, datagrams out, events.

The only reader of the sockets and the only caller of the session. Other threads hand in calls (`call_soon`): messages
of mailboxes, answers of STUN servers, decisions of the user.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from udpsend.net import clock
from udpsend.net.carrier import Carrier
from udpsend.net.udp import UdpEndpoint
from udpsend.net.waiting import wait_awake, wait_readable
from udpsend.wire.datagram import Address, Arrival, Transmit, is_stun

MAX_RECEIVES = 32  # trains taken from one socket before anything is answered
MAX_SLEEP = 1.0  # seconds
# Where nothing joins datagrams, a fast receiver would wake up for each; network cards moderate interrupts likewise.
MODERATION = 0.0002
FAST = 200e6  # bytes per second: no wire of a gigabit is worth a processor that waits
FAST_OVER = 0.005  # seconds
PLENTY = 50e6  # bytes per second that come: what a socket of a stock host holds is 4 ms of that


class Machine(Protocol):
    """What is driven: the five verbs, the events aside."""

    def datagram_received(self, arrival: Arrival, now: float) -> None: ...

    def datagrams_to_send(self, now: float) -> Iterable[Transmit]: ...

    def next_timer(self) -> float | None: ...

    def timer_expired(self, now: float) -> None: ...


class Driver:
    def __init__(
        self,
        endpoint: UdpEndpoint,
        machine: Machine,
        on_stun: Callable[[bytes, Address], None],
        on_turn: Callable[[float], None],
        on_sent: Callable[[float], None],
    ) -> None:
        """`on_turn(now)` and `on_sent(now)` are called once in each turn of the loop: the first to take events off the
        machine, the second when its datagrams have left."""
        self._endpoint = endpoint
        self._machine = machine
        self._on_stun = on_stun
        self._on_turn, self._on_sent = on_turn, on_sent
        self._calls: deque[Callable[[], None]] = deque()
        self._wake_receive, self._wake_send = socket.socketpair()
        self._wake_receive.setblocking(False)
        self._wake_send.setblocking(False)
        self._running = False
        self.comes_fast = False
        """Much comes of late."""
        self._came = self._went = 0  # bytes since `_counted_from`
        self._counted_from = 0.0
        self._is_fast = False

    def call_soon(self, call: Callable[[], None]) -> None:
        """Have `call` made by the loop, from any thread."""
        self._calls.append(call)
        self.wake()

    def wake(self) -> None:
        """Have the loop make a turn, from any thread."""
        with contextlib.suppress(OSError):  # full: it is awake already; closed: nobody is left to listen
            self._wake_send.send(b"\0")

    def stop(self) -> None:
        """Leave `run` at the end of this turn."""
        self._running = False

    def run(self) -> None:
        self._running = True
        machine, sockets = self._machine, self._endpoint.sockets
        readers: list[Carrier | socket.socket] = [*sockets, self._wake_receive]
        now = clock.now()
        while self._running:
            self._on_turn(now)
            self.send(now)
            self._on_sent(now)
            if sockets is not self._endpoint.sockets:  # punching opened more, or is done with them
                sockets = self._endpoint.sockets
                readers = [*sockets, self._wake_receive]
            if not self._running:
                return
            timer = machine.next_timer()
            sleep = MAX_SLEEP if timer is None else min(MAX_SLEEP, max(0.0, timer - clock.now()))
            if any(sock.is_trickling for sock in sockets):
                clock.sleep(MODERATION)
            unread = [sock for sock in sockets if sock.has_pending]
            wait = wait_awake if self._is_fast else wait_readable
            ready = wait(readers, 0.0 if unread else sleep)
            for sock in unread:
                self._receive(sock)
            for reader in ready:
                if isinstance(reader, Carrier):
                    self._receive(reader)
                else:
                    self._make_calls()
            now = clock.now()
            self._measure(now)
            if timer is not None and now >= timer:
                machine.timer_expired(now)

    def send(self, now: float) -> None:
        """What the machine has to send now."""
        for transmit in self._machine.datagrams_to_send(now):
            self._endpoint.send(transmit)
            self._went += transmit.size

    def _measure(self, now: float) -> None:
        span = now - self._counted_from
        if span > FAST_OVER:
            self._is_fast = self._came + self._went > FAST * span
            self.comes_fast = self._came > PLENTY * span
            self._came, self._went, self._counted_from = 0, 0, now

    def _make_calls(self) -> None:
        """Those that are there now: what comes meanwhile waits for its turn, or the loop would do nothing else."""
        with contextlib.suppress(BlockingIOError):
            self._wake_receive.recv(4096)
        for _ in range(len(self._calls)):
            self._calls.popleft()()

    def _receive(self, reader: Carrier) -> None:
        for _ in range(MAX_RECEIVES):
            arrival = reader.receive()
            if arrival is None:
                return
            self._came += len(arrival.payloads)
            if reader.local:
                arrival.local = reader.local
            while arrival.count and is_stun(arrival.first_byte()):
                self._on_stun(arrival.first_datagram(), arrival.address)
                arrival = arrival.rest()
            if arrival.count:
                # A time from before the receive call would make round trips too short: on a busy host by as long as
                # the process waited for the processor in between, and the shortest counts for ten seconds.
                self._machine.datagram_received(arrival, clock.now())

    def close(self) -> None:
        self._wake_receive.close()
        self._wake_send.close()
