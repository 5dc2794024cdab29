"""The sender's end of what has no size and comes once: standard input, or a text.

1. A thread reads into a ring of memory and hashes what it read.
2. `read` gives any range that is in the ring: what is lost is read again from there.
3. `release` says what the receiver has: only that makes room. When the ring is full nothing is read any more, and
   whoever writes into the pipe waits.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

from udpsend.errors import TransferFailed
from udpsend.files.descriptors import STDIN, enlarge_pipe, is_ready
from udpsend.files.disk import BEGIN_ANEW, local_error
from udpsend.files.hashing import POLL_INTERVAL
from udpsend.files.offers import Stream, Text
from udpsend.files.stream_digest import StreamDigest
from udpsend.wire.frames import DATA_HEADER_SIZE as HEADROOM

RING = 16 << 20  # bytes: 80 MB/s at a round trip of 200 ms
PIECE = 1 << 20  # bytes read at once
STOP_TIMEOUT = 1.0  # seconds

Read = Callable[[memoryview], int | None]


class StreamSource:
    """`read_into(view)` returns how many bytes it gave, 0 at the end, None for 'nothing yet'; it raises LocalFileError.
    `read` and `release` are for one thread, `digest` for any."""

    def __init__(self, offer: Stream | Text, read_into: Read) -> None:
        self.offer = offer
        self.available = 0
        """Bytes that were read so far."""
        self._read_into = read_into
        self._ring = memoryview(bytearray(RING))
        self._floor = 0
        self._hash = StreamDigest()
        self._failure: Exception | None = None
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._stopping = False
        self._told = False
        self._view = memoryview(b"")
        self._on_ready: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="udpsend-read", daemon=True)

    def start(self, on_ready: Callable[[], None]) -> None:
        """Begin to read; `on_ready` is called from the thread when `take_available` had better be called."""
        self._on_ready = on_ready
        self._thread.start()

    def take_available(self) -> int:
        self._told = False
        return self.available

    def release(self, floor: int) -> None:
        """The receiver has what is below `floor`."""
        if floor > self._floor:
            self._floor = floor
            self._wake.set()

    def read(self, start: int, stop: int) -> memoryview:
        """Room for a record's header, then these bytes. Valid until the next call."""
        size = stop - start
        if len(self._view) < HEADROOM + size:
            self._view = memoryview(bytearray(HEADROOM + size))
        view, at = self._view[: HEADROOM + size], start % RING
        first = min(size, RING - at)
        view[HEADROOM : HEADROOM + first] = self._ring[at : at + first]
        view[HEADROOM + first :] = self._ring[: size - first]
        return view

    def digest(self) -> bytes:
        """Of all of it, as soon as it has ended. Raises LocalFileError, or TransferFailed when closed."""
        self._ended.wait()
        if self._failure is not None:
            raise self._failure
        if self._stopping:
            raise TransferFailed("The transfer was stopped.")
        return self._hash.digest()

    def close(self) -> None:
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT)
        self._ended.set()

    def _run(self) -> None:
        try:
            while not self._stopping and self._read_piece():
                pass
        except Exception as error:  # whoever waits for the digest raises it: a thread has nobody to raise to
            self._failure = error
        self._ended.set()

    def _read_piece(self) -> bool:
        room = RING - (self.available - self._floor)
        if not room:
            self._wake.wait(POLL_INTERVAL)
            self._wake.clear()
            return True
        at = self.available % RING
        view = self._ring[at : at + min(room, PIECE)]
        count = self._read_into(view)
        if count is None:
            return True
        self._hash.update(view[:count])
        self.available += count
        if count and not self._told:
            self._told = True
            self._on_ready()
        return count > 0


def descriptor_reader(descriptor: int) -> Read:
    """Reads from a pipe, a file or a terminal, and never waits for long: who stops need not wait for its writer."""
    enlarge_pipe(descriptor)

    def read_into(view: memoryview) -> int | None:
        try:
            if not is_ready(descriptor, select.POLLIN):
                return None
            return os.readv(descriptor, [view])
        except BlockingIOError:  # others read from it, too
            return None
        except OSError as error:
            raise local_error(error, "read", STDIN, BEGIN_ANEW) from error

    return read_into


def memory_reader(content: bytes) -> Read:
    left = memoryview(content)

    def read_into(view: memoryview) -> int:
        nonlocal left
        count = min(len(view), len(left))
        view[:count] = left[:count]
        left = left[count:]
        return count

    return read_into
