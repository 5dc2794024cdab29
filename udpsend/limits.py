"""What the system does not give this process is nobody's bug: said as the error of this side that it is."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from udpsend.errors import LocalFileError

EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
NO_THREAD = "can't start new thread"  # all that Python says of it, in a RuntimeError


def limit_reached(error: BaseException) -> LocalFileError | None:
    """What to say of it, where it is that there are no more open files, no more memory or no more threads."""
    no_more = isinstance(error, OSError) and error.errno in EXHAUSTED
    no_thread = isinstance(error, RuntimeError) and str(error) == NO_THREAD
    if no_more or no_thread or isinstance(error, MemoryError):
        return LocalFileError(
            "This process may not have more files open, more memory, or more threads: see ulimit -n, -v and -u."
        )
    return None


@contextmanager
def limits_told() -> Iterator[None]:
    """Raises LocalFileError for what reaches a limit."""
    try:
        yield
    except Exception as error:
        if (limit := limit_reached(error)) is None:
            raise
        raise limit from error
