"""The sender's side of a manifest: several paths, and all that is below those that are directories.

1. The paths that the user named come first, under their last component; links among them are followed, since the user
   named them.
2. Then, directory by directory in the order in which they were found, what is in each, by name.
3. What cannot be sent (sockets, devices, what may not be read, names that no receiver takes, links that lead out) is
   kept with its reason, and told to both users.

Nothing outside of the named paths is opened: directories are entered by descriptor, and links not followed, but for
`follow`, which sends what they point to in their place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence

from msgspec import Struct, field

from udpsend.errors import BadPacket, LocalFileError, UsageError
from udpsend.files.disk import DIRECTORY_FLAGS, local_error
from udpsend.files.entries import (
    LONG_PATH,
    MAX_NAMED,
    MAX_RANGES,
    MAX_TIME,
    MAX_VERSION,
    MODE_BITS,
    Directory,
    Entry,
    File,
    Link,
    Sparse,
)
from udpsend.files.holes import MIN_HOLE, data_ranges, may_have_holes
from udpsend.files.ignore import Ignore
from udpsend.files.manifest import Skipped
from udpsend.files.names import (
    are_ordinary,
    check_name_untrusted,
    check_own_name,
    check_path_untrusted,
    check_target_untrusted,
    quote,
)

_KINDS = {
    stat.S_IFSOCK: "is a socket",
    stat.S_IFIFO: "is a pipe",
    stat.S_IFCHR: "is a device",
    stat.S_IFBLK: "is a device",
}

INODE_BITS = 16
_NOWHERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}

OWN_FILE = stat.S_IFREG | stat.S_IRUSR  # and the bits that say so:
KIND_AND_OWNER = stat.S_IFMT(0xFFFF) | stat.S_IRUSR
_EFFECTIVE = os.access in os.supports_effective_ids


def version_of(status: os.stat_result) -> int:
    """Differs when the file may have changed, also where somebody has set its time back: a change sets st_ctime, which
    nobody can set. The last INODE_BITS tell files apart that have no such time."""
    change = status.st_ctime_ns * 0xC2B2AE3D27D4EB4F >> 16 << INODE_BITS
    return (change | status.st_ino * 0x9E3779B97F4A7C15 >> 16 & (1 << INODE_BITS) - 1) & MAX_VERSION


def time_of(status: os.stat_result) -> int:
    """Before 1823 or after 2116 the nearest that an entry can say."""
    time = status.st_mtime_ns
    if -MAX_TIME <= time <= MAX_TIME:  # three times for each file, so in the quickest way
        return time
    return MAX_TIME if time > 0 else -MAX_TIME


def file_entry(path: str, status: os.stat_result) -> File:
    return File(path, status.st_size, status.st_mode & MODE_BITS, time_of(status), version_of(status))


def top_names(paths: Sequence[str | os.PathLike[str]], ignore: Ignore) -> dict[str, str]:
    """The name under which each path is offered; a shell's `*` names what is excluded, too. Raises LocalFileError: not
    there, no name that a receiver takes, or two of the same name; UsageError where nothing is left."""
    tops: dict[str, str] = {}
    for given in paths:
        path = os.fspath(given)
        name = os.path.basename(path.rstrip("/"))
        try:
            status = os.stat(path)  # before the code is shown: a typing error is told at once
            if name in ("", ".", ".."):
                name = os.path.basename(os.path.realpath(path)) or "root"
        except OSError as error:
            raise local_error(error, "read", path) from error
        except ValueError as error:
            raise LocalFileError(f"Cannot read {quote(path)}: there is no such file.") from error
        if ignore.matches(name, stat.S_ISDIR(status.st_mode)):
            continue
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise LocalFileError(
                f"{quote(name)} is a device, a pipe or a socket: only files and directories can be sent."
            )
        check_own_name(name)
        if name in tops:
            raise LocalFileError(f"Two of the paths are called {quote(name)}: send them one after the other.")
        tops[name] = path
    if paths and not tops:
        raise UsageError("Nothing is left to send: --exclude (or UDPSEND_EXCLUDE) matches all of the paths.")
    return tops


class _Directory(Struct):
    path: str
    ancestors: frozenset[tuple[int, int]]
    ignore: Ignore


class Walk(Struct):
    """`entries` can be gone through once; `skipped` grows meanwhile, and has the first of `skipped_count`."""

    tops: dict[str, str]
    opened: dict[str, int]
    """Descriptors of those among them that are open already."""
    follow: bool
    ignore: Ignore
    skipped: list[Skipped] = field(default_factory=list)
    skipped_count: int = 0
    _user: int = field(default_factory=os.geteuid)
    _queue: deque[_Directory] = field(default_factory=deque)
    _ranges_left: int = MAX_RANGES

    def entries(self) -> Iterator[Entry]:
        """Raises LocalFileError when a path that the user named is gone."""
        for name, path in self.tops.items():
            try:
                fd = self.opened.get(name)
                status = os.stat(path) if fd is None else os.fstat(fd)
                if fd is None and not os.access(path, os.R_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            except OSError as error:
                raise local_error(error, "read", path) from error
            if stat.S_ISDIR(status.st_mode):
                yield self._directory(name, status, frozenset(), self.ignore)
            elif stat.S_ISREG(status.st_mode):
                yield self._file(name, status, path, None)
        while self._queue:
            directory = self._queue.popleft()
            try:
                fd = self._open(directory.path)
            except OSError:
                self._skip(directory.path, "cannot be opened")
                continue
            try:
                yield from self._list(fd, directory)
            finally:
                os.close(fd)

    def _open(self, path: str) -> int:
        top, *rest = path.split("/")
        fd = os.open(self.tops[top], DIRECTORY_FLAGS)
        for name in rest:
            above = fd
            try:
                fd = os.open(name, DIRECTORY_FLAGS | (0 if self.follow else os.O_NOFOLLOW), dir_fd=above)
            finally:
                os.close(above)
        return fd

    def _list(self, fd: int, directory: _Directory) -> Iterator[Entry]:
        try:
            names = sorted(os.listdir(fd))
        except OSError:
            self._skip(directory.path, "cannot be listed")
            return
        ignore = directory.ignore.below(directory.path, fd, names)
        quick = are_ordinary(names) and not ignore and len(directory.path) < LONG_PATH
        for name in names:
            path = f"{directory.path}/{name}"
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=self.follow)
                if quick and status.st_mode & KIND_AND_OWNER == OWN_FILE and status.st_uid == self._user:
                    yield self._file(path, status, name, fd) if status.st_size > MIN_HOLE else file_entry(path, status)
                    continue
            except OSError as error:
                if not ignore.matches(path, False):
                    self._skip(path, _why_not(error, fd, name))
                continue
            if ignore.matches(path, stat.S_ISDIR(status.st_mode)):
                continue
            entry = self._entry(fd, name, path, status, directory, ignore)
            if entry is not None:
                yield entry

    def _entry(
        self, fd: int, name: str, path: str, status: os.stat_result, directory: _Directory, ignore: Ignore
    ) -> Entry | None:
        kind = stat.S_IFMT(status.st_mode)
        try:
            check_name_untrusted(name)
            if len(path) > 1000 or kind == stat.S_IFDIR:
                check_path_untrusted(path + "/x" if kind == stat.S_IFDIR else path)
            if kind == stat.S_IFREG:
                mine = status.st_uid == self._user and status.st_mode & stat.S_IRUSR
                if mine or os.access(name, os.R_OK, dir_fd=fd, effective_ids=_EFFECTIVE):
                    return self._file(path, status, name, fd)
                self._skip(path, "may not be read")
            elif kind == stat.S_IFDIR:
                if (status.st_dev, status.st_ino) in directory.ancestors:
                    self._skip(path, "is a directory that contains itself")
                else:
                    return self._directory(path, status, directory.ancestors, ignore)
            elif kind == stat.S_IFLNK:
                target = os.readlink(name, dir_fd=fd)
                try:
                    check_target_untrusted(path, target, self.tops)
                except BadPacket:
                    self._skip(path, "is a link that leads out of what is sent")
                else:
                    return Link(path, target, time_of(status))
            else:
                self._skip(path, _KINDS.get(kind, "is of an unknown kind"))
        except BadPacket as error:
            self._skip(path, f"has a name that {error}")
        except OSError:
            self._skip(path, "cannot be read")
        return None

    def _file(self, path: str, status: os.stat_result, name: str, above: int | None) -> File:
        """`name` is seen from `above`."""
        entry = file_entry(path, status)
        if may_have_holes(status) and self._ranges_left > 0:
            follow = 0 if self.follow or above is None else os.O_NOFOLLOW
            with contextlib.suppress(OSError):  # it will be told when it is read
                fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | follow, dir_fd=above)
                try:
                    data = data_ranges(fd, status.st_size, self._ranges_left)
                finally:
                    os.close(fd)
                if data is not None:
                    self._ranges_left -= len(data)
                    return Sparse(entry.path, entry.size, entry.mode, entry.mtime_ns, entry.version, data)
        return entry

    def _directory(
        self, path: str, status: os.stat_result, ancestors: frozenset[tuple[int, int]], ignore: Ignore
    ) -> Entry:
        if self.follow:
            ancestors |= {(status.st_dev, status.st_ino)}
        self._queue.append(_Directory(path, ancestors, ignore))
        return Directory(path, status.st_mode & MODE_BITS, time_of(status))

    def _skip(self, path: str, why: str) -> None:
        self.skipped_count += 1
        if len(self.skipped) < MAX_NAMED:
            printable = path.encode(errors="backslashreplace").decode()
            self.skipped.append(Skipped(printable[:4096], why))


def _why_not(error: OSError, directory: int, name: str) -> str:
    """It cannot be looked at."""
    with contextlib.suppress(OSError):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if error.errno in _NOWHERE and stat.S_ISLNK(status.st_mode):
            return "is a link that points nowhere"
    return "cannot be looked at"
