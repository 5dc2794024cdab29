"""Trains over a Linux UDP socket with segmentation offload: one sendmsg and one recvmsg for up to 64 datagrams.

Sending: UDP_SEGMENT cuts the train in the kernel, or in the network card. That it will is known only after the first
real send: a device without checksum offload answers EIO, a datagram larger than the interface's MTU EINVAL or EMSGSIZE.
Then this train is sent again one datagram at a time, and so are those after it.

Receiving: UDP_GRO hands over what came together as one buffer. The buffer is scattered with the stride that the last
train had, so that headers and payloads come to lie apart without a copy. A train with another stride is sorted out by
copying, and its stride is the next guess.

Without offload, or when what comes was not joined, the same trains go through `batch.py`, many datagrams a call.
"""

from __future__ import annotations

import errno
import socket
import struct

from udpsend.net import batch, libc
from udpsend.net.memory import untouched
from udpsend.net.portable import MIN_FULL, SEND_WAIT, PortableSocket
from udpsend.net.train_calls import UDP_SEGMENT, ReceiveTrain, SendTrain
from udpsend.net.waiting import wait_writable
from udpsend.wire.datagram import HEADER_SIZE, MAX_SEGMENTS, MAX_TRAIN_SIZE, Address, Arrival, Transmit

# linux/udp.h and linux/in.h; the socket module has no names for them (Python 3.11)
UDP_GRO = 104
IP_MTU_DISCOVER = 10
IP_PMTUDISC_PROBE = 3  # set DF and ignore what the kernel believes of the path: the search is ours (RFC 8899)
IPV6_MTU_DISCOVER = 23

OFFLOAD_REFUSED = {errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.ENOPROTOOPT, errno.EOPNOTSUPP}

MIN_STRIDE = 256  # trains of smaller datagrams are rare and not worth a guess
SINGLES = 64  # datagrams of the expected size in a row that came alone: nothing joins them on this path
TRICKLE = 24  # datagrams in one call; fewer cost more to wake up for than to take
_SEGMENT = struct.Struct("=H")


class LinuxSocket(PortableSocket):
    """Raises OSError where the kernel is older than 5.0."""

    def __init__(self, sock: socket.socket, *, offload: bool = True) -> None:
        super().__init__(sock, slots=0)
        self.offload = offload
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, int(offload))
        self._headers = memoryview(bytearray(MAX_SEGMENTS * HEADER_SIZE))
        self._payloads = untouched(MAX_TRAIN_SIZE + MAX_SEGMENTS * HEADER_SIZE)
        self._overflow = untouched(MAX_TRAIN_SIZE + 1)
        calls, fd = libc.load(), sock.fileno()
        self._train_out = SendTrain(fd, calls)
        self._train_in = ReceiveTrain(fd, calls, self._headers, self._payloads, self._overflow)
        self._send_batch = batch.SendBatch(fd, calls)
        self._receive_batch = batch.ReceiveBatch(fd, calls, self._headers, self._payloads)
        self._singles = 0
        self._lone_size = 0
        self._guess(MAX_TRAIN_SIZE)

    # sending

    def send(self, transmit: Transmit) -> None:
        if transmit.size <= transmit.segment_size:
            self._attempt(self.sock.sendmsg, transmit.views, [], 0, transmit.address)
        elif self.offload:
            self._send_train(transmit)
        else:
            self._send_batched(transmit)

    def _send_train(self, transmit: Transmit) -> None:
        try:
            if self._train_out.is_ready(transmit):
                self._train_out.send()
            else:
                self.sock.sendmsg(transmit.views, _cut(transmit), 0, transmit.address)
        except BlockingIOError:
            self._attempt(self.sock.sendmsg, transmit.views, _cut(transmit), 0, transmit.address)
        except OSError as error:
            if error.errno not in OFFLOAD_REFUSED:
                self._lost(error)
            elif self._send_batched(transmit):  # else the datagrams are too large, with offload and without
                self.offload = False
                self.counters["offload refused"] += 1

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

    def _guess(self, stride: int) -> None:
        """Scatter the next train as one of this stride."""
        self._stride = stride
        self._singles = 0
        payload = stride - HEADER_SIZE
        count = min(MAX_SEGMENTS, -(-MAX_TRAIN_SIZE // stride))
        self._views = [
            view
            for i in range(count)
            for view in (
                self._headers[i * HEADER_SIZE : (i + 1) * HEADER_SIZE],
                self._payloads[i * payload : (i + 1) * payload],
            )
        ]
        self._views.append(self._overflow)  # for what is larger than was guessed
        self._train_in.expect(stride)
        self._receive_batch.expect(stride)

    def receive(self) -> Arrival | None:
        try:
            if self._pending:
                return self._pending.popleft()
            if self._singles >= SINGLES or not self.offload:
                return self._receive_batched()
            return self._receive_train()
        except BlockingIOError:
            return None
        except OSError as error:
            self._lost(error)
            return self.receive()

    def _receive_train(self) -> Arrival:
        size, stride, address = self._train_in.receive()
        if stride >= size and size <= self._stride:
            if self._comes_alone(size):
                arrival = self._sort(size, size, address)
                self._guess(size)
                self._singles = SINGLES
                return arrival
            headers, payload = self._headers[: min(size, HEADER_SIZE)], self._payloads[: max(size - HEADER_SIZE, 0)]
            return Arrival(headers, payload, size, 1, address)
        self._singles = 0
        if stride == self._stride:
            count = -(-size // stride)
            # The last may be shorter than a header: a stranger's, that was joined to ours.
            openings = (count - 1) * HEADER_SIZE + min(size - (count - 1) * stride, HEADER_SIZE)
            return Arrival(self._headers[:openings], self._payloads[: size - openings], stride, count, address)
        arrival = self._sort(size, min(stride, size), address)
        if MIN_STRIDE <= stride <= MAX_TRAIN_SIZE:
            self._guess(min(stride, size))
        return arrival

    def _comes_alone(self, size: int) -> bool:
        """Whether it is time to take many at once, as datagrams of this size: so many full ones came singly."""
        if size < MIN_FULL or size != self._lone_size:
            self._lone_size, self._singles = size, 0
            return False
        self._singles += 1
        return self._singles >= SINGLES and size != self._stride

    def _receive_batched(self) -> Arrival:
        arrivals = self._receive_batch.receive()
        stride = max(arrival.stride for arrival in arrivals)
        self.is_trickling = stride == self._stride and sum(arrival.count for arrival in arrivals) < TRICKLE
        if any(arrival.count > 1 and arrival.stride != self._stride for arrival in arrivals):
            self._singles = 0  # the kernel joins datagrams after all
        if stride != self._stride and MIN_FULL <= stride <= MAX_TRAIN_SIZE:
            self._guess(stride)
            self._singles = SINGLES
        self._pending.extend(arrivals[1:])
        return arrivals[0]

    def _sort(self, size: int, stride: int, address: Address) -> Arrival:
        """The train that came while another stride had been guessed."""
        data = memoryview(b"".join(self._views))[:size]
        return Arrival.of([data[i : i + stride] for i in range(0, size, stride)], address)


def _cut(transmit: Transmit) -> list[tuple[int, int, bytes]]:
    return [(socket.IPPROTO_UDP, UDP_SEGMENT, _SEGMENT.pack(transmit.segment_size))]
