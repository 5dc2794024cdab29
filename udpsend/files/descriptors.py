"""Descriptors that were open before us: standard input and output, mostly pipes or terminals."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat

from udpsend.errors import LocalFileError
from udpsend.files.disk import errors_told
from udpsend.files.hashing import POLL_INTERVAL

STDIN, STDOUT = "standard input", "standard output"
PIPE_SIZE = 1 << 20  # bytes; what Linux lets anybody have
SELECT_LIMIT = 1024  # FD_SETSIZE


def check_readable(descriptor: int) -> None:
    """Raises LocalFileError."""
    with errors_told("read", STDIN):
        _check_mode(descriptor, os.O_WRONLY)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise LocalFileError("Standard input is a directory: name it, in place of -.")


def check_writable(descriptor: int) -> None:
    """As `check_readable`: it is known before the other side comes."""
    with errors_told("write", STDOUT):
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


def enlarge_pipe(descriptor: int) -> None:
    """Fewer and larger pieces, where it is a pipe and the system lets us."""
    command = getattr(fcntl, "F_SETPIPE_SZ", None)
    if command is not None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, command, PIPE_SIZE)
