"""The hidden directory in which several files land, with its journal: opened, locked, written, flushed.

.NAME.udpsend-tree/     the files, each under its path; locked (flock) by the one process that receives into it
.NAME.udpsend-treelog   which bytes of the transfer are on the disk (journal.py)

NAME is the first name of the offer. Small files come whole: one open, one write, time, close.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections import OrderedDict
from collections.abc import Iterable

from udpsend.errors import LocalFileError
from udpsend.files import disk, room
from udpsend.files.byte_space import ByteSpace, EntrySet
from udpsend.files.directories import Directories
from udpsend.files.entries import MODE_BITS, Directory, Entry, File, Link, Sparse
from udpsend.files.existing import Policy, look
from udpsend.files.journal import Journal
from udpsend.files.manifest import Manifest
from udpsend.files.names import quote, tree_journal_name, tree_name
from udpsend.files.older import OldTree, disbelieve_short_files, load_offer, save_offer, take_existing
from udpsend.files.opening import open_destination, open_locked, open_own_directory, open_writable, set_directory_mode
from udpsend.files.placing import PLACING, check_complete, forget_begun, load_begun, move_into_place, save_begun

KEPT = 16  # open files
CREATE = os.O_CREAT | disk.FLAGS


class Staging:
    """An open, locked staging directory. Its methods raise OSError or LocalFileError. Has the methods of `Partial`."""

    def __init__(self, directory: str | os.PathLike[str], manifest: Manifest, policy: Policy) -> None:
        """Refuses what exists and the policy does not cover, what does not fit, and what another process receives."""
        self.name = manifest.name
        self._manifest = manifest
        self._policy = policy
        self._hidden = tree_name(manifest.name)
        self._umask = disk.current_umask()
        self._finished = EntrySet(len(manifest))
        self._made = EntrySet(len(manifest))
        """Not finished, but begun: if somebody removes one, that is an error, and no new file with holes."""
        self._open: OrderedDict[int, int] = OrderedDict()
        self._dirty = False  # something was written to files that are closed again
        with contextlib.ExitStack() as opened:
            self._where = open_destination(directory)
            opened.callback(os.close, self._where)
            self._root = open_locked(self._where, self._hidden, self.name, open_own_directory)
            opened.callback(os.close, self._root)
            set_directory_mode(self._root, 0o700)
            opened.callback(self._remove_if_empty)  # who is refused leaves nothing
            begun = load_begun(self._where, self._root, manifest)
            self.placing = begun is not None
            """An earlier attempt has verified it all, and moved some of it: nothing is to be received."""
            self.destination = begun or look(self._where, manifest, policy)
            self.left_out = self.destination.left_out
            self._space = ByteSpace(manifest, self.left_out)
            self.size = self._space.size
            self._directories = Directories(self._root, make=True)
            opened.callback(self._directories.close)
            identity = self.destination.bound_to(manifest)
            self.journal = Journal(self._where, tree_journal_name(self.name), identity, self.size)
            opened.callback(self.journal.close)
            self._dirty = bool(self.journal.usable)
            if not self.placing:
                self._make_ready()
            opened.pop_all()

    def _make_ready(self) -> None:
        forget_begun(self._root)
        self._made = disbelieve_short_files(self._root, self._manifest, self._space, self.journal)
        begins = not self.journal.usable and not (self.journal.stale and self._is_current())
        if begins:
            self._begin()
        received = bool(self.journal.there)
        try:
            room.check_twins(self._root, self._manifest)
            room.check_links(self._root, self._manifest)
            if begins and self._policy.delta:
                self._take_existing()
            needed = self.size - self.journal.there.total
            room.check_space(self._root, self._manifest, needed, bool(self.journal.usable))
        except (LocalFileError, OSError):
            if not received:
                self.discard()
            raise

    def _begin(self) -> None:
        """Of what another offer left, keep the files that are in this one: they may be the same, or nearly."""
        old = OldTree(self._root, self.journal.stale)
        kept = old.move_files(self._directories, self._manifest, self._space) if self.journal.stale else []
        old.remove()
        self.journal.set_stale(kept)
        save_offer(self._root, self._manifest, self.left_out)
        self._dirty = True

    def _take_existing(self) -> None:
        fits = disk.has_room(self._root, self.size - self.journal.there.total)
        kept = take_existing(self._where, self._directories, self._manifest, self._space, self.destination, fits)
        self.journal.set_stale([*self.journal.stale, *kept])

    def _is_current(self) -> bool:
        """What is stale is in files of this very offer, kept by an attempt that got no further."""
        return load_offer(self._root) == (self._manifest, self.left_out.pack())

    def _empty(self) -> None:
        """Nothing of what is there is believed."""
        self._directories.close()
        for name in sorted(disk.names_in(self._root), key=PLACING.__eq__):  # what says that all was moved comes last
            if stat.S_ISDIR(os.stat(name, dir_fd=self._root, follow_symlinks=False).st_mode):
                shutil.rmtree(name, dir_fd=self._root)
            else:
                os.unlink(name, dir_fd=self._root)

    # the transfer

    def write(self, offset: int, view: memoryview) -> int:
        """Put `view` where it belongs. Returns how many bytes: all."""
        at = 0
        for number, start, length in self._space.pieces(offset, offset + len(view)):
            part = view[at : at + length]
            at += length
            entry = self._manifest.file(number)
            if length == entry.size and number not in self._open and self._write_whole(entry, part):
                self._finished.add(number)
            else:
                disk.write_all(self._file(number, entry), part, start)
        return at

    def _write_whole(self, entry: File, view: memoryview) -> bool:
        """Each step counts for 100,000 of them: it has its mode from the beginning, the umask applied by the system;
        who creates a file may write to it. False if it is there, of whatever mode."""
        directory, name = self._directories.locate(entry.path)
        try:
            fd = os.open(name, CREATE | os.O_EXCL | os.O_WRONLY, entry.mode | stat.S_IRUSR, dir_fd=directory)
        except FileExistsError:
            return False
        try:
            if os.pwrite(fd, view, 0) != len(view):
                disk.write_all(fd, view, 0)
            disk.set_time(fd, entry.mtime_ns)
        finally:
            os.close(fd)
        self._dirty = True
        return True

    def _open_file(self, entry: File, flags: int) -> int:
        directory, name = self._directories.locate(entry.path)
        return open_writable(directory, name, flags)

    def _file(self, number: int, entry: File) -> int:
        fd = self._open.get(number)
        if fd is None:
            if number in self._finished:  # a part of it comes again
                self._finished.remove(number)
                self._made.add(number)
            flags = disk.FLAGS if number in self._made else CREATE
            fd = self._open[number] = self._open_file(entry, flags | os.O_RDWR)
            self._made.add(number)
            if len(self._open) > KEPT:
                os.close(self._open.popitem(last=False)[1])
                self._dirty = True
        return fd

    def _finish_file(self, fd: int, entry: File) -> None:
        if isinstance(entry, Sparse):
            os.ftruncate(fd, entry.size)  # a hole at its end
        disk.set_mode(fd, (entry.mode & MODE_BITS & ~self._umask) | stat.S_IRUSR)
        disk.set_time(fd, entry.mtime_ns)

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with what was written at `offset`."""
        at = 0
        for number, start, length in self._space.pieces(offset, offset + len(view)):
            fd = self._file(number, self._manifest.file(number))
            part = view[at : at + length]
            at += length
            count = disk.read_all(fd, part, start)
            part[count:] = bytes(length - count)  # somebody shortened it: its block differs, then, and comes again

    def flush(self, ranges: list[tuple[int, int]], checked: Iterable[tuple[int, bytes]] = ()) -> None:
        """Bring to the disk what was written before this call, and then vouch for `ranges`, which was, and for blocks
        in them that were compared."""
        if os.fstat(self._root).st_nlink == 0:
            raise LocalFileError(f"Somebody removed {quote(self._hidden)}, into which was received: try again.")
        if self._dirty:
            # One call for any number of files, where fsync would be one for each.
            disk.sync_file_system(self._root)
            self._dirty = False
        else:
            for fd in self._open.values():
                disk.sync_content(fd)
        self.journal.record(ranges, checked)

    # the end

    def place(self) -> str:
        """Complete it and move it, durably, to where it belongs. Returns the name of what came first."""
        if not self.placing:
            for number in range(len(self._manifest)):
                if number not in self._finished and number not in self.left_out:
                    self._complete(number, self._manifest[number])
            check_complete(self._root, self._manifest, self.destination)
        while self._open:
            os.close(self._open.popitem()[1])
        disk.sync_file_system(self._root)
        if not disk.is_same_file(self._where, self._hidden, self._root):
            raise LocalFileError(f"Somebody replaced {quote(self._hidden)} while it was written: try again.")
        if not self.placing:
            save_begun(self._root, self._manifest, self.destination)
        move_into_place(self._where, self._root, self._manifest, self.destination, self._policy, self.placing)
        self._directories.close()
        self.discard()
        disk.sync_directory(self._where)
        return self.destination.path_of(self.name.split("/")[0])

    def _complete(self, number: int, entry: Entry) -> None:
        """What has no bytes, and what came in pieces."""
        match entry:
            case Directory():
                self._directories.descriptor(entry.path)
            case Link():
                directory, name = self._directories.locate(entry.path)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=directory)
                os.symlink(entry.target, name, dir_fd=directory)
                disk.set_time(name, entry.mtime_ns, directory)
            case File():
                fd = self._open.get(number)
                if fd is None:
                    flags = disk.FLAGS if self._manifest.sizes[number] else CREATE
                    fd = self._open_file(entry, flags | os.O_RDWR)
                    try:
                        self._finish_file(fd, entry)
                    finally:
                        os.close(fd)
                else:
                    self._finish_file(fd, entry)

    def discard(self) -> None:
        """Remove it all; what is open stays so."""
        self._empty()
        self._remove_if_empty()
        self.journal.remove()

    def _remove_if_empty(self) -> None:
        with contextlib.suppress(OSError):
            os.rmdir(self._hidden, dir_fd=self._where)

    def close(self) -> None:
        disk.release(*self._open.values())
        self._directories.close()
        self.journal.close()
        disk.release(self._root, self._where)
