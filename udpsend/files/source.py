"""The sender's end: files and directories as the byte space of a transfer.

1. `Source` takes the paths; `scan` goes through them and fixes what is offered (walk.py, manifest.py).
2. `select` leaves out what the receiver does not want; `start` has a thread read ahead what it lacks, and hash all of
   it (read_ahead.py).
3. `read` gives any range, as often as it is asked: what is lost is read again, nothing is kept.
4. Each file is compared with its entry when it is opened, and once more at the end if it was read in several pieces
   (`check_unchanged`); from then on with each piece that is read again. A file that changes while it is sent ends in an
   error here or in hashes that differ, never in a false 'verified'.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from udpsend.errors import BadPacket, LocalFileError
from udpsend.files.byte_space import ByteSpace, EntrySet
from udpsend.files.directories import Directories
from udpsend.files.disk import DIRECTORY_FLAGS, errors_told, local_error, read_all, release
from udpsend.files.entries import MAX_RANGES, File, Sparse
from udpsend.files.holes import data_ranges
from udpsend.files.ignore import Ignore
from udpsend.files.manifest import Manifest
from udpsend.files.names import quote
from udpsend.files.read_ahead import ReadAhead
from udpsend.files.walk import INODE_BITS, Walk, time_of, top_names, version_of
from udpsend.wire.ranges import RangeSet

STOP_TIMEOUT = 2.0  # seconds
MAX_PINNED = 16  # files named by the user that stay open: whoever moves or removes them meanwhile does no harm
KEPT = 8  # others that stay open
FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Source:
    """What is sent. `read` is for one thread; `scan` and `digest` for any."""

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        follow: bool = False,
        exclude: Sequence[str] = (),
        gitignore: bool = False,
    ) -> None:
        """Raises LocalFileError and UsageError for what can be said at once."""
        self.manifest = Manifest()
        ignore = Ignore(exclude, gitignore)
        self._tops = top_names(paths, ignore)
        self._flags = FLAGS if follow else FLAGS | os.O_NOFOLLOW
        self._pinned: dict[str, int] = {}
        self._walk = Walk(self._tops, self._pinned, follow, ignore)
        self._directories = Directories(-1, top=self._open_top, follow=follow)
        self._open: OrderedDict[int, int] = OrderedDict()
        self._in_pieces: set[int] = set()
        self._was_checked = False
        self._lock = threading.Lock()  # the thread reads ahead, the loop reads again what was lost
        self._ahead: ReadAhead | None = None
        self._space = ByteSpace(self.manifest)
        self._closed = False
        try:
            self._pin()
        except BaseException:
            self.close()
            raise

    def _pin(self) -> None:
        if len(self._tops) > MAX_PINNED:
            return
        for name, path in self._tops.items():
            with errors_told("read", path):
                # Look before opening: opening a device or a pipe may do something, or wait.
                if stat.S_ISREG(os.stat(path).st_mode):
                    self._pinned[name] = fd = os.open(path, FLAGS)
                    with contextlib.suppress(OSError, AttributeError):  # a hint; not every system takes it
                        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
                    if not os.fstat(fd).st_size and os.pread(fd, 1, 0):  # as those in /proc
                        raise LocalFileError(
                            f"{quote(path)} has content, but its length is said to be 0.\n"
                            "Send it through a pipe: udpsend send - < FILE"
                        )

    def scan(self) -> None:
        """Go through all of it: seconds for a million files. Raises LocalFileError."""
        walk = self._walk
        try:
            manifest = Manifest(walk.entries())
        except BadPacket as error:
            raise LocalFileError(f"This cannot be sent: {error}.") from error
        manifest.skipped = tuple(walk.skipped)
        manifest.skipped_count = walk.skipped_count
        self.manifest = manifest
        self._space = ByteSpace(manifest)

    def select(self, left_out: EntrySet) -> int:
        """The receiver does not want these. Returns how many bytes remain."""
        self._space = ByteSpace(self.manifest, left_out)
        return self._space.size

    def start(
        self, missing: Iterable[tuple[int, int]], on_ready: Callable[[], None], known: RangeSet | None = None
    ) -> None:
        """Begin to read the ranges that will be asked for first, ascending, and to hash everything but the blocks
        `known`. `on_ready` is called from the thread after a `read` that had to give None, and when there are hashes
        to take. Raises PeerError for blocks that there are not."""
        if self._ahead is None and not self._closed:
            self._ahead = ReadAhead(self._space.size, self._fill, missing, on_ready, self._release, known)

    def take_hashes(self, limit: int) -> list[tuple[int, bytes]]:
        """(index, BLAKE3) of at most `limit` blocks, each once."""
        return self._ahead.take_hashes(limit) if self._ahead is not None else []

    def hash_again(self, start: int, stop: int) -> None:
        """The blocks of this range are sent once more. Raises PeerError."""
        if self._ahead is not None and start < stop:
            block = self._ahead.blocks.block_size
            self._ahead.hash_again(start // block, (stop - 1) // block + 1)

    def read(self, start: int, stop: int) -> memoryview | None:
        """Room for a record's header (read_ahead.HEADROOM), then bytes from `start` of the transfer, at most up to
        `stop`; None if they are not in memory yet. Valid until the next call. Raises LocalFileError when a file has
        changed, or cannot be read."""
        return self._ahead.take(start, stop) if self._ahead is not None else None

    def digest(self) -> bytes:
        """BLAKE3 of the hashes of all blocks but the known, 32 bytes; waits for it. Raises LocalFileError, or
        TransferFailed when closed."""
        if self._ahead is None:
            raise ValueError("digest before start")
        return self._ahead.digest()

    def check_unchanged(self) -> None:
        """Raises LocalFileError if a file is not what it was when it was offered. Removing or renaming it meanwhile
        does no harm: what was sent is what was offered."""
        with self._lock:
            tops = enumerate(islice(self.manifest, MAX_PINNED))
            pinned = {number for number, entry in tops if entry.path in self._pinned}
            for number in sorted(self._in_pieces | pinned):
                self._check_end(number)
            self._was_checked = True

    def close(self) -> None:
        """Stop the thread and close the files. Waits at most two seconds; a read that hangs longer than that is left to
        its thread, which closes them when it returns."""
        if self._closed:
            return
        self._closed = True
        if self._ahead is None:
            self._release()
        else:
            self._ahead.stop(STOP_TIMEOUT)

    # reading

    def _fill(self, offset: int, view: memoryview) -> None:
        """Raises LocalFileError."""
        at = 0
        with self._lock:
            for number, start, length in self._space.pieces(offset, offset + len(view)):
                self._read_file(number, start, view[at : at + length])
                at += length

    def _read_file(self, number: int, offset: int, view: memoryview) -> None:
        entry = self.manifest.file(number)
        try:
            if len(view) == entry.size and number not in self._open and entry.path not in self._pinned:
                self._read_whole(entry, view)
            else:
                self._in_pieces.add(number)
                fd = self._file(number, entry)
                _read(fd, entry, offset, view)
                if self._was_checked and time_of(os.fstat(fd)) != entry.mtime_ns:
                    raise _changed(entry, "changed")
        except OSError as error:
            raise local_error(error, "read", entry.path) from error

    def _read_whole(self, entry: File, view: memoryview) -> None:
        fd = self._open_file(entry)
        try:
            self._compare(entry, os.fstat(fd))
            _read(fd, entry, 0, view)
        finally:
            os.close(fd)

    def _file(self, number: int, entry: File) -> int:
        """Raises OSError, LocalFileError."""
        fd = self._open.get(number)
        if fd is None:
            fd = self._pinned.get(entry.path)
        if fd is not None:
            return fd
        fd = self._open_file(entry)
        try:
            self._compare(entry, os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        self._open[number] = fd
        if len(self._open) > KEPT:
            os.close(self._open.popitem(last=False)[1])
        return fd

    def _open_file(self, entry: File) -> int:
        if "/" not in entry.path:
            return os.open(self._tops[entry.path], FLAGS)
        directory, name = self._directories.locate(entry.path)
        return os.open(name, self._flags, dir_fd=directory)

    def _open_top(self, name: str) -> int:
        return os.open(self._tops[name], DIRECTORY_FLAGS)

    def _compare(self, entry: File, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):  # of which a size says nothing
            raise _changed(entry, "was replaced by something that is no file")
        if status.st_size != entry.size:
            raise _changed(entry, "grew" if status.st_size > entry.size else "became shorter")
        # FAT, and much that is mounted by FUSE, forgets inodes that nobody has open, and numbers them anew.
        if time_of(status) != entry.mtime_ns or (version_of(status) ^ entry.version) >> INODE_BITS:
            raise _changed(entry, "changed")

    def _check_end(self, number: int) -> None:
        entry = self.manifest.file(number)
        pinned = self._pinned.get(entry.path)
        try:
            fd = pinned if pinned is not None else self._file(number, entry)
            now = os.fstat(fd)
            # Files of /proc and the like say that they are empty, and are not.
            if now.st_size > entry.size or os.pread(fd, 1, entry.size):
                raise _changed(entry, "grew")
            if now.st_size < entry.size:
                raise _changed(entry, "became shorter")
            if time_of(now) != entry.mtime_ns or (isinstance(entry, Sparse) and not _has_holes_of(fd, entry)):
                raise _changed(entry, "changed")
            if pinned is not None and self._was_replaced(entry.path, now):
                raise _changed(entry, "was replaced by another")
        except FileNotFoundError:
            return
        except OSError as error:
            raise local_error(error, "read", entry.path) from error

    def _was_replaced(self, name: str, status: os.stat_result) -> bool:
        try:
            return not os.path.samestat(os.stat(self._tops[name]), status)
        except OSError:
            return False

    def _release(self) -> None:
        self._directories.close()
        release(*self._open.values(), *self._pinned.values())
        self._open.clear()
        self._pinned.clear()


def _has_holes_of(fd: int, entry: Sparse) -> bool:
    """What is not sent is not hashed either: a change there shows in nothing else."""
    told = RangeSet(entry.data)
    data = data_ranges(fd, entry.size, MAX_RANGES)
    return data is not None and all(told.covers(*part) for part in data)


def _read(fd: int, entry: File, offset: int, view: memoryview) -> None:
    if read_all(fd, view, offset) < len(view):
        raise _changed(entry, "became shorter")


def _changed(entry: File, what: str) -> LocalFileError:
    return LocalFileError(f"{quote(entry.path)} {what} while it was sent: send it again when nothing writes to it.")
