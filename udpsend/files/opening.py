"""What is opened of our own in the receiver's directory: nothing that others put there, and by one process only."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator

from udpsend.errors import LocalFileError
from udpsend.files import disk
from udpsend.files.names import quote

# What opening a link, a directory, a socket, or in place of a directory something else, ends with.
# FreeBSD says of a link that there are too many (EMLINK).
_OTHER_KINDS = {errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO, errno.ENOTDIR}
_EFFECTIVE = os.access in os.supports_effective_ids


def open_destination(path: str | os.PathLike[str]) -> int:
    """As `disk.open_directory`, of one that takes new names."""
    directory = disk.open_directory(path)
    try:
        check_takes_names(directory, os.fspath(path))
    except BaseException:
        os.close(directory)
        raise
    return directory


def check_takes_names(directory: int, path: str) -> None:
    """Raises LocalFileError, OSError."""
    if not os.access(".", os.W_OK | os.X_OK, dir_fd=directory, effective_ids=_EFFECTIVE):
        read_only = os.fstatvfs(directory).f_flag & os.ST_RDONLY
        error = OSError(errno.EROFS if read_only else errno.EACCES, "")
        raise disk.local_error(error, "write into the directory", path)


def set_directory_mode(fd: int, mode: int) -> None:
    """As `disk.set_mode`. Setgid, which a directory has from the one that it was made in, stays: what is in that, and
    what comes, belongs to its group."""
    disk.set_mode(fd, mode | os.fstat(fd).st_mode & stat.S_ISGID)


def is_own_read_only(directory: int) -> bool:
    """Whether its owner, who we are, may not write to it, as long as the mode is not changed."""
    status = os.fstat(directory)
    return status.st_uid == os.geteuid() and not status.st_mode & stat.S_IWUSR


def open_own_file(directory: int, name: str) -> int:
    """A descriptor of our own hidden file `name`, made if it is not there, readable by its owner alone.

    O_NOFOLLOW and the checks keep us from writing through what somebody planted under that name: a link, a device, a
    file of another user (who could change it after it was verified), or a hard link to a file that is in use elsewhere;
    the last may also be what a crash between link() and unlink() left, so that name is given up and made anew.
    Raises LocalFileError, OSError.
    """
    flags = os.O_RDWR | os.O_CREAT | disk.FLAGS
    with _no_others(directory, name):
        fd = open_writable(directory, name, flags)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or not _is_ours(directory, status):
            raise _in_the_way(name)
        if status.st_nlink <= 1:
            return fd
        os.unlink(name, dir_fd=directory)
        fresh = os.open(name, flags | os.O_EXCL, 0o600, dir_fd=directory)
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return fresh


def open_own_directory(directory: int, name: str) -> int:
    """As `open_own_file`."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=directory)
    with _no_others(directory, name, "a directory"):
        fd = os.open(name, disk.DIRECTORY_FLAGS | os.O_NOFOLLOW, dir_fd=directory)
    try:
        if not _is_ours(directory, os.fstat(fd)):
            raise _in_the_way(name, "a directory")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _is_ours(directory: int, status: os.stat_result) -> bool:
    """Whether it may be something that we have made in `directory`. File systems without owners give all that is in
    them one (FAT, NTFS and SMB, as they are mounted), and NFS gives what root makes to nobody. Raises OSError."""
    if status.st_uid == os.geteuid():
        return True
    probe = f".udpsend-{os.getpid()}-owner"
    fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | disk.FLAGS, 0o600, dir_fd=directory)
    try:
        return os.fstat(fd).st_uid == status.st_uid
    finally:
        os.close(fd)
        os.unlink(probe, dir_fd=directory)


def open_writable(directory: int, name: str, flags: int) -> int:
    """A descriptor of a file that we made, or make here. A crash just before the last rename leaves what has its final
    mode already, maybe read-only. Raises OSError."""
    try:
        return os.open(name, flags, 0o600, dir_fd=directory)
    except PermissionError as denied:
        try:
            fd = os.open(name, os.O_RDONLY | disk.FLAGS, dir_fd=directory)
        except FileNotFoundError:  # it cannot be made
            raise denied from None
        try:
            os.fchmod(fd, 0o600)
        finally:
            os.close(fd)
        return os.open(name, flags, 0o600, dir_fd=directory)


def open_locked(directory: int, hidden: str, name: str, open_own: Callable[[int, str], int]) -> int:
    """A descriptor of `hidden`, into which `name` is received: locked, and still of that name when the lock is ours, as
    who held it before may have renamed it into place meanwhile. Raises LocalFileError, and what `open_own` raises."""
    for _ in range(8):
        fd = open_own(directory, hidden)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise LocalFileError(
                f"Another udpsend is receiving {quote(name)} into this directory: let it end, or stop it."
            ) from error
        except OSError:  # a file system without locks: as good as it gets there
            pass
        if disk.is_same_file(directory, hidden, fd):
            return fd
        os.close(fd)
    raise LocalFileError(f"Others keep changing {quote(hidden)}: stop them, and try again.")


def _in_the_way(name: str, of: str = "a file") -> LocalFileError:
    return LocalFileError(f"{quote(name)} is in the way, and is not {of} of yours: remove it, and try again.")


@contextlib.contextmanager
def _no_others(directory: int, name: str, of: str = "a file") -> Iterator[None]:
    """While `name` is opened: something of another kind may have this name, or what another user (root, with sudo)
    began to receive, which does not let us in."""
    try:
        yield
    except OSError as error:
        if error.errno in _OTHER_KINDS or (isinstance(error, PermissionError) and _is_of_another(directory, name)):
            raise _in_the_way(name, of) from error
        raise


def _is_of_another(directory: int, name: str) -> bool:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_uid != os.geteuid()
    except OSError:
        return False
