"""What carries trains: a socket, and what every kind of it does alike where the network takes something or does not."""

from __future__ import annotations

import errno
import socket
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from udpsend.net.waiting import wait_writable
from udpsend.wire.datagram import Arrival, Transmit

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
ENOUGH = 4 << 20  # bytes that may wait to be received: sixteen of the longest records; more makes nothing faster
DESCRIPTORS_LEFT = 16  # to others, by whoever opens many sockets: files and brokers need some
SEND_WAIT = 0.05  # seconds for the kernel to take a train; then it counts as lost
MIN_FULL = 1000  # what is smaller is no full datagram, but the end of a record, or a small one


class Carrier(ABC):
    """`counters` says what the network did not take, by errno name."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.local = 0
        """What `Arrival.local` says of datagrams from here."""
        self.family = sock.family
        self.counters: Counter[str] = Counter()
        self.is_trickling = False
        """Full datagrams come, and few at a time: whoever waits a moment takes many for the price of one."""
        self._pending: deque[Arrival] = deque()
        sock.setblocking(False)

    @abstractmethod
    def send(self, transmit: Transmit) -> None:
        """Blocks for SEND_WAIT at most where the system does not take a datagram; then this one and those behind it
        count as lost."""

    @abstractmethod
    def receive(self) -> Arrival | None:
        """The next train, or None when there is nothing. Its views are valid until the next call."""

    @property
    def has_pending(self) -> bool:
        """There is more to receive, which no select would show."""
        return bool(self._pending)

    @property
    def receive_buffer(self) -> int:
        """Bytes that may safely wait to be received: half of what the kernel grants, since it counts its own
        overhead."""
        return self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2

    def widen(self, opening: bytes) -> None:  # noqa: B027 - not everybody can
        """More room for what comes fast and opens with this, where the kernel grants little and there is a way."""

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.sock.close()

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

    def _lost(self, error: OSError) -> None:
        """Count what the network did not take; raise anything else."""
        if error.errno not in LOST and not isinstance(error, socket.gaierror):
            raise error
        self.counters[errno.errorcode.get(error.errno or 0, "?")] += 1
