"""BLAKE3 sums of files, one line each, as `b3sum` writes and reads them: 64 hex digits, two spaces, the path.

A path with a backslash, a line feed or a carriage return in it is escaped, and its line then begins with a backslash. A
carriage return at the end of a line is part of the line end.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from udpsend.errors import LocalFileError
from udpsend.files.disk import (
    BEGIN_ANEW,
    DIRECTORY_FLAGS,
    FLAGS,
    errors_told,
    local_error,
    rename_no_replace,
    status_of,
)
from udpsend.files.names import ENCODING, SUMS_SUFFIX, quote

MAX_SUMS = 1 << 30  # bytes of a file of sums
_LINE = re.compile(r"(\\?)([0-9a-f]{64}) [ *]?(.+?)\r?")
_MEANINGS = {r"\\": "\\", r"\n": "\n", r"\r": "\r"}
_ESCAPES = str.maketrans({character: escape for escape, character in _MEANINGS.items()})
_ESCAPED = re.compile(r"\\[\\nr]")


OnSkipped = Callable[[str, str], None]


class Checked(Struct, frozen=True):
    path: str
    problem: str | None
    """None if the content is what it was."""


def sum_of(path: str | os.PathLike[str]) -> str:
    """Raises OSError."""
    from blake3 import blake3

    hasher = blake3(max_threads=blake3.AUTO)
    with open(_open_file(path), "rb", buffering=0) as file:
        block = memoryview(bytearray(1 << 20))
        while count := file.readinto(block):
            hasher.update(block[:count])
    return hasher.hexdigest()


def _open_file(path: str | os.PathLike[str]) -> int:
    """A descriptor of a file, or of what a link to it points to: pipes would be waited for, and devices may be without
    an end. They are not even opened, but where one takes the place of a file just then. Raises OSError."""
    _check_is_file(os.stat(path))
    fd = os.open(path, os.O_RDONLY | (FLAGS & ~os.O_NOFOLLOW))
    try:
        _check_is_file(os.fstat(fd))
    except OSError:
        os.close(fd)
        raise
    return fd


def _check_is_file(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is a device, a pipe or a socket")


def sum_line(digest: str, path: str) -> str:
    escaped = path.translate(_ESCAPES)
    mark = "\\" if escaped != path else ""
    return f"{mark}{digest}  {escaped}\n"


def check(sums: str | os.PathLike[str]) -> Iterator[Checked]:
    """Each file named in `sums`, relative to the current directory. Raises LocalFileError if there are no sums."""
    with (
        errors_told("read", os.fspath(sums)),
        open(sums, encoding=ENCODING, errors="surrogateescape", newline="\n") as file,
    ):
        content = file.read(MAX_SUMS)
    if not content:
        raise LocalFileError(f"There are no sums in {quote(os.fspath(sums))}: it is empty.")
    lines = content.removesuffix("\n").split("\n")
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise LocalFileError(
                f"Line {number} of {quote(os.fspath(sums))} is no BLAKE3 sum: 64 hex digits, two spaces, a path."
            )
        path = _ESCAPED.sub(lambda found: _MEANINGS[found[0]], match[3]) if match[1] else match[3]
        try:
            problem = None if sum_of(path) == match[2] else "its content is another"
        except OSError as error:
            problem = error.strerror or str(error)
        except ValueError:  # NUL
            problem = "no file can have this name"
        yield Checked(path, problem)


def save_sums(sums: str | os.PathLike[str], paths: Iterable[str | os.PathLike[str]], on_skipped: OnSkipped) -> int:
    """Write the sums of files, and of all files below directories, to a file that does not exist yet, and that has its
    name when it is complete. Returns how many; `on_skipped` is told the path of what is below a directory and cannot be
    read, and why. Raises LocalFileError."""
    path = os.fspath(sums)
    named = [os.fspath(path) for path in paths]
    for one in named:
        _check_named(one)
    above, name = os.path.split(path)
    hidden = f".{secrets.token_hex(8)}{SUMS_SUFFIX}"
    count = 0
    with errors_told("write", path, BEGIN_ANEW):
        where = os.open(above or ".", DIRECTORY_FLAGS)
        try:
            if status_of(where, name or ".") is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            fd = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | FLAGS, 0o666, dir_fd=where)
            with open(fd, "w", encoding=ENCODING, errors="surrogateescape") as file:
                with contextlib.suppress(OSError):  # a file system without locks
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for line in _lines(named, on_skipped):
                    file.write(line)
                    count += 1
                if not count:
                    raise LocalFileError("There is no file of which a sum could be saved.")
                file.flush()
                os.fsync(fd)
            rename_no_replace(where, hidden, name)
        finally:
            with contextlib.suppress(OSError):  # it has its name, or never was
                os.unlink(hidden, dir_fd=where)
            os.close(where)
    return count


def _check_named(path: str) -> None:
    """Before anything is read: a typing error is told at once. Raises LocalFileError."""
    with errors_told("read", path):
        status = os.stat(path)
        if not stat.S_ISDIR(status.st_mode):
            _check_is_file(status)


def _lines(paths: Iterable[str], on_skipped: OnSkipped) -> Iterator[str]:
    """Not of what these are written to, nor of what one who was killed has left of that. Raises LocalFileError for what
    cannot be read and is among `paths`."""
    for named in paths:
        for path in _files(named, on_skipped):
            if path.endswith(SUMS_SUFFIX):
                continue
            try:
                digest = sum_of(path)
            except OSError as error:
                if path == named:
                    raise local_error(error, "read", path) from error
                leads_nowhere = isinstance(error, FileNotFoundError) and os.path.islink(path)
                on_skipped(path, "it is a link that leads nowhere" if leads_nowhere else error.strerror or str(error))
            else:
                yield sum_line(digest, path)


def _files(named: str, on_skipped: OnSkipped) -> Iterator[str]:
    if not os.path.isdir(named):
        yield named
        return

    def failed(error: OSError) -> None:
        if error.filename == named:
            raise local_error(error, "read", named) from error
        on_skipped(error.filename, error.strerror or str(error))

    for directory, _, names in os.walk(named, onerror=failed):
        yield from (os.path.join(directory, name) for name in sorted(names))
