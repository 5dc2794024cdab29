"""Trains over a Linux UDP socket with segmentation offload: one sendmsg and one recvmsg for up to 64 datagrams.

Sending: UDP_SEGMENT cuts the train in the kernel, or in the network card. That it will is known only after the first
real send: a device without checksum offload answers EIO, a datagram larger than the interface's MTU EINVAL or EMSGSIZE.
Then this train is sent again one datagram at a time, and so are those after it.

Receiving: UDP_GRO hands over what came together as one buffer. The buffer is scattered with the stride that the last
one had into `slots.py`; what has another stride is copied out of there, and its stride is the next guess.

Without offload, or when what comes was not joined, the same trains go through `batch.py`, many datagrams a call.
"""

from __future__ import annotations

import errno
import socket
import struct

from udpsend.net import batch, libc
from udpsend.net.carrier import MIN_FULL, SEND_WAIT, Carrier
from udpsend.net.lanes import Lane, open_lanes
from udpsend.net.slots import Slots
from udpsend.net.train_calls import UDP_SEGMENT, ReceiveTrain, SendTrain
from udpsend.net.waiting import wait_writable
from udpsend.wire.datagram import (
    HEADER_SIZE,
    MAX_DATAGRAM_SIZE,
    Address,
    Arrival,
    Transmit,
    datagrams_per_call,
)

# linux/udp.h and linux/in.h; the socket module has no names for them (Python 3.11)
UDP_GRO = 104
IP_MTU_DISCOVER = 10
IP_PMTUDISC_PROBE = 3
IPV6_MTU_DISCOVER = 23

OFFLOAD_REFUSED = {errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.ENOPROTOOPT, errno.EOPNOTSUPP}

MIN_STRIDE = 256  # trains of smaller datagrams are rare and not worth a guess
SINGLES = 64  # datagrams of the expected size in a row that came alone: nothing joins them on this path
MAX_LONE = 32_768  # bytes; what is larger is taken in calls of its own
TRICKLE = 24  # datagrams in one call; fewer cost more to wake up for than to take
_SEGMENT = struct.Struct("=H")


