"""What the kernel cuts and joins, with vectors that are built once: sendmsg and recvmsg of glibc, by ctypes.

The calls of the socket module take the buffers of each of 88 pieces anew, and make objects of what they find: 2.3 µs of
25 for sending a train on loopback, and as much for receiving one (2026-11).
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Sequence
from socket import IPPROTO_UDP

from udpsend.net.libc import (
    CONTROL_SIZE,
    NAME_SIZE,
    Header,
    IoVec,
    Names,
    address_of,
    last_error,
    pack_name,
)
from udpsend.wire.datagram import HEADER_SIZE, MAX_DATAGRAMS, Address, Transmit

UDP_SEGMENT = 103  # linux/udp.h; the socket module has no name for it (Python 3.11)
_SEGMENT = struct.Struct("@NiiH")  # struct cmsghdr and its data
_DATA = struct.calcsize("@Nii")  # where the data of a control message begins
VECTOR_SIZE = ctypes.sizeof(IoVec)
MAX_JOINED = 65_535  # bytes that the kernel joins


class SendTrain:
    """Sends trains whose views are the same list as before, which a record of the usual size gives."""

    def __init__(self, fd: int, libc: ctypes.CDLL) -> None:
        self._fd, self._call = fd, libc.sendmsg
        self._vectors = (IoVec * (2 * MAX_DATAGRAMS))()
        self._first_vector = ctypes.addressof(self._vectors)
        self._name = memoryview(bytearray(NAME_SIZE))
        self._control = memoryview(bytearray(CONTROL_SIZE))
        self._header = Header(name=address_of(self._name), control=address_of(self._control))
        self._pointer = ctypes.byref(self._header)
        self._views: Sequence[memoryview | bytes] = ()
        self._segment_size = 0
        self._address: Address | None = None

    def is_ready(self, transmit: Transmit) -> bool:
        """Whether `send` can send it; if it comes a second time, it can."""
        if transmit.views is self._views and self._address is not None:
            if transmit.address != self._address or transmit.segment_size != self._segment_size:
                self._aim(transmit)
            return True
        if transmit.views is not self._views:
            self._views, self._address = transmit.views, None
        elif self._lay_out(transmit.views):
            self._aim(transmit)
            return True
        return False

    def send(self, views: slice) -> None:
        """These of them. Raises OSError, BlockingIOError among them."""
        self._header.vectors = self._first_vector + views.start * VECTOR_SIZE
        self._header.vector_count = min(views.stop, len(self._views)) - views.start
        if self._call(self._fd, self._pointer, 0) < 0:
            raise last_error()

    def _lay_out(self, views: Sequence[memoryview | bytes]) -> bool:
        if len(views) > len(self._vectors):
            return False
        for vector, view in zip(self._vectors, views, strict=False):
            if not isinstance(view, memoryview) or view.readonly:
                return False
            vector.base, vector.length = address_of(view), len(view)
        return True

    def _aim(self, transmit: Transmit) -> None:
        self._address, self._segment_size = transmit.address, transmit.segment_size
        name = pack_name(transmit.address)
        self._name[: len(name)] = name
        self._header.name_length = len(name)
        segment = _SEGMENT.pack(_SEGMENT.size, IPPROTO_UDP, UDP_SEGMENT, transmit.segment_size)
        self._control[: len(segment)] = segment
        self._header.control_length = _SEGMENT.size + -_SEGMENT.size % struct.calcsize("@N")


class ReceiveTrain:
    """Receives what the kernel has joined, scattered into slots for datagrams of the stride that is expected: the
    openings into `headers`, the rest of each into `payloads`, and what no slot is left for into `overflow`."""

    def __init__(self, libc: ctypes.CDLL, headers: memoryview, payloads: memoryview, overflow: memoryview) -> None:
        self._call = libc.recvmsg
        self._headers, self._payloads, self._overflow = headers, payloads, overflow
        self._vectors = (IoVec * (len(headers) // HEADER_SIZE * 2 + 1))()
        self._first_vector = ctypes.addressof(self._vectors)
        self._used = self._needed = 0  # vectors
        self._name = memoryview(bytearray(NAME_SIZE))
        self._control = memoryview(bytearray(CONTROL_SIZE))
        self._header = Header(name=address_of(self._name), control=address_of(self._control))
        self._pointer = ctypes.byref(self._header)
        self._sources = Names()

    def expect(self, stride: int, slots: int) -> None:
        """Scatter what comes next into so many slots for datagrams of this stride."""
        payload = stride - HEADER_SIZE
        headers, payloads = address_of(self._headers), address_of(self._payloads)
        for i in range(slots):
            opening, rest = self._vectors[2 * i], self._vectors[2 * i + 1]
            opening.base, opening.length = headers + i * HEADER_SIZE, HEADER_SIZE
            rest.base, rest.length = payloads + i * payload, payload
        last = self._vectors[2 * slots]
        last.base, last.length = address_of(self._overflow), len(self._overflow)
        self._used = 2 * slots + 1
        self._needed = -(-MAX_JOINED // stride) * 2

    def receive(self, fd: int, slot: int) -> tuple[int, int, Address]:
        """(bytes, stride, source); it lies from this slot on. Raises OSError, BlockingIOError among them."""
        header = self._header
        header.name_length, header.control_length = NAME_SIZE, CONTROL_SIZE
        header.vectors = self._first_vector + 2 * slot * VECTOR_SIZE
        header.vector_count = min(self._needed, self._used - 2 * slot)
        size: int = self._call(fd, self._pointer, 0)
        if size < 0:
            raise last_error()
        stride = int.from_bytes(self._control[_DATA : _DATA + 4], sys.byteorder) if header.control_length else size
        return size, stride, self._sources.address(bytes(self._name))
