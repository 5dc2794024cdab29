"""The process of `udpsend` and of `python -m udpsend`: its start before anything is imported, and its end."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress
from typing import NoReturn

STOPPED = 130  # `Cancelled.exit_code`: the errors may be among what is not imported yet


def run() -> NoReturn:
    """It ends without taking the interpreter apart, which looks at every object there is: 20 to 40 ms."""
    _occupy_standard_streams()
    gc.disable()  # what is imported stays; `cli/collector.py` says when it collects again
    try:
        from udpsend.cli import main  # a tenth of a second, in which somebody sees the typing error and presses Ctrl-C

        status = main()
    except KeyboardInterrupt:
        status = STOPPED
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()
    os._exit(status)


def _occupy_standard_streams() -> None:
    """A process may be started without some of them. Sockets would get their numbers, and what is written to standard
    output would go there."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


if __name__ == "__main__":
    run()
