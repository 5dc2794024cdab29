"""Trains over any UDP socket: one call for each datagram."""

from __future__ import annotations

import errno
import socket
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from udpsend.net.memory import untouched
from udpsend.net.waiting import wait_writable
from udpsend.wire.datagram import HEADER_SIZE, MAX_DATAGRAM_SIZE, MAX_DATAGRAMS, Arrival, Transmit
from udpsend.wire.packets import OPENING_SIZE, ends_record

# What the network may answer to a datagram: it is as good as lost, and loss is what the protocol is for.
LOST = {
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.EHOSTDOWN,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EADDRNOTAVAIL,
    errno.EPERM,
    errno.EACCES,
    errno.EMSGSIZE,
    errno.ENOBUFS,
    errno.EINVAL,
    errno.EIO,
    errno.ENOMEM,
    errno.ENODEV,
    errno.ENXIO,
    None,  # no errno at all: an address that cannot be packed
}
SEND_WAIT = 0.05  # seconds for the kernel to take a train; then it counts as lost
MIN_FULL = 1000  # what is smaller is no full datagram, but the end of a record, or a small one

_Source = tuple[str, int] | tuple[str, int, int, int]


class PortableSocket:
    """`counters` says what the network did not take, by errno name."""

    def __init__(self, sock: socket.socket, slot: int = MAX_DATAGRAM_SIZE + 1, slots: int = MAX_DATAGRAMS) -> None:
        """It holds `slots` datagrams of up to `slot` bytes; none where another class receives."""
        self.sock = sock
        self.local = 0
        """What `Arrival.local` says of datagrams from here."""
        self.family = sock.family
        self.counters: Counter[str] = Counter()
        self.is_trickling = False
        """Full datagrams come, and few at a time: whoever waits a moment takes many for the price of one."""
        memory = untouched(slot * slots or 1)
        self._slots = [memory[i * slot : (i + 1) * slot] for i in range(slots)]
        self._openings = [each[:HEADER_SIZE] for each in self._slots]
        self._rests: list[memoryview] = []
        self._stride = 0
        self._pending: deque[Arrival] = deque()
        sock.setblocking(False)

    @property
    def has_pending(self) -> bool:
        """There is more to receive, which no select would show."""
        return bool(self._pending)

    def fileno(self) -> int:
        return self.sock.fileno()

    # sending

    def send(self, transmit: Transmit) -> None:
        """Blocks for SEND_WAIT at most where the system does not take a datagram; then this one and those behind it
        count as lost."""
        data, segment, address = memoryview(b"".join(transmit.views)), transmit.segment_size, transmit.address
        for at in range(0, len(data), segment):
            if not self._attempt(self.sock.sendto, data[at : at + segment], address):
                return

    def _attempt(self, call: Callable[..., object], *arguments: Any) -> bool:
        """Twice where the system did not take it at first; whether it did. Raises OSError for what is not in LOST
        only."""
        for is_first in (True, False):
            try:
                call(*arguments)
            except BlockingIOError:
                if is_first:
                    wait_writable(self.sock, SEND_WAIT)
            except OSError as error:
                self._lost(error)
                return False
            else:
                return True
        self.counters["EAGAIN"] += 1
        return False

    # receiving

    def receive(self) -> Arrival | None:
        """The next train, or None when there is nothing. Its views are valid until the next call.

        A train ends with the last fragment of a record, with a datagram that is shorter than the others, and before one
        that is larger, from elsewhere, or of another kind or tag: what a stranger sends spoils no train of ours."""
        if self._pending:
            return self._pending.popleft()
        count = size = stride = 0
        opening = b""
        source: _Source = ("", 0)
        for slot in self._slots:
            try:
                came, address = self.sock.recvfrom_into(slot)
            except BlockingIOError:
                break
            except OSError as error:
                self._lost(error)
                return self.receive() if not count else self._train(count, stride, size, source)
            if not count:
                source, stride, opening = address, came, bytes(slot[:OPENING_SIZE])
            elif came > stride or address != source or slot[:OPENING_SIZE] != opening:
                self._pending.append(Arrival.of([bytes(slot[:came])], address[:2]))
                break
            size = came
            count += 1
            if size < stride or size < MIN_FULL or ends_record(slot):
                break
        return self._train(count, stride, size, source) if count else None

    def _train(self, count: int, stride: int, size: int, source: _Source) -> Arrival:
        """The datagrams in the first slots, of which the last has `size` bytes."""
        slot = self._slots[count - 1]
        opening, rest = slot[: min(size, HEADER_SIZE)], slot[HEADER_SIZE : max(size, HEADER_SIZE)]
        if count == 1:
            return Arrival(opening, rest, size, 1, source[:2])
        if stride != self._stride:
            self._stride = stride
            self._rests = [each[HEADER_SIZE:stride] for each in self._slots]
        headers = b"".join([*self._openings[: count - 1], opening])
        payloads = b"".join([*self._rests[: count - 1], rest])
        return Arrival(memoryview(headers), memoryview(payloads), stride, count, source[:2])

    def _lost(self, error: OSError) -> None:
        """Count what the network did not take; raise what is no such thing."""
        if error.errno not in LOST and not isinstance(error, socket.gaierror):
            raise error
        self.counters[errno.errorcode.get(error.errno or 0, "?")] += 1

    def close(self) -> None:
        self.sock.close()
