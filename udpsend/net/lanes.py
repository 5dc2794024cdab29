"""Several sockets for one port, where the system gives a single one little room. Linux only.

A stock host grants 212,992 bytes (net.core.rmem_max), which is room for six trains: then the two ends take turns. So
more sockets are bound to the port (SO_REUSEPORT) where much comes, and a filter in the kernel deals the peer's records
out to them: the two halves of each to another two. The reader knows in which lane the next datagram should be, and
peeks at it. If another one is there, it looks at all lanes, and takes the datagram that was sent first. What strangers
send goes to the first lane, and gets its turn.
1 GiB over loopback, stock buffers, whole commands, medians of 9: 4.26 s with one socket, 2.19 with 32 (2026-11).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import socket
import struct

from udpsend.net import libc
from udpsend.net.carrier import DESCRIPTORS_LEFT, ENOUGH
from udpsend.wire.datagram import HEADER_SIZE, MAX_SEGMENTS
from udpsend.wire.packets import COUNT, INDEX, NUMBER, OPENING_SIZE, fragment_untrusted, number_untrusted

MAX_LANES = 32
IP_MULTICAST_ALL = 49  # linux/in.h
SO_ATTACH_REUSEPORT_CBPF = 51  # asm-generic/socket.h; the socket module has names for neither (Python 3.11)

# linux/bpf_common.h: what is done with the accumulator A, the register X and a place in memory
_LOAD_WORD, _LOAD_BYTE, _STORE, _LOAD_X, _A_TO_X = 0x20, 0x30, 0x02, 0x61, 0x07
_ADD, _ADD_X, _MULTIPLY, _DIVIDE, _DIVIDE_X, _MODULO = 0x04, 0x0C, 0x24, 0x34, 0x3C, 0x94
_JUMP_EQUAL, _RETURN, _RETURN_A = 0x15, 0x06, 0x16
_INSTRUCTION = struct.Struct("@HBBI")  # with how many to jump over, if so and if not
_PROGRAM = struct.Struct("@HP")
_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT
_PLACE = slice(NUMBER, COUNT)  # in a header: number and index, which go up in the order of sending


class Lane:
    """The one socket: it gives in order what comes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sockets = [sock]
        self.most = MAX_SEGMENTS
        """How many datagrams to take at once, where they come singly: to the end of a record, if all go on like it."""
        self.receive_buffer = _granted(sock) // 2
        """As `Carrier.receive_buffer`; asked for in every turn of the loop."""

    def fileno(self) -> int:
        """Readable when there is something."""
        return self.sockets[0].fileno()

    def next(self) -> int | None:
        """The descriptor to read from."""
        return self.sockets[0].fileno()

    def took(self, header: memoryview) -> None:
        """The last datagram that was read opens with this header."""
        if len(header) < HEADER_SIZE:
            return
        index, count = fragment_untrusted(header)
        if index < count - 1:
            self.most = count - 1 - index
        else:
            self.most = count * max(MAX_SEGMENTS // count, 1) if count else MAX_SEGMENTS

    def close(self) -> None:
        """All but the first."""


class Lanes(Lane):
    """`sock`, which is bound, and others at its address: `count` in all, a power of two, for what begins with
    `opening`. Raises OSError."""

    def __init__(self, sock: socket.socket, count: int, opening: bytes) -> None:
        super().__init__(sock)
        self.receive_buffer = max(self.receive_buffer, min(self.receive_buffer * count, ENOUGH))
        self._opening = opening
        self._header = memoryview(bytearray(HEADER_SIZE))
        self._peeked = ctypes.c_void_p(libc.address_of(self._header))
        self._receive = libc.load().recv
        self._expected = b""
        """How the header begins that comes next."""
        self._has_taken_other = False
        """Something that is no record was taken: next time a record that waits has its turn."""
        with contextlib.ExitStack() as undone:
            self._poll = undone.enter_context(select.epoll(count))
            # Not before it has a port: of two programs of one user the kernel might give both the same.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            undone.callback(sock.setsockopt, socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
            while len(self.sockets) < count:
                self.sockets.append(undone.enter_context(_another(sock)))
            highest = self.sockets[-1].fileno()
            os.close(fcntl.fcntl(highest, fcntl.F_DUPFD_CLOEXEC, highest + DESCRIPTORS_LEFT))
            _deal(sock, count, opening)
            self._descriptors = [one.fileno() for one in self.sockets]
            for descriptor in self._descriptors:
                self._poll.register(descriptor, select.EPOLLIN)
            undone.pop_all()
        self._descriptor = self._descriptors[0]

    def fileno(self) -> int:
        return self._poll.fileno()

    def next(self) -> int | None:
        """The descriptor of the lane that has what was sent first of all that is there; None if nothing is."""
        if self._look(self._descriptor):
            if self._header[:COUNT] == self._expected:
                self.most = _in_a_row(*fragment_untrusted(self._header))
                return self._descriptor
            if not self._is_record():
                return self._take_other(self._descriptor)
        first, least, other = None, b"", None
        for descriptor, _ in self._poll.poll(0):
            if not self._look(descriptor) or not self._is_record():  # an error is there to be read, too
                other = descriptor
                continue
            place = bytes(self._header[_PLACE])
            if first is None or place < least:
                first, least = descriptor, place
                self.most = _in_a_row(*fragment_untrusted(self._header))
        if other is not None and (first is None or not self._has_taken_other):
            return self._take_other(other)
        self._has_taken_other = False
        return first

    def took(self, header: memoryview) -> None:
        if header[:OPENING_SIZE] != self._opening or len(header) < HEADER_SIZE:
            return
        number, (index, count) = number_untrusted(header), fragment_untrusted(header)
        index += 1
        if index >= count:
            number, index = number + 1, 0
        self._expected = b"%b%b%c" % (self._opening, number.to_bytes(7)[1:], index)
        self._descriptor = self._descriptors[_lane(number & 0xFF, index, count, len(self.sockets))]

    def _take_other(self, descriptor: int) -> int:
        """What is no record of the peer's: one, and then a record that waits."""
        self.most, self._has_taken_other = 1, True
        return descriptor

    def close(self) -> None:
        self._poll.close()
        for sock in self.sockets[1:]:
            sock.close()

    def _look(self, descriptor: int) -> bool:
        """Whether something is there; `_header` is its header, or none of a record."""
        size: int = self._receive(descriptor, self._peeked, HEADER_SIZE, _PEEK)
        if size < HEADER_SIZE:
            self._header[0] = 0
        return size >= 0

    def _is_record(self) -> bool:
        return self._header[:OPENING_SIZE] == self._opening


def _half(count: int) -> int:
    """Datagrams of a record that go to one lane: long ones would fill it where the kernel joins nothing."""
    return (count + 1) // 2 or 1


def _lane(number: int, index: int, count: int, lanes: int) -> int:
    """Of a datagram, `number` being the last byte of its record's: two lanes for each record, and where the first
    halves went in one round the second ones go in the next, since short records have none."""
    return (2 * number + number // (lanes // 2) + index // _half(count)) % lanes


def _in_a_row(index: int, count: int) -> int:
    """Datagrams of a record in one lane, from this one on."""
    return max(1, min(count, (index // _half(count) + 1) * _half(count)) - index)


def open_lanes(sock: socket.socket, opening: bytes) -> Lane:
    """As many as make up for what the kernel grants the socket, which is bound, for datagrams that begin like this."""
    count = min(MAX_LANES, 1 << ((2 * ENOUGH - 1) // _granted(sock)).bit_length())
    if count > 1:
        with contextlib.suppress(OSError):  # no more descriptors, or a system that has no such filters
            return Lanes(sock, count, opening)
    return Lane(sock)


def _granted(sock: socket.socket) -> int:
    """Bytes as the kernel counts them: twice what was asked for."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def _another(sock: socket.socket) -> socket.socket:
    other = socket.socket(sock.family, socket.SOCK_DGRAM)
    try:
        if sock.family == socket.AF_INET6:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _granted(sock) // 2)
        if sock.family == socket.AF_INET:  # what is for a group goes to all sockets of a port otherwise
            other.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
        other.setblocking(False)
        other.bind(sock.getsockname())
    except OSError:
        other.close()
        raise
    return other


def _deal(sock: socket.socket, count: int, opening: bytes) -> None:
    """Have the kernel choose as `_lane` does; what is no record of the peer's goes to the first."""
    steps = (
        (_LOAD_WORD, 0, 0, 0),
        (_JUMP_EQUAL, 0, 19, int.from_bytes(opening[:4])),
        (_LOAD_WORD, 0, 0, 4),
        (_JUMP_EQUAL, 0, 17, int.from_bytes(opening[4:])),
        (_LOAD_BYTE, 0, 0, COUNT),
        (_ADD, 0, 0, 1),
        (_DIVIDE, 0, 0, 2),
        (_A_TO_X, 0, 0, 0),
        (_LOAD_BYTE, 0, 0, INDEX),
        (_DIVIDE_X, 0, 0, 0),
        (_STORE, 0, 0, 0),
        (_LOAD_BYTE, 0, 0, INDEX - 1),  # the last byte of the number
        (_DIVIDE, 0, 0, count // 2),
        (_LOAD_X, 0, 0, 0),
        (_ADD_X, 0, 0, 0),
        (_A_TO_X, 0, 0, 0),
        (_LOAD_BYTE, 0, 0, INDEX - 1),
        (_MULTIPLY, 0, 0, 2),
        (_ADD_X, 0, 0, 0),
        (_MODULO, 0, 0, count),
        (_RETURN_A, 0, 0, 0),
        (_RETURN, 0, 0, 0),
    )
    code = b"".join(_INSTRUCTION.pack(*step) for step in steps)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _PROGRAM.pack(len(steps), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, program)