def forbid_fragments(sock: socket.socket) -> None:
    """Set DF, and ignore what the kernel believes of the path: the search is ours (RFC 8899)."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_PROBE)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)


class LinuxSocket(Carrier):
    """Raises OSError where the kernel is older than 5.0."""

    def __init__(self, sock: socket.socket, *, offload: bool = True) -> None:
        super().__init__(sock)
        self._lanes = Lane(sock)
        # What a sender on this host has joined would be cut after the choice of a lane, and not where lanes change.
        self._may_widen = self.offload = offload
        forbid_fragments(sock)
        sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, int(offload))
        self._slots = slots = Slots()
        calls, fd = libc.load(), sock.fileno()
        self._train_out = SendTrain(fd, calls)
        self._train_in = ReceiveTrain(calls, slots.headers, slots.payloads, slots.overflow)
        self._send_batch = batch.SendBatch(fd, calls)
        self._receive_batch = batch.ReceiveBatch(calls, slots.headers, slots.payloads)
        self._singles = 0
        self._lone_size = 0
        self._guess(MAX_DATAGRAM_SIZE)

    # sending

    def send(self, transmit: Transmit) -> None:
        if transmit.size <= transmit.segment_size:
            self._attempt(self.sock.sendmsg, transmit.views, [], 0, transmit.address)
        elif self.offload:
            self._send_train(transmit)
        else:
            self._send_batched(transmit)

    def _send_train(self, transmit: Transmit) -> None:
        is_ready = self._train_out.is_ready(transmit)
        step = 2 * datagrams_per_call(transmit.segment_size)
        for first in range(0, len(transmit.views), step):
            views = slice(first, first + step)
            try:
                if is_ready:
                    self._train_out.send(views)
                else:
                    self.sock.sendmsg(transmit.views[views], _cut(transmit), 0, transmit.address)
            except BlockingIOError:
                if not self._attempt(self.sock.sendmsg, transmit.views[views], _cut(transmit), 0, transmit.address):
                    return
            except OSError as error:
                if error.errno not in OFFLOAD_REFUSED:
                    self._lost(error)
                elif self._send_batched(transmit):  # else the datagrams are too large, with offload and without
                    self.offload = False
                    self.counters["offload refused"] += 1
                return

    def _send_batched(self, transmit: Transmit) -> bool:
        """Whether the network took all of it."""
        count = -(-transmit.size // transmit.segment_size)
        sent, waited = 0, False
        while sent < count:
            try:
                sent = self._send_batch.send(transmit, sent)
            except BlockingIOError:
                if waited:
                    self.counters["EAGAIN"] += 1
                    return False
                waited = True
                wait_writable(self.sock, SEND_WAIT)
            except OSError as error:
                self._lost(error)
                return False
            else:
                waited = False
        return True

    # receiving

    def widen(self, opening: bytes) -> None:
        if self._may_widen:
            self._may_widen = False
            self._lanes = open_lanes(self.sock, opening)
            for lane in self._lanes.sockets:
                lane.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)

    @property
    def receive_buffer(self) -> int:
        return self._lanes.receive_buffer

    def fileno(self) -> int:
        return self._lanes.fileno()

    def close(self) -> None:
        self._lanes.close()
        super().close()

    def _guess(self, stride: int) -> None:
        """Scatter what comes next as datagrams of this size. Nothing may be held."""
        self._singles = 0
        self._slots.expect(stride)
        self._train_in.expect(stride, self._slots.count)
        self._receive_batch.expect(stride, self._slots.count)

    def receive(self) -> Arrival | None:
        try:
            while not self._pending and (fd := self._lanes.next()) is not None:
                is_batched = (self._singles >= SINGLES or not self.offload) and self._lanes.most > 1
                self._pending.extend(self._receive_batched(fd) if is_batched else self._receive_train(fd))
            return self._pending.popleft() if self._pending else None
        except BlockingIOError:
            return None
        except OSError as error:
            self._lost(error)
            return self.receive()

    def _receive_train(self, fd: int) -> list[Arrival]:
        size, stride, address = self._train_in.receive(fd, self._slots.held)
        stride = min(stride, size)
        expected = self._slots.stride
        is_large = size > MAX_LONE and not self._slots.held
        if stride < size or size > expected or is_large:
            self._singles = 0
            if stride != expected:
                return self._of_another_stride(size, stride, address)
        elif self._comes_alone(size):
            arrivals = self._of_another_stride(size, size, address)
            self._singles = SINGLES
            return arrivals
        return self._keep(max(1, -(-size // expected)), size, address)

    def _of_another_stride(self, size: int, stride: int, address: Address) -> list[Arrival]:
        arrival = self._slots.copied(size, stride, address)
        self._lanes.took(arrival.headers[-HEADER_SIZE:])
        arrivals = self._slots.release(arrival)
        if MIN_STRIDE <= stride <= MAX_DATAGRAM_SIZE:
            self._guess(stride)
        return arrivals

    def _keep(self, count: int, size: int, address: Address) -> list[Arrival]:
        """As `Slots.keep`."""
        if size >= (count - 1) * self._slots.stride + HEADER_SIZE:
            self._lanes.took(self._slots.header(count - 1))
        return self._slots.keep(count, size, address)

    def _comes_alone(self, size: int) -> bool:
        """Whether it is time to take many at once, as datagrams of this size: so many full ones came singly."""
        if not MIN_FULL <= size <= MAX_LONE or size != self._lone_size:
            self._lone_size, self._singles = size, 0
            return False
        self._singles += 1
        return self._singles >= SINGLES and size != self._slots.stride

    def _receive_batched(self, fd: int) -> list[Arrival]:
        slots, most = self._slots, self._lanes.most
        arrivals = self._receive_batch.receive(fd, slots.held, most)
        stride = max(arrival.stride for arrival in arrivals)
        came = sum(arrival.count for arrival in arrivals)
        self.is_trickling = stride == slots.stride <= MAX_LONE and came < min(TRICKLE, most)
        if any(arrival.count > 1 and not slots.has(arrival) for arrival in arrivals):
            self._singles = 0  # the kernel joins datagrams after all
        first, last = arrivals[0], arrivals[-1]
        if len(arrivals) == 1 and slots.has(first):
            return self._keep(first.count, len(first.headers) + len(first.payloads), first.address)
        self._lanes.took(last.headers[-HEADER_SIZE:])
        arrivals[:1] = slots.release(first)
        if stride != slots.stride and MIN_FULL <= stride <= MAX_DATAGRAM_SIZE:
            self._guess(stride)
            self._singles = SINGLES if stride <= MAX_LONE else 0
        return arrivals


def _cut(transmit: Transmit) -> list[tuple[int, int, bytes]]:
    return [(socket.IPPROTO_UDP, UDP_SEGMENT, _SEGMENT.pack(transmit.segment_size))]
