"""Where what is written in order (in_order.py) goes: a descriptor, memory, or a file."""

from __future__ import annotations

import os
import secrets
import select
import stat
import time
from collections import deque
from pathlib import Path

from udpsend.errors import PeerError, TransferFailed
from udpsend.files.descriptors import STDOUT, enlarge_pipe, is_ready
from udpsend.files.disk import BEGIN_ANEW, errors_told
from udpsend.files.entries import File
from udpsend.files.existing import Policy
from udpsend.files.holes import Ranges
from udpsend.files.partial import Partial

PIPE_PIECE = 64 << 10  # bytes: a write waits until the reader has taken that much


class Outlet:
    """Those that hold nothing open and take no time have nothing to do but to write."""

    def write(self, view: memoryview) -> int:
        """Write the next bytes, maybe none; returns how many. Raises UdpsendError."""
        raise NotImplementedError

    def finish(self, size: int) -> Path | None:
        """All was written and verified. Returns where it is, if it has a name."""
        return None

    def discard(self) -> None:
        """It is not verified, and never will be."""

    def hurry(self) -> None:
        """Nobody waits for `finish` any more. From another thread, also before and after it."""

    def close(self) -> None:
        """The last call, from the thread that writes."""


class DescriptorOutlet(Outlet):
    """A pipe, mostly. It is not ours to close."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        with errors_told("write", STDOUT, BEGIN_ANEW):
            self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        enlarge_pipe(descriptor)

    def write(self, view: memoryview) -> int:
        with errors_told("write", STDOUT, BEGIN_ANEW):
            if self._is_file:  # takes all at once, and nobody need read it
                return os.write(self._descriptor, view)
            try:
                if not is_ready(self._descriptor, select.POLLOUT):
                    return 0
                return os.write(self._descriptor, view[:PIPE_PIECE])
            except BlockingIOError:  # somebody else made it so
                return 0


class WithHoles(Outlet):
    """Another outlet, which gets the whole of a sparse file, of which only the ranges `data` come."""

    def __init__(self, outlet: Outlet, size: int, data: Ranges) -> None:
        self._outlet = outlet
        self._zeros = memoryview(bytes(PIPE_PIECE))
        self._at = 0
        self._size = size
        self._data = deque(data)
        self._stopped = False

    def write(self, view: memoryview) -> int:
        start, stop = self._data[0]
        if self._at < start:
            self._at += self._outlet.write(self._zeros[: start - self._at])
            return 0
        count = self._outlet.write(view[: stop - self._at])
        self._at += count
        if self._at == stop:
            self._data.popleft()
        return count

    def finish(self, size: int) -> Path | None:
        while self._at < self._size and not self._stopped:
            self._at += self._outlet.write(self._zeros[: self._size - self._at])
        if self._at < self._size:
            raise TransferFailed("The transfer was stopped before all of it was written.")
        return self._outlet.finish(self._size)

    def discard(self) -> None:
        self._outlet.discard()

    def hurry(self) -> None:
        self._stopped = True

    def close(self) -> None:
        self._outlet.close()


class MemoryOutlet(Outlet):
    """`size` bytes, and no more."""

    def __init__(self, size: int) -> None:
        self.content = bytearray()
        self._size = size

    def write(self, view: memoryview) -> int:
        if len(self.content) + len(view) > self._size:
            raise PeerError("The other side sends a longer text than it offered.")
        self.content += view
        return len(view)

    def discard(self) -> None:
        self.content.clear()


class FileOutlet(Outlet):
    """A file in a directory, hidden until it is verified. Raises as files/partial.py."""

    def __init__(self, directory: Path, name: str, policy: Policy) -> None:
        self._directory = directory
        self._name = name
        self._at = 0
        entry = File(name, 0, 0o666, time.time_ns(), 0)
        # An identity that nobody else has: there is no second attempt at the same stream.
        with errors_told("write", name, BEGIN_ANEW):
            self._partial = Partial(directory, entry, secrets.token_hex(32), policy)

    def write(self, view: memoryview) -> int:
        with errors_told("write", self._name, BEGIN_ANEW):
            count = self._partial.write(self._at, view)
        self._at += count
        return count

    def finish(self, size: int) -> Path:
        with errors_told("finish", self._name, BEGIN_ANEW):
            self._partial.ends_with(size, time.time_ns())
            return self._directory / self._partial.place()

    def discard(self) -> None:
        with errors_told("remove", self._name, BEGIN_ANEW):
            self._partial.discard()

    def close(self) -> None:
        self._partial.close()
