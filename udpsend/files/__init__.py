"""Files <-> byte ranges: what is offered, where it is read, where it is written, and what survives a crash."""

import os

from udpsend.errors import UsageError

# Nothing is opened by a path that others could swap meanwhile: without openat this room has no ground to stand on.
if os.open not in os.supports_dir_fd:
    raise UsageError(
        "This system (Windows?) cannot open files relative to a directory, which keeps what comes inside of it.\n"
        "Use Linux, macOS, a BSD, or the Windows Subsystem for Linux."
    )
