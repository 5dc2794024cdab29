"""What is there already of something like what is received: files of an earlier offer, and files to be replaced.

Their blocks are compared with the sender's before anything is sent (write_behind.py), so that only what differs is.

The staging directory keeps the offer that it was made for beside its files, under a name that no offer has:
.udpsend-offer     u32 length of the set of entries left out | that set | the manifest's pages (manifest.py)
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import struct
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

from udpsend.errors import BadPacket
from udpsend.files import disk
from udpsend.files.byte_space import ByteSpace, EntrySet, unpack_set_untrusted
from udpsend.files.directories import Directories
from udpsend.files.existing import Destination
from udpsend.files.hashing import hash_block_size
from udpsend.files.journal import Journal
from udpsend.files.manifest import MAX_PACKED, Manifest
from udpsend.wire.ranges import RangeSet

OFFER = ".udpsend-offer"
OLD = ".udpsend-old"

_LENGTH = struct.Struct("!I")


def save_offer(root: int, manifest: Manifest, left_out: EntrySet) -> None:
    """Raises OSError."""
    packed = left_out.pack()
    fd = os.open(OFFER, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | disk.FLAGS, 0o600, dir_fd=root)
    with open(fd, "wb") as file:
        file.write(_LENGTH.pack(len(packed)) + packed + manifest.pack())


def load_offer(root: int) -> tuple[Manifest, bytes] | None:
    """The manifest, and the packed set of what is left out; None if there is none that can be believed."""
    try:
        with open(os.open(OFFER, os.O_RDONLY | disk.FLAGS, dir_fd=root), "rb") as file:
            data = file.read(2 * MAX_PACKED)
        (length,) = _LENGTH.unpack_from(data)
        return Manifest.unpack_untrusted(memoryview(data)[_LENGTH.size + length :]), data[_LENGTH.size :][:length]
    except (OSError, BadPacket, struct.error):
        return None


class OldTree:
    """What a staging directory holds of another offer; `present` are the ranges of that one that are there."""

    def __init__(self, root: int, present: RangeSet) -> None:
        """Moves it all aside. Raises OSError."""
        self._root = root
        self._present = present
        self._offer = load_offer(root) if present else None
        self.remove()
        names = disk.names_in(root)
        if names:
            os.mkdir(OLD, 0o700, dir_fd=root)
            aside = os.open(OLD, disk.DIRECTORY_FLAGS | os.O_NOFOLLOW, dir_fd=root)
            try:
                for name in names:
                    os.rename(name, name, src_dir_fd=root, dst_dir_fd=aside)
            finally:
                os.close(aside)

    def remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(OLD, dir_fd=self._root)

    def move_files(self, directories: Directories, manifest: Manifest, space: ByteSpace) -> list[tuple[int, int]]:
        """Files that are in the new offer, too, go to their places below `directories`. Returns the ranges of the new
        byte space that they hold. Raises OSError."""
        if self._offer is None:
            return []
        old_manifest, packed = self._offer
        try:
            left_out = unpack_set_untrusted(packed, len(old_manifest))
        except BadPacket:
            return []
        old_space = ByteSpace(old_manifest, left_out).ranges()
        # Not those with holes, in which something may be: they come again, but for what the destination has.
        places = {old_manifest[n].path: start for n, _, start, _ in old_space if n not in old_manifest.data}
        kept = []
        aside = os.open(OLD, disk.DIRECTORY_FLAGS | os.O_NOFOLLOW, dir_fd=self._root)
        old = Directories(aside)
        try:
            for number, _, start, _ in space.ranges():
                entry = manifest[number]
                if entry.path in places and number not in manifest.data:
                    with contextlib.suppress(OSError):
                        size = _move(old, directories, entry.path, entry.size)
                        first = places[entry.path]
                        kept += [(start + a - first, start + b - first) for a, b in self._within(first, first + size)]
        finally:
            old.close()
            os.close(aside)
        return kept

    def _within(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The ranges of [start, stop) that are present."""
        for first, last in self._present.gaps(start, stop):
            if start < first:
                yield start, first
            start = last
        if start < stop:
            yield start, stop


def disbelieve_short_files(root: int, manifest: Manifest, space: ByteSpace, journal: Journal) -> EntrySet:
    """A file that has lost its end is missing altogether, whatever the journal says. Returns those that are there.
    Raises OSError."""
    there = EntrySet(len(manifest))
    if not journal.usable:
        return there
    lost = []
    directories = Directories(root)
    try:
        for number, offset, start, stop in space.ranges():
            missing = list(journal.usable.gaps(start, stop))
            if missing == [(start, stop)]:
                continue
            last = missing[-1][0] if missing and missing[-1][1] == stop else stop
            if _size(directories, manifest[number].path) < offset + last - start:
                lost.append((start, stop))
            else:
                there.add(number)
    finally:
        directories.close()
    if lost:
        journal.disbelieve(lost, hash_block_size(space.size))
    return there


def _size(directories: Directories, path: str) -> int:
    try:
        directory, name = directories.locate(path)
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
    except OSError:
        return -1


def _move(old: Directories, new: Directories, path: str, size: int) -> int:
    """At most `size` bytes of it. Returns how many; 0 if it is no file. Raises OSError."""
    source, name = old.locate(path)
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        return 0
    if status.st_size > size:
        fd = os.open(name, os.O_WRONLY | disk.FLAGS, dir_fd=source)
        try:
            os.ftruncate(fd, size)
        finally:
            os.close(fd)
    target, _ = new.locate(path)
    os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
    return min(status.st_size, size)


def take_existing(
    root: int, directories: Directories, manifest: Manifest, space: ByteSpace, destination: Destination, fits: bool
) -> list[tuple[int, int]]:
    """Copy files that are to be replaced into the staging directory, but for those that are in it, and those that take
    room where not all `fits`. Returns the ranges that they hold."""
    kept = []
    existing = Directories(root)
    try:
        for number, ranges in groupby(space.ranges(), itemgetter(0)):
            path = manifest[number].path
            with contextlib.suppress(OSError):
                source, name = existing.locate(destination.path_of(path))
                fd = os.open(name, os.O_RDONLY | disk.FLAGS, dir_fd=source)
                try:
                    kept += _copy(fd, directories, path, ranges, fits)
                finally:
                    os.close(fd)
    finally:
        existing.close()
    return kept


def _copy(
    fd: int, directories: Directories, path: str, ranges: Iterable[tuple[int, int, int, int]], fits: bool
) -> list[tuple[int, int]]:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return []
    target, name = directories.locate(path)
    copy = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | disk.FLAGS, 0o600, dir_fd=target)
    try:
        if fits or disk.shares_blocks(fd, copy):
            return [(at, at + disk.copy_content(fd, copy, stop - at, offset)) for _, offset, at, stop in ranges]
    except OSError:
        pass
    finally:
        os.close(copy)
    os.unlink(name, dir_fd=target)  # all of it is sent, then
    return []
