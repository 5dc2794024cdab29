"""What the socket calls of glibc take, laid out for ctypes: vectors that are built once and used in every call."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from array import array

from udpsend.wire.datagram import Address

NAME_SIZE = 28  # sizeof(struct sockaddr_in6)
CONTROL_SIZE = 32  # one control message with an int


class IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Header(ctypes.Structure):
    """struct msghdr"""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Message(ctypes.Structure):
    """struct mmsghdr"""

    _fields_ = (("header", Header), ("length", ctypes.c_uint32))


def load() -> ctypes.CDLL:
    """The C library with the calls that are used. Raises OSError where it lacks them."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "recvmmsg") or not hasattr(libc, "sendmmsg"):
        raise OSError(errno.ENOSYS, "no recvmmsg")
    return libc


def last_error() -> OSError:
    """Of the call that has just failed, in this thread; the subclass that goes with its number."""
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))


def address_of(buffer: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def pack_name(address: Address) -> bytes:
    """struct sockaddr_in or sockaddr_in6"""
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    packed = socket.inet_pton(family, host)
    head = array("H", [family]).tobytes() + port.to_bytes(2)
    return head + bytes(4) + packed + bytes(4) if family == socket.AF_INET6 else head + packed + bytes(8)


class Names:
    """Sockaddrs as addresses. Mostly it is the one before it."""

    def __init__(self) -> None:
        self._known: tuple[bytes, Address] = (b"", ("", 0))

    def address(self, name: bytes) -> Address:
        if name != self._known[0]:
            self._known = (name, _unpack_name(name))
        return self._known[1]


def _unpack_name(name: bytes) -> Address:
    family = array("H", name[:2])[0]
    port = int.from_bytes(name[2:4])
    if family == socket.AF_INET6:
        return socket.inet_ntop(family, name[8:24]), port
    return socket.inet_ntop(socket.AF_INET, name[4:8]), port
