"""The sender's end: one regular file as the byte space of a transfer.

1. `open_source` opens the file and fixes what is offered: name, size, mode, time.
2. `start` has a thread read ahead what the receiver lacks, and hash all of it (read_ahead.py).
3. `read` gives any range of it, as often as it is asked: what is lost is read again, nothing is kept.
4. `check_unchanged` tells whether the file is still the one that was offered. A file that changes while it is sent ends
   in an error here or in hashes that differ, never in a false 'verified'.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable

from udpsend.errors import LocalFileError
from udpsend.files.disk import local_error
from udpsend.files.manifest import MODE_BITS, Entry, Manifest
from udpsend.files.names import check_own_name, quote
from udpsend.files.read_ahead import ReadAhead

STOP_TIMEOUT = 2.0  # seconds


def open_source(path: str | os.PathLike[str]) -> Source:
    """Open a file to be sent. Raises LocalFileError: not there, not readable, not a regular file, a name that no
    receiver would take."""
    path = os.fspath(path)
    name = os.path.basename(path.rstrip("/")) or path
    try:
        # Look before opening: opening a device or a pipe may do something, or wait.
        _check_kind(os.stat(path), name)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise local_error(error, "read", path) from error
    except ValueError as error:
        raise LocalFileError(f"Cannot read {quote(path)}: there is no such file.") from error
    try:
        status = os.fstat(fd)
        _check_kind(status, name)
        check_own_name(name)
        with contextlib.suppress(OSError):  # a hint; not every file system takes it
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    except BaseException:
        os.close(fd)
        raise
    return Source(path, name, fd, status)


def _check_kind(status: os.stat_result, name: str) -> None:
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise LocalFileError(
            f"{quote(name)} is a directory, and this version sends one file at a time: pack it with tar or zip first."
        )
    raise LocalFileError(f"{quote(name)} is a device, a pipe or a socket: only regular files can be sent.")


class Source:
    """An open file to be sent. `read` is for one thread; `digest` for any."""

    def __init__(self, path: str, name: str, fd: int, status: os.stat_result) -> None:
        entry = Entry(name, status.st_size, stat.S_IMODE(status.st_mode) & MODE_BITS, status.st_mtime_ns)
        self.manifest = Manifest((entry,))
        self._path = path
        self._name = name
        self._fd = fd
        self._status = status
        self._size = status.st_size
        self._ahead: ReadAhead | None = None
        self._closed = False

    def start(self, missing: Iterable[tuple[int, int]], on_ready: Callable[[], None]) -> None:
        """Begin to read the ranges that will be asked for first, ascending, and to hash everything. `on_ready` is
        called from the thread after a `read` that had to give None."""
        if self._ahead is None and not self._closed:
            self._ahead = ReadAhead(self._size, self._fill, missing, on_ready, self._release)

    def read(self, start: int, stop: int) -> memoryview | None:
        """Room for a record's header (read_ahead.HEADROOM), then bytes from `start` of the transfer, at most up to
        `stop`; None if they are not in memory yet. Valid until the next call. Raises LocalFileError when the file has
        become shorter, or cannot be read."""
        return self._ahead.take(start, stop) if self._ahead is not None else None

    def digest(self) -> bytes:
        """BLAKE3 of the content, 32 bytes; waits for it. Raises LocalFileError, or TransferFailed when closed."""
        if self._ahead is None:
            raise ValueError("digest before start")
        return self._ahead.digest()

    def check_unchanged(self) -> None:
        """Raises LocalFileError if the file is not what it was when it was offered. Removing or renaming it meanwhile
        does no harm: what was sent is what was offered."""
        try:
            now = os.fstat(self._fd)
            # Files of /proc and the like say that they are empty, and are not.
            grown = now.st_size > self._size or bool(os.pread(self._fd, 1, self._size))
        except OSError as error:
            raise local_error(error, "read", self._name) from error
        if grown:
            what = "grew"
        elif now.st_size < self._size:
            what = "became shorter"
        elif now.st_mtime_ns != self._status.st_mtime_ns:
            what = "changed"
        elif self._was_replaced():
            what = "was replaced by another"
        else:
            return
        raise LocalFileError(f"{quote(self._name)} {what} while it was sent: send it again when nothing writes to it.")

    def _was_replaced(self) -> bool:
        try:
            there = os.stat(self._path)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) != (self._status.st_dev, self._status.st_ino)

    def close(self) -> None:
        """Stop the thread and close the file. Waits at most two seconds; a read that hangs longer than that is left to
        its thread, which closes the file when it returns."""
        if self._closed:
            return
        self._closed = True
        if self._ahead is None:
            self._release()
        else:
            self._ahead.stop(STOP_TIMEOUT)

    def _fill(self, offset: int, view: memoryview) -> None:
        """Raises LocalFileError."""
        while len(view):
            try:
                count = os.preadv(self._fd, (view,), offset)
            except OSError as error:
                raise local_error(error, "read", self._name) from error
            if not count:
                raise LocalFileError(
                    f"{quote(self._name)} became shorter while it was sent: send it again when nothing writes to it."
                )
            offset += count
            view = view[count:]

    def _release(self) -> None:
        os.close(self._fd)
