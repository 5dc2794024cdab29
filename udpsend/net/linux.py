"""Trains over a Linux UDP socket with segmentation offload: one sendmsg and one recvmsg_into for up to 64 datagrams.

Sending: UDP_SEGMENT cuts the train in the kernel, or in the network card. That it will is known only after the first
real send: a device without checksum offload answers EIO, a datagram larger than the interface's MTU EINVAL or EMSGSIZE.
Then this train is sent again one datagram at a time, and so are those after it.

Receiving: UDP_GRO hands over what came together as one buffer. The buffer is scattered with the stride that the last
train had, so that headers and payloads come to lie apart without a copy. A train with another stride is sorted out by
copying, and its stride is the next guess.
"""

from __future__ import annotations

import errno
import socket
import struct

from udpsend.net.portable import LOST, PortableSocket
from udpsend.wire.datagram import HEADER_SIZE, MAX_SEGMENTS, MAX_TRAIN_SIZE, Arrival, Transmit

# linux/udp.h and linux/in.h; the socket module has no names for them (Python 3.11)
UDP_SEGMENT = 103
UDP_GRO = 104
IP_MTU_DISCOVER = 10
IP_PMTUDISC_PROBE = 3  # set DF and ignore what the kernel believes of the path: the search is ours (RFC 8899)
IPV6_MTU_DISCOVER = 23

OFFLOAD_REFUSED = {errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.ENOPROTOOPT, errno.EOPNOTSUPP}

MIN_STRIDE = 256  # trains of smaller datagrams are rare and not worth a guess
_ANCILLARY_SIZE = socket.CMSG_SPACE(4)
_SEGMENT = struct.Struct("=H")
_STRIDE = struct.Struct("=i")


class LinuxSocket(PortableSocket):
    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.offload = True
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)  # raises OSError before Linux 5.0
        self._headers = memoryview(bytearray(MAX_SEGMENTS * HEADER_SIZE))
        self._payloads = memoryview(bytearray(MAX_TRAIN_SIZE + MAX_SEGMENTS * HEADER_SIZE))
        self._overflow = memoryview(bytearray(MAX_TRAIN_SIZE + 1))
        self._guess(MAX_TRAIN_SIZE)

    def send(self, transmit: Transmit) -> None:
        if transmit.size <= transmit.segment_size:
            self._send_message(list(transmit.views), [], transmit)
        elif not self.offload:
            super().send(transmit)
        else:
            self._send_train(transmit)

    def _send_train(self, transmit: Transmit) -> None:
        segment = [(socket.IPPROTO_UDP, UDP_SEGMENT, _SEGMENT.pack(transmit.segment_size))]
        try:
            self.sock.sendmsg(transmit.views, segment, 0, transmit.address)
        except BlockingIOError:
            self._send_message(list(transmit.views), segment, transmit)
        except OSError as error:
            if error.errno in OFFLOAD_REFUSED:
                self.offload = False
                self.counters["offload refused"] += 1
                super().send(transmit)
            elif error.errno in LOST:
                self.counters[errno.errorcode.get(error.errno or 0, "?")] += 1
            else:
                raise

    def _guess(self, stride: int) -> None:
        """Scatter the next train as one of this stride."""
        self._stride = stride
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

    def receive(self) -> Arrival | None:
        try:
            size, ancillary, _, source = self.sock.recvmsg_into(self._views, _ANCILLARY_SIZE)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno not in LOST:
                raise
            self.counters[errno.errorcode.get(error.errno or 0, "?")] += 1
            return self.receive()
        stride = _STRIDE.unpack(ancillary[0][2])[0] if ancillary else size
        address = (source[0], source[1])
        if stride >= size and size <= self._stride:
            return Arrival(
                self._headers[: min(size, HEADER_SIZE)],
                self._payloads[: max(size - HEADER_SIZE, 0)],
                size,
                1,
                address,
            )
        if stride == self._stride:
            count = -(-size // stride)
            return Arrival(
                self._headers[: count * HEADER_SIZE],
                self._payloads[: size - count * HEADER_SIZE],
                stride,
                count,
                address,
            )
        arrival = self._sort(size, min(stride, size), address)
        if MIN_STRIDE <= stride <= MAX_TRAIN_SIZE:
            self._guess(min(stride, size))
        return arrival

    def _sort(self, size: int, stride: int, address: tuple[str, int]) -> Arrival:
        """The train that came while another stride had been guessed."""
        data = memoryview(b"".join(self._views))[:size]
        return Arrival.of([data[i : i + stride] for i in range(0, size, stride)], address)
