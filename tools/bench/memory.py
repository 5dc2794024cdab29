"""Memory that is warm for every tool alike, and the files in it.

A virtual machine may give free memory back to its host: Linux' free page reporting does so about two seconds after a
free, with blocks of 2 MiB and more. Taking them again costs: 1 GiB written to a new file on tmpfs took 2.3 s of system
time on such a machine, and 0.33 s with warm pages (Linux 6.18, November 2026). A slow tool would meet pages that went
cold while it ran, a fast one would not.

So before everything else a helper process touches as much memory as a destination needs and frees it again except for
one page in each 256 KiB. What is between those is free, warm, and never a block of 2 MiB that could be given away; and
the kernel serves single pages from the smallest blocks first. Before each run the destination is also written once and
removed.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

_PAGE = mmap.PAGESIZE
_KEPT_EVERY = 256 * 1024
_CHUNK = 1 << 20
# Beside the destination, pages go into page tables, sockets and the processes themselves.
_MARGIN = 128 << 20


def _hold(size: int) -> None:
    """The helper: makes the pool, says READY, and keeps it until its standard input ends."""
    pool = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pool.madvise(mmap.MADV_NOHUGEPAGE)
    for offset in range(0, size, _PAGE):
        pool[offset] = 1
    for offset in range(0, size, _KEPT_EVERY):
        length = min(_KEPT_EVERY, size - offset) - _PAGE
        if length > 0:
            pool.madvise(mmap.MADV_DONTNEED, offset + _PAGE, length)
    print("READY", flush=True)
    sys.stdin.buffer.read()


class WarmPool:
    """While it is entered, new files of up to `size` bytes find warm pages."""

    def __init__(self, size: int) -> None:
        self._size = size + _MARGIN
        self._helper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        argv = [sys.executable, __file__, str(-(-self._size // _PAGE) * _PAGE)]
        self._helper = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._helper.stdout is not None
        if self._helper.stdout.readline() != b"READY\n":
            raise RuntimeError("not enough memory for a destination of this size")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._helper is not None:
            self._helper.communicate()
            self._helper = None


def write_random(path: Path, size: int) -> None:
    """A file of random bytes: nothing on the way can compress it."""
    with open(path, "wb", buffering=0) as file:
        for offset in range(0, size, _CHUNK):
            file.write(os.urandom(min(_CHUNK, size - offset)))


def warm(path: Path, size: int) -> None:
    """Writes a file of `size` bytes at `path` and removes it."""
    block = bytes(_CHUNK)
    with open(path, "wb", buffering=0) as file:
        for offset in range(0, size, _CHUNK):
            file.write(memoryview(block)[: min(_CHUNK, size - offset)])
    path.unlink()


def same_content(first: Path, second: Path) -> bool:
    """Whether two files hold the same bytes."""
    if first.stat().st_size != second.stat().st_size:
        return False
    with open(first, "rb", buffering=0) as one, open(second, "rb", buffering=0) as other:
        while chunk := one.read(_CHUNK):
            if chunk != other.read(_CHUNK):
                return False
    return True


if __name__ == "__main__":
    _hold(int(sys.argv[1]))
