"""Waiting for sockets: select where it can, since it takes microseconds; poll for descriptors beyond its 1,024."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Sequence
from math import ceil
from typing import Protocol, TypeVar

from udpsend.net import clock

SPIN = 0.0003  # seconds
SELECT_LIMIT = 1024  # FD_SETSIZE


class HasFileno(Protocol):
    def fileno(self) -> int: ...


T = TypeVar("T", bound=HasFileno)


def wait_readable(sockets: Sequence[T], seconds: float) -> list[T]:
    """Those that have something to read, as soon as one has, or after `seconds`."""
    if all(sock.fileno() < SELECT_LIMIT for sock in sockets):
        return select.select(sockets, [], [], seconds)[0]
    by_number = {sock.fileno(): sock for sock in sockets}
    poll = select.poll()
    for number in by_number:
        poll.register(number, select.POLLIN)
    return [by_number[number] for number, _ in poll.poll(ceil(seconds * 1000))]


def wait_awake(sockets: Sequence[T], seconds: float) -> list[T]:
    """As `wait_readable`, but staying on the processor for the first moment, unless somebody else wants it. Two
    processes of one host that wake each other up all the time are put on one processor and take turns there."""
    until = clock.now() + min(SPIN, seconds)
    while not (ready := wait_readable(sockets, 0.0)) and clock.now() < until:
        _give_way()
    return ready if ready or seconds <= SPIN else wait_readable(sockets, seconds - SPIN)


_give_way: Callable[[], None] = getattr(os, "sched_yield", lambda: None)


def wait_writable(sock: HasFileno, seconds: float) -> None:
    """Until the socket takes more, or `seconds` have passed."""
    if sock.fileno() < SELECT_LIMIT:
        select.select([], [sock], [], seconds)
        return
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLOUT)
    poll.poll(ceil(seconds * 1000))
