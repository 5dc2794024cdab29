"""The loop over real sockets on loopback: datagrams, timers, calls from other threads, and a whole transfer."""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from tests.transfers import Peer
from udpsend.config import Role
from udpsend.net import clock, udp
from udpsend.net.driver import Driver
from udpsend.net.train_calls import UDP_SEGMENT
from udpsend.net.udp import UdpEndpoint
from udpsend.wire.datagram import Address, Arrival, Transmit

WAIT = 20.0


class Recorder:
    """A machine that keeps what it gets and says what it is told to."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.expired: list[float] = []
        self.timer: float | None = None
        self.outbox: list[Transmit] = []

    def datagram_received(self, arrival: Arrival, now: float) -> None:
        self.received += arrival.datagrams()

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        outbox, self.outbox = self.outbox, []
        return outbox

    def next_timer(self) -> float | None:
        return self.timer

    def timer_expired(self, now: float) -> None:
        self.expired.append(now)
        self.timer = None


class Loop:
    """A driver in a thread of its own. `wait` lets the loop look at a condition after each turn."""

    def __init__(self, machine: Any, offload: bool = True) -> None:
        self.endpoint = UdpEndpoint("127.0.0.1", offload=offload)
        self.machine = machine
        self.stun: list[bytes] = []
        self.turns = 0
        self.failure: Exception | None = None
        self._conditions: list[tuple[Callable[[], Any], threading.Event]] = []
        self.once_sent: list[Callable[[], None]] = []
        self.driver = Driver(
            self.endpoint, machine, lambda datagram, _: self.stun.append(datagram), self._turn, self._sent
        )
        self.thread = threading.Thread(target=self._run)

    @property
    def address(self) -> Address:
        return "127.0.0.1", self.endpoint.ports[4]

    def _run(self) -> None:
        try:
            self.driver.run()
        except ValueError as error:
            self.failure = error

    def _turn(self, now: float) -> None:
        self.turns += 1
        for condition, event in self._conditions:
            if condition():
                event.set()

    def _sent(self, now: float) -> None:
        while self.once_sent:
            self.once_sent.pop()()

    def wait(self, condition: Callable[[], Any]) -> None:
        event = threading.Event()
        self.driver.call_soon(lambda: self._conditions.append((condition, event)))
        assert event.wait(WAIT), "it never came to be"

    def close(self) -> None:
        if self.thread.is_alive():
            self.driver.call_soon(self.driver.stop)
            self.thread.join(WAIT)
            assert not self.thread.is_alive()
        self.driver.close()
        self.endpoint.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop(Recorder())
    made.thread.start()
    yield made
    made.close()


@pytest.fixture
def client() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(WAIT)
        yield sock


def test_datagrams_have_left_before_others_are_told_of_them(loop: Loop, client: socket.socket) -> None:
    client.setblocking(False)
    arrived: list[bytes] = []

    def look() -> None:
        with contextlib.suppress(BlockingIOError):
            arrived.append(client.recv(100))
        arrived.append(b"told")

    def open_and_tell() -> None:
        loop.machine.outbox.append(Transmit([b"opener"], 6, 6, client.getsockname()))
        loop.once_sent.append(look)

    loop.driver.call_soon(open_and_tell)
    loop.wait(lambda: b"told" in arrived)
    assert arrived == [b"opener", b"told"]


@pytest.mark.skipif(sys.platform != "linux", reason="offload of Linux")
def test_stun_that_came_joined_to_others_takes_none_of_them_along(loop: Loop, client: socket.socket) -> None:
    train = [opening.ljust(1200, b".") for opening in (b"\x01\x01 stun", b"\xe0 one", b"\xe0 two", b"\xe0 three")]
    client.sendmsg([b"".join(train)], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", 1200))], 0, loop.address)
    loop.wait(lambda: len(loop.machine.received) >= 3)
    assert loop.machine.received == train[1:]
    assert loop.stun == train[:1]


def test_datagrams_go_to_the_machine_and_stun_elsewhere(loop: Loop, client: socket.socket) -> None:
    for datagram in (b"\xe0 record", b"\x01\x01 stun", b"\xe1 probe", b"", b"\x40 whatever"):
        client.sendto(datagram, loop.address)
    loop.wait(lambda: len(loop.machine.received) >= 4)
    assert loop.machine.received == [b"\xe0 record", b"\xe1 probe", b"", b"\x40 whatever"]
    assert loop.stun == [b"\x01\x01 stun"]


def test_what_the_machine_says_leaves(loop: Loop, client: socket.socket) -> None:
    def say() -> None:
        loop.machine.outbox.append(Transmit([b"a" * 20, b"b" * 20, b"c"], 20, 41, client.getsockname()))

    loop.driver.call_soon(say)
    assert [client.recv(100) for _ in range(3)] == [b"a" * 20, b"b" * 20, b"c"]


def test_timers(loop: Loop) -> None:
    due = clock.now() + 0.05
    loop.driver.call_soon(lambda: setattr(loop.machine, "timer", due))
    loop.wait(lambda: loop.machine.expired)
    assert loop.machine.expired[0] >= due
    assert len(loop.machine.expired) == 1
    turns = loop.turns
    loop.driver.call_soon(lambda: setattr(loop.machine, "timer", 0.0))
    loop.wait(lambda: len(loop.machine.expired) == 2)
    assert loop.turns - turns < 10


def test_calls_from_many_threads_are_made_in_the_loop(loop: Loop) -> None:
    made: list[tuple[int, int]] = []
    where: set[int] = set()

    def call(thread: int, number: int) -> None:
        made.append((thread, number))
        where.add(threading.get_ident())

    def hand_in(thread: int) -> None:
        for number in range(1000):
            loop.driver.call_soon(lambda number=number: call(thread, number))  # type: ignore[misc]

    threads = [threading.Thread(target=hand_in, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    loop.wait(lambda: len(made) == 8000)
    assert where == {loop.thread.ident}
    for thread_number in range(8):
        assert [n for thread, n in made if thread == thread_number] == list(range(1000)), "in order"


def test_a_call_that_hands_in_another(loop: Loop) -> None:
    done: list[int] = []
    loop.driver.call_soon(lambda: loop.driver.call_soon(lambda: done.append(1)))
    loop.wait(lambda: done)


def test_calls_that_never_end_stop_nothing_else(loop: Loop) -> None:
    """As many as are made come anew: a flood of messages is no reason to forget timers, datagrams and Ctrl-C."""
    ended = threading.Event()

    def again() -> None:
        if not ended.is_set():
            loop.driver.call_soon(again)

    loop.driver.call_soon(again)
    try:
        turns = loop.turns
        loop.wait(lambda: loop.turns > turns + 10)
    finally:
        ended.set()


def test_an_idle_loop_sleeps(loop: Loop) -> None:
    loop.wait(lambda: True)
    turns = loop.turns
    threading.Event().wait(0.3)
    assert loop.turns - turns <= 3


def test_errors_of_a_call_come_out_of_run(loop: Loop) -> None:
    def bug() -> None:
        raise ValueError("a bug")

    loop.driver.call_soon(bug)
    loop.thread.join(WAIT)
    assert str(loop.failure) == "a bug"


def test_calls_after_the_end_are_ignored() -> None:
    loop = Loop(Recorder())
    loop.close()
    loop.driver.call_soon(lambda: None)


def test_what_came_in_one_batch_does_not_wait_for_the_next(client: socket.socket) -> None:
    """More than are taken in one turn, after which the socket is empty."""
    loop = Loop(Recorder(), offload=False)
    loop.thread.start()
    try:
        client.sendto(bytes([0xE0]) * 1472, loop.address)  # what the socket expects from now on
        loop.wait(lambda: loop.machine.received)
        held, let_go, all_here = threading.Event(), threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            let_go.wait(WAIT)

        loop.driver.call_soon(hold)
        assert held.wait(WAIT)
        count = 45  # of this size go into one batch
        for i in range(count):
            client.sendto(bytes([0xE0]) * (20 + i), loop.address)
        loop._conditions.append((lambda: len(loop.machine.received) == 1 + count, all_here))
        let_go.set()
        assert all_here.wait(WAIT)
    finally:
        loop.close()


# a whole transfer


class RealTime:
    """What a Peer asks of a network."""

    @property
    def now(self) -> float:
        return clock.now()

    def random_bytes(self, _: str) -> Callable[[int], bytes]:
        return secrets.token_bytes


class Running(Loop):
    """A Peer, driven; `over` is set when it is closed."""

    def __init__(self, offload: bool) -> None:
        super().__init__(None, offload)
        self.over = threading.Event()

    def start(self, role: Role, other: Address, content: bytes, max_datagram_size: int) -> None:
        self.machine = peer = Peer(role, other, RealTime(), content, max_datagram_size=max_datagram_size)  # type: ignore[arg-type]
        self.driver._machine = peer
        self.driver.call_soon(lambda: None)  # there is something to send from the first turn on
        self.thread.start()

    def _turn(self, now: float) -> None:
        connection = self.machine.connection
        opening = connection.opening if self.driver.comes_fast else None
        connection.receive_buffer = self.endpoint.room(connection.address, opening)
        while self.machine.next_event() is not None:
            pass
        if self.machine.closed:
            self.over.set()
            self.driver.stop()


@pytest.mark.parametrize("receiver_offload", [True, False])
@pytest.mark.parametrize("sender_offload", [True, False])
@pytest.mark.parametrize("max_datagram_size", [1452, 65_507])
@pytest.mark.parametrize("buffer", [8 << 20, 212_992], ids=["large buffers", "those of a stock host"])
def test_a_transfer(
    sender_offload: bool,
    receiver_offload: bool,
    max_datagram_size: int,
    buffer: int,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(udp, "BUFFER_SIZE", buffer)
    content = Random(seed).randbytes(8_000_000)
    sender, receiver = Running(sender_offload), Running(receiver_offload)
    try:
        receiver.start(Role.RECEIVER, sender.address, content, max_datagram_size)
        sender.start(Role.SENDER, receiver.address, content, max_datagram_size)
        for side in (sender, receiver):
            assert side.over.wait(WAIT), side.machine.connection.counters()
            assert side.machine.closed.error is None
        assert receiver.machine.file.content == content
    finally:
        sender.close()
        receiver.close()
