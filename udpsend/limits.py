"""What the system does not give this process is nobody's bug: said as the error of this side that it is."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from udpsend.errors import LocalFileError

EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


@contextmanager
def limits_told() -> Iterator[None]:
    """No more open files, or no more memory, raise LocalFileError."""
    try:
        yield
    except (OSError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno not in EXHAUSTED:
            raise
        raise LocalFileError(
            "This process may not have more files open, or more memory: see ulimit -n and ulimit -v."
        ) from error
