"""Trains over any UDP socket: one call for each datagram. The twin of `linux.py`, method by method."""

from __future__ import annotations

import errno
import socket
from collections import Counter

from udpsend.net.waiting import wait_writable
from udpsend.wire.datagram import HEADER_SIZE, MAX_TRAIN_SIZE, Arrival, Transmit

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


class PortableSocket:
    """`counters` says what the network did not take, by errno name."""

    def __init__(self, sock: socket.socket, buffer_size: int = MAX_TRAIN_SIZE + 1) -> None:
        self.sock = sock
        self.local = 0
        """What `Arrival.local` says of datagrams from here."""
        self.family = sock.family
        self.counters: Counter[str] = Counter()
        self.is_trickling = False
        """Full datagrams come, and few at a time: whoever waits a moment takes many for the price of one."""
        self._buffer = memoryview(bytearray(buffer_size))
        sock.setblocking(False)

    @property
    def has_pending(self) -> bool:
        """There is more to receive, which no select would show."""
        return False

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, transmit: Transmit) -> None:
        """Blocks for SEND_WAIT at most. Datagrams that the network does not take are counted as lost."""
        for datagram in transmit.datagrams():
            self._send_message([datagram], [], transmit)

    def _send_message(
        self, views: list[bytes | memoryview], ancillary: list[tuple[int, int, bytes]], transmit: Transmit
    ) -> None:
        """One call of sendmsg. Raises OSError for what is in LOST only."""
        for _ in range(2):
            try:
                self.sock.sendmsg(views, ancillary, 0, transmit.address)
            except BlockingIOError:
                wait_writable(self.sock, SEND_WAIT)
            except OSError as error:
                self._lost(error)
                return
            else:
                return
        self.counters["EAGAIN"] += 1

    def receive(self) -> Arrival | None:
        """The next train, or None when there is nothing. Its views are valid until the next call."""
        try:
            size, address = self.sock.recvfrom_into(self._buffer)
        except BlockingIOError:
            return None
        except OSError as error:
            self._lost(error)
            return self.receive()
        headers, payload = self._buffer[: min(size, HEADER_SIZE)], self._buffer[HEADER_SIZE : max(size, HEADER_SIZE)]
        return Arrival(headers, payload, size, 1, (address[0], address[1]))

    def _lost(self, error: OSError) -> None:
        """Count what the network did not take; raise what is no such thing."""
        if error.errno not in LOST and not isinstance(error, socket.gaierror):
            raise error
        self.counters[errno.errorcode.get(error.errno or 0, "?")] += 1

    def close(self) -> None:
        self.sock.close()
