"""What the file system is asked for, and what a user reads when it says no.

Everything below the receiver's directory goes through one descriptor of it, opened once: whatever is renamed, swapped
or linked above it later, files land in the directory that the user named.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from udpsend.errors import LocalFileError
from udpsend.files.names import quote

# Of all that is opened below a directory: follows no link, waits for no pipe, takes no terminal.
FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_GOES_ON = "run the same command again, it goes on where it stopped"
BEGIN_ANEW = "begin anew: this cannot go on where it stopped"
_GONE = "the file system has gone away; mount it again and {then}"
_REASONS = {
    errno.ENOENT: "there is no such file or directory",
    errno.EACCES: "permission denied; check who owns it and its mode",
    errno.EPERM: "the system does not permit it; check who owns it",
    errno.ENOSPC: "the disk is full; free some space and {then}",
    errno.EDQUOT: "your disk quota is used up; free some space and {then}",
    errno.EROFS: "the file system is read-only; choose another directory",
    errno.EIO: "the disk reports an input/output error; it may be failing",
    errno.EFBIG: "the file system, or a limit of your shell (ulimit -f), does not allow files this large",
    errno.ENAMETOOLONG: "the file system does not allow names this long",
    errno.ENOTDIR: "a part of the path is not a directory",
    errno.EISDIR: "it is a directory",
    errno.ELOOP: "it is a symbolic link, or a loop of them; remove it",
    errno.EMFILE: "too many files are open in this process; raise ulimit -n",
    errno.EXDEV: "what arrives is moved into place, and not to another file system; receive into another directory",
    errno.ESTALE: "the network file system lost it; mount it again and {then}",
    errno.ENOTCONN: _GONE,
    errno.ECONNABORTED: _GONE,  # FUSE, of what was under way when it went
    errno.ETXTBSY: "it is a program that is running",
    errno.EPIPE: "its reader has ended",
}


def local_error(error: OSError, doing: str, name: str, then: str = _GOES_ON) -> LocalFileError:
    """`Cannot write 'a.bin': the disk is full; ...` from what the system said, and what to do when that has changed."""
    reason = _REASONS.get(error.errno or 0, "").format(then=then) or error.strerror or str(error)
    return LocalFileError(f"Cannot {doing} {quote(name)}: {reason}.")


@contextlib.contextmanager
def errors_told(doing: str, name: str, then: str = _GOES_ON) -> Iterator[None]:
    """What the system says no to is raised as `local_error`."""
    try:
        yield
    except OSError as error:
        raise local_error(error, doing, name, then) from error


def open_directory(path: str | os.PathLike[str]) -> int:
    """A descriptor of the directory that the user named (links in its own path are the user's). Raises
    LocalFileError."""
    try:
        return os.open(path, DIRECTORY_FLAGS)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise LocalFileError(f"There is no directory {quote(os.fspath(path))}.") from error
    except OSError as error:
        raise local_error(error, "open the directory", os.fspath(path)) from error


def release(*fds: int) -> None:
    """Close files of which nothing is asked any more. Where the file system went away (FUSE, NFS), each close fails;
    who needed what is in them has learnt it from another call."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def is_same_file(directory: int, name: str, fd: int) -> bool:
    """Whether `name` is the file open as `fd`, and not a link to it."""
    try:
        there = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(there, os.fstat(fd))


def status_of(directory: int, name: str) -> os.stat_result | None:
    """Of what has this name, links not followed; None if nothing has. Raises OSError."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def names_in(directory: int) -> list[str]:
    """Of what is in it now. A descriptor tells of what was there when it was opened, or read to its end the last time:
    more need not show (POSIX, readdir), and on btrfs does not. Raises OSError."""
    fd = os.open(".", DIRECTORY_FLAGS, dir_fd=directory)
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)


def free_bytes(fd: int) -> int | None:
    """What this user may still write there, or None where the file system does not say."""
    status = os.fstatvfs(fd)
    return status.f_bavail * status.f_frsize if status.f_blocks else None


def has_room(fd: int, size: int) -> bool:
    """As far as the file system says."""
    free = free_bytes(fd)
    return free is None or size <= free


def check_room(fd: int, size: int, for_what: str = "") -> None:
    """Raises LocalFileError if there is none."""
    free = free_bytes(fd)
    if free is not None and size > free:
        raise LocalFileError(
            f"Not enough space{for_what}: {size / 1e6:,.1f} MB are needed and {free / 1e6:,.1f} MB are free. "
            "Free some space, or choose another directory."
        )


def holds_size(fd: int, size: int) -> bool:
    """Whether a file may be this large here: seeking is refused past the largest file (4 GiB - 1 on FAT)."""
    try:
        os.lseek(fd, size, os.SEEK_SET)
    except OSError:
        return False
    return True


def current_umask() -> int:
    """The umask, without setting it where the system can tell: setting it changes it for other threads, too."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def sync_content(fd: int) -> None:
    """Bring what was written to the disk. Raises OSError."""
    (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(fd)  # macOS has the second one only


def sync_directory(directory: int) -> None:
    """Make names durable. Some file systems cannot sync a directory, and nothing can be done about it."""
    with contextlib.suppress(OSError):
        os.fsync(directory)


def write_all(fd: int, view: memoryview, offset: int) -> None:
    """Raises OSError."""
    while len(view):
        count = os.pwrite(fd, view, offset)
        offset += count
        view = view[count:]


def read_all(fd: int, view: memoryview, offset: int) -> int:
    """Fill `view`. Returns how many bytes there were: fewer, where the file ends. Raises OSError."""
    done = 0
    while done < len(view) and (count := os.preadv(fd, (view[done:],), offset + done)):
        done += count
    return done


def set_mode(fd: int, mode: int) -> None:
    """As far as the file system has modes, and ours to set. Raises OSError."""
    with contextlib.suppress(PermissionError):  # not ours, by its owner (opening.py), or no mode for FAT
        os.fchmod(fd, mode)


def set_time(what: int | str, mtime_ns: int, directory: int | None = None) -> None:
    """The modification time of what is open, or of the name `what` in `directory`, where a link is not followed; as far
    as the file system can keep it. The access time is now: by that, cleaners decide what nobody needs any more."""
    try:
        os.utime(what, ns=(time.time_ns(), mtime_ns), dir_fd=directory, follow_symlinks=directory is None)
    except (OSError, OverflowError, NotImplementedError):
        return


def sync_file_system(fd: int) -> None:
    """Bring all that was written to the file system of `fd` to the disk. Raises OSError."""
    import ctypes  # 10 ms

    function = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if function is None:
        os.sync()
    elif function(fd):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def copy_content(source: int, target: int, size: int, offset: int = 0) -> int:
    """`size` bytes from `offset` of one open file into another, in the kernel where it can (it may share the blocks).
    Returns how many there were. Raises OSError."""
    done = 0
    while done < size:
        at = offset + done
        try:
            count = os.copy_file_range(source, target, size - done, at, at)
        except (OSError, AttributeError) as error:  # the second one where the system does not have it
            if isinstance(error, OSError) and error.errno not in NO_SUCH_WAY | {errno.EXDEV, errno.EBADF}:
                raise
            count = os.pwrite(target, os.pread(source, min(size - done, 1 << 20), at), at)
        if not count:
            break
        done += count
    return done


def shares_blocks(source: int, target: int) -> bool:
    """Whether a copy of `source` takes no room. `target` is empty, and stays so."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    finally:
        os.ftruncate(target, 0)
    return True


class _Unsupported(Exception):
    """This file system or this system does not have that way."""


def rename_no_replace(directory: int, old: str, new: str, to: int | None = None) -> None:
    """Rename (into the directory `to`), unless `new` exists. Raises FileExistsError, OSError.

    renameat2 does it in one step; link() as well, leaving two names for a moment; where neither exists (FAT on older
    systems, some FUSE) an empty file takes the name first, which nobody else can then take.
    """
    for way in WAYS_TO_RENAME:
        try:
            return way(directory, old, new, directory if to is None else to)
        except _Unsupported:
            continue
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


NO_SUCH_WAY = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
_RENAME_NOREPLACE = 1  # linux/fs.h
_FICLONE = 0x40049409  # linux/fs.h


def _by_renameat2(directory: int, old: str, new: str, to: int) -> None:
    import ctypes  # 10 ms, once, at the end

    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        raise _Unsupported
    if function(directory, os.fsencode(old), to, os.fsencode(new), _RENAME_NOREPLACE) == 0:
        return
    code = ctypes.get_errno()
    if code in NO_SUCH_WAY:
        raise _Unsupported
    raise OSError(code, os.strerror(code))


def _by_link(directory: int, old: str, new: str, to: int) -> None:
    try:
        os.link(old, new, src_dir_fd=directory, dst_dir_fd=to, follow_symlinks=False)
    except OSError as error:
        if error.errno in NO_SUCH_WAY | {errno.EPERM, errno.EMLINK}:
            raise _Unsupported from error
        raise
    there = os.stat(new, dir_fd=to, follow_symlinks=False)
    if not os.path.samestat(there, os.stat(old, dir_fd=directory, follow_symlinks=False)):
        # sshfs: the file that is open would have lost its name, and nobody could tell whose the new one is.
        os.unlink(new, dir_fd=to)
        raise _Unsupported
    os.unlink(old, dir_fd=directory)


def _by_placeholder(directory: int, old: str, new: str, to: int) -> None:
    if stat.S_ISDIR(os.stat(old, dir_fd=directory, follow_symlinks=False).st_mode):
        os.mkdir(new, 0o700, dir_fd=to)
    else:
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=to))
    os.rename(old, new, src_dir_fd=directory, dst_dir_fd=to)


WAYS_TO_RENAME: tuple[Callable[[int, str, str, int], None], ...] = (_by_renameat2, _by_link, _by_placeholder)
