"""The hidden file in which a transfer lands, with its journal: opened, locked, believed, flushed, renamed into place.

.NAME.udpsend-part      the bytes, each where it belongs; locked (flock) by the one process that receives it
.NAME.udpsend-journal   which of them are on the disk (journal.py)
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable

from msgspec.structs import replace

from udpsend.errors import LocalFileError
from udpsend.files import disk
from udpsend.files.byte_space import EntrySet
from udpsend.files.entries import MODE_BITS, File
from udpsend.files.existing import Policy, free_name, give_name, refusal
from udpsend.files.journal import Journal
from udpsend.files.names import journal_name, partial_name, quote
from udpsend.files.opening import open_destination, open_locked, open_own_file

SIZE_LIMIT = 1 << 63


class Partial:
    """An open, locked partial of one file in one directory. Its methods raise OSError or LocalFileError."""

    placing = False  # it is one step

    def __init__(self, directory: str | os.PathLike[str], entry: File, identity: str, policy: Policy) -> None:
        """`identity` binds what may be resumed. Refuses what exists (but for the policy), what does not fit, and a
        partial that another process is receiving."""
        self.name = name = entry.path
        self.size = entry.size
        self.left_out = EntrySet(1)
        self._entry = entry
        self._hidden = partial_name(name)
        self._policy = policy
        self._directory = os.fspath(directory)
        self._names_synced = False
        with contextlib.ExitStack() as opened:
            self._where = open_destination(directory)
            opened.callback(os.close, self._where)
            self._check_destination()
            self._fd = open_locked(self._where, self._hidden, self.name, open_own_file)
            opened.callback(os.close, self._fd)
            self.journal = Journal(self._where, journal_name(name), identity, self.size)
            opened.callback(self.journal.close)
            self._check_present()
            received = bool(self.journal.there)
            try:
                if policy.delta and not received:
                    self._take_existing()
                self._check_space()
            except (LocalFileError, OSError):
                if not received:
                    self.discard()
                raise
            opened.pop_all()

    def _check_destination(self) -> None:
        """What is received may get another name; partial and journal keep theirs."""
        status = disk.status_of(self._where, self.name)
        if status is None:
            return
        if self._policy.rename:
            self.name = free_name(self._where, self.name)
        elif stat.S_ISDIR(status.st_mode) or not self._policy.overwrite:
            raise LocalFileError(refusal(self._entry, status, self._policy))

    def _check_present(self) -> None:
        """Believe the journal only with a partial that is long enough; without anything to believe, start empty."""
        there, size, journal = os.fstat(self._fd).st_size, self.size, self.journal
        if journal.stale:
            os.ftruncate(self._fd, min(there, size))
            journal.stale.subtract(there, SIZE_LIMIT)
        elif there > size or (journal.usable and journal.usable.last >= there):
            journal.reset()
        if not journal.usable and not journal.stale:
            os.ftruncate(self._fd, 0)

    def _take_existing(self) -> None:
        """Begin with what is to be replaced, if there is room for it: what is the same need not be sent."""
        try:
            fd = os.open(self.name, os.O_RDONLY | disk.FLAGS, dir_fd=self._where)
        except OSError:
            return
        copied = 0
        try:
            is_file = stat.S_ISREG(os.fstat(fd).st_mode)
            if is_file and (disk.has_room(self._fd, self.size) or disk.shares_blocks(fd, self._fd)):
                copied = disk.copy_content(fd, self._fd, self.size)
        except OSError:
            os.ftruncate(self._fd, 0)  # all of it is sent, then
        finally:
            os.close(fd)
        self.journal.set_stale([(0, copied)])

    def _check_space(self) -> None:
        """Nothing is allocated ahead: posix_fallocate took 0.1 s per GiB on tmpfs (warm) before the first byte, saved
        none in total, and where the file system cannot allocate it writes zeros."""
        if not disk.holds_size(self._fd, self.size):
            raise LocalFileError(
                f"{quote(self.name)} is larger than this file system allows a file to be: choose another directory."
            )
        disk.check_room(self._fd, self.size - self.journal.there.total, f" for {quote(self.name)}")

    def write(self, offset: int, view: memoryview) -> int:
        """Put `view`, or the first of it, at `offset`. Returns how many bytes."""
        return os.pwrite(self._fd, view, offset)

    def flush(self, ranges: list[tuple[int, int]], checked: Iterable[tuple[int, bytes]] = ()) -> None:
        """Bring to the disk what was written before this call, and then vouch for `ranges`, which was, and for blocks
        in them that were compared."""
        if os.fstat(self._fd).st_nlink == 0:
            raise LocalFileError(
                f"Somebody removed {quote(self._hidden)} while {quote(self.name)} was received: try again."
            )
        disk.sync_content(self._fd)
        self.journal.record(ranges, checked)
        if not self._names_synced:
            disk.sync_directory(self._where)
            self._names_synced = True

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with what was written at `offset`."""
        if disk.read_all(self._fd, view, offset) < len(view):
            raise LocalFileError(
                f"Somebody shortened {quote(self._hidden)} while {quote(self.name)} was received: try again."
            )

    def ends_with(self, size: int, mtime_ns: int) -> None:
        """Of what had no size when it began."""
        self.size = size
        self._entry = replace(self._entry, size=size, mtime_ns=mtime_ns)

    def place(self) -> str:
        """Give it its mode and time and, durably, its name, which is returned."""
        entry = self._entry
        # What its owner could not even read could not be resumed if the rename below fails.
        disk.set_mode(self._fd, (entry.mode & MODE_BITS & ~disk.current_umask()) | stat.S_IRUSR)
        disk.set_time(self._fd, entry.mtime_ns)
        os.fsync(self._fd)
        # What came in order was hashed in memory and never read back.
        if os.fstat(self._fd).st_size != entry.size:
            raise LocalFileError(f"Somebody shortened {quote(self._hidden)} while it was received: try again.")
        if not disk.is_same_file(self._where, self._hidden, self._fd):
            raise LocalFileError(f"Somebody replaced {quote(self._hidden)} while it was received: try again.")
        try:
            give_name(entry, self._policy, self._where, self._hidden, self._where, self.name)
        except PermissionError as error:
            raise disk.local_error(error, "write into the directory", self._directory) from error
        if not disk.is_same_file(self._where, self.name, self._fd):
            raise LocalFileError(f"Somebody replaced {quote(self.name)} while it was received: try again.")
        self.journal.remove()
        disk.sync_directory(self._where)
        return self.name

    def discard(self) -> None:
        """Remove both files; they stay open."""
        if disk.is_same_file(self._where, self._hidden, self._fd):
            os.unlink(self._hidden, dir_fd=self._where)
        self.journal.remove()

    def close(self) -> None:
        self.journal.close()
        disk.release(self._fd, self._where)
