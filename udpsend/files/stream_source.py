"""The sender's end of what has no size and comes once: standard input, or a text.

1. A thread reads into a ring of memory and hashes what it read.
2. `read` gives any range that is in the ring: what is lost is read again from there.
3. `release` says what the receiver has: only that makes room. When the ring is full nothing is read any more, and
   whoever writes into the pipe waits.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import threading
from collections.abc import Callable

from udpsend.errors import LocalFileError, TransferFailed
from udpsend.files.disk import BEGIN_ANEW, errors_told, local_error
from udpsend.files.hashing import POLL_INTERVAL
from udpsend.files.offers import Stream, Text
from udpsend.files.stream_digest import StreamDigest
from udpsend.wire.frames import DATA_HEADER_SIZE as HEADROOM

RING = 16 << 20  # bytes: 80 MB/s at a round trip of 200 ms
PIECE = 1 << 20  # bytes read at once
PIPE_SIZE = 1 << 20  # bytes; what Linux lets anybody have
STOP_TIMEOUT = 1.0  # seconds
SELECT_LIMIT = 1024  # FD_SETSIZE

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
            raise local_error(error, "read", "standard input", BEGIN_ANEW) from error

    return read_into


def check_readable(descriptor: int) -> None:
    """Raises LocalFileError."""
    with errors_told("read", "standard input"):
        _check_mode(descriptor, os.O_WRONLY)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise LocalFileError("Standard input is a directory: name it, in place of -.")


def check_writable(descriptor: int) -> None:
    """As `check_readable`: nobody need come for what cannot be."""
    with errors_told("write", "standard output"):
        _check_mode(descriptor, os.O_RDONLY)


def _check_mode(descriptor: int, unfit: int) -> None:
    try:
        mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
    except (OverflowError, ValueError) as error:  # no descriptor has such a number
        raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from error
    if mode == unfit:
        only = "writing" if unfit == os.O_WRONLY else "reading"
        raise OSError(errno.EBADF, f"it is open for {only} only")


def is_ready(descriptor: int, event: int) -> bool:
    """To be read from (POLLIN) or written to (POLLOUT), at once or soon. select, where it can: poll does not know
    every terminal of macOS."""
    if descriptor < SELECT_LIMIT:
        reading, writing = ([descriptor], []) if event == select.POLLIN else ([], [descriptor])
        return any(select.select(reading, writing, [], POLL_INTERVAL))
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(POLL_INTERVAL * 1000))


def memory_reader(content: bytes) -> Read:
    left = memoryview(content)

    def read_into(view: memoryview) -> int:
        nonlocal left
        count = min(len(view), len(left))
        view[:count] = left[:count]
        left = left[count:]
        return count

    return read_into


def enlarge_pipe(descriptor: int) -> None:
    """Fewer and larger pieces, where it is a pipe and the system lets us."""
    command = getattr(fcntl, "F_SETPIPE_SZ", None)
    if command is not None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, command, PIPE_SIZE)
